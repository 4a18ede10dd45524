use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use metrics_util::debugging::DebuggingRecorder;
use palisade::{
    HasDeadline, Instant, Priority, Rejection, ShedLayer, TimeoutScope,
    shed::{Shed, ShedBuilder},
    testkit::{Error, Gate, Gated, Leaf, Request, Step, poll_once, run_paused, settle},
};
use tokio::time::sleep;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, buffer::Buffer, limit::ConcurrencyLimit};

use crate::recorded::Recorded;

const MILLISECOND: Duration = Duration::from_millis(1);

/// A service with so many places, in which each call takes so long.
fn places(places: usize, takes: Duration) -> ConcurrencyLimit<Leaf> {
    ConcurrencyLimit::new(Leaf::new([Step::AnswerAfter(takes)]), places)
}

fn of(priority: Priority) -> Request {
    Request::new(0).priority(priority)
}

fn shed(priority: Priority) -> Error {
    Rejection::shed(priority).into()
}

/// What became of the calls of one priority.
#[derive(Debug, Default)]
struct Tally {
    served: Vec<Duration>,
    refused: Vec<Duration>,
}

impl Tally {
    fn offered(&self) -> usize {
        self.served.len() + self.refused.len()
    }

    #[expect(clippy::cast_precision_loss, reason = "a few thousands")]
    fn share_served(&self) -> f64 {
        self.served.len() as f64 / self.offered() as f64
    }
}

/// In steps of a percent.
fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
}

/// Sends so many calls per second for a while, at random moments and whatever becomes of them: an open loop.
/// Of a hundred calls so many are of each priority, the least important first.
async fn offer<S>(
    service: &S,
    seed: u64,
    per_second: u32,
    mix: [u32; 4],
    lasts: Duration,
) -> BTreeMap<Priority, Tally>
where
    S: Service<Request, Response = u32, Error = Error, Future: Send + 'static> + Clone + Send + 'static,
{
    let mut random = fastrand::Rng::with_seed(seed);
    let (began, mut due) = (Instant::now(), 0.0);
    let mut calls = Vec::new();
    while due < lasts.as_secs_f64() {
        let at = began + Duration::from_secs_f64(due);
        if !at.remaining().is_zero() {
            sleep(at.remaining()).await;
        }
        let draw = random.u32(0..100);
        let priority = if draw < mix[0] {
            Priority::Background
        } else if draw < mix[0] + mix[1] {
            Priority::Low
        } else if draw < mix[0] + mix[1] + mix[2] {
            Priority::Normal
        } else {
            Priority::Critical
        };
        let service = service.clone();
        calls.push(tokio::spawn(async move {
            let began = Instant::now();
            let outcome = service.oneshot(of(priority)).await;
            (priority, outcome, began.elapsed())
        }));
        due -= (1.0 - random.f64()).ln() / f64::from(per_second);
    }
    let mut tallies: BTreeMap<_, Tally> = BTreeMap::new();
    for call in calls {
        let (priority, outcome, took) = call.await.unwrap();
        let tally = tallies.entry(priority).or_default();
        match outcome {
            Ok(_) => tally.served.push(took),
            Err(error) => {
                assert_eq!(error, shed(priority));
                tally.refused.push(took);
            }
        }
    }
    tallies
}

/// Five times what ten places can do in 5 ms each: a tenth of it critical, half of it normal.
const CAPACITY: u32 = 2_000;
const TAKES: Duration = Duration::from_millis(5);
const MIX: [u32; 4] = [20, 20, 50, 10];

/// How long those who were served have waited.
fn waits(tally: &Tally) -> Vec<Duration> {
    tally.served.iter().map(|took| took.saturating_sub(TAKES)).collect()
}

/// What the service did in so many seconds, as a share of what it can do.
fn used(leaf: &Leaf, seconds: u32) -> f64 {
    f64::from(u32::try_from(leaf.call_count()).unwrap()) / f64::from(CAPACITY * seconds)
}

