mod asked;
mod standing;
mod verdict;

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crossbeam_utils::CachePadded;
use palisade::{
    Instant,
    breaker::{Circuit, CircuitPermit},
    clock::nanos,
};
use uuid::Uuid;

use self::verdict::{Said, UNREACHABLE, said};
pub(crate) use self::{asked::Asked, standing::Standing};
use super::{
    abandoned::{Abandoned, second},
    latency::PeakAverage,
    rules::Shared,
    silence::Silence,
};
use crate::{error::Error, telemetry::NodeMetrics};

/// What is known of one node, from the attempts that were made at it and from probes.
pub struct Node {
    host_id: Uuid,
    address: SocketAddr,
    datacenter: Option<Arc<str>>,
    rack: Option<Arc<str>>,
    known_since: Instant,
    shared: Arc<Shared>,
    circuit: Arc<Circuit>,
    metrics: NodeMetrics,
    // Whether the driver is kept from it for a moment, to connect anew.
    is_withheld: AtomicBool,
    // What attempts write, apart from what choosing a node reads of other nodes.
    hot: CachePadded<Hot>,
}

#[derive(Debug)]
struct Hot {
    in_flight: AtomicU32,
    // Of answers.
    latency: PeakAverage,
    // Of what was given up or failed: an answer would have taken this long at least.
    at_least: PeakAverage,
    silence: Silence,
    abandoned: Abandoned,
    attempts: AtomicU64,
    failures: AtomicU64,
    // Whether the circuit is open and the share of nodes that may be ejected allows for it.
    is_ejected: AtomicBool,
    // Since when the circuit has been other than closed; zero if it is closed.
    open_since: AtomicU64,
    // When it was last asked while too many answers were owed; zero if never.
    asked_full: AtomicU64,
    // Whether it was ejected when it was last looked at, and whether it was without a connection.
    was_ejected: AtomicBool,
    was_down: AtomicBool,
    // When it came, or came back, on the node's own clock, plus one; zero if its slow start is over.
    returned: AtomicU64,
}

impl Hot {
    fn new(max_abandoned: u32) -> Self {
        Self {
            in_flight: AtomicU32::default(),
            latency: PeakAverage::default(),
            at_least: PeakAverage::default(),
            silence: Silence::default(),
            abandoned: Abandoned::new(max_abandoned),
            attempts: AtomicU64::default(),
            failures: AtomicU64::default(),
            is_ejected: AtomicBool::default(),
            open_since: AtomicU64::default(),
            asked_full: AtomicU64::default(),
            was_ejected: AtomicBool::default(),
            was_down: AtomicBool::default(),
            returned: AtomicU64::default(),
        }
    }
}

/// Whether a node can be counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Availability {
    /// It has connections, and answers.
    Up,
    /// It has connections, but its circuit is open: it failed or hung too often, and gets no traffic until a probe has succeeded.
    Ejected,
    /// The driver has no connection to it.
    Down,
}

/// The figures of a [`Node`] at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Figures {
    /// Attempts that are under way.
    pub in_flight: u32,
    /// How long an answer takes: an average that follows what is slower at once, and what is faster slowly. `None` if nothing is known.
    pub latency: Option<Duration>,
    /// Attempts since the last answer.
    pub unanswered: u32,
    /// For how long it has owed an answer.
    pub silent_for: Duration,
    /// Attempts that were given up and of which the driver may still wait for the answer, at most.
    pub abandoned: u32,
    /// All attempts so far.
    pub attempts: u64,
    /// Those of them that failed by this node's fault, or hung.
    pub failures: u64,
    /// The share of the traffic that it may get after it has come, or come back: 1 when its slow start is over.
    pub weight: f64,
}

impl Node {
    pub(super) fn new(
        host_id: Uuid,
        address: SocketAddr,
        datacenter: Option<Arc<str>>,
        rack: Option<Arc<str>>,
        circuit: Arc<Circuit>,
        shared: Arc<Shared>,
    ) -> Self {
        let known_since = Instant::now();
        let hot = Hot::new(shared.rules.max_abandoned).into();
        let metrics = NodeMetrics::new(address, datacenter.as_deref());
        let is_withheld = AtomicBool::default();
        Self { host_id, address, datacenter, rack, known_since, shared, circuit, metrics, is_withheld, hot }
    }

    /// The node's unique identifier.
    pub fn host_id(&self) -> Uuid {
        self.host_id
    }

    /// Its address, as the cluster knows it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its datacenter.
    pub fn datacenter(&self) -> Option<&str> {
        self.datacenter.as_deref()
    }

    /// Its rack.
    pub fn rack(&self) -> Option<&str> {
        self.rack.as_deref()
    }

    /// Its circuit breaker. While it is open, other nodes are asked.
    pub fn circuit(&self) -> &Arc<Circuit> {
        &self.circuit
    }

    /// All figures at this moment.
    pub fn figures(&self) -> Figures {
        let now = self.nanos(Instant::now());
        let latency = self.estimate(now);
        Figures {
            in_flight: self.in_flight(),
            latency: (latency > 0).then(|| Duration::from_nanos(latency)),
            unanswered: self.hot.silence.unanswered(),
            silent_for: Duration::from_nanos(self.hot.silence.lasts(now)),
            abandoned: self.hot.abandoned.count(),
            attempts: self.hot.attempts.load(Relaxed),
            failures: self.hot.failures.load(Relaxed),
            weight: self.weight_at(now),
        }
    }

    /// Whether traffic keeps away from it: its circuit is open, and not too many others are.
    pub fn is_ejected(&self) -> bool {
        self.hot.is_ejected.load(Relaxed)
    }

