//! Nodes that hang, die and come back, under traffic.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade::{
    AdaptiveConcurrencyLayer, Backoff, CircuitBreakerLayer, ConcurrencyLimitLayer, DeadlineLayer, HedgeLayer,
    Rejection, RetryLayer, ShedLayer, TimeoutLayer, breaker::CircuitState,
};
use tower::ServiceBuilder;
use tower_cassandra::{BoxClient, Cassandra, Client, Error, ErrorKind, Timeouts};

use crate::cluster::{Ring, ring};

const DEADLINE: Duration = Duration::from_millis(1_500);
const ATTEMPT: Duration = Duration::from_millis(300);
/// What a loaded machine may add to a limit.
const SLACK: Duration = Duration::from_millis(400);

const SELECT: &str = "SELECT v FROM faults.t WHERE k = ?";
const INSERT: &str = "INSERT INTO faults.t (k, v) VALUES (?, ?)";

fn resilient(cassandra: Cassandra) -> BoxClient {
    let retry = RetryLayer::builder().max_attempts(5).build().unwrap();
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(Timeouts::total(DEADLINE)))
        .layer(retry)
        .layer(TimeoutLayer::new(Timeouts::attempt(ATTEMPT).prepare(ATTEMPT)))
        .service(cassandra);
    Client::new(stack).boxed()
}

/// Runs an operation and checks that it ended in time; its error names every node that was asked.
async fn bounded<T>(operation: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let began = Instant::now();
    let outcome = operation.await;
    assert!(began.elapsed() < DEADLINE + SLACK, "{:?}: {:?}", began.elapsed(), outcome.as_ref().err());
    if let Err(error) = &outcome {
        let ledger = error.attempts().expect("a ledger");
        assert!(!ledger.is_empty(), "{error}");
        for node in ledger.attempts().iter().filter_map(|attempt| attempt.node) {
            assert!(error.to_string().contains(&node.to_string()), "{error}");
        }
    }
    outcome
}

async fn warm(client: &BoxClient) {
    for k in 0..30 {
        client.execute(INSERT, (k, k)).await.unwrap();
        client.execute(SELECT, (k,)).await.unwrap();
    }
}

