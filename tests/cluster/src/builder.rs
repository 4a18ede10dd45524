//! What a cluster is to look like.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::certificates::Certificates;
use crate::configuration::Settings;
use crate::jars::Jars;
use crate::java::SearchPath;
use crate::leash::Leash;
use crate::node::{Launch, Node};
use crate::slot::{self, CQL_PORT, MOST_NODES, Slot};
use crate::{Cluster, Error};

/// Whether connections of clients are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// They are not.
    #[default]
    Off,
    /// As the client likes: the nodes take both on one port.
    Optional,
    /// They must be.
    Required,
}

/// How much the nodes' just-in-time compiler does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jit {
    /// Little: a node starts in half the time. For tests.
    #[default]
    Fast,
    /// All that it can. For benchmarks.
    Full,
}

/// Describes a cluster; made by [`Cluster::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `start` is called"]
pub struct Builder {
    datacenters: Vec<(String, usize)>,
    auth: bool,
    tls: Tls,
    jit: Jit,
    heap_mib: u32,
    yaml: String,
    jvm_options: Vec<String>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            datacenters: Vec::new(),
            auth: false,
            tls: Tls::Off,
            jit: Jit::Fast,
            heap_mib: 512,
            yaml: String::new(),
            jvm_options: Vec::new(),
        }
    }
}

impl Builder {
    /// Adds a data centre of that many nodes, each in a rack of its own (`rack1`, `rack2`, ...). Nodes are numbered from 1, on
    /// from one data centre to the next; 6 at most in all. Default: one node in `dc1`.
    pub fn datacenter(mut self, name: impl Into<String>, nodes: usize) -> Self {
        self.datacenters.push((name.into(), nodes));
        self
    }

    /// Whether clients must log in; the superuser is `cassandra` with the password `cassandra`. Default: no.
    pub fn auth(mut self, auth: bool) -> Self {
        self.auth = auth;
        self
    }

    /// Whether clients' connections are encrypted, with certificates of the authority in [`Cluster::ca_pem`]. Default: not.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// How much the nodes' compiler does. Default: [`Jit::Fast`].
    pub fn jit(mut self, jit: Jit) -> Self {
        self.jit = jit;
        self
    }

    /// Java heap of each node, in MiB; the process takes 300 MiB or so besides. Default: 512.
    pub fn heap_mib(mut self, heap: u32) -> Self {
        self.heap_mib = heap;
        self
    }

    /// Lines to append to every node's `cassandra.yaml`. A key that is there already is overridden.
    pub fn yaml(mut self, lines: &str) -> Self {
        self.yaml.push_str(lines);
        self.yaml.push('\n');
        self
    }

    /// An option to append to every node's Java command line, such as `-Dcassandra.x=y`.
    pub fn jvm_option(mut self, option: impl Into<String>) -> Self {
        self.jvm_options.push(option.into());
        self
    }

    /// Starts the cluster and waits until every node serves CQL and knows every other. Takes 4 s and up, more the first time
    /// ever, when Cassandra is downloaded.
    ///
    /// # Errors
    /// When Java is missing, when Cassandra cannot be had, or when a node does not come up. Nothing is left running then.
    pub fn start(self) -> Result<Cluster, Error> {
        self.check()?;
        let search = SearchPath::from_env();
        let java = search.java()?;
        let jars = Jars::resolve(&search)?;
        let (slot, lock) = Slot::take()?;
        let state = new_state_directory(slot)?;
        let keep = std::env::var_os("CASSANDRA_KEEP").is_some_and(|keep| keep == "1");
        let doing = |source| Error::Io { doing: "starting the guard".to_owned(), source };
        let leash = Leash::new().map_err(doing)?;
        let guard = leash.guard(&state, keep).map_err(doing)?.stdout(lock).spawn().map_err(doing)?;

        let datacenters =
            if self.datacenters.is_empty() { vec![("dc1".to_owned(), 1)] } else { self.datacenters };
        let places = datacenters
            .iter()
            .flat_map(|(name, nodes)| (1..=*nodes).map(move |rack| (name.clone(), format!("rack{rack}"))));
        let nodes: Vec<Node> = (1..)
            .zip(places)
            .map(|(number, (datacenter, rack))| Node {
                number,
                address: (slot.address(number), CQL_PORT).into(),
                jmx_port: slot.jmx_port(number),
                datacenter,
                rack,
                directory: state.join(format!("node{number}")),
                process: Mutex::new(None),
            })
            .collect();
        let mut cluster = Cluster {
            settings: Settings {
                cluster_name: format!("test {}", slot.address(0)),
                datacenters,
                auth: self.auth,
                tls: self.tls,
                certificates: None,
                yaml: self.yaml,
            },
            launch: Launch {
                heap_mib: self.heap_mib,
                fast: self.jit == Jit::Fast,
                nodes: nodes.len(),
                jvm_options: self.jvm_options,
                java,
                jars,
            },
            nodes,
            state,
            keep,
            leash,
            guard: Mutex::new(Some(guard)),
        };
        // From here on an error drops the cluster, which ends what has been started.
        if self.tls != Tls::Off {
            let addresses: Vec<_> = cluster.nodes.iter().map(|node| slot.address(node.number)).collect();
            let keytool = cluster.launch.java.keytool();
            cluster.settings.certificates =
                Some(Certificates::make(&keytool, &cluster.state.join("tls"), &addresses)?);
        }
        cluster.boot()?;
        Ok(cluster)
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |what: &str| Err(Error::Request(what.to_owned()));
        let plain = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
        };
        if self.datacenters.iter().any(|(name, nodes)| *nodes == 0 || !plain(name)) {
            return wrong("a data centre needs a name of letters, digits, _ and -, and at least one node");
        }
        let names: std::collections::HashSet<_> = self.datacenters.iter().map(|(name, _)| name).collect();
        if names.len() != self.datacenters.len() {
            return wrong("a data centre is named twice");
        }
        if self.datacenters.iter().map(|(_, nodes)| *nodes).sum::<usize>() > MOST_NODES {
            return wrong("a cluster may have 6 nodes at most");
        }
        Ok(())
    }
}

fn new_state_directory(slot: Slot) -> Result<PathBuf, Error> {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("cluster-{}-{}-{number}", slot.address(0), std::process::id());
    let path = slot::directory()?.join(name);
    // Of a process that had the same id, with CASSANDRA_KEEP.
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).map_err(Error::io("making", &path))?;
    Ok(path)
}
