use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use metrics_util::debugging::DebuggingRecorder;
use palisade::{
    BoxErrors, ByError, Class, Classified, Classify, CoalesceLayer, DeadlineLayer, Downcast, HasDeadline,
    Instant, Rejection, RetryLayer, SharedError, TimeoutScope, box_errors,
    coalesce::{Coalesce, CoalesceBuilder},
    testkit::{
        AMBIGUOUS, CALLER, Error, Gate, Gated, Leaf, NOT_APPLIED, Request, Step, Wakes, idempotent,
        poll_once, run_paused, settle,
    },
};
use tokio::{
    task::JoinHandle,
    time::{advance, sleep},
};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::recorded::Recorded;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

type Key = fn(&Request) -> Option<u32>;

/// Requests of the same hundred have the same key, so that an answer tells whose request was sent.
#[expect(clippy::unnecessary_wraps, reason = "it is a key function")]
fn hundreds(request: &Request) -> Option<u32> {
    Some(**request / 100)
}

fn builder() -> CoalesceBuilder<Request, u32, Key> {
    CoalesceLayer::builder(hundreds)
}

fn layer() -> CoalesceLayer<Request, u32, Key> {
    CoalesceLayer::new(hundreds)
}

type Calls = Vec<Pin<Box<dyn Future<Output = Result<u32, Error>> + Send>>>;

/// Calls that have been polled once.
fn begun<S>(service: &S, requests: impl IntoIterator<Item = u32>) -> Calls
where
    S: Service<Request, Response = u32, Error = Error, Future: Send> + Clone + Send + 'static,
{
    let begin = |number| {
        let mut call: Pin<Box<dyn Future<Output = _> + Send>> =
            Box::pin(service.clone().oneshot(Request::new(number)));
        assert!(poll_once(call.as_mut()).is_pending());
        call
    };
    requests.into_iter().map(begin).collect()
}

async fn outcomes(calls: Calls) -> Vec<Result<u32, Error>> {
    let tasks: Vec<_> = calls.into_iter().map(tokio::spawn).collect();
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.unwrap());
    }
    outcomes
}

/// Nothing is under way any more, above or below.
fn assert_idle<K, F, D>(layer: &CoalesceLayer<Request, K, F, D>, leaf: &Leaf) {
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.flights, snapshot.followers, leaf.in_flight()), (0, 0, 0), "{snapshot:?}");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_of_one_key_are_one_call() {
    let (leaf, layer) = (Leaf::new([Step::AnswerAfter(ms(10))]), layer());
    let service = layer.layer(leaf.clone());
    let calls: Vec<_> =
        (0..1_000).map(|n| tokio::spawn(service.clone().oneshot(Request::new(700 + n % 100)))).collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(700));
    }
    assert_eq!(leaf.call_count(), 1);
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.led, snapshot.joined, snapshot.detached, snapshot.passed), (1, 999, 0, 0));
    assert_idle(&layer, &leaf);
    // The next one asks again.
    assert_eq!(service.oneshot(Request::new(701)).await, Ok(701));
}

#[tokio::test(start_paused = true)]
async fn other_keys_share_nothing_and_neither_do_calls_without_a_key() {
    let leaf = Leaf::new([Step::AnswerAfter(ms(10))]);
    let layer = CoalesceLayer::new(|request: &Request| (**request < 1_000).then_some(**request / 100));
    let service = layer.layer(leaf.clone());
    let numbers = [100, 200, 1_000, 1_000, 101];
    let answers = outcomes(begun(&service, numbers)).await;
    assert_eq!(answers, [Ok(100), Ok(200), Ok(1_000), Ok(1_000), Ok(100)]);
    assert_eq!((leaf.call_count(), leaf.most_in_flight()), (4, 4));
    assert_eq!(layer.handle().snapshot().led, 2);
}

#[tokio::test(start_paused = true)]
async fn two_services_of_one_layer_share_nothing_but_their_handle() {
    let (one, other, layer) = (Leaf::new([Step::Hang]), Leaf::new([Step::Hang]), layer());
    let calls = (begun(&layer.layer(one.clone()), [700]), begun(&layer.layer(other.clone()), [700]));
    assert_eq!((one.call_count(), other.call_count()), (1, 1));
    assert_eq!(layer.handle().snapshot().flights, 2);
    drop(calls);
    // The services are gone, and still counted.
    assert_eq!((layer.handle().snapshot().flights, layer.handle().snapshot().led), (0, 2));
}