/// Polls until an operation succeeds again, and says how long that took.
async fn recovered(client: &BoxClient, within: Duration) -> Duration {
    let began = Instant::now();
    while client.execute(SELECT, (1,)).await.is_err() {
        assert!(began.elapsed() < within, "not back after {within:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    began.elapsed()
}

fn addresses(ring: &Ring) -> Vec<SocketAddr> {
    ring.cluster.contact_points()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_node_holds_no_call_longer_than_its_deadline() {
    let Some(ring) = ring().await else { return };
    let client = resilient(ring.session().await);
    warm(&client).await;
    let mut answered = 0;
    {
        // Calls are under way when the node stops.
        let calls: Vec<_> = (0..60)
            .map(|k| {
                let client = client.clone();
                tokio::spawn(async move { bounded(client.execute(SELECT, (k,))).await })
            })
            .collect();
        let _paused = ring.cluster.paused(2).unwrap();
        for call in calls {
            answered += usize::from(call.await.unwrap().is_ok());
        }
        for k in 0..40 {
            answered += usize::from(bounded(client.execute(SELECT, (k % 30,))).await.is_ok());
        }
    }
    assert!(answered >= 98, "{answered} of 100 were answered with two of three nodes up");
    recovered(&client, Duration::from_secs(15)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_not_idempotent_is_not_repeated_when_its_node_hangs_and_says_so() {
    let Some(ring) = ring().await else { return };
    let client = resilient(ring.session().await);
    let click = "UPDATE faults.c SET c = c + ? WHERE k = 1";
    client.query("TRUNCATE faults.c").await.unwrap();
    client.execute(click, (scylla::value::Counter(1),)).await.unwrap();
    let (mut acked, mut unknown) = (1, 0);
    {
        let _paused = ring.cluster.paused(3).unwrap();
        for _ in 0..25 {
            match bounded(client.execute(click, (scylla::value::Counter(1),))).await {
                Ok(_) => acked += 1,
                Err(error) if error.may_have_been_applied() => {
                    unknown += 1;
                    let sent = error.attempts().unwrap().attempts().len();
                    assert_eq!(sent, 1, "sent again after it may have been applied: {error}");
                }
                Err(error) => assert!(error.kind() != ErrorKind::Values, "{error}"),
            }
        }
    }
    recovered(&client, Duration::from_secs(15)).await;
    // What a paused node still has to do, it does now.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let count = "SELECT c FROM faults.c WHERE k = 1";
    let all = tower_cassandra::Statement::new(count).consistency(scylla::statement::Consistency::All);
    let (counted,): (scylla::value::Counter,) = client.execute(all, ()).await.unwrap().single_row().unwrap();
    assert!(
        (acked..=acked + unknown).contains(&counted.0),
        "{acked} <= {} <= {acked} + {unknown}",
        counted.0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_under_way_costs_a_handful_of_calls_at_most() {
    let Some(ring) = ring().await else { return };
    let client = resilient(ring.session().await);
    warm(&client).await;
    let traffic = tokio::spawn({
        let client = client.clone();
        async move {
            let (began, mut failed, mut calls) = (Instant::now(), Vec::new(), 0);
            while began.elapsed() < Duration::from_secs(6) {
                calls += 1;
                if let Err(error) = bounded(client.execute(SELECT, (calls % 30,))).await {
                    failed.push(error.to_string());
                }
            }
            (calls, failed)
        }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    ring.cluster.kill(3).unwrap();
    let (calls, failed) = traffic.await.unwrap();
    // Replicas that wait for the dead one until they know better may let a few deadlines pass.
    assert!(failed.len() <= 5, "{} of {calls}: {failed:#?}", failed.len());
    ring.cluster.start_node(3).unwrap();
    recovered(&client, Duration::from_secs(30)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_all_nodes_paused_each_call_ends_at_its_deadline_and_names_the_nodes() {
    let Some(ring) = ring().await else { return };
    let client = resilient(ring.session().await);
    warm(&client).await;
    {
        let _paused: Vec<_> = (1..=3).map(|node| ring.cluster.paused(node).unwrap()).collect();
        for k in 0..3 {
            let error = bounded(client.execute(SELECT, (k,))).await.unwrap_err();
            assert!(error.is_timeout(), "{error}");
            let attempts = error.attempts().unwrap().attempts();
            assert!(attempts.len() >= 2, "{error}");
            assert!(
                attempts.iter().all(|attempt| addresses(&ring).contains(&attempt.node.unwrap())),
                "{error}"
            );
        }
        // What was never prepared hangs no longer.
        let fresh = "SELECT v FROM faults.t WHERE k = ? /* fresh */";
        let error = bounded(client.execute(fresh, (1,))).await.unwrap_err();
        assert!(!error.may_have_been_applied() || error.is_timeout(), "{error}");
    }
    recovered(&client, Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_all_nodes_gone_calls_fail_fast_and_come_back_with_the_nodes() {
    let Some(ring) = ring().await else { return };
    let client = resilient(ring.session().await);
    warm(&client).await;
    for node in 1..=3 {
        ring.cluster.kill(node).unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    for k in 0..5 {
        let began = Instant::now();
        let error = bounded(client.execute(SELECT, (k,))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
        assert!(!error.may_have_been_applied(), "{error}");
        assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
    }
    for node in 1..=3 {
        ring.cluster.start_node(node).unwrap();
    }
    // The driver's pools try again every ten seconds at the longest.
    recovered(&client, Duration::from_secs(30)).await;
}

/// One hung node is enough to hold up the driver's own preparation, which asks all nodes and waits for the slowest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_statement_is_served_while_a_node_hangs() {
    let Some(ring) = ring().await else { return };
    let cassandra = ring.session().await;
    let client = resilient(cassandra.clone());
    warm(&client).await;
    let _paused = ring.cluster.paused(1).unwrap();

    let bare = cassandra.session().prepare("SELECT v FROM faults.t WHERE k = ? /* bare */");
    assert!(
        tokio::time::timeout(DEADLINE, bare).await.is_err(),
        "the bare driver got by: is this code needed?"
    );

    let mut served = 0;
    for n in 0..12 {
        let fresh = format!("SELECT v FROM faults.t WHERE k = ? /* {n} */");
        served += usize::from(bounded(client.execute(fresh.as_str(), (n,))).await.is_ok());
    }
    assert!(served >= 6, "{served} of 12");
}

/// Calls that are dropped while a node hangs hold on to nothing: no task, no reference, no session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_dropped_while_a_node_hangs_leave_nothing_behind() {
    let Some(ring) = ring().await else { return };
    let cassandra = ring.session().await;
    let client = resilient(cassandra.clone());
    warm(&client).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (before, references) = (tasks(), Arc::strong_count(cassandra.session()));
    {
        let _paused = ring.cluster.paused(2).unwrap();
        for k in 0..500 {
            let call = client.execute(SELECT, (k % 30,));
            let _ = tokio::time::timeout(Duration::from_millis(1), call).await;
        }
    }
    assert_eq!(Arc::strong_count(cassandra.session()), references);
    recovered(&client, Duration::from_secs(15)).await;
    assert!(tasks() <= before + 6, "{} tasks, {before} before", tasks());
    // Nothing else keeps the session alive.
    drop(client);
    let session = Arc::downgrade(cassandra.session());
    drop(cassandra);
    assert!(session.upgrade().is_none());
}

/// A backoff and a budget that allow more do not get a call past its deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_number_of_attempts_gets_past_the_deadline() {
    let Some(ring) = ring().await else { return };
    let retry = RetryLayer::builder().max_attempts(1_000).backoff(Backoff::NONE).build().unwrap();
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(DEADLINE))
        .layer(retry)
        .layer(TimeoutLayer::new(Duration::from_millis(20)))
        .service(ring.session().await);
    let client = Client::new(stack).boxed();
    client.execute(SELECT, (1,)).await.unwrap();
    {
        let _paused: Vec<_> = (1..=3).map(|node| ring.cluster.paused(node).unwrap()).collect();
        let error = bounded(client.execute(SELECT, (1,))).await.unwrap_err();
        // The budget ends it: 50 repeats at once, and one more a second. The ledger is bounded, and counts on.
        let ledger = error.attempts().unwrap();
        assert!((40..=56).contains(&ledger.len()), "{} attempts", ledger.len());
        assert!(ledger.attempts().len() <= 32);
    }
    recovered(&client, Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_opens_the_circuit_which_refuses_at_once_and_closes_by_itself() {
    let Some(ring) = ring().await else { return };
    let changes = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&changes);
    let wait = Duration::from_millis(500);
    let breaker = CircuitBreakerLayer::builder()
        .consecutive_failures(5)
        .probes(2)
        .open_for(Backoff::exponential(wait, wait).unwrap())
        .on_transition(move |change| seen.lock().unwrap().push(change.to))
        .build()
        .unwrap();
    let circuit = breaker.handle();
    let stack = ServiceBuilder::new()
        .layer(breaker)
        .layer(TimeoutLayer::new(Timeouts::attempt(ATTEMPT).prepare(ATTEMPT)))
        .service(ring.session().await);
    let client = Client::new(stack).boxed();
    warm(&client).await;
    {
        let _paused: Vec<_> = (1..=3).map(|node| ring.cluster.paused(node).unwrap()).collect();
        while circuit.state() == CircuitState::Closed {
            assert!(client.execute(SELECT, (1,)).await.unwrap_err().is_timeout());
        }
        let (began, mut refused, mut asked) = (Instant::now(), 0, 0);
        while began.elapsed() < Duration::from_secs(3) {
            let call = Instant::now();
            let error = client.execute(INSERT, (1, 1)).await.unwrap_err();
            if let Some(Rejection::CircuitOpen { .. }) = Rejection::find(&error) {
                assert!(!error.may_have_been_applied(), "{error}");
                assert!(call.elapsed() < Duration::from_millis(100), "{:?}", call.elapsed());
                refused += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            } else {
                asked += 1;
            }
        }
        // One probe at a time from this caller, each of which hangs for 300 ms and opens it for another 250 to 500.
        assert!(refused > 100 && asked <= 7, "{refused} refused, {asked} asked");
    }
    recovered(&client, Duration::from_secs(20)).await;
    recovered(&client, Duration::from_secs(1)).await;
    assert_eq!(circuit.state(), CircuitState::Closed);
    let changes = changes.lock().unwrap();
    assert_eq!(changes.first(), Some(&CircuitState::Open));
    assert_eq!(changes[changes.len() - 2..], [CircuitState::HalfOpen, CircuitState::Closed]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_hangs_fills_the_bulkhead_and_no_more() {
    let Some(ring) = ring().await else { return };
    let limit = ConcurrencyLimitLayer::builder()
        .limit(10)
        .max_waiting(5)
        .queue_timeout(Duration::from_millis(100))
        .build()
        .unwrap();
    let places = limit.handle();
    let stack = ServiceBuilder::new()
        .layer(limit)
        .layer(TimeoutLayer::new(Timeouts::attempt(ATTEMPT).prepare(ATTEMPT)))
        .service(ring.session().await);
    let client = Client::new(stack).boxed();
    warm(&client).await;
    {
        let _paused: Vec<_> = (1..=3).map(|node| ring.cluster.paused(node).unwrap()).collect();
        let calls: Vec<_> = (0..100)
            .map(|k| {
                let client = client.clone();
                tokio::spawn(async move { client.execute(SELECT, (k,)).await.unwrap_err() })
            })
            .collect();
        let (mut hung, mut waited, mut refused) = (0, 0, 0);
        for call in calls {
            let error = call.await.unwrap();
            match Rejection::find(&error) {
                Some(Rejection::ConcurrencyLimited) => refused += 1,
                Some(Rejection::TimedOut { scope: palisade::TimeoutScope::Queue, .. }) => waited += 1,
                _ => hung += 1,
            }
        }
        assert_eq!((hung, waited, refused), (10, 5, 85));
    }
    recovered(&client, Duration::from_secs(20)).await;
    assert_eq!((places.snapshot().in_flight, places.snapshot().waiting), (0, 0));
}

/// What hangs gets next to no calls, those who are refused are told so in time, and it is as before by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_hangs_is_asked_less_and_less_and_fully_again_when_it_is_well() {
    let Some(ring) = ring().await else { return };
    let (shed, limit) = (ShedLayer::default().deadline_aware(), AdaptiveConcurrencyLayer::default());
    let (refusals, limits) = (shed.handle(), limit.handle());
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(Timeouts::total(DEADLINE)))
        .layer(RetryLayer::default())
        .layer(shed)
        .layer(limit)
        .layer(TimeoutLayer::new(Timeouts::attempt(ATTEMPT).prepare(ATTEMPT)))
        .service(ring.session().await);
    let client = Client::new(stack).boxed();
    warm(&client).await;
    // Well within what a cluster on a busy machine can do, or far more than one that hangs can.
    let (usual, much) = (2, 10);
    let offer = async |at_once: i32, for_how_long: Duration| {
        let (began, mut calls) = (Instant::now(), Vec::new());
        while began.elapsed() < for_how_long {
            for k in 0..at_once {
                let client = client.clone();
                calls.push(tokio::spawn(async move {
                    let began = Instant::now();
                    let outcome = client.execute(SELECT, (k,)).await;
                    assert!(began.elapsed() < DEADLINE + SLACK, "{:?}: {outcome:?}", began.elapsed());
                    outcome.is_ok()
                }));
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let (mut good, all) = (0, calls.len());
        for call in calls {
            good += usize::from(call.await.unwrap());
        }
        (good, all)
    };
    let (good, all) = offer(usual, Duration::from_secs(1)).await;
    assert!(good * 100 >= all * 99, "{good} of {all} before, {:?}", limits.snapshot());
    {
        let _paused: Vec<_> = (1..=3).map(|node| ring.cluster.paused(node).unwrap()).collect();
        offer(much, Duration::from_secs(4)).await;
        let (limits, refusals) = (limits.snapshot(), refusals.snapshot());
        assert!(limits.limit <= 3 && limits.drops > 10, "{limits:?}");
        assert!(refusals.shed.total() > 1_000, "{refusals:?}");
    }
    recovered(&client, Duration::from_secs(20)).await;
    // It takes some windows of good answers until all of that fits again.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) && limits.snapshot().limit < 4 {
        offer(usual, Duration::from_millis(500)).await;
    }
    let (good, all) = offer(usual, Duration::from_secs(1)).await;
    assert!(good * 100 >= all * 99, "{good} of {all} afterwards, {:?}", limits.snapshot());
    assert_eq!((limits.snapshot().in_flight, refusals.snapshot().waiting.total()), (0, 0));
}

/// As long as nobody knows that it hangs. Then it is asked no more, and there is nothing to hedge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_hedged_past_a_node_that_hangs() {
    let Some(ring) = ring().await else { return };
    let hedge =
        HedgeLayer::builder().fixed_delay(Duration::from_millis(30)).max_extra_load(1.0).build().unwrap();
    let hedging = hedge.handle();
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(Timeouts::total(DEADLINE)))
        .layer(RetryLayer::default())
        .layer(hedge)
        .layer(TimeoutLayer::new(Timeouts::attempt(ATTEMPT).prepare(ATTEMPT)))
        .service(ring.session().await);
    let client = Client::new(stack).boxed();
    warm(&client).await;
    let before = hedging.snapshot().limit.granted;
    let mut quick = 0;
    {
        let _paused = ring.cluster.paused(2).unwrap();
        for k in 0..60 {
            let began = Instant::now();
            let outcome = bounded(client.execute(SELECT, (k % 30,))).await;
            quick += usize::from(outcome.is_ok() && began.elapsed() < ATTEMPT);
        }
    }
    let hedged = hedging.snapshot().limit.granted - before;
    assert!(hedged <= 30, "{hedged} second attempts");
    assert!(quick >= 57, "{quick} of 60 were answered before an attempt would have timed out");
    recovered(&client, Duration::from_secs(15)).await;
}
