//! The circuit's core: synchronous, and told the time.
//!
//! What happens at each call of a closed circuit is done with atomics. Everything else happens under one lock: opening,
//! probing, closing, and what an operator does. Each change of state begins a new generation, and a ticket names the
//! generation that admitted its call: an outcome of another one changes nothing.

use std::time::Duration;

use super::{
    change::{Cause, Change, CircuitState, Mode},
    rules::{Rules, probes_for},
};
use crate::{
    Jitter,
    clock::Instant,
    sync::{
        Mutex,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
        lock,
    },
    window::{self, Window},
};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    Failure,
    /// The service has more than it can do. Counts for the ratio only: the service is alive.
    Overload,
    /// Says nothing about the service.
    Neutral,
    /// The caller gave up.
    Dropped,
    /// Another attempt of the same request was faster.
    Superseded,
}

/// The leave to make one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    phase: Phase,
    started: Instant,
}

/// A generation and what its calls meet, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Phase(u64);

impl Phase {
    const CLOSED: u64 = 0;
    const OPEN: u64 = 1;
    const HALF_OPEN: u64 = 2;
    const FORCED_OPEN: u64 = 3;
    const FORCED_CLOSED: u64 = 4;

    const fn new(generation: u64, kind: u64) -> Self {
        Self(generation << 3 | kind)
    }

    const fn generation(self) -> u64 {
        self.0 >> 3
    }

    const fn kind(self) -> u64 {
        self.0 & 7
    }

    const fn state(self) -> CircuitState {
        match self.kind() {
            Self::CLOSED | Self::FORCED_CLOSED => CircuitState::Closed,
            Self::HALF_OPEN => CircuitState::HalfOpen,
            _ => CircuitState::Open,
        }
    }
}

/// How a call ended, as far as the window is concerned.
#[derive(Clone, Copy)]
struct Counted {
    failed: bool,
    slow: bool,
}

impl Counted {
    const fn marks(self) -> window::Marks {
        [self.failed, self.slow]
    }
}

/// Sums over the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) calls: u32,
    pub(super) failures: u32,
    pub(super) slow: u32,
}

impl From<window::Sums> for Sums {
    fn from(sums: window::Sums) -> Self {
        let [failures, slow] = sums.marked;
        Self { calls: sums.events, failures, slow }
    }
}

pub(super) struct Core {
    phase: AtomicU64,
    // While open: when a probe may go, in nanoseconds of the clock.
    probe_at: AtomicU64,
    // Failures in a row, beside the generation that they belong to: 32 bits each.
    in_a_row: AtomicU64,
    window: Window,
    rules: Rules,
    rest: Mutex<Rest>,
}

/// What changes under the lock.
struct Rest {
    mode: Mode,
    // How often it has opened without having been closed for long between.
    openings: u32,
    // The last wait, and what jitter could have made of it at most.
    wait: Duration,
    longest_wait: Duration,
    closed_at: Instant,
    probing: Probing,
}

#[derive(Clone, Copy)]
struct Probing {
    // Probes that are under way or have ended with something that counts.
    admitted: u32,
    ended: u32,
    failed: u32,
    slow: u32,
    // Since when probes are under way without an answer to any, and how long they were before that.
    since: Option<Instant>,
    waited: Duration,
}

/// Figures of a circuit at a moment.
pub(super) struct Figures {
    pub(super) state: CircuitState,
    pub(super) mode: Mode,
    pub(super) generation: u64,
    pub(super) sums: Sums,
    pub(super) in_a_row: u32,
    pub(super) retry_after: Option<Duration>,
    pub(super) probes_in_flight: u32,
    pub(super) openings: u32,
}

