//! Shutting down in order: no new calls from a moment on, and the old ones finish.
//!
//! One [`Drain`] is for a whole process. Every stack has its layer, outermost; whoever hears of the end starts the drain, and
//! `main` waits for it.
//!
//! ```
//! use palisade::{Drain, Rejection};
//! use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let drain = Drain::new();
//! let mut service = ServiceBuilder::new()
//!     .layer(drain.layer())
//!     .service(service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
//! let under_way = service.ready().await?.call(41);
//!
//! drain.start(); // SIGTERM, say
//! let refused = service.ready().await?.call(1).await.unwrap_err();
//! assert_eq!(Rejection::find(&*refused), Some(Rejection::Draining));
//!
//! let (answer, report) = tokio::join!(under_way, drain.finish());
//! assert_eq!(answer?, 42);
//! assert!(report.finished);
//! # Ok(())
//! # }
//! ```
//!
//! `layers/examples/graceful_shutdown.rs` in the repository is an axum server that ends like that.
//!
//! # What it does
//!
//! - A call counts from when it is made until it is answered or its future is dropped, whether or not that is polled.
//! - Once the drain has begun, a call is refused at once with [`Rejection::Draining`](crate::Rejection::Draining). None is let in after the
//!   drain was found empty, and none that was let in is forgotten.
//! - Work beside the calls counts while it has a [`DrainGuard`]: [`Drain::guard`] for work that is new and is refused as a call is,
//!   [`Drain::hold`] and a clone of a guard for what belongs to work that was let in, which is not refused while the drain waits. The
//!   body of a response that streams on after the call was answered is such work: put a guard into it.
//! - Coalesced calls of which the leader has given up go on for those who follow, each of which counts by itself.
//! - [`Drain::finish`] waits until nothing is in flight, or for the timeout, which counts from the beginning of the drain, and tells
//!   what is left. What is left goes on, as the tasks are the runtime's; and the drain may still come to its end.
//! - Where there is a grace, [`Drain::is_draining`] and [`Drain::started`] tell of the drain at once, and new calls are let in for
//!   that long: a load balancer goes on sending until it has seen that this process is not ready. [`Drain::refusing`] tells when that
//!   is over.
//! - A drain is for good. What has begun to end cannot be opened again: others have seen it, and act on it.
//! - Readiness: that of the inner service. Who waits for it when the drain begins is let go, and its call refused. What the inner
//!   service holds for a call that was refused is given back, as the service is dropped: no call will reach it any more.
//! - Dropping the response future drops the inner one, and then the call does not count any more. Dropping the future of
//!   [`Drain::finish`] changes nothing.
//!
//! # Where to place it
//!
//! Outermost, so that the wait of a call for a place or a token counts too: only what measures, traces and turns refusals into answers stands
//! further out. It knows no connections: a server closes its own, when `started()` or `refusing()` tells it to.
//!
//! # When to use something else
//!
//! To tell tasks to stop, rather than wait until they have, pass [`Drain::started`] on, or use tokio-util's `CancellationToken`. To
//! wait for tasks that are spawned in one place, its `TaskTracker` is enough.
//!
//! # Knobs
//!
//! | knob | unit | default |
//! | --- | --- | --- |
//! | `timeout` | duration from the beginning, the grace included; timers are good to about 1 ms | 30 s |
//! | `finish_within(timeout)` | the same for one who waits, from its first poll | |
//! | `grace` | duration, to an hour, not longer than the timeout | zero |
//! | `named` | label `layer` of its metrics and events | `drain` |
//!
//! Metrics: the gauge `palisade_drain_draining{layer}` is 1 from when the drain begins, and not there before;
//! `palisade_drain_refused_total{layer}` counts calls and guards that were refused. A call that is let in touches none: what is in flight
//! is in the [snapshot](Drain::snapshot). The beginning and the end are tracing events of level `info`, a timeout one of level `warn`.
//!
//! Waiting for calls to end before a process does is the lame-duck state of Google's *Site Reliability Engineering*, chapter 20. The count is
//! kept in shards that each thread has to itself, and each shard is closed by a bit of the same word.

mod future;
mod guard;
mod handle;
mod layer;
mod report;
mod service;
mod shared;
mod state;
mod wait;

pub use self::{
    future::DrainedFuture,
    guard::{DrainGuard, Tracked},
    handle::{Drain, DrainBuilder},
    layer::DrainLayer,
    report::{DrainReport, DrainSnapshot, Phase},
    service::Drained,
    wait::{Finish, Refusing, Started},
};
