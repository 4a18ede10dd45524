//! A running cluster and what can be done to its nodes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use crate::Error;
use crate::builder::Builder;
use crate::configuration::Settings;
use crate::leash::Leash;
use crate::node::{Launch, Node};
use crate::readiness::poll;

/// How long a node may take to end after a SIGTERM before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How long the kernel may take to do as a signal says.
const SIGNAL_LIMIT: Duration = Duration::from_secs(10);
/// How long a node may take to serve CQL.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(180);
const NODETOOL_LIMIT: Duration = Duration::from_secs(60);

/// A Cassandra cluster of this process's own. All of it ends, and its files go, when it is dropped or when this process dies.
///
/// Nodes are numbered from 1. What is done to a node is done when the method returns.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) settings: Settings,
    pub(crate) launch: Launch,
    pub(crate) nodes: Vec<Node>,
    pub(crate) state: PathBuf,
    pub(crate) keep: bool,
    pub(crate) leash: Leash,
    pub(crate) guard: Mutex<Option<Child>>,
}

impl Cluster {
    /// Describes a cluster to start.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// How many nodes there are, running or not.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// Where node `n` serves CQL.
    ///
    /// # Panics
    /// When there is no node `n`.
    pub fn address(&self, n: usize) -> SocketAddr {
        self.node(n).expect("a number of a node").address
    }

    /// Where the nodes serve CQL, in their order.
    pub fn contact_points(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// The data centre of node `n`.
    ///
    /// # Panics
    /// When there is no node `n`.
    pub fn datacenter(&self, n: usize) -> &str {
        &self.node(n).expect("a number of a node").datacenter
    }

    /// The version of Cassandra, such as `5.0.8`.
    pub fn version(&self) -> &str {
        &self.launch.jars.version
    }

    /// The certificate of the authority that signed the nodes' certificates, PEM; none without TLS.
    pub fn ca_pem(&self) -> Option<&Path> {
        self.settings.certificates.as_ref().map(|certificates| certificates.authority.as_path())
    }

    /// Where the nodes' files are.
    pub fn directory(&self) -> &Path {
        &self.state
    }

    /// Asks node `n` to end (SIGTERM): it tells its peers and drains. Kills it after 60 s. A paused node is resumed first.
    ///
    /// # Errors
    /// When there is no such node or when it does not run.
    pub fn stop(&self, n: usize) -> Result<(), Error> {
        let node = self.node(n)?;
        node.signal(Signal::TERM)?;
        node.signal(Signal::CONT).or_else(|error| if node.is_running() { Err(error) } else { Ok(()) })?;
        if node.wait_ended(STOP_LIMIT) { Ok(()) } else { self.kill(n) }
    }

    /// Kills node `n` (SIGKILL), paused or not. Its peers learn of it when they miss it, after some 20 s.
    ///
    /// # Errors
    /// When there is no such node or when it does not run.
    pub fn kill(&self, n: usize) -> Result<(), Error> {
        let node = self.node(n)?;
        node.signal(Signal::KILL)?;
        if node.wait_ended(SIGNAL_LIMIT) { Ok(()) } else { Err(node.failure("does not end")) }
    }

    /// Starts node `n`, with the data that it had, and waits until it serves CQL. Does nothing when it runs.
    ///
    /// # Errors
    /// When there is no such node, or when it does not serve after 180 s.
    pub fn start_node(&self, n: usize) -> Result<(), Error> {
        self.node(n)?.start(&self.launch, &self.leash)?;
        self.wait_cql(n, START_LIMIT)
    }

    /// Starts node `n` as a new one, without the data that it had: it has the same address, another host id, and takes its data from the
    /// others. Waits until it serves CQL, which takes twice the ring delay longer than [`start_node`](Self::start_node). For a node that
    /// does not run and has left the cluster, as by `nodetool decommission`.
    ///
    /// # Errors
    /// When there is no such node, or it is the first, which the others ask for the ring; when it runs, or when it does not serve after
    /// 180 s.
    pub fn start_anew(&self, n: usize) -> Result<(), Error> {
        let node = self.node(n)?;
        if n == 1 || node.is_running() {
            return Err(Error::Request(format!(
                "node {n} cannot be made a new one: stop it, and take another than the first"
            )));
        }
        node.clear()?;
        self.settings.write(node, self.node(1)?, true)?;
        self.start_node(n)
    }

    /// [`stop`](Self::stop)s and [`start_node`](Self::start_node)s node `n`.
    ///
    /// # Errors
    /// As these do.
    pub fn restart(&self, n: usize) -> Result<(), Error> {
        self.stop(n)?;
        self.start_node(n)
    }

    /// Stops node `n` in its tracks (SIGSTOP): its connections stay open, and nothing answers on them.
    ///
    /// # Errors
    /// When there is no such node or when it does not run.
    pub fn pause(&self, n: usize) -> Result<(), Error> {
        let node = self.node(n)?;
        node.signal(Signal::STOP)?;
        poll(SIGNAL_LIMIT, || if node.is_paused() { Ok(()) } else { Err("not paused yet".to_owned()) })
    }

    /// Lets a paused node `n` go on (SIGCONT).
    ///
    /// # Errors
    /// When there is no such node or when it does not run.
    pub fn resume(&self, n: usize) -> Result<(), Error> {
        self.node(n)?.signal(Signal::CONT)
    }

    /// Pauses node `n` until what is returned is dropped, be it by a panic.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub fn paused(&self, n: usize) -> Result<PausedNode<'_>, Error> {
        self.pause(n)?;
        Ok(PausedNode { cluster: self, node: n })
    }

