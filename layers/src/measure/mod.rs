//! How many calls there are, how they end, and how long they take.
//!
//! Place it outermost to measure what callers see, and a second one, under another name, innermost to measure the
//! attempts that reach the service.
//!
//! ```
//! use std::time::Duration;
//! use palisade::{DeadlineLayer, Envelope, MetricsLayer, RetryLayer};
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let calls = MetricsLayer::builder()
//!     .named("calls")
//!     .label("service", "users")
//!     // At most 20 values, whatever the requests bring.
//!     .label_by("operation", 20, |request: &Envelope<&'static str>| (**request).into())
//!     .build()?;
//! let service = ServiceBuilder::new()
//!     .layer(calls)
//!     .layer(DeadlineLayer::new(Duration::from_secs(2)))
//!     .layer(RetryLayer::default())
//!     .layer(MetricsLayer::builder().named("attempts").build()?)
//!     .service(service_fn(|_: Envelope<&'static str>| async { Ok::<_, BoxError>(()) }));
//!
//! service.oneshot(Envelope::new("find_user")).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it does
//!
//! - A call counts from `call` until its future ends, or is dropped before.
//! - It ends as `success`, or as `caller`, `server`, `overload` or `unreachable`, the [`Fault`](crate::Fault) that the
//!   classifier tells; a refusal of a layer further in counts as what it means. A call whose future was dropped before
//!   its end is `cancelled`: its caller timed out, lost interest, or never polled it. One whose poll
//!   panicked is `panicked`.
//! - A label that comes from the request takes the first so many values that it sees; a series is never forgotten, so
//!   that later ones are counted together, as `other`. That is logged once.
//! - Readiness: forwards it. The wait for readiness is not measured, since nobody knows what it was for.
//! - Dropping the response future ends the call as `cancelled`, after the inner future has been dropped.
//! - It allocates nothing, but for a series that is new, and takes no lock. Handles are looked up at the first call that
//!   needs them: install the recorder before that.
//!
//! # When to use something else
//!
//! For what a single call did, use [`TraceLayer`](crate::TraceLayer). Each layer counts its own refusals already.
//!
//! # Knobs
//!
//! | knob | unit | default |
//! | --- | --- | --- |
//! | `named` | label `layer` | `metrics` |
//! | `label` | one more label, the same for all calls | none |
//! | `label_by` | a label from the request, 1 to 10,000 values | none |
//! | `classifier` | [`Classify`](crate::Classify) | [`ByError`](crate::ByError) |
//!
//! Metrics, each with your labels: `palisade_requests_total{layer, outcome}`, the histogram
//! `palisade_request_duration_seconds{layer, outcome}` and the gauge `palisade_requests_in_flight{layer}`.

mod future;
mod labels;
mod layer;
mod series;
mod service;

pub use self::{
    future::MetricsFuture,
    labels::{ByRequest, LabelBy, Unlabelled},
    layer::{MetricsBuilder, MetricsLayer},
    service::Metrics,
};
