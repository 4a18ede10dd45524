//! Two datacenters without a failover: which of them serves, and what of a keyspace can be served where.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use palisade::{Backoff, DeadlineLayer, RetryLayer, TimeoutLayer};
use scylla::statement::{Consistency, prepared::PreparedStatement};
use tokio::task::JoinSet;
use tower::{Layer, ServiceBuilder};
use tower_cassandra::{
    Cassandra, Client, ErrorKind, Request, Response, Statement,
    health::{HealthMonitor, NodeState},
    routing::Routing,
};

use crate::{
    cluster::{Ring, small_and_large_datacenter},
    health::{settings, until},
    routing::{ask, prepared, read},
};

const ATTEMPT: Duration = Duration::from_millis(300);

macro_rules! stack {
    ($cassandra:expr, $deadline:expr) => {
        ServiceBuilder::new()
            .layer(DeadlineLayer::new($deadline))
            .layer(RetryLayer::builder().max_attempts(4).backoff(Backoff::NONE).build().unwrap())
            .layer(TimeoutLayer::new(ATTEMPT))
            .service($cassandra.clone())
    };
}

async fn create(cassandra: &Cassandra, keyspace: &str, replication: &str) {
    let client = Client::new(cassandra.clone());
    let cql =
        format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {{'class': {replication}}}");
    client.query(cql).await.unwrap();
    client
        .query(format!("CREATE TABLE IF NOT EXISTS {keyspace}.t (k int PRIMARY KEY, v int)"))
        .await
        .unwrap();
}

fn served_by(response: &Response) -> &str {
    response.coordinator().unwrap().node().datacenter.as_deref().unwrap()
}