/// A peer's waiters polled 360,000 times in 200 ms.
#[tokio::test(start_paused = true)]
async fn coa01_who_follows_is_polled_twice_however_long_it_takes() {
    let (leaf, layer) = (Leaf::new([Step::AnswerAfter(ms(20_000))]), layer());
    let service = layer.layer(leaf.clone());
    let leader = begun(&service, [700]);
    let waiters: Vec<(JoinHandle<_>, Arc<AtomicUsize>)> = (1..=100)
        .map(|number| {
            let (polls, mut call) = (
                Arc::new(AtomicUsize::new(0)),
                Box::pin(service.clone().oneshot(Request::new(700 + number % 100))),
            );
            let count = Arc::clone(&polls);
            let counted = poll_fn(move |cx| {
                count.fetch_add(1, SeqCst);
                call.as_mut().poll(cx)
            });
            (tokio::spawn(counted), polls)
        })
        .collect();
    assert_eq!(outcomes(leader).await, [Ok(700)]);
    for (waiter, polls) in waiters {
        assert_eq!(waiter.await.unwrap(), Ok(700));
        assert!(polls.load(SeqCst) <= 2, "{polls:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_was_moved_is_woken_by_its_latest_waker() {
    let (gate, stale, latest) = (Gate::default(), Wakes::new(), Wakes::new());
    let service = layer().layer(Leaf::new([Step::Hold(gate.clone())]));
    let leader = tokio::spawn(service.clone().oneshot(Request::new(700)));
    settle().await;
    let mut follower = begun(&service, [701]);
    for wakes in [&stale, &latest, &latest] {
        assert!(follower[0].as_mut().poll(&mut Context::from_waker(&wakes.waker())).is_pending());
    }
    gate.set(true);
    assert_eq!(leader.await.unwrap(), Ok(700));
    assert_eq!((stale.count(), latest.count()), (0, 1));
    assert_eq!(outcomes(follower).await, [Ok(700)]);
}

#[tokio::test(start_paused = true)]
async fn coa02_a_leader_whose_time_is_up_fails_nobody_else() {
    let (leaf, layer) = (Leaf::new([Step::AnswerAfter(ms(100))]), layer());
    let service = layer.layer(leaf.clone());
    let leader = tokio::spawn(tokio::time::timeout(ms(30), service.clone().oneshot(Request::new(700))));
    settle().await;
    let followers = begun(&service, 701..710);
    assert_eq!(outcomes(followers).await, vec![Ok(700); 9]);
    assert!(leader.await.unwrap().is_err());
    assert_eq!((leaf.call_count(), layer.handle().snapshot().detached), (1, 1));
    assert_idle(&layer, &leaf);
}

#[tokio::test(start_paused = true)]
async fn a_leader_can_be_dropped_at_any_poll_and_all_who_follow_are_answered() {
    for (open, polls, followers) in [true, false]
        .into_iter()
        .flat_map(|open| (0..5).flat_map(move |polls| [1, 2, 7].map(|followers| (open, polls, followers))))
    {
        let (leaf, layer) = (Leaf::new([Step::AnswerAfter(ms(30))]), layer());
        let gate = Gate::with_places(1);
        gate.set(open);
        let mut service = layer.layer(Gated::new(leaf.clone(), &gate));
        let mut leader = Box::pin(service.ready().await.unwrap().call(Request::new(700)));
        let followers = (1..=followers).map(|n| service.clone().oneshot(Request::new(700 + n)));
        let followers: Vec<_> = followers.map(tokio::spawn).collect();
        settle().await;
        for poll in 0..polls {
            assert!(poll_once(leader.as_mut()).is_pending());
            if poll == 1 {
                gate.set(true);
            }
            advance(ms(5)).await;
        }
        drop(leader);
        gate.set(true);
        for follower in followers {
            assert_eq!(follower.await.unwrap(), Ok(700), "{open} {polls}");
        }
        assert_eq!((leaf.call_count(), gate.taken()), (1, 0));
        assert_idle(&layer, &leaf);
    }
}

#[test]
fn where_there_is_no_runtime_the_next_one_leads() {
    let (leaf, layer) = (Leaf::new([Step::Hang, Step::Hang, Step::Answer]), layer());
    let service = layer.layer(leaf.clone());
    let begin = |number, wakes: &Wakes| {
        let mut call = Box::pin(service.clone().oneshot(Request::new(number)));
        // With a limit of its own it would need a runtime: so it is only called.
        let waker = wakes.waker();
        let _ = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut Context::from_waker(&waker))));
        call
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let wakes: Vec<_> = (0..4).map(|_| Wakes::new()).collect();
    let mut calls: Vec<_> = {
        let _inside = runtime.enter();
        (700..704).zip(&wakes).map(|(number, wakes)| Some(begin(number, wakes))).collect()
    };
    assert_eq!((leaf.call_count(), leaf.in_flight()), (1, 1));
    // Out here.
    calls[0] = None;
    assert_eq!(wakes.iter().map(Wakes::count).collect::<Vec<_>>(), [0, 1, 0, 0], "one is woken");
    assert_eq!(leaf.in_flight(), 0);
    // The one that is to lead goes before it does.
    calls[1] = None;
    assert_eq!(wakes[2].count(), 1);
    let _inside = runtime.enter();
    assert!(poll_once(calls[2].as_mut().unwrap().as_mut()).is_pending());
    assert_eq!((leaf.call_count(), *leaf.calls()[1]), (2, 702));
    // It leads, and detaches as any leader does.
    calls[2] = None;
    assert_eq!((leaf.in_flight(), layer.handle().snapshot().detached), (1, 1));
    calls[3] = None;
    assert_idle(&layer, &leaf);
}

