//! Client timestamps: one clock for all writes of this process.
//!
//! A write without a timestamp of its own gets one from the coordinator, each attempt another. A repeated write
//! would then be newer than it should be: it could bring back a row that was deleted between the attempts. So a
//! write that may be repeated gets its timestamp when its request is made, and all attempts carry the same.

use std::sync::LazyLock;

use palisade::Idempotence;
use scylla::policies::timestamp_generator::{MonotonicTimestampGenerator, TimestampGenerator};

use crate::{idempotence::Verdict, request::Kind};

static GENERATOR: LazyLock<MonotonicTimestampGenerator> = LazyLock::new(MonotonicTimestampGenerator::new);

/// The timestamp of a write that may be repeated, and `None` for anything else.
pub(crate) fn of_write(kind: Kind, idempotence: Idempotence, verdict: Verdict) -> Option<i64> {
    let is_write = matches!(kind, Kind::Write | Kind::Batch);
    let may_be_repeated = idempotence == Idempotence::Yes && verdict.can_be_stamped();
    (is_write && may_be_repeated).then(next)
}

/// Microseconds since 1970, each greater than the last.
fn next() -> i64 {
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
