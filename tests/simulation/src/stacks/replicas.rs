//! What is recommended in front of several replicas.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use palisade::{
    AdaptiveConcurrencyLayer, Budget, DeadlineLayer, HedgeLayer, RetryLayer, ShedLayer, TimeoutLayer,
};
use tower::{
    Service, ServiceBuilder, ServiceExt,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PendingRequests},
    util::rng::Rng,
};

use super::UsualRetry;
use crate::{
    call::{ATTEMPT, Call, Error, PATIENCE},
    load::Stack,
    run::World,
    server::{Answer, Server},
};

/// The less busy of two replicas with room, below retry and hedge.
pub fn balanced(world: &mut World) -> Vec<Stack> {
    let budget = Budget::default();
    let limits: Vec<_> = world.servers.iter().map(|_| AdaptiveConcurrencyLayer::default()).collect();
    let replica = |(server, limit): (&Server, &AdaptiveConcurrencyLayer)| {
        let layers = ServiceBuilder::new().layer(limit.clone()).layer(TimeoutLayer::new(ATTEMPT));
        PendingRequests::new(layers.service(server.clone()), CompleteOnResponse::default())
    };
    let replicas: Vec<_> = world.servers.iter().zip(&limits).map(replica).collect();
    for (limit, name) in limits.iter().zip(["limit of a sound one", "limit of the sick one"]) {
        let handle = limit.handle();
        world.gauge(name, move || f64::from(handle.snapshot().limit));
    }
    let choice = Seeded(fastrand::Rng::with_seed(world.seed));
    let balance = Balance::from_rng(ServiceList::new::<Call>(replicas), choice);
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(PATIENCE))
        .layer(RetryLayer::within(&budget))
        .layer(HedgeLayer::within(&budget))
        .layer(ShedLayer::default().deadline_aware())
        .map_err(Error::unboxed)
        .service(Buffer::new(balance, 10));
    vec![stack.boxed_clone()]
}

/// One replica after the other, with a timeout and three attempts.
pub fn round_robin(world: &mut World) -> Vec<Stack> {
    let replicas = RoundRobin { servers: world.servers.clone(), next: Arc::default() };
    let stack = ServiceBuilder::new()
        .map_err(Error::unboxed)
        .retry(UsualRetry::default())
        .timeout(ATTEMPT)
        .service(replicas);
    vec![stack.boxed_clone()]
}

/// A random number generator for tower that says the same in each run.
struct Seeded(fastrand::Rng);

impl Rng for Seeded {
    fn next_u64(&mut self) -> u64 {
        self.0.u64(..)
    }
}

#[derive(Clone, Debug)]
struct RoundRobin {
    servers: Vec<Server>,
    next: Arc<AtomicUsize>,
}

impl Service<Call> for RoundRobin {
    type Response = ();
    type Error = Error;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Answer {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.servers.len();
        self.servers[next].call(call)
    }
}
