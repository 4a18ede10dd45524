//! The limiter itself: one atomic word that is told the time.
//!
//! A permit is `2^scale` parts, and the clock, seen through a rate, runs in parts. The scale is chosen so that a part is about a
//! nanosecond. So a permit is a whole number of parts at any rate, and nothing is rounded but the reading of the clock: 3 per
//! second are 94,608,000 per year.
//!
//! The word holds the moment at which everything that was taken will have been earned (the "theoretical arrival time" of GCRA), and
//! two bits that say by which of four rates it counts. A rate that is changed goes into the next of the four, and the word
//! then moves over to it in one step: whoever had begun with the old rate finds the word changed, and begins again.

use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::{
    clock::Instant,
    sync::{
        Mutex,
        atomic::{
            AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
        lock,
    },
};

/// So many permits in so much time, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) permits: u32,
    pub(super) per: Duration,
    pub(super) burst: u32,
}

/// A rate, and the moment from which it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    base: u64,
    // Parts per nanosecond, in units of 2^-60.
    speed: u64,
    burst: u32,
    scale: u32,
}

/// The most that a permit is divided into.
const MAX_SCALE: u32 = 40;

/// Where the clock stops: some 36 years after the rate was set, or 17 at more than a permit for each nanosecond.
const LAST: u64 = 1 << 61;

impl Pace {
    fn new(rate: Rate, now: Instant) -> Self {
        let per = rate.per.as_nanos().max(1);
        let permits = u128::from(rate.permits);
        // At most two parts per nanosecond, so that 36 years fit in 61 bits.
        let scale = (2 * per / permits).max(1).ilog2().min(MAX_SCALE);
        // Rounded up, so that a permit that is due on a nanosecond is due on that one. In 36 years that makes one part.
        let speed = (permits << (scale + 60)).div_ceil(per);
        Self {
            base: now.as_nanos(),
            speed: u64::try_from(speed).unwrap_or(u64::MAX),
            burst: rate.burst,
            scale,
        }
    }

    #[inline]
    fn position(self, now: Instant) -> u64 {
        let since = now.as_nanos().saturating_sub(self.base);
        let parts = (u128::from(since) * u128::from(self.speed)) >> 60;
        u64::try_from(parts).map_or(LAST, |parts| parts.min(LAST))
    }

    /// How long after `now` the clock will have got to `position`.
    fn wait(self, position: u128, now: Instant) -> Duration {
        let since = (position << 60).div_ceil(u128::from(self.speed.max(1)));
        let at = u64::try_from(since).unwrap_or(u64::MAX).saturating_add(self.base);
        Duration::from_nanos(at.saturating_sub(now.as_nanos()))
    }

    const fn parts(self, permits: u32) -> u64 {
        (permits as u64) << self.scale
    }

    const fn capacity(self) -> u64 {
        self.parts(self.burst)
    }
}

/// Where a pace is kept.
#[derive(Debug)]
struct Slot {
    base: AtomicU64,
    speed: AtomicU64,
    // The scale above the burst.
    size: AtomicU64,
}

impl Slot {
    fn new(pace: Pace) -> Self {
        let slot = Self { base: AtomicU64::new(0), speed: AtomicU64::new(0), size: AtomicU64::new(0) };
        slot.store(pace);
        slot
    }

    fn store(&self, pace: Pace) {
        self.base.store(pace.base, Relaxed);
        self.speed.store(pace.speed, Relaxed);
        self.size.store((u64::from(pace.scale) << 32) | u64::from(pace.burst), Relaxed);
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "two halves of a word")]
    fn load(&self) -> Pace {
        let size = self.size.load(Relaxed);
        Pace {
            base: self.base.load(Relaxed),
            speed: self.speed.load(Relaxed),
            burst: size as u32,
            scale: (size >> 32) as u32,
        }
    }
}

/// The generic cell rate algorithm.
#[derive(Debug)]
pub(super) struct Gcra {
    hot: CachePadded<Hot>,
    // All that was ever given back, in parts.
    given_back: AtomicU64,
    slots: [Slot; 4],
    // One change of the rate, or one permit given back, at a time.
    changes: Mutex<()>,
}

/// What every call writes, in one line of a cache.
#[derive(Debug)]
struct Hot {
    // The moment at which all that was taken will have been earned, in parts, above the number of the slot.
    word: AtomicU64,
    admitted: AtomicU64,
}

const SLOT_BITS: u32 = 2;
const SLOTS: u64 = 1 << SLOT_BITS;

