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
    Class, Effect, Fault, Instant,
    breaker::{Circuit, CircuitPermit},
};
use uuid::Uuid;

use super::{
    abandoned::{Abandoned, second},
    latency::PeakAverage,
    rules::Shared,
    silence::Silence,
};
use crate::error::{Error, ErrorKind};

/// What is known of one node, from the attempts that were made at it and from probes.
pub struct Node {
    host_id: Uuid,
    address: SocketAddr,
    datacenter: Option<Arc<str>>,
    rack: Option<Arc<str>>,
    known_since: Instant,
    shared: Arc<Shared>,
    circuit: Arc<Circuit>,
    // What attempts write, apart from what choosing a node reads of other nodes.
    hot: CachePadded<Hot>,
}

#[derive(Debug, Default)]
struct Hot {
    in_flight: AtomicU32,
    latency: PeakAverage,
    silence: Silence,
    abandoned: Abandoned,
    attempts: AtomicU64,
    failures: AtomicU64,
    // Whether the circuit is open and the share of nodes that may be ejected allows for it.
    is_ejected: AtomicBool,
    // Since when the circuit has been other than closed; zero if it is closed.
    open_since: AtomicU64,
    is_full: AtomicBool,
    // Whether it was ejected when it was last looked at, and whether it was without a connection.
    was_ejected: AtomicBool,
    was_down: AtomicBool,
    // When it came back, on the node's own clock, plus one; zero if its slow start is over.
    returned: AtomicU64,
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
    /// The share of the traffic that it may get after it has come back: 1 when its slow start is over.
    pub weight: f64,
}

/// What choosing a node goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    Usable,
    /// So many attempts at it were given up that one more may cost the connection.
    Full,
    Ejected,
    Down,
}