    /// Whether node `n` has a process, paused or not.
    pub fn is_running(&self, n: usize) -> bool {
        self.node(n).is_ok_and(Node::is_running)
    }

    /// Whether node `n` is paused.
    pub fn is_paused(&self, n: usize) -> bool {
        self.node(n).is_ok_and(Node::is_paused)
    }

    /// The process id of node `n`, if it runs.
    pub fn pid(&self, n: usize) -> Option<i32> {
        let mut process = self.node(n).ok()?.process();
        process.as_mut().and_then(|process| process.is_running().then(|| process.id()))
    }

    /// Runs `nodetool` against node `n` and returns what it prints. Takes a second: it is a Java program.
    ///
    /// # Errors
    /// When there is no such node, when `nodetool` fails, or when it takes more than 60 s, as it does against a paused node.
    pub fn nodetool(&self, n: usize, command: &[&str]) -> Result<String, Error> {
        self.node(n)?.nodetool(&self.launch, command, NODETOOL_LIMIT)
    }

    /// The ends of node `n`'s logs; empty when there is no such node.
    pub fn logs(&self, n: usize) -> String {
        self.node(n).map(Node::logs).unwrap_or_default()
    }

    /// Ends all nodes at once and deletes their files (unless `CASSANDRA_KEEP` is 1). Dropping the cluster does the same.
    pub fn shutdown(&self) {
        let Some(mut guard) = self.guard.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        self.leash.release();
        for node in &self.nodes {
            node.wait_ended(SIGNAL_LIMIT);
        }
        // It deletes the files, after which there is nothing left to do about an error.
        let _ = guard.wait();
        if self.keep {
            eprintln!("cassandra-cluster: the files are kept in {}", self.state.display());
        }
    }

    pub(crate) fn node(&self, n: usize) -> Result<&Node, Error> {
        let node = n.checked_sub(1).and_then(|index| self.nodes.get(index));
        node.ok_or_else(|| {
            Error::Request(format!("there is no node {n}: the nodes are 1 to {}", self.size()))
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// A node that is paused as long as this lives.
#[derive(Debug)]
#[must_use = "the node is resumed when this is dropped"]
pub struct PausedNode<'a> {
    cluster: &'a Cluster,
    node: usize,
}

impl Drop for PausedNode<'_> {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _ = self.cluster.resume(self.node);
    }
}
