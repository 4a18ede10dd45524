//! The everyday layers of palisade around a real cluster.

use std::{num::NonZeroU32, time::Duration};

use palisade::{
    Budget, CircuitBreakerLayer, ConcurrencyLimitLayer, DeadlineLayer, HedgeLayer, MetricsLayer,
    RateLimitLayer, Rejection, RetryLayer, TimeoutLayer, TraceLayer, breaker::CircuitState,
};
use tower::ServiceBuilder;
use tower_cassandra::{Batch, Client, ErrorKind, Kind, Request, Statement, Timeouts};

use crate::cluster::{create_table, session};

const TOTAL: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_stack_of_all_layers_serves_every_operation() {
    let Some(cassandra) = session().await else { return };
    create_table(&Client::new(cassandra.clone()), "layered", "k int, n int, PRIMARY KEY (k, n)").await;
    let budget = Budget::default();
    let client = Client::new(
        ServiceBuilder::new()
            .layer(MetricsLayer::default())
            .layer(TraceLayer::call())
            .layer(DeadlineLayer::new(Timeouts::total(TOTAL)))
            .layer(RateLimitLayer::per_second(NonZeroU32::new(10_000).unwrap()).deadline_aware())
            .layer(ConcurrencyLimitLayer::new(NonZeroU32::new(256).unwrap()).deadline_aware())
            .layer(RetryLayer::within(&budget))
            .layer(HedgeLayer::within(&budget))
            .layer(CircuitBreakerLayer::default())
            .layer(TraceLayer::attempt())
            .layer(TimeoutLayer::new(Timeouts::attempt(Duration::from_secs(2))))
            .service(cassandra),
    );
    let insert = "INSERT INTO layered (k, n) VALUES (?, ?)";
    for n in 0..25 {
        client.execute(insert, (1, n)).await.unwrap();
    }
    client.batch(Batch::unlogged().with(insert, (1, 25)).with(insert, (1, 26))).await.unwrap();
    client.prepare("SELECT n FROM layered WHERE k = ?").await.unwrap();
    let select = Statement::new("SELECT n FROM layered WHERE k = ?").page_size(10);
    assert_eq!(client.execute(select, (1,)).await.unwrap().rows_num(), 27);
    client.query("ALTER TABLE layered ADD v int").await.unwrap();
    client.query("TRUNCATE layered").await.unwrap();
    assert_eq!(client.query("SELECT * FROM layered").await.unwrap().rows_num(), 0);
}

/// Whatever enters the stack counts, pages and the members of a batch too, and an exhausted limit refuses all alike.
#[tokio::test]
async fn a_rate_limit_covers_every_operation_and_a_batch_costs_its_members() {
    let Some(cassandra) = session().await else { return };
    create_table(&Client::new(cassandra.clone()), "limited", "k int, n int, PRIMARY KEY (k, n)").await;
    let limit = RateLimitLayer::builder()
        .rate(1, Duration::from_secs(3_600))
        .burst(30)
        .refuse()
        .weight(Request::statements)
        .build()
        .unwrap();
    let rate = limit.handle();
    let client = Client::new(ServiceBuilder::new().layer(limit).service(cassandra));
    let mut left = 30;
    let mut took = |weight: u32| {
        left -= weight;
        assert_eq!(rate.snapshot().available, left);
    };
    let insert = client.prepare("INSERT INTO limited (k, n) VALUES (?, ?)").await.unwrap();
    took(1);
    client.execute(&insert, (1, 0)).await.unwrap();
    took(1);
    let ten = (1..=10).fold(Batch::unlogged(), |batch, n| batch.with(&insert, (1, n)));
    client.batch(ten).await.unwrap();
    took(10);
    assert_eq!(client.query("SELECT * FROM limited").await.unwrap().rows_num(), 11);
    took(1);
    let select = client.prepare("SELECT n FROM limited WHERE k = ?").await.unwrap();
    took(1);
    let by_fours = Statement::from(&select).page_size(4);
    assert_eq!(client.execute(by_fours, (1,)).await.unwrap().rows_num(), 11);
    took(3);
    let rest = (0..13).fold(Batch::unlogged(), |batch, n| batch.with(&insert, (2, n)));
    client.batch(rest).await.unwrap();
    took(13);

    let refusals = [
        client.execute(&insert, (3, 0)).await.unwrap_err(),
        client.query("SELECT * FROM limited").await.unwrap_err(),
        client.prepare("SELECT k FROM limited").await.map(|_| ()).unwrap_err(),
        client.batch(Batch::unlogged().with(&insert, (3, 0))).await.unwrap_err(),
    ];
    for refused in refusals {
        assert!(matches!(Rejection::find(&refused), Some(Rejection::RateLimited { .. })), "{refused}");
        assert!(!refused.may_have_been_applied(), "{refused}");
    }
}

/// A table that does not exist is the caller's mistake; it says nothing of the cluster.
#[tokio::test]
async fn a_callers_mistakes_never_open_the_circuit_and_each_kind_of_statement_can_have_its_own() {
    let Some(cassandra) = session().await else { return };
    let breaker = CircuitBreakerLayer::builder()
        .consecutive_failures(3)
        .build_keyed(16, |request: &Request| request.kind())
        .unwrap();
    let circuits = breaker.handle();
    let client = Client::new(ServiceBuilder::new().layer(breaker).service(cassandra));
    for _ in 0..10 {
        let error = client.query("SELECT * FROM no_such_table").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    client.query("SELECT * FROM system.local").await.unwrap();
    let reads = circuits.get(&Kind::Read).unwrap();
    assert_eq!((reads.state(), reads.snapshot().failures), (CircuitState::Closed, 0));
    assert!(circuits.get(&Kind::Schema).is_none());
}
