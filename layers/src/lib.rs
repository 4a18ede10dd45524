#![doc = include_str!("../README.md")]

mod adapt;
mod backoff;
pub mod budget;
pub mod class;
pub mod clock;
mod config;
pub mod deadline;
pub mod guide;
#[cfg(feature = "http")]
pub mod http;
pub mod keyed;
mod limit;
pub mod measure;
pub mod middleware;
mod readiness;
mod rejection;
pub mod request;
pub mod retry;
mod sync;
pub mod telemetry;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod timeout;
mod timer;
pub mod trace;

#[cfg(feature = "http")]
pub use self::adapt::{Respond, RespondFuture, RespondLayer, respond, status};
pub use self::{
    adapt::{BoxErrors, BoxErrorsFuture, BoxErrorsLayer, box_errors},
    backoff::{Backoff, Jitter},
    budget::Budget,
    class::{ByError, Class, Classified, Classify, ClassifyFn, Downcast, Effect, Fault, classify_fn},
    clock::Instant,
    config::ConfigError,
    deadline::DeadlineLayer,
    limit::{Limit, LimitFn, limit_fn},
    measure::MetricsLayer,
    rejection::{Rejection, TimeoutScope},
    request::{Envelope, HasDeadline, HasPriority, Idempotence, Priority, Repeat, Why},
    retry::RetryLayer,
    timeout::TimeoutLayer,
    trace::TraceLayer,
};
