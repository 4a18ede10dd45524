//! A percentile of the latencies of the last half minute: a sliding histogram of atomics, told the time.
//!
//! Three slices of ten seconds, summed up every three seconds, as Finagle's [`BackupRequestFilter`] has them. Buckets
//! grow by a sixteenth, so that an estimate is at most 6% too high.
//!
//! [`BackupRequestFilter`]: https://github.com/twitter/finagle/blob/develop/finagle-core/src/main/scala/com/twitter/finagle/client/BackupRequestFilter.scala

use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::{
    buckets::Buckets,
    clock::Instant,
    sync::{
        Mutex,
        atomic::{
            AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
        lock,
    },
};

const SLICES: usize = 3;
const SLICE: Duration = Duration::from_secs(10);
const REFRESH: Duration = Duration::from_secs(3);

/// What is below half a millisecond or so falls into one bucket. Above that come doublings up to a minute, each of sixteen. A model
/// under loom has a small stack.
const SCALE: Buckets = Buckets::new(19, 4, if cfg!(palisade_loom) { 1 } else { 17 });
const BUCKETS: usize = SCALE.len();

pub(crate) struct Latencies {
    percentile: f64,
    // Each call writes here, and reads what stands below: apart, so that the reads do not wait for the writes.
    slices: CachePadded<[[AtomicU32; BUCKETS]; SLICES]>,
    // The slice that is written to.
    current: AtomicUsize,
    refresh_at: AtomicU64,
    // In nanoseconds; zero where there is none.
    estimate: AtomicU64,
    // When the current slice ends.
    slice_ends: Mutex<Instant>,
}

impl Latencies {
    /// For a `percentile` above 0 and below 1.
    pub(crate) fn new(percentile: f64, now: Instant) -> Self {
        Self {
            percentile,
            slices: CachePadded::new(std::array::from_fn(|_| std::array::from_fn(|_| AtomicU32::new(0)))),
            current: AtomicUsize::new(0),
            refresh_at: AtomicU64::new((now + REFRESH).as_nanos()),
            estimate: AtomicU64::new(0),
            slice_ends: Mutex::new(now + SLICE),
        }
    }

    #[inline]
    pub(crate) fn record(&self, latency: Duration, now: Instant) {
        let slice = &self.slices[self.current.load(Acquire) % SLICES];
        slice[SCALE.of(latency)].fetch_add(1, Relaxed);
        if now.as_nanos() >= self.refresh_at.load(Relaxed) {
            self.refresh(now);
        }
    }

    /// Whether there was an estimate at the last refresh.
    #[inline]
    pub(crate) fn has_estimate(&self) -> bool {
        self.estimate.load(Relaxed) > 0
    }

    /// The percentile, as of a few seconds ago; `None` before the first refresh, while there are too few latencies to
    /// tell, and where the last one is long ago.
    #[inline]
    pub(crate) fn estimate(&self, now: Instant) -> Option<Duration> {
        let estimate = self.estimate.load(Relaxed);
        let stale = self.refresh_at.load(Relaxed).saturating_add(30_000_000_000);
        (estimate > 0 && now.as_nanos() < stale).then(|| Duration::from_nanos(estimate))
    }

    #[cold]
    fn refresh(&self, now: Instant) {
        let mut slice_ends = lock(&self.slice_ends);
        if now.as_nanos() < self.refresh_at.load(Relaxed) {
            return;
        }
        for _ in 0..SLICES {
            if now < *slice_ends {
                break;
            }
            let next = (self.current.load(Relaxed) + 1) % SLICES;
            self.slices[next].iter().for_each(|count| count.store(0, Relaxed));
            self.current.store(next, Release);
            *slice_ends = *slice_ends + SLICE;
        }
        if now >= *slice_ends {
            *slice_ends = now + SLICE;
        }
        self.estimate.store(self.percentile_now().map_or(0, |nanos| nanos.max(1)), Relaxed);
        self.refresh_at.store((now + REFRESH).as_nanos(), Relaxed);
    }

    fn percentile_now(&self) -> Option<u64> {
        let count = |bucket: usize| -> u64 {
            self.slices.iter().map(|slice| u64::from(slice[bucket].load(Relaxed))).sum()
        };
        let total: u64 = (0..BUCKETS).map(count).sum();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number of calls"
        )]
        let (wanted, enough) = (
            (total as f64 * self.percentile).ceil() as u64,
            // So many that at least one lies above the percentile. A rounding error must not ask for one more.
            (1.0 / (1.0 - self.percentile) - 1e-9).ceil() as u64,
        );
        if total < enough {
            return None;
        }
        let mut below = 0;
        (0..BUCKETS).find_map(|bucket| {
            below += count(bucket);
            (below >= wanted).then(|| SCALE.upper_end(bucket))
        })
    }
}

