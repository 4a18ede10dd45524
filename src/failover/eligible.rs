//! May a request be served by another datacenter, and at which consistency level?

use std::{borrow::Cow, fmt};

use scylla::statement::Consistency;

use super::datacenters::{Datacenter, Source};
use crate::request::{Kind, Request};

/// What is served elsewhere as it is: the levels that count the replicas of the coordinator's datacenter only.
///
/// All others count replicas of every datacenter, wherever the coordinator is: what fails in one at `QUORUM` fails in the next.
///
/// ```
/// use tower_cassandra::{failover::local_levels, scylla::statement::Consistency};
///
/// assert_eq!(local_levels(Consistency::LocalQuorum), Some(Consistency::LocalQuorum));
/// assert_eq!(local_levels(Consistency::Quorum), None);
/// ```
pub const fn local_levels(consistency: Consistency) -> Option<Consistency> {
    match consistency {
        Consistency::LocalOne | Consistency::LocalQuorum | Consistency::LocalSerial => Some(consistency),
        _ => None,
    }
}

/// Why a request is not served by another datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stays {
    Kind(Kind),
    Serial,
    Level(Consistency),
    NoReplicas { keyspace: String },
}

/// The level at which `to` serves a request, or why it does not. There is none for a preparation.
pub(super) fn level_at(
    request: &Request,
    to: &Datacenter,
    source: &dyn Source,
    allow_serial: bool,
) -> Result<Option<Consistency>, Stays> {
    match request.kind() {
        Kind::Prepare => return Ok(None),
        Kind::Read | Kind::Write | Kind::Batch => {}
        Kind::Transaction if allow_serial => {}
        Kind::Transaction => return Err(Stays::Serial),
        other => return Err(Stays::Kind(other)),
    }
    let level = request.stated_consistency().unwrap_or_else(|| source.consistency());
    if matches!(level, Consistency::Serial | Consistency::LocalSerial) && !allow_serial {
        return Err(Stays::Serial);
    }
    let mapped = to.level(level).ok_or(Stays::Level(level))?;
    // A batch may be over several, and needs replicas of all.
    for keyspace in request.keyspaces() {
        let keyspace = keyspace.or_else(|| source.keyspace().map(Cow::Owned));
        if let Some(keyspace) = keyspace.filter(|keyspace| !source.has_replicas(keyspace, &to.name)) {
            return Err(Stays::NoReplicas { keyspace: keyspace.into_owned() });
        }
    }
    Ok((mapped != level).then_some(mapped))
}

impl Stays {
    /// What to say of it, with what to do.
    pub(super) fn because(&self, to: &str) -> String {
        format!("not sent to datacenter {to}: {self}")
    }
}

impl fmt::Display for Stays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => {
                write!(f, "a statement of kind {kind} concerns all datacenters; repeat it when they are up")
            }
            Self::Serial => f.write_str(
                "a lightweight transaction or a serial read belongs to the datacenter that it began in; wait for that, or \
                 read about `allow_serial` first",
            ),
            Self::Level(level) => write!(
                f,
                "consistency {level:?} is not mapped there, as it counts replicas of all datacenters; use a local one, or \
                 map it with `remote_with`"
            ),
            Self::NoReplicas { keyspace } => write!(
                f,
                "keyspace {keyspace} has no replicas there; add them with ALTER KEYSPACE and a rebuild, or wait for the \
                 local datacenter"
            ),
        }
    }
}
