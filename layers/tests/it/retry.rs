use std::time::Duration;

use palisade::{
    Backoff, Budget, CircuitBreakerLayer, Class, Classified, Effect, Fault, HasDeadline, Idempotence,
    Instant, Jitter, Rejection, RetryLayer,
    testkit::{AMBIGUOUS, CALLER, Error, Gate, Gated, Leaf, NOT_APPLIED, Request, Step, idempotent},
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

const BASE: Duration = Duration::from_millis(100);

/// Waits of exactly 100 and 200 ms.
fn exact() -> RetryLayer {
    let backoff = Backoff::exponential(BASE, BASE * 8).unwrap().with_jitter(Jitter::None);
    RetryLayer::builder().backoff(backoff).build().unwrap()
}

fn no_wait(attempts: u32) -> RetryLayer {
    RetryLayer::builder().max_attempts(attempts).backoff(Backoff::NONE).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_request_is_sent_again_after_an_ambiguous_failure() {
    let leaf = Leaf::new([Step::Fail(AMBIGUOUS), Step::Fail(AMBIGUOUS), Step::Answer]);
    let began = Instant::now();
    assert_eq!(exact().layer(leaf.clone()).oneshot(idempotent(7)).await, Ok(7));
    assert_eq!(leaf.call_count(), 3);
    assert_eq!(began.elapsed().as_millis(), 300);
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_applied_is_not_sent_again_unless_it_is_idempotent() {
    for idempotence in [Idempotence::No, Idempotence::Unknown] {
        let leaf = Leaf::new([Step::Fail(AMBIGUOUS)]);
        let request = Request::new(7).idempotence(idempotence);
        assert_eq!(exact().layer(leaf.clone()).oneshot(request).await, Err(Error::Failed(AMBIGUOUS, 1)));
        assert_eq!(leaf.call_count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_surely_not_applied_is_sent_again_whatever_it_is() {
    for idempotence in [Idempotence::No, Idempotence::Unknown, Idempotence::Yes] {
        let leaf = Leaf::new([Step::Fail(NOT_APPLIED), Step::Answer]);
        let request = Request::new(7).idempotence(idempotence);
        assert_eq!(exact().layer(leaf).oneshot(request).await, Ok(7));
    }
}

#[tokio::test(start_paused = true)]
async fn a_mistake_of_the_callers_is_never_sent_again() {
    let leaf = Leaf::new([Step::Fail(CALLER)]);
    assert_eq!(exact().layer(leaf.clone()).oneshot(idempotent(7)).await, Err(Error::Failed(CALLER, 1)));
    assert_eq!(leaf.call_count(), 1);
}

/// To wait for a circuit to close would hold every caller, and bring all of them back at one moment.
#[tokio::test(start_paused = true)]
async fn what_a_layer_further_in_refuses_ends_the_call_at_once_and_costs_no_token() {
    let retry = RetryLayer::default();
    let breaker = CircuitBreakerLayer::builder().consecutive_failures(1).build().unwrap();
    let leaf = Leaf::new([Step::Fail(AMBIGUOUS)]);
    let service = ServiceBuilder::new().layer(retry.clone()).layer(breaker).service(leaf.clone());
    // The first attempt opens the circuit, the second one is refused.
    let began = Instant::now();
    let refused = service.clone().oneshot(idempotent(7)).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(Rejection::CircuitOpen { .. })), "{refused}");
    for _ in 0..60 {
        assert!(service.clone().oneshot(idempotent(7)).await.is_err());
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!((leaf.call_count(), retry.budget().snapshot().granted), (1, 1));
}

/// Where another target may do better, a refusal by one is no reason to stop.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_another_target_may_not_make_is_repeated() {
    let elsewhere = Rejection::circuit_open(None).class().elsewhere();
    assert!(elsewhere.is_refused_here());
    let leaf = Leaf::new([Step::Fail(elsewhere), Step::Answer]);
    assert_eq!(exact().layer(leaf).oneshot(idempotent(7)).await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn the_caller_gets_the_error_of_the_last_attempt() {
    let leaf = Leaf::new([Step::Fail(AMBIGUOUS)]);
    let outcome = exact().layer(leaf).oneshot(idempotent(7)).await;
    assert_eq!(outcome, Err(Error::Failed(AMBIGUOUS, 3)));
}

#[tokio::test(start_paused = true)]
async fn one_attempt_means_no_retry() {
    let leaf = Leaf::new([Step::Fail(AMBIGUOUS)]);
    assert!(no_wait(1).layer(leaf.clone()).oneshot(idempotent(7)).await.is_err());
    assert_eq!(leaf.call_count(), 1);
    let error = RetryLayer::builder().max_attempts(0).build().unwrap_err();
    assert_eq!(error.to_string(), "`max_attempts` must be at least 1, the first attempt: 1 means no retry");
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_after_the_deadline_and_the_error_comes_at_once() {
    let leaf = Leaf::new([Step::Fail(AMBIGUOUS)]);
    let mut request = idempotent(7);
    let began = Instant::now();
    request.shorten_deadline(began + BASE + Duration::from_millis(50));
    let outcome = exact().layer(leaf.clone()).oneshot(request).await;
    // The second repeat could not begin before the deadline: nobody waits for it.
    assert_eq!(outcome, Err(Error::Failed(AMBIGUOUS, 2)));
    assert_eq!(began.elapsed(), BASE);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_but_clamped() {
    let waited = async |hint| {
        let class = NOT_APPLIED.with_retry_after(hint);
        let leaf = Leaf::new([Step::Fail(class), Step::Answer]);
        let began = Instant::now();
        exact().layer(leaf).oneshot(Request::new(7)).await.unwrap();
        began.elapsed()
    };
    assert_eq!(waited(Duration::from_secs(1)).await, Duration::from_secs(1));
    assert_eq!(waited(Duration::from_millis(1)).await, BASE);
    assert_eq!(waited(Duration::from_secs(3_600)).await, BASE + Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn the_first_repeat_at_another_target_does_not_wait() {
    let unanswered = Class::new(Fault::Unreachable, Effect::Unknown).elsewhere();
    let leaf = Leaf::new([Step::Fail(unanswered), Step::Answer]);
    let began = Instant::now();
    exact().layer(leaf).oneshot(idempotent(7)).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// At total failure three attempts each would be three times the load.
#[tokio::test(start_paused = true)]
async fn at_total_failure_there_are_at_most_a_tenth_more_attempts_than_requests() {
    let leaf = Leaf::new([Step::Fail(AMBIGUOUS)]);
    let service = no_wait(3).layer(leaf.clone());
    for request in 0..10_000 {
        assert!(service.clone().oneshot(idempotent(request)).await.is_err());
    }
    let attempts = leaf.call_count();
    assert!((10_500..=11_000).contains(&attempts), "{attempts}");
}

/// A retry whose success refunds its token makes the budget endless: 5,000 retries on a budget of ten.
#[tokio::test(start_paused = true)]
async fn ret01_a_success_after_a_retry_refunds_nothing() {
    let script = (0..2_000).flat_map(|_| [Step::Fail(AMBIGUOUS), Step::Answer]);
    let leaf = Leaf::new(script);
    let budget = Budget::builder().ratio(0.0).reserve_per_second(0.0).burst(10).build().unwrap();
    let retry = RetryLayer::builder().backoff(Backoff::NONE).budget(budget.clone()).build().unwrap();
    let service = retry.layer(leaf);
    for request in 0..1_000 {
        let _ = service.clone().oneshot(idempotent(request)).await;
    }
    assert_eq!(budget.snapshot().granted, 10);
}

/// Whatever the jitter, no wait is longer than the cap, and waits are spread.
#[tokio::test(start_paused = true)]
async fn ret02_ret03_waits_are_jittered_and_the_cap_holds_after_jitter() {
    let cap = BASE * 4;
    for jitter in [Jitter::Full, Jitter::Equal, Jitter::Decorrelated] {
        let backoff = Backoff::exponential(BASE, cap).unwrap().with_jitter(jitter);
        let retry = RetryLayer::builder().max_attempts(40).backoff(backoff).build().unwrap();
        let leaf = Leaf::new([Step::Fail(AMBIGUOUS)]);
        let began = Instant::now();
        retry.layer(leaf.clone()).oneshot(idempotent(7)).await.unwrap_err();
        let (waits, total) = (u32::try_from(leaf.call_count()).unwrap() - 1, began.elapsed());
        assert_eq!(waits, 39);
        // A timer is good to a millisecond.
        assert!(total <= (cap + Duration::from_millis(1)) * waits, "{jitter:?}: {total:?}");
        assert!(
            total < cap * waits * 99 / 100 || jitter == Jitter::Decorrelated,
            "{jitter:?} spreads nothing"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_ends_the_call_with_the_real_error_at_once() {
    let budget = Budget::builder().ratio(0.0).reserve_per_second(0.0).burst(1).build().unwrap();
    assert!(budget.withdraw());
    let retry = RetryLayer::builder().budget(budget.clone()).build().unwrap();
    let began = Instant::now();
    let outcome = retry.layer(Leaf::new([Step::Fail(AMBIGUOUS)])).oneshot(idempotent(7)).await;
    assert_eq!(outcome, Err(Error::Failed(AMBIGUOUS, 1)));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(budget.snapshot().refused, 1);
}

#[tokio::test(start_paused = true)]
async fn no_token_is_taken_for_a_repeat_that_is_not_made() {
    let retry = exact();
    let spent = || retry.budget().snapshot().granted + retry.budget().snapshot().refused;
    for class in [CALLER, AMBIGUOUS] {
        retry.layer(Leaf::new([Step::Fail(class)])).oneshot(Request::new(7)).await.unwrap_err();
    }
    let mut late = idempotent(7);
    late.shorten_deadline(Instant::now() + BASE / 2);
    retry.layer(Leaf::new([Step::Fail(AMBIGUOUS)])).oneshot(late).await.unwrap_err();
    assert_eq!(spent(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_between_two_attempts_makes_no_further_one() {
    let leaf = Leaf::new([Step::Fail(AMBIGUOUS)]);
    let call = exact().layer(leaf.clone()).oneshot(idempotent(7));
    assert!(tokio::time::timeout(BASE / 2, call).await.is_err());
    tokio::time::sleep(BASE * 10).await;
    assert_eq!((leaf.call_count(), leaf.in_flight()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_repeat_waits_until_the_inner_service_is_ready_again() {
    let (leaf, gate) = (Leaf::new([Step::Fail(AMBIGUOUS), Step::Answer]), Gate::open());
    let mut service = no_wait(3).layer(Gated::new(leaf.clone(), &gate));
    let call = tokio::spawn(service.ready().await.unwrap().call(idempotent(7)));
    gate.set(false);
    tokio::time::sleep(BASE).await;
    assert_eq!(leaf.call_count(), 1);
    gate.set(true);
    assert_eq!(call.await.unwrap(), Ok(7));
}

#[tokio::test(start_paused = true)]
async fn a_classifier_can_make_a_failure_of_an_answer() {
    let bad_answer = palisade::classify_fn(|outcome: Result<&u32, &Error>| match outcome {
        Ok(13) => AMBIGUOUS,
        Ok(_) => Class::SUCCESS,
        Err(_) => CALLER,
    });
    let retry = RetryLayer::builder().classifier(bad_answer).backoff(Backoff::NONE).build().unwrap();
    let leaf = Leaf::new([Step::Answer]);
    // The last answer is what the caller gets, failure or not.
    assert_eq!(retry.layer(leaf.clone()).oneshot(idempotent(13)).await, Ok(13));
    assert_eq!(leaf.call_count(), 3);
}
