//! What a cluster's client tells of its operations: metrics and spans under the names of OpenTelemetry.
//!
//! Dashboards, alerts and trace views that know databases know these names, so that nothing has to be built for this crate. Place
//! [`TelemetryLayer`] outermost: it measures what callers see, retries, waits and refusals included.
//!
//! ```no_run
//! use std::time::Duration;
//! use tower::ServiceBuilder;
//! use tower_cassandra::{Cassandra, Client, TelemetryLayer, Timeouts, layers::*, telemetry};
//!
//! # async fn example() -> Result<(), tower_cassandra::Error> {
//! telemetry::describe();
//! let client = Client::new(
//!     ServiceBuilder::new()
//!         .layer(TelemetryLayer::new())
//!         .layer(DeadlineLayer::new(Timeouts::total(Duration::from_secs(2))))
//!         .layer(RetryLayer::default())
//!         .service(Cassandra::connect("127.0.0.1:9042").await?),
//! );
//! client.execute("SELECT name FROM app.users WHERE id = ?", (7_i64,)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Metrics
//!
//! By the crate `metrics`; an exporter for Prometheus writes `_` for each dot.
//!
//! | metric | what | unit |
//! | --- | --- | --- |
//! | `db.client.operation.duration` | histogram: how long operations take, and by its count how many there are | seconds |
//! | `db.client.response.returned_rows` | histogram: rows in an answer, of what has rows | rows |
//! | `cassandra.client.operation.active` | gauge: operations under way | operations |
//!
//! | label | value |
//! | --- | --- |
//! | `db.system.name` | `cassandra` |
//! | `db.operation.name` | [`OperationName::name`]: `SELECT`, `BATCH INSERT`, `PREPARE` |
//! | `db.namespace` | the keyspace of the table; left out where it is not known |
//! | `db.collection.name` | the table; left out where there is none, or more than one |
//! | `error.type` (duration only) | of what failed: [`ErrorKind::as_str`](crate::ErrorKind::as_str), `cancelled` for a call whose future was dropped before its end, or `panicked` |
//!
//! At most `max_operations` different operations (a verb on a table) get series of their own. Later ones are counted by their
//! verbs, with `_OTHER` for keyspace and table; that is logged once. [`DURATION_BUCKETS`] and [`ROWS_BUCKETS`] are what
//! OpenTelemetry recommends for an exporter's histograms. [`NodeMetrics`] are those of the attempts at each node.
//!
//! # Spans
//!
//! Three spans may be around one attempt, each with what it alone knows:
//!
//! | span | level | what it is |
//! | --- | --- | --- |
//! | `cassandra` | `DEBUG` | a call of [`Client`](crate::Client): all its steps (preparation, pages), the story of its attempts |
//! | `cassandra.operation` | `INFO` | one request through the stack: what OpenTelemetry calls a client span |
//! | `cassandra.attempt` | `DEBUG` | one attempt at a node |
//!
//! The one in the middle is this layer's, of target `tower_cassandra`, with the fields:
//!
//! | field | value |
//! | --- | --- |
//! | `otel.name`, `db.query.summary` | [`OperationName::summary`]: `SELECT app.users` |
//! | `otel.kind` | `client` |
//! | `otel.status_code` | `ERROR` where it failed |
//! | `error.type`, `db.operation.name`, `db.namespace`, `db.collection.name`, `db.system.name` | as the labels |
//! | `db.operation.batch.size` | statements of a batch, if there are two or more |
//! | `db.query.text` | only if asked for: see [`QueryText`] |
//! | `db.response.status_code` | the server's error code, as the protocol writes it: `0x1001` |
//! | `db.response.returned_rows` | rows in the answer |
//! | `server.address`, `server.port` | the node that answered, or that was asked last |
//! | `cassandra.coordinator.id`, `.dc` | of the node that answered |
//! | `cassandra.consistency.level` | where the request sets one; the session's is not known here |
//! | `cassandra.query.idempotent` | whether it is known to be |
//! | `cassandra.page.size` | rows a page, where the request says |
//! | `cassandra.attempt.count` | attempts that it took; those of which the ledger has forgotten are not among them |
//! | `cassandra.speculative_execution.count` | those that began while another was under way |
//! | `cassandra.failover.datacenter` | the datacenter that a [failover](crate::failover) below went to |
//!
//! An attempt's span has `kind`, the node that was really asked as `network.peer.address` and `.port` and as
//! `cassandra.coordinator.id` and `.dc`, and of an attempt that failed `error.type`, `otel.status_code` and
//! `db.response.status_code`.
//!
//! No value that is bound to a statement or written into it is in any of them, unless [`QueryText::WithLiterals`] asks for
//! the latter. So the text of an error is not told either: a server repeats in it what it has been sent.
//!
//! # What it does
//!
//! - What an operation is called is found out once for each prepared statement, and kept with it. A statement that is sent as
//!   text is looked at each time.
//! - Readiness: forwards it. The wait for readiness is not measured, since nobody knows what it was for.
//! - Errors stay as they are; the layer asks them what kind they are ([`HasErrorKind`](crate::HasErrorKind)).
//! - Dropping the response future ends the operation as `cancelled`, after the inner future has been dropped.
//! - A call allocates nothing and takes no lock, but for an operation or an error that is new, and where somebody wants the
//!   span. Handles are looked up at the first call that needs them: install the recorder before that.
//!
//! # When to use something else
//!
//! [`MetricsLayer`](palisade::MetricsLayer) and [`TraceLayer`](palisade::TraceLayer) measure any place in the stack, under
//! names of their own, and fit any tower service.
//!
//! # Knobs
//!
//! | knob | unit | default |
//! | --- | --- | --- |
//! | `max_operations` | operations with series of their own, 1 to 10,000 | 1,000 |
//! | `query_text` | [`QueryText`] | off |
//! | `label` | one more label, the same for all metrics of the layer | none |
//!
//! The names are those of OpenTelemetry's [semantic conventions] 1.44 for Cassandra clients.
//!
//! [semantic conventions]: https://opentelemetry.io/docs/specs/semconv/db/cassandra/

