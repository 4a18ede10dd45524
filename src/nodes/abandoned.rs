//! How many attempts were given up that a node may still answer?

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use palisade::Instant;

/// Attempts at a node that were given up, and of which the driver still holds the place on a connection.
///
/// Dropping an attempt does not give its stream id back: that happens when the answer comes. A connection with more than 1,024 such
/// orphans older than a second is torn down by the driver, and everything on it with it. The driver tells nobody how many there are, so
/// this counts an upper bound: what was given up, less what a server that answers has surely answered or timed out since.
#[derive(Debug)]
pub(super) struct Abandoned {
    // What the hot path reads.
    count: AtomicU32,
    // The last second in which an answer was taken into account, plus one.
    heard: AtomicU64,
    most: u32,
    slots: Mutex<Slots>,
}

/// Attempts by the second in which they were given up.
#[derive(Debug, Default)]
struct Slots {
    counts: [u32; SECONDS],
    // The second that the newest slot stands for, since the node was known.
    newest: u64,
    // Those that are older than the oldest slot, and when the last of them was given up at the latest.
    overdue: u32,
    overdue_until: u64,
    // The last second in which the node answered.
    heard: Option<u64>,
}

/// A server gives up a request by itself: by default after 2 to 10 s, by its kind. What is older than so many seconds has been answered.
const SECONDS: usize = 13;

impl Abandoned {
    /// `most` are too many.
    pub(super) fn new(most: u32) -> Self {
        Self { count: AtomicU32::new(0), heard: AtomicU64::new(0), most, slots: Mutex::default() }
    }

    /// One more. Says whether they are too many, if that has changed.
    pub(super) fn add(&self, second: u64) -> Option<bool> {
        self.change(|slots| {
            slots.advance(second);
            let slot = slots.slot();
            slots.counts[slot] = slots.counts[slot].saturating_add(1);
        })
    }

    /// The node answers: what is older than a server's own timeouts has been answered. Says whether they are too many, if that has
    /// changed.
    #[inline]
    pub(super) fn answered(&self, second: u64) -> Option<bool> {
        if self.count.load(Relaxed) == 0 || self.heard.load(Relaxed) == second + 1 {
            return None;
        }
        self.heard.store(second + 1, Relaxed);
        self.change(|slots| slots.answered(second))
    }

    /// The connections are new ones. Says whether they are too many, if that has changed.
    pub(super) fn clear(&self) -> Option<bool> {
        self.change(|slots| (slots.counts, slots.overdue) = ([0; SECONDS], 0))
    }

    /// How many there are at most.
    #[inline]
    pub(super) fn count(&self) -> u32 {
        self.count.load(Relaxed)
    }

    /// Whether there are too many.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.count() >= self.most
    }

    // Of the changes one after the other, each says what the next one finds.
    fn change(&self, change: impl FnOnce(&mut Slots)) -> Option<bool> {
        let mut slots = self.lock();
        change(&mut slots);
        let count = slots.sum();
        let before = self.count.swap(count, Relaxed);
        let is_full = count >= self.most;
        ((before >= self.most) != is_full).then_some(is_full)
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

    /// Goes on to the present second.
    fn advance(&mut self, second: u64) {
        if second.saturating_sub(self.newest) >= SECONDS as u64 {
            let all = self.sum();
            (self.overdue, self.overdue_until) = (all, self.newest);
            (self.counts, self.newest) = ([0; SECONDS], second);
        }
        while self.newest < second {
            self.newest += 1;
            let slot = self.slot();
            let oldest = std::mem::take(&mut self.counts[slot]);
            if oldest > 0 {
                self.overdue = self.overdue.saturating_add(oldest);
                self.overdue_until = self.newest - SECONDS as u64;
            }
        }
    }

    /// The first answer after a silence says that the node is back, and the next that it has had time for the rest.
    fn answered(&mut self, second: u64) {
        self.advance(second);
        if self.heard.is_some_and(|heard| heard < second && heard >= self.overdue_until) {
            self.overdue = 0;
        }
        self.heard = self.heard.max(Some(second));
    }

    fn sum(&self) -> u32 {
        self.counts.iter().fold(self.overdue, |sum, count| sum.saturating_add(*count))
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
        let abandoned = Abandoned::new(512);
        for second in 0..100 {
            abandoned.add(second);
        }
        assert_eq!(abandoned.count(), 100);
        abandoned.add(10_000);
        assert_eq!(abandoned.count(), 101);
    }

    #[test]
    fn a_node_that_answers_has_answered_what_is_older_than_its_own_timeouts() {
        let abandoned = Abandoned::new(512);
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
        let abandoned = Abandoned::new(512);
        for _ in 0..7 {
            abandoned.add(0);
        }
        // Silent for a minute.
        abandoned.add(60);
        assert_eq!(abandoned.count(), 8);
        abandoned.answered(60);
        assert_eq!(abandoned.count(), 8);
        abandoned.answered(62);
        assert_eq!(abandoned.count(), 1);
    }

    /// The answers come after what was given up in the same second: they count all the same.
    #[test]
    fn a_node_that_answers_all_the_time_owes_no_more_than_what_was_given_up_lately() {
        let abandoned = Abandoned::new(512);
        for second in 0..1_000 {
            for _ in 0..10 {
                abandoned.add(second);
                abandoned.answered(second);
            }
            assert!(abandoned.count() <= 140, "{}", abandoned.count());
        }
        // One answer a minute is enough.
        let abandoned = Abandoned::new(512);
        for minute in 0..1_000 {
            abandoned.add(minute * 60);
            abandoned.answered(minute * 60 + 1);
        }
        assert!(abandoned.count() <= 2, "{}", abandoned.count());
    }

    #[test]
    fn it_is_told_once_when_they_become_too_many_and_once_when_they_are_no_more() {
        let abandoned = Abandoned::new(2);
        assert_eq!((abandoned.add(0), abandoned.is_full()), (None, false));
        assert_eq!((abandoned.add(0), abandoned.is_full()), (Some(true), true));
        assert_eq!(abandoned.add(1), None);
        assert_eq!((abandoned.answered(5), abandoned.is_full()), (None, true));
        assert_eq!((abandoned.answered(13), abandoned.is_full()), (Some(false), false));
        assert_eq!(abandoned.clear(), None);
    }

    #[test]
    fn new_connections_owe_nothing() {
        let abandoned = Abandoned::new(512);
        abandoned.add(3);
        abandoned.clear();
        assert_eq!(abandoned.count(), 0);
    }

    #[test]
    fn a_clock_that_goes_back_changes_nothing() {
        let abandoned = Abandoned::new(512);
        abandoned.add(50);
        abandoned.answered(3);
        abandoned.add(3);
        assert_eq!(abandoned.count(), 2);
    }
}
