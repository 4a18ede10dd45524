//! Waiting in line: first come, first served, and bounded.
//!
//! There are two ways to serve a line. Where only the owner's clock knows whether there is something for the front, the front is
//! woken and looks by itself ([`watch`](Line::watch), [`leave`](Line::leave)). Where what they wait for is one of the owner's half
//! of the word, it is handed over ([`hand_over`](Line::hand_over), [`is_given`](Line::is_given), [`give_up`](Line::give_up)): the
//! front has it, and has left the line, before it is woken, so that one that does not look holds up nobody.
//!
//! Nobody but the front is woken: a crowd that wakes up to find that one of them is served costs more than the wait.
//!
//! The places are a linked list in a `Vec`, so that whoever gives up in the middle leaves no hole behind: a line takes up
//! memory for as many as have ever waited at once, and the owner sets a limit to that.

use std::task::Waker;

use crate::sync::{
    Mutex,
    atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
    lock,
};

/// One who waits, in the upper half of the word.
const WAITING: u64 = 1 << 32;

/// No place.
const NONE: u32 = u32::MAX;

/// A line, and half a word of its owner's.
///
/// The upper half of the word counts those who wait; the lower half is the owner's. As they are one word, "if nobody waits" and
/// what the owner counts are decided in one step, and a count that falls sees everybody who joined before.
#[derive(Debug)]
pub(crate) struct Line {
    word: AtomicU64,
    weight: AtomicU64,
    places: Mutex<Places>,
}

/// The line is as long as it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Where a newcomer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    /// The place, which is given up by [`Line::leave`].
    pub(crate) place: u32,
    /// What those who came before weigh together.
    pub(crate) ahead: u64,
}

