//! What is told of the cluster's health: to operators, and to whoever asks at `/health` and `/ready`.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use palisade::breaker::CircuitState;
use uuid::Uuid;

use super::state::{Cause, NodeState};

/// The health of all nodes at a moment. It can be serialised, with the feature `serde`; durations are in seconds.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Report {
    /// All of it in a word.
    pub status: Status,
    /// By datacenter, in the order of their names.
    pub datacenters: Vec<DatacenterReport>,
    /// By node, in the order of datacenters and addresses. Nodes that a filter of the driver's excludes are left out.
    pub nodes: Vec<NodeReport>,
    /// Whether the monitor itself is at work: what it says is old if not.
    pub monitor: Liveness,
}

/// A cluster's health in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Status {
    /// All nodes are up.
    Healthy,
    /// Some are.
    Degraded,
    /// None answers.
    Down,
}

/// How many nodes of a datacenter are in each state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DatacenterReport {
    /// Its name, if it has one.
    pub name: Option<Arc<str>>,
    /// Nodes that have not answered yet.
    pub starting: usize,
    /// Nodes that answer.
    pub up: usize,
    /// Nodes that answer, though not as they should.
    pub degraded: usize,
    /// Nodes that do not answer.
    pub down: usize,
}

/// The health of one node.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NodeReport {
    /// Its address, as the cluster knows it.
    pub address: SocketAddr,
    /// Its host id.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
    pub host_id: Uuid,
    /// Its datacenter.
    pub datacenter: Option<Arc<str>>,
    /// Its rack.
    pub rack: Option<Arc<str>>,
    /// Its state.
    pub state: NodeState,
    /// Why it is in it.
    pub cause: Cause,
    /// For how long it has been in it.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_seconds"))]
    pub lasts: Duration,
    /// How long its last answer to a probe took.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_optional_seconds"))]
    pub probe_latency: Option<Duration>,
    /// Why a probe failed, since the last answer.
    pub failure: Option<String>,
    /// How long an answer to a request takes: an average that follows what is slower at once, and what is faster slowly.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_optional_seconds"))]
    pub latency: Option<Duration>,
    /// Attempts at requests that are under way.
    pub in_flight: u32,
    /// All attempts so far.
    pub attempts: u64,
    /// The share of the attempts that failed by the node's fault, in the last interval that had any.
    pub error_rate: Option<f64>,
    /// Attempts that were given up, of which the driver may still wait for the answer.
    pub abandoned: u32,
    /// Its circuit.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_circuit"))]
    pub circuit: CircuitState,
    /// Whether traffic keeps away from it because of its circuit.
    pub is_ejected: bool,
    /// Whether the driver has a connection to it.
    pub is_connected: bool,
}

/// Whether a keyspace can be served.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Readiness {
    /// Whether all of it can be, by nodes that have answered.
    pub ready: bool,
    /// The keyspace.
    pub keyspace: String,
    /// The consistency level, as in CQL.
    pub consistency: &'static str,
    /// The datacenter that it is to be served by, if not any.
    pub datacenter: Option<Arc<str>>,
    /// How much of it can be, from 0 to 1: of the ring, or where only the numbers of replicas are known, how likely a partition is.
    pub share: f64,
    /// The datacenters of which a coordinator could serve all of it.
    pub datacenters: Vec<String>,
    /// Why it is not ready, and what to do.
    pub reason: Option<String>,
}

/// Whether the monitor is at work.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Liveness {
    /// Whether its task runs, and has not been held up.
    pub alive: bool,
    /// How long ago it last looked at the nodes.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_seconds"))]
    pub last_seen: Duration,
    /// Why it is not alive, and what to do.
    pub reason: Option<String>,
}

impl Report {
    pub(super) fn new(mut nodes: Vec<NodeReport>, monitor: Liveness) -> Self {
        nodes.sort_unstable_by(|one, other| {
            (&one.datacenter, one.address).cmp(&(&other.datacenter, other.address))
        });
        let mut datacenters: Vec<DatacenterReport> = Vec::new();
        for nodes in nodes.chunk_by(|one, other| one.datacenter == other.datacenter) {
            let count = |state| nodes.iter().filter(|node| node.state == state).count();
            datacenters.push(DatacenterReport {
                name: nodes[0].datacenter.clone(),
                starting: count(NodeState::Starting),
                up: count(NodeState::Up),
                degraded: count(NodeState::Degraded),
                down: count(NodeState::Down),
            });
        }
        Self { status: Status::of(&nodes), datacenters, nodes, monitor }
    }

