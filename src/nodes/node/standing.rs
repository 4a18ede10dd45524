//! Can a node take a request?

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use palisade::{
    Instant,
    breaker::{CircuitPermit, CircuitState},
    clock::nanos,
};

use super::{Availability, Node};

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
    /// Where it stands, for the choice of a node; told whether the driver has a connection to it.
    pub(crate) fn standing(&self, is_connected: bool, now: Instant) -> Standing {
        let hot = &self.hot;
        if !is_connected {
            if !hot.was_down.load(Relaxed) && !hot.was_down.swap(true, Relaxed) {
                self.tell(self.availability(false));
            }
            return Standing::Down;
        }
        if hot.was_down.load(Relaxed) && hot.was_down.swap(false, Relaxed) {
            self.reconnected(now);
            self.tell(self.availability(true));
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

    /// Whether it can be counted on, told whether the driver has a connection to it.
    pub(in crate::nodes) fn availability(&self, is_connected: bool) -> Availability {
        match (is_connected, self.is_ejected()) {
            (false, _) => Availability::Down,
            (true, true) => Availability::Ejected,
            (true, false) => Availability::Up,
        }
    }

    /// Whether one more attempt may cost the connection, and none is to find out whether it answers again.
    pub(in crate::nodes) fn is_out(&self, now: Instant) -> bool {
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
    pub(super) fn is_silent(&self, now: Instant) -> bool {
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
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        let stall = &self.shared.rules.stall;
        let silence = &self.hot.silence;
        if silence.unanswered() < stall.attempts || !self.circuit.is_closed() {
            return false;
        }
        let now = self.nanos(now);
        silence.lasts(now) > self.patience(now)
    }

    /// For how long an answer may be missing before that tells something, in nanoseconds.
    #[inline]
    pub(super) fn patience(&self, now: u64) -> u64 {
        let usual = self.hot.latency.at(now).saturating_mul(USUAL);
        nanos(self.shared.rules.stall.after).max(usual)
    }
}
