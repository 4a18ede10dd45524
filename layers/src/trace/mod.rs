//! A span for each call, or for each attempt, with how it ended.
//!
//! Place [`TraceLayer::call`] outermost and [`TraceLayer::attempt`] innermost: what the layers between them, and the
//! service, log is then found under the call, and the attempts of one call beside each other.
//!
//! ```
//! use std::time::Duration;
//! use palisade::{Envelope, RetryLayer, TimeoutLayer, TraceLayer};
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let service = ServiceBuilder::new()
//!     .layer(TraceLayer::call().named("users"))
//!     .layer(RetryLayer::default())
//!     .layer(TraceLayer::attempt().named("users"))
//!     .layer(TimeoutLayer::new(Duration::from_millis(300)))
//!     .service(service_fn(|_: Envelope<u32>| async { Ok::<_, BoxError>(()) }));
//!
//! service.oneshot(Envelope::new(7)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A span of your own takes what it wants from the request; of the fields below it gets those that it declares:
//!
//! ```
//! use palisade::TraceLayer;
//! use tracing::field::Empty;
//!
//! let layer = TraceLayer::call().make_span(|request: &http::Request<()>| {
//!     tracing::info_span!("http", method = %request.method(), outcome = Empty, elapsed_ms = Empty)
//! });
//! # let _ = layer;
//! ```
//!
//! # What it does
//!
//! - The span is named `call` or `attempt`, of target `palisade`, and begins when the service is called. It is entered
//!   while the inner service runs, at each poll and when its future is dropped, and closed after that.
//! - At the end it gets its fields:
//!
//! | field | value |
//! | --- | --- |
//! | `layer` | the name, from the beginning |
//! | `outcome` | `success`, `failure`, `cancelled` (dropped before its end) or `panicked` |
//! | `fault` | of a failure: `caller`, `server`, `overload` or `unreachable`, as the classifier tells |
//! | `elapsed_ms` | milliseconds since the call |
//! | `error` | of a failure that is an error: its text |
//!
//! - A span that nobody wants costs next to nothing: the clock is not read and no text is made.
//! - Readiness: forwards it. The wait for readiness is outside the span.
//! - Dropping the response future drops the inner one inside the span, which ends as `cancelled`.
//!
//! # When to use something else
//!
//! Spans are for single calls, and are often sampled. To count and to time all of them, use
//! [`MetricsLayer`](crate::MetricsLayer).
//!
//! # Knobs
//!
//! | knob | unit | default |
//! | --- | --- | --- |
//! | `named` | field `layer` | `call`, `attempt` |
//! | `level` | level of the span | `INFO` for calls, `DEBUG` for attempts |
//! | `make_span` | a span of your own; `named` and `level` mean nothing to it | |
//! | `classifier` | [`Classify`](crate::Classify) | [`ByError`](crate::ByError) |

mod future;
mod layer;
mod service;
mod span;

pub use self::{
    future::TraceFuture,
    layer::TraceLayer,
    service::Trace,
    span::{MakeSpan, SpanFn, Standard},
};
