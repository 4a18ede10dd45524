use std::{
    collections::HashMap,
    fmt::Write as _,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use metrics_util::debugging::DebuggingRecorder;
use palisade::{Budget, DeadlineLayer, HasDeadline, Idempotence, Instant, Rejection, TimeoutScope};
use scylla::{
    errors::ExecutionError,
    statement::{Consistency, SerialConsistency},
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tracing::{
    Event, Instrument, Level, Subscriber,
    field::{Field, Visit},
    span::{Id, Record},
};
use tracing_subscriber::layer::SubscriberExt;

use super::{
    DatacenterState, Failover, FailoverLayer,
    datacenters::{Datacenter, Source},
    local_levels,
    shared::Shared,
    state::{Rules, State},
};
use crate::{
    error::{Error, ErrorKind},
    request::Request,
};

const RULES: Rules =
    Rules { failures: 3, back_after: Duration::from_secs(3_600), ramp: Duration::ZERO, hold: Duration::ZERO };

/// A cluster that is as a test says.
#[derive(Clone, Default)]
struct Said {
    down: Arc<Mutex<Vec<usize>>>,
}

const DATACENTERS: [&str; 3] = ["dc1", "dc2", "dc3"];

impl Source for Said {
    fn consistency(&self) -> Consistency {
        Consistency::LocalQuorum
    }

    fn keyspace(&self) -> Option<String> {
        Some("of_session".to_owned())
    }

    fn has_replicas(&self, keyspace: &str, datacenter: &str) -> bool {
        match keyspace {
            "home" => datacenter == "dc1",
            "far" => datacenter != "dc2",
            _ => true,
        }
    }

    fn can_serve(&self, _: usize) -> Vec<bool> {
        let down = self.down.lock().unwrap();
        (0..DATACENTERS.len()).map(|index| !down.contains(&index)).collect()
    }
}

/// What reached the service below: to which datacenter, at which level.
type Call = (Option<String>, Option<Consistency>);

/// What a datacenter does with a call, if it does not answer it.
#[derive(Clone, Copy)]
enum Script {
    Fail(fn() -> Error),
    Hang,
}

#[derive(Clone)]
struct Leaf {
    calls: Arc<Mutex<Vec<Call>>>,
    fails: Arc<Mutex<HashMap<&'static str, Script>>>,
}

impl Service<Request> for Leaf {
    type Response = ();
    type Error = Error;
    type Future = futures::Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let name = request.datacenter().map(ToString::to_string);
        let script = self.fails.lock().unwrap().get(name.as_deref().unwrap_or("dc1")).copied();
        self.calls.lock().unwrap().push((name, request.consistency()));
        futures::Answer(match script {
            None => Some(Ok(())),
            Some(Script::Fail(error)) => Some(Err(error())),
            Some(Script::Hang) => None,
        })
    }
}

mod futures {
    use super::*;

    pub(super) struct Answer(pub(super) Option<Result<(), Error>>);

    impl Future for Answer {
        type Output = Result<(), Error>;

        fn poll(mut self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            self.0.take().map_or(Poll::Pending, Poll::Ready)
        }
    }
}

struct Bench {
    said: Said,
    shared: Arc<Shared>,
    layer: FailoverLayer,
    leaf: Leaf,
}

#[derive(Default)]
struct With {
    allow_serial: bool,
    names_local: bool,
    budget: Option<Budget>,
    rules: Option<Rules>,
}

fn bench(with: With) -> Bench {
    let mapping = |level| match level {
        Consistency::Quorum => Some(Consistency::LocalQuorum),
        other => local_levels(other),
    };
    let datacenters = DATACENTERS.iter().enumerate().map(|(index, name)| Datacenter {
        name: (*name).into(),
        mapping: (index > 0).then(|| Arc::new(mapping) as _),
    });
    let said = Said::default();
    let state = State::new(with.rules.unwrap_or(RULES), DATACENTERS.len());
    let shared = Arc::new(Shared::new(
        "failover",
        datacenters.collect(),
        Box::new(said.clone()),
        state,
        with.allow_serial,
        with.names_local,
        with.budget,
    ));
    shared.look();
    let leaf = Leaf { calls: Arc::default(), fails: Arc::default() };
    Bench { said, layer: FailoverLayer::new(Arc::clone(&shared)), shared, leaf }
}

impl Bench {
    fn down(&self, datacenters: &[usize]) {
        *self.said.down.lock().unwrap() = datacenters.to_vec();
        self.shared.look();
    }

    fn fails(&self, datacenter: &'static str, script: Script) {
        self.leaf.fails.lock().unwrap().insert(datacenter, script);
    }

    fn service(&self) -> Failover<Leaf> {
        self.layer.layer(self.leaf.clone())
    }

    async fn send(&self, request: Request) -> Result<(), Error> {
        self.service().oneshot(request).await
    }

    /// The datacenters that were asked since the last time.
    fn asked(&self) -> Vec<String> {
        let calls = std::mem::take(&mut *self.leaf.calls.lock().unwrap());
        calls.into_iter().map(|(name, _)| name.unwrap_or_else(|| "session".to_owned())).collect()
    }

    fn active(&self) -> String {
        self.layer.handle().active().to_string()
    }
}

fn read() -> Request {
    Request::text("SELECT v FROM ks.t WHERE k = 1")
}

fn count_up() -> Request {
    Request::text("UPDATE ks.t SET c = c + 1 WHERE k = 1")
}

fn unreachable() -> Error {
    ExecutionError::EmptyPlan.into()
}

fn timed_out() -> Error {
    Rejection::timed_out(TimeoutScope::Attempt, Duration::from_millis(300)).into()
}

#[tokio::test]
async fn while_the_local_datacenter_serves_requests_pass_as_they_are() {
    let bench = bench(With::default());
    bench.send(read()).await.unwrap();
    assert_eq!(*bench.leaf.calls.lock().unwrap(), [(None, None)]);
    let snapshot = bench.layer.handle().snapshot();
    assert_eq!((&*snapshot.active, snapshot.local_share, snapshot.switches), ("dc1", 1.0, 0));
    assert_eq!((snapshot.datacenters[0].requests, snapshot.datacenters[1].requests), (1, 0));
}

#[tokio::test]
async fn where_the_session_stays_in_no_datacenter_the_local_one_is_named() {
    let bench = bench(With { names_local: true, ..With::default() });
    bench.send(read()).await.unwrap();
    assert_eq!(bench.asked(), ["dc1"]);
}

#[tokio::test]
async fn when_it_cannot_serve_the_next_one_does_at_the_level_that_it_is_mapped_to() {
    let bench = bench(With::default());
    bench.down(&[0]);
    assert_eq!(bench.active(), "dc2");
    bench.send(read()).await.unwrap();
    bench.send(read().with_consistency(Consistency::LocalOne)).await.unwrap();
    bench.send(read().with_consistency(Consistency::Quorum)).await.unwrap();
    // What counts replicas everywhere, a change of the schema, and what names its own, are not led elsewhere.
    bench.send(read().with_consistency(Consistency::EachQuorum)).await.unwrap();
    bench.send(Request::text("CREATE TABLE ks.u (k int PRIMARY KEY)")).await.unwrap();
    bench.send(read().with_datacenter("dc3")).await.unwrap();
    bench.send(Request::prepare("SELECT v FROM ks.t")).await.unwrap();
    let dc2 = || Some("dc2".to_owned());
    assert_eq!(
        *bench.leaf.calls.lock().unwrap(),
        [
            (dc2(), None),
            (dc2(), Some(Consistency::LocalOne)),
            (dc2(), Some(Consistency::LocalQuorum)),
            (None, Some(Consistency::EachQuorum)),
            (None, None),
            (Some("dc3".to_owned()), None),
            (dc2(), None),
        ]
    );
    bench.down(&[0, 1]);
    assert_eq!(bench.active(), "dc3");
}

#[tokio::test]
async fn a_call_that_fails_is_sent_elsewhere_once_and_after_some_all_are() {
    let bench = bench(With::default());
    bench.fails("dc1", Script::Fail(unreachable));
    for _ in 0..3 {
        bench.send(read()).await.unwrap();
    }
    assert_eq!(bench.asked(), ["session", "dc2", "session", "dc2", "session", "dc2"]);
    assert_eq!(bench.active(), "dc2");
    bench.send(read()).await.unwrap();
    assert_eq!(bench.asked(), ["dc2"]);
    let snapshot = bench.layer.handle().snapshot();
    assert_eq!(snapshot.datacenters[0].state, DatacenterState::Failing);
    assert_eq!((snapshot.datacenters[1].requests, snapshot.datacenters[1].repeats), (4, 3));
    assert_eq!(snapshot.switches, 1);
}

#[tokio::test]
async fn where_both_fail_there_is_one_error_that_tells_of_both() {
    let bench = bench(With::default());
    bench.fails("dc1", Script::Fail(timed_out));
    bench.fails("dc2", Script::Fail(unreachable));
    let error = bench.send(read()).await.unwrap_err();
    assert_eq!(bench.asked(), ["session", "dc2"]);
    // Where something may have been done, the error must not say that nothing was.
    assert_eq!(error.kind(), ErrorKind::Timeout(TimeoutScope::Attempt));
    assert!(error.may_have_been_applied());
    assert!(error.to_string().contains("; then it failed in datacenter dc2: "), "{error}");

    bench.fails("dc2", Script::Fail(timed_out));
    bench.fails("dc1", Script::Fail(unreachable));
    let error = bench.send(read()).await.unwrap_err();
    assert!(error.may_have_been_applied());
    assert!(error.to_string().contains("; before that it failed in datacenter dc1: "), "{error}");
}

#[tokio::test]
async fn what_may_have_been_applied_is_sent_again_only_if_it_is_idempotent() {
    let bench = bench(With::default());
    bench.fails("dc1", Script::Fail(timed_out));
    let error = bench.send(count_up()).await.unwrap_err();
    assert_eq!(bench.asked(), ["session"]);
    assert!(error.to_string().contains("not sent to datacenter dc2: it may have been applied"), "{error}");
    bench.fails("dc1", Script::Fail(unreachable));
    bench.send(count_up()).await.unwrap();
    assert_eq!(bench.asked(), ["session", "dc2"]);
}

#[tokio::test]
async fn serial_work_stays_unless_it_is_allowed_to_go() {
    let transaction = || Request::text("UPDATE ks.t SET v = 1 WHERE k = 1 IF v = 0");
    let serial_read = || read().with_consistency(Consistency::LocalSerial);
    let bench_of = |allow_serial| {
        let bench = bench(With { allow_serial, ..With::default() });
        bench.fails("dc1", Script::Fail(unreachable));
        bench
    };
    let bench = bench_of(false);
    for request in [transaction(), serial_read()] {
        for _ in 0..5 {
            let error = bench.send(request.clone()).await.unwrap_err();
            assert!(error.to_string().contains("`allow_serial`"), "{error}");
        }
    }
    assert!(bench.asked().iter().all(|asked| asked == "session"));
    assert_eq!(bench.active(), "dc1", "what cannot go elsewhere is no reason to");
    bench.down(&[0]);
    bench.send(transaction()).await.unwrap_err();
    assert_eq!(bench.asked(), ["session"]);

    let bench = bench_of(true);
    bench.send(transaction().with_serial_consistency(SerialConsistency::LocalSerial)).await.unwrap();
    bench.send(serial_read()).await.unwrap();
    assert_eq!(bench.asked(), ["session", "dc2", "session", "dc2"]);
}

#[tokio::test]
async fn an_error_says_why_a_call_was_not_sent_elsewhere() {
    let bench = bench(With::default());
    bench.fails("dc1", Script::Fail(unreachable));
    let error = bench.send(read().with_consistency(Consistency::All)).await.unwrap_err();
    assert!(error.to_string().contains("consistency All is not mapped there"), "{error}");
    let error = bench.send(Request::text("TRUNCATE ks.t")).await.unwrap_err();
    assert!(error.to_string().contains("a statement of kind truncate concerns all datacenters"), "{error}");
    // A mistake of the caller's is the same everywhere.
    bench.fails("dc1", Script::Fail(|| Error::caller(ErrorKind::Syntax, "mend it")));
    assert_eq!(bench.send(read()).await.unwrap_err().to_string(), "mend it");
}

#[tokio::test]
async fn a_keyspace_without_replicas_elsewhere_is_served_locally_whatever_happens() {
    let bench = bench(With::default());
    bench.down(&[0]);
    let home = || Request::text("SELECT v FROM home.t WHERE k = 1");
    bench.send(home()).await.unwrap();
    assert_eq!(bench.asked(), ["session"]);
    bench.fails("dc1", Script::Fail(unreachable));
    let error = bench.send(home()).await.unwrap_err();
    assert_eq!(bench.asked(), ["session"]);
    assert!(error.to_string().contains("keyspace home has no replicas there; add them"), "{error}");
    bench.send(Request::text("SELECT v FROM t WHERE k = 1")).await.unwrap();
    assert_eq!(bench.asked(), ["dc2"]);
}

#[tokio::test]
async fn a_batch_goes_only_where_the_keyspaces_of_all_its_members_have_replicas() {
    let bench = bench(With::default());
    bench.down(&[0]);
    let batch = |keyspaces: [&str; 2]| {
        let [one, other] =
            keyspaces.map(|keyspace| format!("INSERT INTO {keyspace}.t (k, v) VALUES (1, 1);"));
        Request::text(format!("BEGIN BATCH {one} {other} APPLY BATCH"))
    };
    bench.send(batch(["ks", "other"])).await.unwrap();
    assert_eq!(bench.asked(), ["dc2"]);
    bench.send(batch(["ks", "far"])).await.unwrap();
    assert_eq!(bench.asked(), ["dc3"]);
    bench.fails("dc1", Script::Fail(unreachable));
    for keyspaces in [["ks", "home"], ["home", "ks"]] {
        let error = bench.send(batch(keyspaces)).await.unwrap_err();
        assert_eq!(bench.asked(), ["session"], "{keyspaces:?}");
        assert!(error.to_string().contains("keyspace home has no replicas there"), "{error}");
    }
}

#[tokio::test]
async fn what_the_active_datacenter_has_no_replicas_of_is_served_by_another_that_has() {
    let bench = bench(With::default());
    let far = || Request::text("SELECT v FROM far.t WHERE k = 1");
    bench.fails("dc1", Script::Fail(unreachable));
    bench.send(far()).await.unwrap();
    assert_eq!(bench.asked(), ["session", "dc3"]);
    bench.down(&[0]);
    assert_eq!(bench.active(), "dc2");
    bench.send(far()).await.unwrap();
    assert_eq!(bench.asked(), ["dc3"]);
    // What is held is held, and what is well again comes first.
    bench.layer.handle().hold("dc2").unwrap();
    bench.send(far()).await.unwrap_err();
    assert_eq!(bench.asked(), ["session"]);
    bench.layer.handle().release();
    bench.leaf.fails.lock().unwrap().clear();
    bench.down(&[]);
    assert_eq!(bench.active(), "dc2");
    bench.send(far()).await.unwrap();
    assert_eq!(bench.asked(), ["session"]);
}

#[tokio::test]
async fn a_datacenter_of_which_a_health_layer_says_that_it_cannot_serve_is_left() {
    let budget = Budget::builder().ratio(0.0).reserve_per_second(0.0).burst(1).build().unwrap();
    let bench = bench(With { budget: Some(budget), ..With::default() });
    bench.fails("dc1", Script::Fail(|| Error::unservable("no replica is up")));
    for _ in 0..3 {
        let _ = bench.send(read()).await;
    }
    assert_eq!(bench.active(), "dc2");
    bench.send(read()).await.unwrap();
}

#[tokio::test]
async fn an_exhausted_budget_allows_no_repeat() {
    let budget = Budget::builder().ratio(0.0).reserve_per_second(0.0).burst(1).build().unwrap();
    let bench = bench(With { budget: Some(budget), ..With::default() });
    bench.fails("dc1", Script::Fail(unreachable));
    bench.send(read()).await.unwrap();
    let error = bench.send(read()).await.unwrap_err();
    assert!(error.to_string().contains("the budget for repeats is exhausted"), "{error}");
    // But it counted, so that soon there is nothing to repeat.
    bench.send(read()).await.unwrap_err();
    bench.send(read()).await.unwrap();
    assert_eq!(bench.asked().last().unwrap(), "dc2");
}

#[tokio::test]
async fn calls_that_hang_until_their_deadline_count_though_they_are_dropped() {
    let bench = bench(With::default());
    bench.fails("dc1", Script::Hang);
    let service =
        ServiceBuilder::new().layer(DeadlineLayer::new(Duration::from_millis(20))).service(bench.service());
    for _ in 0..3 {
        assert_eq!(bench.active(), "dc1");
        let error = service.clone().oneshot(read()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout(TimeoutScope::Total));
    }
    assert_eq!(bench.active(), "dc2");
    service.clone().oneshot(read()).await.unwrap();
}

#[tokio::test]
async fn a_caller_who_is_impatient_tells_nothing() {
    let bench = bench(With::default());
    bench.fails("dc1", Script::Hang);
    let mut request = read();
    request.shorten_deadline(Instant::now() + Duration::from_secs(60));
    for _ in 0..10 {
        let mut call = Box::pin(bench.send(request.clone()));
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert_eq!(bench.active(), "dc1");
}

#[tokio::test]
async fn a_local_datacenter_that_is_back_is_tried_with_what_can_be_repeated() {
    let rules = Rules {
        back_after: Duration::from_millis(1),
        ramp: Duration::from_secs(3_600),
        failures: 1_000,
        ..RULES
    };
    let bench = bench(With { rules: Some(rules), ..With::default() });
    bench.down(&[0]);
    bench.down(&[]);
    tokio::time::sleep(Duration::from_millis(5)).await;
    bench.shared.look();
    assert_eq!((&*bench.active(), bench.layer.handle().snapshot().local_share), ("dc2", 0.05));
    bench.fails("dc1", Script::Fail(unreachable));
    for _ in 0..1_000 {
        bench.send(read()).await.unwrap();
        bench.send(count_up().with_idempotence(Idempotence::Unknown)).await.unwrap();
    }
    let asked = bench.asked();
    let trials = asked.iter().filter(|asked| *asked == "session").count();
    assert!((10..=120).contains(&trials), "{trials} of 1,000 idempotent ones");
    assert_eq!(asked.len(), 2_000 + trials, "each failed trial was answered by the other");
}

#[tokio::test]
async fn an_operator_holds_one_releases_it_and_switches_it_off() {
    let bench = bench(With::default());
    let handle = bench.layer.handle();
    let error = handle.hold("dc9").unwrap_err().to_string();
    assert_eq!(error, "`datacenter` is \"dc9\", which is none of this layer's: it has dc1, dc2, dc3");
    handle.hold("dc3").unwrap();
    bench.fails("dc3", Script::Fail(unreachable));
    bench.send(read()).await.unwrap_err();
    assert_eq!(bench.asked(), ["dc3"]);
    assert_eq!(handle.snapshot().held.as_deref(), Some("dc3"));
    handle.set_enabled(false);
    handle.release();
    bench.down(&[0]);
    bench.send(read()).await.unwrap();
    assert_eq!(bench.asked(), ["session"]);
    assert!(!handle.snapshot().is_enabled);
    handle.set_enabled(true);
    assert_eq!(&*handle.active(), "dc2");
}

/// What is told to operators: events with their level and message, fields of spans, and metrics.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> tracing_subscriber::Layer<S> for Told {
    fn on_event(&self, event: &Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if *event.metadata().level() <= Level::INFO {
            self.0.lock().unwrap().push(format!("{} {}", event.metadata().level(), fields.0));
        }
    }

    fn on_record(&self, _: &Id, values: &Record<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }
}

#[derive(Default)]
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if ["message", "to", "cassandra.failover.datacenter"].contains(&field.name()) {
            let _ = write!(self.0, "{}={value:?} ", field.name());
        }
    }
}

