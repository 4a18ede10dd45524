//! How no process outlives its owner, whatever kills the owner.
//!
//! Each process is the child of a small shell script that also reads from a pipe. This process alone holds the pipe's other end
//! and never writes: when it drops the [`Leash`], or dies, the script reads an end of file and kills its child. A shell script,
//! since the owner is somebody's test binary, which this crate cannot start again as its supervisor.

use std::ffi::OsStr;
use std::io::{self, PipeReader, PipeWriter};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

const SUPERVISE: &str = include_str!("../assets/supervise.sh");
const GUARD: &str = include_str!("../assets/guard.sh");

/// What ties processes to this one. Dropped or released, all of them are killed.
#[derive(Debug)]
pub(crate) struct Leash {
    far_end: PipeReader,
    // Closed on exec, as all that std opens, so that no other child of this process keeps the pipe open.
    near_end: Mutex<Option<PipeWriter>>,
}

impl Leash {
    pub(crate) fn new() -> io::Result<Self> {
        let (far_end, near_end) = io::pipe()?;
        Ok(Self { far_end, near_end: Mutex::new(Some(near_end)) })
    }

    /// A command that runs `program` on this leash; its arguments are to be added and must contain `marker`, by which the process
    /// is known again before it is signalled. The program's pid is written to `pid_file`, when there is one.
    pub(crate) fn command(
        &self,
        marker: &str,
        pid_file: Option<&Path>,
        program: &Path,
    ) -> io::Result<Command> {
        let mut command = self.script(SUPERVISE, "supervise")?;
        command.arg(marker).arg(pid_file.map_or(OsStr::new(""), Path::as_os_str)).arg(program);
        Ok(command)
    }

    /// A command that deletes `state` (unless it is to be kept) once this leash is released and no node of that directory runs.
    pub(crate) fn guard(&self, state: &Path, keep: bool) -> io::Result<Command> {
        let mut command = self.script(GUARD, "guard")?;
        command.arg(state).arg(if keep { "keep" } else { "delete" });
        Ok(command)
    }

    /// Ends every process on this leash. Does not wait for it.
    pub(crate) fn release(&self) {
        drop(self.near_end.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn script(&self, text: &str, name: &str) -> io::Result<Command> {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(text).arg(name).stdin(Stdio::from(self.far_end.try_clone()?));
        // Out of the terminal's foreground group: a Ctrl-C there is for the owner, and its death does the rest.
        command.process_group(0);
        Ok(command)
    }
}
