//! What the clones of a drain share: its core, and what it tells of itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
    time::Duration,
};

use crossbeam_utils::CachePadded;

use super::{
    Drain, DrainReport, DrainSnapshot, Phase,
    state::{Core, Moment},
};
use crate::{
    Rejection,
    clock::Instant,
    handle::{HANDLES, handle_of_thread},
    telemetry::{Counter, Gauge},
};

/// What the clones of a drain share.
pub(super) struct Shared {
    pub(super) core: Core,
    pub(super) timeout: Duration,
    grace: Duration,
    pub(super) name: &'static str,
    refused: AtomicU64,
    refusals: Counter,
    draining: Gauge,
}

impl Shared {
    pub(super) fn new(timeout: Duration, grace: Duration, name: &'static str) -> Self {
        Self {
            core: Core::new(),
            timeout,
            grace,
            name,
            refused: AtomicU64::new(0),
            refusals: Counter::new("palisade_drain_refused_total", name, &[]),
            draining: Gauge::new("palisade_drain_draining", name),
        }
    }

    pub(super) fn start(&self) {
        let now = Instant::now();
        if self.core.start(now, self.grace) {
            self.draining.set(1.0);
            tracing::info!(layer = self.name, in_flight = self.core.in_flight(), "draining");
        }
        // Also by those who come second: the first may still be at it. And not by the clock, which they may have read before it.
        if self.grace.is_zero() && !self.core.is_closed() {
            self.tell_the_end(self.core.close(now));
        }
    }

    /// Lets one in who was not let in at once.
    #[cold]
    pub(super) fn enter_late(&self, shard: usize) -> bool {
        if self.core.is_closed() {
            return false;
        }
        let now = Instant::now();
        self.close_if_due(now);
        self.core.enter_late(shard, now)
    }

    /// Closes the door if its time has come.
    pub(super) fn close_if_due(&self, now: Instant) {
        if self.core.is_due(now) && !self.core.is_closed() {
            self.tell_the_end(self.core.close(now));
        }
    }

    /// The last one has left a closed shard.
    #[cold]
    pub(super) fn settle(&self) {
        self.tell_the_end(self.core.settle(Instant::now()));
    }

    fn tell_the_end(&self, took: Option<Duration>) {
        if let Some(took) = took {
            tracing::info!(layer = self.name, ?took, "drained: nothing is in flight any more");
        }
    }

    #[cold]
    pub(super) fn refuse(&self) -> Rejection {
        self.refused.fetch_add(1, Relaxed);
        self.refusals.increment(1);
        tracing::debug!(layer = self.name, "refused: draining");
        Rejection::Draining
    }

    /// What has become of it by now.
    pub(super) fn report(&self) -> DrainReport {
        let (now, in_flight) = (Instant::now(), self.core.in_flight());
        if in_flight == 0 && self.core.took().is_none() {
            // The last one may have left, and not have said so yet.
            self.tell_the_end(self.core.settle(now));
        }
        match self.core.took() {
            Some(took) => DrainReport { finished: true, in_flight: 0, took },
            None => {
                DrainReport { finished: false, in_flight, took: self.draining_for(now).unwrap_or_default() }
            }
        }
    }

    fn draining_for(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.core.begun()?.at))
    }

    pub(super) fn snapshot(&self) -> DrainSnapshot {
        let now = Instant::now();
        self.close_if_due(now);
        // In this order, so that what is said to be finished has nothing in flight.
        let phase = match self.core.begun() {
            _ if self.core.took().is_some() => Phase::Finished,
            None => Phase::Open,
            Some(_) if self.core.is_closed() => Phase::Draining,
            Some(_) => Phase::Grace,
        };
        DrainSnapshot {
            phase,
            in_flight: self.core.in_flight(),
            refused: self.refused.load(Relaxed),
            draining_for: self.draining_for(now),
        }
    }
}

/// The ways in: one for each handle that threads have, all to the same drain.
pub(super) struct Doors {
    doors: [Door; HANDLES],
}

/// Held by what is in flight. The padding keeps the counts of those who hold it, which threads keep apart, from what is read.
pub(super) type Door = Arc<CachePadded<Way>>;

/// Where calls come in, and go out again: on whichever thread, a guard leaves the shard that it has entered.
pub(super) struct Way {
    pub(super) drain: Arc<Shared>,
    pub(super) shard: usize,
}

impl Doors {
    pub(super) fn new(drain: Shared) -> Self {
        let drain = Arc::new(drain);
        let door = |shard| Arc::new(CachePadded::new(Way { drain: Arc::clone(&drain), shard }));
        Self { doors: std::array::from_fn(door) }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.doors[0].drain
    }

    /// The door of this thread.
    #[inline]
    pub(super) fn here(&self) -> &Door {
        self.of(handle_of_thread())
    }

    #[inline]
    pub(super) fn of(&self, shard: usize) -> &Door {
        &self.doors[shard % HANDLES]
    }
}

/// Somebody who is woken when a drain gets on, as long as this is kept.
pub(super) struct Watcher {
    drain: Arc<Shared>,
    place: Option<u64>,
}

impl Watcher {
    pub(super) fn new(drain: &Drain) -> Self {
        Self { drain: Arc::clone(drain.0.shared()), place: None }
    }

    pub(super) fn drain(&self) -> &Arc<Shared> {
        &self.drain
    }

    /// Whether the moment has come. If not, `waker` is woken when the drain gets on.
    pub(super) fn watch(&mut self, waker: &Waker, moment: Moment) -> bool {
        self.drain.core.watch(&mut self.place, waker, moment)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.drain.core.forget(place);
        }
    }
}
