//! Places with what a layer keeps about them: what one key has, or all requests together.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use crate::{
    Rejection, TimeoutScope,
    admission::{self, Pass},
    clock::Instant,
    handle::Handle,
    keyed::Keep,
    places::Places,
    sync::atomic::{AtomicU32, Ordering::Acquire},
    telemetry::{self, Counter, Gauge},
    timer::{Due, Timer},
};

/// The calls in flight and those who wait. Layers hold one, or one for each key; you will not need to name it.
pub struct Bulkhead {
    places: Places,
    refused: AtomicU64,
    shared: Arc<Shared>,
}

/// What all bulkheads of one layer share.
pub(super) struct Shared {
    pub(super) limit: Arc<AtomicU32>,
    pub(super) queue_timeout: Duration,
    pub(super) max_waiting: u32,
    pub(super) name: &'static str,
    refused: Counter,
    waited: Counter,
    waiting: Gauge,
}

impl Shared {
    pub(super) fn new(limit: u32, queue_timeout: Duration, max_waiting: u32, name: &'static str) -> Self {
        Self {
            limit: Arc::new(AtomicU32::new(limit)),
            queue_timeout,
            max_waiting,
            name,
            refused: Counter::new("palisade_concurrency_refused_total", name, &[]),
            waited: Counter::new("palisade_concurrency_waited_total", name, &[]),
            waiting: Gauge::new("palisade_concurrency_waiting", name),
        }
    }

    pub(super) fn set_limit(&self, limit: u32) {
        Places::set_limit(&self.limit, limit);
        tracing::debug!(layer = self.name, limit, "limit set");
    }
}

/// What becomes of a call.
pub(super) enum Asked {
    Admitted(Permit),
    Waiting(Turn),
    Refused(Rejection),
}

impl Keep for Bulkhead {}

impl Bulkhead {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            places: Places::new(Arc::clone(&shared.limit)),
            refused: AtomicU64::new(0),
            shared: Arc::clone(shared),
        }
    }

    #[inline]
    pub(super) fn ask(this: &Handle<Self>, until: impl FnOnce() -> Option<Instant>) -> Asked {
        if this.places.take().is_some() {
            return Asked::Admitted(Permit(Arc::clone(this)));
        }
        Self::ask_to_wait(this, until())
    }

    #[cold]
    fn ask_to_wait(this: &Handle<Self>, until: Option<Instant>) -> Asked {
        let Shared { max_waiting, queue_timeout, .. } = *this.shared;
        if queue_timeout.is_zero() || this.places.waiting() >= max_waiting {
            return Asked::Refused(this.refuse());
        }
        let now = Instant::now();
        let longest = now + queue_timeout;
        let give_up = until.map_or(longest, |until| longest.min(until));
        let allowed = give_up.saturating_duration_since(now);
        if allowed.is_zero() {
            return Asked::Refused(this.time_out(allowed));
        }
        Asked::Waiting(Turn { bulkhead: Arc::clone(this), give_up, allowed, place: None })
    }

    #[cold]
    fn refuse(&self) -> Rejection {
        self.refused.fetch_add(1, Relaxed);
        self.shared.refused.increment(1);
        tracing::debug!(layer = self.shared.name, "concurrency limited");
        Rejection::ConcurrencyLimited
    }

    #[cold]
    fn time_out(&self, allowed: Duration) -> Rejection {
        self.refused.fetch_add(1, Relaxed);
        telemetry::count_timeout(self.shared.name, TimeoutScope::Queue);
        Rejection::timed_out(TimeoutScope::Queue, allowed)
    }

    /// Lets go on who may, now that the limit was raised.
    pub(super) fn hand_out(&self) {
        self.places.hand_out();
    }

    pub(super) fn snapshot(&self) -> ConcurrencyLimitSnapshot {
        ConcurrencyLimitSnapshot {
            limit: self.shared.limit.load(Acquire),
            in_flight: self.places.in_flight(),
            waiting: self.places.waiting(),
            refused: self.refused.load(Relaxed),
        }
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead")
            .field("name", &self.shared.name)
            .field("now", &self.snapshot())
            .finish_non_exhaustive()
    }
}

/// What is in flight at a moment, and what became of the calls so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConcurrencyLimitSnapshot {
    /// The calls that may be in flight at once.
    pub limit: u32,
    /// The calls in flight. More than the limit for a while after it was lowered.
    pub in_flight: u32,
    /// Calls that wait for a place.
    pub waiting: u32,
    /// Calls that were refused, at once or after a wait that ran out.
    pub refused: u64,
}

/// A place for a call in flight. It goes to the front of the line when it is dropped.
pub(super) struct Permit(Handle<Bulkhead>);

impl Pass for Permit {}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        self.0.places.give_back();
    }
}

/// A call that waits for its turn.
pub(super) struct Turn {
    bulkhead: Handle<Bulkhead>,
    give_up: Instant,
    // From the call until then, for the error's text.
    allowed: Duration,
    // None before the first poll, and after the last.
    place: Option<u32>,
}

impl admission::Turn for Turn {
    type Pass = Permit;

    fn poll(&mut self, timer: &mut Timer, cx: &mut Context<'_>) -> Poll<Result<Permit, Rejection>> {
        let Self { bulkhead, give_up, .. } = self;
        let shared = &bulkhead.shared;
        let place = match self.place {
            Some(place) => place,
            None => match bulkhead.places.join(shared.max_waiting) {
                Ok(place) => {
                    shared.waited.increment(1);
                    shared.waiting.add(1.0);
                    *self.place.insert(place)
                }
                Err(_) => return Poll::Ready(Err(bulkhead.refuse())),
            },
        };
        if bulkhead.places.in_turn(place, cx.waker()).is_ready() {
            let permit = Permit(Arc::clone(bulkhead));
            self.place = None;
            shared.waiting.add(-1.0);
            return Poll::Ready(Ok(permit));
        }
        ready!(timer.poll(cx, || Due::at(*give_up)));
        self.leave();
        Poll::Ready(Err(self.bulkhead.time_out(self.allowed)))
    }
}

impl Turn {
    fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            self.bulkhead.places.leave(place);
            self.bulkhead.shared.waiting.add(-1.0);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.leave();
    }
}
