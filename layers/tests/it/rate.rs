use std::{
    future::{Future, poll_fn},
    num::NonZeroU32,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use palisade::{
    DeadlineLayer, HasDeadline, Instant, RateLimitLayer, Rejection,
    rate::{RateLimitBuilder, RateLimitHandle},
    testkit::{Error, Gate, Gated, Leaf, Request, Step},
};
use tokio::time::{advance, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// A permit each 10 ms, and one at once.
fn hundred() -> RateLimitBuilder {
    RateLimitLayer::builder().rate(100, SECOND).burst(1).max_waiting(1_000_000).max_wait(SECOND * 60)
}

fn answering() -> Leaf {
    Leaf::new([Step::Answer])
}

fn limited(retry_after: Duration) -> Error {
    Rejection::rate_limited(Some(retry_after)).into()
}

/// Polls a future until it is ready, and counts how often.
async fn counted<F: Future>(future: F, polls: Arc<AtomicUsize>) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        polls.fetch_add(1, Ordering::SeqCst);
        future.as_mut().poll(cx)
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn calls_within_the_burst_pass_at_once_and_then_at_the_rate() {
    let service = hundred().burst(3).build().unwrap().layer(answering());
    let began = Instant::now();
    let mut passed = Vec::new();
    for _ in 0..6 {
        service.clone().oneshot(Request::new(1)).await.unwrap();
        passed.push(began.elapsed().as_millis());
    }
    // Timers are good to a millisecond.
    for (passed, due) in passed.into_iter().zip([0, 0, 0, 10, 20, 30]) {
        assert!((due..=due + 2).contains(&passed), "{passed} ms, not {due}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_kept_to_within_a_twentieth() {
    for permits in [3_u32, 70, 1_000, 5_000] {
        let layer = RateLimitLayer::per_second(NonZeroU32::new(permits).unwrap());
        let handle = layer.handle();
        let leaf = answering();
        let service = layer.layer(leaf.clone());
        let burst = u64::from(handle.snapshot().available);
        let callers: Vec<_> = (0..(permits / 4).clamp(2, 200))
            .map(|_| {
                let service = service.clone();
                tokio::spawn(async move {
                    loop {
                        let _ = service.clone().oneshot(Request::new(1)).await;
                    }
                })
            })
            .collect();
        sleep(SECOND * 10).await;
        callers.iter().for_each(tokio::task::JoinHandle::abort);
        let (admitted, expected) = (leaf.call_count() as u64, u64::from(permits) * 10);
        assert!(admitted <= expected + burst, "{admitted} of {expected}");
        assert!(admitted * 20 >= expected * 19, "{admitted} of {expected}");
    }
}

/// A limiter that wakes all who wait at each refill wakes N * N / 2 times.
#[tokio::test(start_paused = true)]
async fn rl02_a_refill_wakes_one_and_no_crowd() {
    const CALLS: usize = 200;
    let service = hundred().build().unwrap().layer(answering());
    let polls = Arc::new(AtomicUsize::new(0));
    let calls: Vec<_> = (0..CALLS)
        .map(|_| tokio::spawn(counted(service.clone().oneshot(Request::new(1)), Arc::clone(&polls))))
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(1));
    }
    // Once when it joins and once when its turn comes.
    assert!(polls.load(Ordering::SeqCst) <= CALLS * 2 + 2, "{polls:?}");
}

#[tokio::test(start_paused = true)]
async fn rl02_who_gives_up_wakes_no_crowd_either() {
    const CALLS: usize = 100;
    let service = hundred().build().unwrap().layer(answering());
    let polls = Arc::new(AtomicUsize::new(0));
    service.clone().oneshot(Request::new(1)).await.unwrap();
    let spawn = || tokio::spawn(counted(service.clone().oneshot(Request::new(1)), Arc::clone(&polls)));
    let calls: Vec<_> = (0..CALLS).map(|_| spawn()).collect();
    tokio::task::yield_now().await;
    let began = Instant::now();
    for call in calls.iter().step_by(2) {
        call.abort();
    }
    for (index, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.is_ok(), index % 2 == 1);
    }
    // Those behind have moved up, and each is woken for that at most once more.
    assert!(began.elapsed() <= Duration::from_millis(10 * 52), "{:?}", began.elapsed());
    assert!(polls.load(Ordering::SeqCst) <= CALLS * 3, "{polls:?}");
}

#[tokio::test(start_paused = true)]
async fn rl03_a_hopeless_wait_is_refused_at_once_and_says_when_to_come_back() {
    let layer = hundred().max_wait(MILLISECOND * 25).build().unwrap();
    let service = layer.layer(answering());
    let began = Instant::now();
    assert_eq!(service.clone().oneshot(Request::new(1)).await, Ok(1));
    let waiting: Vec<_> = (0..2).map(|_| tokio::spawn(service.clone().oneshot(Request::new(1)))).collect();
    tokio::task::yield_now().await;
    // Two are in line, so that the third permit from now is the next one for it.
    assert_eq!(service.clone().oneshot(Request::new(1)).await, Err(limited(MILLISECOND * 30)));
    assert_eq!(began.elapsed(), Duration::ZERO);
    for call in waiting {
        assert_eq!(call.await.unwrap(), Ok(1));
    }
    assert_eq!(layer.handle().snapshot().refused, 1);
}

#[tokio::test(start_paused = true)]
async fn rl03_a_wait_that_would_outlast_the_deadline_is_refused_at_once() {
    let stack = |limit| {
        ServiceBuilder::new()
            .layer(DeadlineLayer::new(limit))
            .layer(hundred().deadline_aware().build().unwrap())
            .service(answering())
    };
    let short = stack(MILLISECOND * 10);
    assert_eq!(short.clone().oneshot(Request::new(1)).await, Ok(1));
    let began = Instant::now();
    assert_eq!(short.oneshot(Request::new(1)).await, Err(limited(MILLISECOND * 10)));
    assert_eq!(began.elapsed(), Duration::ZERO);

    let enough = stack(MILLISECOND * 15);
    assert_eq!(enough.clone().oneshot(Request::new(1)).await, Ok(1));
    assert_eq!(enough.oneshot(Request::new(1)).await, Ok(1));

    let layer = RateLimitLayer::per_second(NonZeroU32::MIN).deadline_aware();
    let mut late = Request::new(1);
    late.shorten_deadline(Instant::now());
    let service = layer.layer(answering());
    service.clone().oneshot(Request::new(1)).await.unwrap();
    assert_eq!(service.oneshot(late).await, Err(limited(SECOND)));
}

/// A layer that waits for a token with the inner service readied keeps its place from others meanwhile.
#[tokio::test(start_paused = true)]
async fn rl04_who_waits_holds_no_place_in_the_inner_service() {
    let inner = tower::limit::ConcurrencyLimit::new(Gated::new(answering(), &Gate::open()), 1);
    let mut service = hundred().build().unwrap().layer(inner.clone());
    assert_eq!(service.ready().await.unwrap().call(Request::new(1)).await, Ok(1));
    // It is readied, and takes the only place there; then it has to wait.
    let mut waits = pin!(service.ready().await.unwrap().call(Request::new(2)));
    assert!(poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx))).await.is_pending());
    let began = Instant::now();
    let direct = tokio::time::timeout(SECOND, inner.oneshot(Request::new(3))).await;
    assert_eq!(direct, Ok(Ok(3)));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(waits.await, Ok(2));
    drop(service);
}

