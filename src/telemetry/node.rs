//! The metrics of one node.

use std::{fmt, net::SocketAddr, sync::OnceLock, time::Duration};

use metrics::{Gauge, Label};

use super::{ATTEMPT_ACTIVE, ATTEMPT_DURATION, NODE_STATE, durations::Durations};
use crate::{error::ErrorKind, nodes::Availability};

/// The metrics of the attempts at one node, for whoever makes them. Each is looked up at its first use, and kept.
///
/// | metric | what | more labels |
/// | --- | --- | --- |
/// | `cassandra.client.attempt.duration` | histogram, seconds | `error.type` of those that were not answered well: an [`ErrorKind`], or `abandoned` |
/// | `cassandra.client.attempt.active` | gauge, attempts | |
/// | `cassandra.client.node.state` | gauge, 1 for the state that the node is in, else 0; all 0 when it has left the cluster | `cassandra.node.state`: `up`, `ejected`, `down` |
///
/// All have the labels `server.address`, `server.port` and, where it is known, `cassandra.coordinator.dc`.
///
/// ```
/// use std::time::Duration;
/// use tower_cassandra::{nodes::Availability, telemetry::NodeMetrics};
///
/// let node = NodeMetrics::new(([127, 0, 0, 1], 9042).into(), Some("dc1"));
/// node.state(Availability::Up);
/// node.in_flight(1);
/// node.answered(Duration::from_millis(2));
/// node.in_flight(-1);
/// ```
pub struct NodeMetrics {
    labels: Vec<Label>,
    durations: Durations,
    in_flight: OnceLock<Gauge>,
    states: OnceLock<[Gauge; STATES.len()]>,
}

/// The states of a node, each with its label.
const STATES: [(Availability, &str); 3] =
    [(Availability::Up, "up"), (Availability::Ejected, "ejected"), (Availability::Down, "down")];

/// The `error.type` of an attempt that nobody waited for any more.
const ABANDONED: &str = "abandoned";

impl NodeMetrics {
    /// The metrics of the node with this address.
    pub fn new(address: SocketAddr, datacenter: Option<&str>) -> Self {
        let mut labels = vec![
            Label::new("server.address", address.ip().to_string()),
            Label::new("server.port", address.port().to_string()),
        ];
        labels.extend(datacenter.map(|name| Label::new("cassandra.coordinator.dc", name.to_owned())));
        let durations = Durations::new(ATTEMPT_DURATION, labels.clone());
        Self { labels, durations, in_flight: OnceLock::new(), states: OnceLock::new() }
    }

    /// The node has answered an attempt.
    #[inline]
    pub fn answered(&self, latency: Duration) {
        self.durations.succeeded(latency);
    }

    /// An attempt has failed.
    pub fn failed(&self, kind: ErrorKind, latency: Duration) {
        self.durations.failed(kind.as_str(), latency);
    }

    /// An attempt was dropped before its end: a timeout fired, or another node was faster.
    pub fn abandoned(&self, latency: Duration) {
        self.durations.failed(ABANDONED, latency);
    }

    /// So many attempts more, or fewer, are under way.
    #[inline]
    pub fn in_flight(&self, change: i32) {
        self.in_flight
            .get_or_init(|| metrics::gauge!(ATTEMPT_ACTIVE, self.labels.clone()))
            .increment(f64::from(change));
    }

    /// The node is in this state now.
    pub fn state(&self, now: Availability) {
        let look_up = |(_, state)| {
            let mut labels = self.labels.clone();
            labels.push(Label::from_static_parts("cassandra.node.state", state));
            metrics::gauge!(NODE_STATE, labels)
        };
        let gauges = self.states.get_or_init(|| STATES.map(look_up));
        for ((state, _), gauge) in STATES.iter().zip(gauges) {
            gauge.set(if *state == now { 1.0 } else { 0.0 });
        }
    }

    /// The node is no part of the cluster any more, and in no state.
    pub fn gone(&self) {
        self.states.get().into_iter().flatten().for_each(|gauge| gauge.set(0.0));
    }
}

impl fmt::Debug for NodeMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeMetrics").field("labels", &self.labels).finish_non_exhaustive()
    }
}