/// A permit that can be given back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permit {
    slot: u64,
    weight: u32,
    // What the word told right after it was taken.
    earned_at: u64,
    given_back: u64,
}

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Short {
    /// There will be, after this time.
    For(Duration),
    /// It weighs more than the burst.
    Forever,
}

impl Gcra {
    /// Full at first.
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        let pace = Pace::new(rate, now);
        Self {
            hot: CachePadded::new(Hot { word: AtomicU64::new(0), admitted: AtomicU64::new(0) }),
            given_back: AtomicU64::new(0),
            slots: std::array::from_fn(|_| Slot::new(pace)),
            changes: Mutex::new(()),
        }
    }

    /// Counts a call that goes through.
    #[inline]
    pub(super) fn count_admitted(&self) {
        self.hot.admitted.fetch_add(1, Relaxed);
    }

    /// How many have gone through.
    pub(super) fn admitted(&self) -> u64 {
        self.hot.admitted.load(Relaxed)
    }

    #[inline]
    fn pace(&self, word: u64) -> Pace {
        // It is whole as long as the word is in this slot: a slot is written again after three further changes.
        self.slots[(word % SLOTS) as usize].load()
    }

    /// Takes `weight` permits at once, or says when they will be there.
    #[inline]
    pub(super) fn take(&self, weight: u32, now: Instant) -> Result<(), Short> {
        self.take_word(weight, now).map(|_| ())
    }

    /// As [`take`](Self::take), for what may be given back.
    pub(super) fn take_permit(&self, weight: u32, now: Instant) -> Result<Permit, Short> {
        // Before the permit is taken: what is given back in between counts against it, and not for it.
        let given_back = self.given_back.load(Acquire);
        let word = self.take_word(weight, now)?;
        Ok(Permit { slot: word % SLOTS, weight, earned_at: word >> SLOT_BITS, given_back })
    }

    #[inline]
    fn take_word(&self, weight: u32, now: Instant) -> Result<u64, Short> {
        let mut word = self.hot.word.load(Acquire);
        loop {
            let pace = self.pace(word);
            let position = pace.position(now);
            // What is heavier than the burst is never there, and its parts might not fit.
            let parts = if weight <= pace.burst { pace.parts(weight) } else { pace.capacity() + 1 };
            let earned_at = (word >> SLOT_BITS).max(position) + parts;
            if earned_at - position <= pace.capacity() {
                let taken = (earned_at << SLOT_BITS) | (word % SLOTS);
                match self.hot.word.compare_exchange_weak(word, taken, AcqRel, Acquire) {
                    Ok(_) => return Ok(taken),
                    Err(current) => word = current,
                }
            } else {
                let current = self.hot.word.load(Acquire);
                if current % SLOTS == word % SLOTS {
                    return Err(short(pace, word, weight, 0, now));
                }
                word = current;
            }
        }
    }

    /// When `weight` permits will be there for one who waits for `ahead` permits to be taken first.
    pub(super) fn short(&self, weight: u32, ahead: u64, now: Instant) -> Short {
        let word = self.hot.word.load(Acquire);
        short(self.pace(word), word, weight, ahead, now)
    }

    /// Gives back a permit that was not used, as far as that admits no more than if it had never been taken.
    ///
    /// What was taken long ago has been earned since, and may have been taken a second time while the limiter was full. How much
    /// of it is still owed is known if nobody took anything since, or if the limiter has not been full since; else a lower
    /// bound of it is given back.
    ///
    /// The time is asked for, because it must not be from before what others took.
    pub(super) fn give_back(&self, permit: &Permit, clock: impl Fn() -> Instant) {
        let _one = lock(&self.changes);
        let mut word = self.hot.word.load(Acquire);
        loop {
            if word % SLOTS != permit.slot {
                // The rate has changed, and what was saved up was counted anew.
                return;
            }
            let pace = self.pace(word);
            // Since it was taken the word has never told less than this, and what is ahead of the clock there is owed.
            let since = self.given_back.load(Relaxed).wrapping_sub(permit.given_back);
            let owed = permit.earned_at.saturating_sub(since).saturating_sub(pace.position(clock()));
            let parts = owed.min(pace.parts(permit.weight));
            let less = word - (parts << SLOT_BITS);
            match self.hot.word.compare_exchange_weak(word, less, AcqRel, Acquire) {
                Ok(_) => {
                    // After the word, so that who sees this sees the word that it is about.
                    self.given_back.fetch_add(parts, AcqRel);
                    return;
                }
                Err(current) => word = current,
            }
        }
    }

    /// Changes the rate. What was saved up stays, up to the new burst.
    pub(super) fn set(&self, rate: Rate, now: Instant) {
        let _one = lock(&self.changes);
        let mut word = self.hot.word.load(Acquire);
        let old = self.pace(word);
        let pace = Pace::new(rate, now);
        let slot = (word + 1) % SLOTS;
        self.slots[slot as usize].store(pace);
        loop {
            let saved = saved(old, word, now);
            let saved = ((u128::from(saved) << pace.scale) >> old.scale).min(u128::from(pace.capacity()));
            let earned_at = u128::from(pace.capacity()) - saved;
            let moved = (u64::try_from(earned_at).unwrap_or(LAST) << SLOT_BITS) | slot;
            match self.hot.word.compare_exchange_weak(word, moved, AcqRel, Acquire) {
                Ok(_) => return,
                Err(current) => word = current,
            }
        }
    }

    /// The permits that could be taken now.
    pub(super) fn available(&self, now: Instant) -> u32 {
        let word = self.hot.word.load(Acquire);
        let pace = self.pace(word);
        u32::try_from(saved(pace, word, now) >> pace.scale).unwrap_or(u32::MAX)
    }
}