impl Core {
    pub(super) fn new(rules: Rules, mode: Mode, now: Instant) -> Self {
        let phase = Phase::new(1, kind_of(mode));
        Self {
            phase: AtomicU64::new(phase.0),
            probe_at: AtomicU64::new(0),
            in_a_row: AtomicU64::new(phase.generation() << 32),
            window: Window::new(rules.span, phase.generation(), now),
            rules,
            rest: Mutex::new(Rest {
                mode,
                openings: 0,
                wait: Duration::ZERO,
                longest_wait: Duration::ZERO,
                closed_at: now,
                probing: Probing::NONE,
            }),
        }
    }

    /// Admits a call of a closed circuit, or says that [`admit`](Self::admit) has to decide.
    #[inline]
    pub(super) fn admit_closed(&self, now: Instant) -> Option<Ticket> {
        let phase = Phase(self.phase.load(Acquire));
        (phase.kind() == Phase::CLOSED).then_some(Ticket { phase, started: now })
    }

    /// Admits a call, or tells when to come back where that is known.
    pub(super) fn admit(&self, now: Instant) -> (Result<Ticket, Option<Duration>>, Option<Change>) {
        let phase = Phase(self.phase.load(Acquire));
        match phase.kind() {
            Phase::CLOSED | Phase::FORCED_CLOSED => return (Ok(Ticket { phase, started: now }), None),
            Phase::FORCED_OPEN => return (Err(None), None),
            Phase::OPEN => {
                // The hottest refusal: two reads, no lock.
                let wait = self.nanos_until_probe(now);
                if wait > 0 {
                    return (Err(Some(Duration::from_nanos(wait))), None);
                }
            }
            _ => {}
        }
        self.admit_probe(now)
    }

    #[cold]
    fn admit_probe(&self, now: Instant) -> (Result<Ticket, Option<Duration>>, Option<Change>) {
        let mut rest = lock(&self.rest);
        let mut phase = self.phase();
        let mut change = None;
        match phase.kind() {
            Phase::OPEN => {
                let wait = self.nanos_until_probe(now);
                if wait > 0 {
                    return (Err(Some(Duration::from_nanos(wait))), None);
                }
                rest.probing = Probing::NONE;
                change = Some(self.turn(phase, Phase::HALF_OPEN, Cause::WaitOver, None));
                phase = self.phase();
            }
            Phase::HALF_OPEN => {}
            Phase::FORCED_OPEN => return (Err(None), None),
            _ => return (Ok(Ticket { phase, started: now }), None),
        }
        let probing = &mut rest.probing;
        if probing.unanswered_for(now) >= self.rules.probe_timeout {
            let change = self.open(&mut rest, phase, Cause::ProbesTimedOut, now);
            return (Err(change.wait), Some(change));
        }
        if probing.admitted < self.rules.probes {
            probing.admitted += 1;
            probing.since.get_or_insert(now);
            return (Ok(Ticket { phase, started: now }), change);
        }
        (Err(None), change)
    }

    /// Notes how an admitted call ended.
    #[inline]
    pub(super) fn record(&self, ticket: Ticket, outcome: Outcome, now: Instant) -> Option<Change> {
        let slow = self
            .rules
            .slow
            .is_some_and(|slow| now.saturating_duration_since(ticket.started) > slow.longer_than);
        let counted = match outcome {
            Outcome::Success => Counted { failed: false, slow },
            Outcome::Overload if !self.rules.overload_counts => return self.forget(ticket, true, now),
            Outcome::Failure | Outcome::Overload => Counted { failed: true, slow },
            // Whoever gave up on a call that was slow by then has seen as much as one who waited for it.
            Outcome::Dropped if slow => Counted { failed: false, slow },
            // Of a superseded call another attempt was answered.
            Outcome::Neutral | Outcome::Superseded => return self.forget(ticket, true, now),
            Outcome::Dropped => return self.forget(ticket, false, now),
        };
        if ticket.phase.kind() != Phase::CLOSED || ticket.phase.0 != self.phase.load(Acquire) {
            return self.record_probe(ticket, outcome, counted.slow, now);
        }
        let generation = ticket.phase.generation();
        if !self.window.add(generation, counted.marks(), now) && !self.add_with_room(ticket, counted, now) {
            return None;
        }
        let too_many_in_a_row = match outcome {
            Outcome::Failure => self.one_more_in_a_row(generation),
            Outcome::Success => {
                self.none_in_a_row(generation);
                false
            }
            _ => false,
        };
        // A success never opens a circuit, unless it was slow.
        if !counted.failed && !counted.slow {
            return None;
        }
        let cause =
            if too_many_in_a_row { Cause::ConsecutiveFailures } else { self.reached(generation, now)? };
        self.open_if_still(ticket, cause, now)
    }

