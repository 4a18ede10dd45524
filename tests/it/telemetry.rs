//! What the telemetry layer tells of operations on a real cluster.

use std::{
    collections::{BTreeSet, HashMap},
    task::Poll,
};

use metrics::Key;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use scylla::statement::Consistency;
use tower::Layer;
use tower_cassandra::{
    Batch, BoxClient, Client, Request, Statement, TelemetryLayer, layers::RetryLayer, telemetry::QueryText,
};
use tracing_subscriber::layer::SubscriberExt;

use crate::{
    cluster::{KEYSPACE, client_with_table},
    spans::Ended,
};

/// A client whose operations are told, with a table that was made with this definition.
async fn told(table: &str, definition: &str, layer: &TelemetryLayer) -> Option<BoxClient> {
    let bare = client_with_table(table, definition).await?;
    Some(Client::new(layer.layer(RetryLayer::default().layer(bare.stack().clone()))).boxed())
}

/// How many values each series of a metric has: by operation, keyspace, table and type of error, in this order.
fn series(recorder: &DebuggingRecorder, metric: &str) -> HashMap<String, Vec<f64>> {
    let labels = |key: &Key| {
        let value =
            |wanted: &str| key.labels().find(|label| label.key() == wanted).map(metrics::Label::value);
        assert_eq!(value("db.system.name"), Some("cassandra"));
        let told = ["db.operation.name", "db.namespace", "db.collection.name", "error.type"];
        let told: Vec<_> = told.into_iter().filter_map(value).collect();
        assert_eq!(key.labels().count(), told.len() + 1, "{key} has a label that is not documented");
        told.join(" ")
    };
    let values = |value| match value {
        DebugValue::Histogram(values) => values.iter().map(|value| value.0).collect(),
        DebugValue::Gauge(value) => vec![value.0],
        DebugValue::Counter(_) => Vec::new(),
    };
    let seen = recorder.snapshotter().snapshot().into_vec();
    let of = seen.into_iter().filter(|(key, ..)| key.key().name() == metric);
    of.map(|(key, _, _, value)| (labels(key.key()), values(value))).collect()
}

/// The spans of a test, all that are this crate's.
macro_rules! spans {
    ($test:block) => {{
        let ended = Ended::default();
        let subscriber = tracing_subscriber::registry().with(ended.clone());
        let guard = tracing::subscriber::set_default(subscriber);
        $test
        drop(guard);
        let ended = ended.0.lock().unwrap();
        ended.iter().map(|(name, fields)| (*name, fields.0.clone())).collect::<Vec<_>>()
    }};
}

/// Lets a call begin, and drops it before anything can answer.
async fn give_up(call: impl Future) {
    let mut call = std::pin::pin!(call);
    let pending = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await;
    assert!(pending, "an answer came without a wait");
}

#[tokio::test]
async fn every_operation_is_timed_under_its_verb_and_table() {
    // The recorder comes when the layer is long there.
    let layer = TelemetryLayer::new();
    let Some(client) = told("tele_metrics", "k int, c int, v text, PRIMARY KEY (k, c)", &layer).await else {
        return;
    };
    let recorder = DebuggingRecorder::new();
    let guard = metrics::set_default_local_recorder(&recorder);
    let insert = "INSERT INTO tele_metrics (k, c, v) VALUES (?, ?, ?)";
    for c in 0..20 {
        client.execute(insert, (1, c, "v")).await.unwrap();
    }
    for k in 0..3 {
        client.execute("SELECT * FROM it.Tele_Metrics WHERE k = ?", (k,)).await.unwrap();
    }
    // Page by page.
    let paged = Statement::new("SELECT v FROM tele_metrics WHERE k = ?").page_size(7);
    assert_eq!(client.execute(paged, (1,)).await.unwrap().rows_num(), 20);
    client.batch(Batch::unlogged().with(insert, (2, 0, "v")).with(insert, (2, 1, "v"))).await.unwrap();
    client.query("TRUNCATE it.tele_metrics").await.unwrap();
    client.query("SELECT * FROM tele_metrics").await.unwrap();
    client.query("DROP TABLE tele_metrics").await.unwrap();
    client.query("SELECT * FROM tele_metrics").await.unwrap_err();
    client.query("SELEKT").await.unwrap_err();
    drop(guard);

    let table = format!("{KEYSPACE} tele_metrics");
    let seen = series(&recorder, "db.client.operation.duration");
    let names: BTreeSet<_> = seen.keys().cloned().collect();
    let expected = [
        format!("INSERT {table}"),
        format!("SELECT {table}"),
        format!("SELECT {table} invalid"),
        format!("BATCH INSERT {table}"),
        format!("TRUNCATE {table}"),
        format!("DROP TABLE {table}"),
        // Before the first statement is prepared, nobody has told the session's keyspace.
        "PREPARE tele_metrics".to_owned(),
        format!("PREPARE {table}"),
        "_OTHER syntax".to_owned(),
    ];
    assert_eq!(names, BTreeSet::from(expected));
    assert_eq!(seen[&format!("INSERT {table}")].len(), 20, "whatever values are bound");
    assert!(seen.values().flatten().all(|seconds| (0.0..60.0).contains(seconds)), "{seen:?}");
    assert!(seen[&format!("INSERT {table}")].iter().all(|seconds| *seconds > 0.000_01), "{seen:?}");
}

