use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use tower::Layer;

use super::{
    Retry,
    state::{Rules, Stop},
};
use crate::{Backoff, Budget, ByError, ConfigError, telemetry::Counter};

const DEFAULT_ATTEMPTS: NonZeroU32 = NonZeroU32::new(3).expect("a number above zero");

/// Sends requests again. See the [module](super) for more.
///
/// Clones, and all services made by them, share the budget and the metrics.
pub struct RetryLayer<C = ByError> {
    shared: Arc<Shared<C>>,
}

/// What all services of one layer share.
pub(super) struct Shared<C> {
    pub(super) rules: Rules,
    pub(super) budget: Budget,
    pub(super) classifier: C,
    pub(super) name: &'static str,
    pub(super) retries: Counter,
    stopped: [Counter; Stop::ALL.len()],
}

impl<C> Shared<C> {
    pub(super) fn count_stop(&self, stop: Stop) {
        self.stopped[stop as usize].increment(1);
    }
}

impl Default for RetryLayer {
    fn default() -> Self {
        Self::from_builder(Self::builder(), DEFAULT_ATTEMPTS)
    }
}

impl RetryLayer {
    /// A layer with the default settings that pays from `budget`.
    pub fn within(budget: &Budget) -> Self {
        let builder = Self::builder().budget(budget.clone());
        Self::from_builder(builder, DEFAULT_ATTEMPTS)
    }

    /// A layer with other settings than the default ones.
    pub fn builder() -> RetryBuilder {
        RetryBuilder {
            max_attempts: DEFAULT_ATTEMPTS.get(),
            backoff: Backoff::default(),
            max_retry_after: Duration::from_secs(5),
            budget: None,
            classifier: ByError,
            name: "retry",
        }
    }
}

impl<C> RetryLayer<C> {
    /// The budget that its repeats are paid from.
    pub fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    fn from_builder(builder: RetryBuilder<C>, max_attempts: NonZeroU32) -> Self {
        let name = builder.name;
        Self {
            shared: Arc::new(Shared {
                rules: Rules {
                    max_attempts,
                    backoff: builder.backoff,
                    max_retry_after: builder.max_retry_after,
                },
                budget: builder.budget.unwrap_or_default(),
                classifier: builder.classifier,
                name,
                retries: Counter::new("palisade_retries_total", name, &[]),
                stopped: Stop::ALL.map(|stop| {
                    Counter::new("palisade_retries_stopped_total", name, &[("reason", stop.as_str())])
                }),
            }),
        }
    }
}

impl<S: Clone, C> Layer<S> for RetryLayer<C> {
    type Service = Retry<S, C>;

    fn layer(&self, inner: S) -> Retry<S, C> {
        Retry::new(inner, Arc::clone(&self.shared))
    }
}

impl<C> Clone for RetryLayer<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<C> fmt::Debug for RetryLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl<C> fmt::Debug for Shared<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer")
            .field("name", &self.name)
            .field("rules", &self.rules)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

/// Builds a [`RetryLayer`].
#[derive(Clone, Debug)]
pub struct RetryBuilder<C = ByError> {
    max_attempts: u32,
    backoff: Backoff,
    max_retry_after: Duration,
    budget: Option<Budget>,
    classifier: C,
    name: &'static str,
}

impl<C> RetryBuilder<C> {
    /// The most attempts for one call, the first included. 1 means no retry. Default 3.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// How long to wait before a repeat. Default [`Backoff::default`].
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// How much longer than the backoff a repeat may wait because the failure asked for it. Default 5 s.
    pub fn max_retry_after(mut self, longest: Duration) -> Self {
        self.max_retry_after = longest;
        self
    }

    /// The budget to pay repeats from. By default each layer has one of its own.
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// What tells the meaning of an outcome. Default [`ByError`].
    pub fn classifier<D>(self, classifier: D) -> RetryBuilder<D> {
        RetryBuilder {
            max_attempts: self.max_attempts,
            backoff: self.backoff,
            max_retry_after: self.max_retry_after,
            budget: self.budget,
            classifier,
            name: self.name,
        }
    }

    /// Sets the label `layer` of its metrics, to tell several apart. Default `retry`.
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If `max_attempts` is zero.
    pub fn build(self) -> Result<RetryLayer<C>, ConfigError> {
        let Some(max_attempts) = NonZeroU32::new(self.max_attempts) else {
            return Err(ConfigError::new(
                "max_attempts",
                "must be at least 1, the first attempt: 1 means no retry",
            ));
        };
        Ok(RetryLayer::from_builder(self, max_attempts))
    }
}
