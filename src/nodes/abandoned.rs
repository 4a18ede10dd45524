//! How many attempts were given up that a node may still answer?

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use palisade::Instant;

/// Attempts at a node that were given up, and of which the driver still holds the place on a connection.
///
/// Dropping an attempt does not give its stream id back: that happens when the answer comes. A connection with more than 1,024 such
/// orphans older than a second is torn down by the driver, and everything on it with it. The driver tells nobody how many there are, so
/// this counts an upper bound: what was given up, less what a server that answers has surely answered or timed out since.
#[derive(Debug, Default)]
pub(super) struct Abandoned {
    // What the hot path reads.
    count: AtomicU32,
    slots: Mutex<Slots>,
}

/// Attempts by the second in which they were given up.
#[derive(Debug, Default)]
struct Slots {
    counts: [u32; SECONDS],
    // The second that the newest slot stands for, since the node was known.
    newest: u64,
}

/// A server gives up a request by itself: by default after 2 to 10 s, by its kind.
const ANSWERED_AFTER: Duration = Duration::from_secs(12);
const SECONDS: usize = ANSWERED_AFTER.as_secs() as usize + 1;

impl Abandoned {
    /// One more.
    pub(super) fn add(&self, second: u64) {
        let mut slots = self.lock();
        slots.advance(second, false);
        let slot = slots.slot();
        slots.counts[slot] = slots.counts[slot].saturating_add(1);
        self.publish(&slots);
    }

    /// The node answers: what is older than a server's own timeouts has been answered.
    #[inline]
    pub(super) fn answered(&self, second: u64) {
        if self.count.load(Relaxed) != 0 {
            let mut slots = self.lock();
            slots.advance(second, true);
            self.publish(&slots);
        }
    }

    /// The connections are new ones.
    pub(super) fn clear(&self) {
        let mut slots = self.lock();
        slots.counts = [0; SECONDS];
        self.publish(&slots);
    }

    /// How many there are at most.
    #[inline]
    pub(super) fn count(&self) -> u32 {
        self.count.load(Relaxed)
    }

    fn publish(&self, slots: &Slots) {
        self.count.store(slots.sum(), Relaxed);
    }

    // A panic while the lock is held leaves numbers.
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn slot(&self) -> usize {
        usize::try_from(self.newest % SECONDS as u64).unwrap_or(0)
    }

    /// Goes on to the present second. As long as the node is silent, what leaves the far end is kept in the last slot.
    fn advance(&mut self, second: u64, forget: bool) {
        if second.saturating_sub(self.newest) >= SECONDS as u64 {
            let all = self.sum();
            self.newest = second;
            self.counts = [0; SECONDS];
            self.keep(all, forget);
            return;
        }
        while self.newest < second {
            self.newest += 1;
            let slot = self.slot();
            let oldest = std::mem::take(&mut self.counts[slot]);
            self.keep(oldest, forget);
        }
    }

    fn keep(&mut self, oldest: u32, forget: bool) {
        if !forget {
            let next = (self.slot() + 1) % SECONDS;
            self.counts[next] = self.counts[next].saturating_add(oldest);
        }
    }

    fn sum(&self) -> u32 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// Whole seconds since a node was known.
pub(super) fn second(now: Instant, known_since: Instant) -> u64 {
    now.saturating_duration_since(known_since).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_silent_owes_all_answers_for_ever() {
        let abandoned = Abandoned::default();
        for second in 0..100 {
            abandoned.add(second);
        }
        assert_eq!(abandoned.count(), 100);
        abandoned.add(10_000);
        assert_eq!(abandoned.count(), 101);
    }

    #[test]
    fn a_node_that_answers_has_answered_what_is_older_than_its_own_timeouts() {
        let abandoned = Abandoned::default();
        abandoned.add(0);
        abandoned.add(0);
        abandoned.add(5);
        abandoned.answered(5);
        assert_eq!(abandoned.count(), 3);
        abandoned.answered(12);
        assert_eq!(abandoned.count(), 3);
        abandoned.answered(13);
        assert_eq!(abandoned.count(), 1);
        abandoned.answered(17);
        assert_eq!(abandoned.count(), 1);
        abandoned.answered(18);
        assert_eq!(abandoned.count(), 0);
    }

    #[test]
    fn what_a_silent_node_owed_is_counted_as_answered_only_some_time_after_it_speaks_again() {
        let abandoned = Abandoned::default();
        for _ in 0..7 {
            abandoned.add(0);
        }
        // Silent for a minute. It keeps what it owes in the oldest slot, which the first answer does not clear at once.
        abandoned.add(60);
        assert_eq!(abandoned.count(), 8);
        abandoned.answered(60);
        assert_eq!(abandoned.count(), 8);
        abandoned.answered(62);
        assert_eq!(abandoned.count(), 1);
    }

    #[test]
    fn new_connections_owe_nothing() {
        let abandoned = Abandoned::default();
        abandoned.add(3);
        abandoned.clear();
        assert_eq!(abandoned.count(), 0);
    }

    #[test]
    fn a_clock_that_goes_back_changes_nothing() {
        let abandoned = Abandoned::default();
        abandoned.add(50);
        abandoned.answered(3);
        abandoned.add(3);
        assert_eq!(abandoned.count(), 2);
    }
}
