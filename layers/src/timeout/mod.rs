//! A limit on how long one attempt may take.
//!
//! Place it innermost, around what may hang, below the retry: each attempt then gets the full limit. To bound
//! the whole call, attempts and waits together, use [`DeadlineLayer`](crate::DeadlineLayer) outermost.
//!
//! ```
//! use std::time::Duration;
//! use palisade::{Rejection, TimeoutLayer, box_errors};
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let service = ServiceBuilder::new()
//!     .layer(TimeoutLayer::new(Duration::from_millis(20)))
//!     .service(service_fn(|_: ()| std::future::pending::<Result<(), BoxError>>()));
//!
//! let error = service.oneshot(()).await.unwrap_err();
//! assert_eq!(error.to_string(), "the attempt timed out after 20ms");
//! # }
//! ```
//!
//! # What it does
//!
//! - The limit runs from the first poll of the response future and includes the wait for the inner service to
//!   become ready. No timer is armed for a call that is answered at its first poll.
//! - An answer that is there when the limit ends still counts.
//! - When the limit ends, the inner future is dropped at once and the caller gets
//!   [`Rejection::TimedOut`](crate::Rejection::TimedOut) with scope `Attempt`. What the request did at the other
//!   side is not known then.
//! - Readiness: always ready; waits inside its future. It hides the readiness of what is below: to shed load on
//!   readiness, as tower's `LoadShed` does, place that below this layer.
//! - Dropping the response future drops the inner one; nothing else is held.
//!
//! # Knobs
//!
//! | knob | unit | default |
//! | --- | --- | --- |
//! | `new(limit)` | duration, or a [`Limit`](crate::Limit) by request; timers are good to about 1 ms | none |
//! | `named(name)` | label `layer` of its metrics | `timeout` |
//!
//! Metric: `palisade_timeouts_total{layer, scope="attempt"}`.

mod future;
mod layer;
mod service;

pub use self::{future::TimeoutFuture, layer::TimeoutLayer, service::Timeout};
