use std::{
    convert::Infallible,
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use metrics_util::debugging::DebuggingRecorder;
use palisade::{
    Class, Effect, Fault, MetricsLayer, TimeoutLayer, classify_fn,
    testkit::{
        AMBIGUOUS, CALLER, Error, Gate, Gated, Leaf, NOT_APPLIED, Request, Step, poll_once, run_paused,
    },
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::recorded::Recorded;

const TOTAL: &str = "palisade_requests_total";
const DURATION: &str = "palisade_request_duration_seconds";
const IN_FLIGHT: &str = "palisade_requests_in_flight";

const SECOND: Duration = Duration::from_secs(1);

/// Runs a test with a recorder that is installed when the layers have long been built.
fn recorded(test: impl Future<Output = ()>) -> Recorded {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || run_paused(test));
    Recorded::at(&recorder)
}

fn ended(recorded: &Recorded, outcome: &str) -> (u64, Vec<f64>) {
    let labels = [("outcome", outcome)];
    (recorded.count(TOTAL, &labels), recorded.values(DURATION, &labels))
}

#[test]
fn calls_are_counted_and_timed_by_what_became_of_them() {
    let layer = MetricsLayer::builder().named("edge").label("service", "users").build().unwrap();
    let unreachable = Class::new(Fault::Unreachable, Effect::Unknown);
    let leaf = Leaf::new([
        Step::AnswerAfter(SECOND * 2),
        Step::Answer,
        Step::Fail(CALLER),
        Step::Fail(AMBIGUOUS),
        Step::Fail(NOT_APPLIED),
        Step::Fail(unreachable),
    ]);
    let seen = recorded(async {
        for _ in 0..6 {
            let _ = layer.layer(leaf.clone()).oneshot(Request::new(7)).await;
        }
    });
    assert_eq!(ended(&seen, "success"), (2, vec![2.0, 0.0]));
    for outcome in ["caller", "server", "overload", "unreachable"] {
        assert_eq!(ended(&seen, outcome), (1, vec![0.0]), "{outcome}");
    }
    let labels = [("layer", "edge"), ("service", "users")];
    assert_eq!(seen.count(TOTAL, &labels), 6, "every series has the layer's labels");
    assert_eq!(seen.gauge(IN_FLIGHT, &labels), Some(0.0));
    assert_eq!(seen.series(TOTAL), 5, "an outcome that has not been seen has no series");
}

/// tower-http's users miss the cancelled calls in their metrics.
#[test]
fn a_call_whose_caller_has_gone_is_counted_as_cancelled_with_its_time() {
    let seen = recorded(async {
        let metrics = MetricsLayer::default();
        let service = ServiceBuilder::new()
            .layer(TimeoutLayer::new(SECOND))
            .layer(metrics.clone())
            .service(Leaf::new([Step::Hang]));
        service.oneshot(Request::new(7)).await.unwrap_err();
        // Never polled.
        let mut service = metrics.layer(Leaf::new([]));
        drop(service.ready().await.unwrap().call(Request::new(7)));
        // Polled to its end, and dropped long after.
        let mut call = pin!(metrics.layer(Leaf::new([])).oneshot(Request::new(7)));
        assert!(poll_once(call.as_mut()).is_ready());
        tokio::time::advance(SECOND).await;
    });
    assert_eq!(ended(&seen, "cancelled"), (2, vec![1.0, 0.0]));
    assert_eq!(ended(&seen, "success"), (1, vec![0.0]));
    assert_eq!(seen.gauge(IN_FLIGHT, &[("layer", "metrics")]), Some(0.0));
}

fn give_up() {
    std::panic::resume_unwind(Box::new("the caller"))
}

#[test]
fn a_call_that_panics_is_counted_as_such_wherever_it_panics() {
    let seen = recorded(async {
        let metrics = MetricsLayer::default();
        let in_poll = metrics.layer(Leaf::new([Step::Panic])).oneshot(Request::new(7));
        assert!(tokio::spawn(in_poll).await.is_err());
        let in_call = metrics.layer(service_fn(|_: Request| -> std::future::Ready<Result<u32, Error>> {
            std::panic::resume_unwind(Box::new("in `call`"))
        }));
        assert!(tokio::spawn(in_call.oneshot(Request::new(7))).await.is_err());
        let confused = classify_fn(|_: Result<&u32, &Error>| -> Class {
            std::panic::resume_unwind(Box::new("the classifier"))
        });
        let confused = MetricsLayer::builder().classifier(confused).build().unwrap();
        assert!(tokio::spawn(confused.layer(Leaf::new([])).oneshot(Request::new(7))).await.is_err());
        // Dropped because its caller panics, which is no fault of the call.
        let hung = metrics.layer(Leaf::new([Step::Hang])).oneshot(Request::new(7));
        let caller = async move {
            let mut hung = pin!(hung);
            assert!(poll_once(hung.as_mut()).is_pending());
            give_up();
        };
        assert!(tokio::spawn(caller).await.is_err());
    });
    assert_eq!(ended(&seen, "panicked").0, 3);
    assert_eq!(ended(&seen, "cancelled").0, 1);
    assert_eq!(seen.gauge(IN_FLIGHT, &[]), Some(0.0));
}

#[test]
fn the_calls_in_flight_are_those_that_have_not_ended() {
    let recorder = DebuggingRecorder::new();
    // Looking at this recorder sets its gauges to zero.
    let mut last = 0.0;
    let mut in_flight = || {
        last += Recorded::at(&recorder).gauge(IN_FLIGHT, &[]).unwrap();
        last
    };
    metrics::with_local_recorder(&recorder, || {
        run_paused(async {
            let gate = Gate::default();
            let service = MetricsLayer::default().layer(Leaf::new([Step::Hold(gate.clone())]));
            let calls: Vec<_> =
                (0..3).map(|number| tokio::spawn(service.clone().oneshot(Request::new(number)))).collect();
            tokio::task::yield_now().await;
            assert_eq!(in_flight().to_string(), "3");
            calls[0].abort();
            tokio::task::yield_now().await;
            assert_eq!(in_flight().to_string(), "2");
            gate.set(true);
            for call in calls {
                let _ = call.await;
            }
            assert_eq!(in_flight().to_string(), "0");
        });
    });
}

#[test]
fn a_label_from_the_request_has_no_more_values_than_it_may() {
    let seen = recorded(async {
        let layer = MetricsLayer::builder()
            .label_by("number", 2, |request: &Request| request.to_string().into())
            .build()
            .unwrap();
        for number in [1, 2, 3, 1, 4, 2, 3, 1] {
            layer.layer(Leaf::new([])).oneshot(Request::new(number)).await.unwrap();
        }
    });
    let count = |number| seen.count(TOTAL, &[("number", number), ("outcome", "success")]);
    assert_eq!([count("1"), count("2"), count("3"), count("4")], [3, 2, 0, 0]);
    assert_eq!(count("other"), 3);
    assert_eq!(seen.gauge(IN_FLIGHT, &[("number", "other")]), Some(0.0));
}

#[test]
fn a_classifier_tells_what_an_answer_means() {
    let classifier = classify_fn(|outcome: Result<&u32, &Error>| match outcome {
        Ok(13) => AMBIGUOUS,
        _ => Class::SUCCESS,
    });
    let seen = recorded(async {
        let layer = MetricsLayer::builder().classifier(classifier).build().unwrap();
        for number in [7, 13] {
            layer.layer(Leaf::new([])).oneshot(Request::new(number)).await.unwrap();
        }
    });
    assert_eq!((ended(&seen, "success").0, ended(&seen, "server").0), (1, 1));
}

#[test]
fn no_call_is_lost_or_counted_twice_by_threads_that_share_a_layer() {
    const CALLS: u64 = 50_000;
    let layer = MetricsLayer::builder()
        .label_by("kind", 4, |number: &u64| ["a", "b", "c"][usize::try_from(number % 3).unwrap()].into())
        .build()
        .unwrap();
    let service = layer.layer(service_fn(|number: u64| std::future::ready(Ok::<_, Infallible>(number))));
    let recorder = DebuggingRecorder::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (mut service, recorder) = (service.clone(), &recorder);
            scope.spawn(move || {
                metrics::with_local_recorder(recorder, || {
                    for number in 0..CALLS {
                        let mut call = pin!(service.call(number));
                        // Every fourth is dropped.
                        if number % 4 > 0 {
                            assert!(poll_once(call.as_mut()).is_ready());
                        }
                    }
                });
            });
        }
    });
    let seen = Recorded::at(&recorder);
    assert_eq!(seen.count(TOTAL, &[("outcome", "success")]), 8 * CALLS * 3 / 4);
    assert_eq!(seen.count(TOTAL, &[("outcome", "cancelled")]), 8 * CALLS / 4);
    assert_eq!(seen.values(DURATION, &[]).len() as u64, 8 * CALLS);
    for kind in ["a", "b", "c"] {
        let calls = (0..CALLS).filter(|number| ["a", "b", "c"][usize::try_from(number % 3).unwrap()] == kind);
        assert_eq!(seen.count(TOTAL, &[("kind", kind)]), 8 * calls.count() as u64);
        assert_eq!(seen.gauge(IN_FLIGHT, &[("kind", kind)]), Some(0.0));
    }
}

#[test]
fn a_call_of_a_known_kind_allocates_nothing() {
    let layer = MetricsLayer::builder()
        .label_by("operation", 4, |operation: &&'static str| (*operation).into())
        .build()
        .unwrap();
    let mut service = layer.layer(service_fn(|_: &'static str| std::future::ready(Ok::<_, Infallible>(()))));
    let mut call = |operation| {
        let mut call = pin!(service.call(operation));
        assert!(poll_once(call.as_mut()).is_ready());
    };
    // Both kinds are seen, and after one too many the rest.
    ["a", "b", "c", "d", "e"].into_iter().for_each(&mut call);
    let allocated = allocation_counter::measure(|| {
        for _ in 0..100 {
            ["a", "b", "x", "y"].into_iter().for_each(&mut call);
        }
    });
    assert_eq!(allocated.count_total, 0);
}

#[test]
fn readiness_is_that_of_the_service() {
    let gate = Gate::default();
    let mut service = MetricsLayer::default().layer(Gated::new(Leaf::new([]), &gate));
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(Service::<Request>::poll_ready(&mut service, &mut cx).is_pending());
    gate.set(true);
    assert!(matches!(Service::<Request>::poll_ready(&mut service, &mut cx), Poll::Ready(Ok(()))));
}