#[tokio::test(start_paused = true)]
async fn when_nobody_waits_any_more_the_call_is_dropped_at_once() {
    let (leaf, layer) = (Leaf::new([Step::Hang]), layer());
    let service = layer.layer(leaf.clone());
    // Followers first, then the leader.
    let mut calls = begun(&service, 700..705);
    calls.truncate(1);
    assert_eq!((layer.handle().snapshot().followers, leaf.in_flight()), (0, 1));
    drop(calls);
    assert_idle(&layer, &leaf);
    // The leader first: at the last one the call is in its task.
    for settled in [true, false] {
        let mut calls = begun(&service, 700..705);
        drop(calls.remove(0));
        if settled {
            settle().await;
        }
        while calls.len() > 1 {
            drop(calls.pop());
            assert_eq!(leaf.in_flight(), 1);
        }
        drop(calls);
        assert_idle(&layer, &leaf);
    }
    assert_eq!((leaf.call_count(), layer.handle().snapshot().detached), (3, 2));
    settle().await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_flight_without_its_leader_can_be_joined() {
    let (leaf, layer) = (Leaf::new([Step::AnswerAfter(ms(50))]), layer());
    let service = layer.layer(leaf.clone());
    let mut calls = begun(&service, [700, 701]);
    drop(calls.remove(0));
    settle().await;
    calls.extend(begun(&service, [702, 703]));
    drop(calls.remove(0));
    assert_eq!(outcomes(calls).await, [Ok(700), Ok(700)]);
    assert_eq!(leaf.call_count(), 1);
    assert_idle(&layer, &leaf);
}

/// Runs a call to its end, and tells whether it panicked.
async fn panics(call: impl Future<Output = Result<u32, Error>>) -> Option<Result<u32, Error>> {
    let mut call = pin!(call);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn when_the_leader_panics_the_next_one_leads() {
    let leaf = Leaf::new([Step::Panic, Step::Panic, Step::AnswerAfter(ms(10))]);
    let layer = layer();
    let mut service = layer.layer(leaf.clone());
    let leader = service.ready().await.unwrap().call(Request::new(700));
    let followers: Vec<_> = (701..706)
        .map(|number| {
            let call = service.clone().oneshot(Request::new(number));
            tokio::spawn(async { panics(call).await })
        })
        .collect();
    settle().await;
    // It is kept after its panic: that holds nobody up.
    let mut leader = pin!(leader);
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(leader.as_mut()))).is_err());
    let mut outcomes = Vec::new();
    for follower in followers {
        outcomes.push(follower.await.unwrap());
    }
    assert_eq!(outcomes, [None, Some(Ok(702)), Some(Ok(702)), Some(Ok(702)), Some(Ok(702))]);
    assert!(poll_once(leader.as_mut()).is_pending());
    assert_eq!(leaf.call_count(), 3);
    assert_idle(&layer, &leaf);
}

