//! What is recommended where many read the same.

use palisade::{CoalesceLayer, DeadlineLayer, RetryLayer, TimeoutLayer};
use tower::{ServiceBuilder, ServiceExt};

use crate::{
    call::{ATTEMPT, Call, PATIENCE},
    load::Stack,
    run::World,
};

/// Reads of the same key that are under way together share their answer.
pub fn coalesced(world: &mut World) -> Vec<Stack> {
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(PATIENCE))
        .layer(CoalesceLayer::new(|call: &Call| Some(call.key)))
        .layer(RetryLayer::default())
        .layer(TimeoutLayer::new(ATTEMPT))
        .service(world.server());
    vec![stack.boxed_clone()]
}