#[cfg(all(test, not(palisade_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn there_is_no_estimate_before_the_first_refresh_nor_of_too_few_latencies() {
        let start = Instant::now();
        let latencies = Latencies::new(0.95, start);
        (0..18).for_each(|_| latencies.record(ms(5), start));
        latencies.record(ms(5), start + ms(2_999));
        assert_eq!(latencies.estimate(start + ms(2_999)), None);
        let few = Latencies::new(0.95, start);
        (0..18).for_each(|_| few.record(ms(5), start));
        few.record(ms(5), start + ms(3_000));
        assert_eq!(few.estimate(start + ms(3_000)), None, "19 of 20");
        latencies.record(ms(5), start + ms(3_000));
        let estimate = latencies.estimate(start + ms(3_000)).unwrap();
        assert!(estimate >= ms(5) && estimate < ms(6), "{estimate:?}");
    }

    #[test]
    fn what_is_older_than_three_slices_is_forgotten_and_an_old_estimate_is_none() {
        let start = Instant::now();
        let at = |millis| start + ms(millis);
        let latencies = Latencies::new(0.5, start);
        (0..100).for_each(|_| latencies.record(ms(1_000), at(2_000)));
        latencies.record(ms(1_000), at(9_000));
        assert!(latencies.estimate(at(9_000)).unwrap() > ms(900));
        // Still there in the third slice, gone in the fourth.
        (0..10).for_each(|_| latencies.record(ms(1), at(29_000)));
        assert!(latencies.estimate(at(29_000)).unwrap() > ms(900));
        latencies.record(ms(1), at(32_000));
        assert!(latencies.estimate(at(32_000)).unwrap() < ms(2));
        assert!(latencies.estimate(at(64_000)).is_some());
        assert_eq!(latencies.estimate(at(65_000)), None);
        latencies.record(ms(1), at(500_000));
        assert_eq!(latencies.estimate(at(500_000)), None, "one is too few");
    }

    #[test]
    fn after_a_long_pause_a_slice_is_as_long_as_ever() {
        let start = Instant::now();
        let at = |millis| start + ms(millis);
        let latencies = Latencies::new(0.5, start);
        latencies.record(ms(5), at(500_000));
        assert!(!latencies.has_estimate());
        for _ in 0..100 {
            latencies.record(ms(5), at(500_001));
        }
        // Refreshed every three seconds, of slices that end ten seconds after the pause.
        for second in [504, 508, 512, 516, 520, 524, 528] {
            latencies.record(ms(1_000), at(second * 1_000));
            assert!(latencies.has_estimate());
            assert!(latencies.estimate(at(second * 1_000)).unwrap() < ms(6), "{second}");
        }
        latencies.record(ms(1_000), at(532_000));
        assert!(latencies.estimate(at(532_000)).unwrap() > ms(900));
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_makes_no_estimate_and_does_no_harm() {
        let start = Instant::now();
        let latencies = Latencies::new(0.5, start);
        for _ in 0..1_000 {
            latencies.record(ms(5), start);
            latencies.record(ms(5), start - Duration::from_secs(60));
        }
        assert_eq!(latencies.estimate(start), None);
        latencies.record(ms(5), start + ms(3_000));
        assert!(latencies.estimate(start - Duration::from_secs(60)).unwrap() < ms(6));
    }

    #[test]
    fn every_latency_has_a_bucket_that_ends_at_most_a_sixteenth_later() {
        const FINEST: u64 = 1 << 19;
        for nanos in (0..70_000).map(|step| step * 1_000_003).chain([u64::MAX, FINEST, FINEST - 1]) {
            let bucket = SCALE.of(Duration::from_nanos(nanos));
            let end = SCALE.upper_end(bucket);
            if bucket == BUCKETS - 1 {
                assert!(nanos > 60_000_000_000, "{nanos}");
            } else {
                assert!(end > nanos && (bucket == 0 || end - nanos <= nanos / 16 + 1), "{nanos} {end}");
            }
        }
    }

    proptest! {
        /// Beside the sorted latencies themselves.
        #[test]
        fn the_estimate_is_the_percentile_rounded_up_by_a_sixteenth_at_most(
            mut millis in prop::collection::vec(1..20_000u64, 100..500),
            percentile in 0.5..0.99f64,
        ) {
            let start = Instant::now();
            let latencies = Latencies::new(percentile, start);
            let (last, rest) = millis.split_last().unwrap();
            for latency in rest {
                latencies.record(ms(*latency), start);
            }
            latencies.record(ms(*last), start + REFRESH);
            let estimate = latencies.estimate(start + REFRESH).unwrap();
            millis.sort_unstable();
            #[expect(
                clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss,
                reason = "a few hundred"
            )]
            let exact = ms(millis[(millis.len() as f64 * percentile).ceil() as usize - 1]);
            prop_assert!(estimate >= exact && estimate <= exact.mul_f64(1.0 + 1.0 / 16.0) + ms(1));
        }
    }
}

#[cfg(all(test, palisade_loom))]
mod models {
    use loom::{sync::Arc, thread};

    use super::*;

    /// Two threads find the estimate due at once: one refreshes, none is held up, and nothing is cleared twice.
    #[test]
    fn loom_a_refresh_races_with_records() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.max_branches = 20_000;
        model.check(|| {
            let start = Instant::now();
            let latencies = Arc::new(Latencies::new(0.5, start));
            let due = start + REFRESH;
            let other = {
                let latencies = Arc::clone(&latencies);
                thread::spawn(move || latencies.record(Duration::from_millis(5), due))
            };
            latencies.record(Duration::from_millis(5), due);
            other.join().unwrap();
            latencies.record(Duration::from_millis(5), due + REFRESH);
            assert!(latencies.estimate(due + REFRESH).is_some());
        });
    }
}
