//! Who waits for the service below, who is next, and who is sent away.
//!
//! One of those who wait is the *head*: it alone asks the service whether it is ready. Whoever becomes the head is woken, and
//! nobody else is. There is a head whenever somebody waits.

use std::{task::Waker, time::Duration};

use super::{
    line::{LEVELS, Lines, Place, Waiter},
    overload::{Overload, Rules},
};
use crate::{
    clock::Instant,
    sync::{
        Mutex,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Release},
        },
        lock,
    },
};

/// A level below which calls are refused, in the upper half of the word. How many wait is in the lower half.
const REFUSED_BELOW: u32 = 32;

/// The queue of a layer.
#[derive(Debug)]
pub(super) struct Queue {
    // What a call looks at that need not wait: zero if nobody waits and nothing is refused. Written under the lock.
    word: AtomicU64,
    core: Mutex<Core>,
}

/// Why somebody does not get in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// More important work has to be saved, or the line is full.
    Shed,
    /// Its deadline has passed.
    TooLate,
}

/// What somebody in line sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// Whether it is the one to ask the service.
    pub(super) head: bool,
    /// When it has to look again, if it is not woken before.
    pub(super) look_at: Instant,
    /// When its wait is over.
    pub(super) give_up: Instant,
}

/// What is left to do after the lock has been released.
#[derive(Debug, Default)]
pub(super) struct After {
    wakers: [Option<Waker>; 3],
    more: Vec<Waker>,
    // To be dropped: what that runs is not ours.
    old: Option<Waker>,
    /// By how many the line is longer or shorter.
    pub(super) longer: i32,
    /// So many levels were overloaded before, and so many are now.
    pub(super) overloaded: Option<(usize, usize)>,
    /// Whether another level is refused than before.
    pub(super) threshold_moved: bool,
}

impl After {
    fn wake_later(&mut self, waker: Option<Waker>) {
        let Some(waker) = waker else { return };
        match self.wakers.iter_mut().find(|free| free.is_none()) {
            Some(free) => *free = Some(waker),
            None => self.more.push(waker),
        }
    }

    /// Wakes everybody to whom something has happened.
    pub(super) fn wake(self) {
        for waker in self.wakers.into_iter().flatten().chain(self.more) {
            waker.wake();
        }
    }
}

/// The figures for a reader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    pub(super) waiting: [u32; LEVELS],
    pub(super) overloaded: usize,
    pub(super) refused_below: usize,
    pub(super) target: Duration,
}

