//! Which node is asked: while one hangs, dies or comes back, and when a request has been there already.

use std::{
    collections::HashSet,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::{Duration, Instant},
};

use palisade::{Backoff, DeadlineLayer, HedgeLayer, RetryLayer, TimeoutLayer, breaker::CircuitState};
use scylla::{
    client::{execution_profile::ExecutionProfile, session_builder::SessionBuilder},
    frame::response::result::TableSpec,
    policies::load_balancing::{DefaultPolicy, LoadBalancingPolicy, RoutingInfo},
    routing::Token,
    statement::{Consistency, prepared::PreparedStatement},
};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_cassandra::{
    Cassandra, Client, Error, ErrorKind, Ledger, Request, Response,
    ledger::Outcome,
    nodes::{Availability, Node},
    routing::Routing,
};

use crate::cluster::{Ring, create_keyspace, ring, session};

const DEADLINE: Duration = Duration::from_secs(3);
const ATTEMPT: Duration = Duration::from_millis(300);
const SELECT: &str = "SELECT v FROM faults.t WHERE k = ?";

/// Retries, and a hedge after so long.
macro_rules! stack {
    ($cassandra:expr) => {
        ServiceBuilder::new()
            .layer(DeadlineLayer::new(DEADLINE))
            .layer(RetryLayer::builder().max_attempts(4).backoff(Backoff::NONE).build().unwrap())
            .layer(TimeoutLayer::new(ATTEMPT))
            .service($cassandra.clone())
    };
    ($cassandra:expr, $hedge:expr) => {
        ServiceBuilder::new()
            .layer(DeadlineLayer::new(DEADLINE))
            .layer(RetryLayer::builder().max_attempts(4).backoff(Backoff::NONE).build().unwrap())
            .layer($hedge)
            .layer(TimeoutLayer::new(ATTEMPT))
            .service($cassandra.clone())
    };
}

pub(crate) async fn prepared(cassandra: &Cassandra, text: &str) -> PreparedStatement {
    let mut statement = cassandra.session().prepare(text).await.unwrap();
    // One replica answers for itself: what another one does is not seen through it.
    statement.set_consistency(Consistency::One);
    statement
}

/// Sends it, and shows the record of its attempts, also if it has succeeded.
pub(crate) async fn ask<S>(stack: &S, request: Request) -> (Result<Response, Error>, Arc<Ledger>)
where
    S: Service<Request, Response = Response, Error = Error> + Clone,
{
    let ledger = Arc::clone(request.ledger());
    (stack.clone().oneshot(request).await, ledger)
}

pub(crate) fn read(statement: &PreparedStatement, k: i32) -> Request {
    Request::bound(statement.clone().bind(&(k,)).unwrap())
}

async fn fill(cassandra: &Cassandra) {
    let client = Client::new(cassandra.clone());
    for k in 0..60 {
        client.execute("INSERT INTO faults.t (k, v) VALUES (?, ?)", (k, k)).await.unwrap();
        client.execute(SELECT, (k,)).await.unwrap();
    }
}

fn node_of(cassandra: &Cassandra, address: SocketAddr) -> Arc<Node> {
    cassandra.nodes().all().into_iter().find(|node| node.address() == address).unwrap()
}

fn node(ring: &Ring, cassandra: &Cassandra, number: usize) -> Arc<Node> {
    node_of(cassandra, ring.cluster.address(number))
}

