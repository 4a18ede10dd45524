use std::fmt;

use tower::Layer;

use super::{
    AdaptiveConcurrency,
    controller::Settings,
    limiter::{AdaptiveConcurrencySnapshot, Limiter},
};
use crate::{ByError, ConfigError, clock::Instant, handle::Handles};

/// Finds by itself how many calls may be in flight. See the [module](super) for more.
///
/// Clones, and all services made by them, share the limit.
pub struct AdaptiveConcurrencyLayer<C = ByError> {
    limiter: Handles<Limiter>,
    classifier: C,
}

impl Default for AdaptiveConcurrencyLayer {
    fn default() -> Self {
        Self::builder().make()
    }
}

impl AdaptiveConcurrencyLayer {
    /// A layer with other settings than the default ones.
    pub const fn builder() -> AdaptiveConcurrencyBuilder {
        AdaptiveConcurrencyBuilder {
            settings: Settings { initial: 20, min: 1, max: 1_000, tolerance: 1.5 },
            classifier: ByError,
            name: "adaptive_concurrency",
        }
    }
}

impl<C> AdaptiveConcurrencyLayer<C> {
    /// Reads the limit and what it rests on, and steers it while it is in use.
    pub fn handle(&self) -> AdaptiveConcurrencyHandle {
        AdaptiveConcurrencyHandle { limiter: self.limiter.clone() }
    }
}

impl<S, C: Clone> Layer<S> for AdaptiveConcurrencyLayer<C> {
    type Service = AdaptiveConcurrency<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        AdaptiveConcurrency::new(inner, self.limiter.clone(), self.classifier.clone())
    }
}

impl<C: Clone> Clone for AdaptiveConcurrencyLayer<C> {
    fn clone(&self) -> Self {
        Self { limiter: self.limiter.clone(), classifier: self.classifier.clone() }
    }
}

impl<C> fmt::Debug for AdaptiveConcurrencyLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveConcurrencyLayer")
            .field("limiter", self.limiter.value())
            .finish_non_exhaustive()
    }
}

/// Reads an adaptive limit and steers it while it is in use. Clones are handles to the same one.
#[derive(Clone)]
pub struct AdaptiveConcurrencyHandle {
    limiter: Handles<Limiter>,
}

impl AdaptiveConcurrencyHandle {
    /// The limit now, what it rests on, and what is in flight.
    pub fn snapshot(&self) -> AdaptiveConcurrencySnapshot {
        self.limiter.value().snapshot()
    }

    /// Sets the bounds of the limit, from 1 to 1,000,000. A limit outside of them moves to the nearer one at once.
    ///
    /// # Errors
    ///
    /// If they are out of their range or the wrong way round; nothing changes then.
    pub fn set_limits(&self, min: u32, max: u32) -> Result<(), ConfigError> {
        check_bounds(min, max)?;
        self.limiter.value().steer(|controller| controller.set_bounds(min, max));
        Ok(())
    }

    /// Keeps the limit at `limit`, from 1 to 1,000,000 and whatever the bounds are, until it is [released](Self::release). What calls
    /// tell is measured on, and changes nothing meanwhile.
    ///
    /// # Errors
    ///
    /// If the limit is out of its range; nothing changes then.
    pub fn hold(&self, limit: u32) -> Result<(), ConfigError> {
        check_bounds(limit, limit).map_err(|_| {
            ConfigError::new("limit", format!("is {limit}, but must be from 1 to 1,000,000 calls"))
        })?;
        self.limiter.value().steer(|controller| controller.hold(Some(limit)));
        Ok(())
    }

    /// Lets the limit move again, from where it was held and within its bounds.
    pub fn release(&self) {
        self.limiter.value().steer(|controller| controller.hold(None));
    }
}

impl fmt::Debug for AdaptiveConcurrencyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AdaptiveConcurrencyHandle").field(self.limiter.value()).finish()
    }
}

/// Builds an [`AdaptiveConcurrencyLayer`].
#[derive(Clone, Debug)]
pub struct AdaptiveConcurrencyBuilder<C = ByError> {
    settings: Settings,
    classifier: C,
    name: &'static str,
}

impl<C> AdaptiveConcurrencyBuilder<C> {
    /// The limit to begin with, between the bounds. Default 20. Rather too low than too high: it grows by a third ten times a second.
    pub const fn initial(mut self, calls: u32) -> Self {
        self.settings.initial = calls;
        self
    }

    /// The limit goes no lower, from 1 to 1,000,000. Default 1.
    pub const fn min(mut self, calls: u32) -> Self {
        self.settings.min = calls;
        self
    }

    /// The limit goes no higher, from 1 to 1,000,000. Default 1,000.
    pub const fn max(mut self, calls: u32) -> Self {
        self.settings.max = calls;
        self
    }

    /// How many times the latency of an idle service is fine, from 1 to 10. Default 1.5. Up to 2, half the limit leaves the service without a
    /// queue, which is when its latency can be measured; above, it takes a few steps.
    pub const fn tolerance(mut self, times: f64) -> Self {
        self.settings.tolerance = times;
        self
    }

    /// What tells the meaning of an outcome. Default [`ByError`].
    pub fn classifier<D>(self, classifier: D) -> AdaptiveConcurrencyBuilder<D> {
        AdaptiveConcurrencyBuilder { settings: self.settings, classifier, name: self.name }
    }

    /// Sets the label `layer` of its metrics and events, to tell several apart. Default `adaptive_concurrency`.
    pub const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range, or the initial limit is outside of the bounds.
    pub fn build(self) -> Result<AdaptiveConcurrencyLayer<C>, ConfigError> {
        let Settings { initial, min, max, tolerance } = self.settings;
        check_bounds(min, max)?;
        if !(min..=max).contains(&initial) {
            return Err(ConfigError::new(
                "initial",
                format!("is {initial}, but must be from `min` to `max`, which are {min} and {max}"),
            ));
        }
        if !(1.0..=10.0).contains(&tolerance) {
            return Err(ConfigError::new(
                "tolerance",
                format!("is {tolerance}, but must be from 1 to 10 times the latency of an idle service"),
            ));
        }
        Ok(self.make())
    }

    fn make(self) -> AdaptiveConcurrencyLayer<C> {
        let limiter = Limiter::new(self.settings, self.name, fastrand::u64(..), Instant::now());
        AdaptiveConcurrencyLayer { limiter: Handles::new(limiter), classifier: self.classifier }
    }
}

const MOST: u32 = 1_000_000;

fn check_bounds(min: u32, max: u32) -> Result<(), ConfigError> {
    for (setting, limit) in [("min", min), ("max", max)] {
        if !(1..=MOST).contains(&limit) {
            return Err(ConfigError::new(
                setting,
                format!(
                    "is {limit}, but must be from 1 to 1,000,000 calls: with none, nothing could be learned"
                ),
            ));
        }
    }
    if min > max {
        return Err(ConfigError::new(
            "min",
            format!("is {min}, but must not be above `max`, which is {max}"),
        ));
    }
    Ok(())
}
