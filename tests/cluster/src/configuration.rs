//! What each node's files say: its tokens, `cassandra.yaml`, snitch and logging.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::certificates::{Certificates, PASSWORD};
use crate::node::{DATA, Node};
use crate::{Error, Tls};

const YAML: &str = include_str!("../assets/cassandra.yaml");
const JVM_OPTIONS: &str = include_str!("../assets/jvm.options");
const LOGBACK: &str = include_str!("../assets/logback.xml");
const LOGBACK_TOOLS: &str = include_str!("../assets/logback-tools.xml");

/// What all nodes of a cluster have in common.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) cluster_name: String,
    /// Nodes per data centre, in order.
    pub(crate) datacenters: Vec<(String, usize)>,
    pub(crate) auth: bool,
    pub(crate) tls: Tls,
    pub(crate) certificates: Option<Certificates>,
    /// Appended to `cassandra.yaml`, where the later key wins.
    pub(crate) yaml: String,
}

impl Settings {
    /// Replicas in each data centre for a keyspace that every node has all of, as CQL's replication map.
    pub(crate) fn full_replication(&self) -> String {
        let mut map = "{'class': 'NetworkTopologyStrategy'".to_owned();
        for (name, nodes) in &self.datacenters {
            let _ = write!(map, ", '{name}': {nodes}");
        }
        map + "}"
    }

    /// Writes all that `node` reads at its start, and whether it takes its data from the others when it joins them.
    pub(crate) fn write(&self, node: &Node, seed: &Node, bootstraps: bool) -> Result<(), Error> {
        let root = &node.directory;
        for part in ["conf/triggers", "logs", "tmp", "tools/tmp"].into_iter().chain(DATA) {
            let directory = root.join(part);
            fs::create_dir_all(&directory).map_err(Error::io("making", &directory))?;
        }
        let rack = format!("dc={}\nrack={}\n", node.datacenter, node.rack);
        write(&root.join("conf/cassandra-rackdc.properties"), &rack)?;
        write(&root.join("conf/jvm.options"), JVM_OPTIONS)?;
        write(&root.join("conf/logback.xml"), LOGBACK)?;
        write(&root.join("conf/logback-tools.xml"), LOGBACK_TOOLS)?;
        write(&root.join("conf/cassandra.yaml"), &self.cassandra_yaml(node, seed, bootstraps))
    }

    fn cassandra_yaml(&self, node: &Node, seed: &Node, bootstraps: bool) -> String {
        let (authenticator, authorizer) = if self.auth {
            ("PasswordAuthenticator", "CassandraAuthorizer")
        } else {
            ("AllowAllAuthenticator", "AllowAllAuthorizer")
        };
        let mut yaml = YAML
            .replace("@CLUSTER@", &self.cluster_name)
            .replace("@TOKEN@", &self.token(node).to_string())
            .replace("@IP@", &node.address.ip().to_string())
            .replace("@SEEDS@", &seed.address.ip().to_string())
            .replace("@BOOTSTRAPS@", &bootstraps.to_string())
            .replace("@DIR@", &node.directory.to_string_lossy())
            .replace("@AUTHENTICATOR@", authenticator)
            .replace("@AUTHORIZER@", authorizer);
        if self.auth && self.tls == Tls::Required {
            // system_auth stays at its SimpleStrategy, for which a local quorum in a data centre of one node does not exist.
            yaml.push_str("\nauth_read_consistency_level: QUORUM\nauth_write_consistency_level: QUORUM\n");
        }
        if let Some(certificates) = &self.certificates {
            let _ = write!(
                yaml,
                "
client_encryption_options:
    enabled: true
    optional: {}
    keystore: {}
    keystore_password: {PASSWORD}
    truststore: {}
    truststore_password: {PASSWORD}
    store_type: PKCS12
    require_client_auth: false
",
                self.tls == Tls::Optional,
                certificates.key_store.display(),
                certificates.trust_store.display(),
            );
        }
        yaml.push('\n');
        yaml.push_str(&self.yaml);
        yaml
    }

    /// The node's one token: evenly spaced in its data centre, each data centre a little further on, since no two nodes may have
    /// the same.
    fn token(&self, node: &Node) -> i64 {
        let mut first = 1;
        for (index, (name, nodes)) in (1_i64..).zip(&self.datacenters) {
            if *name == node.datacenter {
                let rank = i64::try_from(node.number - first).expect("few nodes");
                let step = i64::MAX / i64::try_from(*nodes).expect("few nodes");
                // Twice the step at a time: the ring is as long as i64, which is twice i64::MAX.
                return -i64::MAX + index * 1_000_003 + rank * step + rank * step;
            }
            first += nodes;
        }
        unreachable!("a node is in one of the data centres")
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::io("writing", path))
}
