//! One circuit: its core, and those who are told what becomes of it.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use super::{
    change::{Cause, Change, CircuitState, Mode},
    permit::CircuitPermit,
    rules::Rules,
    state::{Core, Outcome, Ticket},
};
use crate::{
    Rejection,
    clock::Instant,
    keyed::Keep,
    sync::{Mutex, MutexGuard, lock},
    telemetry::{Counter, Gauge},
};

/// A change of a circuit's state, as a listener is told of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Transition {
    /// The name of the layer.
    pub layer: &'static str,
    /// The `Debug` text of the circuit's key, `"users"` with its quotes for a string, where it is one of several: of a layer
    /// that keeps one for each key, or without a layer.
    pub key: Option<Arc<str>>,
    /// The state before.
    pub from: CircuitState,
    /// The state now.
    pub to: CircuitState,
    /// Why.
    pub cause: Cause,
    /// Counts the changes of this circuit. Listeners run outside all locks, so that two threads may tell of two
    /// changes in the other order: the larger number is the later one.
    pub generation: u64,
    /// For how long the circuit stays open.
    pub open_for: Option<Duration>,
    /// The change did not take place, because the mode is [`Mode::MetricsOnly`].
    pub suppressed: bool,
}

/// Is told of each change of state.
pub(super) type Listener = Arc<dyn Fn(&Transition) + Send + Sync>;

/// A circuit: read it, reset it, force it, as an operator does; or [`acquire`](Self::acquire) each call by hand, where there is
/// [no layer](super#without-a-layer) that does.
///
/// Everything takes effect at once in all services that share the circuit. A listener may call it.
pub struct Circuit {
    core: Core,
    // The layer's mode when it was made.
    born: Mode,
    key: Option<Arc<str>>,
    reports: Arc<Reports>,
}

/// What the circuits of one layer report to.
pub(super) struct Reports {
    pub(super) name: &'static str,
    pub(super) listener: Option<Listener>,
    pub(super) refused: Counter,
    transitions: [Counter; 3],
    suppressed: Counter,
    // Circuits that are not closed.
    open: Gauge,
    // The mode of circuits that are new, for a layer that keeps one for each key.
    mode: Mutex<Mode>,
}

impl Reports {
    pub(super) fn new(name: &'static str, listener: Option<Listener>, mode: Mode) -> Self {
        let transitions = [CircuitState::Closed, CircuitState::Open, CircuitState::HalfOpen];
        Self {
            name,
            listener,
            refused: Counter::new("palisade_circuit_refused_total", name, &[]),
            transitions: transitions
                .map(|to| Counter::new("palisade_circuit_transitions_total", name, &[("to", to.as_str())])),
            suppressed: Counter::new("palisade_circuit_suppressed_total", name, &[]),
            open: Gauge::new("palisade_circuits_open", name),
            mode: Mutex::new(mode),
        }
    }

    fn count_open(&self, more: i32) {
        if more != 0 {
            self.open.add(f64::from(more));
        }
    }

    pub(super) fn mode(&self) -> MutexGuard<'_, Mode> {
        lock(&self.mode)
    }
}

impl Circuit {
    /// The circuit of a key, which readers see as text.
    pub(super) fn keyed(rules: Rules, key: &impl fmt::Debug, reports: Arc<Reports>) -> Self {
        Self::new(rules, Some(Arc::from(format!("{key:?}"))), reports)
    }

    pub(super) fn new(rules: Rules, key: Option<Arc<str>>, reports: Arc<Reports>) -> Self {
        let mode = *reports.mode();
        let circuit = Self { core: Core::new(rules, mode, Instant::now()), born: mode, key, reports };
        circuit.reports.count_open(not_closed(circuit.state()));
        circuit
    }

    /// Asks for leave to make one call, now. While the circuit is closed, that takes a reading of the clock and a count of who
    /// holds it, and no lock.
    ///
    /// Ask only when the call is to be made: where the circuit has been open, the permit may be one of its few probes. To compare
    /// targets, use [`is_closed`](Self::is_closed) and [`retry_after`](Self::retry_after).
    ///
    /// # Errors
    ///
    /// [`Rejection::CircuitOpen`] while the circuit is open, with the time until a probe may go; or while it is half-open
    /// and all its probes are under way, or it is forced open, without. The refusal is counted, as a layer's is.
    #[inline]
    pub fn acquire(self: &Arc<Self>) -> Result<CircuitPermit, Rejection> {
        match self.admit(Instant::now()) {
            Ok(ticket) => Ok(CircuitPermit::new(self, ticket)),
            Err(retry_after) => Err(Rejection::circuit_open(retry_after)),
        }
    }

    /// Opens the circuit now, as if a rule had: for who knows otherwise that the target is gone, as by a connection that was lost.
    /// The wait grows each time, as always, and probes close it again. The cause is [`Cause::Tripped`].
    ///
    /// Trip it for what happens now: unlike a permit that ends, a trip counts also if the circuit has changed its state since the
    /// call that found out was made.
    ///
    /// | state, mode | what it does |
    /// | --- | --- |
    /// | closed | opens; calls under way count no more |
    /// | half-open | opens again, for longer; probes under way count no more |
    /// | open | nothing: the wait goes on, and if it is over, the next call probes |
    /// | [`Mode::MetricsOnly`] | reports that it would have opened, unless it would still be open |
    /// | [`Mode::ForcedOpen`], [`Mode::ForcedClosed`] | nothing |
    pub fn trip(&self) {
        if let Some(change) = self.core.trip(Instant::now()) {
            self.report(change);
        }
    }

