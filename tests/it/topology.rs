//! A node leaves the cluster and a new one joins it, while requests are made.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use palisade::{Backoff, DeadlineLayer, RetryLayer, TimeoutLayer};
use scylla::statement::Consistency;
use tokio::{
    task::{JoinHandle, JoinSet, spawn_blocking},
    time::{interval, sleep, timeout},
};
use tower::ServiceBuilder;
use tower_cassandra::{
    BoxClient, Cassandra, Client,
    health::{HealthMonitor, NodeState, Transition},
    nodes::Node,
    routing::Routing,
};
use uuid::Uuid;

use crate::{
    cluster::changing,
    health::{MET, settings, told, until},
};

const SELECT: &str = "SELECT v FROM moving.t WHERE k = ?";
const INSERT: &str = "INSERT INTO moving.t (k, v) VALUES (?, ?)";
const KEYS: i32 = 60;
/// From one call to the next, however long they take.
const PAUSE: Duration = Duration::from_millis(10);
const SLOW_START: Duration = Duration::from_secs(4);
/// After a node has left, or serves, so much later that is known here. The driver is told of it by the cluster.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

/// Reads of what is there, and writes, in turn.
struct Traffic {
    is_over: Arc<AtomicBool>,
    calls: JoinHandle<Vec<Result<(), String>>>,
}

impl Traffic {
    fn start(client: BoxClient) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let calls = tokio::spawn(async move {
            let (mut calls, mut next) = (JoinSet::new(), interval(PAUSE));
            for number in 0.. {
                next.tick().await;
                if over.load(Relaxed) {
                    break;
                }
                let (client, k) = (client.clone(), number / 2 % KEYS);
                calls.spawn(async move {
                    if number % 2 == 0 {
                        let rows = client.execute(SELECT, (k,)).await.map(|response| response.rows_num());
                        let rows = rows.map_err(|error| error.to_string())?;
                        if rows == 1 { Ok(()) } else { Err(format!("{rows} rows of {k}")) }
                    } else {
                        client.execute(INSERT, (k, k)).await.map(drop).map_err(|error| error.to_string())
                    }
                });
            }
            calls.join_all().await
        });
        Self { is_over, calls }
    }

    /// What became of all of them.
    async fn end(self) -> Vec<Result<(), String>> {
        self.is_over.store(true, Relaxed);
        self.calls.await.unwrap()
    }
}

async fn set_up(cassandra: &Cassandra) -> BoxClient {
    let bare = Client::new(cassandra.clone());
    let keyspace = "CREATE KEYSPACE moving WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3}";
    bare.query(keyspace).await.unwrap();
    bare.query("CREATE TABLE moving.t (k int PRIMARY KEY, v int)").await.unwrap();
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(Duration::from_secs(10)))
        .layer(RetryLayer::builder().max_attempts(4).backoff(Backoff::NONE).build().unwrap())
        .layer(TimeoutLayer::new(Duration::from_secs(2)))
        .service(cassandra.clone());
    let client = Client::new(stack).boxed();
    for k in 0..KEYS {
        client.execute(INSERT, (k, k)).await.unwrap();
    }
    client
}

fn find(cassandra: &Cassandra, address: SocketAddr) -> Option<Arc<Node>> {
    cassandra.nodes().all().into_iter().find(|node| node.address() == address)
}

