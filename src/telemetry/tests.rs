//! The layer over services that do what a test tells them.

use std::{
    collections::HashMap,
    fmt::Debug,
    future::{pending, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use metrics::{Key, Label};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use palisade::{Idempotence, Rejection, TimeoutScope};
use scylla::statement::Consistency;
use tower::{BoxError, Layer, Service, service_fn};
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{layer::SubscriberExt, registry::LookupSpan};

use super::*;
use crate::{
    error::{Error, ErrorKind, HasErrorKind},
    idempotence::analyze,
    ledger::Ledger,
    nodes::{Availability, Nodes, Rules},
    request::{Kind, Request},
    response::Response,
    routing::current::AttemptGuard,
};

const SELECT: &str = "SELECT name FROM app.users WHERE id = 7";

/// What a recorder has seen.
#[derive(Debug, Default)]
struct Seen(Vec<OneSeries>);

#[derive(Debug)]
struct OneSeries {
    metric: String,
    labels: Vec<(String, String)>,
    values: Vec<f64>,
}

impl Seen {
    fn by(test: impl FnOnce()) -> Self {
        let recorder = DebuggingRecorder::new();
        metrics::with_local_recorder(&recorder, test);
        Self::at(&recorder)
    }

    fn at(recorder: &DebuggingRecorder) -> Self {
        let labels = |key: &Key| {
            let pair = |label: &Label| (label.key().to_owned(), label.value().to_owned());
            let mut labels: Vec<_> = key.labels().map(pair).collect();
            labels.sort();
            labels
        };
        let values = |value| match value {
            DebugValue::Gauge(value) => vec![value.0],
            DebugValue::Histogram(values) => values.iter().map(|value| value.0).collect(),
            DebugValue::Counter(_) => Vec::new(),
        };
        let seen = recorder.snapshotter().snapshot().into_vec();
        let one = |(key, value): (Key, DebugValue)| OneSeries {
            metric: key.name().to_owned(),
            labels: labels(&key),
            values: values(value),
        };
        Self(seen.into_iter().map(|(key, _, _, value)| one((key.key().clone(), value))).collect())
    }

    /// The labels of all series of a metric, in order.
    fn series(&self, metric: &str) -> Vec<Vec<(&str, &str)>> {
        let of = self.0.iter().filter(|series| series.metric == metric);
        let mut series: Vec<Vec<_>> =
            of.map(|series| series.labels.iter().map(|(key, value)| (&**key, &**value)).collect()).collect();
        series.sort();
        series
    }

    /// All values of the series that have these labels, whatever others they have.
    fn values(&self, metric: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let has = |series: &OneSeries, (key, value): (&str, &str)| {
            series.labels.iter().any(|(k, v)| k == key && v == value)
        };
        let of = self.0.iter().filter(|series| series.metric == metric);
        of.filter(|series| labels.iter().all(|wanted| has(series, *wanted)))
            .flat_map(|series| series.values.clone())
            .collect()
    }
}

/// Polls a call once.
fn poll<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn call<S: Service<Request>>(service: &mut S, request: Request) -> Poll<Result<S::Response, S::Error>> {
    poll(service.call(request))
}

fn answers() -> impl Service<Request, Response = Response, Error = Error> + Clone {
    service_fn(|_: Request| ready(Ok(Response::default())))
}

fn fails(
    error: impl Fn() -> Error + Clone,
) -> impl Service<Request, Response = Response, Error = Error> + Clone {
    service_fn(move |_: Request| ready(Err(error())))
}

fn hangs() -> impl Service<Request, Response = Response, Error = Error> + Clone {
    service_fn(|_: Request| pending())
}

fn late() -> Error {
    Rejection::timed_out(TimeoutScope::Total, Duration::from_secs(1)).into()
}

#[test]
fn operations_are_timed_under_the_names_of_opentelemetry() {
    let layer = TelemetryLayer::builder().label("cluster", "main").build().unwrap();
    let seen = Seen::by(|| {
        assert!(call(&mut layer.layer(answers()), Request::text(SELECT)).is_ready());
        assert!(call(&mut layer.layer(answers()), Request::prepare(SELECT)).is_ready());
        assert!(call(&mut layer.layer(answers()), Request::text("DELETE FROM t WHERE k = 1")).is_ready());
        assert!(call(&mut layer.layer(fails(late)), Request::text(SELECT)).is_ready());
        assert!(call(&mut layer.layer(hangs()), Request::text(SELECT)).is_pending());
    });
    let base = [("cluster", "main"), ("db.collection.name", "users"), ("db.namespace", "app")];
    let select = [&base[..], &[("db.operation.name", "SELECT"), ("db.system.name", "cassandra")]].concat();
    let prepare = [&base[..], &[("db.operation.name", "PREPARE"), ("db.system.name", "cassandra")]].concat();
    let delete = vec![
        ("cluster", "main"),
        ("db.collection.name", "t"),
        ("db.operation.name", "DELETE"),
        ("db.system.name", "cassandra"),
    ];
    let failed = |error_type| [&select[..], &[("error.type", error_type)]].concat();
    let mut expected =
        vec![select.clone(), prepare.clone(), delete.clone(), failed("timeout"), failed("cancelled")];
    expected.sort();
    assert_eq!(seen.series("db.client.operation.duration"), expected);
    for labels in &expected {
        let values = seen.values("db.client.operation.duration", labels);
        assert!(values.iter().all(|seconds| (0.0..1.0).contains(seconds)), "{labels:?}: {values:?}");
    }
    assert_eq!(seen.values("db.client.operation.duration", &select).len(), 3);
    let mut expected = vec![select, prepare, delete];
    expected.sort();
    assert_eq!(seen.series("cassandra.client.operation.active"), expected);
    assert_eq!(seen.values("cassandra.client.operation.active", &[]), [0.0, 0.0, 0.0]);
    assert!(seen.series("db.client.response.returned_rows").is_empty(), "there were no rows");
}

#[test]
fn operations_under_way_are_counted_until_nothing_is_left_of_them() {
    let layer = TelemetryLayer::new();
    let recorder = DebuggingRecorder::new();
    // Taking a snapshot sets the gauge back, so that each tells the change since the one before.
    let change = || Seen::at(&recorder).values("cassandra.client.operation.active", &[]);
    metrics::with_local_recorder(&recorder, || {
        let mut service = layer.layer(hangs());
        let (one, two) = (service.call(Request::text(SELECT)), service.call(Request::text(SELECT)));
        assert_eq!(change(), [2.0]);
        drop(one);
        assert_eq!(change(), [-1.0]);
        drop(two);
        assert_eq!(change(), [-1.0]);
    });
}

#[test]
fn a_call_that_is_dropped_before_it_was_polled_is_cancelled() {
    let layer = TelemetryLayer::new();
    let seen = Seen::by(|| drop(layer.layer(answers()).call(Request::text(SELECT))));
    assert_eq!(seen.values("db.client.operation.duration", &[("error.type", "cancelled")]).len(), 1);
}

#[test]
fn a_panic_below_is_no_cancellation() {
    let layer = TelemetryLayer::new();
    let panics = service_fn(|_: Request| async {
        assert_eq!(1, 2, "the service's own trouble");
        Ok::<_, Error>(Response::default())
    });
    let mut service = layer.layer(panics);
    let seen = Seen::by(|| {
        let called = catch_unwind(AssertUnwindSafe(|| drop(call(&mut service, Request::text(SELECT)))));
        assert!(called.is_err());
    });
    assert_eq!(seen.values("db.client.operation.duration", &[("error.type", "panicked")]).len(), 1);
    assert!(seen.values("db.client.operation.duration", &[("error.type", "cancelled")]).is_empty());
}

#[test]
fn an_error_that_panics_when_it_is_asked_leaves_nothing_under_way() {
    #[derive(Debug)]
    struct Bad;
    impl HasErrorKind for Bad {
        fn error_kind(&self) -> ErrorKind {
            panic!("the error's own trouble")
        }
    }
    let mut service = TelemetryLayer::new().layer(service_fn(|_: Request| ready(Err::<Response, _>(Bad))));
    let seen = Seen::by(|| {
        let called = catch_unwind(AssertUnwindSafe(|| drop(call(&mut service, Request::text(SELECT)))));
        assert!(called.is_err());
    });
    assert_eq!(seen.values("db.client.operation.duration", &[("error.type", "panicked")]).len(), 1);
    assert_eq!(seen.values("cassandra.client.operation.active", &[]), [0.0]);
}

#[test]
fn errors_pass_as_they_are_whatever_their_type() {
    let layer = TelemetryLayer::new();
    let boxed = service_fn(|_: Request| ready(Err::<Response, BoxError>(late().into())));
    let seen = Seen::by(|| {
        let Poll::Ready(Err(error)) = call(&mut layer.layer(boxed), Request::text(SELECT)) else { panic!() };
        assert_eq!(error.downcast::<Error>().unwrap().kind(), ErrorKind::Timeout(TimeoutScope::Total));
    });
    assert_eq!(seen.values("db.client.operation.duration", &[("error.type", "timeout")]).len(), 1);
}

#[test]
fn so_many_operations_have_series_of_their_own_and_the_rest_are_counted_by_verb() {
    let layer = TelemetryLayer::builder().max_operations(3).build().unwrap();
    let seen = Seen::by(|| {
        for table in 0..50 {
            for verb in ["SELECT * FROM", "DELETE FROM"] {
                let cql = format!("{verb} app.t{table} WHERE k = 1");
                assert!(call(&mut layer.layer(answers()), Request::text(cql)).is_ready());
            }
        }
    });
    // Three, and two verbs.
    assert_eq!(seen.series("db.client.operation.duration").len(), 5);
    for (verb, count) in [("SELECT", 48), ("DELETE", 49)] {
        let labels =
            [("db.operation.name", verb), ("db.namespace", "_OTHER"), ("db.collection.name", "_OTHER")];
        assert_eq!(seen.values("db.client.operation.duration", &labels).len(), count, "{verb}");
    }
}

/// A handle that is made before the recorder is installed stays silent for ever.
#[test]
fn handles_are_looked_up_when_they_are_needed_and_not_before() {
    let layer = TelemetryLayer::new();
    let mut service = layer.layer(answers());
    let request = Request::text(SELECT);
    let node = NodeMetrics::new(([127, 0, 0, 1], 9042).into(), None);
    let seen = Seen::by(|| {
        assert!(call(&mut service, request).is_ready());
        node.answered(Duration::ZERO);
    });
    assert_eq!(seen.values("db.client.operation.duration", &[]).len(), 1);
    assert_eq!(seen.values("cassandra.client.attempt.duration", &[]).len(), 1);
}

#[test]
fn a_call_allocates_nothing_after_the_first() {
    let layer = TelemetryLayer::new();
    let mut service = layer.layer(answers());
    let requests: Vec<_> = std::iter::repeat_n(Request::text(SELECT), 1_001).collect();
    let mut requests = requests.into_iter();
    // Without a recorder: what one keeps takes room.
    assert!(call(&mut service, requests.next().unwrap()).is_ready());
    let allocated = allocation_counter::measure(|| {
        for request in requests {
            assert!(call(&mut service, request).is_ready());
        }
    });
    assert_eq!(allocated.count_total, 0);
}

#[test]
fn the_metrics_of_a_node_tell_how_its_attempts_end_and_what_state_it_is_in() {
    let node = NodeMetrics::new(([127, 0, 0, 1], 9042).into(), Some("dc1"));
    let seen = Seen::by(|| {
        node.in_flight(2);
        node.answered(Duration::from_millis(2));
        node.in_flight(-1);
        node.failed(ErrorKind::Overloaded, Duration::from_millis(3));
        node.abandoned(Duration::from_millis(300));
        node.state(Availability::Up);
        node.state(Availability::Ejected);
    });
    let base =
        [("cassandra.coordinator.dc", "dc1"), ("server.address", "127.0.0.1"), ("server.port", "9042")];
    let with = |key, value| {
        let mut labels = [&base[..], &[(key, value)]].concat();
        labels.sort_unstable();
        labels
    };
    let metric = "cassandra.client.attempt.duration";
    let mut expected = vec![base.to_vec(), with("error.type", "abandoned"), with("error.type", "overloaded")];
    expected.sort();
    assert_eq!(seen.series(metric), expected);
    assert_eq!(seen.values(metric, &[("error.type", "overloaded")]), [0.003]);
    assert_eq!(seen.values(metric, &[("error.type", "abandoned")]), [0.3]);
    assert_eq!(seen.values(metric, &[]).len(), 3);
    assert_eq!(seen.values("cassandra.client.attempt.active", &base), [1.0]);
    for (state, value) in [("up", 0.0), ("ejected", 1.0), ("down", 0.0)] {
        let labels = with("cassandra.node.state", state);
        assert_eq!(seen.values("cassandra.client.node.state", &labels), [value], "{state}");
    }
}

#[test]
fn a_node_that_has_left_is_in_no_state() {
    let node = NodeMetrics::new(([127, 0, 0, 1], 9042).into(), None);
    let states = |told: fn(&NodeMetrics)| Seen::by(|| told(&node)).values("cassandra.client.node.state", &[]);
    assert!(states(NodeMetrics::gone).is_empty(), "nobody has asked for its state");
    let down = |node: &NodeMetrics| {
        node.state(Availability::Down);
        node.gone();
    };
    assert_eq!(states(down), [0.0; 3]);
}

/// Each name that is used has a description, and is spelled as documented.
#[test]
fn all_metrics_are_described_with_their_units() {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        describe();
        assert!(call(&mut TelemetryLayer::new().layer(answers()), Request::text(SELECT)).is_ready());
        let node = NodeMetrics::new(([127, 0, 0, 1], 9042).into(), None);
        node.answered(Duration::ZERO);
        node.in_flight(1);
        node.state(Availability::Down);
    });
    for (key, unit, description, _) in recorder.snapshotter().snapshot().into_vec() {
        let name = key.key().name();
        assert!(description.is_some(), "{name} is not described");
        let seconds = name.ends_with(".duration");
        assert_eq!(unit, Some(if seconds { Unit::Seconds } else { Unit::Count }), "{name}");
    }
}

