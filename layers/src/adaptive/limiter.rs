//! The core with those who are told what becomes of it.

use std::{
    fmt,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use super::{
    controller::{Cause, Controller, Settings, seconds},
    state::{Closed, Core, Figures, Outcome},
};
use crate::{
    clock::Instant,
    handle::Handle,
    superseded::is_superseded,
    telemetry::{Counter, Gauge},
};

/// What the services of a layer share.
pub(super) struct Limiter {
    core: Core,
    name: &'static str,
    limit: Gauge,
    base: Gauge,
    recent: Gauge,
    decreases: [Counter; 2],
    probes: Counter,
}

impl Limiter {
    pub(super) fn new(settings: Settings, name: &'static str, seed: u64, now: Instant) -> Self {
        let decreases =
            |reason| Counter::new("palisade_adaptive_decreases_total", name, &[("reason", reason)]);
        Self {
            core: Core::new(settings, seed, now),
            name,
            limit: Gauge::new("palisade_adaptive_limit", name),
            base: Gauge::new("palisade_adaptive_base_latency_seconds", name),
            recent: Gauge::new("palisade_adaptive_recent_latency_seconds", name),
            decreases: [decreases("latency"), decreases("drops")],
            probes: Counter::new("palisade_adaptive_probes_total", name, &[]),
        }
    }

    /// Tells everybody, outside the lock.
    #[cold]
    fn report(&self, closed: Closed) {
        let Closed { verdict, from, to, base, recent } = closed;
        self.limit.set(f64::from(to));
        if let (Some(base), Some(recent)) = (base, recent) {
            self.base.set(base);
            self.recent.set(recent);
        }
        if let Some(cause) = verdict.decreased {
            self.decreases[cause as usize].increment(1);
        }
        if verdict.probe {
            self.probes.increment(1);
        }
        if from != to {
            let reason = match (verdict.probe, verdict.decreased) {
                (true, _) => "probe",
                (_, Some(Cause::Latency)) => "latency",
                (_, Some(Cause::Drops)) => "drops",
                _ => "none",
            };
            tracing::debug!(layer = self.name, from, to, reason, ?base, ?recent, "concurrency limit moved");
        }
    }

    /// Has an operator change something.
    pub(super) fn steer(&self, change: impl FnOnce(&mut Controller)) {
        let limit = self.core.steer(Instant::now(), change);
        self.limit.set(f64::from(limit));
        tracing::debug!(layer = self.name, limit, "concurrency limit steered");
    }

    pub(super) fn snapshot(&self) -> AdaptiveConcurrencySnapshot {
        let Figures { limit, in_flight, waiting, settings, held, probing, base, recent, drops } =
            self.core.figures();
        AdaptiveConcurrencySnapshot {
            limit,
            min: settings.min,
            max: settings.max,
            in_flight,
            waiting,
            base_latency: base.map(seconds),
            recent_latency: recent.map(seconds),
            drops,
            held,
            probing,
        }
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("name", &self.name)
            .field("now", &self.snapshot())
            .finish_non_exhaustive()
    }
}

/// An adaptive limit at a moment, and what it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdaptiveConcurrencySnapshot {
    /// The calls that may be in flight at once.
    pub limit: u32,
    /// The limit goes no lower.
    pub min: u32,
    /// The limit goes no higher.
    pub max: u32,
    /// The places that are taken: by calls in flight, and by services that were polled ready. More than the limit for a while after it
    /// went down.
    pub in_flight: u32,
    /// Services that wait to become ready.
    pub waiting: u32,
    /// The latency of the service where calls of this layer do not queue in it. `None` before the first window was closed.
    pub base_latency: Option<Duration>,
    /// The latency in the last windows.
    pub recent_latency: Option<Duration>,
    /// Calls that the service dropped, or that their callers gave up after a long wait.
    pub drops: u64,
    /// Whether an operator keeps the limit where it is.
    pub held: bool,
    /// Whether the limit is down to measure the base latency.
    pub probing: bool,
}

/// A place for a call. It goes to the front of the line when it is dropped.
pub(super) struct Permit(Handle<Limiter>);

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        self.0.core.give_back();
    }
}

/// Who stands in line for a place, and leaves it when dropped.
pub(super) struct Turn {
    limiter: Handle<Limiter>,
    place: Option<u32>,
}

impl Permit {
    /// Takes a place if there is one, and nobody waits for it.
    #[inline]
    pub(super) fn take(limiter: &Handle<Limiter>) -> Option<Self> {
        limiter.core.take().then(|| Self(Arc::clone(limiter)))
    }

    /// The service is being called.
    #[inline]
    pub(super) fn begin(self) -> Call {
        Call { permit: Some(self), started: Instant::now() }
    }
}

impl Turn {
    #[cold]
    pub(super) fn join(limiter: &Handle<Limiter>) -> Self {
        Self { limiter: Arc::clone(limiter), place: Some(limiter.core.join()) }
    }

    pub(super) fn poll(&mut self, waker: &Waker) -> Poll<Permit> {
        match self.place {
            Some(place) if self.limiter.core.in_turn(place, waker).is_ready() => {
                self.place = None;
                Poll::Ready(Permit(Arc::clone(&self.limiter)))
            }
            _ => Poll::Pending,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.limiter.core.leave(place);
        }
    }
}

/// A call in flight. Dropped before its outcome is known, its caller has given it up.
pub(super) struct Call {
    permit: Option<Permit>,
    started: Instant,
}

impl Call {
    #[inline]
    pub(super) fn end(&mut self, outcome: Outcome) {
        if let Some(permit) = self.permit.take() {
            let limiter = &permit.0;
            if let Some(closed) = limiter.core.end(self.started, outcome, Instant::now()) {
                limiter.report(closed);
            }
        }
    }
}

impl Drop for Call {
    #[inline]
    fn drop(&mut self) {
        if self.permit.is_some() {
            self.end(if is_superseded() { Outcome::Neutral } else { Outcome::GivenUp });
        }
    }
}
