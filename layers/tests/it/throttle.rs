use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use metrics_util::debugging::DebuggingRecorder;
use palisade::{
    CircuitBreakerLayer, Class, ConcurrencyLimitLayer, ConfigError, Effect, Fault, HedgeLayer, Rejection,
    RetryLayer, ThrottleLayer, TimeoutLayer,
    breaker::CircuitState,
    classify_fn,
    testkit::{
        AMBIGUOUS, CALLER, Error, Gate, Gated, Leaf, NOT_APPLIED, Request, Step, idempotent, poll_once,
        run_paused, settle,
    },
    throttle::{Mode, ThrottleBuilder},
};
use tokio::time::{Instant, advance};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::{events::logged, recorded::Recorded};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn builder() -> ThrottleBuilder {
    ThrottleLayer::builder()
}

fn layer() -> ThrottleLayer {
    ThrottleLayer::default()
}

fn overloaded() -> Leaf {
    Leaf::new([Step::Fail(NOT_APPLIED)])
}

async fn send<S>(service: &S) -> Result<u32, Error>
where
    S: Service<Request, Response = u32, Error = Error> + Clone,
{
    service.clone().oneshot(idempotent(7)).await
}

fn throttled() -> Error {
    Rejection::throttled(None).into()
}

/// Sends so many calls, and tells how many were refused.
async fn refusals<S>(service: &S, calls: usize) -> usize
where
    S: Service<Request, Response = u32, Error = Error> + Clone,
{
    let mut refused = 0;
    for _ in 0..calls {
        refused += usize::from(send(service).await == Err(throttled()));
    }
    refused
}

/// Calls that come at this rate for so long: how many there were, and how many were refused.
async fn run<S>(service: &S, per_second: u32, time: Duration) -> (usize, usize)
where
    S: Service<Request, Response = u32, Error = Error> + Clone,
{
    let gap = Duration::from_secs(1) / per_second;
    let calls = time.as_nanos() / gap.as_nanos();
    let (mut made, mut refused) = (0, 0);
    for _ in 0..calls {
        advance(gap).await;
        made += 1;
        refused += refusals(service, 1).await;
    }
    (made, refused)
}

/// A service that can do so many calls per second, and rejects the rest at once.
fn with_capacity(
    per_second: f64,
) -> (Arc<AtomicUsize>, impl Service<Request, Response = u32, Error = Error, Future: Send> + Clone) {
    let accepted = Arc::new(AtomicUsize::new(0));
    let room = Arc::new(Mutex::new((0.0, Instant::now())));
    let count = Arc::clone(&accepted);
    let service = service_fn(move |request: Request| {
        let mut room = room.lock().unwrap();
        let (now, earned) = (Instant::now(), room.1.elapsed().as_secs_f64() * per_second);
        *room = ((room.0 + earned).min((per_second / 5.0).max(1.0)), now);
        let accepts = room.0 >= 1.0;
        if accepts {
            room.0 -= 1.0;
            count.fetch_add(1, SeqCst);
        }
        async move { if accepts { Ok(*request) } else { Err(Error::Failed(NOT_APPLIED, 0)) } }
    });
    (accepted, service)
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_overloaded_is_asked_less() {
    let (leaf, layer) = (overloaded(), layer());
    let service = layer.layer(leaf.clone());
    let refused = refusals(&service, 1_000).await;
    assert!((850..=900).contains(&refused), "{refused}");
    assert_eq!(leaf.call_count(), 1_000 - refused, "what is refused does not reach the service");
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.requests, snapshot.accepts), (1_000, 0));
    assert_eq!(snapshot.rejections as usize, 1_000 - refused);
    assert_eq!((snapshot.refused, snapshot.suppressed), (refused as u64, 0));
    assert!((snapshot.share - 0.9).abs() < 1e-9);
}

