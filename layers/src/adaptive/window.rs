//! What became of the calls of one window: a few counters that all calls write to, and that whoever closes the window empties.
//!
//! A latency is counted in a histogram whose buckets grow by an eighth. Threads count in stripes of their own, so that they do not
//! wait for each other's caches. A counter is emptied by an exchange: each call is counted in one window, and in no other.

use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::{
    handle::number_of_thread,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

/// What is below this many nanoseconds, a microsecond or so, falls into one bucket.
const FINEST: u64 = 1 << FINEST_LOG;
const FINEST_LOG: u32 = 10;
/// Doublings above that, each of eight buckets, up to a minute or so. A model under loom has a small stack.
const OCTAVES: u32 = if cfg!(palisade_loom) { 0 } else { 26 };
const BUCKETS: usize = 1 + 8 * OCTAVES as usize;
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
        self.stripe().latencies[bucket_of(latency)].fetch_add(1, Relaxed);
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
        largest = middle(bucket);
        sum += counted * largest;
        left -= counted;
        if left <= 0.0 {
            break;
        }
    }
    sum += (1.0 - TRUSTED) * all * largest;
    (u32::try_from(samples).unwrap_or(u32::MAX), sum / all)
}

#[inline]
fn bucket_of(latency: Duration) -> usize {
    let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    if nanos < FINEST {
        return 0;
    }
    let octave = nanos.ilog2();
    // The three bits after the first one.
    let eighth = (nanos >> (octave - 3)) & 7;
    #[expect(clippy::cast_possible_truncation, reason = "less than 600")]
    let bucket = (u64::from(octave - FINEST_LOG) * 8 + eighth) as usize;
    (1 + bucket).min(BUCKETS - 1)
}

/// The middle of the bucket, in seconds.
fn middle(bucket: usize) -> f64 {
    let nanos = match bucket.checked_sub(1) {
        None => FINEST / 2,
        Some(bucket) => (FINEST << (bucket / 8)) / 16 * (17 + 2 * (bucket as u64 % 8)),
    };
    Duration::from_nanos(nanos).as_secs_f64()
}