    /// Whether calls pass, and none as a probe. One read of an atomic.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.state() == CircuitState::Closed
    }

    /// While open: the time until a probe may go, zero if one may go now. `None` while closed, half-open or forced open.
    /// One read of an atomic, and while open another one and the clock.
    #[inline]
    pub fn retry_after(&self) -> Option<Duration> {
        self.core.retry_after(Instant::now)
    }

    /// The state at this moment.
    pub fn state(&self) -> CircuitState {
        self.core.state()
    }

    /// The `Debug` text of the circuit's key, where it is one of several: of a layer that keeps one for each key, or without a
    /// layer.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// All figures at this moment.
    pub fn snapshot(&self) -> CircuitSnapshot {
        let figures = self.core.figures(Instant::now());
        CircuitSnapshot {
            state: figures.state,
            mode: figures.mode,
            generation: figures.generation,
            calls: figures.sums.calls,
            failures: figures.sums.failures,
            slow_calls: figures.sums.slow,
            consecutive_failures: figures.in_a_row,
            retry_after: figures.retry_after,
            probes_in_flight: figures.probes_in_flight,
            openings: figures.openings,
        }
    }

    /// Changes the mode. Going back to [`Mode::Normal`] starts closed, with an empty window.
    pub fn set_mode(&self, mode: Mode) {
        if let Some(change) = self.core.set_mode(mode, Instant::now()) {
            self.report(change);
        }
    }

    /// Forgets all outcomes, and how often it has opened. An open circuit closes; a forced one stays as it is. Outcomes of calls that are under way
    /// do not count any more.
    pub fn reset(&self) {
        self.report(self.core.reset(Instant::now()));
    }

    #[inline]
    pub(super) fn admit(&self, now: Instant) -> Result<Ticket, Option<Duration>> {
        match self.core.admit_closed(now) {
            Some(ticket) => Ok(ticket),
            None => self.admit_not_closed(now),
        }
    }

    fn admit_not_closed(&self, now: Instant) -> Result<Ticket, Option<Duration>> {
        let (admitted, change) = self.core.admit(now);
        if let Some(change) = change {
            self.report(change);
        }
        if admitted.is_err() {
            self.reports.refused.increment(1);
        }
        admitted
    }

    #[inline]
    pub(super) fn record(&self, ticket: Ticket, outcome: Outcome, now: Instant) {
        if let Some(change) = self.core.record(ticket, outcome, now) {
            self.report(change);
        }
    }

    /// Tells everybody, outside the lock.
    #[cold]
    fn report(&self, change: Change) {
        let Change { from, to, cause, generation, wait, suppressed } = change;
        let (layer, key) = (self.reports.name, self.key());
        if from == to {
            tracing::info!(
                layer,
                key,
                cause = cause.as_str(),
                state = to.as_str(),
                "the circuit starts afresh"
            );
        } else if suppressed {
            self.reports.suppressed.increment(1);
            tracing::warn!(layer, key, cause = cause.as_str(), "the circuit would have opened");
        } else {
            self.reports.transitions[to as usize].increment(1);
            self.reports.count_open(not_closed(to) - not_closed(from));
            match to {
                CircuitState::Open => {
                    tracing::warn!(layer, key, cause = cause.as_str(), open_for = ?wait, "the circuit has opened");
                }
                CircuitState::HalfOpen => tracing::info!(layer, key, "the circuit lets probes through"),
                CircuitState::Closed => {
                    tracing::info!(layer, key, cause = cause.as_str(), "the circuit has closed");
                }
            }
        }
        let Some(listener) = &self.reports.listener else {
            return;
        };
        let key = self.key.clone();
        let transition = Transition { layer, key, from, to, cause, generation, open_for: wait, suppressed };
        // A call must not fail, nor a drop abort the process, because somebody who only listens panics.
        if catch_unwind(AssertUnwindSafe(|| listener(&transition))).is_err() {
            tracing::error!(layer, "a listener of the circuit has panicked; the circuit goes on");
        }
    }
}

impl Drop for Circuit {
    fn drop(&mut self) {
        // An open circuit whose key makes room for another one.
        self.reports.count_open(-not_closed(self.state()));
    }
}

fn not_closed(state: CircuitState) -> i32 {
    i32::from(state != CircuitState::Closed)
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Circuit")
            .field("layer", &self.reports.name)
            .field("key", &self.key)
            .field("snapshot", &self.snapshot())
            .finish_non_exhaustive()
    }
}

/// The figures of a [`Circuit`] at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CircuitSnapshot {
    /// What it does with calls. A forced circuit is open or closed.
    pub state: CircuitState,
    /// What an operator made of it.
    pub mode: Mode,
    /// Counts its changes.
    pub generation: u64,
    /// Calls in the window that count. Zero unless closed.
    pub calls: u32,
    /// Those of them that failed.
    pub failures: u32,
    /// Those of them that were slow.
    pub slow_calls: u32,
    /// Failures since the last success.
    pub consecutive_failures: u32,
    /// While open: the time until a probe may go.
    pub retry_after: Option<Duration>,
    /// Probes that are under way.
    pub probes_in_flight: u32,
    /// How often it has opened without having been closed for as long as it was open, which makes it stay open
    /// longer each time.
    pub openings: u32,
}

/// What an operator has forced is not forgotten, however little it is used.
impl Keep for Circuit {
    fn keep(&self) -> bool {
        self.core.mode() != *self.reports.mode()
    }

    /// The mode of all may have been changed while this one was made, and could not be found.
    fn made(&self) {
        let mode = *self.reports.mode();
        if mode != self.born && self.core.mode() == self.born {
            self.set_mode(mode);
        }
    }
}