/// Spans that have been closed, each with its fields.
#[derive(Clone, Default)]
struct Closed(Arc<Mutex<Vec<(&'static str, Fields)>>>);

#[derive(Clone, Debug, Default)]
struct Fields(HashMap<&'static str, String>);

impl Fields {
    fn of(&self, field: &str) -> Option<&str> {
        self.0.get(field).map(String::as_str)
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Closed {
    fn on_new_span(
        &self,
        attributes: &Attributes<'_>,
        id: &Id,
        cx: tracing_subscriber::layer::Context<'_, S>,
    ) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        cx.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, cx: tracing_subscriber::layer::Context<'_, S>) {
        values.record(cx.span(id).unwrap().extensions_mut().get_mut::<Fields>().unwrap());
    }

    fn on_close(&self, id: Id, cx: tracing_subscriber::layer::Context<'_, S>) {
        let span = cx.span(&id).unwrap();
        let fields = span.extensions_mut().remove::<Fields>().unwrap();
        self.0.lock().unwrap().push((span.name(), fields));
    }
}

/// The spans that a test leaves, all of which have to be this layer's.
fn spans(test: impl FnOnce()) -> Vec<Fields> {
    let closed = Closed::default();
    let subscriber = tracing_subscriber::registry().with(closed.clone());
    tracing::subscriber::with_default(subscriber, test);
    let closed = closed.0.lock().unwrap();
    assert!(closed.iter().all(|(name, _)| *name == "cassandra.operation"), "{closed:?}");
    closed.iter().map(|(_, fields)| fields.clone()).collect()
}

#[test]
fn a_span_tells_what_was_asked_for_and_how_it_ended() {
    let layer = TelemetryLayer::new();
    let request = || Request::text(SELECT).with_consistency(Consistency::LocalQuorum).with_page_size(100);
    let spans = spans(|| {
        assert!(call(&mut layer.layer(answers()), request()).is_ready());
        assert!(call(&mut layer.layer(fails(late)), request()).is_ready());
        assert!(call(&mut layer.layer(hangs()), request()).is_pending());
    });
    for span in &spans {
        for (field, value) in [
            ("otel.name", "SELECT app.users"),
            ("otel.kind", "client"),
            ("db.system.name", "cassandra"),
            ("db.operation.name", "SELECT"),
            ("db.namespace", "app"),
            ("db.collection.name", "users"),
            ("db.query.summary", "SELECT app.users"),
            ("cassandra.consistency.level", "local_quorum"),
            ("cassandra.page.size", "100"),
            ("cassandra.query.idempotent", "true"),
            ("cassandra.attempt.count", "0"),
        ] {
            assert_eq!(span.of(field), Some(value), "{field}");
        }
        assert_eq!((span.of("db.query.text"), span.of("db.operation.batch.size")), (None, None));
    }
    let ends: Vec<_> =
        spans.iter().map(|span| (span.of("error.type"), span.of("otel.status_code"))).collect();
    let error = Some("ERROR");
    assert_eq!(ends, [(None, None), (Some("timeout"), error), (Some("cancelled"), error)]);
}

fn begin(ledger: &Arc<Ledger>, kind: Kind) -> AttemptGuard {
    ledger.begin((kind, Idempotence::Yes), None, &Nodes::new(Rules::default()))
}

#[test]
fn a_failed_operation_names_the_code_of_the_server_and_the_node_that_was_asked_last() {
    let layer = TelemetryLayer::new();
    let overloaded = || {
        use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
        let answer = RequestAttemptError::DbError(DbError::Overloaded, "your secret".to_owned());
        Error::from(ExecutionError::LastAttemptError(answer))
    };
    let asks = service_fn(move |request: Request| {
        use scylla::observability::history::HistoryListener;
        let ledger: &Arc<Ledger> = request.ledger();
        for last in [2, 3] {
            let mut attempt = begin(ledger, Kind::Read);
            let node = ([127, 0, 0, last], 9042).into();
            attempt.work(|| ledger.log_attempt_start(ledger.log_request_start(), None, node));
            attempt.end::<()>(&Err(overloaded()));
        }
        ready(Err::<Response, _>(overloaded()))
    });
    let request = Request::text(SELECT);
    // A step that came before is none of this operation's.
    begin(request.ledger(), Kind::Prepare).end(&Ok(()));
    let spans = spans(|| assert!(call(&mut layer.layer(asks), request).is_ready()));
    let [span] = &spans[..] else { panic!("{spans:?}") };
    for (field, value) in [
        ("error.type", "overloaded"),
        ("db.response.status_code", "0x1001"),
        ("server.address", "127.0.0.3"),
        ("server.port", "9042"),
        ("cassandra.attempt.count", "2"),
        ("cassandra.speculative_execution.count", "0"),
    ] {
        assert_eq!(span.of(field), Some(value), "{field}");
    }
    assert!(!format!("{span:?}").contains("secret"), "the server repeats what it was sent");
}

#[test]
fn a_text_is_told_without_its_values_and_only_if_asked_for() {
    let secret = "SELECT name FROM app.users WHERE id = 'secret'";
    let told = |text| {
        let layer = TelemetryLayer::builder().query_text(text).build().unwrap();
        let spans = spans(|| assert!(call(&mut layer.layer(answers()), Request::text(secret)).is_ready()));
        (spans[0].of("db.query.text").map(str::to_owned), format!("{spans:?}").contains("secret"))
    };
    assert_eq!(told(QueryText::Off), (None, false));
    let without = "SELECT name FROM app.users WHERE id = ?".to_owned();
    assert_eq!(told(QueryText::WithoutLiterals), (Some(without), false));
    assert_eq!(told(QueryText::WithLiterals), (Some(secret.to_owned()), true));
}

/// Notes in which span it is used and dropped.
struct Goodbye(Arc<Mutex<Vec<Option<&'static str>>>>);

impl Goodbye {
    fn note(&self) {
        let name = tracing::Span::current().metadata().map(tracing::Metadata::name);
        self.0.lock().unwrap().push(name);
    }
}

impl Drop for Goodbye {
    fn drop(&mut self) {
        self.note();
    }
}

#[test]
fn what_happens_below_is_in_the_span() {
    let layer = TelemetryLayer::new();
    let inside = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&inside);
    let noting = service_fn(move |_: Request| {
        let goodbye = Goodbye(Arc::clone(&noted));
        goodbye.note();
        async move {
            goodbye.note();
            pending::<Result<Response, Error>>().await
        }
    });
    let spans = spans(|| assert!(call(&mut layer.layer(noting), Request::text(SELECT)).is_pending()));
    assert_eq!(*inside.lock().unwrap(), [Some("cassandra.operation"); 3], "called, polled, dropped");
    assert_eq!(spans.len(), 1);
}

#[test]
fn a_span_tells_of_the_datacenter_that_a_failover_below_went_to() {
    let layer = TelemetryLayer::new();
    let elsewhere = service_fn(|_: Request| {
        tracing::Span::current().record("cassandra.failover.datacenter", "dc2");
        ready(Ok::<_, Error>(Response::default()))
    });
    let spans = spans(|| assert!(call(&mut layer.layer(elsewhere), Request::text(SELECT)).is_ready()));
    assert_eq!(spans[0].of("cassandra.failover.datacenter"), Some("dc2"));
}

#[test]
fn copies_of_a_request_share_what_they_are_called() {
    let request = Request::text("INSERT INTO Users (k) VALUES (1)");
    assert!(std::ptr::eq(request.operation(), request.clone().operation()));
    assert_eq!(request.operation().summary(), "INSERT users");
    let name = OperationName::of_text(&analyze("INSERT INTO Users (k) VALUES (1)"), Some("app"));
    assert_eq!(name.summary(), "INSERT app.users");
}
