//! What can go wrong, said so that the reader knows what to do next.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a cluster, or one of its nodes, did not do what was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Java or Maven is not installed: one line that says what to install.
    Missing(String),
    /// The request makes no sense: no such node, too many nodes, a node that does not run.
    Request(String),
    /// No version of Cassandra could be brought from Maven Central.
    Jars(String),
    /// A node ended, or did not get ready in time.
    Node {
        /// The node's number, from 1.
        node: usize,
        /// What happened to it.
        what: String,
        /// Where its logs are, as long as the cluster lives (see `CASSANDRA_KEEP`).
        log: PathBuf,
        /// The end of its console output and the errors in its `system.log`.
        excerpt: String,
    },
    /// A condition did not come about in time.
    Timeout {
        /// The condition, and what is missing from it.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// A program of Cassandra's or Java's (`nodetool`, `keytool`) failed.
    Command(String),
    /// The operating system refused.
    Io {
        /// What was being done.
        doing: String,
        /// Its reason.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: an I/O error met while `doing` something to `path`.
    pub(crate) fn io(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let doing = format!("{doing} {}", path.display());
        move |source| Self::Io { doing, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(line) | Self::Request(line) | Self::Jars(line) | Self::Command(line) => {
                f.write_str(line)
            }
            Self::Node { node, what, log, excerpt } => {
                write!(
                    f,
                    "node {node} {what}; its logs are in {} (CASSANDRA_KEEP=1 keeps them)\n{excerpt}",
                    log.display()
                )
            }
            Self::Timeout { what, after } => write!(f, "after {} s: {what}", after.as_secs()),
            Self::Io { doing, source } => write!(f, "{doing}: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