    /// Ends a call that does not count.
    #[inline]
    fn forget(&self, ticket: Ticket, answered: bool, now: Instant) -> Option<Change> {
        if ticket.phase.kind() == Phase::HALF_OPEN {
            let mut rest = lock(&self.rest);
            if self.phase() == ticket.phase {
                rest.probing.admitted = rest.probing.admitted.saturating_sub(1);
                rest.probing.ended(answered, now);
            }
        }
        None
    }

    #[cold]
    fn add_with_room(&self, ticket: Ticket, counted: Counted, now: Instant) -> bool {
        let generation = ticket.phase.generation();
        let _rest = lock(&self.rest);
        while self.phase() == ticket.phase {
            self.window.make_room(generation, now);
            if self.window.add(generation, counted.marks(), now) {
                return true;
            }
        }
        false
    }

    #[cold]
    fn record_probe(&self, ticket: Ticket, outcome: Outcome, slow: bool, now: Instant) -> Option<Change> {
        if ticket.phase.kind() != Phase::HALF_OPEN {
            return None;
        }
        let mut rest = lock(&self.rest);
        let phase = self.phase();
        if phase != ticket.phase {
            return None;
        }
        let Rules { probes, failure_ratio, consecutive_failures, .. } = self.rules;
        // A probe is judged by the rules that open the circuit, and by no other.
        let failed = match outcome {
            Outcome::Failure => failure_ratio.is_some() || consecutive_failures.is_some(),
            Outcome::Overload => failure_ratio.is_some(),
            _ => false,
        };
        let probing = &mut rest.probing;
        probing.ended += 1;
        probing.failed += u32::from(failed);
        probing.slow += u32::from(slow);
        probing.ended(outcome != Outcome::Dropped, now);
        // Where only failures in a row open it, one failure is enough.
        let in_a_row = if consecutive_failures.is_some() { 1 } else { u32::MAX };
        let most_failed = failure_ratio.map_or(in_a_row, |ratio| probes_for(ratio, probes));
        let most_slow = self.rules.slow.map_or(u32::MAX, |slow| probes_for(slow.ratio, probes));
        if probing.failed >= most_failed || probing.slow >= most_slow {
            return Some(self.open(&mut rest, phase, Cause::ProbesFailed, now));
        }
        // Closed as soon as the probes that are left could not change it.
        let left = probes.saturating_sub(probing.ended);
        if probing.failed.saturating_add(left) < most_failed && probing.slow.saturating_add(left) < most_slow
        {
            return Some(self.close(&mut rest, phase, Cause::ProbesSucceeded, now));
        }
        None
    }

    fn sums(&self, generation: u64, now: Instant) -> Sums {
        self.window.sums(generation, now).into()
    }

    /// Which limit the window has reached.
    fn reached(&self, generation: u64, now: Instant) -> Option<Cause> {
        let sums = self.sums(generation, now);
        let reached = |part: u32, ratio: f64| f64::from(part) >= ratio * f64::from(sums.calls);
        if sums.calls < self.rules.minimum_calls {
            None
        } else if self.rules.failure_ratio.is_some_and(|ratio| reached(sums.failures, ratio)) {
            Some(Cause::FailureRatio)
        } else if self.rules.slow.is_some_and(|slow| reached(sums.slow, slow.ratio)) {
            Some(Cause::SlowRatio)
        } else {
            None
        }
    }