mod attempt;
mod book;
mod by_name;
mod call;
mod durations;
mod future;
mod layer;
mod name;
mod node;
mod series;
mod service;
mod span;
#[cfg(test)]
mod tests;
mod text;

use metrics::{Unit, describe_gauge, describe_histogram};

pub(crate) use self::attempt::{attempt_span, record_attempt};
pub use self::{
    future::TelemetryFuture,
    layer::{TelemetryBuilder, TelemetryLayer},
    name::OperationName,
    node::NodeMetrics,
    service::Telemetry,
    text::QueryText,
};

const DURATION: &str = "db.client.operation.duration";
const ROWS: &str = "db.client.response.returned_rows";
const ACTIVE: &str = "cassandra.client.operation.active";
const ATTEMPT_DURATION: &str = "cassandra.client.attempt.duration";
const ATTEMPT_ACTIVE: &str = "cassandra.client.attempt.active";
const NODE_STATE: &str = "cassandra.client.node.state";

/// Bounds of the buckets for durations, in seconds, that OpenTelemetry recommends. For an exporter that wants to be told.
pub const DURATION_BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// Bounds of the buckets for returned rows that OpenTelemetry recommends.
pub const ROWS_BUCKETS: [f64; 13] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0];

/// Tells the recorder what the metrics are, and in which units. Call it once, when the recorder is installed.
pub fn describe() {
    describe_histogram!(DURATION, Unit::Seconds, "Duration of database client operations.");
    describe_histogram!(
        ROWS,
        Unit::Count,
        "The actual number of records returned by the database operation."
    );
    describe_gauge!(ACTIVE, Unit::Count, "Operations that are under way.");
    describe_histogram!(ATTEMPT_DURATION, Unit::Seconds, "Duration of single attempts at a node.");
    describe_gauge!(ATTEMPT_ACTIVE, Unit::Count, "Attempts at a node that are under way.");
    describe_gauge!(NODE_STATE, Unit::Count, "1 for the state that a node is in.");
}
