//! The one reader of time.
//!
//! Layers read the processor's time-stamp counter (through [`quanta`]): a deadline stack reads the clock
//! several times a call, and the system's clock is the dearest thing in it. Timers are tokio's: a moment is carried
//! over to tokio's clock by the distance from a moment, at most a tenth of a second ago, that was read on both. So
//! the two clocks never have to agree on more than the length of one wait.
//!
//! With the feature `test-util` the time is tokio's own, which a test can pause and advance. Benchmarks in the
//! same build call `use_real_time` first.

use std::{
    cell::Cell,
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
    #[inline]
    pub fn now() -> Self {
        #[cfg(feature = "test-util")]
        if tokio_time::followed() {
            return tokio_time::now();
        }
        Self::real_now()
    }

    #[inline]
    fn real_now() -> Self {
        Self::at(ORIGIN.saturating_add(REAL.elapsed()))
    }

    /// The time since `earlier`, or zero if that lies in the future.
    #[inline]
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }

    /// The time from now until this moment, or zero if it has passed.
    #[inline]
    pub fn remaining(self) -> Duration {
        self.saturating_duration_since(Self::now())
    }

    /// The time from this moment until now, or zero if it lies in the future.
    pub fn elapsed(self) -> Duration {
        Self::now().saturating_duration_since(self)
    }

    /// This moment on tokio's clock, given a recent reading of this one; `None` if it has passed.
    #[inline]
    pub(crate) fn on_tokios_clock(self, now: Self) -> Option<tokio::time::Instant> {
        if self <= now {
            return None;
        }
        #[cfg(feature = "test-util")]
        if tokio_time::followed() {
            return Some(later(tokio::time::Instant::now(), self.remaining()));
        }
        Some(later(now.anchored(), self.saturating_duration_since(now)))
    }

    /// The same moment on tokio's clock, for a recent reading of this one.
    #[inline]
    fn anchored(self) -> tokio::time::Instant {
        if let Some(anchor) = ANCHOR.get()
            && let Some(since) = self.0.get().checked_sub(anchor.ours.0.get())
            && let Some(since) = u32::try_from(since).ok().filter(|since| *since < ANCHORED)
        {
            return anchor.theirs + Duration::new(0, since);
        }
        let fresh = Anchor { ours: Self::real_now(), theirs: tokio::time::Instant::now() };
        ANCHOR.set(Some(fresh));
        // The reading may be older than the anchor, by however long its task had to wait.
        let ago = fresh.ours.saturating_duration_since(self);
        fresh.theirs.checked_sub(ago).unwrap_or(fresh.theirs)
    }

    /// Nanoseconds on this clock, for a core that keeps its state in an atomic.
    pub(crate) const fn as_nanos(self) -> u64 {
        self.0.get()
    }

    #[inline]
    fn at(nanos: u64) -> Self {
        Self(NonZeroU64::new(nanos).unwrap_or(NonZeroU64::MIN))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of the clock's range, some 400 years from now.
    #[inline]
    fn add(self, duration: Duration) -> Self {
        Self::at(self.0.get().saturating_add(nanos(duration)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    /// Saturates at the beginning of the clock's range, some 146 years ago.
    fn sub(self, duration: Duration) -> Self {
        Self::at(self.0.get().saturating_sub(nanos(duration)))
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

/// A duration in nanoseconds, for a core that keeps it in an atomic. Saturates after 584 years.
pub const fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos() as u64)
}

/// One moment, read on both clocks.
#[derive(Clone, Copy)]
struct Anchor {
    ours: Instant,
    theirs: tokio::time::Instant,
}

/// For how long an anchor holds, in nanoseconds: at a drift of a thousandth, far more than clocks have, it is wrong by 0.1 ms then.
const ANCHORED: u32 = 100_000_000;

thread_local! {
    static ANCHOR: Cell<Option<Anchor>> = const { Cell::new(None) };
}

/// Saturates some thirty years from there, as tokio's own far future does.
#[inline]
fn later(from: tokio::time::Instant, by: Duration) -> tokio::time::Instant {
    const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);
    from + by.min(FAR)
}

struct Real {
    clock: quanta::Clock,
    first: u64,
}

impl Real {
    #[inline]
    fn elapsed(&self) -> u64 {
        self.clock.delta_as_nanos(self.first, self.clock.raw())
    }
}

static REAL: LazyLock<Real> = LazyLock::new(|| {
    let clock = quanta::Clock::new();
    let first = clock.raw();
    Real { clock, first }
});

/// Whether the time is tokio's own, which a test can pause.
#[inline]
pub(crate) fn is_tokios() -> bool {
    #[cfg(feature = "test-util")]
    return tokio_time::followed();
    #[cfg(not(feature = "test-util"))]
    false
}

#[cfg(feature = "test-util")]
pub use tokio_time::{begin_here, use_real_time};

#[cfg(feature = "test-util")]
mod tokio_time {
    use std::{
        cell::Cell,
        sync::{
            LazyLock,
            atomic::{AtomicBool, Ordering},
        },
    };

    use super::{Instant, ORIGIN};

    static FOLLOWED: AtomicBool = AtomicBool::new(true);
    static FIRST: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);

    thread_local! {
        static BEGINNING: Cell<Option<std::time::Instant>> = const { Cell::new(None) };
    }

    /// Begins this thread's time anew at tokio's present moment. A simulation that does so first sees the same instants in
    /// each run: where a window of time begins depends on them. Instants from before, or of other threads, mean nothing then.
    pub fn begin_here() {
        BEGINNING.set(Some(tokio::time::Instant::now().into_std()));
    }

    /// Reads the real time from now on in this process, as a build without `test-util` does.
    pub fn use_real_time() {
        FOLLOWED.store(false, Ordering::Relaxed);
    }

    pub(super) fn followed() -> bool {
        FOLLOWED.load(Ordering::Relaxed)
    }

    pub(super) fn now() -> Instant {
        // A paused clock may have been stopped before the first reading.
        let first = BEGINNING.get().unwrap_or_else(|| *FIRST);
        let now = tokio::time::Instant::now().into_std();
        Instant::at(ORIGIN) + now.saturating_duration_since(first) - first.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_optional_instant_is_eight_bytes() {
        assert_eq!(size_of::<Option<Instant>>(), 8);
    }

    #[cfg(feature = "test-util")]
    #[test]
    fn a_simulation_sees_the_same_instants_in_each_run() {
        let mut runs = Vec::new();
        for _ in 0..2 {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.unwrap().block_on(async {
                begin_here();
                tokio::time::advance(Duration::from_millis(7)).await;
                runs.push(Instant::now());
            });
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(runs[0], runs[1]);
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
    fn a_moment_is_the_same_on_tokios_clock() {
        for millis in [1, 20, 150, 300, 5_000] {
            let (now, theirs) = (Instant::real_now(), tokio::time::Instant::now());
            let wait = Duration::from_millis(millis);
            let error = later(now.anchored(), wait).duration_since(theirs).abs_diff(wait);
            assert!(error < Duration::from_millis(2), "{error:?}");
            // Some anchors are fresh, some have to be made anew.
            std::thread::sleep(wait.min(Duration::from_millis(120)));
        }
        for ago in [0, 1, 50, 150, 2_000] {
            let (now, theirs) = (Instant::real_now(), tokio::time::Instant::now());
            let earlier = now - Duration::from_millis(ago);
            let error = (theirs - Duration::from_millis(ago)).duration_since(earlier.anchored());
            let other = earlier.anchored().duration_since(theirs - Duration::from_millis(ago));
            assert!(error.max(other) < Duration::from_millis(2), "{ago} ms ago: {error:?} {other:?}");
        }
        let now = Instant::now();
        assert_eq!(now.on_tokios_clock(now), None);
        assert!((now + Duration::MAX).on_tokios_clock(now).is_some());
    }

    #[test]
    fn sums_saturate_instead_of_overflowing() {
        let now = Instant::now();
        assert!(now + Duration::MAX > now);
        assert!(now - Duration::MAX < now);
        assert_eq!((now - Duration::from_secs(1)).remaining(), Duration::ZERO);
    }
}