    /// The nodes in this state.
    pub fn in_state(&self, state: NodeState) -> impl Iterator<Item = &NodeReport> {
        self.nodes.iter().filter(move |node| node.state == state)
    }
}

impl Status {
    fn of(nodes: &[NodeReport]) -> Self {
        if !nodes.iter().any(|node| matches!(node.state, NodeState::Up | NodeState::Degraded)) {
            Self::Down
        } else if nodes.iter().all(|node| node.state == NodeState::Up) {
            Self::Healthy
        } else {
            Self::Degraded
        }
    }

    /// The status as a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(feature = "serde")]
mod serialised {
    use super::{CircuitState, Duration, Uuid};
    use serde::Serializer;

    pub(in crate::health) fn as_text<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(in crate::health) fn as_seconds<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    #[expect(clippy::ref_option, reason = "serde hands on what it has")]
    pub(super) fn as_optional_seconds<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => serializer.serialize_some(&duration.as_secs_f64()),
            None => serializer.serialize_none(),
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands on a reference")]
    pub(super) fn as_circuit<S: Serializer>(state: &CircuitState, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(state.as_str())
    }
}
#[cfg(feature = "serde")]
use serialised::{as_circuit, as_optional_seconds};
#[cfg(feature = "serde")]
pub(super) use serialised::{as_seconds, as_text};

#[cfg(test)]
mod tests {
    use NodeState::{Degraded, Down, Starting, Up};

    use super::*;

    fn node(datacenter: &str, address: u8, state: NodeState) -> NodeReport {
        NodeReport {
            address: SocketAddr::from(([10, 0, 0, address], 9042)),
            host_id: Uuid::from_u128(7),
            datacenter: Some(datacenter.into()),
            rack: Some("r1".into()),
            state,
            cause: Cause::Answers,
            lasts: Duration::from_millis(1_500),
            probe_latency: Some(Duration::from_millis(2)),
            failure: None,
            latency: None,
            in_flight: 3,
            attempts: 44,
            error_rate: Some(0.25),
            abandoned: 0,
            circuit: CircuitState::HalfOpen,
            is_ejected: false,
            is_connected: true,
        }
    }

    fn monitor() -> Liveness {
        Liveness { alive: true, last_seen: Duration::ZERO, reason: None }
    }

    #[test]
    fn nodes_are_counted_by_datacenter_and_state() {
        let nodes = vec![node("b", 1, Up), node("a", 3, Down), node("a", 2, Up), node("a", 1, Starting)];
        let report = Report::new(nodes, monitor());
        let order: Vec<_> = report.nodes.iter().map(|node| node.address.ip().to_string()).collect();
        assert_eq!(order, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1"]);
        assert_eq!(
            report.datacenters,
            [
                DatacenterReport { name: Some("a".into()), starting: 1, up: 1, degraded: 0, down: 1 },
                DatacenterReport { name: Some("b".into()), starting: 0, up: 1, degraded: 0, down: 0 },
            ]
        );
        assert_eq!(report.in_state(Down).count(), 1);
    }

    #[test]
    fn one_word_tells_of_all_nodes() {
        let cases: [(&[NodeState], Status); 6] = [
            (&[Up, Up], Status::Healthy),
            (&[Up, Degraded], Status::Degraded),
            (&[Up, Starting], Status::Degraded),
            (&[Degraded, Down], Status::Degraded),
            (&[Down, Starting], Status::Down),
            (&[], Status::Down),
        ];
        for (states, status) in cases {
            let nodes: Vec<_> = states.iter().map(|state| node("a", 1, *state)).collect();
            assert_eq!(Status::of(&nodes), status, "{states:?}");
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_report_is_serialised_in_seconds_and_words() {
        let report = Report::new(vec![node("a", 1, Degraded)], monitor());
        let expected = serde_json::json!({
            "status": "degraded",
            "datacenters": [{ "name": "a", "starting": 0, "up": 0, "degraded": 1, "down": 0 }],
            "nodes": [{
                "address": "10.0.0.1:9042",
                "host_id": "00000000-0000-0000-0000-000000000007",
                "datacenter": "a",
                "rack": "r1",
                "state": "degraded",
                "cause": "answers",
                "lasts": 1.5,
                "probe_latency": 0.002,
                "failure": null,
                "latency": null,
                "in_flight": 3,
                "attempts": 44,
                "error_rate": 0.25,
                "abandoned": 0,
                "circuit": "half_open",
                "is_ejected": false,
                "is_connected": true,
            }],
            "monitor": { "alive": true, "last_seen": 0.0, "reason": null },
        });
        assert_eq!(serde_json::to_value(&report).unwrap(), expected);
    }
}
