//! The clusters that tests run against: one to share, one to break, one that is locked.

use std::{
    env,
    fmt::Display,
    io::Write,
    sync::{LazyLock, Once},
    time::Duration,
};

use cassandra_cluster::{Cluster, State, Tls};
use tokio::sync::{Mutex, MutexGuard};
use tower_cassandra::{Cassandra, CassandraBuilder, Client};

/// The keyspace of the functional tests.
pub(crate) const KEYSPACE: &str = "it";

/// Says why tests do not run here. Where nothing may be left out, as under `CI`, that is a failure.
pub(crate) fn skip<T>(why: impl Display) -> Option<T> {
    assert!(env::var_os("CI").is_none(), "a test cannot run: {why}");
    // Past the test harness, which would keep it to itself.
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "NOT RUN: {test}: {why}");
    None
}

/// What a test needs that a cluster of the user's cannot give.
fn not_in_the_users(what: &str) -> Option<()> {
    match cassandra_cluster::external() {
        None => Some(()),
        Some(_) => skip(format!("{what} in a cluster of our own only; unset CASSANDRA_CONTACT_POINTS")),
    }
}

/// A cluster of our own, or `None` where none can be started.
fn start(describe: impl FnOnce() -> cassandra_cluster::Builder) -> Option<Cluster> {
    cassandra_cluster::requirements().ok()?;
    Some(describe().start().unwrap_or_else(|error| panic!("{error}")))
}