#[tokio::test]
async fn each_switch_is_told_once_and_the_span_of_a_call_says_who_served_it() {
    let told = Told::default();
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(told.clone()));
    let recorder = DebuggingRecorder::new();
    let rules = Rules { back_after: Duration::from_millis(1), ..RULES };
    let bench = metrics::with_local_recorder(&recorder, || {
        let bench = bench(With { rules: Some(rules), ..With::default() });
        bench.down(&[0]);
        (0..5).for_each(|_| bench.shared.look());
        bench
    });
    let span = tracing::info_span!("call", cassandra.failover.datacenter = tracing::field::Empty);
    bench.send(read()).instrument(span).await.unwrap();
    bench.down(&[]);
    tokio::time::sleep(Duration::from_millis(5)).await;
    metrics::with_local_recorder(&recorder, || (0..5).for_each(|_| bench.shared.look()));
    drop(guard);
    assert_eq!(
        *told.0.lock().unwrap(),
        [
            "WARN message=another datacenter serves to=\"dc2\" ",
            "cassandra.failover.datacenter=\"dc2\" ",
            "INFO message=the local datacenter serves again to=\"dc1\" ",
        ]
    );
    let mut metrics: Vec<_> = recorder
        .snapshotter()
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let labels: Vec<_> = key.key().labels().map(metrics::Label::value).collect();
            format!("{} {} {value:?}", key.key().name(), labels.join(" "))
        })
        .collect();
    metrics.sort();
    assert_eq!(
        metrics,
        [
            "tower_cassandra_failover_active failover dc1 Gauge(1.0)",
            "tower_cassandra_failover_active failover dc2 Gauge(0.0)",
            "tower_cassandra_failover_active failover dc3 Gauge(0.0)",
            "tower_cassandra_failovers_total failover dc1 dc2 Counter(1)",
            "tower_cassandra_failovers_total failover dc2 dc1 Counter(1)",
        ]
    );
}

