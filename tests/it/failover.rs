//! A datacenter dies, another one serves, and the first one comes back.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use cassandra_cluster::Cluster;
use palisade::{Backoff, DeadlineLayer, RetryLayer, TimeoutLayer};
use scylla::{cluster::metadata::Peer, policies::host_filter::HostFilter, statement::Consistency};
use tower::ServiceBuilder;
use tower_cassandra::{
    BoxClient, Cassandra, CassandraBuilder, Client, Error, Kind, Response, Statement, Timeouts,
    failover::{FailoverHandle, FailoverLayer},
};

use crate::cluster::two_datacenters;

const SELECT: &str = "SELECT v FROM away.t WHERE k = ?";
const INSERT: &str = "INSERT INTO away.t (k, v) VALUES (?, ?)";
const BACK_AFTER: Duration = Duration::from_secs(4);
const RAMP: Duration = Duration::from_secs(2);

fn settings(cluster: &Cluster) -> CassandraBuilder {
    let points = cluster.contact_points();
    let points = points.iter().map(ToString::to_string);
    Cassandra::builder().contact_points(points).datacenter("dc1")
}

/// Rejects the node with this address.
struct Without(SocketAddr);

impl HostFilter for Without {
    fn accept(&self, peer: &Peer) -> bool {
        peer.address.ip() != self.0.ip()
    }
}

async fn set_up(cassandra: &Cassandra) {
    let client = Client::new(cassandra.clone());
    for (keyspace, replication) in [("away", "'dc1': 2, 'dc2': 1"), ("home", "'dc1': 2")] {
        let replication = format!("{{'class': 'NetworkTopologyStrategy', {replication}}}");
        client
            .query(format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}"))
            .await
            .unwrap();
        client
            .query(format!("CREATE TABLE IF NOT EXISTS {keyspace}.t (k int PRIMARY KEY, v int)"))
            .await
            .unwrap();
    }
    for k in 0..20 {
        // So that the other datacenter has it before anything is broken.
        client.execute(Statement::new(INSERT).consistency(Consistency::All), (k, k)).await.unwrap();
    }
}

fn stack(cassandra: &Cassandra) -> (BoxClient, FailoverHandle) {
    let failover =
        FailoverLayer::builder().remote("dc2").back_after(BACK_AFTER).ramp(RAMP).build(cassandra).unwrap();
    let handle = failover.handle();
    let retry = RetryLayer::builder().backoff(Backoff::NONE).build().unwrap();
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(Timeouts::total(Duration::from_secs(2))))
        .layer(failover)
        .layer(retry)
        .layer(TimeoutLayer::new(Timeouts::attempt(Duration::from_millis(300))))
        .service(cassandra.clone());
    (Client::new(stack).boxed(), handle)
}

fn served_by(response: &Response) -> String {
    response.coordinator().and_then(|coordinator| coordinator.node().datacenter.clone()).unwrap_or_default()
}

/// When a call ended, and which datacenter has answered it.
type Outcome = (Instant, Result<String, String>);

