//! Nodes that come back are connected to at once.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use scylla::{cluster::metadata::Peer, policies::host_filter::HostFilter};
use scylla_proxy::get_exclusive_local_address;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tower_cassandra::{Cassandra, CassandraBuilder, Client, ErrorKind, Statement};

use crate::cluster::{Ring, ring, settings, shared, skip};

/// As long as it takes the driver's waits to grow to ten seconds.
const OUTAGE: Duration = Duration::from_secs(20);

fn read() -> Statement<'static> {
    Statement::new("SELECT key FROM system.local").idempotent(true)
}

/// Whether the driver has a connection to the node with this address.
fn is_connected(cassandra: &Cassandra, address: SocketAddr) -> bool {
    let cluster = cassandra.session().get_cluster_state();
    cluster.get_nodes_info().iter().any(|node| node.address.ip() == address.ip() && node.is_connected())
}

async fn until(what: &str, limit: Duration, condition: impl Fn() -> bool) -> Instant {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Instant::now()
}

/// Kills nodes, starts them again after a while, all at the same time, and tells when the first one answered.
struct Outage {
    over: Arc<OnceLock<Instant>>,
    starts: Vec<JoinHandle<()>>,
}

impl Outage {
    fn begin(ring: &Ring, nodes: &[usize]) -> Self {
        let (cluster, over) = (ring.cluster, Arc::new(OnceLock::new()));
        for node in nodes {
            cluster.kill(*node).unwrap();
        }
        let start = |node: &usize| {
            let (node, over) = (*node, Arc::clone(&over));
            tokio::task::spawn_blocking(move || {
                thread::sleep(OUTAGE);
                cluster.start_node(node).unwrap();
                over.get_or_init(Instant::now);
            })
        };
        let starts = nodes.iter().map(start).collect();
        Self { over, starts }
    }

    async fn over(&self) -> Instant {
        until("a node's answer", Duration::from_secs(180), || self.over.get().is_some()).await;
        *self.over.get().unwrap()
    }

    async fn all_are_back(self) {
        for start in self.starts {
            start.await.unwrap();
        }
    }
}