    #[inline]
    pub(crate) fn in_flight(&self) -> u32 {
        self.hot.in_flight.load(Relaxed)
    }

    /// How long an answer takes, in nanoseconds, or for how long one that somebody waits for has been owed, if that is longer; zero if
    /// nothing is known.
    #[inline]
    pub(crate) fn latency(&self, now: Instant) -> u64 {
        let now = self.nanos(now);
        self.estimate(now).max(self.hot.silence.wait(now))
    }

    /// The latency by what has ended.
    #[inline]
    fn estimate(&self, now: u64) -> u64 {
        self.hot.latency.at(now).max(self.hot.at_least.at(now))
    }

    /// The share of its usual traffic that it may get, from the slow start's beginning to 1.
    #[inline]
    pub(crate) fn weight(&self, now: Instant) -> f64 {
        if self.hot.returned.load(Relaxed) == 0 { 1.0 } else { self.weight_at(self.nanos(now)) }
    }

    fn weight_at(&self, now: u64) -> f64 {
        let returned = self.hot.returned.load(Relaxed);
        if returned == 0 {
            return 1.0;
        }
        let weight =
            self.shared.rules.slow_start.weight(Duration::from_nanos(now.saturating_sub(returned - 1)));
        if weight >= 1.0 {
            // Unless it has come back once more meanwhile.
            let _ = self.hot.returned.compare_exchange(returned, 0, Relaxed, Relaxed);
        }
        weight
    }

    /// Its connections are new: nothing is owed on them. What is known of its speed is from before.
    fn reconnected(&self, now: Instant) {
        self.hot.silence.answered(self.nanos(now));
        self.full_or_not(self.hot.abandoned.clear());
        self.begin_slowly(now);
    }

    /// How fast it was before it went says nothing of it now.
    pub(super) fn begin_slowly(&self, now: Instant) {
        self.hot.latency.forget();
        self.hot.at_least.forget();
        self.hot.returned.store(self.nanos(now) + 1, Relaxed);
    }

    /// Takes an answer to a probe into account, or that there was none. What becomes of the circuit is for the prober to say, by a
    /// permit of it.
    pub(crate) fn probed(&self, outcome: &Result<(), Error>, latency: Duration) {
        let now = Instant::now();
        match outcome {
            Err(error) if said(error.kind()) != Said::Something => {
                self.hot.at_least.at_least(nanos(latency), self.nanos(now));
            }
            _ => {
                self.answered(Some(latency), now);
                self.hot.at_least.halve(self.nanos(now));
            }
        }
    }

    fn answered(&self, latency: Option<Duration>, now: Instant) {
        let at = self.nanos(now);
        self.hot.silence.answered(at);
        if let Some(latency) = latency {
            self.hot.latency.answered(nanos(latency), at);
        }
        self.full_or_not(self.hot.abandoned.answered(second(now, self.known_since)));
    }

    fn abandoned(&self, now: Instant) {
        self.full_or_not(self.hot.abandoned.add(second(now, self.known_since)));
    }

    /// Counts it among the nodes that owe too many answers, or no more, if that has changed.
    fn full_or_not(&self, change: Option<bool>) {
        let Some(is_full) = change else {
            return;
        };
        self.shared.one_is_full(is_full);
        if is_full {
            tracing::warn!(
                node = %self.address,
                abandoned = self.hot.abandoned.count(),
                "many attempts at this node were given up unanswered: while it says nothing, others are asked"
            );
        }
    }

    /// There was no connection to it when one was wanted.
    pub(crate) fn unreachable(&self, permit: Option<CircuitPermit>) {
        self.hot.failures.fetch_add(1, Relaxed);
        if let Some(permit) = permit.or_else(|| self.circuit.acquire().ok()) {
            permit.end(&UNREACHABLE);
        }
    }

    /// Since when its circuit has been other than closed, on the node's own clock. For whoever decides which nodes are ejected.
    pub(super) fn open_for(&self, now: Instant) -> Option<Duration> {
        let now = self.nanos(now) + 1;
        if self.circuit.is_closed() {
            self.hot.open_since.store(0, Relaxed);
            return None;
        }
        let since = match self.hot.open_since.load(Relaxed) {
            0 => {
                self.hot.open_since.store(now, Relaxed);
                now
            }
            since => since,
        };
        Some(Duration::from_nanos(now.saturating_sub(since)))
    }

    pub(super) fn is_withheld(&self) -> bool {
        self.is_withheld.load(Relaxed)
    }

    pub(super) fn set_withheld(&self, is_withheld: bool) {
        self.is_withheld.store(is_withheld, Relaxed);
    }

    /// Tells the metrics what it can be counted on for.
    pub(super) fn tell(&self, availability: Availability) {
        self.metrics.state(availability);
    }

    /// It is no part of the cluster any more, or was moved and has another record.
    pub(super) fn left(&self) {
        self.metrics.gone();
    }

    /// Ejects it, or takes it back. Says whether that changes anything.
    pub(super) fn eject(&self, is_ejected: bool) -> bool {
        if is_ejected {
            self.hot.was_ejected.store(true, Relaxed);
        }
        self.hot.is_ejected.swap(is_ejected, Relaxed) != is_ejected
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    #[inline]
    fn nanos(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.known_since))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.hot.abandoned.is_full() {
            self.shared.one_is_full(false);
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("address", &self.address)
            .field("datacenter", &self.datacenter)
            .field("is_ejected", &self.is_ejected())
            .field("figures", &self.figures())
            .finish_non_exhaustive()
    }
}
