//! How long to wait before a repeat.

use std::time::Duration;

use crate::ConfigError;

/// How a wait is spread, so that callers that failed together do not come back together.
///
/// The names and formulas are those of [Exponential Backoff And Jitter][aws] (Marc Brooker, AWS). `ceiling` is
/// the base doubled once for each attempt after the first.
///
/// [aws]: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Jitter {
    /// Always the ceiling: for tests, or for a single caller.
    None,
    /// Anything between zero and the ceiling. Spreads best. The default.
    #[default]
    Full,
    /// Anything between half the ceiling and the ceiling: never an immediate repeat.
    Equal,
    /// Anything between the base and three times the wait before.
    Decorrelated,
}

/// An exponential backoff, capped after jitter.
///
/// | knob | unit | default |
/// | --- | --- | --- |
/// | `base` | duration; the first ceiling | 25 ms |
/// | `max` | duration; no wait is longer | 1 s |
/// | `jitter` | [`Jitter`] | full |
///
/// ```
/// use std::time::Duration;
/// use palisade::{Backoff, Jitter};
///
/// let backoff = Backoff::exponential(Duration::from_millis(10), Duration::from_millis(30))?
///     .with_jitter(Jitter::None);
/// let waits: Vec<_> = (1..=4).map(|attempt| backoff.wait(attempt, Duration::ZERO, 0.5)).collect();
/// assert_eq!(waits, [10, 20, 30, 30].map(Duration::from_millis));
/// # Ok::<_, palisade::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    jitter: Jitter,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(25), max: Duration::from_secs(1), jitter: Jitter::Full }
    }
}

impl Backoff {
    /// No wait at all: for repeats that go to another target each.
    pub const NONE: Self = Self { base: Duration::ZERO, max: Duration::ZERO, jitter: Jitter::None };

    /// For a circuit that opens again and again.
    pub(crate) const DOUBLING_5S_TO_60S: Self =
        Self { base: Duration::from_secs(5), max: Duration::from_secs(60), jitter: Jitter::Equal };

    /// With full jitter made equal: never next to nothing.
    pub(crate) const fn at_least_half(mut self) -> Self {
        if matches!(self.jitter, Jitter::Full) {
            self.jitter = Jitter::Equal;
        }
        self
    }

    /// A backoff that begins at `base` and doubles up to `max`, with full jitter.
    ///
    /// # Errors
    ///
    /// If `base` is zero (use [`Backoff::NONE`]), or above `max`.
    pub fn exponential(base: Duration, max: Duration) -> Result<Self, ConfigError> {
        if base.is_zero() {
            return Err(ConfigError::new(
                "base",
                "must be above zero: use `Backoff::NONE` to repeat without a wait",
            ));
        }
        if base > max {
            return Err(ConfigError::new(
                "base",
                format!("is {base:?}, which is above `max`, {max:?}: swap them, or raise `max`"),
            ));
        }
        Ok(Self { base, max, jitter: Jitter::Full })
    }

    /// Sets how waits are spread.
    pub const fn with_jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// The longest wait.
    pub const fn max(&self) -> Duration {
        self.max
    }

    /// The wait after the failure of attempt number `attempt`, which counts from 1.
    ///
    /// `previous` is the wait before that attempt, zero for the first; only decorrelated jitter reads it.
    /// `random` is a number from 0 up to 1 and decides within the jitter's range.
    pub fn wait(&self, attempt: u32, previous: Duration, random: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let ceiling = self.base.saturating_mul(1 << doublings).min(self.max);
        let wait = match self.jitter {
            Jitter::None => ceiling,
            Jitter::Full => ceiling.mul_f64(random),
            Jitter::Equal => ceiling.mul_f64(random.midpoint(1.0)),
            Jitter::Decorrelated => {
                let longest = previous.max(self.base).saturating_mul(3);
                self.base + longest.saturating_sub(self.base).mul_f64(random)
            }
        };
        wait.min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn contradictory_settings_are_refused_with_what_to_do() {
        let error = Backoff::exponential(ms(30), ms(10)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`base` is 30ms, which is above `max`, 10ms: swap them, or raise `max`"
        );
        assert_eq!(Backoff::exponential(ms(0), ms(10)).unwrap_err().setting(), "base");
    }

    #[test]
    fn each_jitter_spans_its_range() {
        let range = |jitter, attempt, previous| {
            let backoff = Backoff::exponential(ms(10), ms(1_000)).unwrap().with_jitter(jitter);
            (backoff.wait(attempt, previous, 0.0), backoff.wait(attempt, previous, 1.0))
        };
        assert_eq!(range(Jitter::None, 3, ms(0)), (ms(40), ms(40)));
        assert_eq!(range(Jitter::Full, 3, ms(0)), (ms(0), ms(40)));
        assert_eq!(range(Jitter::Equal, 3, ms(0)), (ms(20), ms(40)));
        assert_eq!(range(Jitter::Decorrelated, 1, ms(0)), (ms(10), ms(30)));
        assert_eq!(range(Jitter::Decorrelated, 3, ms(50)), (ms(10), ms(150)));
    }

    proptest! {
        #[test]
        fn no_wait_exceeds_the_cap_whatever_the_jitter(
            attempt in 0..=u32::MAX,
            previous in 0..u64::MAX / 2,
            random in 0.0..1.0f64,
            jitter in prop_oneof![
                Just(Jitter::None), Just(Jitter::Full), Just(Jitter::Equal), Just(Jitter::Decorrelated)
            ],
        ) {
            let backoff = Backoff::exponential(ms(7), ms(900)).unwrap().with_jitter(jitter);
            prop_assert!(backoff.wait(attempt, Duration::from_nanos(previous), random) <= ms(900));
        }
    }
}