    /// Closed -> Open, unless somebody else has changed the state meanwhile.
    #[cold]
    fn open_if_still(&self, ticket: Ticket, cause: Cause, now: Instant) -> Option<Change> {
        let mut rest = lock(&self.rest);
        let phase = self.phase();
        if phase != ticket.phase {
            return None;
        }
        self.open_by_mode(&mut rest, phase, cause, now)
    }

    /// Closed or half-open -> Open, whatever the outcomes say. One that is open, or forced, stays as it is.
    pub(super) fn trip(&self, now: Instant) -> Option<Change> {
        let mut rest = lock(&self.rest);
        let phase = self.phase();
        match phase.kind() {
            Phase::CLOSED | Phase::HALF_OPEN => self.open_by_mode(&mut rest, phase, Cause::Tripped, now),
            _ => None,
        }
    }

    /// Opens, or notes that it would have opened.
    fn open_by_mode(&self, rest: &mut Rest, from: Phase, cause: Cause, now: Instant) -> Option<Change> {
        if rest.mode == Mode::MetricsOnly {
            // It would be open still, and count nothing.
            if now.as_nanos() < self.probe_at.load(Relaxed) {
                return None;
            }
            let wait = self.next_wait(rest, from, now);
            let change = self.close(rest, from, cause, now);
            return Some(Change { to: CircuitState::Open, wait: Some(wait), suppressed: true, ..change });
        }
        Some(self.open(rest, from, cause, now))
    }

    fn one_more_in_a_row(&self, generation: u64) -> bool {
        let Some(most) = self.rules.consecutive_failures else {
            return false;
        };
        let counted = self.in_a_row.fetch_update(Relaxed, Relaxed, |word| {
            (word >> 32 == generation & 0xffff_ffff && word & 0xffff_ffff < 0xffff_ffff).then(|| word + 1)
        });
        counted.is_ok_and(|before| (before & 0xffff_ffff) + 1 >= u64::from(most))
    }

    #[inline]
    fn none_in_a_row(&self, generation: u64) {
        // Usually there is nothing to do: a write would make every thread wait for the others.
        let none = (generation & 0xffff_ffff) << 32;
        let is_some = |word: u64| word != none && word >> 32 == none >> 32;
        if is_some(self.in_a_row.load(Relaxed)) {
            let _ = self.in_a_row.fetch_update(Relaxed, Relaxed, |word| is_some(word).then_some(none));
        }
    }

    /// Begins a new generation, open.
    fn open(&self, rest: &mut Rest, from: Phase, cause: Cause, now: Instant) -> Change {
        let wait = self.next_wait(rest, from, now);
        self.turn(from, Phase::OPEN, cause, Some(wait))
    }

    /// For how long the circuit is to be open this time.
    fn next_wait(&self, rest: &mut Rest, from: Phase, now: Instant) -> Duration {
        // What has been closed for as long as it could have been open before has recovered: it starts anew.
        let recovered = from.kind() == Phase::CLOSED
            && now.saturating_duration_since(rest.closed_at) >= rest.longest_wait;
        rest.openings = if recovered { 1 } else { rest.openings.saturating_add(1) };
        let backoff = self.rules.open_for;
        rest.wait = backoff.wait(rest.openings, rest.wait, fastrand::f64());
        rest.longest_wait = backoff.with_jitter(Jitter::None).wait(rest.openings, Duration::ZERO, 1.0);
        self.probe_at.store((now + rest.wait).as_nanos(), Relaxed);
        rest.wait
    }

    /// Begins a new generation, closed.
    fn close(&self, rest: &mut Rest, from: Phase, cause: Cause, now: Instant) -> Change {
        rest.closed_at = now;
        let generation = from.generation() + 1;
        self.in_a_row.swap((generation & 0xffff_ffff) << 32, Relaxed);
        self.window.restart(generation, now);
        self.turn(from, Phase::CLOSED, cause, None)
    }

