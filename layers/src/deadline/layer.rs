use std::time::Duration;

use tower::Layer;

use super::Deadline;
use crate::{ConfigError, Instant};

/// Gives each request a deadline and enforces it. See the [module](super) for more.
#[derive(Clone, Copy, Debug)]
pub struct DeadlineLayer<L = Duration> {
    limit: Option<L>,
    name: &'static str,
}

impl<L> DeadlineLayer<L> {
    /// Each request gets a deadline as long after its call as `limit` tells for it, unless it has an earlier one;
    /// a [`Duration`] is the same for all. A limit of zero refuses every request.
    pub const fn new(limit: L) -> Self {
        Self { limit: Some(limit), name: "deadline" }
    }

    /// Sets the label `layer` of its metrics, to tell several apart.
    pub const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }
}

impl DeadlineLayer {
    /// As [`new`](Self::new), for a limit that comes from configuration.
    ///
    /// # Errors
    ///
    /// If `limit` is zero.
    pub fn try_new(limit: Duration) -> Result<Self, ConfigError> {
        if limit.is_zero() {
            return Err(ConfigError::new(
                "limit",
                "must be above zero: every request would be refused; \
                 use `DeadlineLayer::from_request()` to set no limit here",
            ));
        }
        Ok(Self::new(limit))
    }

    /// Enforces the deadline that a request brings, and lets a request without one take its time.
    pub const fn from_request() -> Self {
        Self { limit: None, name: "deadline" }
    }
}

impl<S, L: Clone> Layer<S> for DeadlineLayer<L> {
    type Service = Deadline<S, L>;

    fn layer(&self, inner: S) -> Deadline<S, L> {
        // The first reading of the clock measures it, which should not happen in a call.
        let _ = Instant::now();
        Deadline::new(inner, self.limit.clone(), self.name)
    }
}
