//! Refuses the least important work first when there is too much of it.
//!
//! Place it right above what is not always ready: tower's `ConcurrencyLimit`, a `Buffer`, a pool, a balancer. Calls that find it busy
//! wait here for a moment, the most important first. When they are more than it can do, those that matter least are refused at
//! once, so that the others need not wait for them.
//!
//! ```
//! use palisade::{Envelope, Priority, Rejection, ShedLayer};
//! use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let layer = ShedLayer::builder().max_waiting(100).build()?;
//! let handle = layer.handle();
//! let mut service = ServiceBuilder::new()
//!     .layer(layer)
//!     .concurrency_limit(10) // tower's, which is not always ready
//!     .service(service_fn(|request: Envelope<u32>| async move { Ok::<_, BoxError>(*request) }));
//!
//! let report = Envelope::new(1).priority(Priority::Background);
//! assert_eq!(service.ready().await?.call(report.clone()).await?, 1);
//!
//! handle.refuse_below(Some(Priority::Normal)); // an operator knows what is coming
//! let refused = service.ready().await?.call(report).await.unwrap_err();
//! assert!(matches!(Rejection::find(&*refused), Some(Rejection::Shed { .. })));
//! assert_eq!(service.ready().await?.call(Envelope::new(2)).await?, 2);
//! assert_eq!(handle.snapshot().shed[Priority::Background], 1);
//! # Ok(())
//! # }
//! ```
//!
//! # What it does
//!
//! - As long as the service below is ready and nobody waits, a call goes through at once: that costs two looks at an atomic. Else it
//!   waits in line, from its first poll on. The most important go first, and of the same priority those who came first.
//! - One of those in line, the head, asks the service below. When it is served or has gone, the next one is the head, and is woken;
//!   nobody else is. Who is the head stays it: something more important that comes meanwhile is next after it.
//! - A priority is *overloaded* when somebody of it, or of a higher one, has been waiting for longer than `target` at every moment of the
//!   last `interval`. So a burst that is soon over is no overload. It ends when nobody of them waits any more.
//! - An overloaded priority waits for `target` at most, and its newest calls go first: the callers of the oldest have probably given up.
//!   Whatever is less important is refused at once. Nothing changes for what is more important, which waits for `max_wait` at most.
//! - When it comes to an overload, many wait already. Each call that comes then sends two of those away that have been there too
//!   long.
//! - The only one in line is not sent away at the `target`: a place that comes free is never left to nobody.
//! - When `max_waiting` calls wait, a more important one takes the place of the least important, of those the one that has waited
//!   longest, which is refused. Any other one is refused at once.
//! - All of these refusals are [`Rejection::Shed`](crate::Rejection::Shed), with the priority of the call. Only where the deadline of a
//!   request ends its wait, with `deadline_aware()`, it is [`Rejection::TimedOut`](crate::Rejection::TimedOut), scope `Queue`.
//! - Over a slow service, `target` and `interval` are too short to tell a long line from a service that takes its time. So the
//!   layer measures the mean time between two calls that it takes out of the line, and `target` is twice as long at least. `interval`
//!   grows with it. `max_wait` bounds both.
//! - Readiness: always ready, unless the service below is broken for good, or the task has used up tokio's budget and lets others
//!   run first; a call waits inside its future. While others wait, the service below is not even asked. A call that waits holds no
//!   place there.
//! - Dropping the response future drops the inner one, or gives up the place in line. If it was the head, the next one is woken.
//! - A head that is never polled again, nor dropped, holds up the others for its own wait and the target; where it became the head after
//!   they had looked for the last time, until the next call comes, or the first of their own waits is over. A place that the service below
//!   has set aside for it stays so, as with any call that is under way and not polled.
//! - A clock that stands still ends no wait, and sees no overload; calls are still served, and `max_waiting` still bounds them. After a
//!   leap, those in line are taken to have waited for so long.
//!
//! # When to use something else
//!
//! Over a service that is always ready this layer never does anything. What limits calls has to stand right below it, and say by its
//! readiness that it is full, as tower's limits do. [`ConcurrencyLimitLayer`](crate::ConcurrencyLimitLayer) has a line of its own and is
//! always ready: use one or the other.
//!
//! Where all calls matter the same and none shall wait, tower's `LoadShed` does. To limit each tenant, use a
//! [`RateLimitLayer`](crate::RateLimitLayer) by key.
//!
//! # Knobs
//!
//! | knob | unit | default |
//! | --- | --- | --- |
//! | `max_waiting` | calls in line, to 1,000,000 | 1,000 |
//! | `target` | duration, from 1 ms; timers are good to about 1 ms | 10 ms |
//! | `interval` | duration, to an hour | 100 ms |
//! | `max_wait` | duration, to an hour | 1 s |
//! | `newest_first` | the newest calls of an overloaded priority go first | true |
//! | `deadline_aware()` | a wait is bounded by the request's deadline | off: the priority is enough |
//! | `named` | label `layer` of its metrics and events | `shed` |
//!
//! The [handle](ShedHandle) changes the first, the second and the fourth while they are in use, and refuses what an operator says.
//!
//! Metrics: `palisade_shed_total{layer, priority}` counts refusals, `palisade_shed_waited_total{layer}` calls that joined the line, and
//! `palisade_timeouts_total{layer, scope="queue"}` deadlines that passed there. The gauge `palisade_shed_waiting{layer}` tells how many are in
//! line, and `palisade_shed_threshold{layer}` what is refused at once: 0 nothing, 1 background, 2 low and less, 3 normal and less. A call
//! that need not wait touches none. That a priority is overloaded, or no longer is, and each refusal, is a tracing event of level `debug`.
//!
//! # Sources
//!
//! The wait as the sign of overload, and the interval, are those of `CoDel` (Nichols and Jacobson, *Controlling Queue Delay*, ACM Queue
//! 2012), in the form for servers, with the newest first, of Maurer's *Fail at Scale* (ACM Queue 2015). Refusing by priority what a wait of
//! milliseconds shows to be too much is from DAGOR (Zhou et al., *Overload Control for Scaling `WeChat` Microservices*, 2018).
//!
//! With five times the calls that a service of ten places and 5 ms can do, a tenth of them critical and half of normal priority, all critical ones
//! are served, after 2 ms in the middle and 4 ms at the 99th percentile. Normal ones that are served have waited for less than a
//! millisecond in the middle with the newest first, and for 9 ms with the oldest first; as many are served.

mod future;
mod handle;
mod layer;
mod line;
mod overload;
mod service;
mod state;
mod turn;

pub use self::{
    future::ShedFuture,
    handle::{ByPriority, ShedHandle, ShedSnapshot},
    layer::{ShedBuilder, ShedLayer},
    service::Shed,
};