#[tokio::test(start_paused = true)]
async fn nothing_else_than_overload_throttles() {
    let unreachable = Class::new(Fault::Unreachable, Effect::Unknown);
    let refused_here = NOT_APPLIED.refused_here();
    for class in [CALLER, AMBIGUOUS, unreachable, refused_here] {
        let layer = layer();
        let service = layer.layer(Leaf::new([Step::Fail(class)]));
        for _ in 0..10_000 {
            assert!(matches!(send(&service).await, Err(Error::Failed(..))));
        }
        let answered = matches!(class.fault(), Fault::Caller | Fault::Server);
        let counted = if answered { 10_000 } else { 0 };
        let snapshot = layer.handle().snapshot();
        assert_eq!((snapshot.requests, snapshot.accepts), (counted, counted), "{class:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_time_out_or_are_dropped_count_for_nothing_unless_a_classifier_says_so() {
    let by_silence = classify_fn(|outcome: Result<&u32, &Error>| match outcome {
        Err(Error::Refused(Rejection::TimedOut { .. })) => NOT_APPLIED,
        Err(_) => CALLER,
        Ok(_) => Class::SUCCESS,
    });
    let hung = ServiceBuilder::new().layer(TimeoutLayer::new(ms(10))).service(Leaf::new([Step::Hang]));
    let (silent, told) = (layer(), builder().classifier(by_silence).build().unwrap());
    let (first, second) = (silent.layer(hung.clone()), told.layer(hung.clone()));
    assert_eq!(refusals(&first, 100).await, 0);
    assert!(refusals(&second, 100).await > 50);
    assert_eq!(silent.handle().snapshot().requests, 0);

    let dropped = layer();
    let service = dropped.layer(Leaf::new([Step::Hang]));
    for _ in 0..100 {
        assert!(tokio::time::timeout(ms(10), send(&service)).await.is_err());
    }
    assert_eq!(dropped.handle().snapshot().requests, 0);
}

#[tokio::test(start_paused = true)]
async fn the_loser_of_a_hedge_does_not_count() {
    let layer = layer();
    let leaf = Leaf::new((0..40).map(|call| if call % 2 == 0 { Step::Hang } else { Step::Answer }));
    let hedge = HedgeLayer::builder().fixed_delay(ms(50)).max_extra_load(1.0).build().unwrap();
    let service = ServiceBuilder::new().layer(hedge).layer(layer.clone()).service(leaf);
    for _ in 0..20 {
        send(&service).await.unwrap();
    }
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.requests, snapshot.accepts, snapshot.rejections), (20, 20, 0));
}