#[tokio::test(start_paused = true)]
async fn in_an_overload_critical_calls_are_served_and_the_least_important_refused_at_once() {
    let layer = ShedLayer::default();
    let inner = places(10, TAKES);
    let leaf = inner.get_ref().clone();
    let service = layer.layer(inner);
    let began = Instant::now();
    let calls = tokio::spawn({
        let service = service.clone();
        async move { offer(&service, 2, CAPACITY * 5, MIX, Duration::from_secs(3)).await }
    });
    sleep(Duration::from_secs(2)).await;
    let snapshot = layer.handle().snapshot();
    assert_eq!(snapshot.overloaded, Some(Priority::Normal));
    assert_eq!(snapshot.refused_below, Some(Priority::Normal));
    let tallies = calls.await.unwrap();
    let [critical, normal, low] =
        [Priority::Critical, Priority::Normal, Priority::Low].map(|priority| &tallies[&priority]);

    assert!(critical.share_served() >= 0.999, "{}", critical.share_served());
    let critical_waits = waits(critical);
    assert!(percentile(&critical_waits, 99) <= MILLISECOND * 10, "{:?}", percentile(&critical_waits, 99));
    // The rest of the capacity is theirs: a fifth of what is offered of them.
    assert!((0.17..0.23).contains(&normal.share_served()), "{}", normal.share_served());
    // All but those that came before it was noticed, which takes the target and the interval.
    assert_eq!(percentile(&low.refused, 95), Duration::ZERO);
    assert!(percentile(&low.refused, 100) <= MILLISECOND * 150, "{:?}", percentile(&low.refused, 100));
    assert!(used(&leaf, 3) >= 0.97, "{}", used(&leaf, 3));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(snapshot.waiting.total() < 200, "{snapshot:?}");
}

/// The figures are in the documentation.
#[tokio::test(start_paused = true)]
async fn the_newest_first_makes_waits_short_in_an_overload() {
    let mut medians = Vec::new();
    for newest_first in [true, false] {
        let layer = ShedLayer::builder().newest_first(newest_first).build().unwrap();
        let inner = places(10, TAKES);
        let leaf = inner.get_ref().clone();
        let tallies = offer(&layer.layer(inner), 3, CAPACITY * 5, MIX, Duration::from_secs(3)).await;
        let normal = &tallies[&Priority::Normal];
        let waits = waits(normal);
        // Both bound the waits by the target, but for those that had joined before it was noticed.
        assert!(percentile(&waits, 90) <= MILLISECOND * 12, "{newest_first}: {:?}", percentile(&waits, 90));
        assert!(
            normal.share_served() >= 0.18 && used(&leaf, 3) >= 0.97,
            "{newest_first}: {}",
            used(&leaf, 3)
        );
        medians.push(percentile(&waits, 50));
    }
    assert!(medians[0] <= MILLISECOND * 2 && medians[1] >= MILLISECOND * 6, "{medians:?}");
}

#[tokio::test(start_paused = true)]
async fn after_an_overload_nobody_is_refused_any_more() {
    let layer = ShedLayer::default();
    let service = layer.layer(places(10, TAKES));
    for round in 0..3 {
        offer(&service, round, CAPACITY * 5, MIX, Duration::from_secs(2)).await;
        // The worst is that it has ended this very moment.
        sleep(MILLISECOND * 20).await;
        let snapshot = layer.handle().snapshot();
        assert_eq!((snapshot.overloaded, snapshot.waiting.total()), (None, 0));
        for (priority, tally) in offer(&service, round, CAPACITY * 7 / 10, MIX, Duration::from_secs(5)).await
        {
            assert!(tally.refused.is_empty(), "{priority}: {}", tally.refused.len());
        }
    }
}

/// A load that falls, where calls go on coming.
#[tokio::test(start_paused = true)]
async fn an_overload_ends_while_calls_keep_coming() {
    let layer = ShedLayer::default();
    let service = layer.layer(places(10, TAKES));
    let overload = {
        let service = service.clone();
        tokio::spawn(async move { offer(&service, 1, CAPACITY * 5, MIX, Duration::from_secs(2)).await })
    };
    let load = {
        let service = service.clone();
        tokio::spawn(async move { offer(&service, 2, CAPACITY * 7 / 10, MIX, Duration::from_secs(6)).await })
    };
    overload.await.unwrap();
    // A tenth of what it may take.
    sleep(MILLISECOND * 200).await;
    let shed = layer.handle().snapshot().shed;
    assert!(shed.total() > 10_000);
    load.await.unwrap();
    assert_eq!(layer.handle().snapshot().shed, shed);
}