impl Line {
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            weight: AtomicU64::new(0),
            places: Mutex::new(Places { slots: Vec::new(), first: NONE, last: NONE, free: NONE }),
        }
    }

    /// Whether nobody waits.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.word.load(Acquire) < WAITING
    }

    /// How many wait.
    pub(crate) fn len(&self) -> u32 {
        waiting(self.word.load(Acquire))
    }

    /// What those who wait weigh together.
    #[inline]
    pub(crate) fn weight(&self) -> u64 {
        self.weight.load(Acquire)
    }

    /// The owner's half of the word.
    #[inline]
    pub(crate) fn owned(&self) -> u32 {
        owned(self.word.load(Acquire))
    }

    /// Adds one to the owner's half if `may` says so of how many wait and what the half is. Tells what it is then.
    #[inline]
    pub(crate) fn add_owned(&self, may: impl Fn(u32, u32) -> bool) -> Option<u32> {
        self.change(1, may)
    }

    /// Adds `change` to the word if `may` says so of how many wait and what the owner's half is. Tells what the half is then.
    #[inline]
    fn change(&self, change: u64, may: impl Fn(u32, u32) -> bool) -> Option<u32> {
        let mut word = self.word.load(Acquire);
        while may(waiting(word), owned(word)) {
            let changed = word.wrapping_add(change);
            match self.word.compare_exchange_weak(word, changed, AcqRel, Acquire) {
                Ok(_) => return Some(owned(changed)),
                Err(current) => word = current,
            }
        }
        None
    }

    /// Takes one from the owner's half, which has one, and tells how many wait and what is left.
    #[inline]
    pub(crate) fn subtract_owned(&self) -> (u32, u32) {
        let word = self.word.fetch_sub(1, AcqRel);
        debug_assert!(owned(word) > 0, "more was given back than taken");
        (waiting(word), owned(word).wrapping_sub(1))
    }

    /// Takes the last place, if fewer than `most` wait.
    pub(crate) fn join(&self, weight: u32, most: u32) -> Result<Joined, Full> {
        let mut places = lock(&self.places);
        if waiting(self.word.load(Relaxed)) >= most {
            return Err(Full);
        }
        let ahead = self.weight.fetch_add(u64::from(weight), AcqRel);
        let place = places.push(weight);
        // Last, so that whoever sees it finds the place.
        self.word.fetch_add(WAITING, AcqRel);
        Ok(Joined { place, ahead })
    }

    /// Says who is to be woken at `place`, and that it will look by itself at `looks_at`. Tells whether it is the front.
    ///
    /// Whatever the front tries after this is not missed: it is woken if there is something for it later.
    pub(crate) fn watch(&self, place: u32, waker: &Waker, looks_at: u64) -> bool {
        let mut places = lock(&self.places);
        let front = places.first == place;
        let Some(slot) = places.slots.get_mut(place as usize) else {
            return false;
        };
        slot.looks_at = looks_at;
        let known = slot.waker.as_ref().is_some_and(|known| known.will_wake(waker));
        // An old waker is dropped after the lock is: what that runs is not ours.
        let old = if known { None } else { slot.waker.replace(waker.clone()) };
        drop(places);
        drop(old);
        front
    }

    /// Gives up `place`. If it was the front, the next one is woken where `wanted` says so of its weight and of the moment at
    /// which it will look by itself.
    pub(crate) fn leave(&self, place: u32, wanted: impl FnOnce(u32, u64) -> bool) {
        let mut places = lock(&self.places);
        let was_front = places.first == place;
        let (weight, old) = places.remove(place);
        self.weight.fetch_sub(u64::from(weight), AcqRel);
        self.word.fetch_sub(WAITING, AcqRel);
        let next = if was_front { places.front_if(wanted) } else { None };
        drop(places);
        drop(old);
        wake(next);
    }

    /// As long as somebody waits and `may` says so of the owner's half, adds one to that for the front, which leaves the line and is
    /// woken to find it.
    #[cold]
    pub(crate) fn hand_over(&self, may: impl Fn(u32) -> bool) {
        let may = |waiting, owned| waiting > 0 && may(owned);
        // Not a mere look: of two who change what they share and then look at what the other has, one may see neither. Whoever joins
        // after this sees what the caller did before it, and whoever joined before this is seen.
        let mut word = self.word.fetch_add(0, AcqRel);
        loop {
            if !may(waiting(word), owned(word)) {
                return;
            }
            let mut places = lock(&self.places);
            // Under the lock nobody joins or leaves, and who waits according to the word is there.
            if self.change(1_u64.wrapping_sub(WAITING), may).is_none() {
                return;
            }
            let (weight, waker) = places.give_to_front();
            self.weight.fetch_sub(u64::from(weight), AcqRel);
            drop(places);
            wake(waker);
            word = self.word.load(Acquire);
        }
    }

    /// Whether what `place` waits for has been handed over: the place is free again then. If not, says who is to be woken.
    pub(crate) fn is_given(&self, place: u32, waker: &Waker) -> bool {
        let mut places = lock(&self.places);
        let Some(slot) = places.slots.get_mut(place as usize) else {
            return false;
        };
        let old = if slot.given {
            places.free(place);
            drop(places);
            return true;
        } else if slot.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            None
        } else {
            slot.waker.replace(waker.clone())
        };
        drop(places);
        drop(old);
        false
    }

    /// Gives up `place`, and tells whether what it waited for had been handed over, and is now the caller's to pass on.
    pub(crate) fn give_up(&self, place: u32) -> bool {
        let mut places = lock(&self.places);
        if places.slots.get(place as usize).is_some_and(|slot| slot.given) {
            places.free(place);
            return true;
        }
        let (weight, old) = places.remove(place);
        self.weight.fetch_sub(u64::from(weight), AcqRel);
        self.word.fetch_sub(WAITING, AcqRel);
        drop(places);
        drop(old);
        false
    }

    /// Wakes the front if `wanted` says so of its weight and of the moment at which it will look by itself.
    pub(crate) fn nudge(&self, wanted: impl FnOnce(u32, u64) -> bool) {
        let front = lock(&self.places).front_if(wanted);
        wake(front);
    }
}

