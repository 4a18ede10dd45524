//! The recommended stack on a real cluster.

use std::time::{Duration, Instant};

use tower_cassandra::{
    BoxClient, ErrorKind, StackConfig, StandardStack,
    layers::{Rejection, breaker},
};

use crate::cluster;

/// The stack of a configuration text, in the functional tests' keyspace.
async fn stack(text: &str) -> Option<StandardStack> {
    // So that the keyspace is there.
    cluster::session().await?;
    let points = cluster::shared()?;
    let connection =
        format!("[connection]\ncontact_points = {points:?}\nkeyspace = {:?}\n", cluster::KEYSPACE);
    let config = StackConfig::from_toml(&format!("{text}\n{connection}")).unwrap();
    Some(StandardStack::connect(config).await.unwrap())
}

async fn writes_and_reads(client: &BoxClient, table: &str, keys: i32) {
    let calls = (0..keys).map(|key| {
        let (client, table) = (client.clone(), table.to_owned());
        tokio::spawn(async move {
            let insert = format!("INSERT INTO {table} (k, v) VALUES (?, ?)");
            let wrote = client.execute(insert, (key, key * 2)).await;
            wrote.unwrap_or_else(|error| panic!("write {key}: {error}"));
            let read = client.execute(format!("SELECT v FROM {table} WHERE k = ?"), (key,)).await;
            read.unwrap_or_else(|error| panic!("read {key}: {error}")).single_row::<(i32,)>()
        })
    });
    for (key, call) in (0..keys).zip(calls.collect::<Vec<_>>()) {
        assert_eq!(call.await.unwrap().unwrap(), (key * 2,));
    }
}

#[tokio::test]
async fn a_stack_from_a_text_serves_calls_side_by_side() {
    let Some(stack) = stack("[coalesce]\nenabled = true\n\n[adaptive]\nenabled = true\n").await else {
        return;
    };
    let client = stack.client();
    client.query("CREATE TABLE IF NOT EXISTS stack_calls (k int PRIMARY KEY, v int)").await.unwrap();
    writes_and_reads(&client, "stack_calls", 20).await;

    let snapshot = stack.handles().snapshot();
    assert_eq!(snapshot.drain.in_flight, 0);
    assert_eq!(snapshot.breaker.unwrap().state, "closed");
    assert!(snapshot.coalesce.unwrap().led > 0);
    assert_eq!(snapshot.adaptive.unwrap().in_flight, 0);
    assert!(stack.cassandra().is_some());
}

#[tokio::test]
async fn a_stack_over_a_session_changes_at_run_time_and_ends_in_order() {
    let Some(cassandra) = cluster::session().await else { return };
    let mut config = StackConfig::interactive();
    // Whatever this machine does besides.
    config.deadline.limit = Duration::from_secs(10);
    config.attempt_timeout.limit = Duration::from_secs(5);
    let stack = StandardStack::builder(config.clone()).over_session(cassandra).unwrap();
    let client = stack.client();
    let version = "SELECT release_version FROM system.local";
    client.execute(version, ()).await.unwrap();

    config.breaker.mode = breaker::Mode::ForcedOpen;
    assert_eq!(stack.handles().apply(&config).unwrap().changed, ["breaker.mode"]);
    let refused = client.execute(version, ()).await.unwrap_err();
    assert!(matches!(refused.rejection(), Some(Rejection::CircuitOpen { .. })), "{refused}");
    config.breaker.mode = breaker::Mode::Normal;
    stack.handles().apply(&config).unwrap();
    client.execute(version, ()).await.unwrap();

    stack.handles().drain.start();
    let refused = client.execute(version, ()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(stack.handles().drain.finish().await.finished);
}

#[tokio::test]
async fn a_datacenter_that_is_not_there_is_named() {
    let Some(points) = cluster::shared() else { return };
    let mut config = StackConfig::default();
    config.connection.contact_points = points;
    config.connection.datacenter = Some("atlantis".to_owned());
    let error = StandardStack::connect(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("atlantis"), "{error}");
}

#[tokio::test]
async fn a_node_that_hangs_fails_no_call() {
    let Some(ring) = cluster::ring().await else { return };
    let mut config = StackConfig::default();
    // Whatever this machine does besides.
    config.deadline.limit = Duration::from_secs(10);
    config.attempt_timeout.limit = Duration::from_secs(2);
    let stack = StandardStack::builder(config).over_session(ring.session().await).unwrap();
    let client = stack.client();
    // A coordinator of a table that is new waits for long before it asks a third replica: until it has looked at its
    // settings. It does every `read_request_timeout`, 10 s here.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(11) {
        writes_and_reads(&client, "faults.t", 20).await;
    }
    let paused = ring.cluster.paused(2).unwrap();
    for _ in 0..5 {
        writes_and_reads(&client, "faults.t", 20).await;
    }
    drop(paused);
    assert_eq!(stack.handles().breaker.as_ref().unwrap().state(), breaker::CircuitState::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_datacenter_serves_with_a_circuit_of_its_own() {
    let Some(cluster) = cluster::two_datacenters() else { return };
    let mut config = StackConfig::default();
    config.connection.contact_points = cluster.contact_points().iter().map(ToString::to_string).collect();
    config.connection.datacenter = Some("dc1".to_owned());
    config.deadline.limit = Duration::from_secs(10);
    config.attempt_timeout.limit = Duration::from_secs(5);
    config.failover.remotes = vec!["dc9".to_owned()];
    let error = StandardStack::connect(config.clone()).await.unwrap_err().to_string();
    assert!(error.contains("`failover.remotes` is \"dc9\", which the cluster does not have"), "{error}");

    config.failover.remotes = vec!["dc2".to_owned()];
    let stack = StandardStack::connect(config.clone()).await.unwrap();
    let (client, handles) = (stack.client(), stack.handles());
    for schema in [
        "CREATE KEYSPACE IF NOT EXISTS elsewhere WITH replication = \
         {'class': 'NetworkTopologyStrategy', 'dc1': 2, 'dc2': 1}",
        "CREATE TABLE IF NOT EXISTS elsewhere.t (k int PRIMARY KEY, v int)",
    ] {
        client.query(schema).await.unwrap();
    }
    let served_by = async || {
        let read = client.execute("SELECT v FROM elsewhere.t WHERE k = ?", (1,)).await?;
        let node = read.coordinator().map(|coordinator| coordinator.node().datacenter.clone());
        Ok::<_, tower_cassandra::Error>(node.flatten().unwrap_or_default())
    };
    assert_eq!(served_by().await.unwrap(), "dc1");

    // The circuit of the local datacenter is nothing to the other one.
    handles.failover.as_ref().unwrap().hold("dc2").unwrap();
    handles.breaker.as_ref().unwrap().set_mode(breaker::Mode::ForcedOpen);
    assert_eq!(served_by().await.unwrap(), "dc2");
    assert_eq!(handles.snapshot().failover.unwrap().active, "dc2");

    // Who holds a datacenter is obeyed, whether or not the layer may choose.
    handles.failover.as_ref().unwrap().release();
    config.failover.enabled = false;
    assert_eq!(handles.apply(&config).unwrap().changed, ["failover.enabled"]);
    let refused = served_by().await.unwrap_err();
    assert!(matches!(refused.rejection(), Some(Rejection::CircuitOpen { .. })), "{refused}");
}
