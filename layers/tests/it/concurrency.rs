use std::{
    future::{Future, poll_fn},
    num::NonZeroU32,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use palisade::{
    ConcurrencyLimitLayer, DeadlineLayer, HasDeadline, Instant, Rejection, TimeoutScope,
    concurrency::ConcurrencyLimitBuilder,
    testkit::{Error, Gate, Gated, Leaf, Request, Step},
};
use tokio::time::sleep;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const MILLISECOND: Duration = Duration::from_millis(1);

fn limit(calls: u32) -> ConcurrencyLimitBuilder {
    ConcurrencyLimitLayer::builder().limit(calls).queue_timeout(Duration::from_secs(60))
}

fn slow() -> Leaf {
    Leaf::new([Step::AnswerAfter(MILLISECOND * 10)])
}

fn full() -> Error {
    Rejection::ConcurrencyLimited.into()
}

fn timed_out(limit: Duration) -> Error {
    Error::timed_out(TimeoutScope::Queue, limit)
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A bulkhead that sets a timer even where nobody is to wait needs a millisecond to refuse. Without a runtime a timer
/// would panic.
#[test]
fn bh01_a_full_bulkhead_refuses_at_once_and_needs_no_timer() {
    for builder in [limit(1).max_waiting(0), limit(1).queue_timeout(Duration::ZERO)] {
        let service = builder.build().unwrap().layer(Leaf::new([Step::Hang]));
        let mut first = pin!(service.clone().oneshot(Request::new(1)));
        assert!(poll_once(first.as_mut()).is_pending());
        let began = std::time::Instant::now();
        for _ in 0..100 {
            assert_eq!(poll_once(pin!(service.clone().oneshot(Request::new(2)))), Poll::Ready(Err(full())));
        }
        assert!(began.elapsed() < MILLISECOND * 100, "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn as_many_calls_are_in_flight_as_the_limit_says() {
    let (leaf, most) = (slow(), AtomicUsize::new(0));
    let service = limit(3).build().unwrap().layer(leaf.clone());
    let began = Instant::now();
    let calls: Vec<_> = (0..30).map(|n| tokio::spawn(service.clone().oneshot(Request::new(n)))).collect();
    for (number, call) in (0..).zip(calls) {
        assert_eq!(call.await.unwrap(), Ok(number));
        most.fetch_max(leaf.in_flight(), Ordering::SeqCst);
    }
    assert_eq!(most.into_inner(), 3);
    assert!(began.elapsed() <= MILLISECOND * 120, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn places_go_to_those_who_came_first_and_nobody_else_is_woken() {
    const CALLS: u32 = 100;
    let service = limit(1).build().unwrap().layer(slow());
    let (order, polls) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU32::new(0)));
    let call = |number| {
        let (service, order, polls) = (service.clone(), Arc::clone(&order), Arc::clone(&polls));
        tokio::spawn(async move {
            let mut call = pin!(service.oneshot(Request::new(number)));
            poll_fn(|cx| {
                polls.fetch_add(1, Ordering::SeqCst);
                call.as_mut().poll(cx)
            })
            .await
            .unwrap();
            order.lock().unwrap().push(number);
        })
    };
    let mut calls: Vec<_> = (0..CALLS / 2).map(call).collect();
    for number in CALLS / 2..CALLS {
        sleep(MILLISECOND * 2).await;
        calls.push(call(number));
    }
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), (0..CALLS).collect::<Vec<_>>());
    // One to join, one when its turn comes, one when it is answered.
    assert!(polls.load(Ordering::SeqCst) <= CALLS * 3, "{polls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_the_queue_timeout() {
    let layer = limit(1).queue_timeout(MILLISECOND * 30).build().unwrap();
    let (leaf, handle) = (Leaf::new([Step::Hang]), layer.handle());
    let service = layer.layer(leaf.clone());
    let mut holder = pin!(service.clone().oneshot(Request::new(1)));
    assert!(poll_once(holder.as_mut()).is_pending());
    let began = Instant::now();
    assert_eq!(service.oneshot(Request::new(2)).await, Err(timed_out(MILLISECOND * 30)));
    assert!((30..=32).contains(&began.elapsed().as_millis()));
    let snapshot = handle.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.waiting, snapshot.refused), (1, 0, 1));
    assert_eq!(leaf.call_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_the_deadline_of_the_request() {
    let service = limit(1).deadline_aware().build().unwrap().layer(Leaf::new([Step::Hang]));
    let mut holder = pin!(service.clone().oneshot(Request::new(1)));
    assert!(poll_once(holder.as_mut()).is_pending());
    let began = Instant::now();
    let mut request = Request::new(2);
    request.shorten_deadline(began + MILLISECOND * 20);
    assert_eq!(service.clone().oneshot(request.clone()).await, Err(timed_out(MILLISECOND * 20)));
    assert!((20..=22).contains(&began.elapsed().as_millis()));
    // By now it has passed.
    let began = Instant::now();
    assert_eq!(service.clone().oneshot(request).await, Err(timed_out(Duration::ZERO)));
    assert_eq!(began.elapsed(), Duration::ZERO);
    // A deadline layer around it ends the call at the same time, whoever is polled first.
    let outer = DeadlineLayer::new(MILLISECOND * 20).layer(service);
    assert!(outer.oneshot(Request::new(3)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_full_line_refuses_at_once() {
    let layer = limit(1).max_waiting(2).build().unwrap();
    let service = layer.layer(slow());
    let calls: Vec<_> = (0..5).map(|n| tokio::spawn(service.clone().oneshot(Request::new(n)))).collect();
    tokio::task::yield_now().await;
    assert_eq!(layer.handle().snapshot().waiting, 2);
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(call.await.unwrap());
    }
    assert_eq!(outcomes, [Ok(0), Ok(1), Ok(2), Err(full()), Err(full())]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_holds_no_place_in_the_inner_service() {
    let inner = tower::limit::ConcurrencyLimit::new(Gated::new(slow(), &Gate::open()), 2);
    let mut service = limit(1).build().unwrap().layer(inner.clone());
    let mut first = Box::pin(service.ready().await.unwrap().call(Request::new(1)));
    assert!(poll_once(first.as_mut()).is_pending());
    // It is readied, and takes the last place there; then it has to wait.
    let mut waits = Box::pin(service.ready().await.unwrap().call(Request::new(2)));
    assert!(poll_once(waits.as_mut()).is_pending());
    let began = Instant::now();
    tokio::time::timeout(MILLISECOND, inner.clone().ready()).await.unwrap().unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!((first.await, waits.await), (Ok(1), Ok(2)));
    drop(service);
}

#[tokio::test(start_paused = true)]
async fn who_was_refused_holds_no_place_in_the_inner_service() {
    let inner = tower::limit::ConcurrencyLimit::new(slow(), 2);
    let mut service = limit(1).max_waiting(0).build().unwrap().layer(inner.clone());
    let first = service.ready().await.unwrap().call(Request::new(1));
    assert_eq!(service.ready().await.unwrap().call(Request::new(2)).await, Err(full()));
    let began = Instant::now();
    tokio::time::timeout(MILLISECOND, inner.clone().ready()).await.unwrap().unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(first.await, Ok(1));
    drop(service);
}

#[tokio::test(start_paused = true)]
async fn a_readied_clone_that_is_dropped_takes_no_place() {
    let layer = limit(1).build().unwrap();
    let service = layer.layer(slow());
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut clone = service.clone();
        clone.ready().await.unwrap();
        held.push(clone);
    }
    assert_eq!(layer.handle().snapshot().in_flight, 0);
    assert_eq!(service.oneshot(Request::new(1)).await, Ok(1));
}

/// At each point: in line, with a place but before the inner service is ready, and during the call.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_at_any_point_gives_its_place_back() {
    for polls in 0..5 {
        let (leaf, gate) = (Leaf::new([Step::Hang]), Gate::default());
        let layer = limit(2).build().unwrap();
        let (service, handle) = (layer.layer(Gated::new(leaf.clone(), &gate)), layer.handle());
        let mut calls: Vec<_> = (0..6).map(|n| Box::pin(service.clone().oneshot(Request::new(n)))).collect();
        for poll in 0..polls {
            gate.set(poll > 1);
            for call in &mut calls {
                assert!(poll_once(call.as_mut()).is_pending());
            }
        }
        if polls > 0 {
            assert_eq!((handle.snapshot().in_flight, handle.snapshot().waiting), (2, 4));
        }
        assert_eq!(leaf.call_count(), if polls > 2 { 2 } else { 0 });
        while !calls.is_empty() {
            drop(calls.swap_remove(calls.len() / 2));
        }
        let snapshot = handle.snapshot();
        assert_eq!(
            (snapshot.in_flight, snapshot.waiting, leaf.in_flight()),
            (0, 0, 0),
            "after {polls} polls"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_place_of_a_dropped_call_goes_to_the_next_in_line() {
    let service = limit(1).build().unwrap().layer(Leaf::new([Step::Hang, Step::Answer]));
    let mut holder = Box::pin(service.clone().oneshot(Request::new(1)));
    assert!(poll_once(holder.as_mut()).is_pending());
    let spawn = |n| tokio::spawn(service.clone().oneshot(Request::new(n)));
    let (gives_up, next) = (spawn(2), spawn(3));
    tokio::task::yield_now().await;
    // The place is offered to the one in front, which is gone before it can take it.
    drop(holder);
    gives_up.abort();
    assert!(gives_up.await.is_err());
    let began = Instant::now();
    assert_eq!(next.await.unwrap(), Ok(3));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_answered_call_gives_its_place_back_while_its_future_is_still_held() {
    let layer = limit(1).build().unwrap();
    let mut service = layer.layer(slow());
    let mut call = Box::pin(service.ready().await.unwrap().call(Request::new(1)));
    (&mut call).await.unwrap();
    assert_eq!(layer.handle().snapshot().in_flight, 0);
    drop(call);
}

#[tokio::test(start_paused = true)]
async fn a_raised_limit_lets_those_in_line_go_on() {
    let layer = limit(1).build().unwrap();
    let leaf = Leaf::new([Step::Hang]);
    let service = layer.layer(leaf.clone());
    let calls: Vec<_> = (0..6).map(|n| tokio::spawn(service.clone().oneshot(Request::new(n)))).collect();
    tokio::task::yield_now().await;
    assert_eq!(leaf.in_flight(), 1);
    layer.handle().set_limit(4).unwrap();
    sleep(MILLISECOND).await;
    assert_eq!((leaf.in_flight(), layer.handle().snapshot().waiting), (4, 2));
    drop(calls);
}

#[tokio::test(start_paused = true)]
async fn a_lowered_limit_lets_those_in_flight_finish() {
    let layer = limit(3).build().unwrap();
    let leaf = slow();
    let service = layer.layer(leaf.clone());
    let calls: Vec<_> = (0..6).map(|n| tokio::spawn(service.clone().oneshot(Request::new(n)))).collect();
    tokio::task::yield_now().await;
    layer.handle().set_limit(1).unwrap();
    assert_eq!((leaf.in_flight(), layer.handle().snapshot().limit), (3, 1));
    sleep(MILLISECOND * 15).await;
    assert_eq!(leaf.in_flight(), 1);
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    assert!(layer.handle().set_limit(0).is_err());
}

#[tokio::test(start_paused = true)]
async fn clones_and_services_of_one_layer_share_the_limit() {
    let layer = ConcurrencyLimitLayer::new(NonZeroU32::MIN).deadline_aware();
    let (one, other) = (layer.layer(Leaf::new([Step::Hang])), layer.clone().layer(slow()));
    let mut holder = Box::pin(one.clone().oneshot(Request::new(1)));
    assert!(poll_once(holder.as_mut()).is_pending());
    assert!(poll_once(pin!(one.oneshot(Request::new(2)))).is_pending());
    assert!(poll_once(pin!(other.clone().oneshot(Request::new(2)))).is_pending());
    drop(holder);
    assert_eq!(other.oneshot(Request::new(2)).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn each_key_has_a_limit_of_its_own() {
    let builder = limit(1).max_waiting(0);
    let layer = builder.build_keyed(4, |request: &Request| **request / 10).unwrap();
    let handle = layer.handle();
    let service = layer.layer(Leaf::new([Step::Hang]));
    let mut calls: Vec<_> = [10, 20].map(|n| Box::pin(service.clone().oneshot(Request::new(n)))).into();
    assert!(calls.iter_mut().all(|call| poll_once(call.as_mut()).is_pending()));
    assert_eq!(service.clone().oneshot(Request::new(11)).await, Err(full()));
    // However many other keys come by, what is in flight is not forgotten.
    for key in 3..200 {
        assert!(poll_once(pin!(service.clone().oneshot(Request::new(key * 10)))).is_pending());
    }
    assert!(handle.len() <= 5, "{}", handle.len());
    assert_eq!(service.clone().oneshot(Request::new(21)).await, Err(full()));
    assert_eq!(handle.snapshot(&1).unwrap().in_flight, 1);
    handle.set_limit(2).unwrap();
    assert!(poll_once(pin!(service.clone().oneshot(Request::new(11)))).is_pending());
    drop(calls);
    assert_eq!(handle.snapshot(&1).map(|snapshot| snapshot.in_flight), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_raised_limit_wakes_those_in_line_of_every_key() {
    let layer = limit(1).build_keyed(4, |request: &Request| **request % 2).unwrap();
    let leaf = Leaf::new([Step::Hang]);
    let service = layer.layer(leaf.clone());
    let calls: Vec<_> = (0..8).map(|n| tokio::spawn(service.clone().oneshot(Request::new(n)))).collect();
    tokio::task::yield_now().await;
    assert_eq!(leaf.in_flight(), 2);
    layer.handle().set_limit(3).unwrap();
    sleep(MILLISECOND).await;
    assert_eq!(leaf.in_flight(), 6);
    drop(calls);
}

#[tokio::test(start_paused = true)]
async fn any_request_and_any_stack_will_do() {
    let service = ServiceBuilder::new()
        .layer(limit(1).build().unwrap())
        .layer(tower::limit::ConcurrencyLimitLayer::new(1))
        .service(service_fn(async |text: &'static str| Ok::<_, Error>(text)));
    assert_eq!(service.oneshot("no capabilities at all").await, Ok("no capabilities at all"));
}

/// Counts who is inside, and the most that ever were.
#[derive(Clone, Default)]
struct Inside(Arc<(AtomicU32, AtomicU32)>);

impl Inside {
    fn enter(&self) -> Self {
        let (inside, most) = &*self.0;
        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        self.clone()
    }

    async fn stay(self) -> Result<(), Error> {
        struct Leave(Inside);
        impl Drop for Leave {
            fn drop(&mut self) {
                self.0.0.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let _leave = Leave(self);
        tokio::task::yield_now().await;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_never_exceed_the_limit_and_nobody_is_left_in_line() {
    let inside = Inside::default();
    let entered = inside.clone();
    let layer = limit(3).max_waiting(1_000_000).build().unwrap();
    let service = layer.layer(service_fn(move |(): ()| entered.enter().stay()));
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let service = service.clone();
            tokio::spawn(async move {
                for round in 0..200 {
                    let mut call = Box::pin(service.clone().oneshot(()));
                    // Some give up after the first poll: in line, or during the call.
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
        tokio::time::timeout(Duration::from_secs(30), task).await.expect("a wake-up was lost").unwrap();
    }
    let (still, most) = (inside.0.0.load(Ordering::SeqCst), inside.0.1.load(Ordering::SeqCst));
    assert!(still == 0 && most <= 3, "{still} still inside, {most} at most");
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.in_flight, snapshot.waiting), (0, 0));
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let cases = [
        (ConcurrencyLimitLayer::builder(), "limit"),
        (limit(0), "limit"),
        (limit(u32::MAX), "limit"),
        (limit(1).max_waiting(1_000_001), "max_waiting"),
        (limit(1).queue_timeout(Duration::MAX), "queue_timeout"),
    ];
    for (builder, setting) in cases {
        let error = builder.build().unwrap_err();
        assert_eq!(error.setting(), setting, "{error}");
    }
    assert_eq!(limit(1).build_keyed(0, |_: &u32| 0).unwrap_err().setting(), "max_keys");
}

#[test]
fn services_and_handles_are_send_sync_clone_and_their_futures_small() {
    fn all<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: &T) {}
    fn future<S: Service<Request, Future: Send + 'static>>(_: &S) -> usize {
        size_of::<S::Future>()
    }
    let layer = limit(1).build().unwrap();
    let keyed = limit(1).build_keyed(9, |request: &Request| **request).unwrap();
    all(&layer);
    all(&keyed);
    all(&layer.handle());
    all(&keyed.handle());
    all(&layer.layer(slow()));
    all(&keyed.layer(slow()));
    let bytes = future(&layer.layer(slow()));
    assert!(bytes <= 256, "{bytes} bytes");
}

#[test]
fn refusals_waits_and_timeouts_are_counted() {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
            let layer =
                limit(1).max_waiting(2).queue_timeout(MILLISECOND * 15).named("reads").build().unwrap();
            let service = layer.layer(slow());
            let calls: Vec<_> =
                (0..4).map(|n| tokio::spawn(service.clone().oneshot(Request::new(n)))).collect();
            let mut outcomes = Vec::new();
            for call in calls {
                outcomes.push(call.await.unwrap());
            }
            assert_eq!(outcomes, [Ok(0), Ok(1), Err(timed_out(MILLISECOND * 15)), Err(full())]);
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
    let names = [
        "palisade_concurrency_refused_total",
        "palisade_timeouts_total",
        "palisade_concurrency_waited_total",
        "palisade_concurrency_waiting",
    ];
    let values = names.map(value);
    assert!(values.iter().zip([1.0, 1.0, 2.0, 0.0]).all(|(is, due)| (is - due).abs() < 0.1), "{values:?}");
}