/// When a node with this address that is not this one is first known, with the share of its traffic that it has then.
async fn newcomer(cassandra: Cassandra, address: SocketAddr, other_than: Uuid) -> (Instant, f64, Arc<Node>) {
    loop {
        let found = find(&cassandra, address).filter(|node| node.host_id() != other_than);
        if let Some(node) = found {
            return (Instant::now(), node.figures().weight, node);
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// How much of all attempts a node has meanwhile.
async fn share(cassandra: &Cassandra, node: &Node, meanwhile: impl Future<Output = ()>) -> f64 {
    let count = || {
        let all: u64 = cassandra.nodes().all().iter().map(|node| node.figures().attempts).sum();
        (u32::try_from(node.figures().attempts).unwrap(), u32::try_from(all).unwrap())
    };
    let (before, all_before) = count();
    meanwhile.await;
    let (after, all_after) = count();
    f64::from(after - before) / f64::from(all_after - all_before)
}

/// Reads so many at a time that one node alone is not the best for all of them.
async fn bursts(client: &BoxClient) {
    for _ in 0..10 {
        let mut calls = JoinSet::new();
        for k in 0..24 {
            let client = client.clone();
            calls.spawn(async move { client.execute(SELECT, (k,)).await.map(drop) });
        }
        calls.join_all().await.into_iter().for_each(Result::unwrap);
    }
}

fn of(host_id: Uuid, told: &[Transition]) -> Vec<&Transition> {
    told.iter().filter(|transition| transition.host_id == host_id).collect()
}

/// By the metrics, in how many states each node is, by its address, and how many nodes are in each state. To look sets them all to 0.
fn gauges(recorder: &DebuggingRecorder) -> (HashMap<String, usize>, HashMap<String, String>) {
    let (mut nodes, mut states) = (HashMap::new(), HashMap::new());
    for (key, _, _, value) in recorder.snapshotter().snapshot().into_vec() {
        let label = |wanted| {
            let label = key.key().labels().find(|label| label.key() == wanted);
            label.unwrap().value().to_owned()
        };
        match (key.key().name(), value) {
            ("cassandra.client.node.state", DebugValue::Gauge(value)) => {
                *nodes.entry(label("server.address")).or_default() += usize::from(value.0 > 0.5);
            }
            ("cassandra_health_nodes", DebugValue::Gauge(value)) => {
                states.insert(label("state"), value.to_string());
            }
            _ => {}
        }
    }
    (nodes, states)
}

/// On one thread, so that the recorder sees it all.
#[tokio::test]
async fn a_node_that_leaves_is_forgotten_and_a_new_one_in_its_place_is_learned_while_no_call_fails() {
    let Some((cluster, _turn)) = changing().await else { return };
    let cluster = Arc::new(cluster);
    let recorder = DebuggingRecorder::new();
    let _recorded = metrics::set_default_local_recorder(&recorder);
    let points = cluster.contact_points();
    let cassandra = Cassandra::builder()
        .contact_points(points.iter().map(ToString::to_string))
        .routing(Routing::builder().slow_start(SLOW_START))
        .connect()
        .await
        .unwrap();
    let client = set_up(&cassandra).await;
    let monitor = settings().start(&cassandra).unwrap();
    let transitions = monitor.transitions();
    monitor.warm_up(Duration::from_secs(20)).await.unwrap();
    let (stays, place) = (points[0], points[2]);
    let (old, dropped) = {
        let node = find(&cassandra, place).unwrap();
        assert!(node.figures().weight >= 1.0, "where all are new none has to wait");
        (node.host_id(), Arc::downgrade(&node))
    };
    let traffic = Traffic::start(client.clone());
    sleep(Duration::from_secs(1)).await;

    let began = Instant::now();
    let leaving = Arc::clone(&cluster);
    spawn_blocking(move || leaving.nodetool(3, &["decommission", "--force"])).await.unwrap().unwrap();
    let left = Instant::now();
    until("forgotten", KNOWN_WITHIN, || cassandra.nodes().get(old).is_none()).await;
    println!("it took {:?} to leave, and was known {:?} longer", left - began, left.elapsed());
    until("let go", KNOWN_WITHIN, || dropped.strong_count() == 0).await;
    until("reported", KNOWN_WITHIN, || monitor.report().nodes.len() == 2).await;
    assert_eq!((cassandra.nodes().all().len(), monitor.state(old)), (2, None));
    let ready = |level| monitor.readiness("moving", level);
    served_by_two(&monitor);
    // What has left is in no state, and what stays is in one.
    sleep(Duration::from_millis(500)).await;
    let (nodes, states) = gauges(&recorder);
    let in_states = |nodes: &HashMap<_, usize>, address: SocketAddr| nodes[&address.ip().to_string()];
    assert_eq!((in_states(&nodes, place), in_states(&nodes, stays)), (0, 1), "{nodes:?}");
    assert_eq!((&*states["up"], &*states["down"]), ("2", "0"), "{states:?}");

    let met = tokio::spawn(newcomer(cassandra.clone(), place, old));
    let (joining, began) = (Arc::clone(&cluster), Instant::now());
    let joined = spawn_blocking(move || {
        joining.kill(3)?;
        joining.start_anew(3)
    });
    joined.await.unwrap().unwrap();
    let serves = Instant::now();
    let (known, weight, new) = timeout(KNOWN_WITHIN, met).await.expect("a new node is learned").unwrap();
    println!(
        "it took {:?} to join, and was known {:?} later",
        serves - began,
        known.saturating_duration_since(serves)
    );
    assert!(weight < 0.2, "{weight}");
    let at_first = share(&cassandra, &new, sleep(Duration::from_secs(1))).await;
    until("up", Duration::from_secs(10), || monitor.state(new.host_id()) == Some(NodeState::Up)).await;
    assert!(ready(Consistency::All).ready, "{:?}", ready(Consistency::All));
    until("known to the metrics", KNOWN_WITHIN, || {
        let (nodes, states) = gauges(&recorder);
        in_states(&nodes, place) == 1 && states["up"] == "3"
    })
    .await;
    until("warm", SLOW_START * 2, || new.figures().weight >= 1.0).await;
    // What it has answered late, while it was cold, is held against it for a while.
    let (mut in_the_end, mut rounds) = (0.0, 0);
    while in_the_end < 0.2 {
        assert!(rounds < 100, "{in_the_end} of the attempts, {:?}", cassandra.nodes());
        in_the_end = share(&cassandra, &new, bursts(&client)).await;
        println!("{in_the_end:.2}");
        rounds += 1;
    }
    println!("{at_first:.2} of the attempts at first, and {in_the_end:.2} after {:?}", known.elapsed());
    assert!(at_first < in_the_end.min(0.2), "{at_first}");

    let calls = traffic.end().await;
    let failures: Vec<_> = calls.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    println!("{} calls", calls.len());
    assert!(
        failures.is_empty() && calls.len() > 1_000,
        "{} of {}: {failures:#?}",
        failures.len(),
        calls.len()
    );
    assert_eq!(cassandra.nodes().all().iter().map(|node| node.figures().in_flight).sum::<u32>(), 0);
    let told = told(&monitor, transitions).await;
    let of_new: Vec<_> =
        of(new.host_id(), &told).iter().map(|change| (change.from, change.to, change.cause)).collect();
    assert_eq!(of_new, [MET]);
    let of_old = of(old, &told);
    assert!(
        of_old.len() <= 2 && of_old.iter().skip(1).all(|change| change.to == NodeState::Down),
        "{of_old:?}"
    );
    let others = told.iter().filter(|change| change.node != place);
    assert!(others.clone().all(|change| change.to != NodeState::Down), "{told:#?}");
}

/// The two nodes that are left of three have all that they ever had, and one replica less than there are to be.
fn served_by_two(monitor: &HealthMonitor) {
    let report = monitor.report();
    assert_eq!((report.status.as_str(), report.datacenters[0].up), ("healthy", 2), "{report:#?}");
    let quorum = monitor.readiness("moving", Consistency::LocalQuorum);
    assert!(quorum.ready, "{quorum:?}");
    let all = monitor.readiness("moving", Consistency::All);
    let missing = "2 of 2 replicas are up, and it takes 3; add nodes or use a lower level";
    assert!(!all.ready && all.reason.as_ref().is_some_and(|reason| reason.contains(missing)), "{all:?}");
}
