use palisade::{DeadlineLayer, RetryLayer, TimeoutLayer};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tower::ServiceBuilder;
use tower_cassandra::{Cassandra, Client, Timeouts};
const Q: &str = "SELECT v FROM bench.t WHERE k = ?";
fn cpu() -> f64 {
    let cpu = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    let _ = cpu;
    let mut total = 0.0;
    for e in std::fs::read_dir("/proc/self/task").unwrap() {
        let s = std::fs::read_to_string(e.unwrap().path().join("schedstat")).unwrap_or_default();
        total += s.split_whitespace().next().and_then(|x| x.parse::<f64>().ok()).unwrap_or(0.0);
    }
    total / 1e3
}
macro_rules! mode {
    ($name:expr, $c:expr, |$x:ident, $k:ident| $e:expr) => {{
        let c = $c.clone();
        let f: Box<dyn Fn() -> tokio::task::JoinHandle<u64>> = Box::new(move || {
            let $x = c.clone();
            tokio::spawn(async move {
                let began = Instant::now();
                let mut n = 0u64;
                let mut $k = 0;
                while began.elapsed() < Duration::from_millis(300) {
                    $k = ($k + 1) % 1000;
                    n += 1;
                    $e;
                }
                n
            })
        });
        ($name, f)
    }};
}
#[tokio::main(worker_threads = 2)]
async fn main() {
    palisade::clock::use_real_time();
    let point = std::env::args().nth(1).unwrap();
    let rounds: usize = std::env::args().nth(2).map_or(20, |x| x.parse().unwrap());
    let only = std::env::args().nth(3);
    let cassandra = Cassandra::connect(point.clone()).await.unwrap();
    let session = Arc::new(
        scylla::client::session_builder::SessionBuilder::new().known_node(point).build().await.unwrap(),
    );
    let c = Client::new(cassandra.clone());
    c.query("CREATE KEYSPACE IF NOT EXISTS bench WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}").await.unwrap();
    c.query("CREATE TABLE IF NOT EXISTS bench.t (k int PRIMARY KEY, v text)").await.unwrap();
    for k in 0..1000 {
        c.execute("INSERT INTO bench.t (k, v) VALUES (?, ?)", (k, "x")).await.unwrap();
    }
    let prepared = session.prepare(Q).await.unwrap();
    let stack = Client::new(
        ServiceBuilder::new()
            .layer(DeadlineLayer::new(Timeouts::total(Duration::from_secs(10))))
            .layer(RetryLayer::default())
            .layer(TimeoutLayer::new(Timeouts::attempt(Duration::from_secs(5))))
            .service(cassandra.clone()),
    );
    let retry = Client::new(ServiceBuilder::new().layer(RetryLayer::default()).service(cassandra.clone()));
    let one = Client::new(
        ServiceBuilder::new()
            .layer(RetryLayer::default())
            .layer(TimeoutLayer::new(Timeouts::attempt(Duration::from_secs(5))))
            .service(cassandra.clone()),
    );
    let leaf = Client::new(cassandra);
    let sp = (session, prepared);
    let modes = vec![
        mode!("bare", sp, |x, k| {
            x.0.execute_unpaged(&x.1, (k,)).await.unwrap().into_rows_result().unwrap();
        }),
        mode!("paged", sp, |x, k| {
            x.0.execute_single_page(&x.1, (k,), scylla::response::PagingState::start())
                .await
                .unwrap()
                .0
                .into_rows_result()
                .unwrap();
        }),
        mode!("leaf", leaf, |x, k| {
            x.execute(Q, (k,)).await.unwrap();
        }),
        mode!("retry", retry, |x, k| {
            x.execute(Q, (k,)).await.unwrap();
        }),
        mode!("one", one, |x, k| {
            x.execute(Q, (k,)).await.unwrap();
        }),
        mode!("stack", stack, |x, k| {
            x.execute(Q, (k,)).await.unwrap();
        }),
    ];
    let mut sums = vec![(0u64, 0.0f64, 0.0f64); modes.len()];
    for r in 0..rounds + 5 {
        for i in 0..modes.len() {
            let i = (i + r) % modes.len();
            if only.as_ref().is_some_and(|o| o != modes[i].0) {
                continue;
            }
            let (b, t) = (cpu(), Instant::now());
            let tasks: Vec<_> = (0..32).map(|_| (modes[i].1)()).collect();
            let mut n = 0;
            for t in tasks {
                n += t.await.unwrap();
            }
            if r >= 5 {
                sums[i].0 += n;
                sums[i].1 += cpu() - b;
                sums[i].2 += t.elapsed().as_secs_f64();
            }
        }
    }
    let base = sums[0].0 as f64 / sums[0].2;
    for (i, (n, cpu, t)) in sums.iter().enumerate() {
        println!(
            "{:8} {:8} ops  {:6.0}/s  ratio {:.3}  {:.2} us client cpu/op",
            modes[i].0,
            n,
            *n as f64 / t,
            *n as f64 / t / base,
            cpu / *n as f64
        );
    }
}
