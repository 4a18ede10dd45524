//! The layers of palisade around a real cluster.

use std::{num::NonZeroU32, time::Duration};

use palisade::{
    AdaptiveConcurrencyLayer, Budget, CircuitBreakerLayer, CoalesceLayer, ConcurrencyLimitLayer,
    DeadlineLayer, Drain, HasPriority, HedgeLayer, MetricsLayer, RateLimitLayer, Rejection, RetryLayer,
    ShedLayer, ThrottleLayer, TimeoutLayer, TraceLayer, breaker::CircuitState,
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

#[tokio::test]
async fn a_stack_for_overload_serves_every_operation_until_it_is_drained() {
    let Some(cassandra) = session().await else { return };
    create_table(&Client::new(cassandra.clone()), "guarded", "k int, n int, PRIMARY KEY (k, n)").await;
    let drain = Drain::new();
    let (shed, limit) = (ShedLayer::default().deadline_aware(), AdaptiveConcurrencyLayer::default());
    let (refusals, limits) = (shed.handle(), limit.handle());
    let client = Client::new(
        ServiceBuilder::new()
            .layer(drain.layer())
            .layer(DeadlineLayer::new(Timeouts::total(TOTAL)))
            .layer(CoalesceLayer::builder(Request::read_key).deadline_aware().build().unwrap())
            .layer(RetryLayer::default())
            .layer(ThrottleLayer::builder().build_keyed(4, |request: &Request| request.priority()).unwrap())
            .layer(shed)
            .layer(limit)
            .layer(TimeoutLayer::new(Timeouts::attempt(Duration::from_secs(2))))
            .service(cassandra),
    )
    .read_keys(true);
    let insert = "INSERT INTO guarded (k, n) VALUES (?, ?)";
    // More at once than the limit begins with, so that some wait before it.
    let writes: Vec<_> = (0..100)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.execute(insert, (1, n)).await })
        })
        .collect();
    for write in writes {
        write.await.unwrap().unwrap();
    }
    assert!(refusals.snapshot().admitted_after_wait > 0, "{:?}", refusals.snapshot());
    client.batch(Batch::unlogged().with(insert, (1, 100)).with(insert, (1, 101))).await.unwrap();
    let select = Statement::new("SELECT n FROM guarded WHERE k = ?").page_size(10);
    assert_eq!(client.execute(select, (1,)).await.unwrap().rows_num(), 102);
    client.query("ALTER TABLE guarded ADD v int").await.unwrap();
    assert_eq!((limits.snapshot().in_flight, limits.snapshot().drops), (0, 0));

    drain.start();
    let refused = client.execute("SELECT n FROM guarded WHERE k = ?", (1,)).await.unwrap_err();
    assert_eq!((refused.kind(), refused.rejection()), (ErrorKind::Refused, Some(Rejection::Draining)));
    assert!(!refused.may_have_been_applied());
    assert!(drain.finish().await.finished);
}

/// With the same statement, values, consistency and page; whoever asks for something else gets that.
#[tokio::test]
async fn reads_of_the_same_share_an_answer_and_others_do_not() {
    let Some(cassandra) = session().await else { return };
    create_table(&Client::new(cassandra.clone()), "shared_reads", "k int PRIMARY KEY, v int").await;
    let coalesce = CoalesceLayer::builder(Request::read_key).deadline_aware().build().unwrap();
    let flights = coalesce.handle();
    let client = Client::new(
        ServiceBuilder::new()
            .layer(DeadlineLayer::new(Timeouts::total(TOTAL)))
            .layer(coalesce)
            .service(cassandra),
    );
    let insert = "INSERT INTO shared_reads (k, v) VALUES (?, ?)";
    for k in 0..4 {
        client.execute(insert, (k, k * 10)).await.unwrap();
    }
    let select = client.prepare("SELECT v FROM shared_reads WHERE k = ?").await.unwrap();
    let read_all = async |client: &Client<_>| {
        let reads: Vec<_> = (0..400)
            .map(|n| {
                let (client, select, k) = (client.clone(), select.clone(), n % 4);
                tokio::spawn(async move {
                    let (v,): (i32,) = client.execute(&select, (k,)).await.unwrap().single_row().unwrap();
                    assert_eq!(v, k * 10);
                })
            })
            .collect();
        for read in reads {
            read.await.unwrap();
        }
    };
    read_all(&client).await;
    assert_eq!(flights.snapshot().joined, 0, "nobody has said that reads may be shared");
    read_all(&client.clone().read_keys(true)).await;
    let snapshot = flights.snapshot();
    assert!(snapshot.joined > 0 && snapshot.led > 0, "{snapshot:?}");
    assert_eq!((snapshot.flights, snapshot.followers), (0, 0));

    // A mistake is everybody's, and means the same to all.
    let sharing = client.read_keys(true);
    let mistakes: Vec<_> = (0..50)
        .map(|_| {
            let client = sharing.clone();
            tokio::spawn(async move { client.query("SELECT v FROM no_such_table").await.unwrap_err() })
        })
        .collect();
    for mistake in mistakes {
        let mistake = mistake.await.unwrap();
        assert_eq!(mistake.kind(), ErrorKind::Invalid, "{mistake}");
    }
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
