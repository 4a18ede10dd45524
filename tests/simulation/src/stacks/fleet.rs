//! What is recommended for many clients of one server, on both sides of the wire.

use palisade::{
    AdaptiveConcurrencyLayer, Budget, DeadlineLayer, RetryLayer, ShedLayer, ThrottleLayer, TimeoutLayer,
};
use tower::{ServiceBuilder, ServiceExt};

use super::{CLIENTS, UsualRetry};
use crate::{
    call::{ATTEMPT, Call, Error, PATIENCE},
    load::Stack,
    run::World,
};

/// Throttle and budget in each client; shedding over an adaptive limit in front of the server, on its machine.
///
/// A client that gives up is noticed by these, as by a server of HTTP, but not by what works on its call already.
pub fn fleet(world: &mut World) -> Vec<Stack> {
    let server = world.server();
    let limit = AdaptiveConcurrencyLayer::default();
    let handle = limit.handle();
    world.gauge("adaptive limit", move || f64::from(handle.snapshot().limit));
    let refusing = server.clone();
    let guarded = ServiceBuilder::new()
        .map_err(move |error: Error| {
            let told = error.clone().over_the_wire();
            if told != error {
                refusing.charge_refusal();
            }
            told
        })
        .layer(ShedLayer::default().deadline_aware())
        .layer(limit)
        .service(server);
    let client = |_| {
        // What a thousand reserves of one per second add up to would be too much for this server.
        let budget = Budget::builder().reserve_per_second(0.02).burst(2).build().expect("settings in range");
        // By priority: the server refuses the least important first, which tells nothing about the others.
        let by_priority = |call: &Call| call.priority;
        // One pass per second, priority and client would be more than this server can do.
        let throttle = ThrottleLayer::builder()
            .min_passes_per_second(0.05)
            .build_keyed(4, by_priority)
            .expect("settings in range");
        ServiceBuilder::new()
            .layer(DeadlineLayer::new(PATIENCE))
            .layer(RetryLayer::within(&budget))
            .layer(throttle)
            .layer(TimeoutLayer::new(ATTEMPT))
            .service(guarded.clone())
            .boxed_clone()
    };
    (0..CLIENTS).map(client).collect()
}

/// A timeout and three attempts in each client.
pub fn usual_fleet(world: &mut World) -> Vec<Stack> {
    let client = |_| {
        ServiceBuilder::new()
            .map_err(Error::unboxed)
            .retry(UsualRetry::default())
            .timeout(ATTEMPT)
            .service(world.server())
            .boxed_clone()
    };
    (0..CLIENTS).map(client).collect()
}