    /// Publishes a new phase, after everything that belongs to it has been written.
    fn turn(&self, from: Phase, kind: u64, cause: Cause, wait: Option<Duration>) -> Change {
        let to = Phase::new(from.generation() + 1, kind);
        self.phase.store(to.0, Release);
        let (from, generation) = (from.state(), to.generation());
        Change { from, to: to.state(), cause, generation, wait, suppressed: false }
    }

    pub(super) fn set_mode(&self, mode: Mode, now: Instant) -> Option<Change> {
        let mut rest = lock(&self.rest);
        if rest.mode == mode {
            return None;
        }
        rest.mode = mode;
        Some(self.begin(&mut rest, now))
    }

    /// Forgets everything and starts closed, or as the mode says.
    pub(super) fn reset(&self, now: Instant) -> Change {
        self.begin(&mut lock(&self.rest), now)
    }

    fn begin(&self, rest: &mut Rest, now: Instant) -> Change {
        rest.openings = 0;
        (rest.wait, rest.longest_wait) = (Duration::ZERO, Duration::ZERO);
        self.probe_at.store(0, Relaxed);
        let phase = self.phase();
        match kind_of(rest.mode) {
            Phase::CLOSED => self.close(rest, phase, Cause::Operator, now),
            kind => self.turn(phase, kind, Cause::Operator, None),
        }
    }

    pub(super) fn mode(&self) -> Mode {
        lock(&self.rest).mode
    }

    pub(super) fn state(&self) -> CircuitState {
        self.phase().state()
    }

    /// While open: the time until a probe may go, for whoever has to read the clock for it.
    pub(super) fn retry_after(&self, now: impl FnOnce() -> Instant) -> Option<Duration> {
        (self.phase().kind() == Phase::OPEN).then(|| Duration::from_nanos(self.nanos_until_probe(now())))
    }

    fn nanos_until_probe(&self, now: Instant) -> u64 {
        self.probe_at.load(Relaxed).saturating_sub(now.as_nanos())
    }

    pub(super) fn figures(&self, now: Instant) -> Figures {
        let rest = lock(&self.rest);
        let phase = self.phase();
        let closed = phase.kind() == Phase::CLOSED;
        let probing = rest.probing;
        Figures {
            state: phase.state(),
            mode: rest.mode,
            generation: phase.generation(),
            sums: if closed { self.sums(phase.generation(), now) } else { Sums::default() },
            in_a_row: if closed {
                u32::try_from(self.in_a_row.load(Relaxed) & 0xffff_ffff).unwrap_or(u32::MAX)
            } else {
                0
            },
            retry_after: self.retry_after(|| now),
            probes_in_flight: if phase.kind() == Phase::HALF_OPEN {
                probing.admitted.saturating_sub(probing.ended)
            } else {
                0
            },
            openings: rest.openings,
        }
    }

    fn phase(&self) -> Phase {
        Phase(self.phase.load(Acquire))
    }
}

impl Probing {
    const NONE: Self =
        Self { admitted: 0, ended: 0, failed: 0, slow: 0, since: None, waited: Duration::ZERO };

    /// For how long probes have been under way without an answer to any. Time in which none was does not count.
    fn unanswered_for(&self, now: Instant) -> Duration {
        let since = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.waited.saturating_add(since)
    }

    /// A probe has ended. If it was answered, the service is given time for the others.
    fn ended(&mut self, answered: bool, now: Instant) {
        let under_way = self.admitted > self.ended;
        if answered {
            self.waited = Duration::ZERO;
            self.since = under_way.then_some(now);
        } else if !under_way {
            self.waited = self.unanswered_for(now);
            self.since = None;
        }
    }
}

const fn kind_of(mode: Mode) -> u64 {
    match mode {
        Mode::Normal | Mode::MetricsOnly => Phase::CLOSED,
        Mode::ForcedOpen => Phase::FORCED_OPEN,
        Mode::ForcedClosed => Phase::FORCED_CLOSED,
    }
}
