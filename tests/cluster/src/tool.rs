//! Runs a Java program to its end (`nodetool`, `keytool`, Maven) and returns what it printed.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::Error;
use crate::leash::Leash;

/// Runs `program`, kills it when it takes longer than `limit` or when this process dies, and returns its standard output.
/// `marker` must be contained in `arguments`; `name` is what error messages call the program.
pub(crate) fn run<I, S>(
    name: &str,
    program: &Path,
    marker: &str,
    arguments: I,
    limit: Duration,
) -> Result<String, Error>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let failed = |source| Error::Io { doing: format!("running {name}"), source };
    // A leash of its own: letting go of it is how the program is killed when time is up.
    let leash = Leash::new().map_err(failed)?;
    let mut command = leash.command(marker, None, program).map_err(failed)?;
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(failed)?;

    let (done, ended) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        let late = ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
        drop(leash);
        late
    });
    let output = child.wait_with_output().map_err(failed);
    drop(done);
    let late = watchdog.join().unwrap_or(false);
    let output = output?;
    if late {
        return Err(Error::Timeout { what: format!("{name} did not end"), after: limit });
    }
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Error::Command(format!("{name} failed ({})\n{}{}", output.status, stdout, stderr.trim_end())))
}