#[inline]
const fn waiting(word: u64) -> u32 {
    (word >> 32) as u32
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
const fn owned(word: u64) -> u32 {
    word as u32
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[derive(Debug)]
struct Places {
    slots: Vec<Slot>,
    first: u32,
    last: u32,
    // The first of the free slots, which are linked by `next`.
    free: u32,
}

#[derive(Debug)]
struct Slot {
    previous: u32,
    next: u32,
    weight: u32,
    looks_at: u64,
    waker: Option<Waker>,
    // It has left the line with what it waited for, and has not looked yet.
    given: bool,
}

impl Places {
    fn push(&mut self, weight: u32) -> u32 {
        let slot =
            Slot { previous: self.last, next: NONE, weight, looks_at: u64::MAX, waker: None, given: false };
        let place = if self.free == NONE {
            // As many as wait, and that fits in half a word.
            let place = u32::try_from(self.slots.len()).unwrap_or(NONE);
            self.slots.push(slot);
            place
        } else {
            let place = self.free;
            self.free = self.slots[place as usize].next;
            self.slots[place as usize] = slot;
            place
        };
        match self.slots.get_mut(self.last as usize) {
            Some(last) => last.next = place,
            None => self.first = place,
        }
        self.last = place;
        place
    }

    fn remove(&mut self, place: u32) -> (u32, Option<Waker>) {
        let unlinked = self.unlink(place);
        self.free(place);
        unlinked
    }

    /// Takes the front out of the line, and leaves it where it finds out.
    fn give_to_front(&mut self) -> (u32, Option<Waker>) {
        let front = self.first;
        let unlinked = self.unlink(front);
        self.slots[front as usize].given = true;
        unlinked
    }

    fn free(&mut self, place: u32) {
        self.slots[place as usize].next = self.free;
        self.free = place;
    }

    fn unlink(&mut self, place: u32) -> (u32, Option<Waker>) {
        let slot = &mut self.slots[place as usize];
        let (previous, next, weight, waker) = (slot.previous, slot.next, slot.weight, slot.waker.take());
        match self.slots.get_mut(previous as usize) {
            Some(slot) => slot.next = next,
            None => self.first = next,
        }
        match self.slots.get_mut(next as usize) {
            Some(slot) => slot.previous = previous,
            None => self.last = previous,
        }
        (weight, waker)
    }

    fn front_if(&mut self, wanted: impl FnOnce(u32, u64) -> bool) -> Option<Waker> {
        let front = self.slots.get_mut(self.first as usize)?;
        // A front that has been woken before, or has not said yet who is to be woken, looks by itself.
        if front.waker.is_some() && wanted(front.weight, front.looks_at) { front.waker.take() } else { None }
    }
}

#[cfg(all(test, not(palisade_loom)))]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Woken {
        fn times(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn the_next_in_line_is_woken_and_nobody_else() {
        let line = Line::new();
        let woken: Vec<_> = (0..4).map(|_| Arc::new(Woken::default())).collect();
        let places: Vec<_> = woken
            .iter()
            .map(|woken| {
                let place = line.join(1, 9).unwrap().place;
                line.watch(place, &Arc::clone(woken).into(), u64::MAX);
                place
            })
            .collect();
        line.leave(places[1], |_, _| true);
        line.leave(places[0], |_, _| true);
        assert_eq!(woken.iter().map(|woken| woken.times()).collect::<Vec<_>>(), [0, 0, 1, 0]);
        // It has been woken once, and has not looked yet.
        line.nudge(|_, _| true);
        assert_eq!(woken[2].times(), 1);
        line.leave(places[2], |_, _| false);
        assert_eq!(woken[3].times(), 0);
    }

    #[test]
    fn a_full_line_takes_nobody_and_gives_its_places_out_again() {
        let line = Line::new();
        for _ in 0..100 {
            let places: Vec<_> = (0..3).map(|_| line.join(1, 3).unwrap().place).collect();
            assert_eq!(line.join(1, 3), Err(Full));
            for place in places.into_iter().rev() {
                line.leave(place, |_, _| true);
            }
        }
        assert!(line.is_empty());
        assert_eq!(lock(&line.places).slots.len(), 3);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join(u32),
        Leave(prop::sample::Index),
    }

    proptest! {
        /// The line beside a plain queue.
        #[test]
        fn a_line_agrees_with_a_plain_queue(steps in prop::collection::vec(
            prop_oneof![(1..9u32).prop_map(Step::Join), any::<prop::sample::Index>().prop_map(Step::Leave)],
            0..200,
        )) {
            let line = Line::new();
            let mut model = VecDeque::new();
            for step in steps {
                match step {
                    Step::Join(weight) => {
                        let ahead: u64 = model.iter().map(|(_, weight)| u64::from(*weight)).sum();
                        if let Ok(joined) = line.join(weight, 12) {
                            prop_assert_eq!(joined.ahead, ahead);
                            model.push_back((joined.place, weight));
                        } else {
                            prop_assert_eq!(model.len(), 12);
                        }
                    }
                    Step::Leave(index) if !model.is_empty() => {
                        let (place, _) = model.remove(index.index(model.len())).unwrap();
                        line.leave(place, |_, _| true);
                    }
                    Step::Leave(_) => {}
                }
                prop_assert_eq!(line.len() as usize, model.len());
                for (index, (place, _)) in model.iter().enumerate() {
                    prop_assert_eq!(line.watch(*place, Waker::noop(), 0), index == 0);
                }
            }
            prop_assert!(lock(&line.places).slots.len() <= 12);
        }
    }
}

#[cfg(all(test, palisade_loom))]
mod models {
    use std::sync::Arc;

    use loom::{future::block_on, thread};

    use super::*;

    /// Waits for a permit of the owner's half, of which there are `limit`, and holds it.
    async fn take(line: &Line, limit: u32) {
        if line.add_owned(|waiting, owned| waiting == 0 && owned < limit).is_some() {
            return;
        }
        let place = line.join(1, 9).unwrap().place;
        std::future::poll_fn(|cx| {
            let front = line.watch(place, cx.waker(), u64::MAX);
            if front && line.add_owned(|_, owned| owned < limit).is_some() {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
        line.leave(place, |_, _| line.owned() < limit);
    }

    fn give_back(line: &Line) {
        if line.subtract_owned().0 > 0 {
            line.nudge(|_, _| true);
        }
    }

    fn call(line: &Line) {
        block_on(take(line, 1));
        give_back(line);
    }

    /// Three of them are in the model of the concurrency limit.
    #[test]
    fn loom_both_in_line_are_served() {
        loom::model(|| {
            let line = Arc::new(Line::new());
            let other = {
                let line = Arc::clone(&line);
                thread::spawn(move || call(&line))
            };
            call(&line);
            other.join().unwrap();
            assert!(line.is_empty());
            assert_eq!((line.owned(), line.weight()), (0, 0));
        });
    }

    /// One joins and gives up at once: it may be the one that was just woken.
    #[test]
    fn loom_who_leaves_the_line_hands_the_turn_on() {
        let mut bounds = loom::model::Builder::new();
        bounds.preemption_bound = Some(2);
        bounds.check(|| {
            let line = Arc::new(Line::new());
            assert!(line.add_owned(|_, owned| owned < 1).is_some());
            let first = line.join(1, 9).unwrap().place;
            assert!(line.watch(first, Waker::noop(), u64::MAX));
            let waiter = {
                let line = Arc::clone(&line);
                thread::spawn(move || call(&line))
            };
            let releaser = {
                let line = Arc::clone(&line);
                thread::spawn(move || give_back(&line))
            };
            line.leave(first, |_, _| line.owned() < 1);
            waiter.join().unwrap();
            releaser.join().unwrap();
            assert!(line.is_empty());
        });
    }
}
