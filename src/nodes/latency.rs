//! How long does a node take? A moving average that jumps to what is slower, and comes down slowly.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A peak-sensitive moving average of latencies, after that of Finagle's [`p2c` balancer].
///
/// An answer that is slower than the average replaces it, since a node that was slow once is likely to be so again soon. Faster
/// answers pull it down by the time that has passed; and without any answer it falls by itself, so that a node which nobody asks
/// is asked again some day.
///
/// Moments are nanoseconds on a clock of the caller's. Threads that write at once may lose a sample.
///
/// [`p2c` balancer]: https://github.com/twitter/finagle/blob/develop/finagle-core/src/main/scala/com/twitter/finagle/loadbalancer/PeakEwma.scala
#[derive(Debug, Default)]
pub(super) struct PeakAverage {
    nanos: AtomicU64,
    at: AtomicU64,
}

/// In this time a peak falls to 37%: in 20 s it falls from 100 ms to 2 ms.
const DECAY: Duration = Duration::from_secs(5);

impl PeakAverage {
    /// Takes an answer into account that came `now`, after `latency` nanoseconds.
    #[inline]
    pub(super) fn answered(&self, latency: u64, now: u64) {
        // Zero says that nothing is known.
        let (latency, before) = (latency.max(1), self.nanos.load(Relaxed));
        let next = if latency >= self.at(now) {
            latency
        } else {
            let weight = weight(now.saturating_sub(self.at.load(Relaxed)));
            mix(before, latency, weight)
        };
        self.nanos.store(next, Relaxed);
        self.at.store(now, Relaxed);
    }

    /// Takes into account that a call took at least this long, and nobody knows how long it would have taken.
    pub(super) fn at_least(&self, latency: u64, now: u64) {
        if latency > self.at(now) {
            self.nanos.store(latency, Relaxed);
            self.at.store(now, Relaxed);
        }
    }

    /// Half of what was known counts.
    pub(super) fn halve(&self, now: u64) {
        let half = self.at(now) / 2;
        self.nanos.store(half, Relaxed);
        self.at.store(now, Relaxed);
    }

    /// Nothing is known any more.
    pub(super) fn forget(&self) {
        self.nanos.store(0, Relaxed);
    }

    /// The estimate `now`, in nanoseconds; zero if nothing is known.
    #[inline]
    pub(super) fn at(&self, now: u64) -> u64 {
        let nanos = self.nanos.load(Relaxed);
        if nanos == 0 {
            return 0;
        }
        mix(nanos, 1, weight(now.saturating_sub(self.at.load(Relaxed)))).max(1)
    }
}

/// How much of what was known counts after this time.
#[inline]
#[expect(clippy::cast_precision_loss, reason = "a weight needs no more digits")]
fn weight(elapsed: u64) -> f64 {
    (-(elapsed as f64) / DECAY.as_nanos() as f64).exp()
}

#[inline]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate needs no more digits, and lies between two u64"
)]
fn mix(before: u64, sample: u64, weight: f64) -> u64 {
    (before as f64 * weight + sample as f64 * (1.0 - weight)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const S: u64 = 1_000 * MS;

    #[test]
    fn nothing_is_known_at_first() {
        assert_eq!(PeakAverage::default().at(S), 0);
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_is_forgotten_slowly() {
        let average = PeakAverage::default();
        average.answered(2 * MS, S);
        average.answered(40 * MS, 2 * S);
        assert_eq!(average.at(2 * S), 40 * MS);
        // 40 ms x e^-1 after five seconds, and 40 ms x e^-4 after twenty.
        assert!((14 * MS..15 * MS).contains(&average.at(7 * S)), "{}", average.at(7 * S));
        assert!(average.at(22 * S) < MS, "{}", average.at(22 * S));
    }

    #[test]
    fn many_fast_answers_pull_it_down_to_them_and_no_further() {
        let average = PeakAverage::default();
        average.answered(40 * MS, 0);
        for tick in 1..=3_000 {
            average.answered(2 * MS, tick * 10 * MS);
        }
        let now = 3_000 * 10 * MS;
        assert!((2 * MS - MS / 100..2 * MS + MS).contains(&average.at(now)), "{}", average.at(now));
    }

    #[test]
    fn a_call_that_was_given_up_tells_only_how_long_it_took_at_least() {
        let average = PeakAverage::default();
        average.answered(20 * MS, S);
        average.at_least(5 * MS, S);
        assert_eq!(average.at(S), 20 * MS);
        average.at_least(300 * MS, S);
        assert_eq!(average.at(S), 300 * MS);
    }

    #[test]
    fn what_is_known_can_be_halved_and_forgotten() {
        let average = PeakAverage::default();
        average.answered(20 * MS, S);
        average.halve(S);
        assert_eq!(average.at(S), 10 * MS);
        average.forget();
        assert_eq!(average.at(S), 0);
        average.halve(S);
        assert_eq!(average.at(S), 0);
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_forgets_nothing() {
        let average = PeakAverage::default();
        average.answered(20 * MS, 5 * S);
        assert_eq!(average.at(5 * S), 20 * MS);
        assert_eq!(average.at(S), 20 * MS);
    }
}
