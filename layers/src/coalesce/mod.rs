//! Calls for the same thing, made at the same time, share one answer: single flight.
//!
//! When something popular has just fallen out of a cache, or a page that everybody opens is slow, a thousand callers ask the service the same
//! question at once. With this layer one of them asks, and all of them get the answer.
//!
//! ```
//! use std::{sync::atomic::{AtomicU32, Ordering}, time::Duration};
//! use palisade::CoalesceLayer;
//! use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
//!
//! struct Get { user: u64, write: bool }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! static CALLS: AtomicU32 = AtomicU32::new(0);
//! // Reads share answers; what changes something does not.
//! let layer = CoalesceLayer::new(|get: &Get| (!get.write).then_some(get.user));
//! let handle = layer.handle();
//! let mut users = layer.layer(service_fn(|get: Get| async move {
//!     CALLS.fetch_add(1, Ordering::Relaxed);
//!     tokio::time::sleep(Duration::from_millis(5)).await;
//!     Ok::<_, BoxError>(format!("user {}", get.user))
//! }));
//!
//! let first = users.ready().await?.call(Get { user: 7, write: false });
//! let second = users.ready().await?.call(Get { user: 7, write: false });
//! let (first, second) = tokio::join!(first, second);
//! assert_eq!((first?, second?), ("user 7".to_owned(), "user 7".to_owned()));
//! assert_eq!(CALLS.load(Ordering::Relaxed), 1);
//! assert_eq!(handle.snapshot().joined, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # What it does
//!
//! - The first call of a key leads: its request goes to the service, and its own caller polls it, as without this layer. Calls
//!   of that key that are made before the answer is there follow: they are woken once, when it is.
//! - Each gets a copy of the answer. An error that has to be shared becomes a [`SharedError`], from which the
//!   service's error type is made; a caller whom nobody followed gets the error itself.
//! - When the leader gives up, by a timeout or by dropping its future, the flight goes on in a task of its own for those who follow. It is dropped when
//!   nobody waits for it any more. So nobody fails by the leader's time limit.
//! - When the leader panics, or gives up where there is no tokio runtime, the next follower leads, with its own request.
//! - Requests with a deadline: say `deadline_aware()`. Each call ends then at its own deadline, with
//!   [`Rejection::TimedOut`](crate::Rejection::TimedOut), scope `Total`, and what is further in sees none: the leader's is not that of the others. A call without one follows until
//!   its flight is `longest` old; one that leads is bounded by what would bound it without this layer.
//! - What is kept is bounded by the calls under way, and by `max_flights`: beyond that, calls go through by themselves. Up to 512 boxes
//!   for the futures of calls are kept for use again.
//! - Readiness: always ready; waits inside its future. It hides the readiness of what is below: to shed load on
//!   readiness, as tower's `LoadShed` does, place that below this layer. A call that follows holds no place in the inner service.
//! - Dropping the response future: see above. The last one who waits drops the inner future with its own, at once.
//!
//! A leader that is kept and never polled again holds up those who follow it until their own limits. Drop it, or poll it; and do not wait for
//! a call while you hold another of the same key unpolled. A call that, further in, comes to ask for its own key waits for itself.
//!
//! # How old an answer can be
//!
//! A follower gets an answer whose call began before its own. So it may not see what was written meanwhile, **not even by itself**:
//! write, then read, and the read may join a flight that began before the write. Where that matters, have the key function say
//! `None`, or put a version into the key. `join_within` bounds it: a call does not join a flight that is older than this, and begins the
//! next one. The key has to hold all that the answer depends on: who asks, with which rights, and at which consistency.
//!
//! # Where to place it
//!
//! Outside of the retry, so that a flight with all its attempts is shared, and inside of what bounds or counts each caller: the deadline, the
//! rate limit. A deadline further out ends each caller at its own, with or without `deadline_aware()`; only with it do the layers further in not see the
//! leader's.
//!
//! # When to use something else
//!
//! Not for writes. For answers that may be older than the call, use a cache, with this layer inside it.
//!
//! # Knobs
//!
//! | knob | unit | default |
//! | --- | --- | --- |
//! | `new(key)`, `builder(key)` | the key of a request, or `None` to share nothing | none: has to be given |
//! | `longest` | duration, to an hour; timers are good to about 1 ms | 30 s |
//! | `join_within` | duration, below `longest` | half of `longest` |
//! | `max_flights` | flights at once, to 1,000,000 | 10,000 |
//! | `deadline_aware()` | each call ends at its request's deadline | off: any request will do |
//! | `named` | label `layer` of its metrics | `coalesce` |
//!
//! Metrics: `palisade_coalesce_joined_total{layer}` counts calls that followed, `palisade_coalesce_detached_total{layer}` flights that outlived
//! their leader, `palisade_coalesce_passed_total{layer}` calls that found too many flights, and
//! `palisade_timeouts_total{layer, scope="total"}` calls that ran out of time here. A call that leads touches none: what is under way is in the
//! [snapshot](CoalesceHandle::snapshot).
//!
//! The pattern is Go's [`singleflight`]; that a flight outlives its leader is groupcache's way without its flaw, where a leader that gives up
//! fails all.
//!
//! [`singleflight`]: https://pkg.go.dev/golang.org/x/sync/singleflight

mod detached;
mod follower;
mod followers;
mod future;
mod layer;
mod leader;
mod service;
mod shared_error;
mod state;
#[cfg(test)]
mod tests;

pub use self::{
    future::CoalesceFuture,
    layer::{CoalesceBuilder, CoalesceHandle, CoalesceLayer, CoalesceSnapshot},
    service::Coalesce,
    shared_error::SharedError,
};
