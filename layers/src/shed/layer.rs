use std::{fmt, sync::Arc, time::Duration};

use tower::Layer;

use super::{Shed, ShedHandle, overload::Rules, turn::Shared};
use crate::{
    ConfigError,
    until::{ByDeadline, NoDeadline},
};

/// Lets calls wait by priority before a service that is not always ready, and refuses the least important first. See
/// the [module](super) for more.
///
/// Clones, and all services made by them, share the line.
#[derive(Clone)]
pub struct ShedLayer<D = NoDeadline> {
    shared: Arc<Shared>,
    until: D,
}

impl Default for ShedLayer {
    fn default() -> Self {
        Self::builder().make()
    }
}

impl ShedLayer {
    /// A layer with other settings than the default ones.
    pub const fn builder() -> ShedBuilder {
        ShedBuilder {
            rules: Rules {
                target: Duration::from_millis(10),
                interval: Duration::from_millis(100),
                max_wait: Duration::from_secs(1),
                max_waiting: 1_000,
                newest_first: true,
            },
            until: NoDeadline,
            name: "shed",
        }
    }
}

impl<D> ShedLayer<D> {
    /// Reads the deadline of its requests, which have to know theirs: see [`ShedBuilder::deadline_aware`].
    pub fn deadline_aware(self) -> ShedLayer<ByDeadline> {
        ShedLayer { shared: self.shared, until: ByDeadline }
    }

    /// Reads who waits and who was refused, and changes the limits while they are in use.
    pub fn handle(&self) -> ShedHandle {
        ShedHandle { shared: Arc::clone(&self.shared) }
    }
}

impl<S, D: Clone> Layer<S> for ShedLayer<D> {
    type Service = Shed<S, D>;

    fn layer(&self, inner: S) -> Shed<S, D> {
        Shed::new(inner, Arc::clone(&self.shared), self.until.clone())
    }
}

impl<D> fmt::Debug for ShedLayer<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShedLayer").field("shared", &self.shared).finish_non_exhaustive()
    }
}

/// Builds a [`ShedLayer`].
#[derive(Clone, Debug)]
pub struct ShedBuilder<D = NoDeadline> {
    rules: Rules,
    until: D,
    name: &'static str,
}

impl<D> ShedBuilder<D> {
    /// The most calls that wait at once, up to 1,000,000. Default 1,000. With 0 nobody waits: a call that finds the service not
    /// ready is refused at once.
    pub const fn max_waiting(mut self, calls: u32) -> Self {
        self.rules.max_waiting = calls;
        self
    }

    /// How long a call of an overloaded priority may wait, from 1 ms up to `interval` and `max_wait`. Default 10 ms. Where the service
    /// takes fewer than two waiting calls in that time, twice the mean time between them counts instead.
    pub const fn target(mut self, longest: Duration) -> Self {
        self.rules.target = longest;
        self
    }

    /// A priority is overloaded once somebody of it, or of a higher one, has been waiting for longer than the target at every moment of
    /// this time, up to an hour. Default 100 ms. It grows with the target where the service is slow, up to `max_wait`.
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.rules.interval = interval;
        self
    }

    /// The longest that any call waits, up to an hour. Default 1 s.
    pub const fn max_wait(mut self, longest: Duration) -> Self {
        self.rules.max_wait = longest;
        self
    }

    /// Whether the newest calls of an overloaded priority go first: those whose callers still wait for the answer. Default true. Below
    /// the overload it is always first come, first served.
    pub const fn newest_first(mut self, newest_first: bool) -> Self {
        self.rules.newest_first = newest_first;
        self
    }

    /// Reads the deadline of the requests, which then have to be [`HasDeadline`](crate::HasDeadline): a wait ends there at the
    /// latest. By default the layer reads their priority only.
    pub fn deadline_aware(self) -> ShedBuilder<ByDeadline> {
        ShedBuilder { rules: self.rules, until: ByDeadline, name: self.name }
    }

    /// Sets the label `layer` of its metrics and events, to tell several apart. Default `shed`.
    pub const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range, or contradicts another.
    pub fn build(self) -> Result<ShedLayer<D>, ConfigError> {
        check(&self.rules)?;
        Ok(self.make())
    }

    fn make(self) -> ShedLayer<D> {
        ShedLayer { shared: Arc::new(Shared::new(self.rules, self.name)), until: self.until }
    }
}

const MOST: u32 = 1_000_000;
const LONGEST: Duration = Duration::from_secs(3_600);
const SHORTEST: Duration = Duration::from_millis(1);

pub(super) fn check(rules: &Rules) -> Result<(), ConfigError> {
    let Rules { target, interval, max_wait, max_waiting, .. } = *rules;
    let error = |setting, problem| Err(ConfigError::new(setting, problem));
    if max_waiting > MOST {
        return error("max_waiting", format!("is {max_waiting}, but must be from 0 to 1,000,000 calls"));
    }
    if target < SHORTEST {
        return error("target", format!("is {target:?}, but must be at least 1 ms: timers are no finer"));
    }
    if interval > LONGEST {
        return error(
            "interval",
            format!("is {interval:?}, but must be an hour at most: that is no burst any more"),
        );
    }
    if max_wait > LONGEST {
        return error(
            "max_wait",
            format!("is {max_wait:?}, but must be an hour at most: nobody waits that long"),
        );
    }
    if interval < target {
        return error(
            "interval",
            format!("is {interval:?}, but must not be shorter than the target of {target:?}"),
        );
    }
    if max_wait < target {
        return error(
            "max_wait",
            format!("is {max_wait:?}, but must not be shorter than the target of {target:?}"),
        );
    }
    Ok(())
}
