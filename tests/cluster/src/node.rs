//! One node: its command line, its process, and what its logs say when it fails.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::Error;
use crate::jars::Jars;
use crate::java::Java;
use crate::leash::Leash;
use crate::process::{POLL, Process};
use crate::tool;

/// The directories of what a node keeps.
pub(crate) const DATA: [&str; 4] = ["data", "commitlog", "hints", "saved_caches"];

/// What all nodes' command lines have in common.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) java: Java,
    pub(crate) jars: Jars,
    pub(crate) heap_mib: u32,
    /// Whether only the first of the two just-in-time compilers runs.
    pub(crate) fast: bool,
    /// How many nodes there are.
    pub(crate) nodes: usize,
    pub(crate) jvm_options: Vec<String>,
}

/// A node of a cluster, running or not.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) number: usize,
    pub(crate) address: SocketAddr,
    pub(crate) jmx_port: u16,
    pub(crate) datacenter: String,
    pub(crate) rack: String,
    pub(crate) directory: PathBuf,
    pub(crate) process: Mutex<Option<Process>>,
}

impl Node {
    /// Starts the node's process, unless it runs. Does not wait until it serves.
    pub(crate) fn start(&self, launch: &Launch, leash: &Leash) -> Result<(), Error> {
        let mut process = self.process();
        if process.as_mut().is_some_and(Process::is_running) {
            return Ok(());
        }
        let failed = |source| Error::Io { doing: format!("starting node {}", self.number), source };
        // JNA and netty unpack their native parts here at each start.
        let temporary = self.directory.join("tmp");
        let _ = fs::remove_dir_all(&temporary);
        fs::create_dir_all(&temporary).map_err(failed)?;
        let log = File::options().create(true).append(true).open(self.console_log()).map_err(failed)?;
        let pid_file = self.directory.join("pid");

        let mut command =
            leash.command(&self.marker(), Some(&pid_file), &launch.java.java).map_err(failed)?;
        command
            .args(self.arguments(launch))
            .env("MALLOC_ARENA_MAX", "2")
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log);
        *process = Some(
            Process::spawn(command, self.marker(), &pid_file)
                .map_err(|error| self.failure(&format!("did not start: {error}")))?,
        );
        Ok(())
    }

    fn arguments(&self, launch: &Launch) -> Vec<String> {
        let root = self.directory.display();
        let mut arguments = self.common_arguments("logback.xml", "tmp");
        arguments.extend([
            format!("-Xms{}M", launch.heap_mib),
            format!("-Xmx{}M", launch.heap_mib),
            "-XX:MaxDirectMemorySize=384M".to_owned(),
            format!("-XX:ErrorFile={root}/logs/hs_err.log"),
            "-Dcassandra-foreground=yes".to_owned(),
            "-Dcassandra.libjemalloc=-".to_owned(),
            format!("-Dcassandra.jmx.local.port={}", self.jmx_port),
            "-Dcom.sun.management.jmxremote.authenticate=false".to_owned(),
            "-Dcassandra.skip_wait_for_gossip_to_settle=0".to_owned(),
            "-Dcassandra.ring_delay_ms=10000".to_owned(),
            // What it would measure at each start, taking 1.5 s of a core.
            "-Dcassandra.memtable.row_overhead_size=180".to_owned(),
            "-Dcassandra.superuser_setup_delay_ms=1000".to_owned(),
            format!("-Dcassandra.system_auth.default_rf={}", launch.nodes),
            format!("-Dcassandra.system_distributed.default_rf={}", launch.nodes),
            "-Dcassandra.auth_bcrypt_gensalt_log2_rounds=4".to_owned(),
            "-Dcassandra.shutdown_announce_in_ms=500".to_owned(),
        ]);
        if let Some(jamm) = launch.jars.jamm() {
            arguments.push(format!("-javaagent:{}", jamm.display()));
        }
        if launch.fast {
            arguments.push("-XX:TieredStopAtLevel=1".to_owned());
        }
        // A node that has joined before keeps its host id and token, so that the check for a collision may be left out, which
        // fails when no peer is up. On a first start it stays on.
        if self.has_joined_before() {
            arguments.push("-Dcassandra.allow_unsafe_join=true".to_owned());
        }
        arguments.extend(launch.jvm_options.iter().cloned());
        arguments.extend(self.class_path(&launch.jars));
        arguments.push("org.apache.cassandra.service.CassandraDaemon".to_owned());
        arguments
    }

    /// Runs `nodetool` against this node.
    pub(crate) fn nodetool(
        &self,
        launch: &Launch,
        command: &[&str],
        limit: Duration,
    ) -> Result<String, Error> {
        let mut arguments = self.common_arguments("logback-tools.xml", "tools/tmp");
        arguments.extend([
            "-Xmx128m".to_owned(),
            "-XX:TieredStopAtLevel=1".to_owned(),
            format!("-Duser.home={}/tools", self.directory.display()),
        ]);
        arguments.extend(self.class_path(&launch.jars));
        arguments.extend(["org.apache.cassandra.tools.NodeTool", "-h", "127.0.0.1", "-p"].map(str::to_owned));
        arguments.push(self.jmx_port.to_string());
        arguments.extend(command.iter().map(|&word| word.to_owned()));
        let name = format!("nodetool {} of node {}", command.join(" "), self.number);
        tool::run(&name, &launch.java.java, &self.marker(), arguments, limit)
    }

    fn common_arguments(&self, logback: &str, temporary: &str) -> Vec<String> {
        let root = self.directory.display();
        vec![
            format!("@{root}/conf/jvm.options"),
            self.marker(),
            format!("-Djava.io.tmpdir={root}/{temporary}"),
            format!("-Djna.tmpdir={root}/{temporary}"),
            format!("-Dlogback.configurationFile={logback}"),
            format!("-Dcassandra.logdir={root}/logs"),
            format!("-Dcassandra.storagedir={root}"),
            format!("-Dcassandra.config=file://{root}/conf/cassandra.yaml"),
        ]
    }

    fn class_path(&self, jars: &Jars) -> [String; 2] {
        ["-cp".to_owned(), format!("{}/conf:{}", self.directory.display(), jars.class_path())]
    }

    fn marker(&self) -> String {
        format!("-Dtower.cassandra.node={}", self.directory.display())
    }

    fn has_joined_before(&self) -> bool {
        fs::read_dir(self.directory.join("data/system")).is_ok_and(|mut tables| tables.next().is_some())
    }

    /// Deletes its data. Its logs stay.
    pub(crate) fn clear(&self) -> Result<(), Error> {
        for part in DATA {
            let directory = self.directory.join(part);
            fs::remove_dir_all(&directory).map_err(Error::io("deleting", &directory))?;
        }
        Ok(())
    }

    /// The process, if one was started and not yet stopped.
    pub(crate) fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process().as_mut().is_some_and(Process::is_running)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.process().as_ref().is_some_and(Process::is_stopped)
    }

    /// Sends a signal to the node's process, which must run.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        let mut process = self.process();
        let Some(process) = process.as_mut().and_then(|process| process.is_running().then_some(process))
        else {
            return Err(Error::Request(format!("node {} does not run", self.number)));
        };
        process
            .signal(signal)
            .map_err(|source| Error::Io { doing: format!("signalling node {}", self.number), source })
    }

    /// Waits until the process has ended; false when `limit` came first.
    pub(crate) fn wait_ended(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while self.is_running() {
            if Instant::now() > end {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }

    /// An error about this node, with what its logs say.
    pub(crate) fn failure(&self, what: &str) -> Error {
        let console = tail(&self.console_log(), 25, |_| true);
        let errors = tail(&self.system_log(), 8, |line| line.starts_with("ERROR"));
        let mut excerpt = format!("end of console.log:\n{console}");
        if !errors.is_empty() {
            excerpt.push_str("\nlast errors in system.log:\n");
            excerpt.push_str(&errors);
        }
        Error::Node { node: self.number, what: what.to_owned(), log: self.directory.join("logs"), excerpt }
    }

    /// The ends of both logs.
    pub(crate) fn logs(&self) -> String {
        let console = tail(&self.console_log(), 20, |_| true);
        format!("{console}\n--- system.log\n{}", tail(&self.system_log(), 60, |_| true))
    }

    /// Whether `system.log` has a line that contains `text`.
    pub(crate) fn has_logged(&self, text: &str) -> bool {
        fs::read_to_string(self.system_log()).is_ok_and(|log| log.contains(text))
    }

    fn console_log(&self) -> PathBuf {
        self.directory.join("logs/console.log")
    }

    fn system_log(&self) -> PathBuf {
        self.directory.join("logs/system.log")
    }
}

fn tail(path: &Path, lines: usize, wanted: impl Fn(&str) -> bool) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let wanted: Vec<&str> = text.lines().filter(|line| wanted(line)).collect();
    wanted[wanted.len().saturating_sub(lines)..].join("\n")
}
