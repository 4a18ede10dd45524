//! What became of the calls of one window: a few counters that all calls write to, and that whoever closes the window empties.
//!
//! A latency is counted in a histogram whose buckets grow by an eighth. Threads count in stripes of their own, so that they do not
//! wait for each other's caches. A counter is emptied by an exchange: each call is counted in one window, and in no other.

use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::{
    buckets::Buckets,
    handle::number_of_thread,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

/// What is below a microsecond or so falls into one bucket. Above that come doublings up to a minute or so, each of eight. A model
/// under loom has a small stack.
const SCALE: Buckets = Buckets::new(10, 3, if cfg!(palisade_loom) { 0 } else { 26 });
const BUCKETS: usize = SCALE.len();
const STRIPES: usize = if cfg!(palisade_loom) { 1 } else { 4 };

/// Samples above this share of all count as if they were there: one pause of a second must not hide a thousand calls.
const TRUSTED: f64 = 0.95;

pub(super) struct Window {
    stripes: [CachePadded<Stripe>; STRIPES],
}

struct Stripe {
    latencies: [AtomicU32; BUCKETS],
    others: AtomicU32,
    drops: AtomicU32,
}

/// The sums of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sums {
    /// Calls that succeeded.
    pub(super) samples: u32,
    /// Their mean latency in seconds; zero if there were none.
    pub(super) latency: f64,
    /// Calls that succeeded, and whose latency was not wanted.
    pub(super) others: u32,
    /// Calls that were dropped.
    pub(super) drops: u32,
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            stripes: std::array::from_fn(|_| {
                CachePadded::new(Stripe {
                    latencies: std::array::from_fn(|_| AtomicU32::new(0)),
                    others: AtomicU32::new(0),
                    drops: AtomicU32::new(0),
                })
            }),
        }
    }

    #[inline]
    pub(super) fn add_latency(&self, latency: Duration) {
        self.stripe().latencies[SCALE.of(latency)].fetch_add(1, Relaxed);
    }

    pub(super) fn add_other(&self) {
        self.stripe().others.fetch_add(1, Relaxed);
    }

    pub(super) fn add_drop(&self) {
        self.stripe().drops.fetch_add(1, Relaxed);
    }

    /// How many calls have been counted.
    pub(super) fn count(&self) -> u32 {
        let counters = self.stripes.iter().flat_map(|stripe| stripe.latencies.iter().chain([&stripe.drops]));
        counters.fold(0, |sum, counter| sum.saturating_add(counter.load(Relaxed)))
    }

    /// Empties it.
    pub(super) fn take(&self) -> Sums {
        let mut counts = [0_u32; BUCKETS];
        let (mut others, mut drops) = (0_u32, 0_u32);
        for stripe in &self.stripes {
            for (count, counter) in counts.iter_mut().zip(&stripe.latencies) {
                // Most are empty, and a look is cheaper than an exchange.
                if counter.load(Relaxed) > 0 {
                    *count = count.saturating_add(counter.swap(0, Relaxed));
                }
            }
            others = others.saturating_add(stripe.others.swap(0, Relaxed));
            drops = drops.saturating_add(stripe.drops.swap(0, Relaxed));
        }
        let (samples, latency) = mean(&counts);
        Sums { samples, latency, others, drops }
    }

    #[inline]
    fn stripe(&self) -> &Stripe {
        &self.stripes[number_of_thread() % STRIPES]
    }
}

/// The number of samples, and their mean in seconds, where those above the trusted share count as the largest below it.
fn mean(counts: &[u32]) -> (u32, f64) {
    let samples: u64 = counts.iter().copied().map(u64::from).sum();
    if samples == 0 {
        return (0, 0.0);
    }
    #[expect(clippy::cast_precision_loss, reason = "a number of calls")]
    let (all, mut left) = (samples as f64, samples as f64 * TRUSTED);
    let (mut sum, mut largest) = (0.0, 0.0);
    for (bucket, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let counted = f64::from(*count).min(left);
        largest = Duration::from_nanos(SCALE.middle(bucket)).as_secs_f64();
        sum += counted * largest;
        left -= counted;
        if left <= 0.0 {
            break;
        }
    }
    sum += (1.0 - TRUSTED) * all * largest;
    (u32::try_from(samples).unwrap_or(u32::MAX), sum / all)
}
