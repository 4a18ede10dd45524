//! Overload: which layer when, and what becomes of a service with them and without.
//!
//! A service that is asked for more than it can do should do as much as it can, the most important first, and be as before
//! when it is over. By itself it does not. Its queue grows until whoever asked has given up; it works on what nobody
//! waits for any more; those who gave up ask again. Then it is busy with that, long after what caused it has
//! passed: a *metastable failure*. Everything below was simulated: a server of 50 workers that take 20 ms for an
//! answer, with the layers as they are, and, for comparison, with what is usual: a timeout and three attempts.
#![doc = ""]
#![doc = include_str!("../docs/overload/five_times.svg")]
#![doc = ""]
//! # Which to use when
//!
//! | you have | use | why |
//! | --- | --- | --- |
//! | a service that can be asked for more than it can do, in your process or behind a client of yours | [`ShedLayer`] right outside of an [`AdaptiveConcurrencyLayer`] | **the recommended pair**: the limit finds how many calls the service can work on; the queue before it is short, by priority, and refuses the rest at once |
//! | a number that you know, such as the connections of a pool | [`ShedLayer`] over tower's `ConcurrencyLimit` | the same, as long as the number is right; at four times the right one only 43% of the critical calls are served when the service becomes three times slower, where the pair serves all |
//! | calls that all matter the same | tower's `LoadShed` over an [`AdaptiveConcurrencyLayer`] | the same goodput, and no queue |
//! | a service of somebody else's that says when it is overloaded (HTTP 429 or 503, Cassandra's `Overloaded`) | [`ThrottleLayer`], in each of its clients | to refuse costs it something too: a server that could do 77% of its work beside the refusals does 95% |
//! | many callers that ask for the same | [`CoalesceLayer`] | one answer for all of them |
//! | a rate that was agreed on, or a share for each tenant | [`RateLimitLayer`] | it asks nothing about load |
//! | a service that is down, rather than busy | [`CircuitBreakerLayer`] | it stops asking |
//! | repeats of any kind | a [`Budget`] for all of them together | at total failure 1.08 attempts a call, where three attempts each are 3.0 |
//!
//! They do not fight, if each has its own sign to go by, and does not take another's refusals for the service's:
//!
//! - The adaptive limit goes by latency and by what the service drops. What it has no place for it does not refuse: it is not
//!   ready. The shed layer goes by how long calls wait for that. So one of them measures the service, and the other
//!   one the queue before it.
//! - The throttle goes by the service's own answers of overload. Within one stack it has nothing to do while the pair
//!   keeps the service from being overloaded: the figures with it and without it are the same. It is for the other end of a
//!   wire, where the service sheds.
//! - What one of them refuses is [`refused_here`](crate::Class::is_refused_here): a retry in the same stack does not repeat it, a breaker
//!   does not count it, and neither do the throttle and the limit.
//! - One thing at a time is to answer one sign. Where a throttle answers overload, tell the breaker that
//!   [`overload_counts(false)`](crate::breaker::CircuitBreakerBuilder::overload_counts).
//!
//! # The recommended stack
//!
//! ```
//! use std::time::Duration;
//! use palisade::{
//!     AdaptiveConcurrencyLayer, Budget, DeadlineLayer, Drain, Envelope, Priority, RetryLayer, ShedLayer, TimeoutLayer,
//! };
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let (drain, budget) = (Drain::new(), Budget::default());
//! let limit = AdaptiveConcurrencyLayer::default();
//! let (shed, limits) = (ShedLayer::default().deadline_aware(), limit.handle());
//! let service = ServiceBuilder::new()
//!     .layer(drain.layer())                                // no new work once the process is to end
//!     .layer(DeadlineLayer::new(Duration::from_secs(1)))
//!     .layer(RetryLayer::within(&budget))                  // what waits for a repeat holds no place
//!     .layer(shed)                                         // who waits, in which order, and who is refused
//!     .layer(limit)                                        // how many at once: it goes by the latency of single attempts
//!     .layer(TimeoutLayer::new(Duration::from_millis(300)))
//!     .service(service_fn(|request: Envelope<u32>| async move { Ok::<_, BoxError>(*request + 1) }));
//!
//! let request = Envelope::new(41).priority(Priority::Critical);
//! assert_eq!(service.oneshot(request).await?, 42);
//! assert_eq!(limits.snapshot().in_flight, 0);
//! # Ok(())
//! # }
//! ```
//!
//! Shed and limit stand *inside* the retry: the latency of an attempt is what tells of the service, and a call that waits
//! before its next attempt should not hold a place meanwhile. They have to be neighbours, shed outside: it learns
//! from the readiness of what is right below it, and layers that are always ready hide that.
//!
//! Say how important a request is ([`HasPriority`](crate::HasPriority)). Where all are `Normal`, a fifth of everything is served at five times
//! the load. Where a tenth is `Critical`, all of that is.
//!
//! # Many clients of one server
//!
//! No client can protect a server from the others. The server needs the pair before its own work, and has to refuse early;
//! then a throttle in each client keeps the refusals from becoming the work. A thousand clients, each with a throttle
//! and a budget of its own:
#![doc = ""]
#![doc = include_str!("../docs/overload/thousand_clients_flood.svg")]
#![doc = ""]
//! Three things are easily missed there:
//!
//! - **A throttle for each priority.** The server refuses the least important first, which says nothing of the others. One throttle for
//!   all refuses critical calls at random: little more than a third of them are served, and 99.9% with
//!   `ThrottleLayer::builder().build_keyed(4, |request: &Request| request.priority())`.
//! - **What clients may do in any case adds up.** `min_passes_per_second` of a throttle counts for each client and key: a thousand clients with
//!   four priorities and one pass a second are 4,000 calls a second. `reserve_per_second` and `burst` of a [`Budget`] count for each client as
//!   well: with the defaults a thousand clients may send 1,000 repeats a second, and 50,000 at once. Set them so that all clients
//!   together stay at a few percent of what the server can do.
//! - **A throttle needs a server that refuses.** Before one that lets calls wait for seconds, it is not told in time: it does nothing there.
//!
//! # What becomes of them
//!
//! Each story is a test (`tests/simulation`), which also asks that it ends badly without the layers. *Back* is how long after the
//! trouble calls are answered as before.
//!
//! | story | with what is usual | with the layers |
//! | --- | --- | --- |
//! | five times the capacity for 25 s | goodput 0%; never back | goodput 99.7% of the capacity, all critical calls, p99 68 ms (57 before); back at once |
//! | the server stalls for 2 s | never back | back in 0.8 s |
//! | an outage of 10 s, and all callers come back at once | never back | back in 1.2 s |
//! | answers take three times as long, by and by | goodput 13%; never back | all critical calls, all that the server can do; back at once |
//! | most reads are for one key | goodput 0% | all answered, p99 52 ms |
//! | one of three replicas is 20 times slower | 96% answered, p99 352 ms | all answered, p99 62 ms |
//! | 1,000 clients offer five times the capacity | goodput 0%; never back | goodput 95%, critical calls 99.9% from the second second on; back in 2.5 s |
//! | 1,000 clients, and the server stalls for 2 s | never back | back in 2.5 s |
//! | everything fails | 3.0 attempts a call | 1.08 attempts a call; back in 1.2 s |
//!
//! The sick replica is kept out by tower's `balance::p2c` over an [`AdaptiveConcurrencyLayer`] for each replica: one whose limit is reached is
//! not ready, and the others are chosen.
#![doc = ""]
#![doc = include_str!("../docs/overload/sick_replica.svg")]
#![doc = ""]
//! The other plots, the figures, and what each layer does alone are in `layers/docs/overload` of the repository; `cargo run --release
//! -p overload-simulation` makes them anew. In a plot nothing is drawn below the lowest line: what is zero lies on it.
//!
//! # Sources
//!
//! *Handling Overload* and *Addressing Cascading Failures* (Google, *Site Reliability Engineering*, chapters 21 and 22); Bronson et al., *Metastable
//! Failures in Distributed Systems* (2021); Brooker, *Metastability and Distributed Systems* (2021). Each layer names its own.
//!
//! [`ShedLayer`]: crate::ShedLayer
//! [`AdaptiveConcurrencyLayer`]: crate::AdaptiveConcurrencyLayer
//! [`ThrottleLayer`]: crate::ThrottleLayer
//! [`CoalesceLayer`]: crate::CoalesceLayer
//! [`RateLimitLayer`]: crate::RateLimitLayer
//! [`CircuitBreakerLayer`]: crate::CircuitBreakerLayer
//! [`Budget`]: crate::Budget