#[tokio::test(start_paused = true)]
async fn too_many_critical_calls_are_shed_as_well_and_the_capacity_is_used() {
    let layer = ShedLayer::default();
    let inner = places(10, TAKES);
    let leaf = inner.get_ref().clone();
    let tallies = offer(&layer.layer(inner), 4, CAPACITY * 5, [10, 10, 30, 50], Duration::from_secs(3)).await;
    let critical = &tallies[&Priority::Critical];
    assert!((0.36..0.44).contains(&critical.share_served()), "{}", critical.share_served());
    assert!(percentile(&waits(critical), 90) <= MILLISECOND * 12, "{:?}", percentile(&waits(critical), 90));
    let normal = &tallies[&Priority::Normal];
    assert_eq!(percentile(&normal.refused, 90), Duration::ZERO);
    assert!(used(&leaf, 3) >= 0.97, "{}", used(&leaf, 3));
}

/// Ten calls a second, where the target is 10 ms and the interval 100 ms.
#[tokio::test(start_paused = true)]
async fn a_single_slow_place_is_used_and_critical_calls_are_served() {
    for newest_first in [true, false] {
        let layer = ShedLayer::builder().newest_first(newest_first).build().unwrap();
        let leaf = Leaf::new([Step::AnswerAfter(MILLISECOND * 100)]);
        let service = layer.layer(ConcurrencyLimit::new(leaf.clone(), 1));
        let tallies = offer(&service, 5, 50, MIX, Duration::from_secs(60)).await;
        let critical = tallies[&Priority::Critical].share_served();
        assert!(critical >= 0.99, "{critical}");
        assert!(leaf.call_count() >= 590, "{}", leaf.call_count());
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_below_the_capacity_loses_nobody() {
    let layer = ShedLayer::default();
    let service = layer.layer(places(10, TAKES));
    for (priority, calls) in [(Priority::Background, 100), (Priority::Normal, 900)] {
        let began = Instant::now();
        let burst: Vec<_> = (0..calls).map(|_| tokio::spawn(service.clone().oneshot(of(priority)))).collect();
        for call in burst {
            assert_eq!(call.await.unwrap(), Ok(0));
        }
        // Each place was taken again as soon as it was free.
        let rounds = calls / 10;
        assert!(began.elapsed() <= (TAKES + MILLISECOND) * rounds, "{:?}", began.elapsed());
    }
    assert_eq!(layer.handle().snapshot().shed.total(), 0);
}

#[tokio::test(start_paused = true)]
async fn every_place_is_used_when_several_come_free_at_once() {
    let gate = Gate::default();
    let inner = places(5, Duration::from_secs(1));
    let leaf = inner.get_ref().clone();
    let layer = ShedLayer::default();
    let service = layer.layer(Gated::new(inner, &gate));
    let calls: Vec<_> =
        (0..20).map(|_| tokio::spawn(service.clone().oneshot(of(Priority::Normal)))).collect();
    settle().await;
    assert_eq!((leaf.in_flight(), layer.handle().snapshot().waiting[Priority::Normal]), (0, 20));
    gate.set(true);
    let began = Instant::now();
    for _ in 0..10 {
        settle().await;
    }
    assert_eq!((leaf.in_flight(), began.elapsed()), (5, Duration::ZERO));
    drop(calls);
}

#[tokio::test(start_paused = true)]
async fn the_most_important_are_served_first() {
    let gate = Gate::default();
    let leaf = Leaf::new([Step::Answer]);
    let service = ShedLayer::default().layer(Gated::new(leaf.clone(), &gate));
    let order =
        [Priority::Low, Priority::Background, Priority::Critical, Priority::Normal, Priority::Critical];
    let calls: Vec<_> = (0..)
        .zip(order)
        .map(|(number, priority)| {
            tokio::spawn(service.clone().oneshot(Request::new(number).priority(priority)))
        })
        .collect();
    settle().await;
    gate.set(true);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    // The first one was alone, and next, when it came.
    let served: Vec<_> = leaf.calls().iter().map(|request| **request).collect();
    assert_eq!(served, [0, 2, 4, 3, 1]);
}

#[tokio::test(start_paused = true)]
async fn who_comes_later_does_not_overtake_nor_ask_the_service() {
    let (gate, leaf) = (Gate::with_places(1), Leaf::new([Step::Hang, Step::Answer]));
    let service = ShedLayer::default().layer(Gated::new(leaf.clone(), &gate));
    let mut holder = Box::pin(service.clone().oneshot(of(Priority::Normal)));
    assert!(poll_once(holder.as_mut()).is_pending());
    let mut first = Box::pin(service.clone().oneshot(of(Priority::Low)));
    assert!(poll_once(first.as_mut()).is_pending());
    drop(holder);
    // The place is free, and the one in line has not come round to take it.
    let mut late = service.clone();
    late.ready().await.unwrap();
    assert_eq!(gate.taken(), 0);
    let mut second = Box::pin(late.call(of(Priority::Critical)));
    assert!(poll_once(second.as_mut()).is_pending());
    assert_eq!(poll_once(first.as_mut()), Poll::Ready(Ok(0)));
    assert_eq!(second.await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn a_full_line_takes_in_the_more_important_and_refuses_the_least() {
    let layer = ShedLayer::builder().max_waiting(2).build().unwrap();
    let gate = Gate::default();
    let service = layer.layer(Gated::new(Leaf::new([Step::Answer]), &gate));
    let spawn = |priority| tokio::spawn(service.clone().oneshot(of(priority)));
    let began = Instant::now();
    let (low, other_low) = (spawn(Priority::Low), spawn(Priority::Low));
    settle().await;
    assert_eq!(spawn(Priority::Low).await.unwrap(), Err(shed(Priority::Low)));
    let critical = spawn(Priority::Critical);
    assert_eq!(low.await.unwrap(), Err(shed(Priority::Low)));
    let normal = spawn(Priority::Normal);
    assert_eq!(other_low.await.unwrap(), Err(shed(Priority::Low)));
    assert_eq!(began.elapsed(), Duration::ZERO);
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.waiting.total(), snapshot.shed[Priority::Low]), (2, 3));
    gate.set(true);
    assert_eq!((critical.await.unwrap(), normal.await.unwrap()), (Ok(0), Ok(0)));
}

/// Without a runtime a timer would panic.
#[test]
fn without_a_line_who_finds_the_service_busy_is_refused_at_once() {
    let service = ShedLayer::builder()
        .max_waiting(0)
        .build()
        .unwrap()
        .layer(Gated::new(Leaf::new([Step::Hang]), &Gate::with_places(1)));
    let mut holder = pin!(service.clone().oneshot(of(Priority::Low)));
    assert!(poll_once(holder.as_mut()).is_pending());
    let refused = poll_once(pin!(service.oneshot(of(Priority::Critical))));
    assert_eq!(refused, Poll::Ready(Err(shed(Priority::Critical))));
}

/// A `Buffer` says "not ready" to a task that has had its turn, so that it lets others run. That is not a busy service.
#[tokio::test]
async fn who_has_had_its_turn_is_not_taken_for_one_too_many() {
    let layer = ShedLayer::builder().max_waiting(0).build().unwrap();
    let service = layer.layer(Buffer::new(Leaf::new([Step::Answer]), 1_000));
    let mut calls: Vec<_> =
        (0..500).map(|_| Box::pin(service.clone().oneshot(of(Priority::Normal)))).collect();
    poll_fn(|cx| {
        calls.retain_mut(|call| match call.as_mut().poll(cx) {
            Poll::Ready(answer) => {
                assert_eq!(answer.map_err(|error| error.to_string()), Ok(0));
                false
            }
            Poll::Pending => true,
        });
        if calls.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    assert_eq!(layer.handle().snapshot().shed.total(), 0);
}

/// What wakes another one may panic, in whoever has come to wake it. That one is gone then, and so has to be its place.
#[tokio::test(start_paused = true)]
async fn who_panics_as_it_joins_leaves_nothing_behind() {
    struct Panics(AtomicBool);

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            assert!(!self.0.load(SeqCst), "nobody wakes me");
        }
    }

    let layer = ShedLayer::builder().max_wait(MILLISECOND * 100).build().unwrap();
    let gate = Gate::default();
    let service = layer.layer(Gated::new(Leaf::new([Step::Answer]), &gate));
    let panics = Arc::new(Panics(AtomicBool::new(false)));
    let mut head = Box::pin(service.clone().oneshot(of(Priority::Normal)));
    assert!(head.as_mut().poll(&mut Context::from_waker(&Arc::clone(&panics).into())).is_pending());
    sleep(MILLISECOND * 120).await;
    panics.0.store(true, SeqCst);
    let mut next = Box::pin(service.clone().oneshot(of(Priority::Normal)));
    catch_unwind(AssertUnwindSafe(|| poll_once(next.as_mut()))).unwrap_err();
    drop(next);
    assert_eq!(layer.handle().snapshot().waiting.total(), 0);
}

/// It has asked the service once, and may have been given a place there; then its task has forgotten it.
#[tokio::test(start_paused = true)]
async fn a_head_that_is_never_polled_again_holds_up_the_others_no_longer_than_its_own_wait() {
    let layer = ShedLayer::builder().max_wait(MILLISECOND * 100).build().unwrap();
    let gate = Gate::default();
    let service = layer.layer(Gated::new(Leaf::new([Step::Answer]), &gate));
    let mut forgotten = Box::pin(service.clone().oneshot(of(Priority::Normal)));
    assert!(poll_once(forgotten.as_mut()).is_pending());
    sleep(MILLISECOND * 50).await;
    let began = Instant::now();
    let next = tokio::spawn(service.clone().oneshot(of(Priority::Normal)));
    let last = tokio::spawn(service.clone().oneshot(of(Priority::Normal)));
    settle().await;
    gate.set(true);
    assert_eq!((next.await.unwrap(), last.await.unwrap()), (Ok(0), Ok(0)));
    // The other half of its wait, and the target.
    assert!(began.elapsed() <= MILLISECOND * 62, "{:?}", began.elapsed());
    assert_eq!(forgotten.await, Err(shed(Priority::Normal)));
    // One that has never been polled at all is not even in line.
    gate.set(false);
    let unpolled = service.clone().oneshot(of(Priority::Normal));
    gate.set(true);
    assert_eq!(service.oneshot(of(Priority::Normal)).await, Ok(0));
    drop(unpolled);
}

/// At each point: in line, as the head, sent away, and during the call.
#[tokio::test(start_paused = true)]
async fn who_is_dropped_leaves_nothing_behind_and_hands_its_turn_on() {
    for polls in 0..5 {
        for dropped in 0..4_usize {
            let layer = ShedLayer::builder().max_waiting(3).build().unwrap();
            let (leaf, gate) = (Leaf::new([Step::Hang]), Gate::default());
            let service = layer.layer(ConcurrencyLimit::new(Gated::new(leaf.clone(), &gate), 1));
            let mut calls: Vec<_> = (0..4_u32)
                .map(|number| {
                    let priority = if number == 3 { Priority::Critical } else { Priority::Low };
                    Box::pin(service.clone().oneshot(Request::new(number).priority(priority)))
                })
                .collect();
            for poll in 0..polls {
                gate.set(poll > 1);
                // The first was pushed out when the last one came.
                let from = usize::from(poll > 0);
                for call in &mut calls[from..] {
                    assert!(poll_once(call.as_mut()).is_pending());
                }
            }
            drop(calls.remove(dropped));
            leaf.follow([Step::Answer]);
            gate.set(true);
            drop(calls);
            let snapshot = layer.handle().snapshot();
            assert_eq!((snapshot.waiting.total(), leaf.in_flight(), gate.taken()), (0, 0, 0));
            assert_eq!(service.oneshot(of(Priority::Low)).await, Ok(0), "{polls} polls, {dropped} dropped");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_place_of_a_head_that_is_dropped_goes_to_the_next() {
    let gate = Gate::with_places(1);
    let service = ShedLayer::default().layer(Gated::new(Leaf::new([Step::Hang, Step::Answer]), &gate));
    let mut holder = Box::pin(service.clone().oneshot(of(Priority::Normal)));
    assert!(poll_once(holder.as_mut()).is_pending());
    let (head, next) = (
        tokio::spawn(service.clone().oneshot(of(Priority::Low))),
        tokio::spawn(service.clone().oneshot(of(Priority::Low))),
    );
    settle().await;
    // The head is told that there is a place, and is gone before it can take it.
    drop(holder);
    head.abort();
    let began = Instant::now();
    assert_eq!((next.await.unwrap(), began.elapsed()), (Ok(0), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn who_waits_or_was_refused_holds_no_place_in_the_service_below() {
    let gate = Gate::with_places(1);
    let layer = ShedLayer::builder().max_waiting(1).build().unwrap();
    let service = layer.layer(Gated::new(Leaf::new([Step::Answer]), &gate));
    // It wins the place, and is refused all the same.
    let mut readied = service.clone();
    readied.ready().await.unwrap();
    assert_eq!(gate.taken(), 1);
    layer.handle().refuse_below(Some(Priority::Critical));
    assert_eq!(readied.call(of(Priority::Normal)).await, Err(shed(Priority::Normal)));
    assert_eq!(gate.taken(), 0);
    assert_eq!(readied.ready().await.unwrap().call(of(Priority::Critical)).await, Ok(0));
    layer.handle().refuse_below(None);
    assert_eq!(service.oneshot(of(Priority::Background)).await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn an_operator_sends_away_who_waits_already() {
    let layer = ShedLayer::default();
    let gate = Gate::default();
    let service = layer.layer(Gated::new(Leaf::new([Step::Answer]), &gate));
    let calls = [Priority::Low, Priority::Normal, Priority::Background]
        .map(|priority| tokio::spawn(service.clone().oneshot(of(priority))));
    settle().await;
    layer.handle().refuse_below(Some(Priority::Normal));
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.waiting.total(), snapshot.refused_below), (1, Some(Priority::Normal)));
    let [low, normal, background] = calls;
    assert_eq!(low.await.unwrap(), Err(shed(Priority::Low)));
    assert_eq!(background.await.unwrap(), Err(shed(Priority::Background)));
    gate.set(true);
    assert_eq!(normal.await.unwrap(), Ok(0));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_the_longest_wait_or_at_the_deadline() {
    let layer = ShedLayer::builder().max_wait(MILLISECOND * 50).build().unwrap();
    let gate = Gate::default();
    let service = layer.layer(Gated::new(Leaf::new([Step::Answer]), &gate));
    let began = Instant::now();
    assert_eq!(service.clone().oneshot(of(Priority::Normal)).await, Err(shed(Priority::Normal)));
    assert!((50..=52).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());

    let aware = layer.clone().deadline_aware().layer(Gated::new(Leaf::new([Step::Answer]), &gate));
    let began = Instant::now();
    let mut request = of(Priority::Normal);
    request.shorten_deadline(began + MILLISECOND * 20);
    let timed_out = Error::timed_out(TimeoutScope::Queue, MILLISECOND * 20);
    assert_eq!(aware.clone().oneshot(request.clone()).await, Err(timed_out));
    assert!((20..=22).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    // By now it has passed.
    let began = Instant::now();
    let timed_out = Error::timed_out(TimeoutScope::Queue, Duration::ZERO);
    assert_eq!((aware.oneshot(request).await, began.elapsed()), (Err(timed_out), Duration::ZERO));
    let snapshot = layer.handle().snapshot();
    assert_eq!((snapshot.timed_out, snapshot.shed.total(), snapshot.waiting.total()), (2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_broken_for_good_tells_everybody_in_line() {
    let (leaf, gate) = (Leaf::new([Step::Answer]), Gate::default());
    let service = ShedLayer::default().layer(Gated::new(leaf.clone(), &gate));
    let calls: Vec<_> = (0..5).map(|_| tokio::spawn(service.clone().oneshot(of(Priority::Low)))).collect();
    settle().await;
    leaf.break_down();
    gate.set(true);
    for call in calls {
        assert_eq!(call.await.unwrap(), Err(Error::Broken));
    }
    assert_eq!(service.oneshot(of(Priority::Low)).await, Err(Error::Broken));
}

#[tokio::test(start_paused = true)]
async fn clones_and_services_of_one_layer_share_the_line() {
    let layer = ShedLayer::builder().max_waiting(1).build().unwrap();
    let gate = Gate::default();
    let one = layer.layer(Gated::new(Leaf::new([Step::Answer]), &gate));
    let other = layer.clone().layer(Gated::new(Leaf::new([Step::Answer]), &gate));
    let first = tokio::spawn(one.oneshot(of(Priority::Low)));
    settle().await;
    assert_eq!(other.clone().oneshot(of(Priority::Low)).await, Err(shed(Priority::Low)));
    let second = tokio::spawn(other.oneshot(of(Priority::Critical)));
    assert_eq!(first.await.unwrap(), Err(shed(Priority::Low)));
    gate.set(true);
    assert_eq!(second.await.unwrap(), Ok(0));
}

#[tokio::test(start_paused = true)]
async fn over_a_service_that_is_always_ready_it_does_nothing() {
    let layer = ShedLayer::builder().max_waiting(0).build().unwrap();
    let leaf = Leaf::new([Step::Hang]);
    let service = layer.layer(leaf.clone());
    let mut calls: Vec<_> =
        (0..1_000).map(|_| Box::pin(service.clone().oneshot(of(Priority::Background)))).collect();
    assert!(calls.iter_mut().all(|call| poll_once(call.as_mut()).is_pending()));
    assert_eq!(leaf.in_flight(), 1_000);
}

#[test]
fn who_need_not_wait_allocates_nothing() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let _runtime = runtime.enter();
    let mut service =
        ShedLayer::default().layer(tower::service_fn(|_: Request| std::future::ready(Ok::<_, Error>(0))));
    let mut cx = Context::from_waker(Waker::noop());
    let counted = allocation_counter::measure(|| {
        for _ in 0..100 {
            assert!(service.poll_ready(&mut cx).is_ready());
            assert!(pin!(service.call(of(Priority::Normal))).poll(&mut cx).is_ready());
        }
    });
    assert_eq!(counted.count_total, 0);
}

/// Counts who is inside, also where a call is dropped.
struct Leave(Arc<AtomicU32>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_lose_no_wake_up_and_leave_nobody_in_line() {
    let inside = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&inside);
    let served = Arc::new(AtomicU64::new(0));
    let inner = tower::service_fn(move |_: Request| {
        let inside = Arc::clone(&counted);
        async move {
            assert!(inside.fetch_add(1, SeqCst) < 3, "more than there are places");
            let _leave = Leave(inside);
            tokio::task::yield_now().await;
            Ok::<_, Error>(0)
        }
    });
    let layer = ShedLayer::builder().max_waiting(40).max_wait(Duration::from_secs(60)).build().unwrap();
    let service = ServiceBuilder::new().layer(layer.clone()).concurrency_limit(3).service(inner);
    let priorities = [Priority::Background, Priority::Low, Priority::Normal, Priority::Critical];
    let tasks: Vec<_> = (0..64_usize)
        .map(|task| {
            let (service, served) = (service.clone(), Arc::clone(&served));
            tokio::spawn(async move {
                for round in 0..200 {
                    let mut call = Box::pin(service.clone().oneshot(of(priorities[(task + round) % 4])));
                    // Some give up after the first poll: in line, or before their call.
                    if (task + round) % 7 == 0 {
                        let outcome = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
                        drop(call);
                        if outcome.is_pending() {
                            continue;
                        }
                    } else if call.await.is_err() {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    served.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(30), task).await.expect("a wake-up was lost").unwrap();
    }
    let snapshot = layer.handle().snapshot();
    assert_eq!(snapshot.waiting.total(), 0, "{snapshot:?}");
    assert!(served.load(SeqCst) > 500, "{served:?}");
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let cases = [
        (ShedLayer::builder().max_waiting(1_000_001), "max_waiting"),
        (ShedLayer::builder().target(Duration::ZERO), "target"),
        (ShedLayer::builder().interval(Duration::ZERO), "interval"),
        (ShedLayer::builder().interval(Duration::MAX), "interval"),
        (ShedLayer::builder().max_wait(Duration::ZERO), "max_wait"),
        (ShedLayer::builder().max_wait(Duration::MAX), "max_wait"),
        (ShedLayer::builder().max_wait(MILLISECOND * 9), "max_wait"),
        (ShedLayer::builder().target(Duration::MAX), "interval"),
    ];
    for (builder, setting) in cases {
        let error = builder.build().unwrap_err();
        assert_eq!(error.setting(), setting, "{error}");
    }
    let handle = ShedLayer::default().handle();
    assert_eq!(handle.set_target(Duration::from_secs(2)).unwrap_err().setting(), "interval");
    assert_eq!(handle.set_max_wait(MILLISECOND).unwrap_err().setting(), "max_wait");
    assert_eq!(handle.set_max_waiting(u32::MAX).unwrap_err().setting(), "max_waiting");
    handle.set_target(MILLISECOND * 50).unwrap();
    handle.set_max_wait(MILLISECOND * 50).unwrap();
    handle.set_max_waiting(0).unwrap();
    assert_eq!(handle.snapshot().target, MILLISECOND * 50);
}

#[test]
fn the_future_stays_small() {
    fn size<S: Service<Request>>(_: &S) -> usize {
        size_of::<S::Future>()
    }
    let service: Shed<_> = ShedLayer::default().layer(Leaf::new([Step::Answer]));
    assert!(size(&service) <= 256, "{} bytes", size(&service));
}

#[test]
fn refusals_and_waits_are_counted_and_the_threshold_told() {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
            let builder: ShedBuilder = ShedLayer::builder().max_waiting(2).named("reads");
            let layer = builder.build().unwrap();
            let gate = Gate::default();
            let service = layer.layer(Gated::new(Leaf::new([Step::Answer]), &gate));
            let spawn = |priority| tokio::spawn(service.clone().oneshot(of(priority)));
            let calls = [Priority::Low, Priority::Normal, Priority::Critical].map(spawn);
            settle().await;
            // Late, for long enough.
            sleep(MILLISECOND * 120).await;
            assert!(spawn(Priority::Background).await.unwrap().is_err());
            gate.set(true);
            for call in calls {
                let _ = call.await.unwrap();
            }
            layer.handle().refuse_below(Some(Priority::Low));
        });
    });
    let seen = Recorded::at(&recorder);
    assert_eq!(seen.count("palisade_shed_total", &[("layer", "reads"), ("priority", "low")]), 1);
    assert_eq!(seen.count("palisade_shed_waited_total", &[("layer", "reads")]), 3);
    let gauges = ["palisade_shed_waiting", "palisade_shed_threshold"];
    assert_eq!(gauges.map(|gauge| seen.gauge(gauge, &[("layer", "reads")])), [Some(0.0), Some(1.0)]);
}

/// Whatever it was that looked.
#[test]
fn the_threshold_is_told_also_where_a_setting_was_refused() {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        run_paused(async {
            let layer = ShedLayer::default();
            let service = layer.layer(Gated::new(Leaf::new([Step::Answer]), &Gate::default()));
            let mut call = Box::pin(service.oneshot(of(Priority::Normal)));
            assert!(poll_once(call.as_mut()).is_pending());
            sleep(MILLISECOND * 120).await;
            layer.handle().set_target(Duration::MAX).unwrap_err();
            assert_eq!(layer.handle().snapshot().refused_below, Some(Priority::Normal));
            let told = Recorded::at(&recorder).gauge("palisade_shed_threshold", &[("layer", "shed")]);
            assert_eq!(told, Some(2.0));
        });
    });
}

/// An operator who looks in the night, when nobody calls any more, sees what is so then.
#[test]
fn a_snapshot_sees_an_overload_that_no_call_has_seen() {
    let layer = ShedLayer::default();
    let handle = layer.handle();
    run_paused(async {
        let service = layer.layer(Gated::new(Leaf::new([Step::Answer]), &Gate::default()));
        let mut waiting = Box::pin(service.oneshot(Request::new(1)));
        assert!(poll_once(waiting.as_mut()).is_pending());
        assert_eq!(handle.snapshot().overloaded, None);
        sleep(MILLISECOND * 500).await;
        assert_eq!(handle.snapshot().overloaded, Some(Priority::Normal));
    });
}
