use std::time::Duration;

use palisade::Priority;
use scylla::statement::{Consistency, SerialConsistency};

/// What a caller overrides for one request. `None` is the session's or the stack's setting.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Options {
    pub(crate) consistency: Option<Consistency>,
    pub(crate) serial_consistency: Option<SerialConsistency>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) page_size: Option<i32>,
    pub(crate) tracing: Option<bool>,
    pub(crate) timestamp: Option<i64>,
    pub(crate) priority: Priority,
}

/// The methods by which a caller sets them, the same for everything that has `options`.
macro_rules! option_methods {
    () => {
        /// The consistency level, in place of the session's.
        pub fn consistency(mut self, consistency: Consistency) -> Self {
            self.options.consistency = Some(consistency);
            self
        }

        /// The consistency level of the conditional part of a lightweight transaction, in place of the session's.
        pub fn serial_consistency(mut self, consistency: SerialConsistency) -> Self {
            self.options.serial_consistency = Some(consistency);
            self
        }

        /// How long the whole call may take, its preparation and all its pages included.
        ///
        /// It runs from the call of the client. A deadline that the stack sets to all requests alike still holds if it
        /// is earlier; one that comes from [`Timeouts`](crate::Timeouts) makes way for this.
        pub fn timeout(mut self, timeout: Duration) -> Self {
            self.options.timeout = Some(timeout);
            self
        }

        /// Asks the server for a trace; see [`Response::tracing_ids`](crate::Response::tracing_ids). It is costly.
        pub fn tracing(mut self, tracing: bool) -> Self {
            self.options.tracing = Some(tracing);
            self
        }

        /// The write's timestamp, in microseconds since 1970, in place of the client's or the coordinator's.
        pub fn timestamp(mut self, microseconds: i64) -> Self {
            self.options.timestamp = Some(microseconds);
            self
        }

        /// How important the request is, for layers that shed load.
        pub fn priority(mut self, priority: Priority) -> Self {
            self.options.priority = priority;
            self
        }
    };
}
pub(crate) use option_methods;
