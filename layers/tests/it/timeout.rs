use std::{future::poll_fn, task::Poll, time::Duration};

use palisade::{
    Rejection, TimeoutLayer, TimeoutScope, limit_fn,
    testkit::{Error, Gate, Gated, Leaf, Request, Step},
};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};

const LIMIT: Duration = Duration::from_millis(100);

fn timed_out(limit: Duration) -> Error {
    Error::timed_out(TimeoutScope::Attempt, limit)
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_passes() {
    let leaf = Leaf::new([Step::AnswerAfter(LIMIT * 99 / 100)]);
    assert_eq!(TimeoutLayer::new(LIMIT).layer(leaf).oneshot(Request::new(7)).await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_ends_at_the_limit_and_leaves_nothing_behind() {
    let leaf = Leaf::new([Step::Hang]);
    let began = Instant::now();
    let outcome = TimeoutLayer::new(LIMIT).layer(leaf.clone()).oneshot(Request::new(7)).await;
    assert_eq!(outcome, Err(timed_out(LIMIT)));
    assert!((LIMIT..LIMIT + Duration::from_millis(2)).contains(&began.elapsed()));
    assert_eq!(leaf.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_attempt_is_gone_while_the_future_that_timed_out_is_still_held() {
    let leaf = Leaf::new([Step::Hang]);
    let mut call = Box::pin(TimeoutLayer::new(LIMIT).layer(leaf.clone()).oneshot(Request::new(7)));
    assert!((&mut call).await.is_err());
    assert_eq!(leaf.in_flight(), 0);
    drop(call);
}

/// An outer limit that does not see a queue in an inner `poll_ready` let a call of "one second" take thirty.
#[tokio::test(start_paused = true)]
async fn tl02_the_wait_for_the_inner_service_counts() {
    let (leaf, gate) = (Leaf::new([Step::Answer]), Gate::default());
    let service = TimeoutLayer::new(LIMIT).layer(Gated::new(leaf.clone(), &gate));
    let began = Instant::now();
    assert_eq!(service.oneshot(Request::new(7)).await, Err(timed_out(LIMIT)));
    assert!(began.elapsed() < LIMIT + Duration::from_millis(2));
    assert_eq!(leaf.call_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_becomes_ready_in_time_is_called() {
    let (leaf, gate) = (Leaf::new([Step::Answer]), Gate::default());
    let call = tokio::spawn(TimeoutLayer::new(LIMIT).layer(Gated::new(leaf, &gate)).oneshot(Request::new(7)));
    tokio::time::sleep(LIMIT / 2).await;
    gate.set(true);
    assert_eq!(call.await.unwrap(), Ok(7));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_there_when_the_limit_ends_counts() {
    let leaf = Leaf::new([Step::AnswerAfter(LIMIT)]);
    assert_eq!(TimeoutLayer::new(LIMIT).layer(leaf).oneshot(Request::new(7)).await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn each_request_can_have_a_limit_of_its_own() {
    let limit = limit_fn(|request: &Request| Duration::from_millis(u64::from(**request)));
    let service = TimeoutLayer::new(limit).layer(Leaf::new([Step::Hang]));
    for millis in [10, 70] {
        let outcome = service.clone().oneshot(Request::new(millis)).await;
        assert_eq!(outcome, Err(timed_out(Duration::from_millis(u64::from(millis)))));
    }
}

/// tokio lets a task that never waits keep its timers from firing; a limit has to end such a task too.
#[tokio::test]
async fn a_call_that_uses_up_the_tasks_budget_at_each_poll_is_still_ended() {
    let greedy = service_fn(|_: Request| {
        poll_fn(|cx| {
            while let Poll::Ready(spent) = tokio::task::coop::poll_proceed(cx) {
                spent.made_progress();
            }
            cx.waker().wake_by_ref();
            Poll::<Result<u32, Error>>::Pending
        })
    });
    let service = TimeoutLayer::new(Duration::from_millis(20)).layer(greedy);
    let ended = tokio::time::timeout(Duration::from_secs(5), service.oneshot(Request::new(7))).await;
    assert!(ended.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_refuses_what_is_not_answered_at_once() {
    let service = TimeoutLayer::new(Duration::ZERO);
    assert_eq!(service.layer(Leaf::new([Step::Answer])).oneshot(Request::new(7)).await, Ok(7));
    assert!(service.layer(Leaf::new([Step::Hang])).oneshot(Request::new(7)).await.is_err());
}

#[test]
fn a_limit_of_zero_from_configuration_is_refused_with_what_to_do() {
    let error = TimeoutLayer::try_new(Duration::ZERO).unwrap_err();
    assert!(error.to_string().starts_with("`limit` must be above zero"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_longest_limit_there_is_does_no_harm() {
    let service = TimeoutLayer::new(Duration::MAX).layer(Leaf::new([Step::AnswerAfter(LIMIT)]));
    assert_eq!(service.oneshot(Request::new(7)).await, Ok(7));
}

#[tokio::test]
async fn a_service_that_is_broken_for_good_says_so_when_asked() {
    let broken = tower::util::BoxCloneService::new(Broken);
    let mut service = TimeoutLayer::new(LIMIT).layer(broken);
    let outcome = poll_fn(|cx| service.poll_ready(cx)).await;
    assert_eq!(outcome, Err(Error::Refused(Rejection::Closed)));
}

#[derive(Clone)]
struct Broken;

impl Service<Request> for Broken {
    type Response = u32;
    type Error = Error;
    type Future = std::future::Pending<Result<u32, Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Err(Rejection::Closed.into()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        std::future::pending()
    }
}