/// How many attempts were made at the nodes of a datacenter.
fn attempts(cassandra: &Cassandra, datacenter: &str) -> u64 {
    let nodes = cassandra.nodes().all();
    let there = nodes.iter().filter(|node| node.datacenter() == Some(datacenter));
    there.map(|node| node.figures().attempts).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_stay_in_the_datacenter_that_is_named_also_while_nodes_there_hang() {
    let Some(ring) = small_and_large_datacenter().await else { return };
    let settings = ring.settings().routing(Routing::builder().datacenter("dc2"));
    let cassandra = settings.connect().await.unwrap();
    assert_eq!(cassandra.datacenter(), Some("dc2"));
    create(&cassandra, "both", "'NetworkTopologyStrategy', 'dc1': 1, 'dc2': 2").await;
    let select = prepared(&cassandra, "SELECT v FROM both.t WHERE k = ?").await;
    let stack = stack!(cassandra, Duration::from_secs(3));
    let local = |k| read(&select, k).with_consistency(Consistency::LocalOne);
    let without_token = || Request::text("SELECT key FROM system.local");
    let all_from = async |datacenter: &str, named: bool| {
        let wish = |request: Request| if named { request.with_datacenter(datacenter) } else { request };
        let elsewhere = if datacenter == "dc1" { "dc2" } else { "dc1" };
        let before = attempts(&cassandra, elsewhere);
        for k in 0..100 {
            for request in [local(k), without_token()] {
                let (outcome, ledger) = ask(&stack, wish(request)).await;
                let response = outcome.unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(served_by(&response), datacenter, "{ledger}");
            }
        }
        assert_eq!(attempts(&cassandra, elsewhere), before, "an attempt was made elsewhere");
    };
    all_from("dc2", false).await;
    all_from("dc1", true).await;
    {
        let _paused = ring.cluster.paused(3).unwrap();
        all_from("dc2", false).await;
        all_from("dc1", true).await;
        // And if nobody is left there that answers.
        let _paused_too = ring.cluster.paused(2).unwrap();
        let before = attempts(&cassandra, "dc1");
        for k in 0..3 {
            let (outcome, ledger) = ask(&stack, local(k).with_timeout(Duration::from_secs(1))).await;
            assert!(outcome.unwrap_err().is_timeout(), "{ledger}");
        }
        assert_eq!(attempts(&cassandra, "dc1"), before, "what is to stay in dc2 was sent to dc1");
        all_from("dc1", true).await;
    }
}

/// Keyspaces that are spread over two datacenters in different ways.
const KEYSPACES: [(&str, &str); 5] = [
    ("simple_1", "'SimpleStrategy', 'replication_factor': 1"),
    ("simple_2", "'SimpleStrategy', 'replication_factor': 2"),
    ("simple_3", "'SimpleStrategy', 'replication_factor': 3"),
    ("there", "'NetworkTopologyStrategy', 'dc2': 2"),
    ("both", "'NetworkTopologyStrategy', 'dc1': 1, 'dc2': 2"),
];
const LEVELS: [Consistency; 6] = [
    Consistency::One,
    Consistency::Two,
    Consistency::Quorum,
    Consistency::All,
    Consistency::LocalOne,
    Consistency::LocalQuorum,
];
const KEYS: i32 = 24;

/// Asks for each keyspace in each datacenter at each level, and compares what is served with what the monitor says.
async fn readiness_is_true(
    cassandra: &Cassandra,
    monitor: &HealthMonitor,
    selects: &[(&str, PreparedStatement)],
    datacenters: &[&str],
) {
    for (keyspace, select) in selects {
        for (datacenter, level) in datacenters.iter().flat_map(|name| LEVELS.map(|level| (*name, level))) {
            let readiness = monitor.readiness_in(datacenter, keyspace, level);
            let mut served = 0;
            for k in 0..KEYS {
                let request = read(select, k).with_datacenter(datacenter).with_consistency(level);
                match ask(cassandra, request.with_timeout(Duration::from_secs(5))).await.0 {
                    Ok(response) => {
                        assert_eq!(served_by(&response), datacenter);
                        served += 1;
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
                }
            }
            let what = format!("{served} of {KEYS} were served in {datacenter}, {readiness:?}");
            assert!(!readiness.ready || served == KEYS, "{what}");
            // A range of the ring is a millionth of a millionth of it: no key is there.
            match readiness.share {
                ..1e-6 => assert_eq!(served, 0, "{what}"),
                0.999_999.. => assert_eq!(served, KEYS, "{what}"),
                share => assert!((f64::from(served) / f64::from(KEYS) - share).abs() < 0.35, "{what}"),
            }
        }
    }
}

fn address(ring: &Ring, node: usize) -> std::net::SocketAddr {
    ring.cluster.address(node)
}

async fn until_down(monitor: &HealthMonitor, ring: &Ring, node: usize) {
    let is_down =
        || monitor.report().in_state(NodeState::Down).any(|down| down.address == address(ring, node));
    until("down", Duration::from_secs(10), is_down).await;
}

/// Whichever datacenter it is in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_replica_that_hangs_fails_what_it_has_in_time_and_the_rest_is_served() {
    let Some(ring) = small_and_large_datacenter().await else { return };
    let cassandra = ring.settings().datacenter("dc1").connect().await.unwrap();
    create(&cassandra, KEYSPACES[0].0, KEYSPACES[0].1).await;
    let select = prepared(&cassandra, "SELECT v FROM simple_1.t WHERE k = ?").await;
    let cluster = cassandra.session().get_cluster_state();
    let of_sick: HashSet<_> = (0..KEYS)
        .filter(|k| {
            let replicas = cluster.get_endpoints("simple_1", "t", &(*k,)).unwrap();
            replicas.iter().all(|(node, _)| node.address.ip() == address(&ring, 3).ip())
        })
        .collect();
    assert!(of_sick.len() > 4 && of_sick.len() < 20, "{of_sick:?}");
    let monitor = settings().start(&cassandra).unwrap();
    until("all up", Duration::from_secs(20), || monitor.report().status.as_str() == "healthy").await;
    let guarded = Client::new(monitor.layer().min_share(1.0).unwrap().layer(cassandra.clone()));
    let one = || Statement::new("SELECT v FROM simple_1.t WHERE k = ?").consistency(Consistency::One);
    guarded.execute(one(), (0,)).await.unwrap();

    let _paused = ring.cluster.paused(3).unwrap();
    until_down(&monitor, &ring, 3).await;
    let readiness = monitor.readiness("simple_1", Consistency::One);
    let reason = readiness.reason.clone().unwrap();
    let expected = format!("0 of 1 replicas are up, and it takes 1; down: {}", address(&ring, 3));
    assert!(reason.contains(&expected), "{reason}");
    assert!((0.2..0.8).contains(&readiness.share) && readiness.datacenters.is_empty(), "{readiness:?}");
    // Who wants all or nothing is refused at once, whichever key it is.
    let began = Instant::now();
    let error = guarded.execute(one(), (0,)).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Unavailable, reason));
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());

    let stack = stack!(cassandra, Duration::from_secs(1));
    for round in 0..3 {
        let mut calls = JoinSet::new();
        for k in 0..KEYS {
            let (stack, request) = (stack.clone(), read(&select, k).with_consistency(Consistency::One));
            calls.spawn(async move {
                let began = Instant::now();
                let (outcome, _) = ask(&stack, request).await;
                (k, began.elapsed(), outcome)
            });
        }
        for (k, took, outcome) in calls.join_all().await {
            let what = format!("{k} in round {round} after {took:?}");
            match outcome {
                Ok(response) => {
                    assert!(!of_sick.contains(&k), "{what}");
                    assert_eq!(served_by(&response), "dc1", "{what}");
                    assert!(took < ATTEMPT, "{what}");
                }
                Err(error) => {
                    assert!(of_sick.contains(&k) && error.is_timeout(), "{what}: {error}");
                    assert!(took < Duration::from_millis(1_250), "{what}");
                }
            }
        }
    }
}

