use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use palisade::{
    Class, RetryLayer, TimeoutLayer, TraceLayer, classify_fn,
    testkit::{AMBIGUOUS, CALLER, Error, Leaf, Request, Step, idempotent, run_paused},
};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tracing::{
    Level, Subscriber,
    field::{Empty, Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Registry,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

const SECOND: Duration = Duration::from_secs(1);

/// A span that has been closed.
#[derive(Clone, Debug, Default)]
struct Seen {
    name: &'static str,
    target: &'static str,
    level: Option<Level>,
    parent: Option<&'static str>,
    fields: BTreeMap<&'static str, String>,
    entered: usize,
}

impl Seen {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

#[derive(Clone)]
struct Watcher {
    closed: Arc<Mutex<Vec<Seen>>>,
    most: Level,
}

impl<S> tracing_subscriber::Layer<S> for Watcher
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= self.most
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let mut seen = Seen {
            name: span.name(),
            target: span.metadata().target(),
            level: Some(*span.metadata().level()),
            parent: span.parent().map(|parent| parent.name()),
            ..Seen::default()
        };
        attributes.record(&mut seen);
        span.extensions_mut().insert(seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        values.record(span.extensions_mut().get_mut::<Seen>().unwrap());
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        span.extensions_mut().get_mut::<Seen>().unwrap().entered += 1;
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        let seen = span.extensions_mut().remove::<Seen>().unwrap();
        self.closed.lock().unwrap().push(seen);
    }
}

/// The spans of a test, in the order in which they were closed.
fn spans_up_to(most: Level, test: impl Future<Output = ()>) -> Vec<Seen> {
    let watcher = Watcher { closed: Arc::default(), most };
    let closed = Arc::clone(&watcher.closed);
    tracing::subscriber::with_default(Registry::default().with(watcher), || run_paused(test));
    let closed = closed.lock().unwrap();
    closed.iter().filter(|span| span.field("layer").is_some() || span.target == "own").cloned().collect()
}

fn spans(test: impl Future<Output = ()>) -> Vec<Seen> {
    spans_up_to(Level::TRACE, test)
}

#[test]
fn a_call_that_succeeds_is_a_span_with_its_outcome_and_its_time() {
    let spans = spans(async {
        let layer = TraceLayer::call().named("users");
        layer.layer(Leaf::new([Step::AnswerAfter(SECOND)])).oneshot(Request::new(7)).await.unwrap();
    });
    let [span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((span.name, span.target, span.level), ("call", "palisade", Some(Level::INFO)));
    assert_eq!(span.field("layer"), Some("users"));
    assert_eq!(span.field("outcome"), Some("success"));
    assert_eq!(span.field("elapsed_ms"), Some("1000.0"));
    assert_eq!((span.field("fault"), span.field("error")), (None, None));
    // In `call`, at two polls, and when the future was dropped.
    assert_eq!(span.entered, 4);
}

#[test]
fn a_call_that_fails_says_where_the_trouble_lies_and_what_it_was() {
    let spans = spans(async {
        let layer = TraceLayer::attempt().level(Level::WARN);
        layer.layer(Leaf::new([Step::Fail(CALLER)])).oneshot(Request::new(7)).await.unwrap_err();
    });
    let [span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((span.name, span.level), ("attempt", Some(Level::WARN)));
    assert_eq!(span.field("outcome"), Some("failure"));
    assert_eq!(span.field("fault"), Some("caller"));
    assert_eq!(span.field("error"), Some("call 1 failed: caller"));
}

#[test]
fn the_attempts_of_a_call_are_found_under_it() {
    let spans = spans(async {
        let service = ServiceBuilder::new()
            .layer(TraceLayer::call())
            .layer(RetryLayer::default())
            .layer(TraceLayer::attempt())
            .service(Leaf::new([Step::Fail(AMBIGUOUS), Step::AnswerAfter(SECOND)]));
        service.oneshot(idempotent(7)).await.unwrap();
    });
    let told: Vec<_> =
        spans.iter().map(|span| (span.name, span.parent, span.field("outcome").unwrap())).collect();
    assert_eq!(
        told,
        [
            ("attempt", Some("call"), "failure"),
            ("attempt", Some("call"), "success"),
            ("call", None, "success"),
        ]
    );
}

#[test]
fn a_call_that_is_dropped_or_panics_says_so() {
    let spans = spans(async {
        let cancelled = TimeoutLayer::new(SECOND).layer(TraceLayer::call().layer(Leaf::new([Step::Hang])));
        cancelled.oneshot(Request::new(7)).await.unwrap_err();
        let panicking = TraceLayer::call().layer(Leaf::new([Step::Panic])).oneshot(Request::new(7));
        assert!(tokio::spawn(panicking).await.is_err());
    });
    let told: Vec<_> = spans
        .iter()
        .map(|span| (span.field("outcome").unwrap(), span.field("elapsed_ms").unwrap()))
        .collect();
    assert_eq!(told, [("cancelled", "1000.0"), ("panicked", "0.0")]);
}

/// Exporters take the close of a span for the end of the call.
#[test]
fn a_span_ends_with_its_call_and_not_when_the_future_is_dropped() {
    let watcher = Watcher { closed: Arc::default(), most: Level::TRACE };
    let closed = Arc::clone(&watcher.closed);
    tracing::subscriber::with_default(Registry::default().with(watcher), || {
        run_paused(async {
            let mut call =
                Box::pin(TraceLayer::call().layer(Leaf::new([Step::Answer])).oneshot(Request::new(7)));
            assert_eq!(call.as_mut().await, Ok(7));
            assert_eq!(closed.lock().unwrap().len(), 1);
            drop(call);
        });
    });
}

#[test]
fn a_classifier_that_panics_leaves_an_outcome() {
    let panics = classify_fn(|_: Result<&u32, &Error>| -> Class { panic!("a classifier's own trouble") });
    let spans = spans(async {
        let service = TraceLayer::call().classifier(panics).layer(Leaf::new([Step::Answer]));
        assert!(tokio::spawn(service.oneshot(Request::new(7))).await.is_err());
    });
    assert_eq!(spans[0].field("outcome"), Some("panicked"));
}

#[test]
fn what_the_inner_future_does_when_it_is_dropped_is_in_the_span() {
    struct Goodbye(Arc<Mutex<Option<&'static str>>>);
    impl Drop for Goodbye {
        fn drop(&mut self) {
            *self.0.lock().unwrap() = tracing::Span::current().metadata().map(tracing::Metadata::name);
        }
    }
    let inside = Arc::new(Mutex::new(None));
    let goodbye = Arc::clone(&inside);
    let _ = spans(async move {
        let service = TraceLayer::call().layer(service_fn(move |_: Request| {
            let goodbye = Goodbye(Arc::clone(&goodbye));
            async move {
                let _goodbye = goodbye;
                std::future::pending::<Result<u32, Error>>().await
            }
        }));
        assert!(tokio::time::timeout(SECOND, service.oneshot(Request::new(7))).await.is_err());
    });
    assert_eq!(*inside.lock().unwrap(), Some("call"));
}

#[test]
fn a_span_of_ones_own_gets_the_fields_that_it_declares() {
    let spans = spans(async {
        let layer = TraceLayer::call().make_span(|request: &Request| {
            tracing::info_span!(target: "own", "users", number = **request, outcome = Empty)
        });
        layer.layer(Leaf::new([])).oneshot(Request::new(7)).await.unwrap();
    });
    let [span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(
        (span.name, span.field("number"), span.field("outcome")),
        ("users", Some("7"), Some("success"))
    );
    assert_eq!(span.field("elapsed_ms"), None);
}

#[test]
fn an_answer_can_be_a_failure_without_an_error() {
    let spans = spans(async {
        let bad = classify_fn(|_: Result<&u32, &Error>| -> Class { AMBIGUOUS });
        TraceLayer::call().classifier(bad).layer(Leaf::new([])).oneshot(Request::new(7)).await.unwrap();
    });
    let [span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((span.field("outcome"), span.field("fault")), (Some("failure"), Some("server")));
    assert_eq!(span.field("error"), None);
}

/// Nobody reads the clock, asks the classifier or makes a text for a span that is filtered out.
#[test]
fn a_span_that_nobody_wants_costs_no_work() {
    let asked = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&asked);
    let spans = spans_up_to(Level::INFO, async move {
        let classifier = classify_fn(move |_: Result<&u32, &Error>| {
            *counted.lock().unwrap() += 1;
            Class::SUCCESS
        });
        let layer = TraceLayer::attempt().classifier(classifier);
        layer.layer(Leaf::new([])).oneshot(Request::new(7)).await.unwrap();
    });
    assert!(spans.is_empty());
    assert_eq!(*asked.lock().unwrap(), 0);
}
