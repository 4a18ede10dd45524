//! What happened lately: a ring of ten buckets of atomics, told the time.
//!
//! An event costs one exchange of one word, however many events the window holds. Each can carry two marks, whose meaning
//! is the owner's. A bucket's word has a tag beside its counts, made of a generation of the owner's and of the bucket's
//! number, so that a late event cannot be added to a bucket that has been taken for something else meanwhile.
//!
//! Buckets are moved on under a lock that is the owner's too.

use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::{
    clock::{Instant, nanos},
    sync::atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

const BUCKETS: u64 = 10;

/// What the window covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    /// So many events: calls, for those who know no others.
    Calls(u32),
    /// The events of such a time.
    Time(Duration),
}

impl Span {
    /// How many events a bucket of a window of calls holds, and how many buckets there are.
    fn buckets_of(calls: u32) -> (u32, u32) {
        let capacity = calls.div_ceil(10).max(1);
        (capacity, (calls / capacity).max(1))
    }

    /// The most calls that a window of this many holds, which whole buckets may make a few less.
    pub(crate) fn most_calls(calls: u32) -> u32 {
        let (capacity, buckets) = Self::buckets_of(calls);
        capacity * buckets
    }
}

/// Which of its two marks an event carries.
pub(crate) type Marks = [bool; 2];

/// Sums over the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) events: u32,
    /// Those of them that carry the one mark, and the other.
    pub(crate) marked: [u32; 2],
}

pub(crate) struct Window {
    // The number of the current bucket; it only grows.
    current: AtomicU64,
    // When the current bucket ends, in nanoseconds of the clock.
    ends: AtomicU64,
    // The first bucket of the present generation.
    first: AtomicU64,
    // Each event is written here, and its writer reads what stands above: apart, so that the reads do not wait for the writes.
    buckets: CachePadded<[AtomicU64; 10]>,
    // A bucket with so many events is full.
    capacity: u64,
    // The length of a bucket in nanoseconds; zero for a window of calls.
    length: u64,
    // How many buckets the window covers, the current one included.
    covered: u64,
}

/// A bucket's word: tag, events, and those with the one mark and the other, of sixteen bits each.
#[derive(Clone, Copy)]
struct Bucket(u64);

impl Bucket {
    const fn empty(generation: u64, number: u64) -> Self {
        Self(Self::tag_of(generation, number) << 48)
    }

    const fn tag_of(generation: u64, number: u64) -> u64 {
        ((generation & 0x3f) << 10) | (number & 0x3ff)
    }

    const fn tag(self) -> u64 {
        self.0 >> 48
    }

    const fn events(self) -> u64 {
        (self.0 >> 32) & 0xffff
    }

    const fn marked(self) -> [u64; 2] {
        [(self.0 >> 16) & 0xffff, self.0 & 0xffff]
    }

    const fn plus(self, marks: Marks) -> Self {
        Self(self.0 + (1 << 32) + ((marks[0] as u64) << 16) + marks[1] as u64)
    }

    /// The same shares of half as many events.
    const fn halved(self) -> Self {
        let [one, other] = self.marked();
        Self((self.tag() << 48) | ((self.events() / 2) << 32) | ((one / 2) << 16) | (other / 2))
    }
}

impl Window {
    pub(crate) fn new(span: Span, generation: u64, now: Instant) -> Self {
        let (capacity, length, covered) = match span {
            Span::Calls(calls) => {
                let (capacity, buckets) = Span::buckets_of(calls);
                (capacity.into(), 0, buckets.into())
            }
            Span::Time(time) => (0xffff, (nanos(time) / BUCKETS).max(1), BUCKETS),
        };
        let window = Self {
            current: AtomicU64::new(0),
            ends: AtomicU64::new(0),
            first: AtomicU64::new(0),
            buckets: CachePadded::new(std::array::from_fn(|_| AtomicU64::new(0))),
            capacity,
            length,
            covered,
        };
        window.restart(generation, now);
        window
    }

    /// Adds an event, if it is of the present generation and the current bucket has room and time left for it.
    ///
    /// Where it fails, [`make_room`](Self::make_room) has to be called, under the owner's lock, before the next try.
    #[inline]
    pub(crate) fn add(&self, generation: u64, marks: Marks, now: Instant) -> bool {
        let number = self.current.load(Acquire);
        if now.as_nanos() >= self.ends.load(Relaxed) {
            return false;
        }
        let slot = self.slot(number);
        let mut bucket = Bucket(slot.load(Relaxed));
        loop {
            if bucket.tag() != Bucket::tag_of(generation, number) || bucket.events() >= self.capacity {
                return false;
            }
            match slot.compare_exchange_weak(bucket.0, bucket.plus(marks).0, AcqRel, Relaxed) {
                Ok(_) => return true,
                Err(now_there) => bucket = Bucket(now_there),
            }
        }
    }

    /// Moves on to the bucket of this moment. Called under the owner's lock.
    pub(crate) fn make_room(&self, generation: u64, now: Instant) {
        let number = self.current.load(Relaxed);
        if self.length == 0 {
            if Bucket(self.slot(number).load(Relaxed)).events() >= self.capacity {
                self.move_on(generation, number, 1);
            }
            return;
        }
        let ends = self.ends.load(Relaxed);
        if let Some(late) = now.as_nanos().checked_sub(ends) {
            let passed = late / self.length + 1;
            self.ends.store(ends.saturating_add(passed.saturating_mul(self.length)), Relaxed);
            self.move_on(generation, number, passed);
            return;
        }
        // So many events that the counts have no more room: a bucket is a share, and half as many have the same.
        let slot = self.slot(number);
        let _ = slot.fetch_update(AcqRel, Relaxed, |word| {
            let bucket = Bucket(word);
            (bucket.events() >= self.capacity).then(|| bucket.halved().0)
        });
    }

