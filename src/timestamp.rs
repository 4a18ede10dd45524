//! Client timestamps: one clock for all writes of this process.
//!
//! A write without a timestamp of its own gets one from the coordinator, each attempt another. A repeated write
//! would then be newer than it should be: it could bring back a row that was deleted between the attempts. So a
//! write that may be repeated gets its timestamp when its request is made, and all attempts carry the same.

use std::sync::LazyLock;

use scylla::policies::timestamp_generator::{MonotonicTimestampGenerator, TimestampGenerator};

static GENERATOR: LazyLock<MonotonicTimestampGenerator> = LazyLock::new(MonotonicTimestampGenerator::new);

/// Microseconds since 1970, each greater than the last.
pub(crate) fn next() -> i64 {
    GENERATOR.next_timestamp()
}

#[cfg(test)]
mod tests {
    #[test]
    fn timestamps_only_grow() {
        let stamps: Vec<_> = (0..1_000).map(|_| super::next()).collect();
        assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
