use std::time::Duration;

use tower::Layer;

use super::Timeout;
use crate::{ConfigError, Instant};

/// Limits how long one attempt may take. See the [module](super) for more.
#[derive(Clone, Copy, Debug)]
pub struct TimeoutLayer<L = Duration> {
    limit: L,
    name: &'static str,
}

impl<L> TimeoutLayer<L> {
    /// Each attempt gets the limit that `limit` tells for its request; a [`Duration`] is the same for all. A limit
    /// of zero refuses whatever is not answered at the first poll.
    pub const fn new(limit: L) -> Self {
        Self { limit, name: "timeout" }
    }

    /// Sets the label `layer` of its metrics, to tell several apart.
    pub const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }
}

impl TimeoutLayer {
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
}

impl<S, L: Clone> Layer<S> for TimeoutLayer<L> {
    type Service = Timeout<S, L>;

    fn layer(&self, inner: S) -> Timeout<S, L> {
        // The first reading of the clock measures it, which should not happen in a call.
        let _ = Instant::now();
        Timeout::new(inner, self.limit.clone(), self.name)
    }
}
