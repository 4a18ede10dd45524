//! One deadline for the whole call, known to everything inside it.
//!
//! Place it outermost. It fixes the deadline of a request when it enters, hands it inward with the request, and
//! enforces it. Whatever waits further in (a retry that backs off, a queue, a rate limit) reads it there, and
//! refuses at once what could not be answered in time.
//!
//! ```
//! use std::time::Duration;
//! use palisade::{DeadlineLayer, Envelope, HasDeadline};
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let service = ServiceBuilder::new()
//!     .layer(DeadlineLayer::new(Duration::from_secs(2)))
//!     .service(service_fn(|request: Envelope<()>| async move {
//!         // The inner service sees how much time is left.
//!         Ok::<_, BoxError>(request.deadline().unwrap().remaining())
//!     }));
//!
//! let left = service.oneshot(Envelope::new(())).await.unwrap();
//! assert!(left <= Duration::from_secs(2));
//! # }
//! ```
//!
//! # What it does
//!
//! - A request that already has an earlier deadline keeps it: a deadline is never extended. So a nested
//!   `DeadlineLayer` can only shorten.
//! - A request whose deadline has passed is refused without a call.
//! - The wait for the inner service to become ready counts. No timer is armed for a call that is answered at its
//!   first poll.
//! - An answer that is there when the deadline passes still counts.
//! - At the deadline the inner future is dropped at once and the caller gets
//!   [`Rejection::TimedOut`](crate::Rejection::TimedOut) with scope `Total`. What the request did at the other
//!   side is not known then.
//! - Readiness: always ready; waits inside its future. It hides the readiness of what is below: to shed load on
//!   readiness, as tower's `LoadShed` does, place that below this layer.
//! - Dropping the response future drops the inner one; nothing else is held.
//!
//! # When to use something else
//!
//! To bound one attempt of several, use [`TimeoutLayer`](crate::TimeoutLayer) below the retry, beside this one.
//!
//! # Knobs
//!
//! | knob | unit | default |
//! | --- | --- | --- |
//! | `new(limit)` | duration from the call, or a [`Limit`](crate::Limit) by request; timers are good to about 1 ms | none |
//! | `from_request()` | no limit of its own, enforces what the request brings | |
//! | `named(name)` | label `layer` of its metrics | `deadline` |
//!
//! Metric: `palisade_timeouts_total{layer, scope="total"}`.

mod future;
mod layer;
mod service;

pub use self::{future::DeadlineFuture, layer::DeadlineLayer, service::Deadline};