impl Queue {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            word: AtomicU64::new(0),
            core: Mutex::new(Core {
                lines: Lines::new(),
                head: None,
                overload: Overload::none(),
                floor: 0,
                rules,
            }),
        }
    }

    /// Whether nobody waits and nothing is refused.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.word.load(Acquire) == 0
    }

    /// Whether nobody waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.word.load(Acquire) & u64::from(u32::MAX) == 0
    }

    /// Calls of a level below this one are refused.
    #[inline]
    pub(super) fn refused_below(&self) -> usize {
        (self.word.load(Acquire) >> REFUSED_BELOW) as usize
    }

    /// Whether a call of `level` is refused. It has to be asked about before it joins only to be spared the trouble.
    pub(super) fn refuses(&self, level: usize, now: Instant) -> (bool, After) {
        self.locked(now, |core, after| {
            core.arrive(now, after);
            level < core.refused_below()
        })
    }

    /// Joins the line. It is left with [`leave`](Self::leave), unless it is over before.
    pub(super) fn join(
        &self,
        level: usize,
        now: Instant,
        until: Option<Instant>,
        waker: &Waker,
    ) -> (Result<(Place, View), Refused>, After) {
        self.locked(now, |core, after| {
            core.arrive(now, after);
            core.join(level, now, until, waker, after)
        })
    }

    /// What the one at `place` sees, and who is to be woken there. `None` if it was sent away.
    pub(super) fn look(&self, place: Place, now: Instant, waker: &Waker) -> (Option<View>, After) {
        self.locked(now, |core, after| {
            // It need not be woken to see that it has become the head.
            after.old = core.lines.get_mut(place)?.waker.take();
            if core.head != Some(place) {
                core.depose(now, after);
            }
            let waiter = core.lines.get_mut(place)?;
            waiter.waker = match after.old.take_if(|known| known.will_wake(waker)) {
                None => Some(waker.clone()),
                known => known,
            };
            core.view(place)
        })
    }

    /// The time of the one at `place` has come, and it was not served. Tells until when it may go on all the same; `None` if it has
    /// left the line.
    pub(super) fn expire(&self, place: Place, now: Instant) -> (Option<Instant>, After) {
        self.locked(now, |core, after| core.expire(place, now, after))
    }

    /// Leaves the line, served or not. Does nothing for one who was sent away.
    pub(super) fn leave(&self, place: Place, now: Instant, served: bool) -> After {
        let ((), after) = self.locked(now, |core, after| {
            if served {
                core.overload.served(now, &core.rules);
            }
            after.old = core.remove(place, now, after);
        });
        after
    }

    /// Refuses everything below `level` from now on, whatever the load, and sends away those of them who wait.
    pub(super) fn refuse_below(&self, level: usize, now: Instant) -> After {
        let ((), after) = self.locked(now, |core, after| {
            core.floor = level;
            for below in 0..level {
                while let Some(place) = core.lines.oldest(below) {
                    core.send_away(place, now, after);
                }
            }
        });
        after
    }

    /// Changes the rules, if `change` agrees. Whether or not it does, time has passed, and that may have its effects.
    pub(super) fn change<E>(
        &self,
        now: Instant,
        change: impl FnOnce(Rules) -> Result<Rules, E>,
    ) -> (Result<(), E>, After) {
        self.locked(now, |core, _| change(core.rules).map(|rules| core.rules = rules))
    }

    /// What is so now: an overload may have begun since the last call came.
    pub(super) fn figures(&self, now: Instant) -> (Figures, After) {
        self.locked(now, |core, _| {
            core.update(now);
            Figures {
                waiting: std::array::from_fn(|level| core.lines.len_at(level)),
                overloaded: core.overload.levels(),
                refused_below: core.refused_below(),
                target: core.overload.target(&core.rules),
            }
        })
    }

    /// Does something under the lock, and notes what has changed by it.
    fn locked<T>(&self, now: Instant, act: impl FnOnce(&mut Core, &mut After) -> T) -> (T, After) {
        let mut after = After::default();
        let mut core = lock(&self.core);
        let (waiting, overloaded, threshold) =
            (core.lines.len(), core.overload.levels(), core.refused_below());
        let result = act(&mut core, &mut after);
        core.update(now);
        let (waits, overloads, refuses) = (core.lines.len(), core.overload.levels(), core.refused_below());
        self.word.store((refuses as u64) << REFUSED_BELOW | u64::from(waits), Release);
        drop(core);
        after.longer = waits.wrapping_sub(waiting).cast_signed();
        after.overloaded = (overloads != overloaded).then_some((overloaded, overloads));
        after.threshold_moved = refuses != threshold;
        (result, after)
    }
}

#[derive(Debug)]
struct Core {
    lines: Lines,
    head: Option<Place>,
    overload: Overload,
    // What an operator has said: all levels below are refused.
    floor: usize,
    rules: Rules,
}

impl Core {
    fn update(&mut self, now: Instant) {
        self.overload.update(&self.lines, now, &self.rules);
    }

    /// Below the highest level that is overloaded.
    fn refused_below(&self) -> usize {
        self.floor.max(self.overload.levels().saturating_sub(1))
    }

    fn newest_first(&self, level: usize) -> bool {
        self.rules.newest_first && self.overload.at(level)
    }

    /// Somebody has come. In an overload it sends away two of those who have been here too long: more than come, and yet
    /// never many at once; and none of a burst after which nobody comes.
    fn arrive(&mut self, now: Instant, after: &mut After) {
        self.depose(now, after);
        self.update(now);
        let mut left = 2;
        for level in 0..self.overload.levels() {
            let allowed =
                if level < self.refused_below() { Duration::ZERO } else { self.overload.target(&self.rules) };
            while left > 0
                && let Some(place) = self.oldest_but_head(level)
                && self.lines.get(place).is_some_and(|waiter| waiter.joined + allowed <= now)
            {
                self.send_away(place, now, after);
                left -= 1;
            }
        }
    }

