//! A call that waits for its turn, and what a layer keeps about all of them.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
};

use super::{
    line::{LEVELS, Place},
    overload::Rules,
    state::{After, Queue, Refused, View},
};
use crate::{
    Priority, Rejection, TimeoutScope,
    clock::Instant,
    telemetry::{self, Counter, Gauge},
};

/// The priorities by their levels.
pub(super) const PRIORITIES: [Priority; LEVELS] =
    [Priority::Background, Priority::Low, Priority::Normal, Priority::Critical];

/// What all services of a layer share.
pub(super) struct Shared {
    pub(super) queue: Queue,
    pub(super) name: &'static str,
    pub(super) shed: [AtomicU64; LEVELS],
    pub(super) timed_out: AtomicU64,
    pub(super) waited: AtomicU64,
    sheds: [Counter; LEVELS],
    waits: Counter,
    waiting: Gauge,
    threshold: Gauge,
}

impl Shared {
    pub(super) fn new(rules: Rules, name: &'static str) -> Self {
        Self {
            queue: Queue::new(rules),
            name,
            shed: Default::default(),
            timed_out: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            sheds: PRIORITIES.map(|priority| {
                Counter::new("palisade_shed_total", name, &[("priority", priority.as_str())])
            }),
            waits: Counter::new("palisade_shed_waited_total", name, &[]),
            waiting: Gauge::new("palisade_shed_waiting", name),
            threshold: Gauge::new("palisade_shed_threshold", name),
        }
    }

    /// The refusal of a call that is not even to wait, where that is so.
    pub(super) fn refuses(&self, priority: Priority) -> Option<Rejection> {
        if priority as usize >= self.queue.refused_below() {
            return None;
        }
        // The level may be refused no more by the time that is now.
        let (refused, after) = self.queue.refuses(priority as usize, Instant::now());
        self.settle(after);
        refused.then(|| self.refuse(priority))
    }

    #[cold]
    pub(super) fn refuse(&self, priority: Priority) -> Rejection {
        self.shed[priority as usize].fetch_add(1, Relaxed);
        self.sheds[priority as usize].increment(1);
        tracing::debug!(layer = self.name, priority = priority.as_str(), "shed");
        Rejection::shed(priority)
    }

    #[cold]
    fn time_out(&self, began: Instant, until: Instant) -> Rejection {
        self.timed_out.fetch_add(1, Relaxed);
        telemetry::count_timeout(self.name, TimeoutScope::Queue);
        Rejection::timed_out(TimeoutScope::Queue, until.saturating_duration_since(began))
    }

    /// Does what could not be done under the lock. Those who are to go on come first.
    pub(super) fn settle(&self, after: After) {
        let After { longer, threshold_moved, overloaded, .. } = after;
        after.wake();
        if longer != 0 {
            self.waiting.add(f64::from(longer));
        }
        if threshold_moved {
            self.tell_threshold();
        }
        if let Some((before, now)) = overloaded {
            self.tell_overload(before, now);
        }
    }

    /// Two may tell at once, the later one first. So whoever has told looks again.
    #[cold]
    fn tell_threshold(&self) {
        loop {
            let threshold = self.queue.refused_below();
            self.threshold.set(f64::from(u8::try_from(threshold).unwrap_or(u8::MAX)));
            if self.queue.refused_below() == threshold {
                return;
            }
        }
    }

    #[cold]
    fn tell_overload(&self, before: usize, now: usize) {
        let layer = self.name;
        for priority in PRIORITIES.iter().take(now).skip(before) {
            tracing::debug!(layer, priority = priority.as_str(), "overloaded");
        }
        for priority in PRIORITIES.iter().take(before).skip(now) {
            tracing::debug!(layer, priority = priority.as_str(), "no longer overloaded");
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A call that waits.
pub(super) struct Turn {
    shared: Arc<Shared>,
    priority: Priority,
    until: Option<Instant>,
    place: Option<(Place, Instant)>,
}

impl Turn {
    pub(super) const fn new(shared: Arc<Shared>, priority: Priority, until: Option<Instant>) -> Self {
        Self { shared, priority, until, place: None }
    }

    /// What it sees in line, which it joins at the first look.
    pub(super) fn look(&mut self, now: Instant, waker: &Waker) -> Result<View, Rejection> {
        let Some((place, _)) = self.place else {
            return self.join(now, waker);
        };
        let (view, after) = self.shared.queue.look(place, now, waker);
        self.shared.settle(after);
        view.ok_or_else(|| self.over(now))
    }

    fn join(&mut self, now: Instant, waker: &Waker) -> Result<View, Rejection> {
        let (joined, after) = self.shared.queue.join(self.priority as usize, now, self.until, waker);
        // First, so that the place is given up if what is told or woken panics.
        self.place = joined.as_ref().ok().map(|(place, _)| (*place, now));
        self.shared.settle(after);
        match joined {
            Ok((_, view)) => {
                self.shared.waits.increment(1);
                Ok(view)
            }
            Err(Refused::Shed) => Err(self.shared.refuse(self.priority)),
            Err(Refused::TooLate) => Err(self.shared.time_out(now, now)),
        }
    }

    /// Its time has come. It may go on for a while, or is refused.
    pub(super) fn expire(&mut self, now: Instant) -> Result<(), Rejection> {
        let Some((place, _)) = self.place else { return Ok(()) };
        let (goes_on, after) = self.shared.queue.expire(place, now);
        self.shared.settle(after);
        if goes_on.is_some() { Ok(()) } else { Err(self.over(now)) }
    }

    /// The service has taken the call.
    pub(super) fn served(&mut self) {
        self.shared.waited.fetch_add(1, Relaxed);
        self.leave(true);
    }

    /// It is in line no more.
    fn over(&mut self, now: Instant) -> Rejection {
        match (self.place.take(), self.until) {
            (Some((_, began)), Some(until)) if until <= now => self.shared.time_out(began, until),
            _ => self.shared.refuse(self.priority),
        }
    }

    fn leave(&mut self, served: bool) {
        if let Some((place, _)) = self.place.take() {
            let after = self.shared.queue.leave(place, Instant::now(), served);
            self.shared.settle(after);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.leave(false);
    }
}
