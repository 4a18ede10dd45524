//! Many calls at once.

use std::time::Duration;

use palisade::{DeadlineLayer, RetryLayer, TimeoutLayer};
use tower::ServiceBuilder;
use tower_cassandra::{Client, Timeouts};

use crate::cluster::client_with_table;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_writes_at_once_all_succeed_and_none_is_lost() {
    let Some(bare) = client_with_table("load", "k int PRIMARY KEY, v int").await else { return };
    let client = Client::new(
        ServiceBuilder::new()
            .layer(DeadlineLayer::new(Timeouts::total(Duration::from_secs(60))))
            .layer(RetryLayer::default())
            .layer(TimeoutLayer::new(Timeouts::attempt(Duration::from_secs(30))))
            .service(bare.stack().clone()),
    );
    let calls: Vec<_> = (0..10_000)
        .map(|k| {
            let client = client.clone();
            tokio::spawn(async move { client.execute("INSERT INTO load (k, v) VALUES (?, ?)", (k, k)).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let rows = client.query("SELECT k, v FROM load").await.unwrap();
    let mut keys: Vec<i32> = Vec::new();
    for row in rows.rows::<(i32, i32)>().unwrap() {
        let (k, v) = row.unwrap();
        assert_eq!(k, v);
        keys.push(k);
    }
    keys.sort_unstable();
    assert!(keys.iter().copied().eq(0..10_000), "{} rows", keys.len());
}

/// One thread for the client, the timers and the driver: every call still gets on.
#[tokio::test]
async fn one_worker_thread_makes_progress_under_load() {
    let Some(bare) = client_with_table("load_alone", "k int PRIMARY KEY").await else { return };
    let stack = DeadlineLayer::new(Duration::from_secs(60));
    let client = Client::new(ServiceBuilder::new().layer(stack).service(bare.stack().clone()));
    let calls: Vec<_> = (0..2_000)
        .map(|k| {
            let client = client.clone();
            tokio::spawn(async move { client.execute("SELECT k FROM load_alone WHERE k = ?", (k,)).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
}