/// No node was asked twice by the same request, as long as there were others.
fn goes_elsewhere(ledger: &Ledger) {
    let attempts = ledger.attempts();
    let asked: Vec<_> = attempts.iter().filter_map(|attempt| attempt.node).collect();
    let different: HashSet<_> = asked.iter().collect();
    assert_eq!(different.len(), asked.len().min(3), "{ledger}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_node_gets_a_handful_of_requests_and_its_traffic_back_afterwards() {
    let Some(ring) = ring().await else { return };
    let cassandra = ring.session().await;
    fill(&cassandra).await;
    let (stack, select) = (stack!(cassandra), prepared(&cassandra, SELECT).await);
    let sick = node(&ring, &cassandra, 2);
    let before = sick.figures().attempts;
    let mut slow = 0;
    {
        let _paused = ring.cluster.paused(2).unwrap();
        let began = Instant::now();
        let mut k = 0;
        while began.elapsed() < Duration::from_secs(6) {
            let calls = (0..4).map(|more| ask(&stack, read(&select, (k + more) % 60)));
            let at = Instant::now();
            for (outcome, ledger) in futures(calls).await {
                outcome.unwrap_or_else(|error| panic!("{error}"));
                goes_elsewhere(&ledger);
            }
            slow += usize::from(at.elapsed() > Duration::from_millis(250));
            k += 4;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let asked = sick.figures().attempts - before;
        assert!(asked <= 20, "{asked} attempts, {sick:?}");
        assert!(slow <= 10, "{slow} rounds");
        // It may have been avoided so soon that too few attempts met it to eject it.
        assert!(sick.is_ejected() || asked < 10, "{asked} attempts, {sick:?}");
    }
    let began = Instant::now();
    let mut k = 0;
    loop {
        let before = sick.figures().attempts;
        for _ in 0..300 {
            ask(&stack, read(&select, k % 60)).await.0.unwrap();
            k += 1;
        }
        let share = sick.figures().attempts - before;
        if share > 30 && !sick.is_ejected() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(40), "{share} of 300, {sick:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(cassandra.nodes().all().iter().map(|node| node.figures().in_flight).sum::<u32>(), 0);
}

/// All of them at once.
async fn futures<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<_> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(move |cx| {
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if done.is_none()
                && let Poll::Ready(output) = future.as_mut().poll(cx)
            {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) {
            Poll::Ready(done.iter_mut().map(|done| done.take().unwrap()).collect())
        } else {
            Poll::Pending
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hedge_goes_to_another_replica_and_only_where_there_is_one() {
    let Some(ring) = ring().await else { return };
    let cassandra = ring.session().await;
    let client = Client::new(cassandra.clone());
    create_keyspace(&client, "one_replica", 1).await;
    client.query("CREATE TABLE IF NOT EXISTS one_replica.t (k int PRIMARY KEY, v int)").await.unwrap();
    fill(&cassandra).await;
    let select = prepared(&cassandra, SELECT).await;
    let alone = prepared(&cassandra, "SELECT v FROM one_replica.t WHERE k = ?").await;
    let mut serial = prepared(&cassandra, SELECT).await;
    serial.set_consistency(Consistency::Serial);
    let swap = prepared(&cassandra, "UPDATE faults.t SET v = 0 WHERE k = ? IF v = -1").await;

    let hedge =
        HedgeLayer::builder().fixed_delay(Duration::from_millis(20)).max_extra_load(1.0).build().unwrap();
    let hedging = hedge.handle();
    let stack = stack!(cassandra, hedge);
    let _paused = ring.cluster.paused(2).unwrap();
    let mut hedged = 0;
    // Together, so that each node gets some.
    for round in 0..5 {
        let calls = (0..12).map(|k| ask(&stack, read(&select, round * 12 + k)));
        for (outcome, ledger) in futures(calls).await {
            outcome.unwrap_or_else(|error| panic!("{error}"));
            goes_elsewhere(&ledger);
            hedged += usize::from(ledger.len() > 1);
        }
    }
    let granted = hedging.snapshot().limit.granted;
    assert!(hedged > 0 && granted > 0, "{hedged} hedged, {granted} granted");
    for k in 0..6 {
        let _ = ask(&stack, read(&alone, k)).await;
        let _ = ask(&stack, read(&swap, k)).await;
        let _ = ask(&stack, read(&serial, k)).await;
    }
    assert_eq!(hedging.snapshot().limit.granted, granted, "one replica, or a transaction");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_do_not_fail_when_a_node_is_killed_and_come_back_to_it() {
    let Some(ring) = ring().await else { return };
    let cassandra = ring.session().await;
    fill(&cassandra).await;
    let (stack, select) = (stack!(cassandra), prepared(&cassandra, SELECT).await);
    let gone = node(&ring, &cassandra, 3);
    let (began, mut k, mut killed) = (Instant::now(), 0, false);
    while began.elapsed() < Duration::from_secs(4) {
        let calls = (0..8).map(|more| ask(&stack, read(&select, (k + more) % 60)));
        for (outcome, ledger) in futures(calls).await {
            outcome.unwrap_or_else(|error| panic!("{error}"));
            goes_elsewhere(&ledger);
        }
        k += 8;
        if !killed && began.elapsed() > Duration::from_secs(1) {
            ring.cluster.kill(3).unwrap();
            killed = true;
        }
    }
    assert_eq!(cassandra.nodes().availability(gone.host_id()), Some(Availability::Down));
    ring.cluster.start_node(3).unwrap();
    let began = Instant::now();
    let before = gone.figures().attempts;
    while gone.figures().attempts < before + 50 {
        ask(&stack, read(&select, k % 60)).await.0.unwrap_or_else(|error| panic!("{error}"));
        k += 1;
        assert!(began.elapsed() < Duration::from_secs(90), "{gone:?}");
    }
}

/// What may not be sent twice fails where it was under way, and next to nowhere else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_writes_that_are_not_repeated_few_meet_a_node_that_hangs() {
    let Some(ring) = ring().await else { return };
    let cassandra = ring.session().await;
    let table = "CREATE TABLE IF NOT EXISTS faults.l (k int PRIMARY KEY, l list<int>)";
    Client::new(cassandra.clone()).query(table).await.unwrap();
    let append = prepared(&cassandra, "UPDATE faults.l SET l = l + [1] WHERE k = ?").await;
    let stack = stack!(cassandra);
    for k in 0..30 {
        ask(&stack, read(&append, k)).await.0.unwrap();
    }
    let _paused = ring.cluster.paused(1).unwrap();
    let (mut failed, mut calls) = (Vec::new(), 0);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        let round = (0..4).map(|k| ask(&stack, read(&append, calls % 30 + k)));
        for (outcome, ledger) in futures(round).await {
            calls += 1;
            assert!(ledger.len() == 1 || outcome.is_ok(), "{ledger}");
            if let Err(error) = outcome {
                failed.push(error.to_string());
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(failed.len() <= 12, "{} of {calls}: {failed:#?}", failed.len());
}

/// More of them sick than may be ejected: the trouble is somewhere else, and traffic goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_half_of_the_nodes_are_ejected_and_traffic_goes_on() {
    let Some(ring) = ring().await else { return };
    let cassandra = ring.session().await;
    fill(&cassandra).await;
    let (stack, select) = (stack!(cassandra), prepared(&cassandra, SELECT).await);
    let nodes = cassandra.nodes().all();
    let ejected = || nodes.iter().filter(|node| node.is_ejected()).count();
    for (index, node) in nodes.iter().enumerate() {
        node.circuit().trip();
        assert!(nodes[0].is_ejected() || index > 0);
        assert_eq!(ejected(), 1);
    }
    let kept_out = nodes.iter().find(|node| node.is_ejected()).unwrap();
    let before = kept_out.figures().attempts;
    kept_out.circuit().set_mode(palisade::breaker::Mode::ForcedOpen);
    for k in 0..200 {
        ask(&stack, read(&select, k % 60)).await.0.unwrap();
    }
    assert_eq!(kept_out.figures().attempts, before, "{kept_out:?}");
    // The place is taken by one that waits for it, or none is out any more.
    kept_out.circuit().set_mode(palisade::breaker::Mode::Normal);
    assert!(!kept_out.is_ejected());
    let began = Instant::now();
    while nodes.iter().any(|node| node.circuit().state() != CircuitState::Closed) {
        ask(&stack, read(&select, 1)).await.0.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(began.elapsed() < Duration::from_secs(20), "{nodes:?}");
    }
    assert_eq!(ejected(), 0);
}

/// out01: with all nodes hung and out of favour, a call waits for what wakes it, and does not ask again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out01_a_call_to_ejected_nodes_does_not_spin() {
    let Some(ring) = ring().await else { return };
    let mut cassandra = ring.session().await;
    fill(&cassandra).await;
    let select = prepared(&cassandra, SELECT).await;
    let _paused: Vec<_> = (1..=3).map(|node| ring.cluster.paused(node).unwrap()).collect();
    for node in cassandra.nodes().all() {
        node.circuit().trip();
    }
    let mut call = pin!(cassandra.ready().await.unwrap().call(read(&select, 1)));
    let mut polls = 0;
    let counted = std::future::poll_fn(|cx| {
        polls += 1;
        call.as_mut().poll(cx)
    });
    assert!(tokio::time::timeout(Duration::from_millis(500), counted).await.is_err());
    assert!(polls < 20, "{polls} polls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_the_users_is_routed_by_what_its_profile_names() {
    let Some(ring) = ring().await else { return };
    fill(&ring.session().await).await;
    let routing = Routing::builder().datacenter("dc1").build().unwrap();
    let profile = ExecutionProfile::builder().load_balancing_policy(routing.clone()).build();
    let points = ring.cluster.contact_points();
    let session = SessionBuilder::new()
        .known_nodes(points.iter().map(ToString::to_string))
        .default_execution_profile_handle(profile.into_handle())
        .build()
        .await
        .unwrap();
    let cassandra = Cassandra::builder().routed_by(routing.clone()).over_session(session).unwrap();
    assert!(Arc::ptr_eq(cassandra.nodes(), routing.nodes()));
    assert_eq!((cassandra.datacenter(), cassandra.nodes().all().len()), (Some("dc1"), 3));
    let select = prepared(&cassandra, SELECT).await;
    let stack = stack!(cassandra);
    for k in 0..60 {
        let (outcome, ledger) = ask(&stack, read(&select, k)).await;
        let coordinator = outcome.unwrap().coordinator().unwrap().node().address.ip();
        assert_eq!(ledger.attempts()[0].node.unwrap().ip(), coordinator);
        assert!(ledger.attempts()[0].host_id.is_some());
    }
    let attempts = routing.nodes().all().iter().map(|node| node.figures().attempts).sum::<u64>();
    assert_eq!(attempts, 60);
    let sick = node(&ring, &cassandra, 1);
    sick.circuit().trip();
    for k in 0..60 {
        ask(&stack, read(&select, k)).await.0.unwrap();
        if sick.circuit().state() == CircuitState::Closed {
            break;
        }
    }
    // A session that another policy routes knows its nodes all the same.
    let foreign = SessionBuilder::new().known_node(points[0].to_string()).build().await.unwrap();
    let foreign = Cassandra::from_session(foreign);
    ask(&foreign, read(&prepared(&foreign, SELECT).await, 1)).await.0.unwrap();
    assert_eq!(foreign.nodes().all().iter().map(|node| node.figures().attempts).sum::<u64>(), 1);
}

/// Whatever is preferred, each node that the driver would ask is there, and none twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plan_names_the_nodes_of_the_drivers_own_plan_once_each() {
    let Some(ring) = ring().await else { return };
    let cassandra = ring.session().await;
    let routing = Routing::builder().build().unwrap();
    let foreign = Routing::builder().around(DefaultPolicy::builder().build()).build().unwrap();
    let cluster = cassandra.session().get_cluster_state();
    let table = TableSpec::borrowed("faults", "t");
    let mut info = RoutingInfo::default();
    for token in [None, Some(-9), Some(1 << 60), Some(-(1 << 61))] {
        info.token = token.map(Token::new);
        info.table = token.is_some().then_some(&table);
        for policy in [&routing, &foreign] {
            let first = policy.pick(&info, &cluster).unwrap();
            let rest: Vec<_> = policy.fallback(&info, &cluster).collect();
            let hosts: HashSet<_> = rest.iter().map(|(node, _)| node.host_id).collect();
            assert_eq!((rest.len(), hosts.len()), (3, 3), "{token:?}");
            assert!(hosts.contains(&first.0.host_id));
        }
    }
    let nodes = routing.nodes().all();
    nodes[1].circuit().set_mode(palisade::breaker::Mode::ForcedOpen);
    for _ in 0..50 {
        assert_ne!(routing.pick(&info, &cluster).unwrap().0.host_id, nodes[1].host_id());
        let last = routing.fallback(&info, &cluster).last().unwrap();
        assert_eq!(last.0.host_id, nodes[1].host_id());
    }
}

/// Of three replicas, without an allocation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn choosing_among_three_replicas_allocates_nothing() {
    let Some(ring) = ring().await else { return };
    let cassandra = ring.session().await;
    let routing = Routing::builder().datacenter("dc1").rack("rack1").build().unwrap();
    let cluster = cassandra.session().get_cluster_state();
    let table = TableSpec::borrowed("faults", "t");
    let mut info = RoutingInfo::default();
    for token in [Some(Token::new(77)), None] {
        info.token = token;
        info.table = token.is_some().then_some(&table);
        routing.pick(&info, &cluster).unwrap();
        let picks = 10_000_u32;
        let began = Instant::now();
        let allocations = allocation_counter::measure(|| {
            for _ in 0..picks {
                std::hint::black_box(routing.pick(&info, &cluster));
            }
        });
        println_time(token.is_some(), began.elapsed() / picks);
        assert_eq!(allocations.count_total, 0);
    }
}

/// For whoever runs it with `--nocapture`.
fn println_time(has_token: bool, took: Duration) {
    use std::io::Write;
    let _ =
        writeln!(std::io::stdout(), "a choice with {} token: {took:?}", if has_token { "a" } else { "no" });
}

#[tokio::test]
async fn a_datacenter_that_does_not_exist_is_named_with_those_that_do() {
    let Some(cassandra) = session().await else { return };
    let existing = cassandra.nodes().all()[0].datacenter().unwrap().to_owned();
    let text = || Request::text("SELECT key FROM system.local");
    let (outcome, ledger) = ask(&cassandra, text().with_datacenter("nowhere")).await;
    let error = outcome.unwrap_err();
    assert_eq!((error.kind(), error.may_have_been_applied()), (ErrorKind::Config, false), "{error}");
    let expected = format!("`datacenter` is \"nowhere\", which the cluster does not have: it has {existing}");
    assert!(error.to_string().contains(&expected), "{error}");
    assert!(matches!(ledger.attempts()[0].outcome, Outcome::Failed(ErrorKind::Config, _)));
    ask(&cassandra, text().with_datacenter(existing)).await.0.unwrap();
}

/// The listener of a circuit, and whoever reads the log, may look at the nodes from within.
#[tokio::test]
async fn out02_whoever_is_told_of_an_ejection_may_ask_about_the_nodes() {
    let Some(cassandra) = session().await else { return };
    let node = cassandra.nodes().all().remove(0);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let looker = Looker { cassandra: cassandra.clone(), seen: Arc::clone(&seen) };
    tracing::subscriber::with_default(looker, || {
        node.circuit().trip();
        node.circuit().reset();
    });
    assert!(!node.is_ejected());
    let seen = seen.lock().unwrap();
    assert!(seen.contains(&true) && seen.contains(&false), "{seen:?}");
}

struct Looker {
    cassandra: Cassandra,
    seen: Arc<Mutex<Vec<bool>>>,
}

impl tracing::Subscriber for Looker {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        let nodes = self.cassandra.nodes();
        for node in nodes.all() {
            let _ = (node.figures(), node.circuit().snapshot(), nodes.availability(node.host_id()));
            self.seen.lock().unwrap().push(node.is_ejected());
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