/// By its name the last one here, since it leaves nodes stopped, which the others would have to start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_to_be_served_is_served_and_the_rest_is_refused_whatever_the_strategy() {
    let Some(ring) = small_and_large_datacenter().await else { return };
    let cassandra = ring.settings().datacenter("dc1").connect().await.unwrap();
    let mut selects = Vec::new();
    for (keyspace, replication) in KEYSPACES {
        create(&cassandra, keyspace, replication).await;
        selects
            .push((keyspace, prepared(&cassandra, &format!("SELECT v FROM {keyspace}.t WHERE k = ?")).await));
    }
    let monitor = settings().start(&cassandra).unwrap();
    until("all up", Duration::from_secs(20), || monitor.report().status.as_str() == "healthy").await;
    readiness_is_true(&cassandra, &monitor, &selects, &["dc1", "dc2"]).await;
    // Without a preference of the request's, that of the session: a local level is that of dc1.
    let there = monitor.readiness("there", Consistency::LocalQuorum);
    let reason = "it has no replicas in datacenter dc1; use another datacenter, or alter the keyspace";
    assert!(there.reason.as_ref().is_some_and(|told| told.ends_with(reason)), "{there:?}");
    assert_eq!(there.datacenters, ["dc2"]);

    // A node that has said goodbye, so that its peers know.
    ring.cluster.stop(3).unwrap();
    until_down(&monitor, &ring, 3).await;
    readiness_is_true(&cassandra, &monitor, &selects, &["dc1", "dc2"]).await;
    ring.cluster.stop(2).unwrap();
    until_down(&monitor, &ring, 2).await;
    readiness_is_true(&cassandra, &monitor, &selects, &["dc1"]).await;
    for (keyspace, _) in KEYSPACES {
        let nobody = monitor.readiness_in("dc2", keyspace, Consistency::One);
        let reason = "no node of datacenter dc2 is up";
        assert!(nobody.reason.as_ref().is_some_and(|told| told.contains(reason)), "{nobody:?}");
    }
}