#[tokio::test]
async fn rows_are_counted_page_by_page() {
    let layer = TelemetryLayer::new();
    let Some(client) = told("tele_rows", "k int, c int, PRIMARY KEY (k, c)", &layer).await else { return };
    for c in 0..20 {
        client.execute("INSERT INTO tele_rows (k, c) VALUES (1, ?)", (c,)).await.unwrap();
    }
    let recorder = DebuggingRecorder::new();
    let guard = metrics::set_default_local_recorder(&recorder);
    let paged = Statement::new("SELECT c FROM tele_rows WHERE k = ?").page_size(8);
    assert_eq!(client.execute(paged, (1,)).await.unwrap().rows_num(), 20);
    client.execute("SELECT c FROM tele_rows WHERE k = ?", (2,)).await.unwrap();
    drop(guard);
    let seen = series(&recorder, "db.client.response.returned_rows");
    let rows = &seen[&format!("SELECT {KEYSPACE} tele_rows")];
    assert_eq!((seen.len(), rows.as_slice()), (1, &[8.0, 8.0, 4.0, 0.0][..]));
}

#[tokio::test]
async fn the_operations_under_way_are_none_when_all_have_ended() {
    let layer = TelemetryLayer::new();
    let Some(client) = told("tele_active", "k int PRIMARY KEY", &layer).await else { return };
    let recorder = DebuggingRecorder::new();
    let guard = metrics::set_default_local_recorder(&recorder);
    let select = "SELECT * FROM tele_active WHERE k = ?";
    client.execute(select, (1,)).await.unwrap();
    // Given up before the answer is there.
    give_up(client.execute(select, (1,))).await;
    drop(guard);
    let active = series(&recorder, "cassandra.client.operation.active");
    assert!(active.values().flatten().all(|active| *active == 0.0), "{active:?}");
    assert!(active.contains_key(&format!("SELECT {KEYSPACE} tele_active")), "{active:?}");
}

#[tokio::test]
async fn a_call_that_is_given_up_is_counted_as_cancelled() {
    let layer = TelemetryLayer::new();
    let Some(client) = told("tele_cancelled", "k int PRIMARY KEY", &layer).await else { return };
    let select = "SELECT * FROM tele_cancelled WHERE k = ?";
    client.execute(select, (1,)).await.unwrap();
    let recorder = DebuggingRecorder::new();
    let guard = metrics::set_default_local_recorder(&recorder);
    give_up(client.execute(select, (1,))).await;
    drop(guard);
    let seen = series(&recorder, "db.client.operation.duration");
    assert_eq!(seen.keys().collect::<Vec<_>>(), [&format!("SELECT {KEYSPACE} tele_cancelled cancelled")]);
}

