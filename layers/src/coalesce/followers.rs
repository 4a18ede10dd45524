//! Those who wait for the answer of a flight, and who leads it.

use std::{
    sync::Arc,
    task::{Poll, Waker},
};

use crate::sync::{Mutex, lock};

/// The followers of a flight. `C` is its call, `A` is an answer.
///
/// There is none of this as long as nobody follows.
pub(super) struct Followers<C, A>(Mutex<State<C, A>>);

struct State<C, A> {
    slots: Vec<Slot<A>>,
    // The first of the free slots, which are linked.
    free: u32,
    // Those without an answer.
    waiting: u32,
    led: Led<C>,
    tasks: u64,
}

enum Slot<A> {
    Free { next: u32 },
    Waiting { waker: Option<Waker> },
    // It is to lead the flight from now on.
    Offered,
    Answered(A),
}

/// Who sees to it that the flight gets on.
enum Led<C> {
    ByCaller,
    // The call is away while the task polls it.
    ByTask { task: u64, call: Option<C>, waker: Option<Waker> },
    // Somebody is about to offer the lead, and nobody else touches it.
    ByNobody,
    // A follower has been told, and has not come yet.
    Offered,
}

/// What a follower has waited for.
pub(super) enum Given<A> {
    Answer(A),
    /// The flight has nobody who leads it: see [`Flights::lead`](super::state::Flights::lead).
    Lead,
}

/// What a follower leaves behind. It is to be dropped where no lock is held.
pub(super) struct Departed<C, A> {
    /// It was the last one, and a task leads the flight: this is the call, which nobody waits for.
    pub(super) call: Option<C>,
    /// Whether the lead, which it had been offered, is to be offered to another.
    pub(super) vacant: bool,
    /// To be woken: the task that has nothing to do any more.
    pub(super) task: Option<Waker>,
    _slot: Option<Slot<A>>,
}

/// There is nobody to lead.
#[derive(Debug)]
pub(super) struct NobodyWaits;

/// No slot.
const NONE: u32 = u32::MAX;

impl<C, A> Default for Followers<C, A> {
    fn default() -> Self {
        Self(Mutex::new(State { slots: Vec::new(), free: NONE, waiting: 0, led: Led::ByCaller, tasks: 0 }))
    }
}

impl<C, A> Followers<C, A> {
    /// Takes a slot for one more.
    pub(super) fn join(&self) -> u32 {
        let mut state = lock(&self.0);
        let state = &mut *state;
        state.waiting += 1;
        let taken = Slot::Waiting { waker: None };
        if let Some(slot) = state.slots.get_mut(state.free as usize)
            && let Slot::Free { next } = *slot
        {
            *slot = taken;
            return std::mem::replace(&mut state.free, next);
        }
        state.slots.push(taken);
        // As many as there are futures in memory.
        u32::try_from(state.slots.len() - 1).unwrap_or(NONE)
    }

    /// How many wait for an answer.
    pub(super) fn waiting(&self) -> usize {
        lock(&self.0).waiting as usize
    }

    /// Ready with the answer, which is taken, and the slot given up; or with the lead, if it is offered.
    pub(super) fn poll(&self, slot: u32, waker: &Waker) -> Poll<Given<A>> {
        let mut state = lock(&self.0);
        let old = match state.slots.get_mut(slot as usize) {
            Some(Slot::Waiting { waker: known }) => {
                let same = known.as_ref().is_some_and(|known| known.will_wake(waker));
                // An old waker is dropped after the lock is: what that runs is not ours.
                if same { None } else { known.replace(waker.clone()) }
            }
            Some(Slot::Offered) => return Poll::Ready(Given::Lead),
            Some(Slot::Answered(_)) => {
                return match state.give_up(slot) {
                    Some(Slot::Answered(answer)) => Poll::Ready(Given::Answer(answer)),
                    _ => Poll::Pending,
                };
            }
            Some(Slot::Free { .. }) | None => None,
        };
        drop(state);
        drop(old);
        Poll::Pending
    }

