//! Runs a real Apache Cassandra cluster on loopback, for tests, examples and benchmarks.
//!
//! ```no_run
//! use std::time::Duration;
//! use cassandra_cluster::{Cluster, State};
//!
//! # fn main() -> Result<(), cassandra_cluster::Error> {
//! let cluster = Cluster::builder().datacenter("dc1", 2).datacenter("dc2", 1).start()?;
//! println!("connect to {:?}", cluster.contact_points());
//! cluster.kill(3)?;
//! cluster.wait_for(3, State::Down, Duration::from_secs(90))?;
//! # Ok(())
//! # }
//! ```
//!
//! It takes Linux, Java 17 and, the first time, Maven and a network: the server's jars come from Maven Central and are cached.
//! Several clusters run beside each other, each on a loopback network of its own, from one process or many. No node outlives
//! the [`Cluster`], or the process that started it, however that ends.
//!
//! To use a cluster that runs already instead, see [`external`].
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `CASSANDRA_CONTACT_POINTS` | a cluster of the user's own, `HOST[:PORT],...`, see [`external`] | none |
//! | `CASSANDRA_VERSION` | which 5.0.x to run | the first of 5.0.8 and a few others that Maven Central has |
//! | `CASSANDRA_JARS` | where jars are cached | `$XDG_CACHE_HOME/tower-cassandra/jars`, `~/.cache/...` |
//! | `CASSANDRA_KEEP` | `1`: do not delete the nodes' files | |
//! | `JAVA_HOME` | the Java to run them with | the first in `PATH` |
//! | `TMPDIR` | where the nodes' files are, in `tower-cassandra-UID` | `/tmp` |

#![forbid(unsafe_code)]

mod builder;
mod certificates;
mod cluster;
mod configuration;
mod cql;
mod error;
mod jars;
mod java;
mod leash;
mod node;
mod process;
mod readiness;
mod slot;
mod tool;

pub use builder::{Builder, Jit, Tls};
pub use cluster::{Cluster, PausedNode};
pub use error::Error;
pub use readiness::State;

use jars::Jars;
use java::SearchPath;

/// The contact points of a cluster of the user's own, from `CASSANDRA_CONTACT_POINTS` (separated by commas); none when it is not
/// set.
pub fn external() -> Option<Vec<String>> {
    let points = std::env::var("CASSANDRA_CONTACT_POINTS").ok()?;
    let points: Vec<String> =
        points.split(',').map(|point| point.trim().to_owned()).filter(|point| !point.is_empty()).collect();
    Some(points).filter(|points| !points.is_empty())
}

/// Whether a cluster can be started here: there is a Java that Cassandra runs on, and Maven or what it would bring.
///
/// # Errors
/// One line that says what to install.
pub fn requirements() -> Result<(), Error> {
    let search = SearchPath::from_env();
    search.java()?;
    if !Jars::are_cached() {
        search.maven()?;
    }
    Ok(())
}

/// Brings Cassandra's jars into the cache, unless they are there, and returns their version.
///
/// # Errors
/// When Maven is missing or cannot bring them.
pub fn resolve() -> Result<String, Error> {
    Jars::resolve(&SearchPath::from_env()).map(|jars| jars.version)
}
