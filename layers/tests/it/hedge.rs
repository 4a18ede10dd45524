use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use metrics_util::debugging::DebuggingRecorder;
use palisade::{
    Budget, HedgeLayer, RetryLayer, TimeoutLayer,
    hedge::HedgeBuilder,
    testkit::{
        AMBIGUOUS, CALLER, Error, Gate, Gated, Leaf, NOT_APPLIED, Request, Step, idempotent, run_paused,
    },
};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

use crate::recorded::Recorded;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Hedges after 10 ms.
fn fixed() -> HedgeBuilder {
    HedgeLayer::builder().fixed_delay(ms(10))
}

/// Sends one request, and tells how long it took.
async fn timed<S>(service: S, request: Request) -> (Result<u32, Error>, Duration)
where
    S: Service<Request, Response = u32, Error = Error>,
{
    let began = Instant::now();
    (service.oneshot(request).await, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_overtaken_by_a_second_attempt_and_dropped() {
    let leaf = Leaf::new([Step::Hang, Step::AnswerAfter(ms(3))]);
    let service = fixed().build().unwrap().layer(leaf.clone());
    assert_eq!(timed(service, idempotent(7)).await, (Ok(7), ms(13)));
    assert_eq!((leaf.call_count(), leaf.in_flight()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_needs_no_second_attempt() {
    let leaf = Leaf::new([Step::AnswerAfter(ms(9))]);
    let service = fixed().build().unwrap().layer(leaf.clone());
    assert_eq!(timed(service, idempotent(7)).await, (Ok(7), ms(9)));
    assert_eq!(leaf.call_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_first_attempt_may_still_win_and_the_second_is_dropped() {
    let leaf = Leaf::new([Step::AnswerAfter(ms(15)), Step::Hang]);
    let service = fixed().build().unwrap().layer(leaf.clone());
    assert_eq!(timed(service, idempotent(7)).await, (Ok(7), ms(15)));
    assert_eq!((leaf.call_count(), leaf.in_flight()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_to_be_idempotent_is_never_sent_twice() {
    let leaf = Leaf::new([Step::AnswerAfter(ms(500))]);
    let service = fixed().build().unwrap().layer(leaf.clone());
    for request in [Request::new(7), Request::new(7).idempotence(palisade::Idempotence::No)] {
        assert_eq!(timed(service.clone(), request).await, (Ok(7), ms(500)));
    }
    assert_eq!(leaf.call_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn hed01_an_early_failure_of_the_first_attempt_is_returned_at_once() {
    for class in [AMBIGUOUS, NOT_APPLIED, CALLER] {
        let leaf = Leaf::new([Step::Fail(class)]);
        let service = HedgeLayer::builder().fixed_delay(ms(2_000)).build().unwrap().layer(leaf.clone());
        let (outcome, took) = timed(service, idempotent(7)).await;
        assert_eq!((outcome, took), (Err(Error::Failed(class, 1)), Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn hed02_a_thousand_slow_requests_cause_at_most_the_extra_load_that_is_allowed() {
    let leaf = Leaf::new([Step::AnswerAfter(ms(500))]);
    let layer = fixed().max_extra_load(0.05).build().unwrap();
    let service = layer.layer(leaf.clone());
    for _ in 0..1_000 {
        assert_eq!(timed(service.clone(), idempotent(7)).await.0, Ok(7));
    }
    assert!((1_040..=1_060).contains(&leaf.call_count()), "{}", leaf.call_count());
    assert_eq!(layer.handle().snapshot().limit.granted, leaf.call_count() as u64 - 1_000);
}

#[tokio::test(start_paused = true)]
async fn retry_and_hedge_pay_from_one_budget() {
    let budget = Budget::builder().ratio(0.0).reserve_per_second(0.0).burst(3).build().unwrap();
    let leaf = Leaf::new([Step::AnswerAfter(ms(50))]);
    let stack = |leaf| {
        ServiceBuilder::new()
            .layer(RetryLayer::builder().budget(budget.clone()).build().unwrap())
            .layer(fixed().max_extra_load(1.0).budget(budget.clone()).build().unwrap())
            .service(leaf)
    };
    let service = stack(leaf.clone());
    for _ in 0..10 {
        assert_eq!(timed(service.clone(), idempotent(7)).await.0, Ok(7));
    }
    assert_eq!(leaf.call_count(), 13);
    assert_eq!((budget.snapshot().balance, budget.snapshot().granted), (0.0, 3));
    let failing = Leaf::new([Step::Fail(AMBIGUOUS)]);
    assert!(timed(stack(failing.clone()), idempotent(7)).await.0.is_err());
    assert_eq!(failing.call_count(), 1, "the hedges have left nothing for a retry");
}

#[tokio::test(start_paused = true)]
async fn of_two_attempts_the_one_that_does_not_fail_decides() {
    // The first fails while the second is under way.
    let late = |class| {
        let number = Arc::new(AtomicUsize::new(0));
        tower::service_fn(move |request: Request| {
            let number = number.fetch_add(1, SeqCst);
            async move {
                tokio::time::sleep(ms(20)).await;
                if number == 0 { Err(Error::Failed(class, 1)) } else { Ok(*request) }
            }
        })
    };
    let layer = fixed().build().unwrap();
    assert_eq!(timed(layer.layer(late(AMBIGUOUS)), idempotent(7)).await, (Ok(7), ms(30)));
    assert_eq!(
        timed(layer.layer(late(CALLER)), idempotent(7)).await,
        (Err(Error::Failed(CALLER, 1)), ms(20))
    );
    // The second fails while the first is under way.
    let failed = |class| layer.layer(Leaf::new([Step::AnswerAfter(ms(40)), Step::Fail(class)]));
    assert_eq!(timed(failed(AMBIGUOUS), idempotent(7)).await, (Ok(7), ms(40)));
    assert_eq!(timed(failed(CALLER), idempotent(7)).await, (Err(Error::Failed(CALLER, 2)), ms(10)));
    // Both fail: the one that failed last is told.
    let number = Arc::new(AtomicUsize::new(0));
    let both = tower::service_fn(move |_: Request| {
        let number = number.fetch_add(1, SeqCst);
        async move {
            tokio::time::sleep(ms(20)).await;
            Err::<u32, _>(Error::Failed(AMBIGUOUS, u32::try_from(number).unwrap()))
        }
    });
    assert_eq!(timed(layer.layer(both), idempotent(7)).await, (Err(Error::Failed(AMBIGUOUS, 1)), ms(30)));
}

#[tokio::test(start_paused = true)]
async fn it_measures_first_and_then_hedges_after_the_percentile() {
    let layer = HedgeLayer::builder().percentile(0.9).build().unwrap();
    let service = layer.layer(Leaf::new([Step::AnswerAfter(ms(50))]));
    assert_eq!(layer.handle().snapshot().delay, None);
    while layer.handle().snapshot().delay.is_none() {
        assert_eq!(timed(service.clone(), idempotent(7)).await, (Ok(7), ms(50)));
    }
    let delay = layer.handle().snapshot().delay.unwrap();
    assert!((ms(50)..ms(54)).contains(&delay), "{delay:?}");
    let hanging = Leaf::new([Step::Hang, Step::Answer]);
    let (outcome, took) = timed(layer.layer(hanging), idempotent(7)).await;
    assert!(outcome.is_ok() && (ms(50)..ms(56)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn while_all_calls_are_slow_it_stops() {
    let layer = HedgeLayer::builder().max_delay(ms(200)).build().unwrap();
    let leaf = Leaf::new([Step::AnswerAfter(ms(300))]);
    let service = layer.layer(leaf.clone());
    for _ in 0..100 {
        assert!(timed(service.clone(), idempotent(7)).await.0.is_ok());
    }
    assert_eq!((leaf.call_count(), layer.handle().snapshot().delay), (100, None));
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_switch_it_off() {
    let layer = fixed().build().unwrap();
    let leaf = Leaf::new([Step::AnswerAfter(ms(50))]);
    let service = layer.layer(leaf.clone());
    layer.handle().set_enabled(false);
    assert_eq!(timed(service.clone(), idempotent(7)).await, (Ok(7), ms(50)));
    layer.handle().set_enabled(true);
    timed(service, idempotent(7)).await.0.unwrap();
    assert_eq!(leaf.call_count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_waits_for_its_service_while_the_first_goes_on() {
    let gate = Gate::open();
    let leaf = Leaf::new([Step::AnswerAfter(ms(100)), Step::Answer]);
    let layer = fixed().build().unwrap();
    let mut service = layer.layer(Gated::new(leaf.clone(), &gate));
    let call = service.ready().await.unwrap().call(idempotent(7));
    gate.set(false);
    assert_eq!(call.await, Ok(7));
    assert_eq!(leaf.call_count(), 1, "the second one never became ready");
    assert_eq!(layer.handle().snapshot().limit.granted, 0, "what is not sent is not paid for");
}

/// A future that its task gets to late has not waited for the service yet.
#[tokio::test(start_paused = true)]
async fn the_delay_runs_from_the_first_poll() {
    let leaf = Leaf::new([Step::AnswerAfter(ms(5))]);
    let mut service = fixed().build().unwrap().layer(leaf.clone());
    let call = service.ready().await.unwrap().call(idempotent(7));
    tokio::time::advance(ms(100)).await;
    assert_eq!(call.await, Ok(7));
    assert_eq!(leaf.call_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_its_own_timeout_inside() {
    let leaf = Leaf::new([Step::Hang, Step::Hang, Step::Answer]);
    let service = ServiceBuilder::new()
        .layer(fixed().build().unwrap())
        .layer(TimeoutLayer::new(ms(30)))
        .service(leaf.clone());
    let (outcome, took) = timed(service, idempotent(7)).await;
    assert_eq!((outcome, took), (Err(Error::timed_out(palisade::TimeoutScope::Attempt, ms(30))), ms(40)));
    assert_eq!(leaf.in_flight(), 0);
}

#[test]
fn every_second_attempt_is_counted_by_what_became_of_it() {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        run_paused(async {
            let layer = fixed().named("reads").max_extra_load(1.0).build().unwrap();
            let send = async |script: &[Step]| {
                let service = layer.layer(Leaf::new(script.to_vec()));
                let _ = tokio::time::timeout(ms(1_000), service.oneshot(idempotent(7))).await;
            };
            send(&[Step::Hang, Step::Answer]).await;
            send(&[Step::AnswerAfter(ms(20)), Step::Hang]).await;
            send(&[Step::AnswerAfter(ms(20)), Step::Fail(AMBIGUOUS)]).await;
            send(&[Step::Hang]).await;
            send(&[Step::Answer]).await;
        });
    });
    let seen = Recorded::at(&recorder);
    let count = |outcome| seen.count("palisade_hedges_total", &[("layer", "reads"), ("outcome", outcome)]);
    assert_eq!(["won", "lost", "failed", "dropped"].map(count), [1, 1, 1, 1]);
    assert_eq!(seen.gauge("palisade_hedge_delay_seconds", &[("layer", "reads")]), Some(0.01));
}

#[test]
fn a_second_attempt_that_is_not_made_is_counted_with_the_reason() {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        run_paused(async {
            let empty = Budget::builder().ratio(0.0).reserve_per_second(0.0).burst(1).build().unwrap();
            assert!(empty.withdraw());
            let slow = || Leaf::new([Step::AnswerAfter(ms(20))]);
            let poor = fixed().budget(empty).build().unwrap();
            timed(poor.layer(slow()), idempotent(7)).await.0.unwrap();
            let limited = fixed().max_extra_load(0.01).build().unwrap();
            for _ in 0..12 {
                timed(limited.layer(slow()), idempotent(7)).await.0.unwrap();
            }
        });
    });
    let seen = Recorded::at(&recorder);
    let count = |reason| seen.count("palisade_hedges_refused_total", &[("reason", reason)]);
    assert_eq!(["budget", "limit", "not_allowed"].map(count), [1, 2, 0]);
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let setting = |builder: HedgeBuilder| builder.build().map(|_| ()).map_err(|error| error.setting());
    let fresh = HedgeLayer::builder;
    assert_eq!(setting(fresh()), Ok(()));
    for (builder, name) in [
        (fresh().percentile(0.0), "percentile"),
        (fresh().percentile(1.0), "percentile"),
        (fresh().percentile(95.0), "percentile"),
        (fresh().percentile(f64::NAN), "percentile"),
        (fresh().fixed_delay(Duration::MAX), "fixed_delay"),
        (fresh().fixed_delay(Duration::ZERO), "fixed_delay"),
        (fresh().min_delay(Duration::ZERO), "min_delay"),
        (fresh().max_delay(Duration::ZERO), "max_delay"),
        (fresh().max_delay(Duration::MAX), "max_delay"),
        (fresh().max_extra_load(0.0), "max_extra_load"),
        (fresh().max_extra_load(1.5), "max_extra_load"),
        (fresh().max_extra_load(f64::NAN), "max_extra_load"),
    ] {
        assert_eq!(setting(builder.clone()), Err(name), "{builder:?}");
    }
}
