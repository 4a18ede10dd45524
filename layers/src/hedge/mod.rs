//! Sends a request a second time when the first answer is unusually late, and takes the answer that comes first.
//!
//! A few calls are far slower than the rest for reasons of their own: a pause of the server's, a lost packet, a queue
//! behind something large. A second attempt seldom meets the same. Since it begins only when most calls would have been
//! answered, it costs a few percent of extra load.
//!
//! ```
//! use std::{sync::atomic::{AtomicU32, Ordering}, time::Duration};
//! use palisade::{Envelope, HedgeLayer, Idempotence};
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! static CALLS: AtomicU32 = AtomicU32::new(0);
//! let service = ServiceBuilder::new()
//!     .layer(HedgeLayer::builder().fixed_delay(Duration::from_millis(5)).build()?)
//!     .service(service_fn(|_: Envelope<&str>| async {
//!         if CALLS.fetch_add(1, Ordering::Relaxed) == 0 {
//!             tokio::time::sleep(Duration::from_secs(60)).await; // the first one hangs
//!         }
//!         Ok::<_, BoxError>("answer")
//!     }));
//!
//! let read = Envelope::new("read").idempotence(Idempotence::Yes);
//! assert_eq!(service.oneshot(read).await?, "answer");
//! # Ok(())
//! # }
//! ```
//!
//! # What it does
//!
//! - It measures how long calls take from their first poll, and waits for a percentile of that, of the last half minute,
//!   before it sends the request again. All calls through the layer are measured together: give reads and slow writes layers of
//!   their own. While there is no estimate it only measures: for the first three seconds, with too few calls to tell
//!   (twenty for the 95th percentile), or while the estimate is above `max_delay`, when all calls are slow and a
//!   second attempt would only add to that.
//! - Only a request that allows it ([`Why::Hedge`](crate::Why::Hedge)) is sent again. It is asked again just before that
//!   happens. A request of unknown idempotence never allows it.
//! - A second attempt needs room in the layer's own limit, `max_extra_load`, and a token of the shared budget, where one
//!   was given. If either is exhausted the first attempt just goes on. Only what is really sent is paid for.
//! - The answer that comes first counts, and the other attempt is dropped; a breaker further in does not count that. If one of two fails, the other decides, unless
//!   the failure is the caller's ([`Fault::Caller`](crate::Fault::Caller)).
//! - If the first attempt fails before the second has begun, the caller gets the error at once: what to do about failures is
//!   the retry's business.
//! - Measured are answers, attempts that a second one overtook, and failures and dropped calls that took longer than the
//!   estimate. Fast failures are not: they would make it hedge too early.
//! - Readiness: forwards it. The first attempt uses the service that was polled ready; the second one readies a clone of its own
//!   inside the future, while the first goes on.
//! - Dropping the response future drops both attempts.
//!
//! # Where to place it
//!
//! Inside the retry, with the same [`Budget`](crate::Budget), and outside the breaker and the attempt's timeout, so that each attempt
//! has both. The layer takes tokens from a budget that it is given and does not pay in: the
//! [`RetryLayer`](crate::RetryLayer) does that.
//!
//! # When to use something else
//!
//! Not for what may not run twice at once, nor where all requests go to the same place: a second attempt has to have
//! another replica, connection or thread to go to. Against failures use the [`RetryLayer`](crate::RetryLayer).
//!
//! # Knobs
//!
//! | knob | unit | default |
//! | --- | --- | --- |
//! | `percentile` | share of the calls that are faster than the delay, 0.5 to 0.999 | 0.95 |
//! | `fixed_delay` | duration, in place of the percentile | off |
//! | `min_delay` | duration; no shorter delay | 1 ms, which is also the timers' grain |
//! | `max_delay` | duration; no hedging while the estimate is above it | 2 s |
//! | `max_extra_load` | second attempts per call | 0.05, and 10 at once |
//! | `budget` | [`Budget`](crate::Budget) | none |
//! | `classifier` | [`Classify`](crate::Classify) | [`ByError`](crate::ByError) |
//! | `named` | label `layer` of its metrics | `hedge` |
//!
//! Metrics: `palisade_hedges_total{layer, outcome}`, where the outcome is `won` (the second attempt answered first), `lost`
//! (the first did), `failed` (the second attempt failed) or `dropped` (the caller gave up on both);
//! `palisade_hedges_refused_total{layer, reason}` for the reason `limit`, `budget` or `not_allowed`; and the gauge
//! `palisade_hedge_delay_seconds{layer}`.
//!
//! The idea is that of [The Tail at Scale] (Dean and Barroso, 2013); delay, histogram and what is measured follow Finagle's
//! [`BackupRequestFilter`].
//!
//! [The Tail at Scale]: https://research.google/pubs/the-tail-at-scale/
//! [`BackupRequestFilter`]: https://twitter.github.io/finagle/guide/MethodBuilder.html#backup-requests

mod future;
mod layer;
mod service;
mod state;

pub use self::{
    future::HedgeFuture,
    layer::{HedgeBuilder, HedgeHandle, HedgeLayer},
    service::Hedge,
    state::HedgeSnapshot,
};