/// Is ready at the second time of asking, and panics if called before.
#[derive(Debug, Default)]
struct Unready(bool);

impl Clone for Unready {
    fn clone(&self) -> Self {
        Self(false)
    }
}

impl Service<Request> for Unready {
    type Response = ();
    type Error = Error;
    type Future = Ready<Result<(), Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, request: Request) -> Self::Future {
        assert!(std::mem::take(&mut self.0), "called without having been ready");
        ready(match request.datacenter() {
            None => Err(unreachable()),
            Some(_) => Ok(()),
        })
    }
}

#[tokio::test]
async fn a_repeat_waits_until_its_own_service_is_ready() {
    let bench = bench(With::default());
    let mut service = bench.layer.layer(Unready::default());
    service.ready().await.unwrap().call(read()).await.unwrap();
    assert_eq!(bench.layer.handle().snapshot().datacenters[1].repeats, 1);
}

#[derive(Clone)]
struct Instantly;

impl Service<Request> for Instantly {
    type Response = ();
    type Error = Error;
    type Future = Ready<Result<(), Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        ready(Ok(()))
    }
}

#[test]
fn while_the_local_datacenter_serves_a_call_allocates_nothing() {
    let bench = bench(With::default());
    let mut service = bench.layer.layer(Instantly);
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = |request| {
        assert!(service.poll_ready(&mut cx).is_ready());
        assert!(std::pin::pin!(service.call(request)).poll(&mut cx).is_ready());
    };
    call(read());
    let request = read();
    let info = allocation_counter::measure(|| call(request.clone()));
    assert_eq!(info.count_total, 0);
}

#[tokio::test]
async fn what_watches_the_cluster_ends_with_the_layer_and_notices_changes_before_that() {
    let bench = bench(With::default());
    let (sender, changes) = tokio::sync::watch::channel(0);
    let every = Duration::from_millis(10);
    let watching = tokio::spawn(super::shared::watch(Arc::downgrade(&bench.shared), every, changes));
    *bench.said.down.lock().unwrap() = vec![0];
    let waited = Instant::now();
    while bench.active() != "dc2" {
        assert!(waited.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop((bench, sender));
    tokio::time::timeout(Duration::from_secs(10), watching).await.unwrap().unwrap();
}
