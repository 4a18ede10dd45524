//! A limit on calls in flight that finds by itself how many the service can work on.
//!
//! Where more calls are sent than a service works on at once, the rest wait in it: each takes longer, and none is done sooner.
//! This layer watches latencies and outcomes, and lets so many calls in that the service always has work, and next to no queue. The
//! queue is then on this side, where something knows what is urgent and what need not be sent any more.
//!
//! ```
//! use palisade::{AdaptiveConcurrencyLayer, Rejection};
//! use tower::{BoxError, Service, ServiceBuilder, ServiceExt, load_shed::LoadShedLayer, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let adaptive = AdaptiveConcurrencyLayer::builder().initial(1).max(200).build()?;
//! let handle = adaptive.handle();
//! let mut service = ServiceBuilder::new()
//!     .layer(LoadShedLayer::new()) // refuses while the layer below is not ready
//!     .layer(adaptive)
//!     .service(service_fn(|_: &str| async { Ok::<_, BoxError>(()) }));
//!
//! let first = service.ready().await?.call("first");
//! let refused = service.ready().await?.call("second").await.unwrap_err();
//! assert!(matches!(Rejection::find(&*refused), Some(Rejection::Shed { .. })));
//! first.await?;
//!
//! handle.hold(50)?; // an operator knows better
//! assert_eq!(handle.snapshot().limit, 50);
//! handle.release();
//! # Ok(())
//! # }
//! ```
//!
//! # What it does
//!
//! - A window of calls ends after a tenth of a second or a few dozen calls, whichever is later, and after a second at the latest (later where calls take
//!   longer than that). At its end the limit moves.
//! - **Up**, by a third at most, where calls are held back and the latency is that of an idle service; by less the longer the
//!   latency; and not at all where not even half of the limit is used. It stays within five times of what is used, or the initial limit if
//!   that is more: a limit that was learned under load is forgotten within a minute.
//! - **Down**, in proportion, where the latency is more than `tolerance` times that of an idle service; by half at most.
//! - **Down** by a tenth where calls are dropped, by up to a half where nearly all are, and by less where that are few calls beside the limit. Once a
//!   window, whatever happens in it. Back up it goes fast to where calls were dropped, and slowly past that.
//! - The latency of an idle service, the *base*, is measured while the layer is in use. Where the limit holds calls back for long, it is halved
//!   every ten seconds or so, for some tenths of a second, and halved again if the latency falls by half. That costs less than one call in a hundred. The
//!   same happens when a limit falls and the latency does not: then the service has become slower, and that is the new base. Such a probe goes no
//!   lower than throughput times base, which is what the service works on without a queue; and when calls begin to be held back, the first
//!   probe waits for two seconds. Where `min` allows nothing lower, the latency at that limit becomes the base.
//! - At a limit of 1 there is no queue of ours to be measured: the limit goes up to try, and the base follows. So it is never stuck.
//!
//! What counts:
//!
//! | outcome | |
//! | --- | --- |
//! | success | its latency, from the call to the answer |
//! | [`Fault::Overload`](crate::Fault::Overload), [`Fault::Unreachable`](crate::Fault::Unreachable), which timeouts further in are too | as a drop, never as a latency |
//! | dropped by its caller before it ended | as a drop, if older than twice the recent latency (1 s before there is one); else not at all |
//! | dropped because a [hedge](crate::hedge) was faster | not at all |
//! | [`Fault::Caller`](crate::Fault::Caller), [`Fault::Server`](crate::Fault::Server): a fast failure tells nothing | not at all |
//! | refused by a layer further in ([`Class::is_refused_here`](crate::Class::is_refused_here)) | not at all |
//!
//! - Readiness: forwarded. `poll_ready` takes a place, waiting in line for one if need be, and then polls the inner service. A service that is
//!   ready holds its place; the call keeps it until it is answered or dropped. A clone has no place. A service that waits, or is ready, and is
//!   dropped gives back what it had; one that is left alone holds one place, as with tower's semaphore, and blocks nobody in line.
//! - Dropping the response future drops the inner one and then gives its place to the next in line.
//! - A clock that stands still ends no window, and the limit stays. One that jumps makes one window wrong, and the next ones right it.
//!
//! # Where to place it
//!
//! Right outside of it belongs what decides who waits and who is refused: tower's `LoadShed`, or a queue that sheds by priority.
//! Without that, callers wait for readiness as long as it takes. Below it belong timeouts of attempts, so that they count as drops at
//! their time. Retries stand outside. tower's `balance::p2c` over services with a layer each sends to those that are ready.
//!
//! # When to use something else
//!
//! Where you know the number, as with connections of a pool, [`ConcurrencyLimitLayer`](crate::ConcurrencyLimitLayer) is simpler, and
//! has a queue. Where very different kinds of calls share the service, a layer for each of them learns sooner. Where calls are so few that
//! there are less than a handful in a second, there is nothing to learn from.
//!
//! Many clients of one server each see the queue of all. One of them that halves its limit does not empty it, so what they take for the base can
//! grow to the latency of a full queue. The server has to bound its queue then, and refuse ([`Fault::Overload`](crate::Fault::Overload)), which this layer answers.
//!
//! # Knobs
//!
//! | knob | unit | default |
//! | --- | --- | --- |
//! | `initial` | calls in flight to begin with | 20 |
//! | `min`, `max` | calls in flight, from 1 to 1,000,000 | 1, 1,000 |
//! | `tolerance` | times the latency of an idle service, from 1 to 10 | 1.5 |
//! | `classifier` | [`Classify`](crate::Classify) | [`ByError`](crate::ByError) |
//! | `named` | label `layer` of its metrics and events | `adaptive_concurrency` |
//!
//! Metrics, all written at the end of a window: the gauges `palisade_adaptive_limit{layer}`, `palisade_adaptive_base_latency_seconds{layer}` and
//! `palisade_adaptive_recent_latency_seconds{layer}`; `palisade_adaptive_decreases_total{layer, reason}` with the reasons `latency` and `drops`; and
//! `palisade_adaptive_probes_total{layer}`. A limit that moves is a tracing event at `debug`.
//!
//! The proportion and its bounds are those of Netflix's [Gradient2]; a base that is measured at a lower limit is from Envoy's
//! [adaptive concurrency]; the bound by what is used from [failsafe-go]; the fast way back up to the last drop from CUBIC.
//!
//! [Gradient2]: https://github.com/Netflix/concurrency-limits
//! [adaptive concurrency]: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/adaptive_concurrency_filter
//! [failsafe-go]: https://failsafe-go.dev/adaptive-limiter/

mod controller;
mod future;
mod layer;
mod limiter;
mod service;
#[cfg(test)]
mod simulation;
mod state;
#[cfg(test)]
mod tests;
mod window;

pub use self::{
    future::AdaptiveConcurrencyFuture,
    layer::{AdaptiveConcurrencyBuilder, AdaptiveConcurrencyHandle, AdaptiveConcurrencyLayer},
    limiter::AdaptiveConcurrencySnapshot,
    service::AdaptiveConcurrency,
};
