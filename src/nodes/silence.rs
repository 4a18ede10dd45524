//! Does a node answer at all? How many attempts it owes an answer, and for how long.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// The attempts that were made at a node since it answered last.
///
/// A node that hangs takes requests and says nothing; a caller sees only that its own call takes long. All calls together see more: so
/// many were sent, and none was answered.
///
/// Moments are nanoseconds on a clock of the caller's.
#[derive(Debug, Default)]
pub(super) struct Silence {
    unanswered: AtomicU32,
    since: AtomicU64,
}

impl Silence {
    /// An attempt began.
    #[inline]
    pub(super) fn asked(&self, now: u64) {
        if self.unanswered.load(Relaxed) == 0 {
            self.since.store(now, Relaxed);
        }
        self.unanswered.fetch_add(1, Relaxed);
    }

    /// The node has answered something; so many attempts are still under way.
    #[inline]
    pub(super) fn answered(&self, in_flight: u32, now: u64) {
        self.since.store(now, Relaxed);
        self.unanswered.store(in_flight, Relaxed);
    }

    /// How many attempts it has not answered, those included that were given up.
    pub(super) fn unanswered(&self) -> u32 {
        self.unanswered.load(Relaxed)
    }

    /// For how long it has owed an answer, in nanoseconds.
    #[inline]
    pub(super) fn lasts(&self, now: u64) -> u64 {
        if self.unanswered.load(Relaxed) == 0 {
            return 0;
        }
        now.saturating_sub(self.since.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_from_the_first_attempt_that_was_not_answered() {
        let silence = Silence::default();
        assert_eq!((silence.unanswered(), silence.lasts(100)), (0, 0));
        silence.asked(100);
        silence.asked(150);
        assert_eq!((silence.unanswered(), silence.lasts(400)), (2, 300));
    }

    #[test]
    fn an_answer_ends_it_but_for_what_is_still_under_way() {
        let silence = Silence::default();
        for now in [100, 110, 120] {
            silence.asked(now);
        }
        silence.answered(2, 500);
        assert_eq!((silence.unanswered(), silence.lasts(500), silence.lasts(700)), (2, 0, 200));
        silence.answered(0, 800);
        assert_eq!((silence.unanswered(), silence.lasts(900)), (0, 0));
    }
}
