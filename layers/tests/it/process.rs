//! An example as a process of its own, which says where it listens and is told to end.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use rustix::process::{Pid, Signal, kill_process};

/// A process, killed when this is dropped.
pub(crate) struct Example {
    process: Child,
    output: BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
}

impl Example {
    /// Starts an example of this package. The last word of its first line is the address that it listens at.
    pub(crate) fn start(name: &str, set_up: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(built(name));
        set_up(&mut command);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim_end().rsplit(' ').next().unwrap().parse();
        let address = address.unwrap_or_else(|_| panic!("no address in {line:?}"));
        Self { process, output, address }
    }

    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
    }

    /// How it ended, and what it had to say.
    pub(crate) fn ended(&mut self, within: Duration) -> (ExitStatus, String) {
        let status = until("it ends", within, || self.process.try_wait().unwrap());
        let mut said = String::new();
        self.output.read_to_string(&mut said).unwrap();
        (status, said)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The example, beside the test; built now if cargo was told to build this test only, and what is there, if anything, is an older one.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let example = profile.join("examples").join(name);
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = ["src", "examples", "layers/src"].map(|folder| changed(&package.join(folder)));
    if changed(&example) < sources.into_iter().max().flatten() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", env!("CARGO_PKG_NAME"), "--example", name]);
        cargo.current_dir(package).arg("--target-dir").arg(profile.parent().unwrap());
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success());
    }
    example
}

/// When a file, or the youngest in a folder, was changed; `None` if there is none.
fn changed(path: &Path) -> Option<SystemTime> {
    match fs::read_dir(path) {
        Ok(entries) => entries.filter_map(|entry| changed(&entry.ok()?.path())).max(),
        Err(_) => fs::metadata(path).ok()?.modified().ok(),
    }
}

/// Looks again and again: another process wakes nobody here.
pub(crate) fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < within, "it has not come to pass that {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
