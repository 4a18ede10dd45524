//! How to write a layer of your own: a ladder, from a closure to what this crate itself does.
//!
//! Stay on the lowest step that does what you need.
//!
//! # 1. A closure
//!
//! tower makes layers of closures, for the request, for the response, for the error, and for all of it. They need
//! no care at all, and cost nothing:
//!
//! ```
//! use palisade::{Envelope, Idempotence};
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let service = ServiceBuilder::new()
//!     // Everything that is sent here may be sent twice.
//!     .map_request(|request: Envelope<u32>| request.idempotence(Idempotence::Yes))
//!     .map_response(|answer: u32| answer.to_string())
//!     .service(service_fn(|request: Envelope<u32>| async move { Ok::<_, BoxError>(*request) }));
//! assert_eq!(service.oneshot(Envelope::new(7)).await.unwrap(), "7");
//! # }
//! ```
//!
//! # 2. An async function
//!
//! [`from_fn`](crate::middleware::from_fn) is for code around a call: something to ask before, something to note after,
//! an answer from somewhere else. It gets the rest of the stack as [`Next`](crate::middleware::Next):
//!
//! ```
//! use std::time::Duration;
//! use palisade::{Envelope, Instant, middleware::{Next, from_fn}};
//! use tower::{BoxError, Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let log_slow = from_fn(|request: Envelope<u32>, next: Next<_, u32>| async move {
//!     let (number, began) = (*request, Instant::now());
//!     let outcome = next.run(request).await;
//!     if began.elapsed() > Duration::from_secs(1) {
//!         tracing::warn!(number, elapsed = ?began.elapsed(), "slow");
//!     }
//!     outcome
//! });
//! let service = log_slow.layer(service_fn(|request: Envelope<u32>| async move { Ok::<_, BoxError>(*request) }));
//! assert_eq!(service.oneshot(Envelope::new(7)).await.unwrap(), 7);
//! # }
//! ```
//!
//! What it gives up: a call that is dropped is never noted, since code after an `.await` does not run then; there is
//! nothing to configure; and a call allocates.
//!
//! # 3. A layer
//!
//! A layer for others to use has three parts: the layer, which holds settings and shared state, the service, and
//! the future of a call. This one lets a number of calls through at once and refuses the rest.
//!
//! ```
//! use std::{
//!     pin::Pin,
//!     sync::{Arc, atomic::{AtomicUsize, Ordering::Relaxed}},
//!     task::{Context, Poll},
//! };
//! use palisade::{Class, Classify, ByError, Rejection, telemetry::Counter};
//! use pin_project_lite::pin_project;
//! use tower::{Layer, Service};
//!
//! /// The layer: cheap to clone, and everything made by its clones shares its state.
//! #[derive(Clone)]
//! pub struct AtMostLayer<C = ByError> {
//!     shared: Arc<Shared<C>>,
//! }
//!
//! struct Shared<C> {
//!     most: usize,
//!     in_flight: AtomicUsize,
//!     classifier: C,
//!     // Handles that are looked up once. Doing so for each call costs more than this layer.
//!     refused: Counter,
//!     failed: Counter,
//! }
//!
//! impl AtMostLayer {
//!     pub fn new(most: usize) -> Self {
//!         let counter = |metric| Counter::new(metric, "at_most", &[]);
//!         Self {
//!             shared: Arc::new(Shared {
//!                 most,
//!                 in_flight: AtomicUsize::new(0),
//!                 classifier: ByError,
//!                 refused: counter("at_most_refused_total"),
//!                 failed: counter("at_most_failed_total"),
//!             }),
//!         }
//!     }
//! }
//!
//! impl<S, C> Layer<S> for AtMostLayer<C> {
//!     type Service = AtMost<S, C>;
//!
//!     fn layer(&self, inner: S) -> AtMost<S, C> {
//!         AtMost { inner, shared: Arc::clone(&self.shared) }
//!     }
//! }
//!
//! /// The service.
//! pub struct AtMost<S, C> {
//!     inner: S,
//!     shared: Arc<Shared<C>>,
//! }
//!
//! // Written out, because `derive` would ask for `C: Clone`.
//! impl<S: Clone, C> Clone for AtMost<S, C> {
//!     fn clone(&self) -> Self {
//!         Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared) }
//!     }
//! }
//!
//! impl<S, C, Req> Service<Req> for AtMost<S, C>
//! where
//!     S: Service<Req> + Clone,
//!     // The one thing that is asked of the error: that it can say what a layer refused.
//!     S::Error: From<Rejection>,
//!     C: Classify<S::Response, S::Error>,
//! {
//!     type Response = S::Response;
//!     type Error = S::Error;
//!     type Future = AtMostFuture<S::Future, C>;
//!
//!     fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
//!         // This layer forwards readiness. It does not refuse here: an error of `poll_ready` means that the service
//!         // is broken for good.
//!         self.inner.poll_ready(cx)
//!     }
//!
//!     fn call(&mut self, request: Req) -> Self::Future {
//!         // The service that was polled ready is the one that is called: `self.inner`, and no clone of it.
//!         match Place::take(&self.shared) {
//!             Some(place) => AtMostFuture { call: Some(self.inner.call(request)), place: Some(place) },
//!             None => {
//!                 // The ready service may hold a place in a limit further in. A clone holds none.
//!                 self.inner = self.inner.clone();
//!                 AtMostFuture { call: None, place: None }
//!             }
//!         }
//!     }
//! }
//!
//! /// What a call holds. It is given back by `Drop` and nowhere else: that runs after an answer, after a panic, and when
//! /// the caller has gone.
//! struct Place<C>(Arc<Shared<C>>);
//!
//! impl<C> Place<C> {
//!     fn take(shared: &Arc<Shared<C>>) -> Option<Self> {
//!         let room = |taken: usize| (taken < shared.most).then_some(taken + 1);
//!         let taken = shared.in_flight.fetch_update(Relaxed, Relaxed, room);
//!         if taken.is_err() {
//!             shared.refused.increment(1);
//!         }
//!         taken.ok().map(|_| Self(Arc::clone(shared)))
//!     }
//! }
//!
//! impl<C> Drop for Place<C> {
//!     fn drop(&mut self) {
//!         self.0.in_flight.fetch_sub(1, Relaxed);
//!     }
//! }
//!
//! pin_project! {
//!     /// The future: a type with a name, so that users can name what they have built, and nothing is boxed.
//!     pub struct AtMostFuture<F, C> {
//!         // None for a call that was refused.
//!         #[pin]
//!         call: Option<F>,
//!         // Given back when the call has ended, even if the future is kept.
//!         place: Option<Place<C>>,
//!     }
//! }
//!
//! impl<F, C, Res, Err> Future for AtMostFuture<F, C>
//! where
//!     F: Future<Output = Result<Res, Err>>,
//!     Err: From<Rejection>,
//!     C: Classify<Res, Err>,
//! {
//!     type Output = Result<Res, Err>;
//!
//!     fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
//!         let this = self.project();
//!         let Some(call) = this.call.as_pin_mut() else {
//!             return Poll::Ready(Err(Rejection::ConcurrencyLimited.into()));
//!         };
//!         // Polled with the `cx` of this poll, whose waker may be another than last time.
//!         let polled = call.poll(cx);
//!         if let Poll::Ready(outcome) = &polled && let Some(place) = this.place.take() {
//!             // What an outcome means is the classifier's to say, not this layer's.
//!             let class: Class = place.0.classifier.classify(outcome.as_ref());
//!             if class.is_failure() {
//!                 place.0.failed.increment(1);
//!             }
//!         }
//!         polled
//!     }
//! }
//! #
//! # // Step 4, in the same test.
//! # palisade::testkit::Contract::new(|inner| AtMostLayer::new(8).layer(inner)).check();
//! ```
//!
//! A layer that has to wait, or that needs the request before it knows whether it is ready, is instead *always ready*
//! and waits in its future; [`TimeoutLayer`](crate::TimeoutLayer) is one. What decides something is best kept as a plain
//! struct that is told the time and the outcome: a test can then drive it without a service. `examples/custom_layer.rs`
//! in the repository is a complete layer of that kind, to start from.
//!
//! # 4. The contract
//!
//! tower asks a lot of a service that no compiler checks. `palisade::testkit::Contract` (feature `testkit`) does, in a
//! test of one line. The layer above has passed it, as this one does:
//!
//! ```
//! use std::time::Duration;
//! use palisade::{TimeoutLayer, testkit::Contract};
//! use tower::Layer;
//!
//! // #[test] fn it_keeps_the_contract() { ... }
//! Contract::new(|inner| TimeoutLayer::new(Duration::from_secs(1)).layer(inner)).check();
//! ```
//!
//! When a layer breaks it, the message says what was seen and what to do about it.
//!
//! # Mistakes that are made again and again
//!
//! | mistake | what happens | instead |
//! | --- | --- | --- |
//! | `self.inner.clone()` in `call`, and calling the clone | the clone was never polled ready: a `Buffer` or `ConcurrencyLimit` below panics, a pool lends what it has not got | call `self.inner`; to move it into the future, `mem::replace` it with its clone |
//! | holding the ready inner service while waiting for a token, a lock, a lookup | its place in a pool or a limit is taken by somebody who does nothing | wait first, then poll it ready, then call it |
//! | keeping the ready inner service after a refusal | its place in a limit is taken until the next call, which may never come | put a clone in its place |
//! | a refusal as the error of `poll_ready` | tower's `Buffer` stays dead long after the reason has gone | refuse in the future |
//! | giving back a permit after the `.await` | a call that is dropped keeps it for ever, and callers drop calls all the time | a guard with `Drop` |
//! | `tokio::spawn` around the call | whoever drops the call does not stop it | poll the inner future in your own |
//! | keeping the first waker | when the call moves to another task, nobody is woken | poll the inner future with the `cx` of each poll |
//! | a clone of the service with a state of its own | the limit counts for each connection and not for all | share the state in an `Arc`; `derive(Clone)` only what is shared |
//! | a closure of the user's, a metric or a waker called under a lock | it calls back, and waits for itself | decide under the lock, tell after it |
//! | a map by key without a limit | callers can make up keys until memory ends | a bound, and a word on what happens at it |
//! | boxing the error to add a text | nobody can tell a refusal from a failure any more | keep `S::Error`, and ask for `From<Rejection>` |
//! | a metric looked up at each call | it costs more than all layers together | a handle that is kept: [`telemetry`](crate::telemetry) |
