//! A limit on how many calls are in flight: a bulkhead.
//!
//! Place it outside of what has room for so many calls and no more, and keep the limit of one tenant, table or node from using up
//! what is for all. A call without a place waits in line for one, for a while; or is refused at once, if you want nobody to wait.
//!
//! ```
//! use std::{num::NonZeroU32, time::Duration};
//! use palisade::{ConcurrencyLimitLayer, Rejection};
//! use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let layer = ConcurrencyLimitLayer::builder().limit(1).max_waiting(0).build()?;
//! let handle = layer.handle();
//! let mut service = layer.layer(service_fn(|_: &str| async { Ok::<_, BoxError>(()) }));
//!
//! let first = service.ready().await?.call("first");
//! let refused = service.ready().await?.call("second").await.unwrap_err();
//! assert_eq!(Rejection::find(&*refused), Some(Rejection::ConcurrencyLimited));
//! assert_eq!(handle.snapshot().in_flight, 1);
//!
//! first.await?;
//! service.ready().await?.call("third").await?;
//!
//! handle.set_limit(100)?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it does
//!
//! - A call takes its place when it is made, and gives it back when it is answered, or dropped.
//! - Without a place it joins a line. A place that comes free is handed to the front of it, in the order of arrival (of the first poll): who comes
//!   later does not overtake, and nobody else is woken.
//! - Where `max_waiting` calls are in line already, the call is refused at once with
//!   [`Rejection::ConcurrencyLimited`](crate::Rejection::ConcurrencyLimited). With `max_waiting(0)` nobody waits, and no timer and no
//!   clock is touched.
//! - A wait that lasts for `queue_timeout`, or, with `deadline_aware()`, to the deadline of the request, ends with
//!   [`Rejection::TimedOut`](crate::Rejection::TimedOut), scope `Queue` in both cases: unlike a deadline that passes during the
//!   call, it says that the request was not sent. A place that is there when the wait ends still counts.
//! - A call that waits or was refused holds no place in the inner service, which is readied after the place was taken.
//! - Readiness: always ready; waits inside its future. It hides the readiness of what is below: to shed load on
//!   readiness, as tower's `LoadShed` does, place that below this layer.
//! - Dropping the response future drops the inner one and then gives its place to the next in line.
//! - The limit can be changed while it is in use, by the handle: raised, it lets as many of those in line go on as there is room for; lowered, it lets
//!   those in flight finish.
//!
//! A future that is in line and is never polled again holds a place once its turn has come, as with tower's semaphore: drop it, or
//! poll it. It holds up nobody behind it otherwise.
//!
//! # When to use something else
//!
//! tower's `ConcurrencyLimit` waits in `poll_ready`, for as long as it takes: right below a `LoadShed` or a `Buffer`. To limit
//! calls per second, whatever their length, use [`RateLimitLayer`](crate::RateLimitLayer).
//!
//! # Knobs
//!
//! | knob | unit | default |
//! | --- | --- | --- |
//! | `new(limit)`, `limit` | calls in flight, by key, from 1 to 1,000,000 | none: has to be set |
//! | `max_waiting` | calls in line, by key, to 1,000,000 | 1,000 |
//! | `queue_timeout` | duration, to an hour; timers are good to about 1 ms | 1 s |
//! | `deadline_aware()` | a wait is bounded by the request's deadline | off: any request will do |
//! | `build_keyed(max_keys, key)` | a limit for each of at most so many keys | one limit for all |
//! | `named` | label `layer` of its metrics | `concurrency_limit` |
//!
//! Metrics: `palisade_concurrency_refused_total{layer}` counts calls that were refused at once,
//! `palisade_timeouts_total{layer, scope="queue"}` waits that ran out, `palisade_concurrency_waited_total{layer}` calls that joined the
//! line; the gauge `palisade_concurrency_waiting{layer}` tells how many are in it, all keys together. A call that gets its place at once
//! touches none: what is in flight is in the [snapshot](ConcurrencyLimitHandle::snapshot).
//!
//! The pattern is that of Michael Nygard's *Release It!*, as in resilience4j's semaphore bulkhead.

mod bulkhead;
mod future;
mod layer;
mod service;

pub use self::{
    bulkhead::{Bulkhead, ConcurrencyLimitSnapshot},
    future::ConcurrencyLimitFuture,
    layer::{
        ConcurrencyLimitBuilder, ConcurrencyLimitHandle, ConcurrencyLimitLayer, KeyedConcurrencyLimitHandle,
        KeyedConcurrencyLimitLayer,
    },
    service::ConcurrencyLimit,
};