    /// Forgets all events: what follows belongs to `generation`. Called under the owner's lock.
    pub(crate) fn restart(&self, generation: u64, now: Instant) {
        let number = self.current.load(Relaxed);
        let ends = if self.length == 0 { u64::MAX } else { now.as_nanos().saturating_add(self.length) };
        self.first.store(number + 1, Relaxed);
        self.ends.store(ends, Relaxed);
        self.move_on(generation, number, 1);
    }

    /// The events that the window covers at this moment.
    pub(crate) fn sums(&self, generation: u64, now: Instant) -> Sums {
        let number = self.current.load(Acquire);
        // Buckets that have begun since the last event, and are empty.
        let newer = match now.as_nanos().checked_sub(self.ends.load(Relaxed)) {
            Some(late) if self.length > 0 => late / self.length + 1,
            _ => 0,
        };
        let oldest = (number + newer + 1).saturating_sub(self.covered).max(self.first.load(Relaxed));
        let mut sums = Sums::default();
        for number in oldest..=number {
            let bucket = Bucket(self.slot(number).load(Acquire));
            if bucket.tag() == Bucket::tag_of(generation, number) {
                #[expect(clippy::cast_possible_truncation, reason = "sixteen bits each")]
                {
                    let [one, other] = bucket.marked();
                    sums.events += bucket.events() as u32;
                    sums.marked[0] += one as u32;
                    sums.marked[1] += other as u32;
                }
            }
        }
        sums
    }

    /// Clears the buckets that come next, and makes the last of them the current one.
    fn move_on(&self, generation: u64, from: u64, by: u64) {
        let to = from + by;
        for number in (from + 1).max(to.saturating_sub(BUCKETS - 1))..=to {
            self.slot(number).store(Bucket::empty(generation, number).0, Release);
        }
        self.current.store(to, Release);
    }

    fn slot(&self, number: u64) -> &AtomicU64 {
        &self.buckets[(number % BUCKETS) as usize]
    }
}

#[cfg(all(test, not(palisade_loom)))]
mod tests {
    use super::*;

    const OK: Marks = [false, false];
    const FAILED: Marks = [true, false];

    fn add(window: &Window, marks: Marks, now: Instant) {
        while !window.add(1, marks, now) {
            window.make_room(1, now);
        }
    }

    #[test]
    fn a_window_of_calls_forgets_the_oldest_tenth() {
        let now = Instant::now();
        let window = Window::new(Span::Calls(100), 1, now);
        (0..10).for_each(|_| add(&window, FAILED, now));
        (0..90).for_each(|_| add(&window, OK, now));
        assert_eq!(window.sums(1, now), Sums { events: 100, marked: [10, 0] });
        add(&window, OK, now);
        assert_eq!(window.sums(1, now), Sums { events: 91, marked: [0, 0] });
    }

    #[test]
    fn a_window_of_few_calls_has_fewer_buckets() {
        let now = Instant::now();
        for (asked, most) in [(1, 1), (3, 3), (10, 10), (15, 14), (20, 20), (99, 90)] {
            let window = Window::new(Span::Calls(asked), 1, now);
            (0..1_000).for_each(|_| add(&window, OK, now));
            assert_eq!(window.sums(1, now).events, most, "of {asked}");
        }
    }

    #[test]
    fn a_window_of_time_forgets_also_when_nothing_happens() {
        let start = Instant::now();
        let window = Window::new(Span::Time(Duration::from_secs(10)), 1, start);
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        add(&window, FAILED, at(0));
        add(&window, OK, at(5));
        assert_eq!(window.sums(1, at(9)).events, 2);
        assert_eq!(window.sums(1, at(10)), Sums { events: 1, marked: [0, 0] });
        assert_eq!(window.sums(1, at(500)).events, 0);
        add(&window, OK, at(500));
        assert_eq!(window.sums(1, at(500)).events, 1);
    }

    #[test]
    fn more_calls_than_a_bucket_can_count_keep_their_shares() {
        let now = Instant::now();
        let window = Window::new(Span::Time(Duration::from_secs(10)), 1, now);
        for call in 0..300_000 {
            add(&window, [call % 4 == 0, call % 2 == 0], now);
        }
        let sums = window.sums(1, now);
        let share = |part: u32| f64::from(part) / f64::from(sums.events);
        assert!(sums.events >= 32_000, "{sums:?}");
        assert!(
            (share(sums.marked[0]) - 0.25).abs() < 0.01 && (share(sums.marked[1]) - 0.5).abs() < 0.01,
            "{sums:?}"
        );
    }

    #[test]
    fn an_outcome_of_another_generation_is_not_added() {
        let now = Instant::now();
        let window = Window::new(Span::Calls(100), 1, now);
        window.restart(2, now);
        assert!(!window.add(1, FAILED, now));
        assert_eq!(window.sums(2, now).events, 0);
        assert!(window.add(2, FAILED, now));
    }
}
