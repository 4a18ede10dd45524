//! The clusters, and when they are whole.

use std::{
    thread,
    time::{Duration, Instant},
};

use cassandra_cluster::{Cluster, Jit};
use scylla::{
    client::{session::Session, session_builder::SessionBuilder},
    policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy},
    statement::{Consistency, Statement},
};
use tokio::{runtime::Runtime, time::timeout};

use crate::{
    clients::{Kind, Operation, Site, Target},
    faults::Clock,
    harness::is_quick,
    load::Load,
    report::Run,
};

/// Rows there are; each request asks for the next.
const KEYS: i32 = 1_000;

pub(crate) struct Ground {
    pub(crate) cluster: Cluster,
    pub(crate) runtime: Runtime,
}

impl Ground {
    pub(crate) fn three_nodes() -> Self {
        Self::start(Cluster::builder().datacenter("dc1", 3))
    }

    /// Six nodes, which get less memory each.
    pub(crate) fn two_datacenters() -> Self {
        Self::start(Cluster::builder().datacenter("dc1", 3).datacenter("dc2", 3).heap_mib(320))
    }

    fn start(describe: cassandra_cluster::Builder) -> Self {
        let cluster = describe.jit(Jit::Full).start().unwrap_or_else(|error| {
            eprintln!("{error}");
            std::process::exit(1);
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let ground = Self { cluster, runtime: runtime.expect("a runtime") };
        ground.fill();
        // The servers' compilers want a while, and the servers statistics of how long reads take.
        let load = Load {
            per_second: 600,
            operation: |number| match number % 3 {
                0 => Operation::Read(key(number)),
                1 => Operation::Write(key(number)),
                _ => Operation::Append(key(number)),
            },
        };
        let target = ground.connect(Kind::Bare, Consistency::LocalQuorum, None);
        let lasts = if is_quick() { 12 } else { 40 };
        load.offer(ground.runtime.handle(), &target, |clock| clock.sleep_until_second(lasts));
        ground
    }

    pub(crate) fn points(&self) -> Vec<String> {
        self.cluster.contact_points().iter().map(ToString::to_string).collect()
    }

    pub(crate) fn connect(&self, kind: Kind, consistency: Consistency, site: Option<Site>) -> Target {
        self.runtime.block_on(Target::connect(kind, &self.points(), consistency, site))
    }

    /// A new client that has sent some of its load already, with all nodes whole.
    pub(crate) fn ready(
        &self,
        kind: Kind,
        consistency: Consistency,
        site: Option<Site>,
        load: Load,
    ) -> Target {
        self.await_whole();
        let target = self.connect(kind, consistency, site);
        // Until a node that was started again is warm.
        for _ in 0..10 {
            let lasts = if is_quick() { 2 } else { 10 };
            let warm = load.offer(self.runtime.handle(), &target, |clock| clock.sleep_until_second(lasts));
            if warm.0.all().errors().count() == 0 {
                return target;
            }
        }
        panic!("{} fails without a fault", kind.name());
    }

    /// Sends load to this client through the faults, and prints how that went.
    pub(crate) fn offer<T>(
        &self,
        kind: Kind,
        target: &Target,
        load: Load,
        faults: impl FnOnce(&Clock) -> T,
    ) -> (Run, T) {
        let (run, faults) = load.offer(self.runtime.handle(), target, faults);
        run.print(kind.name());
        (run, faults)
    }

    /// Sends load of a new client through the faults.
    pub(crate) fn through<T>(
        &self,
        kind: Kind,
        consistency: Consistency,
        load: Load,
        faults: impl FnOnce(&Clock) -> T,
    ) -> (Run, T) {
        let target = self.ready(kind, consistency, None, load);
        self.offer(kind, &target, load, faults)
    }

    /// Waits until each node can have each row from all its replicas.
    pub(crate) fn await_whole(&self) {
        let began = Instant::now();
        while !self.runtime.block_on(self.is_whole()) {
            assert!(began.elapsed() < Duration::from_secs(180), "the cluster does not recover");
            thread::sleep(Duration::from_millis(500));
        }
    }

    async fn is_whole(&self) -> bool {
        let Ok(Ok(session)) = timeout(Duration::from_secs(5), self.session()).await else { return false };
        for address in self.cluster.contact_points() {
            let mut read = Statement::new("SELECT v FROM outage.t WHERE k = 1");
            read.set_consistency(Consistency::All);
            read.set_request_timeout(Some(Duration::from_secs(2)));
            let node = NodeIdentifier::NodeAddress(address);
            read.set_load_balancing_policy(Some(SingleTargetLoadBalancingPolicy::new(node, None)));
            if session.query_unpaged(read, ()).await.is_err() {
                return false;
            }
        }
        true
    }

    async fn session(&self) -> Result<Session, scylla::errors::NewSessionError> {
        SessionBuilder::new().known_nodes(self.points()).build().await
    }

    fn fill(&self) {
        let mut replicas: Vec<_> =
            (1..=self.cluster.size()).map(|node| self.cluster.datacenter(node)).collect();
        replicas.dedup();
        let replicas: Vec<_> = replicas.iter().map(|name| format!("'{name}': 3")).collect();
        // A coordinator asks a third replica soon. By default it does so after the 99th percentile of its reads, which on a cluster
        // that has run for a minute is that of its compiler: all clients would wait for that, whatever they do.
        let table = "CREATE TABLE outage.t (k int PRIMARY KEY, v int) WITH speculative_retry = '20ms'";
        let replication = format!("{{'class': 'NetworkTopologyStrategy', {}}}", replicas.join(", "));
        self.runtime.block_on(async {
            let session = self.session().await.expect("a session");
            for text in [
                format!("CREATE KEYSPACE outage WITH replication = {replication}"),
                table.to_owned(),
                "CREATE TABLE outage.l (k int PRIMARY KEY, v list<int>)".to_owned(),
            ] {
                session.query_unpaged(text, ()).await.expect("a change of the schema");
            }
            let insert =
                session.prepare("INSERT INTO outage.t (k, v) VALUES (?, ?)").await.expect("a statement");
            for k in 0..KEYS {
                session.execute_unpaged(&insert, (k, k)).await.expect("a write");
            }
        });
    }

    /// How many elements all lists have, as all replicas say.
    pub(crate) fn counted(&self) -> f64 {
        self.await_whole();
        self.runtime.block_on(async {
            let session = self.session().await.expect("a session");
            let mut read = Statement::new("SELECT v FROM outage.l");
            read.set_consistency(Consistency::All);
            let answer = session.query_unpaged(read, ()).await.expect("an answer");
            let rows = answer.into_rows_result().expect("rows");
            let lists = rows.rows::<(Vec<i32>,)>().expect("lists").map(|row| row.expect("a list").0);
            let sum = lists.map(|list| list.len()).sum::<usize>();
            f64::from(i32::try_from(sum).expect("a small number"))
        })
    }
}

/// The key that a request of this number asks for.
pub(crate) fn key(number: u32) -> i32 {
    i32::try_from(number % KEYS.unsigned_abs()).expect("a small number")
}
