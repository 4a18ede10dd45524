//! The one reader of time.
//!
//! Layers read the processor's time-stamp counter (through [`quanta`]): a deadline stack reads the clock
//! several times a call, and the system's clock is the dearest thing in it. Timers are tokio's, and are armed
//! with what remains, so that the two clocks never have to agree on more than the length of one wait.
//!
//! With the feature `test-util` the time is tokio's own, which a test can pause and advance. Benchmarks in the
//! same build call `use_real_time` first.

use std::{
    fmt,
    num::NonZeroU64,
    ops::{Add, Sub},
    sync::LazyLock,
    time::Duration,
};

/// A moment on the monotonic clock of this process: eight bytes, and as many for an `Option`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(NonZeroU64);

/// Nanoseconds at the process's first reading. Half the range lies before it, 146 years each way.
const ORIGIN: u64 = 1 << 62;

impl Instant {
    /// The present moment.
    pub fn now() -> Self {
        #[cfg(feature = "test-util")]
        if tokio_time::followed() {
            return tokio_time::now();
        }
        Self::at(ORIGIN.saturating_add(REAL.elapsed()))
    }

    /// The time since `earlier`, or zero if that lies in the future.
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }

    /// The time from now until this moment, or zero if it has passed.
    pub fn remaining(self) -> Duration {
        self.saturating_duration_since(Self::now())
    }

    /// The time from this moment until now, or zero if it lies in the future.
    pub fn elapsed(self) -> Duration {
        Self::now().saturating_duration_since(self)
    }

    /// Nanoseconds on this clock, for a core that keeps its state in an atomic.
    pub(crate) const fn as_nanos(self) -> u64 {
        self.0.get()
    }

    fn at(nanos: u64) -> Self {
        Self(NonZeroU64::new(nanos).unwrap_or(NonZeroU64::MIN))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of the clock's range, some 400 years from now.
    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self::at(self.0.get().saturating_add(nanos))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    /// Saturates at the beginning of the clock's range, some 146 years ago.
    fn sub(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self::at(self.0.get().saturating_sub(nanos))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = Self::now();
        if *self >= now {
            write!(f, "in {:?}", self.saturating_duration_since(now))
        } else {
            write!(f, "{:?} ago", now.saturating_duration_since(*self))
        }
    }
}

struct Real {
    clock: quanta::Clock,
    first: u64,
}

impl Real {
    fn elapsed(&self) -> u64 {
        self.clock.delta_as_nanos(self.first, self.clock.raw())
    }
}

static REAL: LazyLock<Real> = LazyLock::new(|| {
    let clock = quanta::Clock::new();
    let first = clock.raw();
    Real { clock, first }
});

#[cfg(feature = "test-util")]
pub use tokio_time::use_real_time;

#[cfg(feature = "test-util")]
mod tokio_time {
    use std::sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    };

    use super::{Instant, ORIGIN};

    static FOLLOWED: AtomicBool = AtomicBool::new(true);
    static FIRST: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);

    /// Reads the real time from now on in this process, as a build without `test-util` does.
    pub fn use_real_time() {
        FOLLOWED.store(false, Ordering::Relaxed);
    }

    pub(super) fn followed() -> bool {
        FOLLOWED.load(Ordering::Relaxed)
    }

    pub(super) fn now() -> Instant {
        let first = *FIRST;
        let since = tokio::time::Instant::now().into_std().saturating_duration_since(first);
        Instant::at(ORIGIN) + since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_optional_instant_is_eight_bytes() {
        assert_eq!(size_of::<Option<Instant>>(), 8);
    }

    #[test]
    fn the_real_clock_goes_with_the_systems() {
        let (ours, systems) = (REAL.elapsed(), std::time::Instant::now());
        std::thread::sleep(Duration::from_millis(50));
        let ours = Duration::from_nanos(REAL.elapsed() - ours);
        let ratio = ours.as_secs_f64() / systems.elapsed().as_secs_f64();
        assert!((0.9..1.1).contains(&ratio), "{ratio}");
    }

    #[test]
    fn sums_saturate_instead_of_overflowing() {
        let now = Instant::now();
        assert!(now + Duration::MAX > now);
        assert!(now - Duration::MAX < now);
        assert_eq!((now - Duration::from_secs(1)).remaining(), Duration::ZERO);
    }
}
