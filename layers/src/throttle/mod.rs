//! Asks a service less when it says that it is overloaded, so that it can do what it can.
//!
//! A service that has more work than it can do refuses some of it. That costs it something too, and clients that ask
//! again and again can make it spend all its time on refusals. So the client refuses calls by itself: as large a share of them
//! as the service's answers ask for, and no more.
//!
//! ```
//! use palisade::{Class, Classified, Effect, Fault, Rejection, ThrottleLayer};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! #[derive(Debug, PartialEq)]
//! enum Error {
//!     Busy,
//!     Refused(Rejection),
//! }
//!
//! impl From<Rejection> for Error {
//!     fn from(rejection: Rejection) -> Self {
//!         Self::Refused(rejection)
//!     }
//! }
//!
//! impl Classified for Error {
//!     fn class(&self) -> Class {
//!         match self {
//!             Self::Busy => Class::new(Fault::Overload, Effect::NotApplied),
//!             Self::Refused(rejection) => rejection.class(),
//!         }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), palisade::ConfigError> {
//! let throttle = ThrottleLayer::builder().multiplier(2.0).build()?;
//! let handle = throttle.handle();
//! let mut service = ServiceBuilder::new()
//!     .layer(throttle)
//!     .service(service_fn(|_: u32| async { Err::<(), _>(Error::Busy) }));
//!
//! let mut asked = 0;
//! for call in 0..100 {
//!     let answer = service.ready().await.unwrap().call(call).await;
//!     asked += u32::from(answer == Err(Error::Busy));
//! }
//! assert!(asked < 30, "of 100 calls the service got {asked}");
//! assert!(handle.snapshot().share > 0.8);
//! # Ok(())
//! # }
//! ```
//!
//! # What it does
//!
//! It counts the calls of a window of time, and refuses each with the chance
//! `(requests - multiplier * accepts) / (requests + 1)`, if that is above zero:
//!
//! | outcome | counts as |
//! | --- | --- |
//! | success, [`Fault::Caller`](crate::Fault::Caller), [`Fault::Server`](crate::Fault::Server) | a request, and an accept |
//! | [`Fault::Overload`](crate::Fault::Overload) | a request |
//! | refused by this layer | a request |
//! | [`Fault::Unreachable`](crate::Fault::Unreachable), a timeout | nothing: silence may have any reason |
//! | refused by a layer further in ([`Class::is_refused_here`](crate::Class::is_refused_here)) | nothing |
//! | dropped by its caller or by a [hedge](crate::hedge) | nothing |
//!
//! - In a lasting overload the service gets `multiplier` times what it accepts: with 2 it accepts half of what it gets,
//!   with 1.1 most of it.
//! - A call counts when it is answered, and not when it is sent. So a service that is slow, and healthy, is never throttled,
//!   however long the window is.
//! - What is refused rests on answers of the service. A rejection in the window answers for so many refusals at most,
//!   some 36 by default (`2 * multiplier / (multiplier - 1) * max_rejection / (1 - max_rejection)`): one by itself does not throttle a service that
//!   is slow to accept. And once the last rejection has left the window, all calls pass. So after an overload, however
//!   long it was, all calls pass within a `window`. A service that accepts more and more gets more before that, the
//!   sooner the larger the multiplier.
//! - At most the share `max_rejection` is refused, and `min_passes_per_second` calls pass in any case, so that a client with few
//!   calls notices too that the service is well again.
//! - Chance decides which calls are refused, but hardly how many: of any calls in a row as many as their shares add up to, give or
//!   take a few.
//! - A refusal is [`Rejection::Throttled`](crate::Rejection::Throttled). It is not the service's: a retry in the same stack does
//!   not repeat it, and a breaker does not count it.
//! - Where the service says when to come back ([`Class::retry_after`](crate::Class::retry_after)), refusals pass that on: what is
//!   left of it, a minute at most. The throttle does not stop until then. That one call was put off
//!   says little of the others, and callers that all begin again at one moment are the next overload.
//! - Where the service shows overload by silence, map its timeouts to `Fault::Overload` by a classifier.
//! - Readiness: always ready; a call waits inside its future until the inner service is ready. So a call is refused at once even
//!   if the inner service is busy.
//! - Dropping the response future drops the inner one. There is nothing to give back.
//! - While a clock stands still, nothing leaves the window. One that goes back counts in the present bucket.
//!
//! A call to a service without a rejection in the window costs two loads, and its answer one exchange of one word and
//! one look at the clock. Nothing waits, nothing is allocated.
//!
//! # Where to place it
//!
//! Inside the retry, so that each attempt counts and a refusal costs no attempt. Outside the
//! [`TimeoutLayer`](crate::TimeoutLayer), so that the classifier sees timeouts. Beside the breaker, in either order; tell that by
//! [`overload_counts(false)`](crate::breaker::CircuitBreakerBuilder::overload_counts) to leave overload to the throttle.
//!
//! A service that sheds by priority refuses the least important calls, which says nothing of the others: use a throttle for each
//! priority then, `build_keyed(4, |request: &Request| request.priority())`. What a throttle lets pass in any case,
//! `min_passes_per_second`, counts for each client and key; all of them together have to stay well below what the service can do.
//! The chapter on [overload](crate::overload) has figures for both.
//!
//! # When to use something else
//!
//! A service that is down does not answer "overloaded": that is for a [breaker](crate::CircuitBreakerLayer). To keep a rate
//! or a number of calls in flight that is known, whatever the service says, use a [rate limit](crate::RateLimitLayer) or a
//! [concurrency limit](crate::ConcurrencyLimitLayer). With several servers behind one service, a throttle for each
//! (`build_keyed`) leaves alone those that are well.
//!
//! # Knobs
//!
//! | knob | unit | default |
//! | --- | --- | --- |
//! | `multiplier` | calls for each that is accepted, from 1 to 100 | 2 |
//! | `window` | duration, from 100 ms to ten minutes | 3 s |
//! | `max_rejection` | share of the calls, above 0 and up to 0.99 | 0.9 |
//! | `min_passes_per_second` | calls per second, by key, from 0 to 1,000 | 1 |
//! | `mode` | [`Mode`] | on |
//! | `classifier` | [`Classify`](crate::Classify) | [`ByError`](crate::ByError) |
//! | `build_keyed(max_keys, key)` | a throttle for each of at most so many keys | one for all |
//! | `named` | label `layer` of its metrics and events | `throttle` |
//!
//! Mode and multiplier can be changed while it is in use, by the handle.
//!
//! Metrics: `palisade_throttle_refused_total{layer}`, `palisade_throttle_suppressed_total{layer}` (would have been refused in
//! [`Mode::Observing`]), and the gauge `palisade_throttle_refused_share{layer}`: the share that is refused, to within 0.05, as
//! of the last call; with keys, the sum of theirs. Calls begin or cease to be refused: tracing events, at level
//! `debug`, with the layer and the key. They cease when none was refused for a window.
//!
//! The formula is that of *Site Reliability Engineering*, [Handling Overload], as are the counts; that a call passes
//! each second is [go-zero]'s, the largest share [Envoy]'s.
//!
//! [Handling Overload]: https://sre.google/sre-book/handling-overload/
//! [go-zero]: https://github.com/zeromicro/go-zero/blob/master/core/breaker/googlebreaker.go
//! [Envoy]: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/admission_control_filter

mod future;
mod layer;
mod service;
mod state;
#[cfg(test)]
mod tests;
mod valve;

pub use self::{
    future::ThrottleFuture,
    layer::{KeyedThrottleHandle, KeyedThrottleLayer, ThrottleBuilder, ThrottleHandle, ThrottleLayer},
    service::Throttle,
    valve::{Mode, ThrottleSnapshot, Valve},
};