#[tokio::test]
async fn a_span_tells_the_node_that_answered_and_the_rows() {
    let layer = TelemetryLayer::builder().query_text(QueryText::WithoutLiterals).build().unwrap();
    let Some(client) = told("tele_spans", "k int PRIMARY KEY, v text", &layer).await else { return };
    let insert = "INSERT INTO tele_spans (k, v) VALUES (?, ?)";
    client.execute(insert, (1, "v")).await.unwrap();
    let select = Statement::new("SELECT v FROM tele_spans WHERE k = ?").consistency(Consistency::One);
    client.execute(select.clone(), (1,)).await.unwrap();

    let coordinator = client.execute(select.clone(), (1,)).await.unwrap().coordinator().unwrap().clone();
    let ended = spans!({
        client.execute(select, (1,)).await.unwrap();
        client.batch(Batch::unlogged().with(insert, (2, "a")).with(insert, (3, "b"))).await.unwrap();
        client.query("SELECT nothing FROM tele_spans").await.unwrap_err();
    });
    let operations: Vec<_> =
        ended.iter().filter(|(name, _)| *name == "cassandra.operation").map(|(_, fields)| fields).collect();
    let [select, batch, failed] = operations[..] else { panic!("{ended:?}") };

    let (node, address) = (coordinator.node(), coordinator.connection_address());
    for (field, value) in [
        ("otel.name", format!("SELECT {KEYSPACE}.tele_spans")),
        ("otel.kind", "client".to_owned()),
        ("db.system.name", "cassandra".to_owned()),
        ("db.operation.name", "SELECT".to_owned()),
        ("db.namespace", KEYSPACE.to_owned()),
        ("db.collection.name", "tele_spans".to_owned()),
        ("db.query.summary", format!("SELECT {KEYSPACE}.tele_spans")),
        ("db.query.text", "SELECT v FROM tele_spans WHERE k = ?".to_owned()),
        ("db.response.returned_rows", "1".to_owned()),
        ("server.address", address.ip().to_string()),
        ("server.port", address.port().to_string()),
        ("cassandra.coordinator.id", node.host_id.to_string()),
        ("cassandra.coordinator.dc", node.datacenter.clone().unwrap()),
        ("cassandra.consistency.level", "one".to_owned()),
        ("cassandra.query.idempotent", "true".to_owned()),
        ("cassandra.page.size", "5000".to_owned()),
        ("cassandra.attempt.count", "1".to_owned()),
        ("cassandra.speculative_execution.count", "0".to_owned()),
    ] {
        assert_eq!(select.get(field), Some(&value), "{field}");
    }
    assert_eq!(select.len(), 18, "all that is told is documented: {select:?}");
    assert_eq!(batch["otel.name"], format!("BATCH INSERT {KEYSPACE}.tele_spans"));
    assert_eq!((&*batch["db.operation.batch.size"], &*batch["db.query.text"]), ("2", insert));
    assert_eq!((&*failed["error.type"], &*failed["db.response.status_code"]), ("invalid", "0x2200"));
    assert_eq!(
        (&*failed["otel.status_code"], &*failed["server.address"]),
        ("ERROR", &*address.ip().to_string())
    );
}

/// Whatever is told, and however it ends.
#[tokio::test]
async fn no_value_of_a_statement_is_in_any_span() {
    let layer = TelemetryLayer::builder().query_text(QueryText::WithoutLiterals).build().unwrap();
    let Some(client) = told("tele_secrets", "k text PRIMARY KEY, v int", &layer).await else { return };
    let insert = "INSERT INTO tele_secrets (k, v) VALUES (?, ?)";
    let ended = spans!({
        client.execute(insert, ("xyzzy", 4_711_815)).await.unwrap();
        client.execute("SELECT * FROM tele_secrets WHERE k = ?", ("xyzzy",)).await.unwrap();
        client.execute("SELECT * FROM tele_secrets WHERE k = 'xyzzy' -- xyzzy\n", ()).await.unwrap();
        client
            .batch(Batch::unlogged().with(insert, ("xyzzy", 4_711_815)).with(insert, ("xyzzy", 1)))
            .await
            .unwrap();
        client.query("UPDATE tele_secrets SET v = 4711815 WHERE k = 'xyzzy'").await.unwrap();
        // The server's answers repeat the values.
        client.query("UPDATE tele_secrets SET v = 'xyzzy' WHERE k = 'a'").await.unwrap_err();
        client.query("SELECT * FROM tele_secrets WHERE k = 'xyzzy' AND xyzzy").await.unwrap_err();
        client.execute(insert, ("xyzzy", "xyzzy")).await.unwrap_err();
    });
    assert!(ended.iter().filter(|(name, _)| *name == "cassandra.operation").count() >= 7, "{ended:?}");
    // A name is no value.
    let told: Vec<_> = ended
        .iter()
        .flat_map(|(_, fields)| fields)
        .map(|(field, value)| format!("{field}={}", value.replace("AND xyzzy", "")))
        .filter(|told| told.contains("xyzzy") || told.contains("4711815"))
        .collect();
    assert_eq!(told, Vec::<String>::new());
}

#[tokio::test]
async fn a_prepared_statement_knows_what_it_is_called() {
    let Some(client) = client_with_table("tele_names", "k int PRIMARY KEY").await else { return };
    let name = |prepared: tower_cassandra::Prepared| prepared.operation().summary().to_owned();
    let prepared = client.prepare("SELECT * FROM Tele_Names WHERE k = ?").await.unwrap();
    assert_eq!(name(prepared), format!("SELECT {KEYSPACE}.tele_names"));
    // No bind marker tells of the table here.
    let prepared = client.prepare("SELECT * FROM tele_names").await.unwrap();
    assert_eq!(name(prepared), format!("SELECT {KEYSPACE}.tele_names"));

    let session = client.stack().session();
    let statement = session.prepare("DELETE FROM tele_names WHERE k = ?").await.unwrap();
    let request = Request::bound(statement.bind(&(1,)).unwrap());
    assert_eq!(request.operation().summary(), format!("DELETE {KEYSPACE}.tele_names"));
}
