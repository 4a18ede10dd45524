use std::{fmt, sync::Arc, time::Duration};

use super::{
    DrainGuard, DrainLayer, DrainSnapshot, Finish, Refusing, Started,
    shared::{Doors, Shared},
};
use crate::ConfigError;

/// Ends a process in order: no new calls from a moment on, and the old ones finish. See the [module](super) for more.
///
/// Clones are the same drain.
#[derive(Clone)]
pub struct Drain(pub(super) Arc<Doors>);

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
        self.0.shared().start();
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
        self.0.shared().core.begun().is_some()
    }

    /// How many calls and guards are in flight.
    pub fn in_flight(&self) -> u64 {
        self.0.shared().core.in_flight()
    }

    /// All figures at this moment.
    pub fn snapshot(&self) -> DrainSnapshot {
        self.0.shared().snapshot()
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain")
            .field("name", &self.0.shared().name)
            .field("draining", &self.is_draining())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
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
        Drain(Arc::new(Doors::new(Shared::new(self.timeout, self.grace, self.name))))
    }
}