/// Reads and writes all the time, and keeps what became of that.
struct Traffic {
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Traffic {
    fn start(client: &BoxClient) -> Self {
        let outcomes: Arc<Mutex<Vec<_>>> = Arc::default();
        let (kept, client) = (Arc::clone(&outcomes), client.clone());
        let task = tokio::spawn(async move {
            for k in (0..20).cycle() {
                let keep = |outcome: Result<Response, Error>| {
                    let outcome = outcome.map(|response| served_by(&response));
                    let outcome = outcome.map_err(|error| error.to_string());
                    kept.lock().unwrap().push((Instant::now(), outcome));
                };
                keep(client.execute(SELECT, (k,)).await);
                keep(client.execute(INSERT, (k, k)).await);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { outcomes, task }
    }

    fn since(&self, at: Instant) -> Vec<Outcome> {
        self.outcomes.lock().unwrap().iter().filter(|(when, _)| *when >= at).cloned().collect()
    }

    /// When the first answer from this datacenter came, after a moment.
    async fn first_from(&self, datacenter: &str, after: Instant) -> Instant {
        loop {
            let found = |(when, outcome): &Outcome| (outcome.as_deref() == Ok(datacenter)).then_some(*when);
            if let Some(first) = self.since(after).iter().find_map(found) {
                return first;
            }
            assert!(after.elapsed() < Duration::from_secs(30), "{:?}", self.since(after));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The datacenters that answer in the next half second, in which nothing may fail.
    async fn answered_by(&self) -> HashSet<String> {
        let from = Instant::now();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let outcomes = self.since(from);
        assert!(outcomes.len() > 10, "{outcomes:?}");
        outcomes.into_iter().map(|(_, outcome)| outcome.unwrap()).collect()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn one(datacenter: &str) -> HashSet<String> {
    HashSet::from([datacenter.to_owned()])
}

/// What fails in the local datacenter and is not sent elsewhere says why.
async fn failed(call: impl Future<Output = Result<Response, Error>>, why: &str) {
    let error = call.await.unwrap_err();
    assert!(error.to_string().contains(why), "{error}");
    let attempts = error.attempts().unwrap().attempts();
    let mut executions = attempts.iter().filter(|attempt| attempt.kind != Kind::Prepare).peekable();
    assert!(executions.peek().is_some(), "{error}");
    assert!(executions.all(|attempt| attempt.datacenter.is_none()), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_datacenter_dies_another_one_serves_within_two_seconds_until_it_is_back() {
    let Some(cluster) = two_datacenters() else { return };
    let cassandra = settings(&cluster).connect().await.unwrap();
    set_up(&cassandra).await;

    let problem = FailoverLayer::builder().remote("dc9").build(&cassandra).unwrap_err().to_string();
    assert_eq!(problem, "`remote` is \"dc9\", which the cluster does not have: it has dc1, dc2");
    let builder = || FailoverLayer::builder().remote("dc2").keyspace("away");
    let problem = builder().keyspace("Away").build(&cassandra).unwrap_err().to_string();
    assert!(problem.starts_with("`keyspace` is \"Away\", which the session finds nowhere"), "{problem}");
    assert_eq!(&*builder().build(&cassandra).unwrap().handle().active(), "dc1");
    let bare = Cassandra::from_session(Arc::clone(cassandra.session()));
    let problem = FailoverLayer::builder().local("dc1").remote("dc2").build(&bare).unwrap_err();
    assert_eq!(problem.setting(), "session");

    // A replica that the user's filter keeps the driver from is up all the same.
    let second = cluster.contact_points()[1];
    let filtered = settings(&cluster).driver(move |session| session.host_filter(Arc::new(Without(second))));
    let filtered = filtered.connect().await.unwrap();
    let (client, handle) = stack(&filtered);
    assert_eq!(&*handle.active(), "dc1", "{:#?}", handle.snapshot());
    assert_eq!(served_by(&client.execute(SELECT, (1,)).await.unwrap()), "dc1");
    // Whoever keeps a handle keeps no session by it.
    let session = Arc::downgrade(filtered.session());
    drop((client, filtered));
    let began = Instant::now();
    while session.strong_count() > 0 {
        assert!(began.elapsed() < Duration::from_secs(5), "somebody still holds the session");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(&*handle.active(), "dc1");

    let (client, handle) = stack(&cassandra);
    let only_here = "SELECT v FROM home.t WHERE k = 1";
    client.execute(only_here, ()).await.unwrap();
    let traffic = Traffic::start(&client);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((traffic.answered_by().await, &*handle.active()), (one("dc1"), "dc1"));

    // The whole datacenter goes.
    let killed = Instant::now();
    cluster.kill(1).unwrap();
    cluster.kill(2).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let outcomes = traffic.since(killed);
    let failures: Vec<_> = outcomes
        .iter()
        .filter_map(|(when, outcome)| Some((*when - killed, outcome.as_ref().err()?)))
        .collect();
    assert!(failures.iter().all(|(after, _)| *after < Duration::from_secs(2)), "{failures:#?}");
    let first =
        outcomes.iter().find(|(_, outcome)| outcome.as_deref() == Ok("dc2")).map(|(when, _)| *when - killed);
    println!("served by dc2 after {first:?}; {} of {} calls failed", failures.len(), outcomes.len());
    assert!(first.is_some_and(|first| first < Duration::from_secs(2)), "{first:?}");
    assert_eq!((traffic.answered_by().await, &*handle.active()), (one("dc2"), "dc2"));

    // What must not be served elsewhere is not, and says why.
    let transaction = "UPDATE away.t SET v = 7 WHERE k = 7 IF v = 7";
    failed(client.execute(transaction, ()), "read about `allow_serial` first").await;
    failed(client.execute(only_here, ()), "keyspace home has no replicas there").await;
    let quorum = Statement::new("SELECT v FROM away.t WHERE k = 1").consistency(Consistency::Quorum);
    failed(client.execute(quorum, ()), "consistency Quorum is not mapped there").await;
    // A statement that was never prepared is served all the same.
    let fresh = client.execute("SELECT k FROM away.t WHERE k = ?", (1,)).await.unwrap();
    assert_eq!(served_by(&fresh), "dc2");

    // It comes back.
    cluster.start_node(1).unwrap();
    cluster.start_node(2).unwrap();
    back(&handle).await;
    assert_eq!(traffic.answered_by().await, one("dc1"));
    let snapshot = handle.snapshot();
    assert_eq!((snapshot.switches, snapshot.local_share), (2, 1.0), "{snapshot:#?}");
    client.execute(only_here, ()).await.unwrap();

    // It hangs: its connections stay, so that only calls that fail tell of it.
    let paused = [cluster.paused(1).unwrap(), cluster.paused(2).unwrap()];
    let hung = Instant::now();
    let first = traffic.first_from("dc2", hung).await;
    println!("served by dc2 {:?} after dc1 hung", first - hung);
    assert!(first - hung < Duration::from_secs(2), "{:?}", first - hung);
    away(&handle, Duration::from_secs(15)).await;
    assert_eq!(traffic.answered_by().await, one("dc2"));
    drop(paused);
    back(&handle).await;
    assert_eq!(traffic.answered_by().await, one("dc1"));
    assert_eq!(handle.snapshot().switches, 4);
    let failures: Vec<_> = traffic
        .since(hung)
        .into_iter()
        .filter_map(|(when, outcome)| Some((when - hung, outcome.err()?)))
        .collect();
    assert!(failures.is_empty(), "{failures:#?}");

    // One of two replicas goes: the other one coordinates still, and cannot serve a quorum.
    let killed = Instant::now();
    cluster.kill(2).unwrap();
    away(&handle, Duration::from_secs(2)).await;
    println!("away {:?} after one of two replicas was killed", killed.elapsed());
    // What is under way there ends first.
    traffic.first_from("dc2", Instant::now()).await;
    assert_eq!(traffic.answered_by().await, one("dc2"));
    client.execute(only_here, ()).await.unwrap_err();
}

/// Waits until the other datacenter serves.
async fn away(handle: &FailoverHandle, within: Duration) {
    let began = Instant::now();
    while &*handle.active() != "dc2" {
        assert!(began.elapsed() < within, "{:#?}", handle.snapshot());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the local datacenter serves again, which begins with a trickle.
async fn back(handle: &FailoverHandle) {
    let began = Instant::now();
    let mut first_trial = None;
    while &*handle.active() != "dc1" {
        if first_trial.is_none() && handle.snapshot().local_share > 0.0 {
            first_trial = Some(began.elapsed());
        }
        assert!(began.elapsed() < Duration::from_secs(120), "not back: {:#?}", handle.snapshot());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(first_trial.is_some(), "all at once");
    // What is under way elsewhere ends first.
    tokio::time::sleep(Duration::from_millis(500)).await;
}
