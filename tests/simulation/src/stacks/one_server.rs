//! What is recommended in front of one server.

use palisade::{AdaptiveConcurrencyLayer, DeadlineLayer, RetryLayer, ShedLayer, ThrottleLayer, TimeoutLayer};
use tower::{Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer};

use crate::{
    call::{ATTEMPT, Call, Error, PATIENCE},
    load::Stack,
    run::World,
};

/// Deadline, retries within a budget, shedding over an adaptive limit, a timeout for each attempt.
pub fn protected(world: &mut World) -> Vec<Stack> {
    let inner = adaptive(world, attempt(world));
    vec![retried(ServiceBuilder::new().layer(ShedLayer::default().deadline_aware()).service(inner))]
}

/// As [`protected`], and each attempt goes through a throttle that hears from the server when it is overloaded.
pub fn throttled(world: &mut World) -> Vec<Stack> {
    let inner = adaptive(world, attempt(world));
    let layers =
        ServiceBuilder::new().layer(ThrottleLayer::default()).layer(ShedLayer::default().deadline_aware());
    vec![retried(layers.service(inner))]
}

/// An adaptive limit, and what finds no room is refused at once, whatever it is.
pub fn adaptive_alone(world: &mut World) -> Vec<Stack> {
    let inner = adaptive(world, attempt(world));
    vec![retried(ServiceBuilder::new().map_err(Error::unboxed).load_shed().service(inner))]
}

/// Shedding over a fixed limit that somebody has measured: as many calls as the server has workers, and half as many again.
pub fn shed_over_the_right_limit(world: &mut World) -> Vec<Stack> {
    shed_over(world, 1.5)
}

/// Shedding over a fixed limit that is four times too high: the server was changed, or nobody measured.
pub fn shed_over_a_high_limit(world: &mut World) -> Vec<Stack> {
    shed_over(world, 6.0)
}

/// Nothing but retries within a budget.
pub fn budget_alone(world: &mut World) -> Vec<Stack> {
    vec![retried(attempt(world))]
}

/// A throttle, and nothing else: the server has to say that it is overloaded.
pub fn throttle_alone(world: &mut World) -> Vec<Stack> {
    let server = attempt(world);
    vec![retried(ServiceBuilder::new().layer(ThrottleLayer::default()).service(server))]
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some dozens")]
fn shed_over(world: &mut World, by_workers: f64) -> Vec<Stack> {
    let limit = (f64::from(world.size.workers()) * by_workers) as usize;
    let layers = ServiceBuilder::new()
        .layer(ShedLayer::default().deadline_aware())
        .layer(ConcurrencyLimitLayer::new(limit));
    vec![retried(layers.service(attempt(world)))]
}

/// One attempt at the only server.
fn attempt(
    world: &World,
) -> impl Service<Call, Response = (), Error = Error, Future: Send> + Clone + Send + 'static {
    ServiceBuilder::new().layer(TimeoutLayer::new(ATTEMPT)).service(world.server())
}

fn adaptive<S>(
    world: &mut World,
    inner: S,
) -> impl Service<Call, Response = (), Error = Error, Future: Send> + Clone + Send + 'static
where
    S: Service<Call, Response = (), Error = Error, Future: Send> + Clone + Send + 'static,
{
    let layer = AdaptiveConcurrencyLayer::default();
    let handle = layer.handle();
    world.gauge("adaptive limit", move || f64::from(handle.snapshot().limit));
    ServiceBuilder::new().layer(layer).service(inner)
}

fn retried<S>(inner: S) -> Stack
where
    S: Service<Call, Response = (), Error = Error, Future: Send> + Clone + Send + 'static,
{
    let layers = ServiceBuilder::new().layer(DeadlineLayer::new(PATIENCE)).layer(RetryLayer::default());
    layers.service(inner).boxed_clone()
}