#[tokio::test(start_paused = true)]
async fn rl04_who_was_refused_holds_no_place_in_the_inner_service() {
    let inner = tower::limit::ConcurrencyLimit::new(answering(), 1);
    let mut service = hundred().refuse().build().unwrap().layer(inner.clone());
    assert_eq!(service.ready().await.unwrap().call(Request::new(1)).await, Ok(1));
    assert!(service.ready().await.unwrap().call(Request::new(2)).await.is_err());
    let direct = tokio::time::timeout(SECOND, inner.oneshot(Request::new(3))).await;
    assert_eq!(direct, Ok(Ok(3)));
    drop(service);
}

#[tokio::test(start_paused = true)]
async fn rl05_a_readied_clone_that_is_dropped_burns_no_permit() {
    let layer = hundred().burst(5).build().unwrap();
    let service = layer.layer(answering());
    for _ in 0..100 {
        service.clone().ready().await.unwrap();
    }
    assert_eq!(layer.handle().snapshot().available, 5);
    assert_eq!(layer.handle().snapshot().admitted, 0);
}

#[tokio::test(start_paused = true)]
async fn rl06_newcomers_do_not_overtake_those_in_line() {
    let service = hundred().build().unwrap().layer(answering());
    let order = Arc::new(Mutex::new(Vec::new()));
    let call = |number: u32| {
        let (service, order) = (service.clone(), Arc::clone(&order));
        tokio::spawn(async move {
            service.oneshot(Request::new(number)).await.unwrap();
            order.lock().unwrap().push(number);
        })
    };
    let mut calls: Vec<_> = (0..30).map(call).collect();
    // Newcomers all along, also at the very moments at which a permit becomes free.
    for number in 30..130 {
        sleep(Duration::from_micros(2_500)).await;
        calls.push(call(number));
    }
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), (0..130).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn rl06_a_newcomer_leaves_the_permit_to_a_front_that_has_not_looked_yet() {
    let service = hundred().build().unwrap().layer(answering());
    service.clone().oneshot(Request::new(1)).await.unwrap();
    let mut front = Box::pin(service.clone().oneshot(Request::new(2)));
    assert!(front.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    advance(MILLISECOND * 10).await;
    let mut newcomer = Box::pin(service.oneshot(Request::new(3)));
    assert!(newcomer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!((front.await, newcomer.await), (Ok(2), Ok(3)));
}

#[tokio::test(start_paused = true)]
async fn clones_and_services_of_one_layer_share_the_limit() {
    let layer = hundred().refuse().burst(2).build().unwrap();
    let (one, other) = (layer.layer(answering()), layer.clone().layer(answering()));
    assert!(one.clone().oneshot(Request::new(1)).await.is_ok());
    assert!(other.oneshot(Request::new(1)).await.is_ok());
    assert_eq!(one.oneshot(Request::new(1)).await, Err(limited(MILLISECOND * 10)));
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_refuses_never_waits() {
    for builder in [hundred().refuse(), hundred().max_wait(Duration::ZERO), hundred().max_waiting(0)] {
        let layer = builder.build().unwrap();
        let service = layer.layer(answering());
        assert!(service.clone().oneshot(Request::new(1)).await.is_ok());
        let mut call = pin!(service.clone().oneshot(Request::new(1)));
        let first_poll = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(first_poll, Poll::Ready(Err(limited(MILLISECOND * 10))));
        advance(MILLISECOND * 10).await;
        assert!(service.oneshot(Request::new(1)).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_line_refuses_at_once() {
    let layer = hundred().max_waiting(2).build().unwrap();
    let service = layer.layer(answering());
    let calls: Vec<_> = (0..5).map(|_| tokio::spawn(service.clone().oneshot(Request::new(1)))).collect();
    tokio::task::yield_now().await;
    assert_eq!(layer.handle().snapshot().waiting, 2);
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(call.await.unwrap());
    }
    let full = || Err(limited(MILLISECOND * 30));
    assert_eq!(outcomes, [Ok(1), Ok(1), Ok(1), full(), full()]);
}

#[tokio::test(start_paused = true)]
async fn each_key_has_a_limit_of_its_own() {
    let layer = hundred().refuse().build_keyed(100, |request: &Request| **request % 3).unwrap();
    let service = layer.layer(answering());
    for key in 0..3 {
        assert!(service.clone().oneshot(Request::new(key)).await.is_ok());
        assert!(service.clone().oneshot(Request::new(key + 3)).await.is_err());
    }
    let handle = layer.handle();
    assert_eq!(handle.len(), 3);
    let snapshot = handle.snapshot(&1).unwrap();
    assert_eq!((snapshot.available, snapshot.admitted, snapshot.refused), (0, 1, 1));
    assert!(handle.snapshot(&9).is_none());
}

#[tokio::test(start_paused = true)]
async fn the_number_of_keys_is_bounded_and_who_waits_keeps_its_limit() {
    let layer = hundred().build_keyed(8, |request: &Request| **request).unwrap();
    let service = layer.layer(answering());
    service.clone().oneshot(Request::new(0)).await.unwrap();
    let waiting = tokio::spawn(service.clone().oneshot(Request::new(0)));
    tokio::task::yield_now().await;
    for key in 1..1_000 {
        service.clone().oneshot(Request::new(key)).await.unwrap();
    }
    assert!(layer.handle().len() <= 9, "{}", layer.handle().len());
    assert_eq!(layer.handle().snapshot(&0).unwrap().waiting, 1);
    assert_eq!(waiting.await.unwrap(), Ok(0));
}

#[tokio::test(start_paused = true)]
async fn a_request_takes_as_many_permits_as_it_weighs() {
    let layer = hundred().burst(10).weight(|request: &Request| **request).build().unwrap();
    let (service, began) = (layer.layer(answering()), Instant::now());
    assert_eq!(service.clone().oneshot(Request::new(10)).await, Ok(10));
    assert_eq!(service.clone().oneshot(Request::new(0)).await, Ok(0));
    assert_eq!(began.elapsed(), Duration::ZERO, "what weighs nothing passes free");
    assert_eq!(service.clone().oneshot(Request::new(5)).await, Ok(5));
    assert!(began.elapsed() >= MILLISECOND * 50);
    let never = Rejection::rate_limited(None).into();
    let began = Instant::now();
    assert_eq!(service.oneshot(Request::new(11)).await, Err(never));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_is_heavy_counts_for_those_behind_it() {
    let builder = hundred().burst(10).max_wait(MILLISECOND * 105);
    let service = builder.weight(|request: &Request| **request).build().unwrap().layer(answering());
    service.clone().oneshot(Request::new(10)).await.unwrap();
    let heavy = tokio::spawn(service.clone().oneshot(Request::new(10)));
    tokio::task::yield_now().await;
    assert_eq!(service.clone().oneshot(Request::new(1)).await, Err(limited(MILLISECOND * 110)));
    assert_eq!(heavy.await.unwrap(), Ok(10));
}

/// One that waits for a long time under the old rate.
async fn waiting_at_a_slow_rate() -> (RateLimitHandle, tokio::task::JoinHandle<Result<u32, Error>>, Instant) {
    let layer = hundred().rate(1, SECOND * 10).build().unwrap();
    let service = layer.layer(answering());
    service.clone().oneshot(Request::new(1)).await.unwrap();
    let call = tokio::spawn(service.oneshot(Request::new(2)));
    tokio::task::yield_now().await;
    assert_eq!(layer.handle().snapshot().waiting, 1);
    (layer.handle(), call, Instant::now())
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_served_at_a_rate_that_was_raised_meanwhile() {
    let (handle, call, began) = waiting_at_a_slow_rate().await;
    handle.set_rate(100, SECOND, Some(1)).unwrap();
    assert_eq!(call.await.unwrap(), Ok(2));
    assert!(began.elapsed() <= MILLISECOND * 12, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_too_long_at_a_rate_that_was_lowered_is_refused_then() {
    let (handle, call, began) = waiting_at_a_slow_rate().await;
    handle.set_rate(1, SECOND * 3_600, Some(1)).unwrap();
    assert_eq!(call.await.unwrap(), Err(limited(SECOND * 3_600)));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(handle.set_rate(0, SECOND, None).is_err());
    assert_eq!(handle.snapshot().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_rate_holds_for_every_key_known_or_new() {
    let layer = hundred().refuse().build_keyed(10, |request: &Request| **request).unwrap();
    let service = layer.layer(answering());
    service.clone().oneshot(Request::new(1)).await.unwrap();
    layer.handle().set_rate(1, SECOND * 60, None).unwrap();
    service.clone().oneshot(Request::new(2)).await.unwrap();
    for key in [1, 2] {
        assert_eq!(service.clone().oneshot(Request::new(key)).await, Err(limited(SECOND * 60)));
    }
}

/// At each point: in line, with the permits but before the inner service is ready, and during the call.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_before_it_is_made_loses_no_permit() {
    for polls in 0..6 {
        let (leaf, gate) = (Leaf::new([Step::Hang]), Gate::default());
        let layer = hundred().burst(4).build().unwrap();
        let handle = layer.handle();
        let service = layer.layer(Gated::new(leaf.clone(), &gate));
        let calls: Vec<_> = (0..8).map(|_| Box::pin(service.clone().oneshot(Request::new(1)))).collect();
        let mut calls: std::collections::VecDeque<_> = calls.into();
        for _ in 0..polls {
            for call in &mut calls {
                assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
            advance(MILLISECOND).await;
        }
        assert_eq!(handle.snapshot().waiting, if polls == 0 { 0 } else { 4 });
        while let Some(call) = calls.pop_front() {
            drop(call);
        }
        assert_eq!(leaf.call_count(), 0);
        let snapshot = handle.snapshot();
        assert_eq!((snapshot.available, snapshot.waiting), (4, 0), "after {polls} polls");
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_comes_back_goes_to_the_front_of_the_line() {
    let gate = Gate::default();
    let service = hundred().rate(1, SECOND * 10).build().unwrap().layer(Gated::new(answering(), &gate));
    let mut holder = Box::pin(service.clone().oneshot(Request::new(1)));
    assert!(holder.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    // Before the next one looks, so that it is not woken by that.
    gate.set(true);
    let next = tokio::spawn(service.oneshot(Request::new(2)));
    tokio::task::yield_now().await;
    let began = Instant::now();
    drop(holder);
    assert_eq!(next.await.unwrap(), Ok(2));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_permit_of_a_call_that_was_made_does_not_come_back() {
    let layer = hundred().burst(2).build().unwrap();
    let gate = Gate::default();
    let service = layer.layer(Gated::new(Leaf::new([Step::Hang]), &gate));
    let mut call = Box::pin(service.oneshot(Request::new(1)));
    for _ in 0..2 {
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        gate.set(true);
    }
    drop(call);
    assert_eq!(layer.handle().snapshot().available, 1);
}

/// On the threads' own time, with some that give up in line.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_wait_together_and_nobody_is_left_in_line() {
    let layer =
        RateLimitLayer::builder().rate(20_000, SECOND).burst(60).max_wait(SECOND * 60).build().unwrap();
    let leaf = answering();
    let (service, began) = (layer.layer(leaf.clone()), Instant::now());
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let service = service.clone();
            tokio::spawn(async move {
                for round in 0..100 {
                    let mut call = Box::pin(service.clone().oneshot(Request::new(1)));
                    if (task + round) % 5 == 0 {
                        let _ = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
                    } else {
                        call.await.unwrap();
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        tokio::time::timeout(SECOND * 30, task).await.expect("a wake-up was lost").unwrap();
    }
    let earned = began.elapsed().as_secs_f64() * 20_000.0 + 61.0;
    assert!(f64::from(u32::try_from(leaf.call_count()).unwrap()) <= earned, "more than {earned}");
    assert_eq!(layer.handle().snapshot().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn any_request_will_do_unless_the_layer_is_to_know_its_deadline() {
    let service =
        hundred().build().unwrap().layer(service_fn(async |text: &'static str| Ok::<_, Error>(text)));
    assert_eq!(service.oneshot("no capabilities at all").await, Ok("no capabilities at all"));
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let day = SECOND * 86_400;
    let cases = [
        (RateLimitLayer::builder(), "rate"),
        (hundred().rate(0, SECOND), "rate"),
        (hundred().rate(1, Duration::ZERO), "rate"),
        (hundred().rate(1, Duration::from_micros(999)), "rate"),
        (hundred().rate(1, day * 367), "rate"),
        (hundred().rate(1_000_001, MILLISECOND), "rate"),
        (hundred().burst(0), "burst"),
        (hundred().burst(u32::MAX), "burst"),
        (hundred().rate(1, SECOND * 600).burst(1 << 24), "burst"),
        (hundred().max_wait(SECOND * 3_601), "max_wait"),
        (hundred().max_waiting(1_000_001), "max_waiting"),
    ];
    for (builder, setting) in cases {
        let error = builder.build().unwrap_err();
        assert_eq!(error.setting(), setting, "{error}");
    }
    assert_eq!(hundred().build_keyed(0, |_: &u32| 0).unwrap_err().setting(), "max_keys");
    assert_eq!(hundred().rate(40, SECOND).build().unwrap().handle().snapshot().available, 1);
    let slow = hundred().rate(1, SECOND * 600).burst(1_000_000).build().unwrap();
    let shown = slow.handle().snapshot();
    assert_eq!(
        (shown.available, shown.permits, shown.per, shown.burst),
        (1_000_000, 1, SECOND * 600, 1_000_000)
    );
    let default = RateLimitLayer::per_second(NonZeroU32::new(40).unwrap());
    assert_eq!(default.handle().snapshot().available, 4);
}

#[test]
fn services_and_handles_are_send_sync_clone_and_their_futures_small() {
    fn all<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: &T) {}
    fn future<S: Service<Request, Future: Send + 'static>>(_: &S) -> usize {
        size_of::<S::Future>()
    }
    let layer = hundred().build().unwrap();
    let keyed = hundred().build_keyed(9, |request: &Request| **request).unwrap();
    all(&layer);
    all(&keyed);
    all(&layer.handle());
    all(&keyed.handle());
    all(&layer.layer(answering()));
    all(&keyed.layer(answering()));
    let bytes = future(&layer.layer(answering()));
    assert!(bytes <= 320, "{bytes} bytes");
}

#[test]
fn refusals_and_waits_are_counted() {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
            let layer = hundred().max_waiting(2).named("tenants").build().unwrap();
            let service = layer.layer(answering());
            let calls: Vec<_> =
                (0..5).map(|_| tokio::spawn(service.clone().oneshot(Request::new(1)))).collect();
            for call in calls {
                let _ = call.await.unwrap();
            }
        });
    });
    let metrics = recorder.snapshotter().snapshot().into_vec();
    let value = |name: &str| {
        let (_, _, _, value) = metrics.iter().find(|(key, ..)| key.key().name() == name).unwrap();
        match value {
            DebugValue::Counter(count) => f64::from(u32::try_from(*count).unwrap()),
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(_) => unreachable!(),
        }
    };
    let values = ["refused_total", "waited_total", "waiting"]
        .map(|name| value(&format!("palisade_rate_limit_{name}")));
    assert!(values.iter().zip([2.0, 2.0, 0.0]).all(|(is, due)| (is - due).abs() < 0.1), "{values:?}");
}
