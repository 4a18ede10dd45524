//! The stack over services that follow a script. What it does with a cluster is in `tests/it`.

use std::{
    future::{pending, ready},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use palisade::{Rejection, TimeoutScope, breaker};
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use tower::{Service, layer::layer_fn, service_fn};

use super::*;
use crate::ErrorKind;

const QUERY: &str = "SELECT a FROM t WHERE k = 1";

/// Turns a part on or off.
type Switch = fn(&mut StackConfig, bool);

const PARTS: [(&str, Switch); 13] = [
    ("telemetry", |config, on| config.telemetry.enabled = on),
    ("health", |config, on| config.health.enabled = on),
    ("drain", |config, on| config.drain.enabled = on),
    ("deadline", |config, on| config.deadline.enabled = on),
    ("rate", |config, on| config.rate.enabled = on),
    ("concurrency", |config, on| config.concurrency.enabled = on),
    ("coalesce", |config, on| config.coalesce.enabled = on),
    ("retry", |config, on| config.retry.enabled = on),
    ("hedge", |config, on| config.hedge.enabled = on),
    ("breaker", |config, on| config.breaker.enabled = on),
    ("throttle", |config, on| config.throttle.enabled = on),
    ("adaptive", |config, on| config.adaptive.enabled = on),
    ("attempt_timeout", |config, on| config.attempt_timeout.enabled = on),
];

fn all(on: bool) -> StackConfig {
    let mut config = StackConfig::default();
    for (_, switch) in PARTS {
        switch(&mut config, on);
    }
    config
}

type Outcome = Result<Response, Error>;
type Answer = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A leaf that answers its calls, which are counted from zero, as the script says.
fn leaf(
    script: impl Fn(u32) -> Answer + Clone + Send + Sync + 'static,
) -> (
    impl Service<Request, Response = Response, Error = Error, Future = Answer> + Clone + Send + Sync,
    Arc<AtomicU32>,
) {
    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    (service_fn(move |_: Request| script(count.fetch_add(1, SeqCst))), calls)
}

fn well() -> Answer {
    Box::pin(ready(Ok(Response::default())))
}

fn down() -> Answer {
    Box::pin(ready(Err(Error::unconnected("down"))))
}

fn overloaded() -> Answer {
    let error = RequestAttemptError::DbError(DbError::Overloaded, String::new());
    Box::pin(ready(Err(ExecutionError::LastAttemptError(error).into())))
}

fn hangs() -> Answer {
    Box::pin(pending())
}

fn rejection(outcome: Outcome) -> Rejection {
    let error = outcome.unwrap_err();
    error.rejection().unwrap_or_else(|| panic!("no refusal: {error}"))
}

fn stack(
    config: StackConfig,
    script: impl Fn(u32) -> Answer + Clone + Send + Sync + 'static,
) -> (StandardStack, Arc<AtomicU32>) {
    let (leaf, calls) = leaf(script);
    (StandardStack::over(leaf, config).unwrap(), calls)
}

#[tokio::test]
async fn every_part_can_be_left_out_and_none_is_in_the_way() {
    let serves = async |name: &str, config: StackConfig| {
        let (stack, calls) = stack(config, |_| well());
        for _ in 0..3 {
            stack.client().query(QUERY).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert_eq!(calls.load(SeqCst), 3, "{name}");
    };
    serves("all", all(true)).await;
    serves("none", all(false)).await;
    for (name, switch) in PARTS {
        for others in [true, false] {
            let mut config = all(others);
            switch(&mut config, !others);
            serves(name, config).await;
        }
    }
    for preset in [StackConfig::default(), StackConfig::interactive(), StackConfig::batch()] {
        serves("preset", preset).await;
    }
}

#[tokio::test]
async fn a_part_that_is_left_out_has_no_handle() {
    let has = |config: StackConfig| {
        let handles = stack(config, |_| well()).0.handles().clone();
        [
            handles.rate.is_some(),
            handles.concurrency.is_some(),
            handles.coalesce.is_some(),
            handles.hedge.is_some(),
            handles.breaker.is_some(),
            handles.throttle.is_some(),
            handles.shed.is_some(),
            handles.adaptive.is_some(),
            handles.snapshot().deadline_seconds.is_some(),
            handles.snapshot().attempt_timeout_seconds.is_some(),
        ]
    };
    assert_eq!(has(all(true)), [true; 10]);
    assert_eq!(has(all(false)), [false; 10]);
}

#[tokio::test]
async fn a_failure_is_repeated_within_the_budget() {
    let (stack, calls) = stack(StackConfig::default(), |call| if call == 0 { down() } else { well() });
    stack.client().query(QUERY).await.unwrap();
    assert_eq!(calls.load(SeqCst), 2);
    assert_eq!(stack.handles().snapshot().budget.granted, 1);
}

#[tokio::test]
async fn an_attempt_that_hangs_leaves_time_for_another() {
    let mut config = StackConfig::default();
    config.attempt_timeout.limit = Duration::from_millis(20);
    let (stack, calls) = stack(config, |call| if call == 0 { hangs() } else { well() });
    stack.client().query(QUERY).await.unwrap();
    assert_eq!(calls.load(SeqCst), 2);
}

#[tokio::test]
async fn a_preparation_that_hangs_leaves_time_for_another_whatever_the_preset() {
    for config in [StackConfig::default(), StackConfig::interactive()] {
        let (stack, calls) = stack(config, |call| if call == 0 { hangs() } else { well() });
        let mut stack = stack.client().stack().clone();
        stack.call(Request::prepare(QUERY)).await.unwrap();
        assert_eq!(calls.load(SeqCst), 2);
    }
}

#[tokio::test]
async fn a_late_attempt_is_hedged_before_it_times_out() {
    let mut config = StackConfig::default();
    config.hedge.fixed_delay = Some(Duration::from_millis(5));
    let (stack, calls) = stack(config, |call| if call == 0 { hangs() } else { well() });
    stack.client().query(QUERY).await.unwrap();
    assert_eq!(calls.load(SeqCst), 2);
    let snapshot = stack.handles().snapshot();
    assert_eq!((snapshot.hedge.unwrap().granted, snapshot.budget.granted), (1, 1));
}

#[tokio::test]
async fn the_deadline_ends_a_call_whatever_its_attempts_do() {
    let mut config = StackConfig::default();
    // Far enough apart for a machine that is busy.
    config.deadline.limit = Duration::from_millis(500);
    config.attempt_timeout.limit = Duration::from_millis(300);
    let (stack, _) = stack(config, |_| hangs());
    let outcome = stack.client().query(QUERY).await;
    assert!(matches!(rejection(outcome), Rejection::TimedOut { scope: TimeoutScope::Total, .. }));
}

#[tokio::test]
async fn timed_out_attempts_open_the_circuit_which_is_not_repeated() {
    let mut config = StackConfig::default();
    config.attempt_timeout.limit = Duration::from_millis(2);
    config.retry.enabled = false;
    let (stack, calls) = stack(config, |_| hangs());
    for _ in 0..20 {
        let outcome = stack.client().query(QUERY).await;
        assert!(matches!(rejection(outcome), Rejection::TimedOut { scope: TimeoutScope::Attempt, .. }));
    }
    assert!(matches!(rejection(stack.client().query(QUERY).await), Rejection::CircuitOpen { .. }));
    assert_eq!(calls.load(SeqCst), 20);
    assert_eq!(stack.handles().snapshot().breaker.unwrap().state, "open");
}

#[tokio::test]
async fn calls_for_which_no_node_has_a_connection_leave_the_circuit_closed() {
    let mut config = StackConfig::default();
    config.retry.enabled = false;
    let (stack, calls) = stack(config, |_| Box::pin(ready(Err(ExecutionError::EmptyPlan.into()))));
    for _ in 0..50 {
        let error = stack.client().query(QUERY).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
    }
    assert_eq!(calls.load(SeqCst), 50);
    assert_eq!(stack.handles().snapshot().breaker.unwrap().state, "closed");
}

#[tokio::test]
async fn overload_is_for_the_throttle_and_not_for_the_circuit() {
    let mut config = StackConfig::default();
    config.retry.enabled = false;
    config.throttle.min_passes_per_second = 0.0;
    let (stack, calls) = stack(config, |_| overloaded());
    let mut throttled = 0;
    for _ in 0..100 {
        throttled += u32::from(matches!(
            stack.client().query(QUERY).await.unwrap_err().rejection(),
            Some(Rejection::Throttled { .. })
        ));
    }
    assert!(throttled > 50, "{throttled}");
    assert_eq!(calls.load(SeqCst) + throttled, 100);
    assert_eq!(stack.handles().breaker.as_ref().unwrap().state(), breaker::CircuitState::Closed);
    let snapshot = stack.handles().snapshot().throttle.unwrap();
    assert_eq!((snapshot.len(), snapshot[0].priority), (1, "normal"));
}

/// Where each of several parts would refuse a call, the one further out does.
#[tokio::test]
async fn the_parts_are_in_the_order_of_the_docs() {
    let refused = async |leave_out: &[Switch], opens: bool, drains: bool| {
        let mut config = all(true);
        config.coalesce.enabled = false; // the calls are for the same
        config.rate.per_second = 1;
        config.rate.max_wait = Duration::ZERO;
        config.concurrency.limit = 1;
        config.concurrency.max_waiting = 0;
        (config.adaptive.initial, config.adaptive.min, config.adaptive.max) = (1, 1, 1);
        config.shed.max_waiting = 0;
        for switch in leave_out {
            switch(&mut config, false);
        }
        let (stack, calls) = stack(config, |_| hangs());
        // It takes the only permit and the only place of each.
        let client = stack.client();
        let mut first = Box::pin(async move { client.query(QUERY).await });
        assert!((&mut first).now().is_none());
        if opens {
            stack.handles().breaker.as_ref().unwrap().set_mode(breaker::Mode::ForcedOpen);
        }
        if drains {
            stack.handles().drain.start();
        }
        let client = stack.client();
        let second = Box::pin(async move { client.query(QUERY).await }).now();
        assert_eq!(calls.load(SeqCst), 1);
        rejection(second.expect("a refusal takes no time"))
    };
    let rate: Switch = |config, on| config.rate.enabled = on;
    let concurrency: Switch = |config, on| config.concurrency.enabled = on;
    assert_eq!(refused(&[], true, true).await, Rejection::Draining);
    assert!(matches!(refused(&[], true, false).await, Rejection::RateLimited { .. }));
    assert_eq!(refused(&[rate], true, false).await, Rejection::ConcurrencyLimited);
    assert!(matches!(refused(&[rate, concurrency], true, false).await, Rejection::CircuitOpen { .. }));
    assert!(matches!(refused(&[rate, concurrency], false, false).await, Rejection::Shed { .. }));
}

#[tokio::test]
async fn a_drain_refuses_before_anything_else_and_ends_with_the_last_call() {
    let mut config = all(true);
    config.rate.per_second = 1;
    config.rate.max_wait = Duration::ZERO;
    config.deadline.limit = Duration::from_millis(600);
    let (stack, _) = stack(config, |_| hangs());
    let client = stack.client();
    let mut slow = Box::pin(async move { client.query(QUERY).await });
    assert!((&mut slow).now().is_none());
    let drain = &stack.handles().drain;
    drain.start();
    assert_eq!(rejection(stack.client().query(QUERY).await), Rejection::Draining);
    assert_eq!(stack.handles().snapshot().drain.phase, "draining");
    let (outcome, report) = tokio::join!(slow, drain.finish());
    assert!(outcome.is_err());
    assert!(report.finished, "{report:?}");
}

#[tokio::test]
async fn the_drain_of_a_process_can_be_used() {
    let drain = Drain::new();
    let (leaf, _) = leaf(|_| well());
    let stack = StandardStack::builder(StackConfig::default()).drain(drain.clone()).over(leaf).unwrap();
    drain.start();
    assert_eq!(rejection(stack.client().query(QUERY).await), Rejection::Draining);
}

#[tokio::test]
async fn layers_of_ones_own_stand_where_the_docs_say() {
    let seen = || Arc::new(AtomicU32::new(0));
    let counting = |seen: &Arc<AtomicU32>| {
        let seen = Arc::clone(seen);
        layer_fn(move |inner: BoxStack| {
            let seen = Arc::clone(&seen);
            service_fn(move |request: Request| {
                seen.fetch_add(1, SeqCst);
                let mut inner = inner.clone();
                async move { inner.call(request).await }
            })
        })
    };
    let (outside, repeats, attempts) = (seen(), seen(), seen());
    let mut config = StackConfig::default();
    config.concurrency.enabled = true;
    config.concurrency.limit = 1;
    config.concurrency.max_waiting = 0;
    let (leaf, calls) = leaf(|call| match call {
        0 | 1 => down(),
        2 => well(),
        _ => hangs(),
    });
    let stack = StandardStack::builder(config)
        .outside(counting(&outside))
        .around_repeats(counting(&repeats))
        .around_attempts(counting(&attempts))
        .over(leaf)
        .unwrap();
    stack.client().query(QUERY).await.unwrap();
    let figures = || [&outside, &repeats, &attempts, &calls].map(|count| count.load(SeqCst));
    assert_eq!(figures(), [1, 1, 3, 3]);
    // One takes the only place, and one is refused by the limit, which is inside of the outermost place only.
    let client = stack.client();
    let mut one = Box::pin(async move { client.query(QUERY).await });
    assert!((&mut one).now().is_none());
    assert_eq!(rejection(stack.client().query(QUERY).await), Rejection::ConcurrencyLimited);
    assert_eq!(figures(), [3, 2, 4, 4]);
    // What the circuit refuses has passed the place around attempts.
    drop(one);
    stack.handles().breaker.as_ref().unwrap().set_mode(breaker::Mode::ForcedOpen);
    assert!(stack.client().query(QUERY).await.is_err());
    assert_eq!(figures(), [4, 3, 5, 4]);
}

#[test]
fn the_first_layer_at_a_place_is_the_outermost() {
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noting = |name: &'static str| {
        let order = Arc::clone(&order);
        layer_fn(move |inner: BoxStack| {
            let order = Arc::clone(&order);
            service_fn(move |request: Request| {
                order.lock().unwrap().push(name);
                let mut inner = inner.clone();
                async move { inner.call(request).await }
            })
        })
    };
    let (leaf, _) = leaf(|_| well());
    let stack = StandardStack::builder(StackConfig::default()).outside(noting("one")).outside(noting("two"));
    let client = stack.over(leaf).unwrap().client();
    let _ = Box::pin(async move { client.query(QUERY).await }).as_mut().now();
    assert_eq!(*order.lock().unwrap(), ["one", "two"]);
}

#[tokio::test]
async fn settings_change_while_the_stack_is_in_use() {
    let (stack, _) = stack(all(true), |_| well());
    let handles = stack.handles();
    assert_eq!(handles.apply(&all(true)).unwrap(), Applied::default());

    let mut config = all(true);
    config.deadline.limit = Duration::from_secs(1);
    config.attempt_timeout.limit = Duration::from_millis(100);
    config.rate.per_second = 7;
    config.rate.burst = Some(3);
    config.concurrency.limit = 5;
    config.hedge.enabled = false;
    config.breaker.mode = breaker::Mode::MetricsOnly;
    config.throttle.mode = palisade::throttle::Mode::Observing;
    config.throttle.multiplier = 1.5;
    config.shed.target = Duration::from_secs(2);
    config.shed.interval = Duration::from_secs(2);
    config.shed.max_wait = Duration::from_secs(3);
    config.shed.max_waiting = 9;
    config.adaptive.min = 20;
    config.adaptive.max = 90;
    config.retry.max_attempts = 9;
    config.connection.keyspace = Some("app".to_owned());
    config.connection.user = Some("ada".to_owned());
    config.connection.password = Some("hunter2".into());
    let applied = handles.apply(&config).unwrap();
    assert_eq!(
        applied.changed,
        [
            "adaptive.max",
            "adaptive.min",
            "attempt_timeout.limit",
            "breaker.mode",
            "concurrency.limit",
            "deadline.limit",
            "hedge.enabled",
            "rate.burst",
            "rate.per_second",
            "shed.max_wait",
            "shed.max_waiting",
            "throttle.mode",
            "throttle.multiplier",
        ]
    );
    // The target cannot be above the interval, which is as it was.
    assert_eq!(
        applied.needs_restart,
        [
            "connection.keyspace",
            "connection.user",
            "retry.max_attempts",
            "shed.interval",
            "shed.target",
            "connection.password",
        ]
    );
    stack.client().query(QUERY).await.unwrap();
    let snapshot = handles.snapshot();
    assert_eq!((snapshot.deadline_seconds, snapshot.attempt_timeout_seconds), (Some(1.0), Some(0.1)));
    let rate = snapshot.rate.unwrap();
    assert_eq!((rate.per_second, rate.burst), (7.0, 3));
    assert_eq!(snapshot.concurrency.unwrap().limit, 5);
    assert!(!snapshot.hedge.unwrap().enabled);
    assert_eq!(snapshot.breaker.unwrap().mode, "metrics_only");
    let throttle = &snapshot.throttle.unwrap()[0];
    assert_eq!((throttle.mode, throttle.multiplier), ("observing", 1.5));
    let adaptive = snapshot.adaptive.unwrap();
    assert_eq!((adaptive.min, adaptive.max), (20, 90));

    // What is in force is not told again, and what needs a restart still does.
    let again = handles.apply(&config).unwrap();
    assert!(again.changed.is_empty());
    assert_eq!(again.needs_restart, applied.needs_restart);
}

#[tokio::test]
async fn a_limit_that_changes_holds_for_the_next_call() {
    let mut config = StackConfig::default();
    config.rate.enabled = true;
    config.rate.per_second = 1;
    config.rate.burst = Some(1);
    config.rate.max_wait = Duration::ZERO;
    let (stack, _) = stack(config.clone(), |_| well());
    stack.client().query(QUERY).await.unwrap();
    assert!(matches!(rejection(stack.client().query(QUERY).await), Rejection::RateLimited { .. }));
    config.rate.per_second = 1_000_000;
    config.rate.burst = None;
    assert_eq!(stack.handles().apply(&config).unwrap().changed, ["rate.burst", "rate.per_second"]);
    tokio::time::sleep(Duration::from_millis(2)).await;
    stack.client().query(QUERY).await.unwrap();
}

#[test]
fn a_part_that_is_off_cannot_be_switched_on_at_run_time() {
    let (stack, _) = stack(all(false), |_| well());
    let mut config = all(false);
    config.rate.per_second = 5; // of no effect, now or after a restart
    assert_eq!(stack.handles().apply(&config).unwrap(), Applied::default());
    config.rate.enabled = true;
    config.hedge.enabled = true;
    assert_eq!(stack.handles().apply(&config).unwrap().needs_restart, ["hedge.enabled", "rate.enabled"]);
}

#[test]
fn what_changes_of_a_part_that_is_switched_off_meanwhile_needs_a_restart_still() {
    let (stack, _) = stack(all(true), |_| well());
    let apply = |config: &StackConfig| stack.handles().apply(config).unwrap();
    let mut config = all(true);
    config.hedge.enabled = false;
    assert_eq!(apply(&config).changed, ["hedge.enabled"]);
    config.hedge.max_delay = Duration::from_millis(50);
    assert_eq!(apply(&config).needs_restart, ["hedge.max_delay"]);
    config.hedge.enabled = true;
    let applied = apply(&config);
    assert_eq!(
        (applied.changed, applied.needs_restart),
        (vec!["hedge.enabled".to_owned()], vec!["hedge.max_delay".to_owned()])
    );
}

#[test]
fn what_changes_of_a_failover_with_nowhere_to_go_is_of_no_effect() {
    let (stack, _) = stack(all(true), |_| well());
    let mut config = all(true);
    config.failover.failures = 9;
    assert_eq!(stack.handles().apply(&config).unwrap(), Applied::default());
    config.failover.enabled = false;
    assert_eq!(stack.handles().apply(&config).unwrap(), Applied::default());
    config.connection.datacenter = Some("dc1".to_owned());
    config.failover.remotes = vec!["dc2".to_owned()];
    let applied = stack.handles().apply(&config).unwrap();
    assert_eq!(applied.needs_restart, ["connection.datacenter", "failover.remotes"]);
}

#[test]
fn a_configuration_that_makes_no_sense_changes_nothing() {
    let (stack, _) = stack(all(true), |_| well());
    let mut config = all(true);
    config.deadline.limit = Duration::from_secs(1);
    config.throttle.multiplier = 0.5;
    let error = stack.handles().apply(&config).unwrap_err();
    assert!(error.to_string().starts_with("`throttle.multiplier` is 0.5, but must be from 1 to 100"));
    assert_eq!(stack.handles().snapshot().deadline_seconds, Some(2.0));
}

#[test]
fn a_setting_that_makes_no_sense_is_named_with_its_section() {
    let cases = [
        ("[deadline]\nlimit = \"0ms\"", "deadline.limit"),
        ("[deadline]\nlimit = \"100ms\"", "attempt_timeout.limit"),
        ("[attempt_timeout]\nprepare = \"0s\"", "attempt_timeout.prepare"),
        ("[retry]\nmax_attempts = 0", "retry.max_attempts"),
        ("[retry]\nfirst_wait = \"0ms\"", "retry.first_wait"),
        ("[retry]\nfirst_wait = \"2s\"", "retry.max_wait"),
        ("[budget]\nratio = 11.0", "budget.ratio"),
        ("[hedge]\npercentile = 1.0", "hedge.percentile"),
        ("[hedge]\nenabled = false\nmax_extra_load = 2.0", "hedge.max_extra_load"),
        ("[breaker]\nwindow = \"1ms\"", "breaker.window"),
        ("[breaker]\nfailure_ratio = 0.0", "breaker.failure_ratio"),
        ("[breaker]\nopen_for = \"2m\"", "breaker.max_open_for"),
        ("[throttle]\nmax_rejection = 1.0", "throttle.max_rejection"),
        ("[shed]\ntarget = \"2s\"", "shed.interval"),
        ("[adaptive]\nmin = 2000", "adaptive.min"),
        ("[concurrency]\nlimit = 0", "concurrency.limit"),
        ("[rate]\nper_second = 0", "rate.per_second"),
        ("[rate]\nburst = 0", "rate.burst"),
        ("[coalesce]\njoin_within = \"2h\"", "coalesce.join_within"),
        ("[coalesce]\nenabled = true\n[connection]\nconsistency = \"SERIAL\"", "coalesce.enabled"),
        ("[routing]\nmax_ejected = 2.0", "routing.max_ejected"),
        ("[routing]\nrack = \"r1\"", "routing.rack"),
        ("[health]\ntimeout = \"5s\"", "health.timeout"),
        ("[failover]\nremotes = [\"dc2\"]", "connection.datacenter"),
        ("[failover]\nremotes = \"dc1\"\n[connection]\ndatacenter = \"dc1\"", "failover.remotes"),
        ("[failover]\nfailures = 0", "failover.failures"),
        ("[telemetry]\nmax_operations = 0", "telemetry.max_operations"),
        ("[drain]\ngrace = \"1m\"", "drain.grace"),
        ("[connection]\nuser = \"ada\"", "connection.password"),
        ("[connection]\npassword = \"hunter2\"", "connection.user"),
        ("[connection]\ntls_key = \"key.pem\"", "connection.tls_key"),
    ];
    for (text, setting) in cases {
        let error = StackConfig::from_toml(text).unwrap().check().expect_err(text).to_string();
        assert!(error.starts_with(&format!("`{setting}` ")), "{text}: {error}");
    }
}

#[test]
fn the_presets_are_sound() {
    for preset in [StackConfig::default(), StackConfig::interactive(), StackConfig::batch()] {
        preset.check().unwrap();
    }
}

#[tokio::test]
async fn a_connection_without_a_contact_point_is_refused_before_anything_is_tried() {
    let error = StandardStack::connect(StackConfig::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("contact_points"), "{error}");
}

#[tokio::test]
async fn a_snapshot_can_be_written_as_json() {
    let (stack, _) = stack(all(true), |_| well());
    stack.client().query(QUERY).await.unwrap();
    let json = serde_json::to_value(stack.handles().snapshot()).unwrap();
    assert_eq!(json["breaker"]["state"], "closed");
    assert_eq!(json["drain"]["in_flight"], 0);
    assert_eq!(json["deadline_seconds"], 2.0);
    assert_eq!(json["shed"]["waiting"]["critical"], 0);
    assert_eq!(json["throttle"][0]["priority"], "normal");
}

#[test]
fn nothing_prints_the_password() {
    let mut config = StackConfig::default();
    config.connection.user = Some("ada".to_owned());
    config.connection.password = Some("hunter2".into());
    let builder = StandardStack::builder(config.clone());
    assert!(!format!("{builder:?}").contains("hunter2"));
    let (leaf, _) = leaf(|_| well());
    let stack = builder.over(leaf).unwrap();
    assert!(!format!("{stack:?} {config:?}").contains("hunter2"));
}

/// A leaf that neither waits nor allocates.
#[derive(Clone)]
struct Ready;

impl Service<Request> for Ready {
    type Response = Response;
    type Error = Error;
    type Future = std::future::Ready<Outcome>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        ready(Ok(Response::default()))
    }
}

#[tokio::test]
async fn a_call_allocates_once_whatever_is_on() {
    for (name, mut config) in [("standard", StackConfig::default()), ("all", all(true)), ("none", all(false))]
    {
        config.rate.per_second = 1_000_000;
        let client = StandardStack::over(Ready, config).unwrap().client();
        let request = Request::text(QUERY);
        let call = || {
            let mut stack = client.stack().clone();
            let mut answer = Box::pin(stack.call(request.clone()));
            assert!(matches!(answer.as_mut().now(), Some(Ok(_))));
        };
        (0..100).for_each(|_| call());
        let counted = || allocation_counter::measure(|| (0..100).for_each(|_| call())).count_total;
        // One is the box of this test's own. Now and then a window begins anew.
        assert_eq!((0..5).map(|_| counted()).min(), Some(200), "{name}");
    }
}

/// Looks at a future once.
trait Now: Future {
    fn now(self) -> Option<Self::Output>;
}

impl<F: Future + Unpin> Now for F {
    fn now(mut self) -> Option<F::Output> {
        match Pin::new(&mut self).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }
}
