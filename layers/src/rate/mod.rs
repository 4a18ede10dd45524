//! A limit on the rate of calls, whose line is short, fair and honest.
//!
//! Place it outside of what it protects: a quota that a server enforces, a tenant's share, a burst that must not reach a
//! cold cache. Calls within the rate pass at once, and a burst of them may come at once. Others wait for their turn, but only if
//! that comes in time; a call that would wait in vain is refused at once and told when to come back.
//!
//! ```
//! use std::time::Duration;
//! use palisade::{RateLimitLayer, Rejection};
//! use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let layer = RateLimitLayer::builder()
//!     .rate(100, Duration::from_secs(1))
//!     .burst(2)
//!     .max_wait(Duration::from_millis(5))
//!     .build()?;
//! let mut service = layer.layer(service_fn(|_: &str| async { Ok::<_, BoxError>(()) }));
//!
//! service.ready().await?.call("first").await?;
//! service.ready().await?.call("second").await?;
//! // The next permit is due in 10 ms, and nobody is to wait for that long here.
//! let refused = service.ready().await?.call("third").await.unwrap_err();
//! let Some(Rejection::RateLimited { retry_after, .. }) = Rejection::find(&*refused) else {
//!     panic!("{refused}")
//! };
//! assert!(retry_after.unwrap() <= Duration::from_millis(10));
//! # Ok(())
//! # }
//! ```
//!
//! A limit for each tenant, by the size of a request, with the deadline of the request in mind:
//!
//! ```
//! use std::time::Duration;
//! use palisade::{Envelope, RateLimitLayer};
//!
//! struct Insert { tenant: u64, rows: u32 }
//!
//! let layer = RateLimitLayer::builder()
//!     .rate(50_000, Duration::from_secs(1))
//!     .weight(|insert: &Envelope<Insert>| insert.rows)
//!     .deadline_aware()
//!     .build_keyed(10_000, |insert: &Envelope<Insert>| insert.tenant)?;
//!
//! // While it is in use:
//! layer.handle().set_rate(20_000, Duration::from_secs(1), None)?;
//! # Ok::<_, palisade::ConfigError>(())
//! ```
//!
//! # What it does
//!
//! - In any stretch of time at most the burst and what the rate earns in it are admitted, to within a nanosecond. Rates that do not
//!   divide a second do not drift.
//! - Who cannot be served at once joins a line. It is served in the order of arrival (of the first poll), and who comes later does not
//!   overtake it. Each who waits has a timer of its own, and is woken by others only if its turn comes earlier than was expected.
//! - Refused at once, with the time until there would be room as `retry_after`: what would wait longer than `max_wait`, or, with
//!   `deadline_aware()`, to its deadline; and what finds `max_waiting` calls in line. A wait that turns out too long because the rate was lowered
//!   meanwhile ends as soon as that is known for the front of the line, and at the latest at its end. All are
//!   [`Rejection::RateLimited`](crate::Rejection::RateLimited).
//! - A request that weighs more than the burst can never be served, and is refused with `retry_after: None`. One that weighs
//!   nothing passes free.
//! - A call that waits or was refused holds no place in the inner service, which is readied after the permits were granted.
//! - Readiness: always ready; waits inside its future. It hides the readiness of what is below: to shed load on
//!   readiness, as tower's `LoadShed` does, place that below this layer.
//! - Dropping the response future gives up its place in line. If it has its permits but the inner service was not called yet, they come
//!   back as far as they have not been earned again since, and no more than that.
//! - A clock that stands still or goes back grants nothing more; one that jumps ahead grants a burst.
//! - The rate can be changed while it is in use, by the handle. Permits that were saved up stay, up to the new burst.
//!
//! Timers are good to about 1 ms, and what is earned while the burst is full is lost. So calls that wait reach the full rate if the burst is
//! larger by one than the permits of 2 ms; at 100 per second and a burst of 1 they reach some 90.
//!
//! A future that is in line and is never polled again holds up those behind it, as with any fair queue: drop it, or poll it.
//!
//! # When to use something else
//!
//! A rate does not know how long calls take: against a server that becomes slow, limit what is in flight. The limit is of this
//! process: divide a quota by the number of processes.
//!
//! # Knobs
//!
//! | knob | unit | default |
//! | --- | --- | --- |
//! | `rate` | permits in a time from 1 ms to 366 days, at most 1e9 per second | none: has to be set |
//! | `burst` | permits at once, from 1 to 1e9 | a tenth of the permits of `rate`, at least 1 |
//! | `max_wait` | duration, to an hour; zero never waits | 1 s |
//! | `max_waiting` | calls in line, by key, to 1,000,000 | 1,000 |
//! | `refuse()` | nobody waits | off |
//! | `weight` | permits for a request | 1 |
//! | `deadline_aware()` | a wait is bounded by the request's deadline | off: any request will do |
//! | `build_keyed(max_keys, key)` | a limit for each of at most so many keys | one limit for all |
//! | `named` | label `layer` of its metrics | `rate_limit` |
//!
//! Metrics: `palisade_rate_limit_refused_total{layer}`; `palisade_rate_limit_waited_total{layer}` counts calls that joined the line;
//! the gauge `palisade_rate_limit_waiting{layer}` tells how many are in it, all keys together. A call that is admitted at once touches none.
//!
//! The algorithm is GCRA, the [generic cell rate algorithm][gcra] of ATM networks (ITU-T I.371), as in the `governor` crate: a
//! leaky bucket whose whole state is one moment.
//!
//! [gcra]: https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm

mod future;
mod layer;
mod limiter;
mod service;
mod state;

pub use self::{
    future::RateLimitFuture,
    layer::{
        EachOne, KeyedRateLimitHandle, KeyedRateLimitLayer, RateLimitBuilder, RateLimitHandle,
        RateLimitLayer, Weigh, WeighFn,
    },
    limiter::{Limiter, RateLimitSnapshot},
    service::RateLimit,
};
