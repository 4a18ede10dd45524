//! The decision after a failed attempt: plain arithmetic that is told the time and the chance.

use std::{num::NonZeroU32, time::Duration};

use crate::{
    Backoff,
    class::{Class, Fault},
    clock::Instant,
};

#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) max_attempts: NonZeroU32,
    pub(super) backoff: Backoff,
    pub(super) max_retry_after: Duration,
}

/// What is known of a call when one of its attempts has failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    /// The number of attempts so far, at least 1.
    pub(super) attempt: u32,
    pub(super) class: Class,
    /// The wait before the attempt that failed, zero for the first.
    pub(super) previous_wait: Duration,
    pub(super) deadline: Option<Instant>,
}

/// Why a failure is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Refused,
    Attempts,
    NotAllowed,
    Deadline,
    Budget,
}

impl Stop {
    pub(super) const ALL: [Self; 5] =
        [Self::Refused, Self::Attempts, Self::NotAllowed, Self::Deadline, Self::Budget];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Attempts => "attempts",
            Self::NotAllowed => "not_allowed",
            Self::Deadline => "deadline",
            Self::Budget => "budget",
        }
    }
}

impl Rules {
    pub(super) fn attempts_left(&self, attempt: u32) -> bool {
        attempt < self.max_attempts.get()
    }

    /// How long to wait before the next attempt, or `None` if it would begin after the deadline.
    pub(super) fn wait(
        &self,
        failure: &Failure,
        random: f64,
        now: impl FnOnce() -> Instant,
    ) -> Option<Duration> {
        let backoff = self.backoff.wait(failure.attempt, failure.previous_wait, random);
        let class = &failure.class;
        let wait = match class.retry_after() {
            Some(hint) => hint.clamp(backoff, backoff.saturating_add(self.max_retry_after)),
            // Nothing speaks for a wait when the next attempt goes to a target that has not failed yet.
            None if failure.attempt == 1
                && class.fault() == Fault::Unreachable
                && class.may_do_elsewhere() =>
            {
                Duration::ZERO
            }
            None => backoff,
        };
        match failure.deadline {
            Some(deadline) if now() + wait >= deadline => None,
            _ => Some(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Effect, Jitter};

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn rules() -> Rules {
        Rules {
            max_attempts: NonZeroU32::new(3).unwrap(),
            backoff: Backoff::exponential(ms(100), ms(800)).unwrap().with_jitter(Jitter::None),
            max_retry_after: ms(5_000),
        }
    }

    fn failed(attempt: u32, class: Class) -> Failure {
        Failure { attempt, class, previous_wait: Duration::ZERO, deadline: None }
    }

    fn wait(failure: &Failure) -> Option<Duration> {
        rules().wait(failure, 0.5, Instant::now)
    }

    const OVERLOAD: Class = Class::new(Fault::Overload, Effect::NotApplied);
    const UNREACHABLE: Class = Class::new(Fault::Unreachable, Effect::Unknown);

    #[test]
    fn the_last_attempt_is_the_one_that_max_attempts_names() {
        assert!(rules().attempts_left(2));
        assert!(!rules().attempts_left(3));
    }

    #[test]
    fn the_wait_doubles_with_each_attempt() {
        assert_eq!(wait(&failed(1, OVERLOAD)), Some(ms(100)));
        assert_eq!(wait(&failed(2, OVERLOAD)), Some(ms(200)));
    }

    #[test]
    fn retry_after_is_honoured_between_the_backoff_and_the_clamp() {
        let hint = |millis| wait(&failed(1, OVERLOAD.with_retry_after(ms(millis))));
        assert_eq!(hint(10), Some(ms(100)));
        assert_eq!(hint(700), Some(ms(700)));
        assert_eq!(hint(3_600_000), Some(ms(5_100)));
    }

    #[test]
    fn the_first_repeat_at_another_target_does_not_wait() {
        assert_eq!(wait(&failed(1, UNREACHABLE.elsewhere())), Some(ms(0)));
        assert_eq!(wait(&failed(2, UNREACHABLE.elsewhere())), Some(ms(200)));
        assert_eq!(wait(&failed(1, UNREACHABLE)), Some(ms(100)));
        assert_eq!(
            wait(&failed(1, OVERLOAD.elsewhere())),
            Some(ms(100)),
            "an overloaded cluster gets its pause"
        );
    }

    #[test]
    fn no_attempt_begins_at_or_after_the_deadline() {
        let now = Instant::now();
        let due = |deadline| {
            let failure = Failure { deadline: Some(now + deadline), ..failed(1, OVERLOAD) };
            rules().wait(&failure, 0.5, || now)
        };
        assert_eq!(due(ms(101)), Some(ms(100)));
        assert_eq!(due(ms(100)), None);
        assert_eq!(due(ms(0)), None);
    }
}
