//! Does a node answer at all? How many attempts it owes an answer, and for how long.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// The attempts that were made at a node since it answered last.
///
/// A node that hangs takes requests and says nothing; a caller sees only that its own call takes long. All calls together see more: so
/// many were sent, and none was answered.
///
/// Only time in which somebody waits is silence. Nobody hears the answer to what was given up, so that a node which nobody asks any
/// more grows no worse.
///
/// Moments are nanoseconds on a clock of the caller's. What is waited for is counted exactly. Threads that come between each other
/// may take the silence for shorter, and never for longer than one of them was interrupted.
#[derive(Debug, Default)]
pub(super) struct Silence {
    // Attempts that somebody waits for.
    waiting: AtomicU32,
    // Attempts since the last answer that nobody waits for any more.
    given_up: AtomicU32,
    // Since when somebody has waited, were it without a pause.
    asked: AtomicU64,
    given_up_at: AtomicU64,
    answered_at: AtomicU64,
}

impl Silence {
    /// An attempt begins.
    #[inline]
    pub(super) fn asked(&self, now: u64) {
        if self.waiting.load(Relaxed) == 0 {
            // Written before anybody can see that there is one who waits.
            self.asked.store(now.saturating_sub(self.lasts(now)), Relaxed);
        }
        self.waiting.fetch_add(1, Relaxed);
    }

    /// An attempt that had begun has ended, in whatever way but that it was given up.
    #[inline]
    pub(super) fn ended(&self) {
        self.waiting.fetch_sub(1, Relaxed);
    }

    /// An attempt that had begun is not waited for any more, and was not answered.
    pub(super) fn given_up(&self, now: u64) {
        self.given_up_at.store(now, Relaxed);
        self.given_up.fetch_add(1, Relaxed);
        self.waiting.fetch_sub(1, Relaxed);
    }

    /// The node has answered something.
    #[inline]
    pub(super) fn answered(&self, now: u64) {
        self.answered_at.store(now, Relaxed);
        if self.given_up.load(Relaxed) != 0 {
            self.given_up.store(0, Relaxed);
        }
    }

    /// How many attempts it has not answered, those included that were given up.
    pub(super) fn unanswered(&self) -> u32 {
        self.waiting.load(Relaxed).saturating_add(self.given_up.load(Relaxed))
    }

    /// For how long it has been waited for in vain, in nanoseconds.
    #[inline]
    pub(super) fn lasts(&self, now: u64) -> u64 {
        let until = if self.waiting.load(Relaxed) != 0 {
            now
        } else if self.given_up.load(Relaxed) != 0 {
            self.given_up_at.load(Relaxed)
        } else {
            return 0;
        };
        until.saturating_sub(self.asked.load(Relaxed).max(self.answered_at.load(Relaxed)))
    }

    /// The same, if somebody waits at this moment.
    #[inline]
    pub(super) fn wait(&self, now: u64) -> u64 {
        if self.waiting.load(Relaxed) == 0 { 0 } else { self.lasts(now) }
    }

    /// When it answered last.
    #[inline]
    pub(super) fn answered_at(&self) -> u64 {
        self.answered_at.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn an_answer_ends_it_but_for_what_is_still_waited_for() {
        let silence = Silence::default();
        for now in [100, 110, 120] {
            silence.asked(now);
        }
        silence.ended();
        silence.answered(500);
        assert_eq!((silence.unanswered(), silence.lasts(500), silence.lasts(700)), (2, 0, 200));
        silence.ended();
        silence.ended();
        silence.answered(800);
        assert_eq!((silence.unanswered(), silence.lasts(900)), (0, 0));
    }

    #[test]
    fn time_in_which_nobody_waits_is_no_silence() {
        let silence = Silence::default();
        silence.asked(100);
        silence.given_up(130);
        assert_eq!((silence.unanswered(), silence.lasts(9_000), silence.wait(9_000)), (1, 30, 0));
        silence.asked(10_000);
        assert_eq!((silence.unanswered(), silence.lasts(10_000), silence.wait(10_020)), (2, 30, 50));
        silence.given_up(10_020);
        assert_eq!(silence.lasts(99_000), 50);
        silence.answered(99_000);
        assert_eq!((silence.unanswered(), silence.lasts(99_500)), (0, 0));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Load,
        Begin,
        End,
        GiveUp,
        Answer,
    }

    proptest! {
        /// Whatever comes in whatever order, a node that nobody waits for does not grow more silent.
        #[test]
        fn a_node_that_nobody_asks_grows_no_worse(
            steps in prop::collection::vec(
                (prop::sample::select(&[Step::Load, Step::Begin, Step::End, Step::GiveUp, Step::Answer][..]), 0_u64..50),
                0..60,
            ),
        ) {
            let (silence, mut waiting, mut now, mut waited) = (Silence::default(), 0_u32, 0, 0);
            for (step, later) in steps {
                now += later;
                waited += if waiting > 0 { later } else { 0 };
                match step {
                    Step::Begin => {
                        silence.asked(now);
                        waiting += 1;
                    }
                    Step::End if waiting > 0 => {
                        silence.ended();
                        waiting -= 1;
                    }
                    Step::GiveUp if waiting > 0 => {
                        silence.given_up(now);
                        waiting -= 1;
                    }
                    Step::Answer => {
                        silence.answered(now);
                        waited = 0;
                    }
                    _ => {}
                }
                prop_assert!(silence.lasts(now) <= waited, "{} of {waited}", silence.lasts(now));
                if waiting == 0 {
                    prop_assert_eq!(silence.lasts(now), silence.lasts(now + 1_000));
                    prop_assert_eq!(silence.wait(now + 1_000), 0);
                }
            }
        }
    }
}
