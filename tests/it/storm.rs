//! A coordinator that says it has too much to do: it is asked less, and not taken for dead.

use std::time::{Duration, Instant};

use palisade::{
    Budget, CircuitBreakerLayer, DeadlineLayer, RetryLayer, ThrottleLayer, TimeoutLayer,
    breaker::CircuitState,
};
use scylla::errors::DbError;
use scylla_proxy::{Condition, RequestOpcode, RequestReaction};
use tower::ServiceBuilder;
use tower_cassandra::{Client, ErrorKind, Timeouts};

use crate::proxy::Proxied;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_overloaded_is_asked_less_and_less_and_is_never_ejected() {
    let Some(mut proxied) = Proxied::start().await else { return };
    proxied.client_with_table("storm").await;
    let cassandra = proxied.settings().connect().await.unwrap();
    let node = cassandra.nodes().all().remove(0);
    let (throttle, budget) = (ThrottleLayer::default(), Budget::default());
    let breaker = CircuitBreakerLayer::builder().overload_counts(false).build().unwrap();
    let (throttling, circuit) = (throttle.handle(), breaker.handle());
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(Timeouts::total(Duration::from_secs(2))))
        .layer(RetryLayer::within(&budget))
        .layer(breaker)
        .layer(throttle)
        .layer(TimeoutLayer::new(Timeouts::attempt(Duration::from_millis(500))))
        .service(cassandra);
    let client = Client::new(stack);
    let insert = "INSERT INTO storm (k, v) VALUES (?, ?)";
    client.execute(insert, (0, 0)).await.unwrap();

    let overloaded = RequestReaction::forge_with_error(DbError::Overloaded);
    let mut asked = proxied.react(Condition::RequestOpcode(RequestOpcode::Execute), overloaded);
    let mut refused = 0;
    for k in 0..600 {
        let error = client.execute(insert, (k, k)).await.unwrap_err();
        assert!(error.is_overload(), "{error}");
        refused += usize::from(error.kind() != ErrorKind::Overloaded);
    }
    let asked = asked.bodies().len();
    assert!(asked < 200 && refused > 400, "asked {asked} times, {refused} refused here");
    assert!(throttling.snapshot().share > 0.5, "{:?}", throttling.snapshot());
    // It is alive, and the only one that there is.
    assert!(node.circuit().is_closed() && !node.is_ejected(), "{node:?}");
    assert_eq!((node.figures().failures, circuit.state()), (0, CircuitState::Closed));

    // It is well again: so is the traffic, by itself.
    proxied.clear();
    let began = Instant::now();
    let mut in_a_row = 0;
    while in_a_row < 50 {
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", throttling.snapshot());
        in_a_row = if client.execute(insert, (1, 1)).await.is_ok() { in_a_row + 1 } else { 0 };
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
