//! Which nodes are well, what can be served by those that are, and who is told.
//!
//! ```no_run
//! use std::time::Duration;
//! use scylla::statement::Consistency;
//! use tower_cassandra::{Cassandra, health::HealthMonitor};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let cassandra = Cassandra::connect("127.0.0.1:9042").await?;
//! let health = HealthMonitor::builder()
//!     .on_transition(|change| eprintln!("{change}"))
//!     .start(&cassandra)?;
//! health.warm_up(Duration::from_secs(10)).await?;
//!
//! // For `/ready`, and for `/health`.
//! let readiness = health.readiness("app", Consistency::LocalQuorum);
//! assert!(readiness.ready, "{:?}", readiness.reason);
//! assert!(health.liveness().alive);
//! // For people.
//! for node in &health.report().nodes {
//!     println!("{} is {}: {}", node.address, node.state, node.cause);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What it does
//!
//! - **Every node is probed**, also one that gets no traffic, by the cheapest question there is (`SELECT key FROM system.local`), asked of that
//!   node only, once, and with a time limit of its own. A probe whose outcome is not what the node's state says is followed by
//!   another one soon, and so is a connection that was made anew.
//! - **A node has a state**: `Starting` until it has answered, `Up`, `Degraded` or `Down`. Bad news counts at once and good news when it has
//!   lasted:
//!
//!   | becomes | when |
//!   | --- | --- |
//!   | `Down` | `down_after` probes in a row have failed, or the driver has lost its last connection |
//!   | `Degraded` | a probe failed; `down_after` in a row were slow; its circuit is open though it answers; many requests to it fail |
//!   | `Up` from `Down` | `up_after` probes in a row were answered |
//!   | `Up` from `Degraded` | the same, none of them slow, and nothing else is against it |
//!
//!   For the better it changes only after `minimum_stay`, so that a node which comes and goes is not told of for ever. One that has
//!   left the cluster has no state: the report leaves it out, and no transition tells of it.
//! - **Probes and traffic know of each other.** A node whose circuit is open is probed when its circuit wants it, and good probes close
//!   the circuit before traffic comes back; as long as a monitor runs, no request is spent on that. A node that hangs while it has
//!   connections, and that probes have found `Down`, has its circuit opened, also if it was `Down` before since it had no connections.
//! - **It tells**: by [`transitions`](HealthMonitor::transitions), a stream; by callbacks, which cannot hold it up; by tracing events, `info` for
//!   what is better and `warn` for what is worse; by a [`report`](HealthMonitor::report), which can be serialised.
//! - **It ends** with [`stop`](HealthMonitor::stop), or a quarter of a second after the last clone of the [`Cassandra`](crate::Cassandra) is dropped;
//!   a probe that is under way keeps the session for as long as it takes, and no longer than `timeout`. Dropping the monitor's handles does not end it.
//!
//! # Readiness
//!
//! [`readiness`](HealthMonitor::readiness) counts as a coordinator does: it takes the replicas of each range of the ring, how many of
//! them the level needs, and which nodes have answered; and a node has to be up that can coordinate, in the session's datacenter if one is
//! named. What is not so simple:
//!
//! - A local level means the datacenter of the coordinator. Where none is named, it is enough if some datacenter can serve.
//! - A keyspace without replicas in the datacenter cannot be served there at a local level, and the reason says so.
//! - With `SimpleStrategy` over several datacenters, a local quorum is the quorum of all replicas, counted among those nearby, as
//!   Cassandra does it.
//! - More replicas than nodes are missed as if those nodes were down, except at the serial levels, where the replicas count that there are.
//! - Keyspaces of `ScyllaDB` with tablets: the driver knows the replicas of those partitions only that were asked for. So the numbers of
//!   replicas and nodes decide, and the share is how likely a partition can be served if any nodes are as likely as others. With nodes
//!   down in so many datacenters that there would be over 1,024 combinations, that of a level that counts replicas of several of them
//!   is at most this; whether it is all or nothing is exact.
//! - `LocalStrategy`, and strategies that nobody knows here, are served as long as some node is up.
//! - Nodes that a filter of the driver's excludes are not probed. They count as replicas that are up, and cannot coordinate.
//!
//! # The layer
//!
//! [`HealthMonitor::layer`] refuses a read, write or batch at once if nothing of its keyspace can be served at its level: in place of a
//! wait for timeouts, and of retries on top. The error is [`Unavailable`](crate::ErrorKind::Unavailable), names keyspace, level and replicas, and tells that
//! nothing was applied. A request passes
//!
//! - while no node is down, at the price of one read of an atomic: what a cluster cannot serve even then, it says itself;
//! - if a part of its keyspace can be served (see [`HealthLayer::min_share`]), or its keyspace is not known, as that of a batch over
//!   several, or of a text that names none where the session has none;
//! - until the cluster says so too: a node that is not reached from here may well be reached by the others, and a coordinator then serves
//!   all the same. So it takes three requests in a row of the same keyspace, level and datacenter that failed as such do (no node, too few
//!   replicas, time has run out), since a node is down; and one request every `trial_every` passes then to find out. When one is served, all pass;
//! - in [`Mode::ReportOnly`], or when the monitor has ended.
//!
//! A node is down for that until it answers again, though its state is `Down` for a while longer; and before the first probes have ended
//! nothing is refused.
//!
//! Place it outside of the retry and inside of the deadline; outside of it only what tries another datacenter. Readiness is that of the service
//! below. It needs `S::Error: From<tower_cassandra::Error> + HasErrorKind`, which this crate's error and a boxed one are.
//!
//! # Knobs
//!
//! | knob | unit | default |
//! | --- | --- | --- |
//! | `interval` | duration between the probes of a node, at most a day | 5 s |
//! | `timeout` | duration of a probe, shorter than the interval | 1 s |
//! | `confirm_after` | duration after a probe that leaves a doubt | a fifth of the interval |
//! | `jitter` | share of each wait | 0.2 |
//! | `concurrency` | probes under way | 16 |
//! | `down_after`, `up_after` | probes in a row | 2 and 2 |
//! | `slow` | times the median of the other nodes of the datacenter, and a duration | 5 and 50 ms |
//! | `error_rate` | share of at least 20 requests in an interval | 0.5 |
//! | `minimum_stay` | duration | 5 s |
//! | `datacenter` | name | the session's |
//! | `on_transition` | function | none |
//! | `HealthLayer::mode` | refuse or report only | refuse |
//! | `HealthLayer::min_share` | share of the keyspace | 0: refuses only if nothing can be served |
//! | `HealthLayer::trial_every` | duration | 1 s |
//!
//! So a node that hangs is `Degraded` at most 7 s after, and `Down` at most 2.2 s later, if no request has told of it before; and one is
//! `Down` within 0.25 s of when the driver has lost the last connection to it. All times are those of a monotonic clock ([`palisade::Instant`]): setting the machine's clock
//! changes nothing, and after a sleep of the machine each node is probed once.
//!
//! # Metrics
//!
//! | metric | kind | labels |
//! | --- | --- | --- |
//! | `cassandra_health_nodes` | gauge | `datacenter`, `state` |
//! | `cassandra_health_transitions_total` | counter | `datacenter`, `to` |
//! | `cassandra_health_probe_seconds` | histogram of answers | `datacenter` |
//! | `cassandra_health_probe_failures_total` | counter | `datacenter`, `error` |
//! | `cassandra_health_refused_total` | counter | `layer`, `mode` |
//!
//! The monitor looks them up once, so install the recorder before it is started.
//!
//! # Errors
//!
//! [`HealthMonitorBuilder::start`] refuses settings that make no sense, and [`HealthMonitor::warm_up`] tells which nodes are missing. Everything else
//! answers with a reason in plain words.
//!
//! # Sources
//!
//! Failing fast and recovering slowly is how load balancers check health, by "rise" and "fall" of `HAProxy` and the thresholds of Envoy; that a
//! state lasts for a while before it gets better is the damping of route flaps of RFC 2439, without its penalties. What can be served
//! follows `ReplicaPlans.assureSufficientLiveReplicas` of Cassandra 4.1.
//!
//! # When to use something else
//!
//! [Routing](crate::routing) keeps requests away from sick nodes by itself and needs no monitor; with one, it need not spend requests to find
//! out whether they are well again. To hold back requests while a service as a whole fails, use a
//! [`CircuitBreakerLayer`](palisade::CircuitBreakerLayer).

mod builder;
mod evidence;
mod layer;
mod metrics;
mod monitor;
mod outlook;
mod placement;
mod probe;
mod record;
mod report;
mod schedule;
mod servability;
mod servable;
mod state;
mod task;
mod transitions;
mod warm_up;

pub(crate) use self::servability::Servability;
pub use self::{
    builder::HealthMonitorBuilder,
    layer::{HealthFuture, HealthLayer, HealthService, Mode},
    monitor::HealthMonitor,
    report::{DatacenterReport, Liveness, NodeReport, Readiness, Report, Status},
    state::{Cause, NodeState},
    transitions::{Missed, Transition, Transitions},
    warm_up::WarmUp,
};
