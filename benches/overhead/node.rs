//! The recommended stack beside the bare driver, on one real node, in turns.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use cassandra_cluster::{Cluster, Jit};
use palisade::{DeadlineLayer, RetryLayer, TimeoutLayer};
use scylla::{
    client::{session::Session, session_builder::SessionBuilder},
    statement::prepared::PreparedStatement,
};
use tower::ServiceBuilder;
use tower_cassandra::{Cassandra, Client, Request, Response, Timeouts};

use crate::harness::{Bars, is_quick, median};

const CONCURRENCY: usize = 32;
const SELECT: &str = "SELECT v FROM bench.t WHERE k = ?";
const KEYS: u32 = 1_000;

/// Latencies of a slice of time.
struct Slice {
    latencies: Vec<Duration>,
    lasted: Duration,
}

impl Slice {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 calls")]
    fn throughput(&self) -> f64 {
        self.latencies.len() as f64 / self.lasted.as_secs_f64()
    }
}

pub(crate) fn run(bars: &mut Bars) {
    let (points, _cluster) = match cassandra_cluster::external() {
        Some(points) => (points, None),
        None => match Cluster::builder().jit(Jit::Full).start() {
            Ok(cluster) => {
                (cluster.contact_points().iter().map(ToString::to_string).collect(), Some(cluster))
            }
            Err(error) => {
                eprintln!("NOT RUN on a real node: {error}");
                std::process::exit(1);
            }
        },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(compare(&points, bars));
}

async fn compare(points: &[String], bars: &mut Bars) {
    let cassandra = Cassandra::builder().contact_points(points).connect().await.expect("a session");
    fill(&Client::new(cassandra.clone())).await;
    // The driver as it comes, with a session of its own.
    let session = SessionBuilder::new().known_nodes(points).build().await.expect("a session");
    let prepared = session.prepare(SELECT).await.expect("a statement");
    let client = Client::new(
        ServiceBuilder::new()
            .layer(DeadlineLayer::new(Timeouts::total(Duration::from_secs(10))))
            .layer(RetryLayer::default())
            .layer(TimeoutLayer::new(Timeouts::attempt(Duration::from_secs(5))))
            .service(cassandra),
    );

    let (bare, stack) = (Bare(Arc::new(session), prepared), Stack(client));
    let slice = if is_quick() { Duration::from_millis(400) } else { Duration::from_secs(1) };
    let rounds = if is_quick() { 30 } else { 60 };
    // The server's compiler wants a while.
    let warm_up = Instant::now();
    while warm_up.elapsed() < Duration::from_secs(if is_quick() { 6 } else { 20 }) {
        load(&bare, slice).await;
        load(&stack, slice).await;
    }

    let (mut throughput, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let (stacked, alone) = if round % 2 == 0 {
            let stacked = load(&stack, slice).await;
            (stacked, load(&bare, slice).await)
        } else {
            let alone = load(&bare, slice).await;
            (load(&stack, slice).await, alone)
        };
        throughput.push(stacked.throughput() / alone.throughput());
        ours.extend(stacked.latencies);
        theirs.extend(alone.latencies);
    }
    let (ours, theirs) = (Percentiles::of(ours), Percentiles::of(theirs));
    println!("stack at concurrency {CONCURRENCY}: {ours}");
    println!("bare driver:                {theirs}");
    bars.at_least("stack_throughput_ratio", median(throughput), 0.98);
    bars.at_most("stack_p99_ratio", ours.p99.as_secs_f64() / theirs.p99.as_secs_f64(), 1.05);
}

async fn fill<S>(client: &Client<S>)
where
    S: tower::Service<Request, Response = Response> + Clone,
    S::Error: Into<tower_cassandra::Error>,
{
    for cql in [
        "CREATE KEYSPACE IF NOT EXISTS bench WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
        "CREATE TABLE IF NOT EXISTS bench.t (k int PRIMARY KEY, v text)",
    ] {
        client.query(cql).await.expect(cql);
    }
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
async fn load(reader: &impl Reader, lasts: Duration) -> Slice {
    let next = Arc::new(AtomicU32::new(0));
    let began = Instant::now();
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
    Slice { latencies, lasted: began.elapsed() }
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
