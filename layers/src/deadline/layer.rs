use std::time::Duration;

use tower::Layer;

use super::Deadline;
use crate::ConfigError;

/// Gives each request a deadline and enforces it. See the [module](super) for more.
#[derive(Clone, Copy, Debug)]
pub struct DeadlineLayer {
    pub(super) limit: Option<Duration>,
    pub(super) name: &'static str,
}

impl DeadlineLayer {
    /// Every request gets a deadline `limit` after it is called, unless it has an earlier one. A limit of zero
    /// refuses every request.
    pub const fn new(limit: Duration) -> Self {
        Self { limit: Some(limit), name: "deadline" }
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

    /// Sets the label `layer` of its metrics, to tell several apart.
    pub const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline::new(inner, *self)
    }
}
