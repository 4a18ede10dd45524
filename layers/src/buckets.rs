//! Buckets for latencies, which grow with what they hold: each doubling of the latency has as many of them.

use std::time::Duration;

use crate::clock::nanos;

/// Which latency falls into which bucket. What is below the finest falls into the first one, and what is beyond the last doubling
/// into the last one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buckets {
    finest_log: u32,
    parts_log: u32,
    octaves: u32,
}

impl Buckets {
    /// From two to the power of `finest_log` nanoseconds on, so many doublings of two to the power of `parts_log` buckets each.
    pub(crate) const fn new(finest_log: u32, parts_log: u32, octaves: u32) -> Self {
        Self { finest_log, parts_log, octaves }
    }

    /// How many there are.
    pub(crate) const fn len(self) -> usize {
        1 + ((self.octaves as usize) << self.parts_log)
    }

    /// The bucket of a latency.
    #[inline]
    pub(crate) fn of(self, latency: Duration) -> usize {
        let nanos = nanos(latency);
        if nanos >> self.finest_log == 0 {
            return 0;
        }
        let octave = nanos.ilog2();
        // The bits after the first one.
        let part = (nanos >> (octave - self.parts_log)) & ((1 << self.parts_log) - 1);
        #[expect(clippy::cast_possible_truncation, reason = "less than a thousand or so")]
        let bucket = ((u64::from(octave - self.finest_log) << self.parts_log) + part) as usize;
        (1 + bucket).min(self.len() - 1)
    }

    /// Where a bucket ends, in nanoseconds.
    pub(crate) fn upper_end(self, bucket: usize) -> u64 {
        let (from, width) = self.bounds(bucket);
        from + width
    }

    /// Its middle, in nanoseconds.
    pub(crate) fn middle(self, bucket: usize) -> u64 {
        let (from, width) = self.bounds(bucket);
        from + width / 2
    }

    fn bounds(self, bucket: usize) -> (u64, u64) {
        let Some(bucket) = bucket.checked_sub(1) else {
            return (0, 1 << self.finest_log);
        };
        let (octave, part) = (bucket >> self.parts_log, bucket as u64 & ((1 << self.parts_log) - 1));
        let from = (1 << self.finest_log) << octave;
        let width = from >> self.parts_log;
        (from + part * width, width)
    }
}
