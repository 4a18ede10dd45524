//! Time limits by kind of operation.

use std::time::Duration;

use palisade::{ConfigError, Limit};

use crate::request::{Kind, Request};

/// Time limits by kind of operation, for [`DeadlineLayer`](palisade::DeadlineLayer) and
/// [`TimeoutLayer`](palisade::TimeoutLayer).
///
/// What suits a read would never let a schema change end. So a limit for reads and writes leaves more to what
/// takes longer:
///
/// | kind | [`total`](Self::total) | [`attempt`](Self::attempt) |
/// | --- | --- | --- |
/// | read, write, batch, transaction, other | the limit | the limit |
/// | prepare | the limit | at least 1 s |
/// | schema, truncate | at least 60 s | at least 60 s |
/// | any, with a [timeout](crate::Statement::timeout) of its own | that | as above |
///
/// ```
/// use std::time::Duration;
/// use tower_cassandra::{Timeouts, layers::{DeadlineLayer, TimeoutLayer}};
///
/// let deadline = DeadlineLayer::new(Timeouts::total(Duration::from_secs(2)));
/// let timeout = TimeoutLayer::new(Timeouts::attempt(Duration::from_millis(300)));
/// # let _ = (deadline, timeout);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    usual: Duration,
    prepare: Duration,
    schema: Duration,
    // Whether a statement's own timeout takes precedence.
    yields: bool,
}

impl Timeouts {
    /// Limits for whole calls.
    pub fn total(limit: Duration) -> Self {
        Self { usual: limit, prepare: limit, schema: limit.max(Duration::from_secs(60)), yields: true }
    }

    /// Limits for single attempts.
    pub fn attempt(limit: Duration) -> Self {
        Self {
            usual: limit,
            prepare: limit.max(Duration::from_secs(1)),
            schema: limit.max(Duration::from_secs(60)),
            yields: false,
        }
    }

    /// Sets the limit for an attempt to prepare a statement. A whole call, of which that is a step, has its own.
    pub fn prepare(mut self, limit: Duration) -> Self {
        self.prepare = limit;
        self
    }

    /// Sets the limit for schema changes and TRUNCATE.
    pub fn schema(mut self, limit: Duration) -> Self {
        self.schema = limit;
        self
    }

    /// Checks limits that come from configuration.
    ///
    /// # Errors
    ///
    /// If one of them is zero.
    pub fn checked(self) -> Result<Self, ConfigError> {
        let limits = [("limit", self.usual), ("prepare", self.prepare), ("schema", self.schema)];
        match limits.iter().find(|(_, limit)| limit.is_zero()) {
            Some((setting, _)) => {
                Err(ConfigError::new(setting, "must be above zero: nothing could end in time"))
            }
            None => Ok(self),
        }
    }
}

impl Limit<Request> for Timeouts {
    fn limit(&self, request: &Request) -> Duration {
        if let (true, Some(own)) = (self.yields, request.timeout()) {
            return own;
        }
        match request.kind() {
            Kind::Schema | Kind::Truncate => self.schema,
            // A preparation is a step of a call: it has no more time than that.
            Kind::Prepare if !self.yields => self.prepare,
            _ => self.usual,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(300);

    fn limit(timeouts: Timeouts, text: &str) -> Duration {
        timeouts.limit(&Request::text(text))
    }

    #[test]
    fn a_schema_change_gets_more_time_than_a_read() {
        for timeouts in [Timeouts::total(LIMIT), Timeouts::attempt(LIMIT)] {
            assert_eq!(limit(timeouts, "SELECT a FROM t"), LIMIT);
            assert_eq!(limit(timeouts, "UPDATE t SET a = 1 WHERE k = 1"), LIMIT);
            assert_eq!(limit(timeouts, "CREATE TABLE t (k int PRIMARY KEY)"), Duration::from_secs(60));
            assert_eq!(limit(timeouts, "TRUNCATE t"), Duration::from_secs(60));
        }
    }

    #[test]
    fn a_preparation_has_the_time_of_the_call_that_it_is_a_step_of() {
        let prepare = Request::prepare("SELECT a FROM t");
        let short = Duration::from_millis(10);
        assert_eq!(Timeouts::total(LIMIT).prepare(short).limit(&prepare), LIMIT);
        assert_eq!(Timeouts::attempt(LIMIT).prepare(short).limit(&prepare), short);
        assert_eq!(Timeouts::attempt(LIMIT).limit(&prepare), Duration::from_secs(1));
    }

    #[test]
    fn a_zero_limit_is_refused_whichever_it_is() {
        let zero = Duration::ZERO;
        let setting = |timeouts: Timeouts| timeouts.checked().unwrap_err().setting();
        assert_eq!(setting(Timeouts::total(zero)), "limit");
        assert_eq!(setting(Timeouts::total(LIMIT).schema(zero)), "schema");
        assert_eq!(setting(Timeouts::attempt(LIMIT).prepare(zero)), "prepare");
        assert!(Timeouts::attempt(LIMIT).checked().is_ok());
    }
}
