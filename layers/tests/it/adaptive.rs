use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use metrics_util::debugging::DebuggingRecorder;
use palisade::{
    AdaptiveConcurrencyLayer, Effect, Fault, HedgeLayer, Instant, Rejection, TimeoutLayer,
    adaptive::AdaptiveConcurrencyBuilder,
    class::Class,
    testkit::{
        AMBIGUOUS, CALLER, Error, Gate, Gated, Leaf, NOT_APPLIED, Request, Step, Wakes, idempotent,
        poll_once, settle,
    },
};
use tokio::time::{advance, sleep, timeout};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, load_shed::LoadShedLayer, service_fn};

use crate::recorded::Recorded;

const MILLISECOND: Duration = Duration::from_millis(1);

fn adaptive() -> AdaptiveConcurrencyBuilder {
    AdaptiveConcurrencyLayer::builder()
}

fn with_limit(limit: u32) -> AdaptiveConcurrencyLayer {
    adaptive().initial(limit).build().unwrap()
}

fn slow() -> Leaf {
    Leaf::new([Step::AnswerAfter(MILLISECOND * 10)])
}

/// Calls that come again as soon as they end, for so long.
async fn press<S>(service: &S, callers: u32, time: Duration)
where
    S: Service<Request> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
    S::Error: Send,
{
    let until = Instant::now() + time;
    let tasks: Vec<_> = (0..callers)
        .map(|number| {
            let service = service.clone();
            tokio::spawn(async move {
                while Instant::now() < until {
                    if service.clone().oneshot(Request::new(number)).await.is_err() {
                        // Or the clock would stand still while a service refuses at once.
                        sleep(MILLISECOND).await;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

fn poll_ready<S: Service<Request>>(service: &mut S, wakes: &Wakes) -> Poll<bool> {
    service.poll_ready(&mut Context::from_waker(&wakes.waker())).map(|ready| ready.is_ok())
}

#[tokio::test(start_paused = true)]
async fn as_many_calls_are_in_flight_as_the_limit_says_and_the_rest_is_not_ready() {
    let layer = with_limit(2);
    let (leaf, wakes) = (Leaf::new([Step::Hang]), Wakes::new());
    let service = layer.layer(leaf.clone());
    let mut services: Vec<_> = (0..4).map(|_| service.clone()).collect();
    let ready: Vec<_> = services.iter_mut().map(|service| poll_ready(service, &wakes).is_ready()).collect();
    assert_eq!(ready, [true, true, false, false]);
    let call = services[0].call(Request::new(1));
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.limit, snapshot.in_flight, snapshot.waiting), (2, 2, 2));
    assert_eq!(wakes.count(), 0);
    drop(call);
    assert_eq!(wakes.count(), 1, "the front of the line, and nobody else");
    assert!(poll_ready(&mut services[3], &wakes).is_pending());
    assert!(poll_ready(&mut services[2], &wakes).is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_readied_service_that_is_dropped_gives_its_place_back_and_a_clone_has_none() {
    let layer = with_limit(1);
    let (service, wakes) = (layer.layer(slow()), Wakes::new());
    for _ in 0..100 {
        let mut readied = service.clone();
        assert!(poll_ready(&mut readied, &wakes).is_ready());
        assert!(poll_ready(&mut readied, &wakes).is_ready(), "it has one place, however often it is asked");
        assert!(poll_ready(&mut readied.clone(), &wakes).is_pending());
    }
    assert_eq!(layer.handle().snapshot().in_flight, 0);
    assert_eq!(service.oneshot(Request::new(1)).await, Ok(1));
}

/// A service that waits, unlike a future, may be left alone for ever.
#[tokio::test(start_paused = true)]
async fn a_waiting_service_that_is_left_alone_holds_one_place_and_blocks_nobody() {
    let layer = with_limit(2);
    let (service, wakes) = (layer.layer(Leaf::new([Step::Hang])), Wakes::new());
    let mut holders: Vec<_> = (0..2).map(|_| Box::pin(service.clone().oneshot(Request::new(1)))).collect();
    assert!(holders.iter_mut().all(|holder| poll_once(holder.as_mut()).is_pending()));
    let (mut idle, mut next) = (service.clone(), service.clone());
    assert!(poll_ready(&mut idle, &wakes).is_pending());
    assert!(poll_ready(&mut next, &wakes).is_pending());
    drop(holders);
    assert!(poll_ready(&mut next, &wakes).is_ready());
    let mut third = service.clone();
    assert!(poll_ready(&mut third, &wakes).is_pending());
    drop(idle);
    assert!(poll_ready(&mut third, &wakes).is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_at_any_point_gives_its_place_back() {
    for polls in 0..5 {
        let (leaf, gate) = (Leaf::new([Step::Hang]), Gate::default());
        let layer = with_limit(2);
        let service = layer.layer(Gated::new(leaf.clone(), &gate));
        let mut calls: Vec<_> = (0..6).map(|n| Box::pin(service.clone().oneshot(Request::new(n)))).collect();
        for poll in 0..polls {
            gate.set(poll > 1);
            for call in &mut calls {
                assert!(poll_once(call.as_mut()).is_pending());
            }
        }
        while !calls.is_empty() {
            drop(calls.swap_remove(calls.len() / 2));
        }
        let snapshot = layer.handle().snapshot();
        assert_eq!(
            (snapshot.in_flight, snapshot.waiting, leaf.in_flight()),
            (0, 0, 0),
            "after {polls} polls"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_answered_call_gives_its_place_back_while_its_future_is_still_held() {
    let layer = with_limit(1);
    let mut service = layer.layer(slow());
    let mut call = Box::pin(service.ready().await.unwrap().call(Request::new(1)));
    (&mut call).await.unwrap();
    assert_eq!(layer.handle().snapshot().in_flight, 0);
    drop(call);
}

#[test]
#[should_panic(expected = "called without having been polled ready")]
fn a_call_without_readiness_panics_as_towers_own_limit_does() {
    drop(with_limit(1).layer(slow()).call(Request::new(1)));
}

#[tokio::test(start_paused = true)]
async fn ada01_a_limit_that_fell_to_1_comes_back_by_itself() {
    let layer = adaptive().initial(200).build().unwrap();
    let (leaf, handle) = (slow(), layer.handle());
    let service = layer.layer(leaf.clone());
    press(&service, 200, Duration::from_secs(2)).await;
    leaf.follow([Step::Fail(NOT_APPLIED)]);
    press(&service, 200, Duration::from_secs(5)).await;
    assert_eq!(handle.snapshot().limit, 1);
    leaf.follow([Step::AnswerAfter(MILLISECOND * 10)]);
    press(&service, 200, Duration::from_secs(3)).await;
    assert!(handle.snapshot().limit >= 100, "{:?}", handle.snapshot());
}

#[tokio::test(start_paused = true)]
async fn ada02_a_caller_who_makes_one_call_at_a_time_does_not_raise_the_limit() {
    for initial in [1, 2, 20] {
        let layer = with_limit(initial);
        let service = layer.layer(Leaf::new([Step::AnswerAfter(MILLISECOND)]));
        press(&service, 1, Duration::from_secs(30)).await;
        // Twice as many as are used, and the one that is tried at 1.
        assert!(layer.handle().snapshot().limit <= initial.max(3), "{:?}", layer.handle().snapshot());
    }
}

#[tokio::test(start_paused = true)]
async fn ada03_calls_that_an_outer_timeout_drops_lower_the_limit() {
    let layer = adaptive().initial(100).build().unwrap();
    let service = layer.layer(Leaf::new([Step::Hang]));
    for _ in 0..20 {
        let calls: Vec<_> = (0..100)
            .map(|n| tokio::spawn(timeout(Duration::from_secs(2), service.clone().oneshot(Request::new(n)))))
            .collect();
        for call in calls {
            assert!(call.await.unwrap().is_err());
        }
    }
    let snapshot = layer.handle().snapshot();
    assert!(snapshot.limit <= 2 && snapshot.drops > 100, "{snapshot:?}");
}

#[tokio::test(start_paused = true)]
async fn ada04_a_burst_of_ten_errors_leaves_a_limit_of_a_thousand_nearly_as_it_is() {
    let layer = adaptive().initial(1_000).build().unwrap();
    let leaf = slow();
    let service = layer.layer(leaf.clone());
    press(&service, 1_000, MILLISECOND * 150).await;
    sleep(Duration::from_secs(2)).await;
    // Ends the window of those: the burst is nearly all that the next one sees.
    assert!(service.clone().oneshot(Request::new(1)).await.is_ok());
    leaf.follow([vec![Step::Fail(NOT_APPLIED); 10], vec![Step::AnswerAfter(MILLISECOND * 10)]].concat());
    for _ in 0..10 {
        assert!(service.clone().oneshot(Request::new(1)).await.is_err());
    }
    sleep(Duration::from_secs(2)).await;
    for _ in 0..3 {
        assert!(service.clone().oneshot(Request::new(1)).await.is_ok());
    }
    assert!(layer.handle().snapshot().limit >= 800, "{:?}", layer.handle().snapshot());
}

/// concurrency-limits#137: timeouts that all take the same time look like a service without a queue.
#[tokio::test(start_paused = true)]
async fn constant_timeouts_never_raise_the_limit() {
    let layer = adaptive().initial(50).build().unwrap();
    let service = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(TimeoutLayer::new(MILLISECOND * 50))
        .service(Leaf::new([Step::Hang]));
    press(&service, 100, Duration::from_secs(10)).await;
    let snapshot = layer.handle().snapshot();
    assert!(snapshot.limit <= 2, "{snapshot:?}");
    assert_eq!((snapshot.base_latency, snapshot.recent_latency), (None, None), "none of them is a latency");
}

#[tokio::test(start_paused = true)]
async fn what_says_nothing_of_the_service_changes_nothing() {
    let refused = Class::new(Fault::Overload, Effect::NotApplied).refused_here();
    for class in [CALLER, AMBIGUOUS, refused] {
        let layer = adaptive().initial(50).build().unwrap();
        let service = layer.layer(Leaf::new([Step::PendingOnce, Step::Fail(class)]));
        for _ in 0..50 {
            for _ in 0..100 {
                let _ = service.clone().oneshot(Request::new(1)).await;
            }
            advance(MILLISECOND * 100).await;
        }
        let snapshot = layer.handle().snapshot();
        assert_eq!((snapshot.limit, snapshot.drops), (50, 0), "{class:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_loser_of_a_hedge_counts_for_nothing() {
    let layer = AdaptiveConcurrencyLayer::default();
    let hedge =
        HedgeLayer::builder().fixed_delay(Duration::from_secs(5)).max_extra_load(1.0).build().unwrap();
    let leaf = Leaf::new([Step::Hang, Step::Answer]);
    let service = ServiceBuilder::new().layer(hedge).layer(layer.clone()).service(leaf.clone());
    for _ in 0..20 {
        leaf.follow([Step::Hang, Step::Answer]);
        assert_eq!(service.clone().oneshot(idempotent(1)).await, Ok(1));
    }
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.drops, snapshot.in_flight), (0, 0));
}

/// So many workers with one queue, each of which takes so long.
fn server(
    workers: usize,
    takes: Duration,
) -> impl Service<Request, Response = u32, Error = Error, Future: Send> + Clone + Send {
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(workers));
    service_fn(move |request: Request| {
        let places = std::sync::Arc::clone(&places);
        async move {
            let _place = places.acquire().await.unwrap();
            sleep(takes).await;
            Ok(*request)
        }
    })
}

#[tokio::test(start_paused = true)]
async fn the_limit_finds_what_the_service_can_work_on_at_once() {
    let layer = AdaptiveConcurrencyLayer::default();
    let service = layer.layer(server(40, MILLISECOND * 20));
    press(&service, 200, Duration::from_secs(15)).await;
    let snapshot = layer.handle().snapshot();
    assert!((40..=80).contains(&snapshot.limit) || snapshot.probing, "{snapshot:?}");
    let (base, recent) = (snapshot.base_latency.unwrap(), snapshot.recent_latency.unwrap());
    assert!((MILLISECOND * 18..MILLISECOND * 24).contains(&base), "{base:?}");
    assert!(recent < MILLISECOND * 50, "{recent:?}");
}

#[tokio::test(start_paused = true)]
async fn it_stands_between_towers_load_shed_and_services_that_are_not_always_ready() {
    let layer = with_limit(2);
    let service = ServiceBuilder::new()
        .layer(LoadShedLayer::new())
        .layer(layer.clone())
        .layer(tower::limit::ConcurrencyLimitLayer::new(8))
        .service(slow());
    let calls: Vec<_> = (0..5).map(|n| tokio::spawn(service.clone().oneshot(Request::new(n)))).collect();
    let mut outcomes = Vec::new();
    for call in calls {
        let outcome: Result<u32, BoxError> = call.await.unwrap();
        outcomes.push(outcome.map_err(|error| Rejection::find(&*error).is_some()));
    }
    assert_eq!(outcomes, [Ok(0), Ok(1), Err(true), Err(true), Err(true)]);
    assert_eq!(layer.handle().snapshot().waiting, 0, "who was refused does not stay in line");
}

/// As tower's `balance` does: of several services, each with a limit of its own, take one that is ready.
#[tokio::test(start_paused = true)]
async fn only_a_service_with_room_is_chosen_by_readiness() {
    let leaves = [Leaf::new([Step::Hang]), slow()];
    let mut services: Vec<_> = leaves.iter().map(|leaf| with_limit(1).layer(leaf.clone())).collect();
    let mut hung = services[0].ready().await.unwrap().call(Request::new(1));
    assert!(poll_once(pin!(&mut hung)).is_pending());
    for number in 0..20 {
        let chosen = poll_fn(|cx| {
            let ready = services.iter_mut().position(|service| service.poll_ready(cx).is_ready());
            ready.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        assert_eq!(chosen, 1);
        assert_eq!(services[chosen].call(Request::new(number)).await, Ok(number));
    }
    drop(hung);
    settle().await;
    assert!(poll_ready(&mut services[0], &Wakes::new()).is_ready());
}

#[tokio::test(start_paused = true)]
async fn an_operator_sets_bounds_and_holds_the_limit() {
    let layer = AdaptiveConcurrencyLayer::default();
    let handle = layer.handle();
    let leaf = Leaf::new([Step::Hang]);
    let service = layer.layer(leaf.clone());
    let calls: Vec<_> = (0..60).map(|n| tokio::spawn(service.clone().oneshot(Request::new(n)))).collect();
    settle().await;
    assert_eq!(leaf.in_flight(), 20);
    handle.hold(40).unwrap();
    settle().await;
    assert_eq!((leaf.in_flight(), handle.snapshot().held), (40, true));
    handle.set_limits(5, 50).unwrap();
    assert_eq!(handle.snapshot().limit, 40);
    handle.release();
    let snapshot = handle.snapshot();
    assert_eq!((snapshot.limit, snapshot.min, snapshot.max, snapshot.held), (40, 5, 50, false));
    handle.set_limits(1, 30).unwrap();
    assert_eq!(handle.snapshot().limit, 30);
    for (min, max, setting) in [(0, 10, "min"), (1, 0, "max"), (2, 1, "min"), (1, 1_000_001, "max")] {
        assert_eq!(handle.set_limits(min, max).unwrap_err().setting(), setting);
    }
    assert_eq!(handle.hold(0).unwrap_err().setting(), "limit");
    assert_eq!((handle.snapshot().min, handle.snapshot().max), (1, 30));
    drop(calls);
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let cases = [
        (adaptive().min(0), "min"),
        (adaptive().max(0), "max"),
        (adaptive().max(u32::MAX), "max"),
        (adaptive().min(30).max(10), "min"),
        (adaptive().initial(0), "initial"),
        (adaptive().initial(2_000), "initial"),
        (adaptive().min(21), "initial"),
        (adaptive().tolerance(0.9), "tolerance"),
        (adaptive().tolerance(f64::NAN), "tolerance"),
        (adaptive().tolerance(f64::INFINITY), "tolerance"),
    ];
    for (builder, setting) in cases {
        let error = builder.build().unwrap_err();
        assert_eq!(error.setting(), setting, "{error}");
    }
}

#[test]
fn the_limit_the_latencies_and_the_decreases_are_measured() {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
            let layer = adaptive().named("reads").build().unwrap();
            let leaf = slow();
            let service = layer.layer(leaf.clone());
            press(&service, 10, MILLISECOND * 500).await;
            leaf.follow([Step::Fail(NOT_APPLIED)]);
            for _ in 0..50 {
                let _ = service.clone().oneshot(Request::new(1)).await;
                sleep(MILLISECOND * 10).await;
            }
        });
    });
    let seen = Recorded::at(&recorder);
    let labels = [("layer", "reads")];
    let limit = seen.gauge("palisade_adaptive_limit", &labels).unwrap();
    assert!((1.0..20.0).contains(&limit), "{limit}");
    for kind in ["base", "recent"] {
        let latency = seen.gauge(&format!("palisade_adaptive_{kind}_latency_seconds"), &labels).unwrap();
        assert!((0.009..0.012).contains(&latency), "{kind}: {latency}");
    }
    let decreases =
        |reason| seen.count("palisade_adaptive_decreases_total", &[("layer", "reads"), ("reason", reason)]);
    assert!(decreases("drops") > 0);
    assert_eq!(decreases("latency"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_never_exceed_the_limit_and_nobody_is_left_waiting() {
    let layer = adaptive().initial(3).min(3).max(3).build().unwrap();
    let leaf = Leaf::new([Step::PendingOnce]);
    let service = layer.layer(leaf.clone());
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let service = service.clone();
            tokio::spawn(async move {
                for round in 0..200 {
                    let mut call = Box::pin(service.clone().oneshot(Request::new(round)));
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
        timeout(Duration::from_secs(30), task).await.expect("a wake-up was lost").unwrap();
    }
    assert!(leaf.most_in_flight() <= 3, "{}", leaf.most_in_flight());
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.in_flight, snapshot.waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_allocates_nothing() {
    let layer = AdaptiveConcurrencyLayer::default();
    let mut service = layer.layer(service_fn(|(): ()| std::future::ready(Ok::<(), Error>(()))));
    for _ in 0..10 {
        service.ready().await.unwrap().call(()).await.unwrap();
    }
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let counted = allocation_counter::measure(|| {
        for _ in 0..100 {
            assert!(service.poll_ready(&mut cx).is_ready());
            let mut call = pin!(service.call(()));
            assert!(call.as_mut().poll(&mut cx).is_ready());
        }
    });
    assert_eq!(counted.count_total, 0);
}

#[test]
fn services_and_handles_are_send_sync_clone_and_their_futures_small() {
    fn all<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: &T) {}
    fn future<S: Service<Request, Future: Send + 'static>>(_: &S) -> usize {
        size_of::<S::Future>()
    }
    let layer = AdaptiveConcurrencyLayer::default();
    all(&layer);
    all(&layer.handle());
    all(&layer.layer(slow()));
    let bytes = future(&layer.layer(slow()));
    assert!(bytes <= 40, "{bytes} bytes");
}
