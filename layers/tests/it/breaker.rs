use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use metrics_util::debugging::DebuggingRecorder;
use palisade::{
    Backoff, ByError, CircuitBreakerLayer, Class, Classify, ConcurrencyLimitLayer, ConfigError, HedgeLayer,
    Jitter, Rejection,
    breaker::{Cause, Circuit, CircuitBreakerBuilder, CircuitPermit, CircuitState, Mode},
    classify_fn,
    testkit::{
        AMBIGUOUS, CALLER, Error, Gate, Gated, Leaf, NOT_APPLIED, Request, Step, idempotent, run_paused,
    },
};
use tokio::time::{Instant, advance};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

use crate::{events::logged, recorded::Recorded};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Opens for a second, then two, and so on.
fn builder() -> CircuitBreakerBuilder {
    let wait = Backoff::exponential(ms(1_000), ms(60_000)).unwrap().with_jitter(Jitter::None);
    CircuitBreakerLayer::builder().minimum_calls(10).open_for(wait).probes(2)
}

fn layer() -> CircuitBreakerLayer {
    builder().build().unwrap()
}

async fn send<S>(service: &S) -> Result<u32, Error>
where
    S: Service<Request, Response = u32, Error = Error> + Clone,
{
    service.clone().oneshot(Request::new(7)).await
}

fn open(retry_after: u64) -> Error {
    Rejection::circuit_open(Some(ms(retry_after))).into()
}

