use palisade::{DeadlineLayer, RetryLayer, TimeoutLayer};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tower::ServiceBuilder;
use tower_cassandra::{Cassandra, Client, Timeouts};
#[tokio::main(worker_threads = 2)]
async fn main() {
    palisade::clock::use_real_time();
    let mode = std::env::args().nth(1).unwrap();
    let point = std::env::args().nth(2).unwrap();
    let cassandra = Cassandra::connect(point).await.unwrap();
    let session = Arc::clone(cassandra.session());
    let c = Client::new(cassandra.clone());
    c.query("CREATE KEYSPACE IF NOT EXISTS bench WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}").await.unwrap();
    c.query("CREATE TABLE IF NOT EXISTS bench.t (k int PRIMARY KEY, v text)").await.unwrap();
    for k in 0..1000 {
        c.execute("INSERT INTO bench.t (k, v) VALUES (?, ?)", (k, "x")).await.unwrap();
    }
    let prepared = session.prepare("SELECT v FROM bench.t WHERE k = ?").await.unwrap();
    let client = Client::new(
        ServiceBuilder::new()
            .layer(DeadlineLayer::new(Timeouts::total(Duration::from_secs(10))))
            .layer(RetryLayer::default())
            .layer(TimeoutLayer::new(Timeouts::attempt(Duration::from_secs(5))))
            .service(cassandra.clone()),
    );
    let bare_client = Client::new(cassandra);
    let began = Instant::now();
    let mut set = Vec::new();
    for _ in 0..32 {
        let (mode, session, prepared, client, bare_client) =
            (mode.clone(), session.clone(), prepared.clone(), client.clone(), bare_client.clone());
        set.push(tokio::spawn(async move {
            let mut n = 0u64;
            let mut k = 0;
            while began.elapsed() < Duration::from_secs(8) {
                k = (k + 1) % 1000;
                n += 1;
                match mode.as_str() {
                    "bare" => {
                        session.execute_unpaged(&prepared, (k,)).await.unwrap();
                    }
                    "leaf" => {
                        bare_client.execute("SELECT v FROM bench.t WHERE k = ?", (k,)).await.unwrap();
                    }
                    _ => {
                        client.execute("SELECT v FROM bench.t WHERE k = ?", (k,)).await.unwrap();
                    }
                }
            }
            n
        }));
    }
    let mut n = 0;
    for t in set {
        n += t.await.unwrap();
    }
    let cpu = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = cpu.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap();
    println!("{mode}: {} ops, {:.2} us client cpu per op", n, ticks * 10_000.0 / n as f64);
}
