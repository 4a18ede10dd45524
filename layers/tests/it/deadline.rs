use std::time::Duration;

use palisade::{
    Backoff, DeadlineLayer, Envelope, HasDeadline, Instant, Jitter, RetryLayer, TimeoutLayer, TimeoutScope,
    limit_fn,
    testkit::{AMBIGUOUS, Error, Gate, Gated, Leaf, Request, Step, idempotent},
};
use tower::{Layer, ServiceBuilder, ServiceExt};

const LIMIT: Duration = Duration::from_millis(200);

fn passed(limit: Duration) -> Error {
    Error::timed_out(TimeoutScope::Total, limit)
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_sees_the_deadline() {
    let leaf = Leaf::new([Step::Answer]);
    let began = Instant::now();
    DeadlineLayer::new(LIMIT).layer(leaf.clone()).oneshot(Request::new(7)).await.unwrap();
    assert_eq!(leaf.calls()[0].deadline(), Some(began + LIMIT));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_ends_at_the_deadline_and_leaves_nothing_behind() {
    let leaf = Leaf::new([Step::Hang]);
    let began = Instant::now();
    let outcome = DeadlineLayer::new(LIMIT).layer(leaf.clone()).oneshot(Request::new(7)).await;
    assert_eq!(outcome, Err(passed(LIMIT)));
    assert!(began.elapsed() < LIMIT + Duration::from_millis(2));
    assert_eq!(leaf.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_never_extended_by_a_layer_further_in() {
    let leaf = Leaf::new([Step::Hang]);
    let service = ServiceBuilder::new()
        .layer(DeadlineLayer::new(LIMIT))
        .layer(DeadlineLayer::new(LIMIT * 10))
        .service(leaf.clone());
    let began = Instant::now();
    assert!(service.oneshot(Request::new(7)).await.is_err());
    assert!(began.elapsed() < LIMIT + Duration::from_millis(2));
    assert_eq!(leaf.calls()[0].deadline(), Some(began + LIMIT));
}

#[tokio::test(start_paused = true)]
async fn a_layer_further_in_can_bring_the_deadline_forward() {
    let service = ServiceBuilder::new()
        .layer(DeadlineLayer::new(LIMIT))
        .layer(DeadlineLayer::new(LIMIT / 4))
        .service(Leaf::new([Step::Hang]));
    assert_eq!(service.oneshot(Request::new(7)).await, Err(passed(LIMIT / 4)));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_that_a_request_brings_holds_if_it_is_earlier() {
    let mut request = Request::new(7);
    request.shorten_deadline(Instant::now() + LIMIT / 2);
    let service = DeadlineLayer::new(LIMIT).layer(Leaf::new([Step::Hang]));
    assert_eq!(service.oneshot(request).await, Err(passed(LIMIT / 2)));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_deadline_has_passed_is_refused_without_a_call() {
    let leaf = Leaf::new([Step::Answer]);
    let mut late = Request::new(7);
    late.shorten_deadline(Instant::now() - Duration::from_secs(1));
    let service = DeadlineLayer::new(LIMIT).layer(leaf.clone());
    assert_eq!(service.oneshot(late).await, Err(passed(Duration::ZERO)));
    assert_eq!(leaf.call_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_only_what_the_request_brings_is_enforced() {
    let service = DeadlineLayer::from_request().layer(Leaf::new([Step::AnswerAfter(LIMIT * 100)]));
    assert_eq!(service.clone().oneshot(Request::new(7)).await, Ok(7));
    let mut bounded = Request::new(7);
    bounded.shorten_deadline(Instant::now() + LIMIT);
    assert_eq!(service.oneshot(bounded).await, Err(passed(LIMIT)));
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_the_inner_service_counts() {
    let leaf = Leaf::new([Step::Answer]);
    let service = DeadlineLayer::new(LIMIT).layer(Gated::new(leaf.clone(), &Gate::default()));
    assert_eq!(service.oneshot(Request::new(7)).await, Err(passed(LIMIT)));
    assert_eq!(leaf.call_count(), 0);
}

/// Attempts, waits between them and readiness: all of it ends in time.
#[tokio::test(start_paused = true)]
async fn the_deadline_bounds_all_attempts_and_waits_together() {
    for step in [Step::Hang, Step::Fail(AMBIGUOUS), Step::AnswerAfter(Duration::from_secs(60))] {
        let leaf = Leaf::new([step]);
        let backoff = Backoff::exponential(Duration::from_millis(30), Duration::from_secs(9)).unwrap();
        let service = ServiceBuilder::new()
            .layer(DeadlineLayer::new(LIMIT))
            .layer(
                RetryLayer::builder()
                    .max_attempts(100)
                    .backoff(backoff.with_jitter(Jitter::None))
                    .build()
                    .unwrap(),
            )
            .layer(TimeoutLayer::new(Duration::from_millis(50)))
            .service(leaf.clone());
        let began = Instant::now();
        service.oneshot(idempotent(7)).await.unwrap_err();
        assert!(began.elapsed() <= LIMIT + Duration::from_millis(2), "{:?}", began.elapsed());
        assert!((2..=4).contains(&leaf.call_count()), "{}", leaf.call_count());
        assert_eq!(leaf.in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn each_request_can_have_a_limit_of_its_own() {
    let by_request = limit_fn(|request: &Envelope<u32>| Duration::from_millis(u64::from(**request)));
    let service = DeadlineLayer::new(by_request).layer(Leaf::new([Step::Hang]));
    assert_eq!(service.oneshot(Request::new(40)).await, Err(passed(Duration::from_millis(40))));
}

#[test]
fn a_limit_of_zero_from_configuration_is_refused_with_what_to_do() {
    let error = DeadlineLayer::try_new(Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("`DeadlineLayer::from_request()`"), "{error}");
}