/// Asks until there is an answer. What fails until then names each node.
async fn served(cassandra: Cassandra) -> Instant {
    let (client, nodes) = (Client::new(cassandra.clone()), cassandra.nodes().all());
    while let Err(error) = client.query(read()).await {
        // A node that begins to serve may still break a connection off.
        if error.kind() == ErrorKind::Unreachable && !error.may_have_been_applied() {
            for node in &nodes {
                let named = format!("{} has no connection", node.address());
                assert!(error.to_string().contains(&named), "{error}");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Instant::now()
}

/// Rejects the node with this address.
struct Without(SocketAddr);

impl HostFilter for Without {
    fn accept(&self, peer: &Peer) -> bool {
        peer.address.ip() != self.0.ip()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_of_all_nodes_the_first_that_is_back_serves_within_seconds() {
    let Some(ring) = ring().await else { return };
    let nodes = ring.cluster.contact_points();
    let plain = || ring.settings();
    let same: HashMap<_, _> = nodes.iter().map(|node| (*node, *node)).collect();
    let translated = plain().driver(move |session| session.address_translator(Arc::new(same.clone())));
    let mut prompt = Vec::new();
    for settings in [plain(), plain(), plain(), plain(), translated.clone(), translated] {
        prompt.push(settings.connect().await.unwrap());
    }
    let patient = plain().reconnect_promptly(false).connect().await.unwrap();
    let client = Client::new(prompt[0].clone());
    client.query(read()).await.unwrap();
    let outage = Outage::begin(&ring, &[1, 2, 3]);
    let is_alone = || !nodes.iter().any(|node| is_connected(&prompt[0], *node));
    until("no connection", Duration::from_secs(10), is_alone).await;

    // Each call says at once which nodes there are, and that nothing was done.
    for _ in 0..20 {
        let began = Instant::now();
        let error = client.query(read()).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
        assert!(!error.may_have_been_applied(), "{error}");
        for address in &nodes {
            assert!(error.to_string().contains(&format!("{address} has no connection")), "{error}");
        }
    }

    let limit = Duration::from_secs(30);
    let promptly: Vec<_> = prompt.iter().map(|session| tokio::spawn(served(session.clone()))).collect();
    let patiently = tokio::spawn(served(patient));
    let over = outage.over().await;
    let mut after = Vec::new();
    for served in promptly {
        after.push(
            tokio::time::timeout(limit, served).await.unwrap().unwrap().saturating_duration_since(over),
        );
    }
    outage.all_are_back().await;
    let are_connected = || nodes.iter().all(|node| prompt.iter().all(|session| is_connected(session, *node)));
    let all = until("all nodes", Duration::from_secs(10), are_connected).await - over;
    let patiently = tokio::time::timeout(limit, patiently).await.unwrap().unwrap() - over;
    println!("served {after:?} after the first answer ({patiently:?} without), by all nodes after {all:?}");
    assert!(after.iter().all(|after| *after < Duration::from_secs(4)), "{after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_is_connected_again_at_once_and_what_the_users_filter_rejects_is_not() {
    let Some(ring) = ring().await else { return };
    let [_, second, third] = ring.cluster.contact_points()[..] else { panic!("three nodes") };
    let settings = ring.settings().driver(move |session| session.host_filter(Arc::new(Without(third))));
    let cassandra = settings.connect().await.unwrap();
    let client = Client::new(cassandra.clone());
    let outage = Outage::begin(&ring, &[2]);
    until("no connection", Duration::from_secs(10), || !is_connected(&cassandra, second)).await;
    let calls = tokio::spawn(async move {
        let mut calls = 0;
        loop {
            client.query(read()).await.unwrap_or_else(|error| panic!("call {calls}: {error}"));
            calls += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let over = outage.over().await;
    let back = until("the node", Duration::from_secs(30), || is_connected(&cassandra, second)).await;
    let after = back.saturating_duration_since(over);
    println!("connected {after:?} after the node's first answer");
    assert!(after < Duration::from_secs(4), "{after:?}");
    assert!(!is_connected(&cassandra, third), "the user's filter is gone");
    assert!(!calls.is_finished(), "a call has failed: {:?}", calls.await);
    calls.abort();
}

/// The functional tests' node behind an address that can be closed.
struct Door {
    real: SocketAddr,
    address: SocketAddr,
    open: Option<JoinHandle<()>>,
}

impl Door {
    async fn open() -> Option<Self> {
        let point = shared()?.remove(0);
        let Ok(real) = point.parse::<SocketAddr>() else {
            return skip(format!("a door needs an address and a port, and {point} is none"));
        };
        let address = SocketAddr::new(get_exclusive_local_address(), real.port());
        let mut door = Self { real, address, open: None };
        door.open_again().await;
        Some(door)
    }

    async fn open_again(&mut self) {
        let (listener, real) = (TcpListener::bind(self.address).await.unwrap(), self.real);
        self.open = Some(tokio::spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((mut inside, _)) = listener.accept().await {
                passing.spawn(async move {
                    let mut outside = TcpStream::connect(real).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
                });
            }
        }));
    }

    /// Ends all connections, and refuses new ones.
    async fn close(&mut self) {
        let open = self.open.take().unwrap();
        open.abort();
        let _ = open.await;
    }

    fn settings(&self) -> CassandraBuilder {
        // The node tells its own address.
        let translation = HashMap::from([(self.real, self.address)]);
        Cassandra::builder()
            .contact_point(self.address.to_string())
            .driver(move |session| session.address_translator(Arc::new(translation.clone())))
    }
}

/// The driver has tried some 13 s after it has lost the node, and tries next after some 21 s. The node's own address answers all
/// the time: it is the translated one that counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_connected_to_long_before_the_drivers_wait_is_over() {
    let Some(mut door) = Door::open().await else { return };
    let prompt = door.settings().connect().await.unwrap();
    let patient = door.settings().reconnect_promptly(false).connect().await.unwrap();
    let any = |session: &Cassandra| {
        session.session().get_cluster_state().get_nodes_info().iter().any(|node| node.is_connected())
    };
    assert!(any(&prompt) && any(&patient));
    let closed = Instant::now();
    door.close().await;
    until("no connection", Duration::from_secs(5), || !any(&prompt) && !any(&patient)).await;
    tokio::time::sleep(Duration::from_secs(15).saturating_sub(closed.elapsed())).await;
    assert!(!any(&prompt));

    let opened = Instant::now();
    door.open_again().await;
    until("the node", Duration::from_secs(4), || any(&prompt)).await;
    println!("connected {:?} after the node has answered", opened.elapsed());
    assert!(!any(&patient), "the driver was as fast: is this code needed?");
    Client::new(prompt).query(read()).await.unwrap();
    door.close().await;
}

#[tokio::test]
async fn the_task_that_watches_over_a_session_ends_with_it() {
    let Some(settings) = settings() else { return };
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let watched = settings.connect().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let session = Arc::downgrade(watched.session());
    drop(watched);
    assert!(session.upgrade().is_none(), "it keeps the session");
    until("the task has ended", Duration::from_secs(10), || tasks() == before).await;
}
