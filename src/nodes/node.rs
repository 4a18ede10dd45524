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
    breaker::{Circuit, CircuitPermit, CircuitState},
};
use uuid::Uuid;

use super::{
    abandoned::{Abandoned, second},
    latency::PeakAverage,
    rules::Shared,
    silence::Silence,
};
use crate::{
    error::{Error, ErrorKind},
    telemetry::NodeMetrics,
};

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
    // When it came back, on the node's own clock, plus one; zero if its slow start is over.
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
    /// The share of the traffic that it may get after it has come back: 1 when its slow start is over.
    pub weight: f64,
}

/// What choosing a node goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    Usable,
    /// It is ejected, and an attempt may find out whether it is well again: one that its circuit gives leave for.
    Due,
    /// It does not answer, and so many attempts at it were given up that one more may cost the connection.
    Full,
    Ejected,
    Down,
}

impl Standing {
    /// Whether it can take a request, if its circuit has no objection.
    pub(crate) const fn is_good(self) -> bool {
        matches!(self, Self::Usable | Self::Due)
    }
}

/// How much longer than usual a node may be silent before it is taken for hung, in latencies.
const USUAL: u64 = 8;

/// How often a node that owes too many answers is asked all the same: who never asks never hears that it answers again.
const TRICKLE: Duration = Duration::from_secs(1);

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

    /// Where it stands, for the choice of a node; told whether the driver has a connection to it.
    pub(crate) fn standing(&self, is_connected: bool, now: Instant) -> Standing {
        let hot = &self.hot;
        if !is_connected {
            if !hot.was_down.load(Relaxed) && !hot.was_down.swap(true, Relaxed) {
                self.tell(Availability::Down);
            }
            return Standing::Down;
        }
        if hot.was_down.load(Relaxed) && hot.was_down.swap(false, Relaxed) {
            self.reconnected(now);
            self.tell(if self.is_ejected() { Availability::Ejected } else { Availability::Up });
        }
        if self.is_stalled(now) {
            self.circuit.trip();
        }
        if hot.is_ejected.load(Relaxed) {
            hot.was_ejected.store(true, Relaxed);
            match self.circuit.state() {
                // It is about to be taken back.
                CircuitState::Closed => {}
                // Where nobody probes, traffic does.
                _ if self.shared.is_probed() => return Standing::Ejected,
                CircuitState::HalfOpen => return Standing::Due,
                CircuitState::Open => {
                    let is_due = self.circuit.retry_after().is_some_and(|wait| wait.is_zero());
                    return if is_due { Standing::Due } else { Standing::Ejected };
                }
            }
        } else if hot.was_ejected.load(Relaxed) && hot.was_ejected.swap(false, Relaxed) {
            self.begin_slowly(now);
        }
        if self.owes_too_much(now) && !self.may_trickle(now) { Standing::Full } else { Standing::Usable }
    }

    /// Whether one more attempt may cost the connection, and none is to find out whether it answers again.
    pub(super) fn is_out(&self, now: Instant) -> bool {
        match self.standing(true, now) {
            Standing::Full => true,
            Standing::Ejected => self.owes_too_much(now),
            Standing::Due => self.owes_too_much(now) && self.circuit.snapshot().probes_in_flight > 0,
            Standing::Usable | Standing::Down => false,
        }
    }

    fn owes_too_much(&self, now: Instant) -> bool {
        self.hot.abandoned.is_full() && self.is_silent(now)
    }

    /// Whether it has answered nothing for long.
    fn is_silent(&self, now: Instant) -> bool {
        let silent_for = self.nanos(now).saturating_sub(self.hot.silence.answered_at());
        silent_for > nanos(self.shared.rules.stall.after)
    }

    fn may_trickle(&self, now: Instant) -> bool {
        let last = self.hot.asked_full.load(Relaxed);
        last == 0 || self.nanos(now).saturating_sub(last - 1) >= nanos(TRICKLE)
    }

    /// Leave to find out whether it is well again. `None` if others do so already, or it is too early.
    pub(crate) fn probe(&self) -> Option<CircuitPermit> {
        self.circuit.acquire().ok()
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
        self.hot.silence.answered(self.nanos(now));
        self.full_or_not(self.hot.abandoned.clear());
        self.begin_slowly(now);
    }

    /// How fast it was before it went says nothing of it now.
    fn begin_slowly(&self, now: Instant) {
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

/// An attempt at a node, under way. Dropped before it has ended, it was given up.
#[derive(Debug)]
pub(crate) struct Asked {
    node: Arc<Node>,
    began: Instant,
    // Whether its latency tells of the node: a statement that usually takes as long as others.
    is_quick: bool,
    permit: Option<CircuitPermit>,
    // Whether it finds out whether the node is well again.
    is_probe: bool,
    has_ended: bool,
}

impl Asked {
    /// `probe` is the leave to find out whether the node is well again, if that is what the attempt is made for.
    #[inline]
    pub(crate) fn begin(node: Arc<Node>, probe: Option<CircuitPermit>, is_quick: bool, now: Instant) -> Self {
        let hot = &node.hot;
        hot.attempts.fetch_add(1, Relaxed);
        hot.in_flight.fetch_add(1, Relaxed);
        node.metrics.in_flight(1);
        if is_quick {
            hot.silence.asked(node.nanos(now));
        }
        if hot.abandoned.is_full() {
            hot.asked_full.store(node.nanos(now) + 1, Relaxed);
        }
        let is_closed = probe.is_none() && node.circuit.is_closed();
        let permit = probe.or_else(|| node.circuit.acquire().ok());
        let is_probe = permit.is_some() && !is_closed;
        Self { node, began: now, is_quick, permit, is_probe, has_ended: false }
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The attempt has ended, in one way or another.
    pub(crate) fn end<T>(&mut self, outcome: &Result<T, Error>, now: Instant) {
        self.has_ended = true;
        self.node.hot.in_flight.fetch_sub(1, Relaxed);
        let latency = now.saturating_duration_since(self.began);
        self.node.metrics.in_flight(-1);
        match outcome {
            Ok(_) => self.node.metrics.answered(latency),
            Err(error) => self.node.metrics.failed(error.kind(), latency),
        }
        let (class, said) = match outcome {
            Ok(_) => (Class::SUCCESS, Said::Something),
            Err(error) => (class_for_node(error.kind()), said(error.kind())),
        };
        if self.is_quick {
            match said {
                Said::Nothing => self.node.hot.silence.given_up(self.node.nanos(now)),
                Said::Something | Said::NotAsked => self.node.hot.silence.ended(),
            }
        }
        if said == Said::Something {
            // A failure that comes fast does not make a node a fast one.
            let tells = self.is_quick && outcome.is_ok();
            self.node.answered(tells.then_some(latency), now);
        }
        if self.is_quick && outcome.is_err() {
            self.node.hot.at_least.at_least(nanos(latency), self.node.nanos(now));
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
        let (node, is_superseded) = (&self.node, palisade::is_superseded());
        let hot = &node.hot;
        hot.in_flight.fetch_sub(1, Relaxed);
        node.metrics.in_flight(-1);
        node.metrics.abandoned(now.saturating_duration_since(self.began));
        let (began, at) = (node.nanos(self.began), node.nanos(now));
        let waited = nanos(now.saturating_duration_since(self.began));
        if self.is_quick {
            hot.silence.given_up(at);
            hot.at_least.at_least(waited, at);
        }
        // A node that answers will soon have answered what another was only faster at.
        if !is_superseded || node.is_silent(now) {
            node.abandoned(now);
        }
        if self.tells(waited, began, at, is_superseded) {
            self.judge(&UNREACHABLE);
        }
        if self.node.is_stalled(now) {
            self.node.circuit.trip();
        }
    }

    /// Whether it is the node's fault that it was given up.
    fn tells(&self, waited: u64, began: u64, now: u64, is_superseded: bool) -> bool {
        // Others were fast enough meanwhile, and as long as it is on trial it gets no more of anybody's time.
        if self.is_probe {
            return true;
        }
        // Whoever is impatient, or was answered by another node, tells nothing of this one. Who waited long does; but a scan may
        // take long at a node that answers others.
        let hot = &self.node.hot;
        let usual = hot.latency.at(now).saturating_mul(USUAL);
        !is_superseded
            && waited >= nanos(self.node.shared.rules.stall.after).max(usual)
            && (self.is_quick || hot.silence.answered_at() <= began)
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

/// What came from the node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Something,
    Nothing,
    NotAsked,
}

const fn said(kind: ErrorKind) -> Said {
    match kind {
        ErrorKind::Timeout(_) | ErrorKind::Unreachable => Said::Nothing,
        ErrorKind::ConnectionFull | ErrorKind::Connect | ErrorKind::Values => Said::NotAsked,
        _ => Said::Something,
    }
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
