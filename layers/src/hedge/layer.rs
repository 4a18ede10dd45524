use std::{fmt, sync::Arc, time::Duration};

use tower::Layer;

use super::{
    Hedge, HedgeSnapshot,
    state::{Delay, Shared},
};
use crate::{Budget, ByError, ConfigError};

/// Sends a late request a second time. See the [module](super) for more.
///
/// Clones, and all services made by them, share what was measured, the limit and the metrics.
pub struct HedgeLayer<C = ByError> {
    shared: Arc<Shared>,
    classifier: C,
}

impl Default for HedgeLayer {
    fn default() -> Self {
        Self::builder().make()
    }
}

impl HedgeLayer {
    /// A layer with the default settings that takes from `budget` besides its own limit.
    pub fn within(budget: &Budget) -> Self {
        Self::builder().budget(budget.clone()).make()
    }

    /// A layer with other settings than the default ones.
    pub fn builder() -> HedgeBuilder {
        HedgeBuilder {
            percentile: 0.95,
            fixed_delay: None,
            min_delay: Duration::from_millis(1),
            max_delay: Duration::from_secs(2),
            max_extra_load: 0.05,
            budget: None,
            classifier: ByError,
            name: "hedge",
        }
    }
}

impl<C> HedgeLayer<C> {
    /// What an operator reads and switches.
    pub fn handle(&self) -> HedgeHandle {
        HedgeHandle(Arc::clone(&self.shared))
    }
}

impl<S: Clone, C: Clone> Layer<S> for HedgeLayer<C> {
    type Service = Hedge<S, C>;

    fn layer(&self, inner: S) -> Hedge<S, C> {
        Hedge::new(inner, Arc::clone(&self.shared), self.classifier.clone())
    }
}

impl<C: Clone> Clone for HedgeLayer<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), classifier: self.classifier.clone() }
    }
}

impl<C> fmt::Debug for HedgeLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeLayer").field("snapshot", &self.shared.snapshot()).finish_non_exhaustive()
    }
}

/// The handle of a [`HedgeLayer`]. Clones lead to the same layer.
#[derive(Clone)]
pub struct HedgeHandle(Arc<Shared>);

impl HedgeHandle {
    /// The figures at this moment.
    pub fn snapshot(&self) -> HedgeSnapshot {
        self.0.snapshot()
    }

    /// Switches second attempts off, or on again. It measures all the same.
    pub fn set_enabled(&self, enabled: bool) {
        self.0.set_enabled(enabled);
    }
}

impl fmt::Debug for HedgeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HedgeHandle").field(&self.snapshot()).finish()
    }
}

/// Builds a [`HedgeLayer`].
#[derive(Clone, Debug)]
pub struct HedgeBuilder<C = ByError> {
    percentile: f64,
    fixed_delay: Option<Duration>,
    min_delay: Duration,
    max_delay: Duration,
    max_extra_load: f64,
    budget: Option<Budget>,
    classifier: C,
    name: &'static str,
}

impl<C> HedgeBuilder<C> {
    /// The second attempt begins when this share of the calls would have been answered, from 0.5 to 0.999. Default 0.95.
    pub fn percentile(mut self, percentile: f64) -> Self {
        self.percentile = percentile;
        self
    }

    /// The second attempt always begins after `delay`, from 1 ms to a minute, and nothing is measured: `percentile`,
    /// `min_delay` and `max_delay` have no effect.
    pub fn fixed_delay(mut self, delay: Duration) -> Self {
        self.fixed_delay = Some(delay);
        self
    }

    /// No second attempt begins sooner than this, however fast calls are. At least 1 ms, which is the default.
    pub fn min_delay(mut self, delay: Duration) -> Self {
        self.min_delay = delay;
        self
    }

    /// While the percentile is above this there is no second attempt: all calls are slow then. At most a minute. Default 2 s.
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// Second attempts per call, above 0 and up to 1. Ten more can be saved up. Default 0.05.
    pub fn max_extra_load(mut self, ratio: f64) -> Self {
        self.max_extra_load = ratio;
        self
    }

    /// A budget to take a token from for each second attempt, besides the layer's own limit: the one of the
    /// [`RetryLayer`](crate::RetryLayer) around it, which pays in.
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// What tells the meaning of an outcome. Default [`ByError`].
    pub fn classifier<D>(self, classifier: D) -> HedgeBuilder<D> {
        HedgeBuilder {
            percentile: self.percentile,
            fixed_delay: self.fixed_delay,
            min_delay: self.min_delay,
            max_delay: self.max_delay,
            max_extra_load: self.max_extra_load,
            budget: self.budget,
            classifier,
            name: self.name,
        }
    }

    /// Sets the label `layer` of its metrics, to tell several apart. Default `hedge`.
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range, or not a number.
    pub fn build(self) -> Result<HedgeLayer<C>, ConfigError> {
        const SHORTEST: Duration = Duration::from_millis(1);
        const LONGEST: Duration = Duration::from_secs(60);
        if !(0.5..=0.999).contains(&self.percentile) {
            return Err(ConfigError::new(
                "percentile",
                format!(
                    "is {}, but must be a share from 0.5 to 0.999: 0.95 is the 95th percentile",
                    self.percentile
                ),
            ));
        }
        if self.fixed_delay.is_some_and(|delay| !(SHORTEST..=LONGEST).contains(&delay)) {
            return Err(ConfigError::new(
                "fixed_delay",
                "must be from 1 ms to a minute: sooner is a second attempt for each call; leave the layer out to never hedge",
            ));
        }
        if self.min_delay < SHORTEST {
            return Err(ConfigError::new("min_delay", "must be at least 1 ms: timers are no finer"));
        }
        if self.max_delay > LONGEST || self.max_delay < self.min_delay {
            return Err(ConfigError::new(
                "max_delay",
                format!(
                    "is {:?}, but must be from `min_delay`, {:?}, to a minute",
                    self.max_delay, self.min_delay
                ),
            ));
        }
        if !(self.max_extra_load > 0.0 && self.max_extra_load <= 1.0) {
            return Err(ConfigError::new(
                "max_extra_load",
                format!(
                    "is {}, but must be above 0 and up to 1 second attempt per call",
                    self.max_extra_load
                ),
            ));
        }
        Ok(self.make())
    }

    fn make(self) -> HedgeLayer<C> {
        let delay = match self.fixed_delay {
            Some(delay) => Delay::Fixed(delay),
            None => {
                Delay::Percentile { percentile: self.percentile, min: self.min_delay, max: self.max_delay }
            }
        };
        let limit =
            Budget::builder().ratio(self.max_extra_load).reserve_per_second(0.0).burst(10).named(self.name);
        let shared = Shared::new(delay, limit.unchecked(), self.budget, self.name);
        HedgeLayer { shared: Arc::new(shared), classifier: self.classifier }
    }
}
