//! What the recommended stack costs beside the bare driver, in turns, over the same connections with the same choice of nodes: on a node that
//! answers from its caches, where the stack's own work weighs most, and in the long run on three nodes at `LOCAL_QUORUM` too.
//! And what it takes to choose a node, beside the driver's own policy.
//!
//! `cargo bench --bench overhead`, or with `-- --quick` in under 50 s once it is built. What each layer costs by itself is
//! measured by `cargo bench -p palisade --bench layers`.

#![allow(clippy::print_stdout, reason = "that is what a bench is for")]

#[path = "../layers/benches/harness.rs"]
mod harness;

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use cassandra_cluster::{Cluster, Jit};
use palisade::{DeadlineLayer, RetryLayer, TimeoutLayer};
use rustix::time::{ClockId, clock_gettime};
use scylla::{
    client::session::Session,
    policies::load_balancing::{DefaultPolicy, LoadBalancingPolicy, RoutingInfo},
    statement::prepared::PreparedStatement,
};
use tower::ServiceBuilder;
use tower_cassandra::{Cassandra, Client, Request, Response, Timeouts, routing::Routing};

use harness::{Bars, is_quick, side_by_side};

const CONCURRENCY: usize = 32;
const SELECT: &str = "SELECT v FROM bench.t WHERE k = ?";
const KEYS: u32 = 1_000;

/// The latencies of calls, how long it took to make them, and how much of it this process was at work.
#[derive(Default)]
struct Total {
    latencies: Vec<Duration>,
    lasted: Duration,
    worked: Duration,
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 calls")]
impl Total {
    fn add(&mut self, slice: Self) {
        self.latencies.extend(slice.latencies);
        self.lasted += slice.lasted;
        self.worked += slice.worked;
    }

    fn throughput(&self) -> f64 {
        self.latencies.len() as f64 / self.lasted.as_secs_f64()
    }

    /// In microseconds a call.
    fn work(&self) -> f64 {
        self.worked.as_secs_f64() * 1e6 / self.latencies.len() as f64
    }
}

/// How much time the processors have spent on this process.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("a time since the beginning")
}

fn main() {
    let mut bars = Bars::new();
    run(&mut bars);
    bars.end();
}

fn run(bars: &mut Bars) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    if let Some(points) = cassandra_cluster::external() {
        runtime.block_on(compare("cluster", &points, 1, bars));
        return;
    }
    let mut on_own = |name, nodes| {
        let cluster = Cluster::builder().datacenter("dc1", nodes).jit(Jit::Full).start();
        let cluster = cluster.unwrap_or_else(|error| {
            eprintln!("{error}");
            std::process::exit(1);
        });
        let points: Vec<_> = cluster.contact_points().iter().map(ToString::to_string).collect();
        runtime.block_on(compare(name, &points, nodes, bars));
    };
    on_own("single_node", 1);
    if !is_quick() {
        on_own("cluster", 3);
    }
}

async fn compare(name: &str, points: &[String], replicas: usize, bars: &mut Bars) {
    let cassandra = Cassandra::builder().contact_points(points).connect().await.expect("a session");
    fill(&Client::new(cassandra.clone()), replicas).await;
    let session = Arc::clone(cassandra.session());
    let mut prepared = session.prepare(SELECT).await.expect("a statement");
    choices(name, &session, &prepared, bars);
    // The driver as it comes, over the same connections: with its default limit on time.
    prepared.set_request_timeout(Some(Duration::from_secs(30)));
    let alone = Bare(session, prepared);
    let stack = Stack(Client::new(
        ServiceBuilder::new()
            .layer(DeadlineLayer::new(Timeouts::total(Duration::from_secs(10))))
            .layer(RetryLayer::default())
            .layer(TimeoutLayer::new(Timeouts::attempt(Duration::from_secs(5))))
            .service(cassandra),
    ));

    let slice = Duration::from_millis(if is_quick() { 300 } else { 500 });
    let (rounds, warm_up) = if is_quick() { (30, 6) } else { (120, 30) };
    // The servers' compilers want a while.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(warm_up) {
        load(&alone, slice).await;
        load(&stack, slice).await;
    }

    let (mut ours, mut theirs) = (Total::default(), Total::default());
    for _ in 0..rounds {
        // Whoever goes second finds another machine: chance decides who.
        let (with_stack, without) = if fastrand::bool() {
            let first = load(&stack, slice).await;
            (first, load(&alone, slice).await)
        } else {
            let first = load(&alone, slice).await;
            (load(&stack, slice).await, first)
        };
        ours.add(with_stack);
        theirs.add(without);
    }
    let throughput = ours.throughput() / theirs.throughput();
    let (our_work, their_work) = (ours.work(), theirs.work());
    let (ours, theirs) = (Percentiles::of(ours.latencies), Percentiles::of(theirs.latencies));
    println!("{name}, stack at concurrency {CONCURRENCY}: {ours}, {our_work:.2} us of work a call");
    println!("{name}, bare driver:                {theirs}, {their_work:.2} us of work a call");
    bars.at_least(&format!("{name}_throughput_ratio"), throughput, 0.98);
    bars.at_most(&format!("{name}_p99_ratio"), ours.p99.as_secs_f64() / theirs.p99.as_secs_f64(), 1.05);
}