/// What could be taken now, in parts.
fn saved(pace: Pace, word: u64, now: Instant) -> u64 {
    pace.capacity().saturating_sub((word >> SLOT_BITS).saturating_sub(pace.position(now)))
}

#[cold]
fn short(pace: Pace, word: u64, weight: u32, ahead: u64, now: Instant) -> Short {
    if weight > pace.burst {
        return Short::Forever;
    }
    let earned_at = u128::from((word >> SLOT_BITS).max(pace.position(now)));
    let all = (u128::from(ahead) + u128::from(weight)) << pace.scale;
    let position = (earned_at + all).saturating_sub(u128::from(pace.capacity()));
    // Never that long: it only has to fit.
    Short::For(pace.wait(position.min(u128::from(u64::MAX)), now))
}

#[cfg(all(test, not(palisade_loom)))]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(permits: u32, per: Duration, burst: u32) -> Rate {
        Rate { permits, per, burst }
    }

    #[test]
    fn a_burst_is_taken_at_once_and_then_one_for_each_interval() {
        let start = Instant::now();
        let gcra = Gcra::new(rate(1_000, SECOND, 3), start);
        for _ in 0..3 {
            assert_eq!(gcra.take(1, start), Ok(()));
        }
        let millis = Duration::from_millis;
        assert_eq!(gcra.take(1, start), Err(Short::For(millis(1))));
        assert_eq!(
            gcra.take(1, start + Duration::from_nanos(999_999)),
            Err(Short::For(Duration::from_nanos(1)))
        );
        assert_eq!(gcra.take(1, start + millis(1)), Ok(()));
        assert_eq!(gcra.short(2, 5, start + millis(1)), Short::For(millis(7)));
        assert_eq!(gcra.available(start + millis(3)), 2);
        assert_eq!(gcra.available(start + millis(300)), 3);
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_does_not_drift() {
        for (permits, per, seconds) in [
            (3, SECOND, 3_600),
            (7_919, SECOND, 60),
            (999_983, SECOND, 1),
            (1_000_003, SECOND * 86_400, 3_600),
            (7, SECOND * 86_400 * 365, 86_400 * 365 * 30),
        ] {
            let start = Instant::now();
            // A limiter that was full, if for less than a nanosecond, forgets that time: so there is a small burst.
            let gcra = Gcra::new(rate(permits, per, 5), start);
            let (mut now, mut admitted) = (start, 0_u64);
            let end = start + SECOND * seconds;
            while now <= end {
                match gcra.take(1, now) {
                    Ok(()) => admitted += 1,
                    Err(Short::For(wait)) => now = now + wait,
                    Err(Short::Forever) => unreachable!(),
                }
            }
            let expected = 5 + u64::from(permits) * u64::from(seconds) / per.as_secs();
            assert!(admitted.abs_diff(expected) <= 1, "{admitted} of {expected} at {permits} per {per:?}");
        }
    }

    #[test]
    fn what_weighs_more_than_the_burst_is_never_served() {
        let start = Instant::now();
        let gcra = Gcra::new(rate(10, SECOND, 5), start);
        assert_eq!(gcra.take(6, start + SECOND * 60), Err(Short::Forever));
        assert_eq!(gcra.take(5, start), Ok(()));
        assert_eq!(gcra.take(u32::MAX, start), Err(Short::Forever));
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_grants_nothing_more() {
        let start = Instant::now();
        let gcra = Gcra::new(rate(1_000, SECOND, 2), start);
        assert!(gcra.take(1, start).is_ok() && gcra.take(1, start).is_ok());
        assert!(gcra.take(1, start).is_err());
        assert!(gcra.take(1, start - SECOND * 60).is_err());
        let later = start + SECOND;
        assert!(gcra.take(2, later).is_ok());
        assert!(gcra.take(1, start).is_err() && gcra.take(1, later).is_err());
        assert!(gcra.take(2, start + Duration::MAX).is_ok(), "it may jump ahead");
    }

    #[test]
    fn the_extremes_of_rate_burst_and_time_do_no_harm() {
        let start = Instant::now();
        for permits in [1, 1_000_000_000] {
            for per in [SECOND, SECOND * 86_400 * 366] {
                for burst in [1, 1_000_000_000] {
                    let gcra = Gcra::new(rate(permits, per, burst), start);
                    assert_eq!(gcra.take(burst, start), Ok(()));
                    let Err(Short::For(wait)) = gcra.take(burst, start) else { unreachable!() };
                    let exact = per.as_nanos() * u128::from(burst) / u128::from(permits);
                    if exact < u128::from(1_u64 << 60) {
                        assert!(wait.as_nanos().abs_diff(exact) <= 1 + exact / 1_000_000_000, "{wait:?}");
                        assert_eq!(gcra.take(burst, start + wait), Ok(()));
                    }
                    let _ = gcra.short(burst, u64::MAX, start);
                    let _ = gcra.take(burst, start + Duration::MAX);
                    let _ = gcra.available(start + Duration::MAX);
                }
            }
        }
    }

    #[test]
    fn a_permit_that_is_given_back_can_be_taken_again() {
        let start = Instant::now();
        let gcra = Gcra::new(rate(10, SECOND, 4), start);
        let permits: Vec<_> = (0..4).map(|_| gcra.take_permit(1, start).unwrap()).collect();
        assert_eq!(gcra.available(start), 0);
        for permit in &permits {
            gcra.give_back(permit, || start);
        }
        assert_eq!(gcra.available(start), 4);
    }

    /// The limiter has been full meanwhile: what was taken has been earned, and taken again by another.
    #[test]
    fn a_permit_that_comes_back_late_is_not_a_second_one() {
        let start = Instant::now();
        let gcra = Gcra::new(rate(10, SECOND, 2), start);
        let permit = gcra.take_permit(2, start).unwrap();
        let later = start + SECOND;
        assert_eq!(gcra.take(2, later), Ok(()));
        gcra.give_back(&permit, || later);
        assert!(gcra.take(1, later).is_err());
    }

    /// The first to come back lowers what the second one knew when it was taken.
    #[test]
    fn permits_that_come_back_one_after_the_other_are_not_more_than_were_taken() {
        let start = Instant::now();
        let gcra = Gcra::new(rate(10, SECOND, 10), start);
        let permits = [gcra.take_permit(5, start).unwrap(), gcra.take_permit(5, start).unwrap()];
        gcra.give_back(&permits[0], || start);
        let later = start + Duration::from_millis(700);
        assert_eq!(gcra.take(5, later), Ok(()));
        gcra.give_back(&permits[1], || later);
        assert_eq!(gcra.available(later), 5);
    }

    #[test]
    fn a_new_rate_keeps_what_was_saved_up_and_brings_no_flood() {
        let start = Instant::now();
        let gcra = Gcra::new(rate(10, SECOND, 10), start);
        gcra.take(7, start).unwrap();
        gcra.set(rate(1_000, SECOND, 500), start);
        assert_eq!(gcra.available(start), 3);
        assert_eq!(gcra.available(start + Duration::from_millis(2)), 5);
        gcra.set(rate(1, SECOND, 2), start + Duration::from_millis(2));
        assert_eq!(gcra.available(start + Duration::from_millis(2)), 2);
        for change in 1..20 {
            gcra.set(rate(change, SECOND, 2), start);
            assert_eq!(gcra.available(start + Duration::from_millis(2)), 2);
        }
    }

    #[test]
    fn threads_together_never_take_more_than_there_is() {
        let start = Instant::now();
        let gcra = Gcra::new(rate(1_000, SECOND, 100), start);
        let taken = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for step in 0..20_000 {
                        if gcra.take(1, start + Duration::from_micros(step * 5)).is_ok() {
                            taken.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 100 + 99);
    }

    /// Takes permits and gives some back, and counts each: in no interval are there more than the burst and what the rate earns in it.
    fn holds_in_every_interval(rate: Rate, used: &[(u64, u32)]) -> Result<(), TestCaseError> {
        let per = rate.per.as_nanos();
        for (first, (from, _)) in used.iter().enumerate() {
            let mut sum = 0_u128;
            for (to, weight) in &used[first..] {
                sum += u128::from(*weight);
                // The clock is read to a nanosecond, or to the part of a permit that is as long as that or longer.
                let interval = u128::from(to - from) + 2;
                let most = u128::from(rate.burst) * per + u128::from(rate.permits) * interval;
                prop_assert!(sum * per <= most, "{sum} in {interval} ns at {rate:?}");
            }
        }
        Ok(())
    }

    fn nanoseconds(duration: Duration) -> u64 {
        u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
    }

    fn rates() -> impl Strategy<Value = Rate> {
        (1..2_000_u32, 1..5_000_000_u64, 1..12_u32).prop_map(|(permits, micros, burst)| Rate {
            permits,
            per: Duration::from_micros(micros),
            burst,
        })
    }

    #[test]
    fn a_weight_that_is_no_permit_at_all_does_not_overflow() {
        let start = Instant::now();
        let slow = Rate { permits: 1, per: Duration::from_secs(600), burst: 4 };
        let gcra = Gcra::new(slow, start);
        assert_eq!(gcra.take(u32::MAX, start + Duration::from_secs(3_600)), Err(Short::Forever));
        assert_eq!(gcra.take(4, start), Ok(()));
    }

    proptest! {
        /// The limiter beside exact fractions: it admits what they admit, and not more than a nanosecond earlier.
        #[test]
        fn the_limiter_agrees_with_exact_fractions(
            rate in rates(),
            steps in prop::collection::vec((0..3_000_u64, 0..4_u32, any::<bool>()), 1..200),
        ) {
            let start = Instant::now();
            let gcra = Gcra::new(rate, start);
            let (per, permits) = (rate.per.as_nanos(), u128::from(rate.permits));
            let capacity = u128::from(rate.burst) * per;
            // In fractions of a nanosecond, of which there are `permits` in one.
            let (mut nanos, mut model, mut used) = (0_u64, 0_u128, Vec::new());
            for (wait, weight, to_the_nanosecond) in steps {
                nanos += wait * if to_the_nanosecond { 1 } else { nanoseconds(rate.per) / 1_000 };
                let now = start + Duration::from_nanos(nanos);
                let earned_at = model.max(u128::from(nanos) * permits) + u128::from(weight) * per;
                let due = earned_at.saturating_sub(capacity);
                match gcra.take(weight, now) {
                    Ok(()) => {
                        prop_assert!(due <= (u128::from(nanos) + 2) * permits);
                        model = earned_at;
                        used.push((nanos, weight));
                    }
                    Err(Short::Forever) => prop_assert!(weight > rate.burst),
                    Err(Short::For(wait)) => {
                        prop_assert!(due > u128::from(nanos) * permits, "a permit was lost");
                        let exact = due.div_ceil(permits) - u128::from(nanos);
                        prop_assert!(wait.as_nanos().abs_diff(exact) <= 2, "{wait:?}, not {exact} ns");
                        prop_assert!(gcra.short(weight, 0, now) == Short::For(wait));
                    }
                }
            }
            holds_in_every_interval(rate, &used)?;
        }

        #[test]
        fn what_is_given_back_never_admits_too_much(
            rate in rates(),
            steps in prop::collection::vec((0..400_u64, 1..4_u32, any::<prop::sample::Index>()), 1..120),
        ) {
            let start = Instant::now();
            let gcra = Gcra::new(rate, start);
            let (mut nanos, mut used, mut held) = (0_u64, Vec::new(), Vec::new());
            for (wait, weight, choice) in steps {
                nanos += wait * nanoseconds(rate.per) / u64::from(rate.permits) / 100;
                let now = start + Duration::from_nanos(nanos);
                match choice.index(3) {
                    0 => used.extend(gcra.take(weight, now).ok().map(|()| (nanos, weight))),
                    1 => held.extend(gcra.take_permit(weight, now).ok()),
                    _ if held.is_empty() => {}
                    _ => gcra.give_back(&held.swap_remove(choice.index(held.len())), || now),
                }
                prop_assert!(gcra.available(now) <= rate.burst);
            }
            holds_in_every_interval(rate, &used)?;
        }

        /// Everybody gives up, first come first: nothing is lost.
        #[test]
        fn what_is_given_back_in_order_is_all_there_again(
            rate in rates(),
            takes in prop::collection::vec((0..50_u64, 1..4_u32), 1..12),
        ) {
            let start = Instant::now();
            let gcra = Gcra::new(rate, start);
            let (mut nanos, mut held) = (0, Vec::new());
            for (wait, weight) in takes {
                nanos += wait * nanoseconds(rate.per) / u64::from(rate.permits) / 100;
                held.extend(gcra.take_permit(weight, start + Duration::from_nanos(nanos)).ok());
            }
            let now = start + Duration::from_nanos(nanos);
            for permit in &held {
                gcra.give_back(permit, || now);
            }
            prop_assert_eq!(gcra.available(now), rate.burst);
        }
    }
}

#[cfg(all(test, palisade_loom))]
mod models {
    use std::sync::Arc;

    use loom::thread;

    use super::*;

    const RATE: Rate = Rate { permits: 10, per: Duration::from_secs(1), burst: 3 };

    fn together(
        threads: usize,
        each: impl Fn(&Gcra, usize, Instant) -> u32 + Clone + Send + Sync + 'static,
        check: impl Fn(&Gcra, u32, Instant) + Send + Sync + 'static,
    ) {
        let mut bounds = loom::model::Builder::new();
        bounds.preemption_bound = Some(3);
        bounds.check(move || {
            let start = Instant::now();
            let gcra = Arc::new(Gcra::new(RATE, start));
            let others: Vec<_> = (1..threads)
                .map(|number| {
                    let (gcra, each) = (Arc::clone(&gcra), each.clone());
                    thread::spawn(move || each(&gcra, number, start))
                })
                .collect();
            let mut used = each(&gcra, 0, start);
            for other in others {
                used += other.join().unwrap();
            }
            check(&gcra, used, start);
        });
    }

    #[test]
    fn loom_no_more_is_taken_than_there_is_and_no_less() {
        together(
            3,
            |gcra, _, now| (0..2).map(|_| u32::from(gcra.take(1, now).is_ok())).sum(),
            |gcra, used, now| {
                assert_eq!(used, RATE.burst);
                assert_eq!(gcra.available(now), 0);
            },
        );
    }

    #[test]
    fn loom_a_permit_that_is_given_back_is_there_once() {
        together(
            3,
            |gcra, number, now| {
                let Ok(permit) = gcra.take_permit(2, now) else { return 0 };
                if number == 0 {
                    return 2;
                }
                gcra.give_back(&permit, || now);
                0
            },
            |gcra, used, now| assert!(gcra.available(now) <= RATE.burst - used),
        );
    }

    /// While one comes back, another is taken; then time passes, and that one comes back too.
    #[test]
    fn loom_a_permit_that_comes_back_meanwhile_is_not_counted_twice() {
        loom::model(|| {
            let rate = Rate { permits: 10, per: Duration::from_secs(1), burst: 4 };
            let start = Instant::now();
            let later = start + Duration::from_millis(300);
            let gcra = Arc::new(Gcra::new(rate, start));
            let time_passed = Arc::new(std::sync::atomic::AtomicBool::new(false));
            let first = gcra.take_permit(2, start).unwrap();
            let other = {
                let (gcra, time_passed) = (Arc::clone(&gcra), Arc::clone(&time_passed));
                thread::spawn(move || {
                    let now =
                        || if time_passed.load(std::sync::atomic::Ordering::SeqCst) { later } else { start };
                    gcra.give_back(&first, now);
                })
            };
            let second = gcra.take_permit(2, start).unwrap();
            time_passed.store(true, std::sync::atomic::Ordering::SeqCst);
            let used = if gcra.take(2, later).is_ok() { 2 } else { 0 };
            gcra.give_back(&second, || later);
            other.join().unwrap();
            assert!(used + gcra.available(later) <= rate.burst);
        });
    }

    #[test]
    fn loom_the_rate_changes_in_one_step() {
        together(
            3,
            |gcra, number, now| {
                if number == 0 {
                    gcra.set(Rate { permits: 7, per: Duration::from_secs(60), burst: 9 }, now);
                    return 0;
                }
                (0..2).map(|_| u32::from(gcra.take(1, now).is_ok())).sum()
            },
            |gcra, used, now| {
                assert_eq!(used, RATE.burst);
                assert_eq!(gcra.available(now), 0);
            },
        );
    }
}
