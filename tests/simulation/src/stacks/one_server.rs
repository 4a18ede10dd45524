//! What is recommended in front of one server.

use palisade::{Budget, DeadlineLayer, RetryLayer, TimeoutLayer};
use tower::{ServiceBuilder, ServiceExt};

use crate::{
    call::{ATTEMPT, PATIENCE},
    load::Stack,
    run::World,
};

/// Deadline, retries within a budget, a limit on concurrency, a timeout for each attempt.
pub fn protected(world: &mut World) -> Vec<Stack> {
    let budget = Budget::default();
    let balance = budget.clone();
    world.gauge("budget", move || balance.snapshot().balance);
    let limit = palisade::ConcurrencyLimitLayer::builder()
        .limit(world.size.workers() * 3 / 2)
        .deadline_aware()
        .build()
        .expect("valid");
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(PATIENCE))
        .layer(RetryLayer::within(&budget))
        .layer(limit)
        .layer(TimeoutLayer::new(ATTEMPT))
        .service(world.server());
    vec![stack.boxed_clone()]
}
