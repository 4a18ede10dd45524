use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
    time::Duration,
};

use super::{
    DrainGuard, DrainLayer, Finish, Refusing, Started,
    state::{Core, Moment},
};
use crate::{
    ConfigError, Rejection,
    clock::Instant,
    handle::Handles,
    telemetry::{Counter, Gauge},
};

/// Ends a process in order: no new calls from a moment on, and the old ones finish. See the [module](super) for more.
///
/// Clones are the same drain.
#[derive(Clone)]
pub struct Drain(pub(super) Handles<Shared>);

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// A drain with the default settings, which has not begun.
    pub fn new() -> Self {
        Self::builder().make()
    }

    /// A drain with other settings than the default ones.
    pub const fn builder() -> DrainBuilder {
        DrainBuilder { timeout: Duration::from_secs(30), grace: Duration::ZERO, name: "drain" }
    }

    /// A layer whose calls are counted here, and refused once the drain has begun. Any number of stacks can have one.
    pub fn layer(&self) -> DrainLayer {
        DrainLayer::new(self.clone())
    }

    /// Begins the drain, from any thread and for good. If it has begun already, nothing changes. When this has returned, and
    /// there is no grace, no new call is let in.
    pub fn start(&self) {
        self.0.value().start();
    }

    /// Begins the drain when it is first polled, and ends when nothing is in flight any more, or the timeout has passed
    /// since the drain began. However many wait for it, and whenever they ask, they get the same answer; and to drop the future
    /// changes nothing. To wait takes a tokio runtime with time enabled.
    pub fn finish(&self) -> Finish {
        Finish::new(self, None)
    }

    /// [`finish`](Self::finish) with a timeout of its own, which counts from the first poll.
    pub fn finish_within(&self, timeout: Duration) -> Finish {
        Finish::new(self, Some(timeout))
    }

    /// Ends when the drain begins: for background loops, and for a server that is to stop accepting connections.
    pub fn started(&self) -> Started {
        Started::new(self)
    }

    /// Ends when new calls are refused: when the drain begins, or after the grace, where there is one.
    ///
    /// The grace is over when somebody looks: a call, this future, that of [`finish`](Self::finish), a [`snapshot`](Self::snapshot).
    pub fn refusing(&self) -> Refusing {
        Refusing::new(self)
    }

    /// For new work that is not a call of a layer: counts as a call until it is dropped. `None` where a call would be refused.
    pub fn guard(&self) -> Option<DrainGuard> {
        DrainGuard::enter(&self.0)
    }

    /// For work that belongs to something in flight, such as what a call leaves behind when it has answered: counts as a call until
    /// it is dropped, and is not refused while the drain waits. `None` only once it has come to its end, or would now: never inside of a
    /// call that was let in.
    pub fn hold(&self) -> Option<DrainGuard> {
        DrainGuard::enter_along(&self.0)
    }

    /// Whether the drain has begun: for a readiness probe, which should fail from then on.
    pub fn is_draining(&self) -> bool {
        self.0.value().core.begun().is_some()
    }

    /// How many calls and guards are in flight.
    pub fn in_flight(&self) -> u64 {
        self.0.value().core.in_flight()
    }

    /// All figures at this moment.
    pub fn snapshot(&self) -> DrainSnapshot {
        self.0.value().snapshot()
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain")
            .field("name", &self.0.value().name)
            .field("draining", &self.is_draining())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// How far a drain has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It has not begun.
    Open,
    /// It has begun, and lets new calls in for a while.
    Grace,
    /// New calls are refused, old ones finish.
    Draining,
    /// Nothing is in flight any more, and nothing ever will be.
    Finished,
}

impl Phase {
    /// The phase as text: `open`, `grace`, `draining` or `finished`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Grace => "grace",
            Self::Draining => "draining",
            Self::Finished => "finished",
        }
    }
}

/// The figures of a [`Drain`] at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainSnapshot {
    /// How far it has got.
    pub phase: Phase,
    /// Calls and guards in flight.
    pub in_flight: u64,
    /// Calls and guards that were refused.
    pub refused: u64,
    /// How long ago it began.
    pub draining_for: Option<Duration>,
}

/// What became of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Nothing is in flight any more, and nothing ever will be.
    pub finished: bool,
    /// Calls and guards that are in flight still. They go on: their tasks are the runtime's.
    pub in_flight: u64,
    /// The time from the beginning of the drain until its end, or until now.
    pub took: Duration,
}

/// Builds a [`Drain`].
#[derive(Clone, Debug)]
pub struct DrainBuilder {
    timeout: Duration,
    grace: Duration,
    name: &'static str,
}

impl DrainBuilder {
    /// The longest that [`Drain::finish`] waits, from the beginning of the drain, the grace included. Default 30 s, which is what
    /// Kubernetes gives a process unless told otherwise. With zero it reports at once; with [`Duration::MAX`] it waits however long it takes.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// For how long new calls are let in after the drain has begun, up to an hour and not longer than the timeout. Default zero.
    ///
    /// For who stands behind a load balancer that needs a few seconds to see that this process is not ready any more.
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets the label `layer` of its metrics and events, to tell several apart. Default `drain`.
    pub const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Makes the drain.
    ///
    /// # Errors
    ///
    /// If the grace is longer than the timeout, or than an hour.
    pub fn build(self) -> Result<Drain, ConfigError> {
        const LONGEST_GRACE: Duration = Duration::from_secs(3_600);
        let Self { timeout, grace, .. } = self;
        if grace > LONGEST_GRACE {
            return Err(ConfigError::new("grace", format!("is {grace:?}: let it be an hour at most")));
        }
        if grace > timeout {
            let problem = format!(
                "is {grace:?}, longer than the timeout of {timeout:?}: the timeout includes it and has to be longer"
            );
            return Err(ConfigError::new("grace", problem));
        }
        Ok(self.make())
    }

    fn make(self) -> Drain {
        let Self { timeout, grace, name } = self;
        Drain(Handles::new(Shared {
            core: Core::new(),
            timeout,
            grace,
            name,
            refused: AtomicU64::new(0),
            refusals: Counter::new("palisade_drain_refused_total", name, &[]),
            draining: Gauge::new("palisade_drain_draining", name),
        }))
    }
}

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

    fn snapshot(&self) -> DrainSnapshot {
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

/// Somebody who is woken when a drain gets on, as long as this is kept.
pub(super) struct Watcher {
    drain: Handles<Shared>,
    place: Option<u64>,
}

impl Watcher {
    pub(super) fn new(drain: &Handles<Shared>) -> Self {
        Self { drain: drain.clone(), place: None }
    }

    pub(super) fn drain(&self) -> &Arc<Shared> {
        self.drain.value()
    }

    /// Whether the moment has come. If not, `waker` is woken when the drain gets on.
    pub(super) fn watch(&mut self, waker: &Waker, moment: Moment) -> bool {
        self.drain.value().core.watch(&mut self.place, waker, moment)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.drain().core.forget(place);
        }
    }
}
