#![doc = include_str!("../README.md")]

mod adapt;
pub mod adaptive;
mod admission;
mod backoff;
pub mod breaker;
mod buckets;
pub mod budget;
mod builder;
pub mod class;
pub mod clock;
pub mod coalesce;
pub mod concurrency;
mod config;
pub mod deadline;
pub mod drain;
pub mod guide;
mod handle;
pub mod hedge;
#[cfg(feature = "http")]
pub mod http;
mod judged;
pub mod keyed;
mod latency;
mod limit;
mod line;
pub mod measure;
pub mod middleware;
pub mod overload;
mod places;
pub mod rate;
mod readiness;
mod rejection;
pub mod request;
pub mod retry;
pub mod shed;
mod sleep;
mod superseded;
mod sync;
pub mod telemetry;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod throttle;
pub mod timeout;
mod timer;
pub mod trace;
mod until;
mod window;

#[cfg(feature = "http")]
pub use self::adapt::{Respond, RespondFuture, RespondLayer, respond, status};
pub use self::{
    adapt::{BoxErrors, BoxErrorsFuture, BoxErrorsLayer, box_errors},
    adaptive::AdaptiveConcurrencyLayer,
    backoff::{Backoff, Jitter},
    breaker::CircuitBreakerLayer,
    budget::{Budget, BudgetSnapshot},
    builder::ServiceBuilderExt,
    class::{ByError, Class, Classified, Classify, ClassifyFn, Downcast, Effect, Fault, classify_fn},
    clock::Instant,
    coalesce::{CoalesceLayer, SharedError},
    concurrency::ConcurrencyLimitLayer,
    config::ConfigError,
    deadline::DeadlineLayer,
    drain::{Drain, DrainLayer},
    hedge::HedgeLayer,
    limit::{Limit, LimitFn, limit_fn},
    measure::MetricsLayer,
    rate::RateLimitLayer,
    rejection::{Rejection, TimeoutScope},
    request::{Envelope, HasDeadline, HasPriority, Idempotence, Priority, Repeat, Why},
    retry::RetryLayer,
    shed::ShedLayer,
    superseded::is_superseded,
    throttle::ThrottleLayer,
    timeout::TimeoutLayer,
    trace::TraceLayer,
    until::{ByDeadline, NoDeadline, Until},
};