    /// A follower waits no more.
    pub(super) fn depart(&self, slot: u32) -> Departed<C, A> {
        let (mut call, mut task, mut vacant) = (None, None, false);
        let mut state = lock(&self.0);
        let left = state.give_up(slot);
        match left {
            Some(Slot::Offered) => {
                state.waiting -= 1;
                state.led = Led::ByNobody;
                vacant = true;
            }
            Some(Slot::Waiting { .. }) => {
                state.waiting -= 1;
                if state.waiting == 0
                    && let Led::ByTask { call: here @ Some(_), waker, .. } = &mut state.led
                {
                    (call, task) = (here.take(), waker.take());
                    state.led = Led::ByNobody;
                }
            }
            Some(Slot::Answered(_) | Slot::Free { .. }) | None => {}
        }
        drop(state);
        Departed { call, vacant, task, _slot: left }
    }

    /// A follower that was offered the lead takes it, and waits no more.
    pub(super) fn lead(&self, slot: u32) {
        let mut state = lock(&self.0);
        if let Some(Slot::Offered) = state.give_up(slot) {
            state.waiting -= 1;
            state.led = Led::ByCaller;
        }
    }

    /// Whoever led it is gone, and so is its call: it is offered to the next one, who is to be woken, unless it has not looked yet.
    pub(super) fn offer(&self) -> Result<Option<Waker>, NobodyWaits> {
        let mut state = lock(&self.0);
        let next = state.slots.iter_mut().find_map(|slot| match slot {
            Slot::Waiting { waker } => {
                let waker = waker.take();
                *slot = Slot::Offered;
                Some(waker)
            }
            _ => None,
        });
        state.led = if next.is_some() { Led::Offered } else { Led::ByNobody };
        next.ok_or(NobodyWaits)
    }

    /// The flight goes on in a task, whose number this is; or gives the call back, as nobody waits.
    pub(super) fn hand_over(&self, call: C) -> Result<u64, C> {
        let mut state = lock(&self.0);
        if state.waiting == 0 {
            return Err(call);
        }
        state.tasks += 1;
        let task = state.tasks;
        state.led = Led::ByTask { task, call: Some(call), waker: None };
        Ok(task)
    }

    /// Lends the call to its task, to poll it. `None` if it is not the task's any more.
    pub(super) fn lend(&self, task: u64, waker: Option<Waker>) -> Option<C> {
        let mut state = lock(&self.0);
        let Led::ByTask { task: leads, call, waker: known } = &mut state.led else { return None };
        if *leads != task {
            return None;
        }
        let call = call.take()?;
        let old = std::mem::replace(known, waker);
        drop(state);
        drop(old);
        Some(call)
    }

    /// Takes the call back, after a poll; or refuses it, as nobody waits any more, and leaves it to the task to offer the lead.
    pub(super) fn put_back(&self, back: C) -> Result<(), C> {
        let mut state = lock(&self.0);
        let state = &mut *state;
        match &mut state.led {
            Led::ByTask { call, .. } if state.waiting > 0 => {
                *call = Some(back);
                Ok(())
            }
            led => {
                *led = Led::ByNobody;
                Err(back)
            }
        }
    }

    /// Gives an answer to each who waits, and wakes it. Nobody joins any more.
    pub(super) fn answer(&self, answers: Vec<A>) {
        let mut wakers = Vec::with_capacity(answers.len());
        let mut answers = answers.into_iter();
        let mut state = lock(&self.0);
        for slot in &mut state.slots {
            if let Slot::Waiting { waker } = slot
                && let Some(answer) = answers.next()
            {
                wakers.extend(waker.take());
                *slot = Slot::Answered(answer);
            }
        }
        state.waiting = 0;
        drop(state);
        for waker in wakers {
            waker.wake();
        }
    }
}

impl<C, A> State<C, A> {
    fn give_up(&mut self, slot: u32) -> Option<Slot<A>> {
        let left = std::mem::replace(self.slots.get_mut(slot as usize)?, Slot::Free { next: self.free });
        self.free = slot;
        Some(left)
    }
}

/// A follower of a flight: its slot among the others.
pub(super) struct Seat<C, A> {
    pub(super) followers: Arc<Followers<C, A>>,
    pub(super) slot: u32,
}