#[tokio::test(start_paused = true)]
async fn when_a_flight_panics_in_its_task_the_next_one_leads() {
    let calls = Arc::new(AtomicUsize::new(0));
    let inner = service_fn(move |request: Request| {
        let number = calls.fetch_add(1, SeqCst);
        async move {
            sleep(ms(10)).await;
            if number == 0 {
                std::panic::resume_unwind(Box::new("in the task"));
            }
            Ok::<_, Error>(*request)
        }
    });
    let service = layer().layer(inner);
    let mut calls = begun(&service, [700, 701, 702]);
    drop(calls.remove(0));
    assert_eq!(outcomes(calls).await, [Ok(701), Ok(701)]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_panics_when_it_is_called_leaves_no_flight_behind() {
    let first = Arc::new(AtomicUsize::new(0));
    let inner = service_fn(move |request: Request| {
        if first.fetch_add(1, SeqCst) == 0 {
            std::panic::resume_unwind(Box::new("in the call"));
        }
        std::future::ready(Ok::<_, Error>(*request))
    });
    let layer = layer();
    let mut service = layer.layer(inner);
    let ready = service.ready().await.unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| ready.call(Request::new(700)))).is_err());
    assert_eq!(layer.handle().snapshot().flights, 0);
    assert_eq!(service.oneshot(Request::new(701)).await, Ok(701));
}

