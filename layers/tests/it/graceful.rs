//! The example `graceful_shutdown`, as a process that is told to end.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

/// The example, beside the test; built now if cargo was told to build this test only.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let example = profile.join("examples/graceful_shutdown");
    if !example.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "palisade", "--example", "graceful_shutdown"]);
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).arg("--target-dir").arg(profile.parent().unwrap());
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success());
    }
    example
}

struct Server {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
    address: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let mut process = Command::new(example()).arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim_end().rsplit(' ').next().unwrap().parse();
        let address = address.unwrap_or_else(|_| panic!("no address in {line:?}"));
        Self { process, output, address }
    }

    fn terminate(&self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
    }

    /// How it ended, and what it had to say.
    fn ended(&mut self) -> (ExitStatus, String) {
        let status = until(|| self.process.try_wait().unwrap());
        let mut said = String::new();
        self.output.read_to_string(&mut said).unwrap();
        (status, said)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Looks again and again: another process wakes nobody here.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < LONG, "it has not come to pass");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The status and the body of an answer; `None` if there is no answer.
fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(LONG)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

#[test]
fn a_process_that_is_terminated_finishes_what_it_has_begun_and_ends_with_success() {
    let mut server = Server::start();
    let address = server.address;
    assert_eq!(get(address, "/ready"), Some((200, "0 in flight\n".to_owned())));
    let slow = std::thread::spawn(move || get(address, "/slow"));
    until(|| get(address, "/ready").filter(|(_, body)| body == "1 in flight\n"));

    server.terminate();
    let unready = until(|| get(address, "/ready").filter(|(status, _)| *status != 200));
    assert_eq!(unready.0, 503);
    // The load balancer has not seen that yet.
    assert_eq!(get(address, "/"), Some((200, "hello\n".to_owned())));
    // By now it has: whoever comes still is refused, or finds nobody there.
    let late = until(|| Some(get(address, "/")).filter(|answer| !matches!(answer, Some((200, _)))));
    assert!(late.is_none_or(|(status, _)| status == 503));

    assert_eq!(slow.join().unwrap(), Some((200, "done\n".to_owned())));
    let (status, said) = server.ended();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("finished: true, in_flight: 0"), "{said}");
}
