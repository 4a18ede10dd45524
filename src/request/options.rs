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