#[tokio::test(start_paused = true)]
async fn it_opens_refuses_probes_and_closes() {
    let leaf = Leaf::new(std::iter::repeat_n(Step::Fail(AMBIGUOUS), 10).chain([Step::Answer]));
    let layer = layer();
    let service = layer.layer(leaf.clone());
    for _ in 0..10 {
        assert!(matches!(send(&service).await, Err(Error::Failed(..))));
    }
    assert_eq!(send(&service).await, Err(open(1_000)));
    advance(ms(400)).await;
    assert_eq!(send(&service).await, Err(open(600)));
    assert_eq!(leaf.call_count(), 10, "what is refused does not reach the service");
    advance(ms(600)).await;
    assert_eq!(send(&service).await, Ok(7));
    assert_eq!(layer.handle().state(), CircuitState::HalfOpen);
    assert_eq!(send(&service).await, Ok(7));
    assert_eq!(layer.handle().state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn cb01_after_ten_thousand_successes_a_window_of_failures_opens_it() {
    for builder in [builder().window_of_calls(100), builder().window_of_time(ms(1_000))] {
        let steps = std::iter::repeat_n(Step::Answer, 10_000).chain([Step::Fail(AMBIGUOUS)]);
        let layer = builder.build().unwrap();
        let service = layer.layer(Leaf::new(steps));
        for _ in 0..10_000 {
            send(&service).await.unwrap();
        }
        advance(ms(1_000)).await;
        let mut failures = 0;
        while layer.handle().state() == CircuitState::Closed {
            send(&service).await.unwrap_err();
            failures += 1;
            assert!(failures <= 60, "half of the window, and a tenth for the bucket that leaves");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cb02_a_half_open_circuit_with_a_window_of_time_is_never_stuck() {
    let steps = std::iter::repeat_n(Step::Fail(AMBIGUOUS), 10).chain([
        Step::Answer,
        Step::Hang,
        Step::Hang,
        Step::Answer,
    ]);
    let layer = builder().window_of_time(ms(100)).probe_timeout(ms(5_000)).build().unwrap();
    let service = layer.layer(Leaf::new(steps));
    for _ in 0..10 {
        send(&service).await.unwrap_err();
    }
    advance(ms(1_000)).await;
    send(&service).await.unwrap();
    // The success has long left any window when the other probe hangs, and is given up.
    advance(ms(60_000)).await;
    let hung = tokio::spawn(service.clone().oneshot(Request::new(7)));
    tokio::task::yield_now().await;
    assert!(send(&service).await.is_err(), "both probes are taken");
    hung.abort();
    let _ = hung.await;
    // The room is there again; this probe hangs for good, which opens the circuit anew.
    let hung = tokio::spawn(service.clone().oneshot(Request::new(7)));
    tokio::task::yield_now().await;
    advance(ms(5_000)).await;
    assert_eq!(send(&service).await, Err(open(2_000)));
    advance(ms(2_000)).await;
    send(&service).await.unwrap();
    send(&service).await.unwrap();
    assert_eq!(layer.handle().state(), CircuitState::Closed);
    hung.abort();
}

#[tokio::test(start_paused = true)]
async fn cb03_a_failure_from_before_the_outage_does_not_open_a_circuit_that_probes() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let service = {
        let gate = Arc::clone(&gate);
        tower::service_fn(move |request: Request| {
            let gate = Arc::clone(&gate);
            async move {
                if *request == 1 {
                    let _ = gate.acquire().await;
                }
                if *request == 2 { Ok(2) } else { Err(Error::Failed(AMBIGUOUS, 0)) }
            }
        })
    };
    let layer = layer();
    let service = layer.layer(service);
    let call = |request| service.clone().oneshot(Request::new(request));
    let old: Vec<_> = (0..20).map(|_| tokio::spawn(call(1))).collect();
    tokio::task::yield_now().await;
    for _ in 0..10 {
        call(0).await.unwrap_err();
    }
    advance(ms(1_000)).await;
    assert_eq!(call(2).await, Ok(2));
    gate.add_permits(20);
    for old in old {
        assert!(old.await.unwrap().is_err());
    }
    assert_eq!(layer.handle().state(), CircuitState::HalfOpen);
    assert_eq!(call(2).await, Ok(2));
    assert_eq!(layer.handle().state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn cb04_calls_that_an_outer_timeout_drops_open_it() {
    let layer = builder().slow_calls(0.5, ms(50)).build().unwrap();
    let leaf = Leaf::new([Step::Hang]);
    let service = layer.layer(leaf.clone());
    for _ in 0..500 {
        let _ = tokio::time::timeout(ms(100), send(&service)).await;
    }
    assert_eq!(layer.handle().state(), CircuitState::Open);
    assert!(leaf.call_count() < 40, "{}", leaf.call_count());
    assert_eq!(leaf.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn cb05_a_listener_may_read_and_steer_the_circuit() {
    let circuit = Arc::new(OnceLock::<Arc<Circuit>>::new());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let layer = builder()
        .on_transition({
            let (circuit, seen) = (Arc::clone(&circuit), Arc::clone(&seen));
            move |change| {
                let snapshot = circuit.get().unwrap().snapshot();
                seen.lock().unwrap().push((change.cause, snapshot.state));
                if change.to == CircuitState::Open {
                    circuit.get().unwrap().reset();
                }
            }
        })
        .build()
        .unwrap();
    circuit.set(layer.handle()).unwrap();
    let service = layer.layer(Leaf::new([Step::Fail(AMBIGUOUS)]));
    for _ in 0..10 {
        send(&service).await.unwrap_err();
    }
    assert_eq!(
        *seen.lock().unwrap(),
        [(Cause::FailureRatio, CircuitState::Open), (Cause::Operator, CircuitState::Closed)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_panics_harms_neither_the_call_nor_the_circuit() {
    let layer = builder().on_transition(|_| panic!("a listener's own trouble")).build().unwrap();
    let service = layer.layer(Leaf::new([Step::Fail(AMBIGUOUS)]));
    for _ in 0..10 {
        assert!(matches!(send(&service).await, Err(Error::Failed(..))));
    }
    assert_eq!(send(&service).await, Err(open(1_000)));
}

#[tokio::test(start_paused = true)]
async fn cb06_a_reset_of_a_closed_circuit_forgets_what_it_has_counted() {
    let layer = layer();
    let service = layer.layer(Leaf::new([Step::Fail(AMBIGUOUS)]));
    for _ in 0..9 {
        send(&service).await.unwrap_err();
    }
    assert_eq!(layer.handle().snapshot().failures, 9);
    layer.handle().reset();
    assert_eq!(layer.handle().snapshot().failures, 0);
    for _ in 0..9 {
        send(&service).await.unwrap_err();
    }
    assert_eq!(layer.handle().state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn cb07_an_open_circuit_refuses_at_the_first_poll_even_if_the_service_is_busy() {
    let gate = Gate::open();
    let layer = layer();
    let mut service = layer.layer(Gated::new(Leaf::new([Step::Answer]), &gate));
    layer.handle().set_mode(Mode::ForcedOpen);
    gate.set(false);
    let began = Instant::now();
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..1_000 {
        assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
        let call = std::pin::pin!(service.call(Request::new(7)));
        assert_eq!(call.poll(&mut cx), Poll::Ready(Err(Rejection::circuit_open(None).into())));
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_callers_errors_never_open_it_and_overload_does_unless_told_otherwise() {
    let opens = async |builder: CircuitBreakerBuilder, class| {
        let layer = builder.build().unwrap();
        let service = layer.layer(Leaf::new([Step::Fail(class)]));
        for _ in 0..1_000 {
            let _ = send(&service).await;
        }
        layer.handle().state() == CircuitState::Open
    };
    assert!(!opens(builder().consecutive_failures(1), CALLER).await);
    assert!(opens(builder(), NOT_APPLIED).await);
    assert!(!opens(builder().failure_ratio(None).consecutive_failures(10), NOT_APPLIED).await);
    assert!(!opens(builder().overload_counts(false), NOT_APPLIED).await);
}

#[tokio::test(start_paused = true)]
async fn a_response_can_be_a_failure_too() {
    let failed = classify_fn(|outcome: Result<&u32, &Error>| match outcome {
        Ok(7) => AMBIGUOUS,
        _ => Class::SUCCESS,
    });
    let layer = builder().consecutive_failures(3).classifier(failed).build().unwrap();
    let service = layer.layer(Leaf::new([Step::Answer]));
    for _ in 0..3 {
        assert_eq!(send(&service).await, Ok(7));
    }
    assert_eq!(layer.handle().state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn each_key_has_a_circuit_of_its_own_and_a_new_one_when_it_was_forgotten() {
    let listened = Arc::new(Mutex::new(Vec::new()));
    let layer = builder()
        .on_transition({
            let listened = Arc::clone(&listened);
            move |change| listened.lock().unwrap().push(change.key.clone())
        })
        .build_keyed(100, |request: &Request| **request % 1_000)
        .unwrap();
    let bad = tower::service_fn(
        async |request: Request| {
            if *request == 1 { Err(Error::Failed(AMBIGUOUS, 0)) } else { Ok(*request) }
        },
    );
    let service = ServiceBuilder::new().layer(layer.clone()).service(bad);
    let call = |request| service.clone().oneshot(Request::new(request));
    for _ in 0..10 {
        call(1).await.unwrap_err();
        call(2).await.unwrap();
    }
    assert_eq!(call(1).await, Err(open(1_000)));
    assert_eq!(call(2).await, Ok(2));
    assert_eq!(layer.handle().get(&1).unwrap().state(), CircuitState::Open);
    assert_eq!(layer.handle().get(&2).unwrap().snapshot().calls, 11);
    assert_eq!(listened.lock().unwrap()[0].as_deref(), Some("1"));
    for _ in 0..10 {
        for key in 3..1_000 {
            call(key).await.unwrap();
        }
    }
    assert!(layer.handle().len() <= 100);
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_forces_stays_forced_and_can_be_forced_ahead() {
    let layer = builder().build_keyed(10, |request: &Request| **request).unwrap();
    let service = layer.layer(Leaf::new([Step::Answer]));
    let call = async |key| service.clone().oneshot(Request::new(key)).await;
    let circuits = layer.handle();
    circuits.get_or_make(&7).set_mode(Mode::ForcedOpen);
    for key in 100..1_000 {
        call(key).await.unwrap();
    }
    assert_eq!(call(7).await, Err(Rejection::circuit_open(None).into()));

    circuits.set_mode(Mode::ForcedOpen);
    assert!(call(999).await.is_err(), "one that is there");
    assert!(call(2_000).await.is_err(), "one that is new");
    circuits.set_mode(Mode::Normal);
    for key in [7, 999, 2_000] {
        call(key).await.unwrap();
    }
}

/// A full queue further in says nothing of the service.
#[tokio::test(start_paused = true)]
async fn what_a_layer_further_in_refuses_does_not_count() {
    let layer = builder().consecutive_failures(1).build().unwrap();
    let none = ConcurrencyLimitLayer::builder().limit(1).max_waiting(0).build().unwrap();
    let service = ServiceBuilder::new().layer(layer.clone()).layer(none).service(Leaf::new([Step::Hang]));
    let hung = tokio::spawn(service.clone().oneshot(Request::new(7)));
    tokio::task::yield_now().await;
    for _ in 0..100 {
        assert_eq!(send(&service).await, Err(Rejection::ConcurrencyLimited.into()));
    }
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.state, snapshot.calls), (CircuitState::Closed, 0));
    hung.abort();
}

/// A circuit that is made at the moment when all are forced is forced too.
#[test]
fn a_mode_for_all_misses_no_circuit_that_is_being_made() {
    for _ in 0..300 {
        let layer = builder().build_keyed(10_000, |request: &Request| **request).unwrap();
        let circuits = layer.handle();
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let circuits = &circuits;
                scope.spawn(move || {
                    for key in 0..20 {
                        circuits.get_or_make(&(thread * 1_000 + key));
                    }
                });
            }
            circuits.set_mode(Mode::ForcedOpen);
        });
        assert_eq!(circuits.len(), 60);
        assert!(circuits.all().iter().all(|(_, circuit)| circuit.snapshot().mode == Mode::ForcedOpen));
    }
}

/// One thread's lock is nobody's wait: many threads ask an open circuit, and one that probes.
#[test]
fn cb07_many_threads_are_refused_by_a_tripped_circuit_without_a_wait() {
    let layer = builder().consecutive_failures(1).build().unwrap();
    let mut failing = layer.layer(Leaf::new([Step::Fail(AMBIGUOUS)]));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(failing.poll_ready(&mut cx).is_ready());
    assert!(std::pin::pin!(failing.call(Request::new(7))).poll(&mut cx).is_ready());
    assert_eq!(layer.handle().state(), CircuitState::Open);
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut service = layer.layer(Leaf::new([Step::Answer]));
                let mut cx = Context::from_waker(Waker::noop());
                for _ in 0..10_000 {
                    assert!(service.poll_ready(&mut cx).is_ready());
                    let call = std::pin::pin!(service.call(Request::new(7)));
                    assert!(matches!(call.poll(&mut cx), Poll::Ready(Err(_))));
                }
            });
        }
    });
    // The peer's refusals took 3.8 ms each: 80,000 of them five minutes.
    assert!(began.elapsed() < Duration::from_secs(30));
}

/// The loser of a hedge may be as old as it likes: that it was overtaken says nothing of its circuit.
#[tokio::test(start_paused = true)]
async fn the_loser_of_a_hedge_does_not_count() {
    let layer = builder().slow_calls(0.1, ms(20)).build().unwrap();
    let leaf = Leaf::new((0..40).map(|call| if call % 2 == 0 { Step::Hang } else { Step::Answer }));
    let hedge = HedgeLayer::builder().fixed_delay(ms(50)).max_extra_load(1.0).build().unwrap();
    let service = ServiceBuilder::new().layer(hedge).layer(layer.clone()).service(leaf);
    for _ in 0..20 {
        service.clone().oneshot(idempotent(7)).await.unwrap();
    }
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.state, snapshot.calls, snapshot.slow_calls), (CircuitState::Closed, 20, 0));
}

#[tokio::test(start_paused = true)]
async fn clones_and_services_of_one_layer_share_the_circuit() {
    let layer = layer();
    let (one, other) =
        (layer.layer(Leaf::new([Step::Fail(AMBIGUOUS)])), layer.clone().layer(Leaf::new([Step::Answer])));
    for _ in 0..10 {
        send(&one).await.unwrap_err();
    }
    assert_eq!(send(&other).await, Err(open(1_000)));
}

/// Thousands of calls on several threads, dropped, failed and answered: the books are right afterwards.
#[test]
fn nothing_is_lost_when_threads_call_fail_and_give_up() {
    let layer = builder().window_of_calls(10_000).minimum_calls(10_000).ignore_slow_calls().build().unwrap();
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (layer, answered) = (layer.clone(), &answered);
            scope.spawn(move || {
                let leaf = Leaf::new([Step::Fail(AMBIGUOUS), Step::Answer, Step::Answer]);
                let mut service = layer.layer(leaf);
                let mut cx = Context::from_waker(Waker::noop());
                for number in 0..2_000 {
                    assert!(service.poll_ready(&mut cx).is_ready());
                    let call = std::pin::pin!(service.call(Request::new(7)));
                    if number % 5 != thread && call.poll(&mut cx).is_ready() {
                        answered.fetch_add(1, SeqCst);
                    }
                }
            });
        }
    });
    let snapshot = layer.handle().snapshot();
    assert_eq!(snapshot.calls as usize, answered.load(SeqCst));
    assert!(snapshot.failures <= 4);
}

#[test]
fn transitions_refusals_and_open_circuits_are_counted() {
    let recorder = DebuggingRecorder::new();
    // Since the last time: the recorder forgets what it has shown.
    let figures = || {
        let seen = Recorded::at(&recorder);
        let to =
            |state| seen.count("palisade_circuit_transitions_total", &[("layer", "users"), ("to", state)]);
        (
            [to("open"), to("half_open"), to("closed")],
            seen.count("palisade_circuit_refused_total", &[("layer", "users")]),
            seen.gauge("palisade_circuits_open", &[("layer", "users")]),
        )
    };
    metrics::with_local_recorder(&recorder, || {
        run_paused(async {
            let layer = builder().named("users").build_keyed(10, |request: &Request| **request).unwrap();
            let failing = Step::Fail(AMBIGUOUS);
            let leaf = Leaf::new(std::iter::repeat_n(failing, 20).chain([Step::Answer]));
            let service = layer.layer(leaf);
            let call = async |key| service.clone().oneshot(Request::new(key)).await;
            for _ in 0..10 {
                call(1).await.unwrap_err();
                call(2).await.unwrap_err();
            }
            for _ in 0..5 {
                call(1).await.unwrap_err();
            }
            assert_eq!(figures(), ([2, 0, 0], 5, Some(2.0)));
            advance(ms(1_000)).await;
            call(1).await.unwrap();
            call(1).await.unwrap();
            assert_eq!(figures(), ([0, 1, 1], 0, Some(-1.0)));
            // The other one is forgotten while it is open.
            drop((service, layer));
            assert_eq!(figures(), ([0, 0, 0], 0, Some(-1.0)));
        });
    });
}

#[test]
fn every_change_of_state_is_an_event() {
    let logged = logged(&["key", "cause"], || {
        run_paused(async {
            let layer =
                builder().consecutive_failures(1).build_keyed(10, |request: &Request| **request).unwrap();
            let service = layer.layer(Leaf::new([Step::Fail(AMBIGUOUS), Step::Answer]));
            let call = async || service.clone().oneshot(Request::new(7)).await;
            call().await.unwrap_err();
            advance(ms(1_000)).await;
            call().await.unwrap();
            call().await.unwrap();
            layer.handle().get(&7).unwrap().reset();
        });
    });
    assert_eq!(
        logged,
        [
            r#"WARN the circuit has opened "7" "consecutive_failures""#,
            r#"INFO the circuit lets probes through "7""#,
            r#"INFO the circuit has closed "7" "probes_succeeded""#,
            r#"INFO the circuit starts afresh "7" "operator""#,
        ]
    );
}

/// Code of others inside a call: whatever panics, the call's ticket comes back.
#[tokio::test(start_paused = true)]
async fn a_classifier_that_panics_leaves_no_probe_behind() {
    let panics = classify_fn(|outcome: Result<&u32, &Error>| match outcome {
        Ok(_) => panic!("a classifier's own trouble"),
        Err(_) => AMBIGUOUS,
    });
    let layer = builder().consecutive_failures(1).classifier(panics).build().unwrap();
    let service = layer.layer(Leaf::new([Step::Fail(AMBIGUOUS), Step::Answer]));
    send(&service).await.unwrap_err();
    advance(ms(1_000)).await;
    for _ in 0..10 {
        let service = service.clone();
        assert!(tokio::spawn(async move { send(&service).await }).await.unwrap_err().is_panic());
    }
    assert_eq!(layer.handle().snapshot().probes_in_flight, 0);
}

#[test]
fn an_operator_can_watch_first_what_it_would_do() {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        run_paused(async {
            let layer = builder().mode(Mode::MetricsOnly).build().unwrap();
            let service = layer.layer(Leaf::new([Step::Fail(AMBIGUOUS)]));
            for _ in 0..30 {
                assert!(matches!(send(&service).await, Err(Error::Failed(..))));
            }
            layer.handle().set_mode(Mode::Normal);
            for _ in 0..10 {
                assert!(matches!(send(&service).await, Err(Error::Failed(..))));
            }
            assert_eq!(send(&service).await, Err(open(1_000)));
        });
    });
    let seen = Recorded::at(&recorder);
    assert_eq!(seen.count("palisade_circuit_suppressed_total", &[("layer", "circuit_breaker")]), 1);
    assert_eq!(seen.count("palisade_circuit_refused_total", &[("layer", "circuit_breaker")]), 1);
}

/// A place in the inner service that was won for a call which is refused goes to others.
#[tokio::test(start_paused = true)]
async fn who_was_refused_holds_no_place_in_the_inner_service() {
    let layer = builder().mode(Mode::ForcedOpen).build().unwrap();
    let inner = tower::limit::ConcurrencyLimit::new(Leaf::new([Step::Answer]), 1);
    let mut service = layer.layer(inner.clone());
    assert!(service.ready().await.unwrap().call(Request::new(1)).await.is_err());
    let direct = tokio::time::timeout(ms(1_000), inner.oneshot(Request::new(7))).await;
    assert_eq!(direct, Ok(Ok(7)));
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let setting =
        |builder: CircuitBreakerBuilder| builder.build().map_err(|error| ConfigError::setting(&error)).err();
    let fresh = CircuitBreakerLayer::builder;
    assert_eq!(setting(fresh()), None);
    let row_only =
        fresh().window_of_calls(10).failure_ratio(None).ignore_slow_calls().consecutive_failures(3);
    assert_eq!(setting(row_only), None);
    for (builder, name) in [
        (fresh().window_of_calls(0), "window_of_calls"),
        (fresh().window_of_calls(u32::MAX), "window_of_calls"),
        (fresh().window_of_calls(19), "minimum_calls"),
        (fresh().window_of_calls(19).failure_ratio(None), "minimum_calls"),
        (fresh().window_of_time(Duration::ZERO), "window_of_time"),
        (fresh().window_of_time(Duration::MAX), "window_of_time"),
        (fresh().minimum_calls(0), "minimum_calls"),
        (fresh().failure_ratio(0.0), "failure_ratio"),
        (fresh().failure_ratio(1.1), "failure_ratio"),
        (fresh().failure_ratio(f64::NAN), "failure_ratio"),
        (fresh().slow_calls(0.0, ms(1)), "slow_calls"),
        (fresh().slow_calls(0.5, Duration::ZERO), "slow_calls"),
        (fresh().consecutive_failures(0), "consecutive_failures"),
        (fresh().failure_ratio(None).ignore_slow_calls(), "failure_ratio"),
        (fresh().open_for(Backoff::NONE), "open_for"),
        (fresh().probes(0), "probes"),
        (fresh().probe_timeout(Duration::ZERO), "probe_timeout"),
    ] {
        assert_eq!(setting(builder.clone()), Some(name), "{builder:?}");
    }
    assert_eq!(fresh().build_keyed(0, |_: &Request| 1).unwrap_err().setting(), "max_keys");
}

/// A circuit without a layer.
fn circuit(builder: CircuitBreakerBuilder) -> Arc<Circuit> {
    builder.build_circuit("10.0.0.1").unwrap()
}

fn end_each(permits: impl IntoIterator<Item = CircuitPermit>, class: &Class) {
    permits.into_iter().for_each(|permit| permit.end(class));
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_without_a_layer_refuses_and_says_when_to_come_back() {
    let circuit = circuit(builder());
    for _ in 0..10 {
        assert!(circuit.is_closed());
        assert_eq!(circuit.retry_after(), None);
        circuit.acquire().unwrap().end(&AMBIGUOUS);
    }
    assert!(!circuit.is_closed());
    advance(ms(400)).await;
    assert_eq!(circuit.acquire().unwrap_err(), Rejection::circuit_open(Some(ms(600))));
    assert_eq!(circuit.retry_after(), Some(ms(600)));
    advance(ms(600)).await;
    assert_eq!(circuit.retry_after(), Some(Duration::ZERO));
    let probes = [circuit.acquire().unwrap(), circuit.acquire().unwrap()];
    assert_eq!(circuit.acquire().unwrap_err(), Rejection::circuit_open(None), "both probes are taken");
    assert_eq!((circuit.is_closed(), circuit.retry_after()), (false, None));
    end_each(probes, &Class::SUCCESS);
    assert!(circuit.is_closed());
}

/// One table for both: what a class does to a layer's circuit it does to one without.
#[tokio::test(start_paused = true)]
async fn a_permit_is_judged_as_a_call_of_a_layer() {
    for class in [Class::SUCCESS, AMBIGUOUS, CALLER, NOT_APPLIED, NOT_APPLIED.refused_here()] {
        let layer = layer();
        let service = layer.layer(Leaf::new([Step::Fail(class)]));
        let by_hand = circuit(builder());
        for _ in 0..10 {
            let _ = send(&service).await;
            by_hand.acquire().unwrap().end(&class);
        }
        let (ours, theirs) = (by_hand.snapshot(), layer.handle().snapshot());
        assert_eq!((ours.state, ours.calls, ours.failures), (theirs.state, theirs.calls, theirs.failures));
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_as_old_as_the_call_that_it_was_acquired_for() {
    let circuit = circuit(builder().slow_calls(0.8, ms(50)));
    for millis in [50, 51] {
        let permit = circuit.acquire().unwrap();
        advance(ms(millis)).await;
        permit.end(&Class::SUCCESS);
    }
    let snapshot = circuit.snapshot();
    assert_eq!((snapshot.calls, snapshot.slow_calls, snapshot.failures), (2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_dropped_gives_back_its_probe_and_counts_by_its_age() {
    let circuit = circuit(builder().slow_calls(0.8, ms(50)));
    drop(circuit.acquire().unwrap());
    assert_eq!(circuit.snapshot().calls, 0, "young");
    let old = circuit.acquire().unwrap();
    advance(ms(51)).await;
    drop(old);
    let snapshot = circuit.snapshot();
    assert_eq!((snapshot.calls, snapshot.slow_calls), (1, 1));

    circuit.trip();
    advance(ms(1_000)).await;
    for _ in 0..100 {
        let probes = [circuit.acquire().unwrap(), circuit.acquire().unwrap()];
        assert!(circuit.acquire().is_err());
        drop(probes);
    }
    let snapshot = circuit.snapshot();
    assert_eq!((snapshot.state, snapshot.probes_in_flight), (CircuitState::HalfOpen, 0));
}

#[tokio::test(start_paused = true)]
async fn the_permit_of_a_call_that_lost_to_a_hedge_does_not_count() {
    let circuit = circuit(builder().slow_calls(0.1, ms(20)));
    let leaf = Leaf::new((0..40).map(|call| if call % 2 == 0 { Step::Hang } else { Step::Answer }));
    let balanced = tower::service_fn(|request: Request| {
        let (leaf, circuit) = (leaf.clone(), Arc::clone(&circuit));
        async move {
            let permit = circuit.acquire()?;
            let answer = leaf.oneshot(request).await;
            permit.end(&ByError.classify(answer.as_ref()));
            answer
        }
    });
    let hedge = HedgeLayer::builder().fixed_delay(ms(50)).max_extra_load(1.0).build().unwrap();
    let service = ServiceBuilder::new().layer(hedge).service(balanced);
    for _ in 0..20 {
        service.clone().oneshot(idempotent(7)).await.unwrap();
    }
    let snapshot = circuit.snapshot();
    assert_eq!((snapshot.state, snapshot.calls, snapshot.slow_calls), (CircuitState::Closed, 20, 0));
}

#[tokio::test(start_paused = true)]
async fn a_trip_opens_at_once_and_for_longer_each_time_until_it_was_closed_for_long_enough() {
    let circuit = circuit(builder());
    for wait in [1_000, 2_000, 4_000] {
        circuit.trip();
        assert_eq!(circuit.acquire().unwrap_err(), Rejection::circuit_open(Some(ms(wait))));
        circuit.trip();
        assert_eq!(circuit.retry_after(), Some(ms(wait)), "it is open already");
        advance(ms(wait)).await;
        end_each([circuit.acquire().unwrap(), circuit.acquire().unwrap()], &Class::SUCCESS);
        assert!(circuit.is_closed());
    }
    advance(ms(4_000)).await;
    circuit.trip();
    assert_eq!(circuit.retry_after(), Some(ms(1_000)));
}

#[tokio::test(start_paused = true)]
async fn a_permit_from_before_a_trip_changes_nothing_when_it_ends() {
    let circuit = circuit(builder());
    let mut late: Vec<_> = (0..60).map(|_| circuit.acquire().unwrap()).collect();
    circuit.trip();
    end_each(late.drain(..20), &Class::SUCCESS);
    assert_eq!(circuit.state(), CircuitState::Open);
    advance(ms(1_000)).await;
    let probes = [circuit.acquire().unwrap(), circuit.acquire().unwrap()];
    end_each(late.drain(..20), &AMBIGUOUS);
    assert_eq!(circuit.snapshot().probes_in_flight, 2);
    end_each(probes, &Class::SUCCESS);
    end_each(late, &AMBIGUOUS);
    let snapshot = circuit.snapshot();
    assert_eq!((snapshot.state, snapshot.calls), (CircuitState::Closed, 0));
}

#[tokio::test(start_paused = true)]
async fn a_trip_does_what_the_mode_allows_and_the_listener_is_told_why() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let circuit = circuit(builder().on_transition({
        let seen = Arc::clone(&seen);
        move |change| {
            assert_eq!(change.key.as_deref(), Some(r#""10.0.0.1""#));
            if change.cause != Cause::Operator {
                seen.lock().unwrap().push((change.to, change.cause, change.open_for, change.suppressed));
            }
        }
    }));
    for (mode, passes) in [(Mode::MetricsOnly, true), (Mode::ForcedClosed, true), (Mode::ForcedOpen, false)] {
        circuit.set_mode(mode);
        circuit.trip();
        assert_eq!((circuit.acquire().is_ok(), circuit.is_closed()), (passes, passes), "{mode:?}");
    }
    circuit.set_mode(Mode::Normal);
    circuit.trip();
    assert!(circuit.acquire().is_err());
    let told = |suppressed| (CircuitState::Open, Cause::Tripped, Some(ms(1_000)), suppressed);
    assert_eq!(*seen.lock().unwrap(), [told(true), told(false)]);
}

#[test]
fn circuits_of_one_builder_are_independent_and_their_metrics_go_together() {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        run_paused(async {
            let builder = builder().consecutive_failures(3).named("nodes");
            let nodes: Vec<_> = (0..5).map(|node| builder.clone().build_circuit(node).unwrap()).collect();
            for _ in 0..3 {
                nodes[1].acquire().unwrap().end(&AMBIGUOUS);
            }
            nodes[2].trip();
            nodes[3].set_mode(Mode::ForcedOpen);
            let passes: Vec<_> = nodes.iter().map(|node| node.acquire().is_ok()).collect();
            assert_eq!(passes, [true, false, false, false, true]);
            assert_eq!(nodes[4].key(), Some("4"));
            let seen = Recorded::at(&recorder);
            let labels = [("layer", "nodes")];
            assert_eq!(seen.count("palisade_circuit_refused_total", &labels), 3);
            assert_eq!(seen.count("palisade_circuit_transitions_total", &labels), 3);
            assert_eq!(seen.gauge("palisade_circuits_open", &labels), Some(3.0));
            // A node that leaves takes its part of the gauge along, once its last call has ended.
            let permit = nodes[0].acquire().unwrap();
            nodes[0].trip();
            drop(nodes);
            assert_eq!(Recorded::at(&recorder).gauge("palisade_circuits_open", &labels), Some(1.0 - 3.0));
            permit.end(&AMBIGUOUS);
            assert_eq!(Recorded::at(&recorder).gauge("palisade_circuits_open", &labels), Some(-1.0));
        });
    });
}

#[test]
fn a_circuit_without_a_layer_has_its_settings_checked_too() {
    let error = builder().probes(0).build_circuit("10.0.0.1").unwrap_err();
    assert_eq!(error.setting(), "probes");
}

/// Permits that end, are dropped, and trips, on several threads: no probe is lost, and it closes again.
#[test]
fn nothing_is_lost_when_threads_acquire_trip_and_give_up() {
    let wait = Backoff::exponential(Duration::from_micros(50), Duration::from_micros(100)).unwrap();
    let circuit = circuit(builder().open_for(wait).probes(3));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let circuit = &circuit;
            scope.spawn(move || {
                for number in 0..5_000 {
                    if number % 50 == thread {
                        circuit.trip();
                    }
                    let permit = circuit.acquire();
                    if number % 3 != 0 {
                        end_each(permit, &Class::SUCCESS);
                    }
                }
            });
        }
    });
    let snapshot = circuit.snapshot();
    assert_eq!(snapshot.probes_in_flight, 0);
    assert!(snapshot.generation > 1, "{snapshot:?}");
    let began = std::time::Instant::now();
    while !circuit.is_closed() {
        end_each(circuit.acquire(), &Class::SUCCESS);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", circuit.snapshot());
    }
}
