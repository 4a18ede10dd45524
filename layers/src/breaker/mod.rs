//! Stops asking a service that fails, and finds out by a few probes when it is back.
//!
//! ```
//! use std::time::Duration;
//! use palisade::{CircuitBreakerLayer, Rejection, breaker::CircuitState};
//! use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let breaker = CircuitBreakerLayer::builder()
//!     .consecutive_failures(3)
//!     .on_transition(|change| println!("{:?} -> {:?}, {:?}", change.from, change.to, change.cause))
//!     .build()?;
//! let circuit = breaker.handle();
//! let mut service = ServiceBuilder::new()
//!     .layer(breaker)
//!     .service(service_fn(|_: ()| async { Err::<(), BoxError>("down".into()) }));
//!
//! for _ in 0..3 {
//!     let _ = service.ready().await?.call(()).await;
//! }
//! assert_eq!(circuit.state(), CircuitState::Open);
//! let refused = service.ready().await?.call(()).await.unwrap_err();
//! assert!(matches!(Rejection::find(&*refused), Some(Rejection::CircuitOpen { .. })));
//!
//! circuit.reset(); // an operator knows better
//! assert_eq!(circuit.state(), CircuitState::Closed);
//! # Ok(())
//! # }
//! ```
//!
//! # What it does
//!
//! - **Closed**, it lets calls pass and counts their outcomes over a window of calls or of time. It opens when
//!   the share of failures, or of slow calls, or the number of failures in a row reaches its limit. Each call costs
//!   the same, however long the window.
//! - **Open**, it refuses at once with [`Rejection::CircuitOpen`](crate::Rejection::CircuitOpen), which says when to come back.
//! - **Half-open**, once the wait is over, it lets a few probes pass and refuses the rest. It closes as soon as enough of
//!   them went well, and opens again, for longer, as soon as too many did not. Probes are judged by the rules that open it:
//!   where only failures in a row do, one failure opens it again. If no probe was answered for `probe_timeout`, whether they
//!   hang or were given up by their callers, the next call opens it again.
//!
//! What counts:
//!
//! | outcome | in the ratio | in a row |
//! | --- | --- | --- |
//! | success | as a call, ends a row | |
//! | [`Fault::Server`](crate::Fault::Server), [`Fault::Unreachable`](crate::Fault::Unreachable) | as a failure | yes |
//! | [`Fault::Overload`](crate::Fault::Overload) | as a failure, unless `overload_counts(false)` | no: the service is alive |
//! | [`Fault::Caller`](crate::Fault::Caller) | not at all | no |
//! | refused by a layer further in ([`Class::is_refused_here`](crate::Class::is_refused_here)) | not at all | no |
//! | dropped before it ended | as slow, if older than the threshold of `slow_calls`; else not at all | no |
//! | dropped because a [hedge](crate::hedge) was faster | not at all | no |
//!
//! - A success never opens the circuit, unless it was slow.
//! - Each outcome carries the generation that admitted it. What comes back after the circuit has changed its state
//!   changes nothing more.
//! - Readiness: always ready; a call waits inside its future until the inner service is ready. So an open circuit
//!   refuses at once even if the inner service is busy. The wait counts as part of the call.
//! - Dropping the response future drops the inner one, gives back its probe, and counts as in the table.
//! - A clock that stands still ends no wait, and lets no window pass; one that goes back counts in the present bucket.
//!
//! # Where to place it
//!
//! Inside the retry, so that each attempt is judged and an open circuit costs no attempt. Outside the
//! [`TimeoutLayer`](crate::TimeoutLayer), so that a timed-out attempt is a failure and not a dropped call. Where a time limit
//! stands outside all the same, set `slow_calls` to less than that limit.
//!
//! # Without a layer
//!
//! A layer has to see in the request where it goes. Where that is decided only inside the call, as by a balancer, hold a
//! [`Circuit`] for each target, made by [`build_circuit`](CircuitBreakerBuilder::build_circuit), and ask it there:
//!
//! ```
//! use std::sync::Arc;
//! use palisade::{ByError, CircuitBreakerLayer, Classify, ConfigError, Rejection, breaker::Circuit};
//! use tower::BoxError;
//!
//! struct Node {
//!     address: &'static str,
//!     circuit: Arc<Circuit>,
//! }
//!
//! fn nodes(addresses: &[&'static str]) -> Result<Vec<Node>, ConfigError> {
//!     let builder = CircuitBreakerLayer::builder().consecutive_failures(3).named("nodes");
//!     let node = |&address| Ok(Node { address, circuit: builder.clone().build_circuit(address)? });
//!     addresses.iter().map(node).collect()
//! }
//!
//! /// Asks the first node whose circuit lets the call pass.
//! async fn call(nodes: &[Node]) -> Result<&'static str, BoxError> {
//!     let mut refusal = Rejection::circuit_open(None);
//!     for node in nodes {
//!         match node.circuit.acquire() {
//!             Ok(permit) => {
//!                 // Dropped meanwhile, the permit sees to that as the layer does.
//!                 let answer = ask(node.address).await;
//!                 permit.end(&ByError.classify(answer.as_ref()));
//!                 return answer;
//!             }
//!             Err(refused) => refusal = refused,
//!         }
//!     }
//!     Err(refusal.into())
//! }
//!
//! # async fn ask(address: &'static str) -> Result<&'static str, BoxError> {
//! #     if address == "10.0.0.1" { Err("down".into()) } else { Ok(address) }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let nodes = nodes(&["10.0.0.1", "10.0.0.2"])?; // the first one is down
//! for _ in 0..3 {
//!     assert!(call(&nodes).await.is_err());
//! }
//! assert_eq!(call(&nodes).await?, "10.0.0.2");
//!
//! nodes[1].circuit.trip(); // its connection was lost, say
//! let refused = call(&nodes).await.unwrap_err();
//! assert!(matches!(Rejection::find(&*refused), Some(Rejection::CircuitOpen { retry_after: Some(_), .. })));
//! # Ok(())
//! # }
//! ```
//!
//! - A permit is judged by the same table, and by the same code, as a call of a layer.
//! - A choice that goes by [`Circuit::is_closed`] alone never asks an open target again: a circuit closes by probes only. Let a
//!   call go there, or a probe of your own, once [`Circuit::retry_after`] is zero.
//! - The metrics are those below, with what all circuits of one name have come to together; the label `layer` is the name
//!   by `named`.
//!
//! # When to use something else
//!
//! With several servers behind one service, a circuit for each of them (`build_keyed`, or [without a layer](#without-a-layer))
//! that feeds the choice of a server is better than one that refuses all. Against overload, a [throttle](crate::ThrottleLayer) or an adaptive
//! limit sends less instead of nothing.
//!
//! # Knobs
//!
//! | knob | unit | default |
//! | --- | --- | --- |
//! | `window_of_time`, `window_of_calls` | duration, or calls | 10 s |
//! | `minimum_calls` | calls in the window | 20 |
//! | `failure_ratio` | share of the calls in the window | 0.5 |
//! | `slow_calls` | share of the calls, and how long is slow | 0.8 longer than 10 s |
//! | `consecutive_failures` | failures in a row | off |
//! | `overload_counts` | whether overload is a failure | true |
//! | `open_for` | [`Backoff`](crate::Backoff) | 5 s doubling to 60 s, equal jitter |
//! | `probes` | calls | 5 |
//! | `probe_timeout` | duration | 10 s |
//! | `mode` | [`Mode`] | normal |
//! | `on_transition` | listener, outside all locks | none |
//! | `classifier` | [`Classify`](crate::Classify) | [`ByError`](crate::ByError) |
//! | `named` | label `layer` of its metrics and events | `circuit_breaker` |
//!
//! Metrics: `palisade_circuit_transitions_total{layer, to}`, `palisade_circuit_refused_total{layer}`,
//! `palisade_circuit_suppressed_total{layer}` (would have opened in [`Mode::MetricsOnly`]), and the gauge
//! `palisade_circuits_open{layer}`: circuits that are open or half-open. State changes are tracing events too: `warn` when
//! it opens, else `info`.
//!
//! The window of ten buckets and the rule "ratio or failures in a row" follow [Linkerd]; slow calls, modes and bounded
//! probes follow [resilience4j]. Longer waits at each opening are those of an exponential backoff.
//!
//! [Linkerd]: https://linkerd.io/2/reference/circuit-breaking/
//! [resilience4j]: https://resilience4j.readme.io/docs/circuitbreaker

mod change;
mod circuit;
mod circuits;
mod future;
mod layer;
mod permit;
mod rules;
mod service;
mod state;
#[cfg(test)]
mod tests;

pub use self::{
    change::{Cause, CircuitState, Mode},
    circuit::{Circuit, CircuitSnapshot, Transition},
    circuits::Circuits,
    future::BreakerFuture,
    layer::{CircuitBreakerBuilder, CircuitBreakerLayer},
    permit::CircuitPermit,
    service::CircuitBreaker,
};
