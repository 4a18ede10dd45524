//! The core: places, what is counted of the calls, and the controller that moves the limit. Synchronous, and told the time.
//!
//! A call takes a place, reads two clocks, and adds to one counter. Whoever ends a call when a window is over closes it, if nobody else
//! is at it: the arithmetic is behind a lock that nobody waits for.

use std::{
    sync::Arc,
    task::{Poll, Waker},
};

use crossbeam_utils::CachePadded;

use super::{
    controller::{Controller, Plan, Seen, Settings, Verdict},
    window::{Sums, Window},
};
use crate::{
    clock::{Instant, nanos},
    places::Places,
    sync::{
        Mutex,
        atomic::{
            AtomicU32, AtomicU64,
            Ordering::{Acquire, Relaxed},
        },
        lock,
    },
};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Its latency counts.
    Success,
    /// The service had too much to do, or did not answer.
    Dropped,
    /// The caller gave up. Counts like that if it had waited for long.
    GivenUp,
    /// Says nothing about the service.
    Neutral,
}

pub(super) struct Core {
    // Read by each call, and written once a window.
    dates: CachePadded<Dates>,
    // Written by each call.
    places: CachePadded<Places>,
    // Written when more are in flight than before in this window.
    most_in_flight: CachePadded<AtomicU32>,
    window: Window,
    limit: Arc<AtomicU32>,
    drops: AtomicU64,
    steering: Mutex<Steering>,
}

struct Dates {
    /// When to look whether the window is over, in nanoseconds of the clock.
    look_at: AtomicU64,
    /// Calls that began before do not count.
    count_from: AtomicU64,
    /// The age in nanoseconds from which on a call that its caller gives up counts.
    patience: AtomicU64,
}

struct Steering {
    controller: Controller,
    plan: Plan,
    ends_at: Instant,
}

/// A window was closed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Closed {
    pub(super) verdict: Verdict,
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) base: Option<f64>,
    pub(super) recent: Option<f64>,
}

/// Figures at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    pub(super) limit: u32,
    pub(super) in_flight: u32,
    pub(super) waiting: u32,
    pub(super) settings: Settings,
    pub(super) held: bool,
    pub(super) probing: bool,
    pub(super) base: Option<f64>,
    pub(super) recent: Option<f64>,
    pub(super) drops: u64,
}

impl Core {
    pub(super) fn new(settings: Settings, seed: u64, now: Instant) -> Self {
        let limit = Arc::new(AtomicU32::new(settings.initial));
        let controller = Controller::new(settings, seed, now);
        let plan = controller.plan();
        let core = Self {
            dates: CachePadded::new(Dates {
                look_at: AtomicU64::new(0),
                count_from: AtomicU64::new(0),
                patience: AtomicU64::new(0),
            }),
            places: CachePadded::new(Places::new(Arc::clone(&limit))),
            most_in_flight: CachePadded::new(AtomicU32::new(0)),
            window: Window::new(),
            limit,
            drops: AtomicU64::new(0),
            steering: Mutex::new(Steering { controller, plan, ends_at: now }),
        };
        core.begin(&mut lock(&core.steering), now);
        core
    }

    /// Takes a place if there is one, and nobody waits for it.
    #[inline]
    pub(super) fn take(&self) -> bool {
        let taken = self.places.take();
        if let Some(in_flight) = taken {
            self.note(in_flight);
        }
        taken.is_some()
    }

    /// Joins the line.
    pub(super) fn join(&self) -> u32 {
        // As many as there are services that wait: nobody else joins.
        self.places.join(u32::MAX).unwrap_or(u32::MAX)
    }

    /// Ready once a place has been given to who stands at `place` in the line, and has left it.
    pub(super) fn in_turn(&self, place: u32, waker: &Waker) -> Poll<()> {
        let polled = self.places.in_turn(place, waker);
        if polled.is_ready() {
            self.note(self.places.in_flight());
        }
        polled
    }

    pub(super) fn leave(&self, place: u32) {
        self.places.leave(place);
    }

