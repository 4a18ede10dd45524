//! What the cluster itself has said of what its nodes that are up cannot serve.
//!
//! That a node is down is seen from here. A coordinator that is reached may see it well, and serve all the same; so nothing is refused
//! on what is seen from here alone. A plain core that is told the time, in nanoseconds.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use palisade::clock::nanos;

/// So many failures since the last success, and it is believed.
const FAILURES: u32 = 3;

/// How requests of one kind have ended since a node is down.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    // Since the last success.
    failures: AtomicU32,
    // When the last success ended, and when the last request went to find out.
    served_at: AtomicU64,
    tried_at: AtomicU64,
}

impl Evidence {
    /// Whether a request that begins now is to go on: as long as few have failed, and then one in each such time.
    pub(super) fn admits(&self, now: u64, trial_every: Duration) -> bool {
        if self.failures.load(Relaxed) < FAILURES {
            return true;
        }
        let last = self.tried_at.load(Relaxed);
        let is_due = now.saturating_sub(last) >= nanos(trial_every);
        is_due && self.tried_at.compare_exchange(last, now, Relaxed, Relaxed).is_ok()
    }

    /// A request was served, and so could others be at this moment.
    pub(super) fn served(&self, now: u64) {
        self.served_at.fetch_max(now, Relaxed);
        self.failures.store(0, Relaxed);
    }

    /// A request has failed that began then. If another one was served since, that tells nothing.
    pub(super) fn failed(&self, began: u64, now: u64) {
        if began < self.served_at.load(Relaxed) {
            return;
        }
        let before = self.failures.fetch_add(1, Relaxed);
        if before + 1 == FAILURES {
            self.tried_at.fetch_max(now, Relaxed);
        }
        // Who counts for weeks does not begin anew.
        if before > FAILURES {
            self.failures.store(FAILURES, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn admits(evidence: &Evidence, now: u64) -> bool {
        evidence.admits(now, Duration::from_secs(1))
    }

    fn believed() -> Evidence {
        let evidence = Evidence::default();
        (0..FAILURES).for_each(|_| evidence.failed(SECOND, 2 * SECOND));
        evidence
    }

    #[test]
    fn three_failures_in_a_row_are_believed() {
        let evidence = Evidence::default();
        for _ in 0..2 {
            evidence.failed(1, 2);
            assert!(admits(&evidence, 2));
        }
        evidence.served(3);
        for _ in 0..2 {
            evidence.failed(4, 5);
            assert!(admits(&evidence, 5));
        }
        evidence.failed(4, 5);
        assert!(!admits(&evidence, 5));
    }

    #[test]
    fn one_request_a_second_finds_out_and_a_success_lets_all_pass() {
        let evidence = believed();
        assert!(!admits(&evidence, 3 * SECOND - 1));
        assert!(admits(&evidence, 3 * SECOND) && !admits(&evidence, 3 * SECOND));
        evidence.failed(3 * SECOND, 4 * SECOND);
        assert!(admits(&evidence, 4 * SECOND) && !admits(&evidence, 4 * SECOND + 1));
        evidence.served(5 * SECOND);
        assert!((0..10).all(|_| admits(&evidence, 5 * SECOND)));
    }

    /// A request of before that is still waiting when all is well again.
    #[test]
    fn what_began_before_the_last_success_tells_nothing() {
        let evidence = believed();
        evidence.served(5 * SECOND);
        (0..9).for_each(|_| evidence.failed(4 * SECOND, 6 * SECOND));
        assert!(admits(&evidence, 6 * SECOND));
    }

    #[test]
    fn no_number_of_failures_is_too_large() {
        let evidence = believed();
        (0..1_000).for_each(|_| evidence.failed(2 * SECOND, 3 * SECOND));
        assert!(evidence.failures.load(Relaxed) <= FAILURES + 1 && !admits(&evidence, 2 * SECOND));
    }
}
