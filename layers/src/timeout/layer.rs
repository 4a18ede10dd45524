use std::time::Duration;

use tower::Layer;

use super::Timeout;
use crate::ConfigError;

/// Limits how long one attempt may take. See the [module](super) for more.
#[derive(Clone, Copy, Debug)]
pub struct TimeoutLayer {
    pub(super) limit: Duration,
    pub(super) name: &'static str,
}

impl TimeoutLayer {
    /// Every call gets `limit`. A limit of zero refuses whatever is not answered at the first poll.
    pub const fn new(limit: Duration) -> Self {
        Self { limit, name: "timeout" }
    }

    /// As [`new`](Self::new), for a limit that comes from configuration.
    ///
    /// # Errors
    ///
    /// If `limit` is zero.
    pub fn try_new(limit: Duration) -> Result<Self, ConfigError> {
        if limit.is_zero() {
            return Err(ConfigError::new(
                "limit",
                "must be above zero: no answer could come in time; leave the layer out to wait for ever",
            ));
        }
        Ok(Self::new(limit))
    }

    /// Sets the label `layer` of its metrics, to tell several apart.
    pub const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout::new(inner, *self)
    }
}
