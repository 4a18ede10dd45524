//! The local datacenter first, and another one when it cannot serve.
//!
//! One session has connections to the nodes of all datacenters. As long as the local one can serve, it gets everything. When it
//! cannot, requests carry the name of another datacenter, whose nodes then coordinate: `LOCAL_QUORUM` means that one's replicas.
//!
//! ```no_run
//! use std::time::Duration;
//! use tower::ServiceBuilder;
//! use tower_cassandra::{Cassandra, Client, Timeouts, failover::FailoverLayer, layers::*};
//!
//! # async fn example() -> Result<(), tower_cassandra::Error> {
//! let cassandra = Cassandra::builder().contact_point("10.0.0.1").datacenter("dc1").connect().await?;
//! let failover = FailoverLayer::builder().remote("dc2").remote("dc3").build(&cassandra)?;
//! let handle = failover.handle();
//! let client = Client::new(
//!     ServiceBuilder::new()
//!         .layer(DeadlineLayer::new(Timeouts::total(Duration::from_secs(2))))
//!         .layer(failover)
//!         .layer(RetryLayer::default())
//!         .layer(TimeoutLayer::new(Timeouts::attempt(Duration::from_millis(300))))
//!         .service(cassandra),
//! );
//! assert_eq!(&*handle.active(), "dc1");
//! # let _ = client;
//! # Ok(())
//! # }
//! ```
//!
//! # What it does
//!
//! - **Away at once.** When the nodes of the local datacenter that are up cannot serve the level, or after so many `failures` in a row,
//!   the first of the others that is well becomes the active one. It stays that until it cannot serve, or the local one is back.
//! - **Whether a datacenter can serve** is worked out from the ring, as a coordinator does: of each keyspace that counts, the
//!   replicas of at least `min_servable` of the token ranges have to be enough for the level. A node is up if the driver has a connection
//!   to it and, where a [health monitor](crate::health) probes, if it is not ejected; to go to a datacenter, or back, its circuit has to be
//!   closed besides. What a filter of the driver's excludes counts as a replica that is up. That is looked at every `look_every`.
//! - **A call that failed is sent once more, elsewhere**, if its class and idempotence permit that, there is time left, and the
//!   `budget` pays. So calls succeed from the first moment on, before it is known that a datacenter is gone.
//! - **What fails counts** if another datacenter may do better: nobody is reached, time runs out (also if the caller gives up at the
//!   deadline), too few replicas are up or answer. Being overloaded does not: to move a load that is too much for one datacenter to
//!   another is how both are lost.
//! - **Back slowly.** When the local datacenter has been well for `back_after` without interruption it gets a twentieth of what is
//!   idempotent, then more and more, and everything after `ramp`. A failed trial costs its caller nothing but time. If `failures` in a row
//!   come of it, or if it has to be left again soon after, the next wait is twice as long, up to eight times. Between any two switches is at
//!   least `hold`.
//! - **What the active one cannot serve**, since the keyspace has no replicas there or the level is not mapped, is sent to the first
//!   other one that is well and can.
//! - **What is not served elsewhere** stays in the local datacenter whatever happens, and if it fails, its error says why: a level that
//!   counts replicas of all datacenters (unless `remote_with` maps it); a keyspace without replicas there, and a batch of which
//!   one member is in such a keyspace; schema changes, `TRUNCATE` and
//!   permissions; lightweight transactions and serial reads (unless [`allow_serial`](FailoverBuilder::allow_serial)). What names its
//!   own datacenter ([`Request::with_datacenter`](crate::Request::with_datacenter)) passes untouched.
//! - A load balancing policy or an execution profile that a statement carries is stronger than the datacenter of the request.
//! - Pages of one result may come of different datacenters: the paging state is valid in all.
//! - The other datacenter may not have everything yet: what was written at `LOCAL_QUORUM` in one reaches the next a little later.
//!
//! # Place
//!
//! Outside of the retry, whose attempts are all made in the datacenter that was chosen; inside of what coalesces, and of the
//! deadline. Give attempts a timeout inside, so that a datacenter that hangs leaves time for another one. A circuit breaker between this and
//! the session should have a key by [`Request::datacenter`](crate::Request::datacenter), or it refuses what another could serve.
//!
//! Readiness is that of the service below. A repeat takes a clone of that, and waits for its readiness inside the future.
//! Dropping the future drops the call that is under way.
//!
//! # Knobs
//!
//! | knob | unit | default |
//! | --- | --- | --- |
//! | `local` | name | the session's |
//! | `remote`, `remote_with` | name, and a mapping of levels; in order, 15 at most | none: at least one is needed |
//! | `keyspace` | name of one that there is; several may be added | all with replicas in several of the datacenters |
//! | `consistency` | level that must be servable | the session's, or `LOCAL_QUORUM` |
//! | `min_servable` | share of the token ranges | 1.0 |
//! | `failures` | failed calls in a row | 5 |
//! | `back_after` | duration | 10 s |
//! | `ramp` | duration | 5 s |
//! | `hold` | duration | 2 s |
//! | `look_every` | duration, from 10 ms | 200 ms |
//! | `allow_serial` | whether | false |
//! | `budget` | [`Budget`](palisade::Budget) | none: each failed call may be sent once more |
//! | `named` | label `layer` | `failover` |
//!
//! The [handle](FailoverHandle) tells which datacenter serves, holds one for an operator, and switches the layer off.
//!
//! # Errors
//!
//! Its own error is [`Error`](crate::Error). It adds to the error of a call why that was not sent elsewhere, or what came of it. Where
//! both calls failed, the error is the last one, unless that is certain to have done nothing and the first is not.
//!
//! # Metrics
//!
//! `tower_cassandra_failovers_total{layer, from, to}` counts switches, `tower_cassandra_failover_requests_total{layer, datacenter}`
//! requests, `tower_cassandra_failover_repeats_total{layer, from, to}` calls that were sent once more; the gauge
//! `tower_cassandra_failover_active{layer, datacenter}` is 1 for the datacenter that serves. Each switch is one tracing event, a warning on the
//! way out and an information on the way back. The client's span has the field `cassandra.failover.datacenter` if another datacenter
//! has served, and the [ledger](crate::ledger) names the datacenter of each attempt.
//!
//! # Cost
//!
//! While the local datacenter serves: one read of an atomic, two counts, and a copy of the request that shares its values.
//!
//! # When to use something else
//!
//! With one datacenter there is nothing to choose. Where the application runs in each datacenter and a load balancer before it can lead
//! users to another one, that is the better place, since it moves the application along with its data.

mod builder;
mod datacenters;
mod eligible;
mod figures;
mod future;
mod handle;
mod service;
mod shared;
mod state;
#[cfg(test)]
mod tests;

pub use self::{
    builder::FailoverBuilder,
    eligible::local_levels,
    future::FailoverFuture,
    handle::{DatacenterSnapshot, DatacenterState, FailoverHandle, FailoverSnapshot},
    service::{Failover, FailoverLayer},
};

/// Why another datacenter serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SwitchCause {
    CannotServe,
    Failures,
    Recovered,
    Operator,
}

impl SwitchCause {
    const fn as_str(self) -> &'static str {
        match self {
            Self::CannotServe => "too few nodes are up in the one before",
            Self::Failures => "calls have failed in the one before",
            Self::Recovered => "it has been well for long enough",
            Self::Operator => "an operator wants it",
        }
    }
}
