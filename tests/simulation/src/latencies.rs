//! Percentiles of latencies.

use crate::speed::{Nanos, seconds};

/// Counts latencies in buckets, each 4% wider than the one before, from 0.1 ms to a minute and a half.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latencies {
    counts: Vec<u32>,
    total: u64,
}

const PER_OCTAVE: f64 = 16.0;
const BUCKETS: usize = 320;
const SMALLEST: f64 = 1e-4;

impl Latencies {
    /// Counts one.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
    pub fn add(&mut self, latency: Nanos) {
        let bucket = ((seconds(latency) / SMALLEST).log2() * PER_OCTAVE).max(0.0) as usize;
        if self.counts.is_empty() {
            self.counts = vec![0; BUCKETS];
        }
        self.counts[bucket.min(BUCKETS - 1)] += 1;
        self.total += 1;
    }

    /// Adds what others counted.
    pub fn merge(&mut self, other: &Self) {
        if other.total == 0 {
            return;
        }
        self.counts.resize(BUCKETS, 0);
        for (ours, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *ours += theirs;
        }
        self.total += other.total;
    }

    /// The latency, in seconds, below which this share of them is: within 4%. `None` if there is none.
    #[allow(clippy::cast_precision_loss, reason = "simulations have millions of calls, not more")]
    pub fn percentile(&self, share: f64) -> Option<f64> {
        let rank = self.total as f64 * share;
        let mut below = 0.0;
        for (bucket, count) in self.counts.iter().enumerate() {
            below += f64::from(*count);
            if below >= rank && *count > 0 {
                return Some(SMALLEST * ((bucket as f64 + 0.5) / PER_OCTAVE).exp2());
            }
        }
        None
    }

    /// How many there are.
    pub const fn count(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speed::nanos;

    #[test]
    fn percentiles_are_within_four_percent() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(0.5), None);
        (1..=1000_u32).for_each(|ms| latencies.add(nanos(f64::from(ms) / 1e3)));
        for share in [0.01, 0.5, 0.9, 0.99] {
            let found = latencies.percentile(share).unwrap();
            assert!((found / share - 1.0).abs() < 0.04, "{share}: {found}");
        }
    }
}
