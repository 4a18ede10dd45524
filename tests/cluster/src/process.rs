//! One Java process on a leash: is it there, which signal reaches it.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How often a condition of a process is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// A running process and the script that watches over it.
#[derive(Debug)]
pub(crate) struct Process {
    supervisor: Child,
    pid: Pid,
    marker: String,
}

impl Process {
    /// Starts what [`Leash::command`](crate::leash::Leash::command) made, with the same `marker` and `pid_file`.
    pub(crate) fn spawn(mut command: Command, marker: String, pid_file: &Path) -> io::Result<Self> {
        match fs::remove_file(pid_file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut supervisor = command.spawn()?;
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(pid) = fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse().ok()) {
                let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("pid 0"))?;
                return Ok(Self { supervisor, pid, marker });
            }
            if supervisor.try_wait()?.is_some() || Instant::now() > end {
                return Err(io::Error::other("the process ended at once"));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether the process has not ended yet; a stopped one has not.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.supervisor.try_wait(), Ok(None))
    }

    /// Whether the process is stopped by `SIGSTOP`.
    pub(crate) fn is_stopped(&self) -> bool {
        self.is_ours()
            && fs::read_to_string(format!("/proc/{}/status", self.pid)).is_ok_and(|status| {
                status
                    .lines()
                    .find_map(|line| line.strip_prefix("State:"))
                    .is_some_and(|state| state.trim().starts_with('T'))
            })
    }

    /// The process id.
    pub(crate) fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends `signal`, unless the process has ended already.
    pub(crate) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        // The pid may be somebody else's as soon as the supervisor has waited for it.
        if !self.is_running() || !self.is_ours() {
            return Ok(());
        }
        kill_process(self.pid, signal)?;
        Ok(())
    }

    fn is_ours(&self) -> bool {
        fs::read(format!("/proc/{}/cmdline", self.pid))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == self.marker.as_bytes()))
    }
}