    #[inline]
    pub(super) fn give_back(&self) {
        self.places.give_back();
    }

    #[inline]
    fn note(&self, in_flight: u32) {
        // Usually it is no more than before: a write would make every thread wait for the others.
        if in_flight > self.most_in_flight.load(Relaxed) {
            self.most_in_flight.fetch_max(in_flight, Relaxed);
        }
    }

    /// Counts a call that began at `started` and ends `now`.
    #[inline]
    pub(super) fn end(&self, started: Instant, outcome: Outcome, now: Instant) -> Option<Closed> {
        match outcome {
            Outcome::Success => {
                if started.as_nanos() >= self.dates.count_from.load(Relaxed) {
                    self.window.add_latency(now.saturating_duration_since(started));
                } else {
                    self.window.add_other();
                }
            }
            Outcome::Dropped => self.add_drop(),
            Outcome::GivenUp => {
                let age = now.saturating_duration_since(started).as_nanos();
                if age > u128::from(self.dates.patience.load(Relaxed)) {
                    self.add_drop();
                }
            }
            Outcome::Neutral => {}
        }
        if now.as_nanos() >= self.dates.look_at.load(Relaxed) { self.close(now) } else { None }
    }

    #[cold]
    fn add_drop(&self) {
        self.drops.fetch_add(1, Relaxed);
        self.window.add_drop();
    }

    /// Closes the window if it is over, and nobody else is at it.
    #[cold]
    fn close(&self, now: Instant) -> Option<Closed> {
        let Ok(mut steering) = self.steering.try_lock() else {
            return None;
        };
        if now.as_nanos() < self.dates.look_at.load(Relaxed) {
            return None;
        }
        let Steering { plan, ends_at, .. } = *steering;
        let enough = plan.enough.max(self.most_in_flight.load(Relaxed).saturating_mul(2));
        if plan.at_least < plan.at_most && now < ends_at && self.window.count() < enough {
            let next = (now + plan.at_least / 4).min(ends_at);
            self.dates.look_at.store(next.as_nanos(), Relaxed);
            return None;
        }
        let from = self.limit.load(Relaxed);
        let Sums { samples, latency, others, drops } = self.window.take();
        let most_in_flight = self.most_in_flight.swap(self.places.in_flight(), Relaxed);
        let verdict =
            steering.controller.close(Seen { samples, latency, others, drops, most_in_flight }, now);
        let to = self.begin(&mut steering, now);
        let (base, recent) = (steering.controller.base(), steering.controller.recent());
        drop(steering);
        if to > from {
            self.places.hand_out();
        }
        Some(Closed { verdict, from, to, base, recent })
    }

    /// Puts into force what the controller says.
    fn begin(&self, steering: &mut Steering, now: Instant) -> u32 {
        let plan = steering.controller.plan();
        steering.plan = plan;
        steering.ends_at = now + plan.at_most;
        if plan.anew {
            self.dates.count_from.store(now.as_nanos(), Relaxed);
        }
        self.dates.patience.store(nanos(steering.controller.patience()), Relaxed);
        self.dates.look_at.store((now + plan.at_least).as_nanos(), Relaxed);
        let limit = steering.controller.limit();
        Places::set_limit(&self.limit, limit);
        limit
    }

    /// Has an operator change something.
    pub(super) fn steer(&self, now: Instant, change: impl FnOnce(&mut Controller)) -> u32 {
        let mut steering = lock(&self.steering);
        change(&mut steering.controller);
        let limit = self.begin(&mut steering, now);
        drop(steering);
        self.places.hand_out();
        limit
    }

    pub(super) fn figures(&self) -> Figures {
        let steering = lock(&self.steering);
        let controller = &steering.controller;
        Figures {
            limit: self.limit.load(Acquire),
            in_flight: self.places.in_flight(),
            waiting: self.places.waiting(),
            settings: controller.settings(),
            held: controller.held().is_some(),
            probing: controller.is_probing(),
            base: controller.base(),
            recent: controller.recent(),
            drops: self.drops.load(Relaxed),
        }
    }
}
