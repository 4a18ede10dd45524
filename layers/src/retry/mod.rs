//! Sends a request again when that can help and can do no harm.
//!
//! Four pieces, each of which can be replaced by itself:
//!
//! - a classifier ([`Classify`](crate::Classify)) says what an outcome means;
//! - the request ([`Repeat`](crate::Repeat)) says whether it may be sent once more after that;
//! - a shared [`Budget`] bounds the extra load;
//! - a [`Backoff`] says how long to wait.
//!
//! The layer itself is the loop that asks them.
//!
//! ```
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use palisade::{Class, Classified, Effect, Envelope, Fault, Idempotence, RetryLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! #[derive(Debug)]
//! struct Flaky;
//!
//! impl Classified for Flaky {
//!     fn class(&self) -> Class {
//!         Class::new(Fault::Server, Effect::Unknown)
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! static CALLS: AtomicU32 = AtomicU32::new(0);
//! let service = ServiceBuilder::new()
//!     .layer(RetryLayer::default())
//!     .service(service_fn(|_: Envelope<&str>| async {
//!         match CALLS.fetch_add(1, Ordering::Relaxed) {
//!             0 => Err(Flaky),
//!             _ => Ok("done"),
//!         }
//!     }));
//!
//! // Nobody knows what the first attempt did: only an idempotent request is sent again.
//! let request = Envelope::new("read").idempotence(Idempotence::Yes);
//! assert_eq!(service.oneshot(request).await.unwrap(), "done");
//! # }
//! ```
//!
//! # What it does
//!
//! After a failure it asks, in this order, and the first no ends the call with the error of the last attempt:
//!
//! 1. Was the service asked at all? What a layer further in refused, an open circuit or a limit
//!    ([`Class::is_refused_here`](crate::Class::is_refused_here)), is told to the caller at once, unless another target may do.
//! 2. Is an attempt left (`max_attempts`)?
//! 3. Does the request allow a repeat after such a failure ([`Why::Retry`](crate::Why::Retry))?
//! 4. Will the wait end before the request's deadline?
//! 5. Does the budget grant a token?
//!
//! The wait is the backoff's. Where the failure says when to come back
//! ([`Class::retry_after`](crate::Class::retry_after)) it is that, but at least the backoff and at most the
//! backoff plus `max_retry_after`. The first repeat of an unanswered attempt that another target may answer
//! ([`Class::may_do_elsewhere`](crate::Class::may_do_elsewhere)) waits not at all.
//!
//! - Readiness: forwards it. The first attempt uses the service that was polled ready; each repeat readies a clone of
//!   its own inside the future.
//! - Dropping the response future drops the attempt that is under way. A token that was taken for a repeat which
//!   then did not happen is not paid back.
//! - A request that has no spare copy ([`Why::Spare`](crate::Why::Spare)) passes straight through.
//!
//! # When to use something else
//!
//! Against slow answers, rather than failed ones, hedge. And do not stack retries: where a client library or a
//! proxy below retries as well, the attempts multiply and each layer's budget counts its own only.
//!
//! # Knobs
//!
//! | knob | unit | default |
//! | --- | --- | --- |
//! | `max_attempts` | attempts in all, the first included | 3 |
//! | `backoff` | [`Backoff`] | 25 ms doubling to 1 s, full jitter |
//! | `budget` | [`Budget`], shared by its clones | 8% of requests, 1 per second, 50 at once |
//! | `max_retry_after` | duration on top of the backoff | 5 s |
//! | `classifier` | [`Classify`](crate::Classify) | [`ByError`](crate::ByError) |
//! | `named` | label `layer` of its metrics | `retry` |
//!
//! Metrics: `palisade_retries_total{layer}`; `palisade_retries_stopped_total{layer, reason}` counts failures that
//! were not repeated, for the reason `refused`, `attempts`, `not_allowed`, `deadline` or `budget`.
//!
//! The clamp of `retry_after` is that of the [AWS SDKs]; the budget is described at [`Budget`].
//!
//! [AWS SDKs]: https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html

mod future;
mod layer;
mod service;
mod state;

#[cfg(doc)]
use crate::{Backoff, Budget};

pub use self::{
    future::RetryFuture,
    layer::{RetryBuilder, RetryLayer},
    service::Retry,
};