/// Where requests count when they are sent, those under way look like rejections.
#[tokio::test(start_paused = true)]
async fn a_service_that_is_slow_and_healthy_is_never_throttled() {
    for latency in [500, 1_000, 2_000, 10_000] {
        let layer = builder().window(ms(1_000)).build().unwrap();
        let service = layer.layer(Leaf::new([Step::AnswerAfter(ms(latency))]));
        let mut calls = Vec::new();
        for _ in 0..1_000 {
            advance(ms(20)).await;
            calls.push(tokio::spawn(service.clone().oneshot(Request::new(7))));
            settle().await;
        }
        for call in calls {
            assert_eq!(call.await.unwrap(), Ok(7));
        }
        assert_eq!(layer.handle().snapshot().refused, 0, "{latency} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn five_times_the_capacity_leaves_the_multiple_of_what_is_accepted() {
    for (multiplier, least, most) in [(2.0, 0.45, 0.55), (1.1, 0.85, 0.97)] {
        let layer = builder().multiplier(multiplier).build().unwrap();
        let (accepted, service) = with_capacity(40.0);
        let service = layer.layer(service);
        run(&service, 200, ms(10_000)).await;
        let before = accepted.load(SeqCst);
        let (calls, refused) = run(&service, 200, ms(30_000)).await;
        #[expect(clippy::cast_precision_loss, reason = "some thousand calls")]
        let (accepted, passed) = ((accepted.load(SeqCst) - before) as f64, (calls - refused) as f64);
        assert!((least..most).contains(&(accepted / passed)), "{accepted} of {passed} at {multiplier}");
        assert!(accepted > 0.85 * 40.0 * 30.0, "{accepted} at {multiplier}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_overload_of_any_length_nearly_all_calls_pass_within_five_seconds() {
    for (rate, overload) in [(1_000, 3_000), (1_000, 30_000), (5, 1_000), (5, 3_600_000)] {
        let leaf = overloaded();
        let service = layer().layer(leaf.clone());
        let (calls, refused) = run(&service, rate, ms(overload)).await;
        assert!(refused * 10 >= calls * 5 || overload <= 1_000, "{refused} of {calls}");
        leaf.follow([Step::Answer]);
        run(&service, rate, ms(5_000)).await;
        let (calls, refused) = run(&service, rate, ms(2_000)).await;
        assert!(refused * 20 <= calls, "{refused} of {calls} at {rate}/s after {overload} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_passes_every_second_however_large_the_share() {
    let leaf = overloaded();
    let service = builder().max_rejection(0.99).build().unwrap().layer(leaf.clone());
    run(&service, 5, ms(10_000)).await;
    let mut last = 0;
    for _ in 0..300 {
        let before = leaf.call_count();
        run(&service, 5, ms(1_000)).await;
        last = leaf.call_count();
        assert!(last > before, "none passed in this second");
    }
    assert!(last < 600, "{last} in 310 seconds");
    // Who has one call a second finds out by each of them.
    let leaf = overloaded();
    let service = layer().layer(leaf.clone());
    let (calls, refused) = run(&service, 1, ms(100_000)).await;
    assert_eq!((calls, refused), (100, 0));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_repeated_by_a_retry() {
    let (leaf, layer) = (overloaded(), layer());
    let direct = layer.layer(leaf.clone());
    let service = ServiceBuilder::new().layer(RetryLayer::default()).service(direct.clone());
    refusals(&direct, 1_000).await;
    let (mut refused, mut asked) = (0, 0);
    while refused < 100 {
        let (calls, before) = (leaf.call_count(), layer.handle().snapshot().refused);
        let answer = send(&service).await;
        let attempts = leaf.call_count() - calls;
        // What the service rejects is repeated, and a refusal ends the call at once.
        if answer == Err(throttled()) {
            assert_eq!(layer.handle().snapshot().refused, before + 1);
            refused += usize::from(attempts == 0);
        }
        asked += attempts;
    }
    assert!(asked < 60, "{asked}");
}

#[tokio::test(start_paused = true)]
async fn a_breaker_on_either_side_does_not_count_refusals() {
    let breaker = || {
        CircuitBreakerLayer::builder()
            .minimum_calls(5)
            .failure_ratio(0.1)
            .overload_counts(false)
            .build()
            .unwrap()
    };
    let (outer, inner, throttle) = (breaker(), breaker(), layer());
    let service = ServiceBuilder::new()
        .layer(outer.clone())
        .layer(throttle.clone())
        .layer(inner.clone())
        .service(overloaded());
    assert!(refusals(&service, 1_000).await > 800);
    for breaker in [outer, inner] {
        let snapshot = breaker.handle().snapshot();
        assert_eq!((snapshot.state, snapshot.calls), (CircuitState::Closed, 0));
    }
    // And the other way round: what a breaker or a limit further in refuses is no answer of the service.
    let none = ConcurrencyLimitLayer::builder().limit(1).max_waiting(0).build().unwrap();
    let throttle = layer();
    let service = ServiceBuilder::new().layer(throttle.clone()).layer(none).service(Leaf::new([Step::Hang]));
    let hung = tokio::spawn(service.clone().oneshot(Request::new(7)));
    settle().await;
    for _ in 0..100 {
        assert_eq!(send(&service).await, Err(Rejection::ConcurrencyLimited.into()));
    }
    assert_eq!(throttle.handle().snapshot().requests, 0);
    hung.abort();
}

#[tokio::test(start_paused = true)]
async fn a_key_is_not_throttled_for_another() {
    let layer = builder().build_keyed(100, |request: &Request| **request).unwrap();
    let service = layer.layer(service_fn(|request: Request| async move {
        if *request == 1 { Err(Error::Failed(NOT_APPLIED, 0)) } else { Ok(*request) }
    }));
    let call = async |key| service.clone().oneshot(Request::new(key)).await;
    for _ in 0..200 {
        let _ = call(1).await;
        assert_eq!(call(2).await, Ok(2));
    }
    let handle = layer.handle();
    let (first, second) = (handle.snapshot(&1).unwrap(), handle.snapshot(&2).unwrap());
    assert!(first.refused > 150 && first.share > 0.8, "{first:?}");
    assert_eq!((second.refused, second.accepts, second.share), (0, 200, 0.0));
    assert_eq!((handle.len(), handle.is_empty(), handle.all().len()), (2, false, 2));
    assert!(handle.snapshot(&3).is_none());
    for key in 3..1_000 {
        call(key).await.unwrap();
    }
    assert!(handle.len() <= 100);

    handle.set_mode(Mode::Off);
    for _ in 0..100 {
        assert!(matches!(call(1).await, Err(Error::Failed(..))));
    }
    assert_eq!(handle.set_multiplier(0.5).unwrap_err().setting(), "multiplier");
    handle.set_multiplier(3.0).unwrap();
    assert!(handle.all().iter().all(|(_, snapshot)| snapshot.mode == Mode::Off && snapshot.multiplier > 2.9));
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_watch_what_it_would_do_and_switch_it_on_and_off() {
    let (leaf, layer) = (overloaded(), builder().mode(Mode::Observing).build().unwrap());
    let handle = layer.handle();
    let service = layer.layer(leaf.clone());
    assert_eq!(refusals(&service, 1_000).await, 0);
    let snapshot = handle.snapshot();
    assert_eq!((snapshot.requests, snapshot.rejections, snapshot.refused), (1_000, 1_000, 0));
    assert!((850..=900).contains(&snapshot.suppressed), "{snapshot:?}");
    assert!((snapshot.share - 0.9).abs() < 1e-9);

    handle.set_mode(Mode::On);
    assert!(refusals(&service, 100).await > 80, "it knows what it has seen");
    handle.set_mode(Mode::Off);
    let before = handle.snapshot();
    assert_eq!(refusals(&service, 1_000).await, 0);
    assert_eq!((handle.snapshot().requests, handle.snapshot().refused), (before.requests, before.refused));
    handle.set_mode(Mode::On);
    assert!(refusals(&service, 100).await > 80);
}

#[tokio::test(start_paused = true)]
async fn the_multiplier_can_be_changed_while_it_is_in_use() {
    let steps = (0..1_000).map(|call| if call % 4 == 0 { Step::Answer } else { Step::Fail(NOT_APPLIED) });
    let layer = builder().mode(Mode::Observing).build().unwrap();
    let (service, handle) = (layer.layer(Leaf::new(steps)), layer.handle());
    refusals(&service, 1_000).await;
    let share = || handle.snapshot().share;
    assert!((share() - 500.0 / 1_001.0).abs() < 1e-9);
    handle.set_multiplier(1.0).unwrap();
    assert!((share() - 750.0 / 1_001.0).abs() < 1e-9);
    handle.set_multiplier(4.0).unwrap();
    assert!(share() < 1e-9);
    for wrong in [0.0, 0.99, 101.0, f64::NAN, f64::INFINITY, -2.0] {
        assert_eq!(handle.set_multiplier(wrong).unwrap_err().setting(), "multiplier");
    }
    assert!((handle.snapshot().multiplier - 4.0).abs() < 1e-9);
}

#[tokio::test(start_paused = true)]
async fn refusals_pass_on_when_the_service_wants_to_be_asked_again() {
    let later = Leaf::new([Step::Fail(NOT_APPLIED.with_retry_after(ms(700)))]);
    let service = layer().layer(later.clone());
    let mut refused = 0;
    for _ in 0..100 {
        match send(&service).await {
            Err(Error::Refused(rejection)) => {
                assert_eq!(rejection, Rejection::throttled(Some(ms(700))));
                refused += 1;
            }
            answer => assert!(matches!(answer, Err(Error::Failed(..)))),
        }
    }
    assert!(refused > 50 && later.call_count() >= 10, "nobody is kept waiting: {refused}");
}

#[tokio::test(start_paused = true)]
async fn a_call_is_refused_at_once_even_if_the_service_is_busy() {
    let gate = Gate::open();
    let layer = layer();
    let mut service = layer.layer(Gated::new(overloaded(), &gate));
    refusals(&service, 1_000).await;
    gate.set(false);
    let mut cx = Context::from_waker(Waker::noop());
    let mut refused = 0;
    for _ in 0..100 {
        assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
        match poll_once(std::pin::pin!(service.call(Request::new(7)))) {
            Poll::Ready(answer) => {
                assert_eq!(answer, Err(throttled()));
                refused += 1;
            }
            Poll::Pending => {}
        }
    }
    assert!(refused > 80, "{refused}");
}

/// A place in the inner service that was won for a call which is refused goes to others.
#[tokio::test(start_paused = true)]
async fn who_was_refused_holds_no_place_in_the_inner_service() {
    let inner = tower::limit::ConcurrencyLimit::new(overloaded(), 1);
    let mut service = layer().layer(inner.clone());
    while service.ready().await.unwrap().call(Request::new(1)).await != Err(throttled()) {}
    let direct = tokio::time::timeout(ms(1_000), inner.oneshot(Request::new(7))).await;
    assert!(direct.is_ok());
}

#[tokio::test(start_paused = true)]
async fn clones_and_services_of_one_layer_share_what_they_know() {
    let layer = layer();
    let (one, other) = (layer.layer(overloaded()), layer.clone().layer(Leaf::new([Step::Answer])));
    refusals(&one, 1_000).await;
    assert!(refusals(&other.clone(), 20).await > 10);
}

/// Code of others inside a call.
#[tokio::test(start_paused = true)]
async fn a_classifier_that_panics_counts_for_nothing() {
    let panics = classify_fn(|_: Result<&u32, &Error>| -> Class { panic!("a classifier's own trouble") });
    let layer = builder().classifier(panics).build().unwrap();
    let service = layer.layer(Leaf::new([Step::Answer]));
    for _ in 0..10 {
        let service = service.clone();
        assert!(tokio::spawn(async move { send(&service).await }).await.unwrap_err().is_panic());
    }
    assert_eq!(layer.handle().snapshot().requests, 0);
}

/// Calls on several threads, dropped, rejected, refused and answered: the books are right afterwards.
#[test]
fn nothing_is_lost_when_threads_call_and_give_up() {
    let layer = builder().window(Duration::from_secs(600)).build().unwrap();
    let count = || AtomicUsize::new(0);
    let (answered, rejected, refused) = (count(), count(), count());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (layer, answered, rejected, refused) = (layer.clone(), &answered, &rejected, &refused);
            scope.spawn(move || {
                let steps = (0..10_000)
                    .map(|call| if call % 4 == 0 { Step::Answer } else { Step::Fail(NOT_APPLIED) });
                let mut service = layer.layer(Leaf::new(steps));
                let mut cx = Context::from_waker(Waker::noop());
                for number in 0..5_000 {
                    assert!(service.poll_ready(&mut cx).is_ready());
                    let call = std::pin::pin!(service.call(Request::new(7)));
                    // Dropped without a poll, it was refused or never answered.
                    if number % 5 == thread {
                        continue;
                    }
                    let counted = match call.poll(&mut cx) {
                        Poll::Ready(Ok(_)) => answered,
                        Poll::Ready(Err(Error::Refused(_))) => refused,
                        Poll::Ready(Err(_)) => rejected,
                        Poll::Pending => continue,
                    };
                    counted.fetch_add(1, SeqCst);
                }
            });
        }
    });
    let snapshot = layer.handle().snapshot();
    let of = |count: AtomicUsize| u32::try_from(count.into_inner()).unwrap();
    assert_eq!((snapshot.accepts, snapshot.rejections), (of(answered), of(rejected)));
    let all_refused = u32::try_from(snapshot.refused).unwrap();
    assert_eq!(snapshot.requests, snapshot.accepts + snapshot.rejections + all_refused);
    assert!(all_refused > of(refused));
}

#[test]
fn a_call_that_passes_allocates_nothing() {
    let layer = layer();
    let mut service = layer.layer(service_fn(|_: u32| std::future::ready(Ok::<_, Rejection>(()))));
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = || {
        assert!(service.poll_ready(&mut cx).is_ready());
        assert!(std::pin::pin!(service.call(7)).poll(&mut cx).is_ready());
    };
    call();
    let allocated = allocation_counter::measure(|| (0..1_000).for_each(|_| call()));
    assert_eq!(allocated.count_total, 0);
}

#[test]
fn the_metric_follows_a_share_that_falls_to_nothing_at_once() {
    let recorder = DebuggingRecorder::new();
    let share = || Recorded::at(&recorder).gauge("palisade_throttle_refused_share", &[("layer", "throttle")]);
    metrics::with_local_recorder(&recorder, || {
        run_paused(async {
            let leaf = Leaf::new([Step::Answer]);
            let layer = layer();
            let service = layer.layer(leaf.clone());
            for _ in 0..10 {
                send(&service).await.unwrap();
            }
            leaf.follow([Step::Fail(NOT_APPLIED)]);
            for _ in 0..100 {
                let _ = send(&service).await;
            }
            assert!(share().unwrap() > 0.5);
            layer.handle().set_multiplier(100.0).unwrap();
            let _ = send(&service).await;
            assert!(layer.handle().snapshot().share == 0.0);
            assert!(share().is_some_and(|change| change < -0.5));
        });
    });
}

#[test]
fn refusals_and_their_share_are_metrics() {
    let recorder = DebuggingRecorder::new();
    // Since the last time: the recorder forgets what it has shown.
    let figures = || {
        let seen = Recorded::at(&recorder);
        let labels = [("layer", "users")];
        (
            seen.count("palisade_throttle_refused_total", &labels),
            seen.count("palisade_throttle_suppressed_total", &labels),
            seen.gauge("palisade_throttle_refused_share", &labels),
        )
    };
    let near = |share: Option<f64>, expected: f64| (share.unwrap() - expected).abs() < 0.11;
    metrics::with_local_recorder(&recorder, || {
        run_paused(async {
            let leaf = overloaded();
            let layer = builder().named("users").build_keyed(10, |request: &Request| **request).unwrap();
            let service = layer.layer(leaf.clone());
            let call = async |key| service.clone().oneshot(Request::new(key)).await;
            for _ in 0..1_000 {
                let _ = (call(1).await, call(2).await);
            }
            let refused: u64 = layer.handle().all().iter().map(|(_, snapshot)| snapshot.refused).sum();
            let (counted, suppressed, share) = figures();
            assert_eq!((counted, suppressed), (refused, 0));
            assert!(near(share, 1.8), "{share:?}");

            layer.handle().set_mode(Mode::Observing);
            assert!(near(figures().2, -1.8), "none is refused");
            for _ in 0..100 {
                call(1).await.unwrap_err();
            }
            let (counted, suppressed, _) = figures();
            assert!(counted == 0 && suppressed > 80);

            layer.handle().set_mode(Mode::On);
            for _ in 0..100 {
                let _ = call(1).await;
            }
            assert!(near(figures().2, 0.9));
            leaf.follow([Step::Answer]);
            advance(ms(3_000)).await;
            call(1).await.unwrap();
            assert!(near(figures().2, -0.9));

            // Forgotten while it refuses.
            leaf.follow([Step::Fail(NOT_APPLIED)]);
            for _ in 0..100 {
                let _ = call(1).await;
            }
            assert!(near(figures().2, 0.9));
            drop((service, layer));
            assert!(near(figures().2, -0.9));
        });
    });
}

#[test]
fn it_tells_when_it_begins_to_refuse_and_when_it_ceases_and_no_more() {
    let events = logged(&["key"], || {
        run_paused(async {
            let leaf = overloaded();
            let layer = builder().build_keyed(10, |request: &Request| **request).unwrap();
            let service = layer.layer(leaf.clone());
            run(&service, 100, ms(10_000)).await;
            leaf.follow([Step::Answer]);
            run(&service, 100, ms(10_000)).await;
            // Overloaded by a hair: it refuses a call now and then, for long.
            leaf.follow(
                (0..2_000).map(|call| if call % 2 == 0 { Step::Answer } else { Step::Fail(NOT_APPLIED) }),
            );
            run(&service, 100, ms(15_000)).await;
        });
    });
    let (begins, ceases) = (
        r#"DEBUG the service says that it is overloaded: calls are refused "7""#,
        r#"DEBUG calls are not refused any more "7""#,
    );
    assert_eq!(events[..2], [begins, ceases]);
    assert!(events.len() <= 2 + 10, "{events:?}");
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let setting =
        |builder: ThrottleBuilder| builder.build().map_err(|error| ConfigError::setting(&error)).err();
    assert_eq!(setting(builder()), None);
    let extremes = builder().multiplier(1.0).window(ms(100)).max_rejection(0.99).min_passes_per_second(0.0);
    assert_eq!(setting(extremes), None);
    for (builder, name) in [
        (builder().multiplier(0.99), "multiplier"),
        (builder().multiplier(f64::NAN), "multiplier"),
        (builder().multiplier(f64::INFINITY), "multiplier"),
        (builder().window(Duration::ZERO), "window"),
        (builder().window(ms(99)), "window"),
        (builder().window(Duration::MAX), "window"),
        (builder().max_rejection(0.0), "max_rejection"),
        (builder().max_rejection(1.0), "max_rejection"),
        (builder().max_rejection(f64::NAN), "max_rejection"),
        (builder().min_passes_per_second(-1.0), "min_passes_per_second"),
        (builder().min_passes_per_second(1_001.0), "min_passes_per_second"),
        (builder().min_passes_per_second(f64::NAN), "min_passes_per_second"),
    ] {
        assert_eq!(setting(builder.clone()), Some(name), "{builder:?}");
    }
    assert_eq!(builder().build_keyed(0, |_: &Request| 1).unwrap_err().setting(), "max_keys");
    let told = builder().max_rejection(1.0).build().unwrap_err().to_string();
    assert!(told.contains("up to 0.99") && told.contains("Mode::Observing"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn an_outcome_of_a_call_from_before_it_was_switched_off_does_no_harm() {
    let layer = layer();
    let service = layer.layer(Leaf::new([Step::AnswerAfter(ms(100))]));
    let call = tokio::spawn(service.clone().oneshot(Request::new(7)));
    settle().await;
    layer.handle().set_mode(Mode::Off);
    assert_eq!(call.await.unwrap(), Ok(7));
    assert_eq!(layer.handle().snapshot().accepts, 1);
}