    fn join(
        &mut self,
        level: usize,
        now: Instant,
        until: Option<Instant>,
        waker: &Waker,
        after: &mut After,
    ) -> Result<(Place, View), Refused> {
        let until = until.unwrap_or(now + Duration::MAX);
        if until <= now {
            return Err(Refused::TooLate);
        }
        if level < self.refused_below() {
            return Err(Refused::Shed);
        }
        let mut pushed_out = None;
        if self.lines.len() >= self.rules.max_waiting {
            pushed_out = self.least_important(level);
            if pushed_out.is_none() || self.rules.max_waiting == 0 {
                return Err(Refused::Shed);
            }
        }
        let allowed =
            if self.overload.at(level) { self.overload.target(&self.rules) } else { self.rules.max_wait };
        if self.lines.len() == 0 {
            self.overload.begun(now);
        }
        let latest = until.min(now + self.rules.max_wait);
        let give_up = latest.min(now + allowed);
        let place = self.lines.push(Waiter { level, joined: now, give_up, latest, waker: None });
        if let Some(pushed_out) = pushed_out {
            self.send_away(pushed_out, now, after);
        }
        self.choose(now, after);
        if let Some(waiter) = self.lines.get_mut(place) {
            waiter.waker = Some(waker.clone());
        }
        self.view(place).map(|view| (place, view)).ok_or(Refused::Shed)
    }

    /// Who makes room for a newcomer of `level`, if anybody does: the one who has waited longest of those who matter least. Where
    /// the newest go first, the oldest of the same level is never served.
    fn least_important(&self, level: usize) -> Option<Place> {
        (0..level)
            .find_map(|below| self.lines.oldest(below))
            .or_else(|| if self.newest_first(level) { self.oldest_but_head(level) } else { None })
    }

    fn oldest_but_head(&self, level: usize) -> Option<Place> {
        let oldest = self.lines.oldest(level)?;
        if self.head == Some(oldest) { self.lines.after(oldest) } else { Some(oldest) }
    }

    /// Sees to it that there is a head if anybody waits.
    fn choose(&mut self, now: Instant, after: &mut After) {
        while self.head.is_none() {
            let Some(level) = (0..LEVELS).rev().find(|level| self.lines.len_at(*level) > 0) else {
                return;
            };
            let next =
                if self.newest_first(level) { self.lines.newest(level) } else { self.lines.oldest(level) };
            let Some(place) = next else { return };
            if self.is_overdue(place, now) {
                if let Some(waiter) = self.lines.remove(place) {
                    after.wake_later(waiter.waker);
                }
                continue;
            }
            self.head = next;
            after.wake_later(self.lines.get_mut(place).and_then(|waiter| waiter.waker.take()));
        }
    }

    /// A head that nobody polls would hold up the others for ever.
    fn depose(&mut self, now: Instant, after: &mut After) {
        if let Some(head) = self.head
            && self.is_overdue(head, now)
        {
            self.send_away(head, now, after);
        }
    }

    /// Whether it has not even looked when its wait was over.
    fn is_overdue(&self, place: Place, now: Instant) -> bool {
        self.lines.get(place).is_none_or(|waiter| waiter.give_up + self.rules.target <= now)
    }

    fn send_away(&mut self, place: Place, now: Instant, after: &mut After) {
        let waker = self.remove(place, now, after);
        after.wake_later(waker);
    }

    fn remove(&mut self, place: Place, now: Instant, after: &mut After) -> Option<Waker> {
        let waiter = self.lines.remove(place)?;
        if self.head == Some(place) {
            self.head = None;
            self.update(now);
            self.choose(now, after);
        }
        waiter.waker
    }

    fn view(&self, place: Place) -> Option<View> {
        let waiter = self.lines.get(place)?;
        let head = self.head == Some(place);
        let look_at = match self.head.and_then(|head| self.lines.get(head)) {
            Some(other) if !head => waiter.give_up.min(other.give_up + self.rules.target),
            _ => waiter.give_up,
        };
        Some(View { head, look_at, give_up: waiter.give_up })
    }

    fn expire(&mut self, place: Place, now: Instant, after: &mut After) -> Option<Instant> {
        let alone = self.lines.len() == 1;
        let target = self.overload.target(&self.rules);
        let waiter = self.lines.get_mut(place)?;
        if alone {
            // Whoever is sent away now would leave a place to nobody.
            waiter.give_up = waiter.give_up.max(waiter.latest.min(now + target));
        }
        if waiter.give_up > now {
            return Some(waiter.give_up);
        }
        let waker = self.remove(place, now, after);
        after.old = waker;
        None
    }
}

#[cfg(all(test, not(palisade_loom)))]
mod tests;

#[cfg(all(test, palisade_loom))]
mod models;