/// The cluster, or the reason why there is none, for each test that wants it.
fn own(cluster: &'static LazyLock<Option<Cluster>>) -> Option<&'static Cluster> {
    cluster.as_ref().or_else(|| match cassandra_cluster::requirements() {
        Err(missing) => skip(missing),
        Ok(()) => skip("the cluster did not start"),
    })
}

/// Where the functional tests' cluster is: the user's, or one of our own that lives as long as this process.
pub(crate) fn shared() -> Option<Vec<String>> {
    static OWN: LazyLock<Option<Cluster>> = LazyLock::new(|| start(Cluster::builder));
    cassandra_cluster::external().or_else(|| {
        let points = own(&OWN)?.contact_points();
        Some(points.iter().map(ToString::to_string).collect())
    })
}

/// Settings for a session with the functional tests' cluster.
pub(crate) fn settings() -> Option<CassandraBuilder> {
    Some(Cassandra::builder().contact_points(shared()?))
}

/// A session with the functional tests' cluster, in their keyspace.
pub(crate) async fn session() -> Option<Cassandra> {
    static CREATED: Once = Once::new();
    static CREATING: Mutex<()> = Mutex::const_new(());
    let settings = settings()?;
    let turn = CREATING.lock().await;
    if !CREATED.is_completed() {
        let client = Client::new(settings.clone().connect().await.unwrap());
        create_keyspace(&client, KEYSPACE, 1).await;
        CREATED.call_once(|| {});
    }
    drop(turn);
    Some(settings.keyspace(KEYSPACE).connect().await.unwrap())
}

/// A client of the functional tests' cluster without any layer, with a table that was made with this definition.
pub(crate) async fn client_with_table(table: &str, definition: &str) -> Option<Client<Cassandra>> {
    let client = Client::new(session().await?);
    create_table(&client, table, definition).await;
    Some(client)
}

pub(crate) async fn create_table(client: &Client<Cassandra>, table: &str, definition: &str) {
    client.query(format!("DROP TABLE IF EXISTS {table}")).await.unwrap();
    client.query(format!("CREATE TABLE {table} ({definition})")).await.unwrap();
}

pub(crate) async fn create_keyspace(client: &Client<Cassandra>, keyspace: &str, replicas: usize) {
    let cql = format!(
        "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = \
         {{'class': 'SimpleStrategy', 'replication_factor': {replicas}}}"
    );
    client.query(cql).await.unwrap();
}

/// Three nodes that a test may do anything to, while it has its turn.
pub(crate) struct Ring {
    pub(crate) cluster: &'static Cluster,
    _turn: MutexGuard<'static, ()>,
}

/// Faults are made by one test at a time.
static TURN: Mutex<()> = Mutex::const_new(());

/// Three nodes of one datacenter.
pub(crate) async fn ring() -> Option<Ring> {
    static RING: LazyLock<Option<Cluster>> =
        LazyLock::new(|| start(|| Cluster::builder().datacenter("dc1", 3)));
    turn_at(&RING).await
}

/// One node in `dc1`, and two in `dc2`.
pub(crate) async fn small_and_large_datacenter() -> Option<Ring> {
    static BOTH: LazyLock<Option<Cluster>> = LazyLock::new(|| {
        start(|| Cluster::builder().datacenter("dc1", 1).datacenter("dc2", 2).heap_mib(384))
    });
    turn_at(&BOTH).await
}

/// Waits for its turn, and makes every node whole again that the test before has left broken.
async fn turn_at(cluster: &'static LazyLock<Option<Cluster>>) -> Option<Ring> {
    not_in_the_users("faults are made")?;
    let turn = TURN.lock().await;
    let cluster = own(cluster)?;
    for node in 1..=cluster.size() {
        if cluster.is_paused(node) {
            cluster.resume(node).unwrap();
        }
        cluster.start_node(node).unwrap();
    }
    for node in 1..=cluster.size() {
        cluster.wait_for(node, State::Up, Duration::from_secs(90)).unwrap();
    }
    Some(Ring { cluster, _turn: turn })
}

impl Ring {
    pub(crate) fn settings(&self) -> CassandraBuilder {
        Cassandra::builder().contact_points(self.cluster.contact_points().iter().map(ToString::to_string))
    }

    /// A session with all three nodes, and a table `faults.t` of which each has all rows.
    pub(crate) async fn session(&self) -> Cassandra {
        let cassandra = self.settings().connect().await.unwrap();
        let client = Client::new(cassandra.clone());
        create_keyspace(&client, "faults", 3).await;
        // A coordinator asks a third replica soon; by default it waits for half its timeout until it has statistics.
        let table =
            "CREATE TABLE IF NOT EXISTS faults.t (k int PRIMARY KEY, v int) WITH speculative_retry = '20ms'";
        client.query(table).await.unwrap();
        client.query("CREATE TABLE IF NOT EXISTS faults.c (k int PRIMARY KEY, c counter)").await.unwrap();
        cassandra
    }
}

/// One node that wants a password and encryption.
pub(crate) fn locked() -> Option<&'static Cluster> {
    static LOCKED: LazyLock<Option<Cluster>> =
        LazyLock::new(|| start(|| Cluster::builder().auth(true).tls(Tls::Required)));
    not_in_the_users("logins are tried")?;
    own(&LOCKED)
}

/// Two datacenters for one test, which may do anything to them: two nodes in `dc1`, and one in `dc2`.
pub(crate) fn two_datacenters() -> Option<Cluster> {
    of_one_test("datacenters are stopped", || {
        Cluster::builder().datacenter("dc1", 2).datacenter("dc2", 1).heap_mib(384)
    })
}

/// Three nodes for one test, of which all but the first can leave and come back as new ones, each in a fraction of the time that it
/// usually takes; and the test's turn.
pub(crate) async fn changing() -> Option<(Cluster, MutexGuard<'static, ()>)> {
    let turn = TURN.lock().await;
    let cluster = of_one_test("nodes leave", || {
        let builder = Cluster::builder().datacenter("dc1", 3).heap_mib(384);
        // A node that leaves waits for the longer of the two, and announces its leave for the first.
        builder
            .jvm_option("-Dcassandra.ring_delay_ms=3000")
            .jvm_option("-Dcassandra.batchlog.replay_timeout_in_ms=3000")
    })?;
    Some((cluster, turn))
}

fn of_one_test(what: &str, describe: impl FnOnce() -> cassandra_cluster::Builder) -> Option<Cluster> {
    not_in_the_users(what)?;
    if let Err(missing) = cassandra_cluster::requirements() {
        return skip(missing);
    }
    start(describe)
}