/// How much longer than usual a node may be silent before it is taken for hung, in latencies.
const USUAL: u64 = 8;

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
        Self { host_id, address, datacenter, rack, known_since, shared, circuit, hot: CachePadded::default() }
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
        let latency = self.hot.latency.at(now);
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
        let latency = self.hot.latency.at(now);
        if self.in_flight() == 0 { latency } else { latency.max(self.hot.silence.lasts(now)) }
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
            self.hot.returned.store(0, Relaxed);
        }
        weight
    }

    /// Where it stands, for the choice of a node; told whether the driver has a connection to it.
    pub(crate) fn standing(&self, is_connected: bool, now: Instant) -> Standing {
        let hot = &self.hot;
        if !is_connected {
            hot.was_down.store(true, Relaxed);
            return Standing::Down;
        }
        if hot.was_down.load(Relaxed) && hot.was_down.swap(false, Relaxed) {
            self.reconnected(now);
        }
        if self.is_stalled(now) {
            self.circuit.trip();
        }
        if hot.is_ejected.load(Relaxed) {
            hot.was_ejected.store(true, Relaxed);
            // Where nobody probes, traffic does, one attempt at a time.
            return if self.shared.is_probed()
                || self.circuit.retry_after().is_some_and(|wait| !wait.is_zero())
            {
                Standing::Ejected
            } else {
                Standing::Usable
            };
        }
        if hot.was_ejected.load(Relaxed) && hot.was_ejected.swap(false, Relaxed) {
            self.begin_slowly(now);
        }
        if hot.is_full.load(Relaxed) { Standing::Full } else { Standing::Usable }
    }

    /// Whether it takes requests and says nothing, for much longer than it usually takes.
    #[inline]
    fn is_stalled(&self, now: Instant) -> bool {
        let stall = &self.shared.rules.stall;
        let silence = &self.hot.silence;
        if silence.unanswered() < stall.attempts || !self.circuit.is_closed() {
            return false;
        }
        let now = self.nanos(now);
        let usual = self.hot.latency.at(now).saturating_mul(USUAL);
        silence.lasts(now) > nanos(stall.after).max(usual)
    }

    /// Its connections are new: nothing is owed on them. What is known of its speed is from before.
    fn reconnected(&self, now: Instant) {
        self.hot.silence.answered(self.in_flight(), self.nanos(now));
        self.hot.abandoned.clear();
        self.count_full();
        self.begin_slowly(now);
    }

    fn begin_slowly(&self, now: Instant) {
        self.hot.returned.store(self.nanos(now) + 1, Relaxed);
    }

    /// Takes an answer to a probe into account, or that there was none. What becomes of the circuit is for the prober to say, by a
    /// permit of it.
    pub(crate) fn probed(&self, outcome: &Result<(), Error>, latency: Duration) {
        let now = Instant::now();
        match outcome {
            Err(error) if !is_answer(error.kind()) => {
                self.hot.latency.at_least(nanos(latency), self.nanos(now));
            }
            _ => self.answered(Some(latency), now),
        }
    }

    fn answered(&self, latency: Option<Duration>, now: Instant) {
        let at = self.nanos(now);
        self.hot.silence.answered(self.in_flight(), at);
        if let Some(latency) = latency {
            self.hot.latency.answered(nanos(latency), at);
        }
        if self.hot.abandoned.count() != 0 {
            self.hot.abandoned.answered(second(now, self.known_since));
            self.count_full();
        }
    }

    fn abandoned(&self, now: Instant) {
        self.hot.abandoned.add(second(now, self.known_since));
        self.count_full();
    }

    /// Sees to it that the number of nodes that are full is right.
    fn count_full(&self) {
        let is_full = self.hot.abandoned.count() >= self.shared.rules.max_abandoned;
        if self.hot.is_full.swap(is_full, Relaxed) != is_full {
            self.shared.one_is_full(is_full);
            if is_full {
                tracing::warn!(
                    node = %self.address,
                    abandoned = self.hot.abandoned.count(),
                    "too many attempts at this node were given up unanswered; others are asked until it answers"
                );
            }
        }
    }

    /// There was no connection to it when one was wanted.
    pub(crate) fn unreachable(self: &Arc<Self>) {
        self.hot.failures.fetch_add(1, Relaxed);
        if let Ok(permit) = self.circuit.acquire() {
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

    /// Ejects it, or takes it back. Says whether that changes anything.
    pub(super) fn eject(&self, is_ejected: bool) -> bool {
        if is_ejected {
            self.hot.was_ejected.store(true, Relaxed);
        }
        self.hot.is_ejected.swap(is_ejected, Relaxed) != is_ejected
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    #[inline]
    fn nanos(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.known_since))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if *self.hot.is_full.get_mut() {
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

/// An attempt at a node, under way. Dropped before it has ended, it was given up.
#[derive(Debug)]
pub(crate) struct Asked {
    node: Arc<Node>,
    began: Instant,
    // Whether its latency tells of the node: a statement that usually takes as long as others.
    is_quick: bool,
    permit: Option<CircuitPermit>,
    has_ended: bool,
}

impl Asked {
    #[inline]
    pub(crate) fn begin(node: Arc<Node>, is_quick: bool, now: Instant) -> Self {
        let hot = &node.hot;
        hot.attempts.fetch_add(1, Relaxed);
        hot.in_flight.fetch_add(1, Relaxed);
        if is_quick {
            hot.silence.asked(node.nanos(now));
        }
        let permit = node.circuit.acquire().ok();
        Self { node, began: now, is_quick, permit, has_ended: false }
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The attempt has ended, in one way or another.
    pub(crate) fn end<T>(&mut self, outcome: &Result<T, Error>, now: Instant) {
        self.has_ended = true;
        self.node.hot.in_flight.fetch_sub(1, Relaxed);
        let latency = now.saturating_duration_since(self.began);
        let (class, is_answer) = match outcome {
            Ok(_) => (Class::SUCCESS, true),
            Err(error) => (class_for_node(error.kind()), is_answer(error.kind())),
        };
        if is_answer {
            // A failure that comes fast does not make a node a fast one.
            let tells = self.is_quick && outcome.is_ok();
            self.node.answered(tells.then_some(latency), now);
        }
        if self.is_quick && outcome.is_err() {
            self.node.hot.latency.at_least(nanos(latency), self.node.nanos(now));
        }
        if matches!(outcome, Err(error) if matches!(error.kind(), ErrorKind::Timeout(_))) {
            self.node.abandoned(now);
        }
        self.judge(&class);
    }

    fn judge(&mut self, class: &Class) {
        if matches!(class.fault(), Fault::Server | Fault::Unreachable) {
            self.node.hot.failures.fetch_add(1, Relaxed);
        }
        if let Some(permit) = self.permit.take() {
            permit.end(class);
        }
    }

    /// A caller has given it up, after this long.
    fn give_up(&mut self, now: Instant) {
        self.node.hot.in_flight.fetch_sub(1, Relaxed);
        self.node.abandoned(now);
        let waited = nanos(now.saturating_duration_since(self.began));
        let at = self.node.nanos(now);
        let usual = self.node.hot.latency.at(at);
        if self.is_quick {
            self.node.hot.latency.at_least(waited, at);
        }
        // Whoever is impatient, or was answered by another node, tells nothing of this one. Who waited long does.
        let patience = nanos(self.node.shared.rules.stall.after).max(usual.saturating_mul(USUAL));
        if self.is_quick && waited >= patience && !palisade::is_superseded() {
            self.judge(&UNREACHABLE);
        }
        if self.node.is_stalled(now) {
            self.node.circuit.trip();
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.has_ended {
            self.give_up(Instant::now());
        }
    }
}

const UNREACHABLE: Class = Class::new(Fault::Unreachable, Effect::Unknown);

/// Whether the node has said something, whatever it was.
const fn is_answer(kind: ErrorKind) -> bool {
    !matches!(
        kind,
        ErrorKind::Timeout(_)
            | ErrorKind::Unreachable
            | ErrorKind::ConnectionFull
            | ErrorKind::Connect
            | ErrorKind::Values
    )
}

/// What an error tells of the node that was asked, and not of the statement or of other nodes.
///
/// Having too much to do is no sign of death: what answers "overloaded" is alive, and needs less traffic rather than none. That
/// is for a throttle to see to. A coordinator that has too few replicas is one that cannot reach them: if it alone says so,
/// others are better asked.
const fn class_for_node(kind: ErrorKind) -> Class {
    let fault = match kind {
        ErrorKind::Timeout(_) | ErrorKind::Unreachable | ErrorKind::Bootstrapping => Fault::Unreachable,
        ErrorKind::Unavailable
        | ErrorKind::ReadTimeout
        | ErrorKind::WriteTimeout
        | ErrorKind::ReadFailure
        | ErrorKind::WriteFailure
        | ErrorKind::Server
        | ErrorKind::Protocol
        | ErrorKind::Truncate => Fault::Server,
        ErrorKind::Overloaded | ErrorKind::RateLimited | ErrorKind::ConnectionFull => Fault::Overload,
        _ => Fault::Caller,
    };
    Class::new(fault, Effect::Unknown)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