/// What it takes to choose a node for a read, here and in the driver's own policy.
fn choices(name: &str, session: &Session, prepared: &PreparedStatement, bars: &mut Bars) {
    let cluster = session.get_cluster_state();
    let infos: Vec<_> = (0..1_024_i32)
        .map(|key| {
            let mut info = RoutingInfo::default();
            info.token = prepared.calculate_token(&(key,)).expect("a key");
            info.table = prepared.get_table_spec();
            info
        })
        .collect();
    let (ours, theirs) = (Routing::builder().build().expect("defaults"), DefaultPolicy::builder().build());
    let (mut our_infos, mut their_infos) = (infos.iter().cycle(), infos.iter().cycle());
    let choose = |policy: &dyn LoadBalancingPolicy, info: Option<&RoutingInfo<'_>>| {
        assert!(black_box(policy.pick(info.expect("no end"), &cluster)).is_some());
    };
    let mut choose_ours = || choose(&*ours, our_infos.next());
    let mut choose_theirs = || choose(&*theirs, their_infos.next());
    let compared = side_by_side(101, 10_000, &mut choose_ours, &mut choose_theirs);
    println!("{name}, a choice: {:.0} ns, the driver's policy: {:.0} ns", compared.ours, compared.theirs);
    bars.at_most(&format!("{name}_choice_ratio"), compared.ratio, 2.0);
}

async fn fill<S>(client: &Client<S>, replicas: usize)
where
    S: tower::Service<Request, Response = Response> + Clone,
    S::Error: Into<tower_cassandra::Error>,
{
    let keyspace = format!(
        "CREATE KEYSPACE IF NOT EXISTS bench WITH replication = \
         {{'class': 'SimpleStrategy', 'replication_factor': {replicas}}}"
    );
    client.query(keyspace).await.expect("a keyspace");
    client.query("CREATE TABLE IF NOT EXISTS bench.t (k int PRIMARY KEY, v text)").await.expect("a table");
    let value = "x".repeat(100);
    for k in 0..KEYS {
        let row = (i32::try_from(k).expect("a small number"), value.as_str());
        client.execute("INSERT INTO bench.t (k, v) VALUES (?, ?)", row).await.expect("a write");
    }
}

/// Reads one row and returns the length of what is in it.
trait Reader: Clone + Send + Sync + 'static {
    fn read(&self, key: i32) -> impl Future<Output = usize> + Send;
}

#[derive(Clone)]
struct Bare(Arc<Session>, PreparedStatement);

impl Reader for Bare {
    async fn read(&self, key: i32) -> usize {
        let answer = self.0.execute_unpaged(&self.1, (key,)).await.expect("an answer");
        answer.into_rows_result().expect("rows").single_row::<(&str,)>().expect("a row").0.len()
    }
}

#[derive(Clone)]
struct Stack<S>(Client<S>);

impl<S> Reader for Stack<S>
where
    S: tower::Service<Request, Response = Response, Future: Send> + Clone + Send + Sync + 'static,
    S::Error: Into<tower_cassandra::Error> + Send,
{
    async fn read(&self, key: i32) -> usize {
        let answer = self.0.execute(SELECT, (key,)).await.expect("an answer");
        answer.single_row::<(&str,)>().expect("a row").0.len()
    }
}

/// Callers that ask again as soon as they are answered.
async fn load(reader: &impl Reader, lasts: Duration) -> Total {
    let next = Arc::new(AtomicU32::new(0));
    let (began, worked_before) = (Instant::now(), worked());
    let callers: Vec<_> = (0..CONCURRENCY)
        .map(|_| {
            let (next, reader) = (Arc::clone(&next), reader.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while began.elapsed() < lasts {
                    let key = next.fetch_add(1, Ordering::Relaxed) % KEYS;
                    let asked = Instant::now();
                    assert_eq!(reader.read(i32::try_from(key).expect("a small number")).await, 100);
                    latencies.push(asked.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for caller in callers {
        latencies.extend(caller.await.expect("no panic"));
    }
    Total { latencies, lasted: began.elapsed(), worked: worked().saturating_sub(worked_before) }
}

struct Percentiles {
    calls: usize,
    p50: Duration,
    p99: Duration,
    p999: Duration,
}

impl Percentiles {
    fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        let calls = latencies.len();
        let at = |permille: usize| latencies[(calls * permille / 1_000).min(calls - 1)];
        Self { calls, p50: at(500), p99: at(990), p999: at(999) }
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { calls, p50, p99, p999 } = self;
        write!(f, "{calls} calls, p50 {p50:.2?}, p99 {p99:.2?}, p99.9 {p999:.2?}")
    }
}
