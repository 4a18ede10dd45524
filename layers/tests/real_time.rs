//! The layers on the clocks that production reads: the processor's counter, and tokio's timers that are not paused.
//!
//! All other tests read tokio's clock. Here the two have to agree.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::{Duration, Instant};

use palisade::{
    Backoff, DeadlineLayer, HedgeLayer, Rejection, RetryLayer, TimeoutLayer, TimeoutScope,
    clock::use_real_time,
    testkit::{AMBIGUOUS, Error, Leaf, Request, Step, idempotent},
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

/// What a timer may be late on a busy machine.
const LATE: Duration = Duration::from_millis(150);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn ended(began: Instant, after: Duration) {
    let took = began.elapsed();
    assert!(took >= after && took < after + LATE, "{took:?} instead of {after:?}");
}

#[tokio::test]
async fn a_deadline_runs_from_the_call_however_late_its_future_is_polled() {
    use_real_time();
    let mut service = DeadlineLayer::new(ms(300)).layer(Leaf::new([Step::Hang]));
    for held in [0, 50, 120, 200, 400] {
        let began = Instant::now();
        let call = service.ready().await.unwrap().call(Request::new(7));
        // As a task on a runtime that is behind with its work.
        std::thread::sleep(ms(held));
        let refused = Error::timed_out(TimeoutScope::Total, ms(300));
        assert_eq!(call.await, Err(refused));
        ended(began, ms(300).max(ms(held)));
    }
}

#[tokio::test]
async fn a_timeout_ends_in_time_again_and_again() {
    use_real_time();
    let service = TimeoutLayer::new(ms(20)).layer(Leaf::new([Step::Hang]));
    for _ in 0..20 {
        let began = Instant::now();
        let refused = Error::timed_out(TimeoutScope::Attempt, ms(20));
        assert_eq!(service.clone().oneshot(Request::new(7)).await, Err(refused));
        ended(began, ms(20));
    }
}

/// The timers of a stack, of which one is armed, each end what they are for.
#[tokio::test]
async fn every_limit_of_a_stack_ends_when_it_should() {
    use_real_time();
    let leaf = Leaf::new([Step::Hang]);
    let stack = || {
        ServiceBuilder::new()
            .layer(DeadlineLayer::new(ms(250)))
            .layer(RetryLayer::builder().backoff(Backoff::NONE).max_attempts(10).build().unwrap())
            .layer(HedgeLayer::builder().fixed_delay(ms(30)).max_extra_load(1.0).build().unwrap())
            .layer(TimeoutLayer::new(ms(100)))
            .service(leaf.clone())
    };
    let began = Instant::now();
    let refused = Rejection::timed_out(TimeoutScope::Total, ms(250));
    assert_eq!(stack().oneshot(idempotent(7)).await, Err(refused.into()));
    ended(began, ms(250));
    // Two attempts by 30 ms, both timed out by 130 ms, two more of the retry, and the deadline.
    assert_eq!((leaf.call_count(), leaf.in_flight()), (4, 0));
}

#[tokio::test]
async fn a_backoff_waits_as_long_as_it_says() {
    use_real_time();
    let wait = Backoff::exponential(ms(50), ms(50)).unwrap().with_jitter(palisade::Jitter::None);
    let retry = RetryLayer::builder().backoff(wait).build().unwrap();
    let service = retry.layer(Leaf::new([Step::Fail(AMBIGUOUS), Step::Fail(AMBIGUOUS), Step::Answer]));
    let began = Instant::now();
    assert_eq!(service.oneshot(idempotent(7)).await, Ok(7));
    ended(began, ms(100));
}

/// Thousands of calls on several threads, most of them answered, some timed out: sleeps are used again all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sleeps_that_are_used_again_wake_those_who_wait_for_them_now() {
    use_real_time();
    let service = TimeoutLayer::new(ms(40)).layer(Leaf::new(
        (0..20_000).map(|call| if call % 50 == 0 { Step::Hang } else { Step::AnswerAfter(ms(1)) }),
    ));
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move {
                let mut timed_out = 0;
                for _ in 0..100 {
                    let began = Instant::now();
                    if service.clone().oneshot(Request::new(7)).await.is_err() {
                        timed_out += 1;
                        assert!(began.elapsed() >= ms(40) && began.elapsed() < Duration::from_secs(5));
                    }
                }
                timed_out
            })
        })
        .collect();
    let mut timed_out = 0;
    for call in calls {
        timed_out += call.await.unwrap();
    }
    assert!(timed_out >= 200, "the script has 200 that hang: {timed_out}");
}