/// A call that never ends, and panics when it is dropped.
struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        std::panic::resume_unwind(Box::new("in the drop"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_when_it_is_dropped_leaves_no_task_behind() {
    let layer = layer();
    let service = layer.layer(service_fn(|_: Request| {
        let held = PanicsWhenDropped;
        async move {
            let _held = held;
            std::future::pending::<Result<u32, Error>>().await
        }
    }));
    let mut calls = begun(&service, [700, 701]);
    drop(calls.remove(0));
    settle().await;
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!((alive(), layer.handle().snapshot().flights), (1, 1));
    assert!(catch_unwind(AssertUnwindSafe(|| drop(calls))).is_err());
    settle().await;
    assert_eq!((alive(), layer.handle().snapshot().flights), (0, 0));
}

/// Panics when a call is counted.
struct PanicsAtCounts;

impl metrics::CounterFn for PanicsAtCounts {
    fn increment(&self, _: u64) {
        std::panic::resume_unwind(Box::new("in the counter"));
    }

    fn absolute(&self, _: u64) {}
}

impl metrics::Recorder for PanicsAtCounts {
    fn describe_counter(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_gauge(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_histogram(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}

    fn register_counter(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        metrics::Counter::from_arc(Arc::new(Self))
    }

    fn register_gauge(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        metrics::Gauge::noop()
    }

    fn register_histogram(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Histogram {
        metrics::Histogram::noop()
    }
}

#[test]
fn who_panics_where_it_is_counted_is_no_follower_any_more() {
    metrics::with_local_recorder(&PanicsAtCounts, || {
        run_paused(async {
            let (leaf, layer) = (Leaf::new([Step::Hang]), layer());
            let mut service = layer.layer(leaf.clone());
            let leader = begun(&service, [700]);
            let ready = service.ready().await.unwrap();
            assert!(catch_unwind(AssertUnwindSafe(|| drop(ready.call(Request::new(701))))).is_err());
            let followers = layer.handle().snapshot().followers;
            assert!(catch_unwind(AssertUnwindSafe(|| drop(leader))).is_ok(), "it goes on for nobody");
            assert_eq!(followers, 0);
            assert_idle(&layer, &leaf);
        });
    });
}

/// Clones of it can be told to panic.
#[derive(Debug)]
struct Fragile(Arc<AtomicUsize>);

impl Clone for Fragile {
    fn clone(&self) -> Self {
        if self.0.fetch_add(1, SeqCst) == 0 {
            std::panic::resume_unwind(Box::new("in the clone"));
        }
        Self(Arc::clone(&self.0))
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_panics_when_it_is_copied_does_not_hold_up_followers() {
    let (fragile, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let called = Arc::clone(&calls);
    let layer = layer();
    let service = layer.layer(service_fn(move |_: Request| {
        called.fetch_add(1, SeqCst);
        let answer = Fragile(Arc::clone(&fragile));
        async move {
            sleep(ms(10)).await;
            Ok::<_, Error>(answer)
        }
    }));
    let calls_made: Vec<_> =
        (700..704).map(|n| tokio::spawn(service.clone().oneshot(Request::new(n)))).collect();
    let mut failed = 0;
    for call in calls_made {
        failed += usize::from(call.await.is_err());
    }
    assert_eq!((failed, calls.load(SeqCst)), (1, 2));
    assert_eq!(layer.handle().snapshot().flights, 0);
}

/// A key that panics where it is hashed or compared.
#[derive(Clone, Debug)]
struct BadKey(u32, bool);

impl PartialEq for BadKey {
    fn eq(&self, other: &Self) -> bool {
        assert!(!self.1 && !other.1, "in eq");
        self.0 == other.0
    }
}

impl Eq for BadKey {}

impl std::hash::Hash for BadKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        if self.0 == 999 {
            std::panic::resume_unwind(Box::new("in hash"));
        }
        state.write_u32(self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_panics_does_no_harm_to_others() {
    let leaf = Leaf::new([Step::AnswerAfter(ms(10))]);
    let layer = CoalesceLayer::new(|request: &Request| Some(BadKey(**request / 100, **request % 100 == 99)));
    let mut service = layer.layer(leaf.clone());
    let calls = begun(&service, [700, 701]);
    for bad in [799, 99_900] {
        let ready = service.ready().await.unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| drop(ready.call(Request::new(bad))))).is_err());
    }
    let more = begun(&service, [702]);
    assert_eq!(outcomes(calls).await, [Ok(700), Ok(700)]);
    assert_eq!(outcomes(more).await, [Ok(700)]);
    assert_idle(&layer, &leaf);
}

#[tokio::test(start_paused = true)]
async fn each_who_shares_an_error_gets_one_that_means_the_same() {
    for class in [CALLER, AMBIGUOUS, NOT_APPLIED] {
        // A typed error: the exact original.
        let failing = service_fn(move |_: Request| async move {
            sleep(ms(10)).await;
            Err::<u32, _>(Error::Failed(class, 3))
        });
        let service = layer().layer(failing);
        let calls = begun(&service, 700..705);
        assert_eq!(outcomes(calls).await, vec![Err(Error::Failed(class, 3)); 5]);

        // A boxed one: found in the box.
        let boxed = layer().layer(box_errors().layer(failing));
        for error in boxed_errors(&boxed).await {
            let found: Class = Downcast::<Error>::new().classify(Err::<&u32, _>(&error));
            assert_eq!((found, error.to_string()), (class, Error::Failed(class, 3).to_string()));
            assert!(error.downcast_ref::<SharedError>().unwrap().downcast_ref::<Error>().is_some());
        }
    }
    let refused = Rejection::rate_limited(Some(ms(7)));
    let refusing = {
        let refused = refused.clone();
        service_fn(move |_: Request| {
            let refused = refused.clone();
            async move {
                sleep(ms(10)).await;
                Err::<u32, BoxError>(refused.into())
            }
        })
    };
    let service = layer().layer(refusing);
    for error in boxed_errors(&service).await {
        assert_eq!(ByError.classify(Err::<&u32, _>(&error)), refused.class());
        assert_eq!(Rejection::find(&*error), Some(refused.clone()));
    }
    // Nobody followed: the error itself.
    let error = service.oneshot(Request::new(700)).await.unwrap_err();
    assert!(error.downcast_ref::<Rejection>().is_some());
}

async fn boxed_errors<S>(service: &S) -> Vec<BoxError>
where
    S: Service<Request, Response = u32, Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    let calls: Vec<_> = (700..703).map(|n| tokio::spawn(service.clone().oneshot(Request::new(n)))).collect();
    let mut errors = Vec::new();
    for call in calls {
        errors.push(call.await.unwrap().unwrap_err());
    }
    errors
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_broken_fails_all_who_share_the_call() {
    let (leaf, gate) = (Leaf::new([Step::Answer]), Gate::default());
    let layer = layer();
    let service = layer.layer(Gated::new(leaf.clone(), &gate));
    let calls = begun(&service, 700..703);
    leaf.break_down();
    gate.set(true);
    assert_eq!(outcomes(calls).await, vec![Err(Error::Broken); 3]);
    assert_idle(&layer, &leaf);
}

#[tokio::test(start_paused = true)]
async fn who_follows_holds_no_place_in_the_service() {
    let (leaf, gate) = (Leaf::new([Step::Hang]), Gate::with_places(2));
    let service = layer().layer(Gated::new(leaf.clone(), &gate));
    let _shared = begun(&service, 700..720);
    assert_eq!(gate.taken(), 1);
    let _other = begun(&service, [800]);
    assert_eq!(leaf.in_flight(), 2);
}

#[tokio::test(start_paused = true)]
async fn keys_without_end_leave_nothing_behind() {
    let layer = CoalesceLayer::new(|request: &Request| Some(request.to_string()));
    let leaf = Leaf::answering([Step::Answer], |request: Request| *request);
    let mut service = layer.layer(leaf.clone());
    for number in 0..100_000 {
        assert_eq!(service.ready().await.unwrap().call(Request::new(number)).await, Ok(number));
    }
    assert_idle(&layer, &leaf);
    assert_eq!(layer.handle().snapshot().led, 100_000);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_limit_calls_go_through_by_themselves() {
    let (leaf, layer) = (Leaf::new([Step::AnswerAfter(ms(10))]), builder().max_flights(2).build().unwrap());
    let service = layer.layer(leaf.clone());
    let calls = begun(&service, [100, 200, 300, 301, 101, 201]);
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.flights, snapshot.followers, snapshot.passed), (2, 2, 2));
    assert_eq!(outcomes(calls).await, [100, 200, 300, 301, 100, 200].map(Ok));
    assert_eq!(leaf.call_count(), 4);
    // There is room again.
    assert_eq!(outcomes(begun(&service, [300, 301])).await, [Ok(300), Ok(300)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_not_joined() {
    let leaf = Leaf::new([Step::AnswerAfter(ms(100))]);
    let layer = builder().join_within(ms(20)).build().unwrap();
    let service = layer.layer(leaf.clone());
    let mut calls = begun(&service, [700]);
    advance(ms(20)).await;
    calls.extend(begun(&service, [701]));
    advance(ms(1)).await;
    calls.extend(begun(&service, [702]));
    advance(ms(10)).await;
    calls.extend(begun(&service, [703]));
    assert_eq!(outcomes(calls).await, [Ok(700), Ok(700), Ok(702), Ok(702)]);
    assert_eq!(leaf.call_count(), 2);
    assert_idle(&layer, &leaf);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_limit_for_a_flight_of_somebody_else() {
    let (leaf, layer) = (Leaf::new([Step::Hang]), layer());
    let service = layer.layer(leaf.clone());
    let began = Instant::now();
    let leader = begun(&service, [700]);
    let calls = begun(&service, [701, 702]);
    advance(ms(10_000)).await;
    let late = begun(&service, [703]);
    assert_eq!(leaf.call_count(), 1);
    let limited = |seconds| Err(Error::timed_out(TimeoutScope::Total, Duration::from_secs(seconds)));
    assert_eq!(outcomes(calls).await, vec![limited(30); 2]);
    assert_eq!(outcomes(late).await, [limited(20)]);
    assert!((30_000..30_010).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    // Who leads is bounded by what would bound it anyway: nothing here.
    assert_eq!(leaf.in_flight(), 1);
    drop(leader);
    assert_idle(&layer, &leaf);
}

/// A request with a deadline.
fn due(number: u32, at: Instant) -> Request {
    let mut request = idempotent(number);
    request.shorten_deadline(at);
    request
}

#[tokio::test(start_paused = true)]
async fn each_call_ends_at_its_own_deadline_and_not_at_the_leaders() {
    // With and without a deadline layer outside.
    for outside in [false, true] {
        let leaf = Leaf::new([Step::AnswerAfter(ms(1_500))]);
        let layer = builder().deadline_aware().build().unwrap();
        let coalesced = layer.layer(RetryLayer::default().layer(leaf.clone()));
        let now = Instant::now();
        let call = |request| -> JoinHandle<Result<u32, Error>> {
            if outside {
                let bounded = DeadlineLayer::<Duration>::from_request().layer(coalesced.clone());
                tokio::spawn(async { bounded.oneshot(request).await })
            } else {
                let service = coalesced.clone();
                tokio::spawn(async { service.oneshot(request).await })
            }
        };
        let leader = call(due(700, now + ms(1_000)));
        settle().await;
        let (short, long) = (call(due(701, now + ms(500))), call(due(702, now + ms(2_000))));
        assert_eq!(short.await.unwrap(), Err(Error::timed_out(TimeoutScope::Total, ms(500))));
        assert_eq!(leader.await.unwrap(), Err(Error::timed_out(TimeoutScope::Total, ms(1_000))));
        let elapsed = now.elapsed().as_millis();
        assert!((1_000..1_005).contains(&elapsed), "{elapsed}");
        assert_eq!(long.await.unwrap(), Ok(700));
        assert_eq!(leaf.calls()[0].deadline(), None, "what is further in reads no deadline of the leader's");
        assert_eq!(layer.handle().snapshot().detached, 1);
        assert_idle(&layer, &leaf);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flight_lives_until_the_latest_deadline_of_those_who_wait() {
    let (leaf, layer) = (Leaf::new([Step::Hang]), layer().deadline_aware());
    let service = layer.layer(leaf.clone());
    let now = Instant::now();
    let call = |number, deadline| tokio::spawn(service.clone().oneshot(due(number, now + ms(deadline))));
    let calls = [(700, 100), (701, 300), (702, 40_000)].map(|(number, deadline)| call(number, deadline));
    settle().await;
    for (call, deadline) in calls.into_iter().zip([100, 300, 40_000]) {
        assert_eq!(leaf.in_flight(), 1);
        assert_eq!(call.await.unwrap(), Err(Error::timed_out(TimeoutScope::Total, ms(deadline))));
    }
    assert_idle(&layer, &leaf);
}

#[tokio::test(start_paused = true)]
async fn a_retry_inside_goes_by_no_deadline_of_the_leaders() {
    // It backs off for longer than the leader's deadline is away.
    let leaf = Leaf::new([Step::Fail(NOT_APPLIED.with_retry_after(ms(50))), Step::Answer]);
    let layer = layer().deadline_aware();
    let service = layer.layer(RetryLayer::default().layer(leaf.clone()));
    let now = Instant::now();
    let leader = tokio::spawn(service.clone().oneshot(due(700, now + ms(20))));
    settle().await;
    let follower = tokio::spawn(service.clone().oneshot(due(701, now + ms(500))));
    assert_eq!(leader.await.unwrap(), Err(Error::timed_out(TimeoutScope::Total, ms(20))));
    assert_eq!(follower.await.unwrap(), Ok(700));
    assert_eq!(leaf.call_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_too_late_already_is_refused() {
    let (leaf, layer) = (Leaf::new([Step::Answer]), layer().deadline_aware());
    let service = layer.layer(leaf.clone());
    let late = due(700, Instant::now());
    assert_eq!(service.oneshot(late).await, Err(Error::timed_out(TimeoutScope::Total, Duration::ZERO)));
    assert_eq!(leaf.call_count(), 0);
    assert_idle(&layer, &leaf);
}

#[tokio::test(start_paused = true)]
async fn unless_it_is_told_to_it_leaves_requests_as_they_are() {
    let leaf = Leaf::new([Step::Answer]);
    let at = Instant::now() + ms(50);
    assert_eq!(layer().layer(leaf.clone()).oneshot(due(700, at)).await, Ok(700));
    assert_eq!(leaf.calls()[0].deadline(), Some(at));
}

/// The deadlines of those whose calls are not shared stay as well.
#[tokio::test(start_paused = true)]
async fn a_call_that_goes_through_by_itself_keeps_its_deadline() {
    let leaf = Leaf::new([Step::Answer]);
    let layer = CoalesceLayer::new(|_: &Request| None::<u32>).deadline_aware();
    let at = Instant::now() + ms(50);
    assert_eq!(layer.layer(leaf.clone()).oneshot(due(700, at)).await, Ok(700));
    assert_eq!(leaf.calls()[0].deadline(), Some(at));
}

#[test]
fn a_runtime_that_shuts_down_leaves_the_lead_to_followers_elsewhere() {
    let (leaf, layer) = (Leaf::new([Step::Hang, Step::Answer]), layer());
    let service = layer.layer(leaf.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let follower = {
        let _inside = runtime.enter();
        let mut calls = begun(&service, [700, 701]);
        drop(calls.remove(0));
        calls
    };
    assert_eq!(leaf.in_flight(), 1);
    drop(runtime);
    assert_eq!(leaf.in_flight(), 0);
    assert_eq!(run_paused(outcomes(follower)), [Ok(701)]);
    assert_idle(&layer, &leaf);
}

/// Counts the calls of each key that are under way.
#[derive(Clone, Default)]
struct PerKey {
    now: Arc<Mutex<HashMap<u32, usize>>>,
    calls: Arc<AtomicUsize>,
}

struct Counted(PerKey, u32);

impl Drop for Counted {
    fn drop(&mut self) {
        *self.0.now.lock().unwrap().get_mut(&self.1).unwrap() -= 1;
    }
}

impl PerKey {
    async fn answer(self, request: Request) -> Result<u32, Error> {
        let key = *request / 100;
        let counted = {
            let mut now = self.now.lock().unwrap();
            let count = now.entry(key).or_default();
            *count += 1;
            assert_eq!(*count, 1, "two calls of one key");
            Counted(self.clone(), key)
        };
        self.calls.fetch_add(1, SeqCst);
        for _ in 0..fastrand::u32(0..4) {
            tokio::task::yield_now().await;
        }
        drop(counted);
        Ok(*request)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_there_is_one_call_of_a_key_at_a_time_and_everybody_is_answered() {
    let (leaf, layer) = (PerKey::default(), layer());
    let service = {
        let leaf = leaf.clone();
        layer.layer(service_fn(move |request: Request| leaf.clone().answer(request)))
    };
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let service = service.clone();
            tokio::spawn(async move {
                let mut answered = 0_usize;
                for _ in 0..3_000 {
                    let number = fastrand::u32(0..8) * 100 + task;
                    let mut call = Box::pin(service.clone().oneshot(Request::new(number)));
                    // Some give up after a few polls.
                    if fastrand::u32(0..3) == 0 {
                        let mut polls = fastrand::u32(0..3);
                        poll_fn(|cx| {
                            if polls == 0 {
                                return Poll::Ready(());
                            }
                            polls -= 1;
                            let ended = call.as_mut().poll(cx).is_ready();
                            if ended {
                                Poll::Ready(())
                            } else {
                                cx.waker().wake_by_ref();
                                Poll::Pending
                            }
                        })
                        .await;
                        continue;
                    }
                    let answer = call.await.unwrap();
                    assert_eq!(answer / 100, number / 100);
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let all = async {
        let mut answered = 0;
        for task in tasks {
            answered += task.await.unwrap();
        }
        answered
    };
    let answered = tokio::time::timeout(Duration::from_secs(60), all).await.expect("nobody hangs");
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.flights, snapshot.followers), (0, 0));
    assert!(answered > 10_000 && snapshot.joined > 0 && snapshot.detached > 0, "{snapshot:?}");
}

#[test]
fn a_call_that_leads_alone_allocates_nothing() {
    let layer = layer().deadline_aware();
    let mut service =
        layer.layer(service_fn(|request: Request| std::future::ready(Ok::<_, Error>(*request))));
    let mut call = |number| {
        assert!(poll_once(pin!(service.ready())).is_ready());
        let request = due(number, Instant::now() + ms(1_000));
        assert_eq!(poll_once(pin!(service.call(request))), Poll::Ready(Ok(number)));
    };
    (0..1_000).for_each(|number| call(number * 100));
    let counted = allocation_counter::measure(|| (0..1_000).for_each(|number| call(number * 100)));
    assert_eq!(counted.count_total, 0);
}

#[test]
fn what_becomes_of_calls_is_counted() {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        run_paused(async {
            let layer = builder().named("users").max_flights(1).longest(ms(50)).build().unwrap();
            let service = layer.layer(Leaf::new([Step::Hang]));
            let mut calls = begun(&service, [700, 701, 702, 800]);
            drop((calls.remove(3), calls.remove(0)));
            assert!(outcomes(calls).await.iter().all(Result::is_err));
        });
    });
    let seen = Recorded::at(&recorder);
    let count = |metric| seen.count(metric, &[("layer", "users")]);
    let counted = [
        "palisade_coalesce_joined_total",
        "palisade_coalesce_detached_total",
        "palisade_coalesce_passed_total",
        "palisade_timeouts_total",
    ];
    assert_eq!(counted.map(count), [2, 1, 1, 2]);
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let setting =
        |builder: CoalesceBuilder<_, _, Key>| builder.build().map(|_| ()).map_err(|error| error.setting());
    assert_eq!(setting(builder()), Ok(()));
    for (builder, name) in [
        (builder().longest(Duration::ZERO), "longest"),
        (builder().longest(Duration::MAX), "longest"),
        (builder().join_within(Duration::ZERO), "join_within"),
        (builder().join_within(Duration::from_secs(30)), "join_within"),
        (builder().max_flights(0), "max_flights"),
        (builder().max_flights(usize::MAX), "max_flights"),
    ] {
        assert_eq!(setting(builder.clone()), Err(name), "{builder:?}");
    }
}

/// The names can be written down.
#[test]
fn the_types_have_names() {
    type Boxed = Coalesce<BoxErrors<Leaf>, Request, u32, Key>;
    let service: Boxed = ServiceBuilder::new().layer(layer()).layer(box_errors()).service(Leaf::new([]));
    assert!(format!("{service:?}").contains("Coalesce"));
}
