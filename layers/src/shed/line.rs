//! Who waits: a line for each priority, in the order of arrival.
//!
//! The places are linked lists in one `Vec`, so that whoever leaves in the middle leaves no hole behind, and a line takes up
//! memory for as many as have ever waited at once. A place that is given up is used again at once, also where the one who stood
//! there was sent away and does not know it yet: its number tells them apart.

use std::task::Waker;

use crate::clock::Instant;

/// As many as there are priorities, the least important first.
pub(super) const LEVELS: usize = 4;

/// No place.
const NONE: u32 = u32::MAX;

/// Where somebody stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    index: u32,
    number: u32,
}

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) level: usize,
    pub(super) joined: Instant,
    /// When its wait is over.
    pub(super) give_up: Instant,
    /// Until when that can be put off.
    pub(super) latest: Instant,
    pub(super) waker: Option<Waker>,
}

#[derive(Debug)]
struct Slot {
    number: u32,
    previous: u32,
    next: u32,
    // None where nobody stands: then `next` is the next free slot.
    waiter: Option<Waiter>,
}

#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
    len: u32,
}

/// The lines of all priorities.
#[derive(Debug)]
pub(super) struct Lines {
    slots: Vec<Slot>,
    lists: [List; LEVELS],
    free: u32,
}

impl Lines {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), lists: [List { first: NONE, last: NONE, len: 0 }; LEVELS], free: NONE }
    }

    /// How many wait at this level.
    pub(super) const fn len_at(&self, level: usize) -> u32 {
        self.lists[level].len
    }

    /// How many wait.
    pub(super) fn len(&self) -> u32 {
        self.lists.iter().map(|list| list.len).sum()
    }

    /// Who has waited longest at this level.
    pub(super) fn oldest(&self, level: usize) -> Option<Place> {
        self.place(self.lists[level].first)
    }

    /// Who came last at this level.
    pub(super) fn newest(&self, level: usize) -> Option<Place> {
        self.place(self.lists[level].last)
    }

    /// Who came after the one at `place`, at the same level.
    pub(super) fn after(&self, place: Place) -> Option<Place> {
        self.get(place)?;
        self.place(self.slots[place.index as usize].next)
    }

    /// Who stands at `place`, unless it was sent away.
    pub(super) fn get(&self, place: Place) -> Option<&Waiter> {
        let slot = self.slots.get(place.index as usize)?;
        if slot.number == place.number { slot.waiter.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut Waiter> {
        let slot = self.slots.get_mut(place.index as usize)?;
        if slot.number == place.number { slot.waiter.as_mut() } else { None }
    }

    /// Puts somebody last in the line of its level.
    pub(super) fn push(&mut self, waiter: Waiter) -> Place {
        let list = &mut self.lists[waiter.level];
        let previous = list.last;
        let (index, number) = if let Some(slot) = self.slots.get_mut(self.free as usize) {
            let index = self.free;
            self.free = slot.next;
            *slot = Slot { number: slot.number, previous, next: NONE, waiter: Some(waiter) };
            (index, slot.number)
        } else {
            // As many as wait, and there is a limit to that.
            let index = u32::try_from(self.slots.len()).unwrap_or(NONE);
            self.slots.push(Slot { number: 0, previous, next: NONE, waiter: Some(waiter) });
            (index, 0)
        };
        list.last = index;
        list.len += 1;
        match self.slots.get_mut(previous as usize) {
            Some(slot) => slot.next = index,
            None => list.first = index,
        }
        Place { index, number }
    }

    /// Takes somebody out. `None` if it was sent away before.
    pub(super) fn remove(&mut self, place: Place) -> Option<Waiter> {
        let slot = self.slots.get_mut(place.index as usize).filter(|slot| slot.number == place.number)?;
        let waiter = slot.waiter.take()?;
        let (previous, next) = (slot.previous, slot.next);
        slot.number = slot.number.wrapping_add(1);
        slot.next = self.free;
        self.free = place.index;
        let list = &mut self.lists[waiter.level];
        list.len -= 1;
        match self.slots.get_mut(previous as usize) {
            Some(slot) => slot.next = next,
            None => list.first = next,
        }
        match self.slots.get_mut(next as usize) {
            Some(slot) => slot.previous = previous,
            None => list.last = previous,
        }
        Some(waiter)
    }

    /// How much memory the lines take up, in places.
    #[cfg(all(test, not(palisade_loom)))]
    pub(super) const fn places(&self) -> usize {
        self.slots.len()
    }

    fn place(&self, index: u32) -> Option<Place> {
        self.slots.get(index as usize).map(|slot| Place { index, number: slot.number })
    }
}
