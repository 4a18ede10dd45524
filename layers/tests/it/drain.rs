use std::{
    future::pending,
    pin::pin,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{Router, body::Body, routing::get};
use http::StatusCode;
use metrics_util::debugging::DebuggingRecorder;
use palisade::{
    CoalesceLayer, DeadlineLayer, Drain, Instant, Rejection, ServiceBuilderExt, box_errors,
    drain::{DrainReport, Phase},
    respond,
    testkit::{Error, Gate, Gated, Leaf, Request, Step, Wakes, poll_once, run_paused, settle},
};
use tokio::time::{advance, sleep, timeout};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::{events::logged, recorded::Recorded};

const SECOND: Duration = Duration::from_secs(1);

fn draining<T>() -> Result<T, Error> {
    Err(Rejection::Draining.into())
}

fn finished(report: DrainReport) -> bool {
    assert_eq!(report.finished, report.in_flight == 0);
    report.finished
}

#[tokio::test(start_paused = true)]
async fn old_calls_finish_and_new_ones_are_refused_at_once() {
    let drain = Drain::new();
    let leaf = Leaf::new([Step::AnswerAfter(SECOND * 3)]);
    let service = drain.layer().layer(leaf.clone());
    let old = tokio::spawn(service.clone().oneshot(Request::new(1)));
    settle().await;
    drain.start();
    assert_eq!(poll_once(pin!(service.clone().oneshot(Request::new(2)))), Poll::Ready(draining()));
    assert_eq!((leaf.call_count(), drain.in_flight()), (1, 1));
    let report = drain.finish().await;
    assert!(finished(report));
    assert_eq!(report.took.as_secs(), 3);
    assert_eq!(old.await.unwrap(), Ok(1));
    assert_eq!(service.oneshot(Request::new(3)).await, draining());
}

/// Of coalesced calls one leads, and gives up: the call goes on in a task for those who follow, and they are waited for.
#[tokio::test(start_paused = true)]
async fn a_call_that_goes_on_without_its_leader_is_waited_for() {
    let drain = Drain::new();
    let leaf = Leaf::new([Step::AnswerAfter(SECOND * 3)]);
    let coalesce = CoalesceLayer::new(|_: &Request| Some(()));
    let flights = coalesce.handle();
    let service = drain.layer().layer(coalesce.layer(leaf.clone()));
    let leader = tokio::spawn(service.clone().oneshot(Request::new(1)));
    settle().await;
    let follower = tokio::spawn(service.clone().oneshot(Request::new(2)));
    settle().await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    let report = drain.finish().await;
    assert!(finished(report));
    assert_eq!(report.took.as_secs(), 3);
    assert_eq!((leaf.call_count(), leaf.in_flight(), flights.snapshot().detached), (1, 0, 1));
    assert_eq!(follower.await.unwrap(), Ok(1));
}

/// No runtime, no timer.
#[test]
fn a_drain_with_nothing_in_flight_is_over_at_once() {
    let drain = Drain::new();
    let service = drain.layer().layer(Leaf::new([Step::Answer]));
    assert_eq!(poll_once(pin!(service.clone().oneshot(Request::new(1)))), Poll::Ready(Ok(1)));
    assert_eq!(drain.snapshot().phase, Phase::Open);
    assert!(!drain.is_draining() && poll_once(pin!(drain.started())).is_pending());
    let Poll::Ready(report) = poll_once(pin!(drain.finish())) else { panic!("nothing is in flight") };
    assert!(finished(report));
    assert!(drain.is_draining() && poll_once(pin!(drain.started())).is_ready());
    assert!(poll_once(pin!(drain.refusing())).is_ready());
    let snapshot = drain.snapshot();
    assert_eq!((snapshot.phase, snapshot.in_flight, snapshot.refused), (Phase::Finished, 0, 0));
    assert_eq!(poll_once(pin!(service.oneshot(Request::new(1)))), Poll::Ready(draining()));
    assert_eq!(drain.snapshot().refused, 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_gets_the_same_report() {
    let drain = Drain::new();
    let call = drain.guard().unwrap();
    drain.start();
    advance(SECOND).await;
    drain.start();
    let first = tokio::spawn(drain.finish());
    settle().await;
    let second = tokio::spawn(drain.clone().finish());
    advance(SECOND).await;
    drop(call);
    let reports = [first.await.unwrap(), second.await.unwrap(), drain.finish().await];
    advance(SECOND).await;
    let later = drain.finish_within(Duration::ZERO).await;
    assert!(reports.iter().all(|report| finished(*report) && *report == later));
    assert_eq!(later.took, SECOND * 2, "from the first start to the end, whoever saw it when");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_counts_who_is_left_and_they_go_on() {
    let drain = Drain::builder().timeout(SECOND * 5).build().unwrap();
    let service = drain.layer().layer(Leaf::new([Step::AnswerAfter(SECOND * 8), Step::Hang]));
    let slow = tokio::spawn(service.clone().oneshot(Request::new(1)));
    settle().await;
    let hangs = tokio::spawn(service.oneshot(Request::new(2)));
    settle().await;
    drain.start();
    // It counts from the start, so that what else is done first shortens the wait.
    advance(SECOND * 2).await;
    let (began, mut twice) = (Instant::now(), pin!(drain.finish()));
    assert!(poll_once(twice.as_mut()).is_pending());
    let report = drain.finish().await;
    assert_eq!((report.finished, report.in_flight, report.took), (false, 2, SECOND * 5));
    assert_eq!((began.elapsed(), twice.await), (SECOND * 3, report));
    assert_eq!(slow.await.unwrap(), Ok(1));
    assert_eq!(drain.finish().await.in_flight, 1, "its time has passed: it tells what is left");
    hangs.abort();
    let report = drain.finish_within(SECOND).await;
    assert!(finished(report), "late, but over");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_ones_own_counts_from_the_first_poll() {
    let drain = Drain::new();
    let _guard = drain.guard();
    let finish = drain.finish_within(SECOND);
    assert!(!drain.is_draining(), "a future that was never polled has done nothing");
    advance(SECOND * 9).await;
    let report = finish.await;
    assert_eq!((report.in_flight, report.took), (1, SECOND));
    assert_eq!(drain.finish().await.took, SECOND * 30);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_may_be_zero_or_without_end() {
    for timeout in [Duration::ZERO, Duration::MAX] {
        let drain = Drain::builder().timeout(timeout).build().unwrap();
        let guard = drain.guard();
        let mut finish = pin!(drain.finish());
        let Poll::Ready(report) = poll_once(finish.as_mut()) else {
            assert_eq!(timeout, Duration::MAX);
            advance(SECOND * 86_400 * 365).await;
            assert!(poll_once(finish.as_mut()).is_pending());
            drop(guard);
            assert!(finished(finish.await));
            continue;
        };
        assert_eq!((timeout, report.in_flight), (Duration::ZERO, 1));
    }
    let idle = Drain::builder().timeout(Duration::ZERO).build().unwrap();
    assert!(finished(idle.finish().await), "there was nothing to wait for");
}

#[test]
fn a_grace_that_makes_no_sense_is_refused_by_name() {
    for grace in [SECOND * 31, Duration::MAX, SECOND * 3_601] {
        let error = Drain::builder().grace(grace).build().unwrap_err();
        assert_eq!(error.setting(), "grace", "{error}");
    }
    assert!(Drain::builder().grace(SECOND * 3_601).timeout(Duration::MAX).build().is_err());
    assert!(Drain::builder().grace(SECOND * 30).build().is_ok());
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_dropped_or_panic_count_no_more() {
    let drain = Drain::new();
    let leaf = Leaf::new([Step::Hang, Step::Hang, Step::Panic]);
    let mut service = drain.layer().layer(leaf);
    let unpolled = service.ready().await.unwrap().call(Request::new(1));
    let mut polled = Box::pin(service.ready().await.unwrap().call(Request::new(2)));
    assert!(poll_once(polled.as_mut()).is_pending());
    let panics = tokio::spawn(service.ready().await.unwrap().call(Request::new(3)));
    assert_eq!(drain.in_flight(), 3);
    assert!(panics.await.unwrap_err().is_panic());
    drop((unpolled, polled));
    assert_eq!(drain.in_flight(), 0);
    let panics = service_fn(|(): ()| -> std::future::Ready<Result<(), Error>> { panic!("in call") });
    let call = std::panic::AssertUnwindSafe(|| drop(drain.layer().layer(panics).call(())));
    assert!(std::panic::catch_unwind(call).is_err());
    assert!(finished(drain.finish_within(Duration::ZERO).await));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_answered_counts_no_more_even_if_its_future_is_kept() {
    let drain = Drain::new();
    let mut call = pin!(drain.layer().layer(Leaf::new([Step::Answer])).oneshot(Request::new(1)));
    assert!(poll_once(call.as_mut()).is_ready());
    assert!(finished(drain.finish_within(Duration::ZERO).await));
}

#[tokio::test(start_paused = true)]
async fn the_future_that_waits_can_be_dropped_and_changes_nothing() {
    let drain = Drain::new();
    let guard = drain.guard().unwrap();
    drop(drain.finish());
    assert!(!drain.is_draining());
    for _ in 0..100 {
        assert!(timeout(Duration::from_millis(1), drain.finish()).await.is_err());
    }
    assert!(drain.is_draining() && drain.in_flight() == 1);
    let wakes = Wakes::new();
    let mut waits = pin!(drain.finish());
    for waker in [Waker::noop(), &wakes.waker()] {
        assert!(waits.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    }
    drop(guard);
    assert_eq!(wakes.count(), 1, "the waker of the latest poll");
    assert!(finished(waits.await));
}

#[tokio::test(start_paused = true)]
async fn guards_count_as_calls_do() {
    let drain = Drain::new();
    let guard = drain.guard().unwrap();
    drain.start();
    assert!(drain.guard().is_none(), "new work is refused");
    assert_eq!(drain.snapshot().refused, 1);
    let another = guard.clone();
    let held = drain.hold().expect("something is in flight that it may belong to");
    assert_eq!(drain.in_flight(), 3);
    drop((guard, another));
    let tracked = tokio::spawn(held.track(sleep(SECOND)));
    let report = drain.finish().await;
    assert!(finished(report) && report.took.as_secs() == 1);
    tracked.await.unwrap();
    assert!(drain.hold().is_none(), "nothing may come after the end");
}

#[tokio::test(start_paused = true)]
async fn a_tracked_future_counts_until_it_ends_or_is_dropped() {
    let drain = Drain::new();
    let mut ended = Box::pin(drain.guard().unwrap().track(async { 7 }));
    assert_eq!(poll_once(ended.as_mut()), Poll::Ready(7));
    assert_eq!(drain.in_flight(), 0, "although it is kept");
    let hangs = drain.guard().unwrap().track(pending::<()>());
    assert_eq!(drain.in_flight(), 1);
    drop(hangs);
    assert!(finished(drain.finish().await));
}

/// A call leaves work behind that goes on after it was answered, and begins it while the drain waits.
#[tokio::test(start_paused = true)]
async fn what_a_call_leaves_behind_is_waited_for() {
    let (drain, written) = (Drain::new(), Arc::new(AtomicBool::new(false)));
    let (of_service, by_service) = (drain.clone(), Arc::clone(&written));
    let service = drain.layer().layer(service_fn(move |(): ()| {
        let (drain, written) = (of_service.clone(), Arc::clone(&by_service));
        async move {
            sleep(SECOND).await;
            assert!(drain.is_draining() && drain.guard().is_none());
            let held = drain.hold().expect("a call is in flight: this one");
            tokio::spawn(held.track(async move {
                sleep(SECOND).await;
                written.store(true, SeqCst);
            }));
            Ok::<_, Error>(())
        }
    }));
    let call = tokio::spawn(service.oneshot(()));
    settle().await;
    let report = drain.finish().await;
    assert!(call.is_finished() && written.load(SeqCst));
    assert!(finished(report) && report.took.as_secs() == 2);
}

#[tokio::test(start_paused = true)]
async fn one_drain_is_for_any_number_of_stacks() {
    let drain = Drain::new();
    let numbers = drain.layer().layer(Leaf::new([Step::AnswerAfter(SECOND)]));
    let words = ServiceBuilder::new().drained_by(&drain).service(service_fn(async |word: &'static str| {
        sleep(SECOND * 2).await;
        Ok::<_, Error>(word)
    }));
    let number = tokio::spawn(numbers.clone().oneshot(Request::new(1)));
    let word = tokio::spawn(words.clone().oneshot("word"));
    settle().await;
    assert_eq!(drain.in_flight(), 2);
    assert_eq!(drain.finish().await.took.as_secs(), 2);
    assert_eq!((number.await.unwrap(), word.await.unwrap()), (Ok(1), Ok("word")));
    assert_eq!(numbers.oneshot(Request::new(1)).await, draining());
    assert_eq!(words.oneshot("word").await, draining());
}

#[tokio::test(start_paused = true)]
async fn those_who_want_to_know_are_told_when_it_begins() {
    let drain = Drain::new();
    let background = {
        let drain = drain.clone();
        tokio::spawn(async move {
            let mut rounds = 0;
            while timeout(SECOND, drain.started()).await.is_err() {
                rounds += 1;
            }
            rounds
        })
    };
    let refusing = tokio::spawn(drain.refusing());
    sleep(SECOND * 7 / 2).await;
    assert!(!background.is_finished() && !refusing.is_finished());
    std::thread::spawn(move || drain.start()).join().unwrap();
    assert_eq!(background.await.unwrap(), 3);
    refusing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn during_the_grace_calls_are_let_in_and_readiness_is_not() {
    let drain = Drain::builder().grace(SECOND * 5).build().unwrap();
    let service = drain.layer().layer(Leaf::new([Step::AnswerAfter(SECOND * 2)]));
    let (finish, refusing) = (tokio::spawn(drain.finish()), tokio::spawn(drain.refusing()));
    settle().await;
    assert!(drain.is_draining() && poll_once(pin!(drain.started())).is_ready());
    assert_eq!(drain.snapshot().phase, Phase::Grace);
    assert_eq!(service.clone().oneshot(Request::new(1)).await, Ok(1));
    assert!(drain.guard().is_some() && drain.hold().is_some());
    sleep(SECOND * 2).await;
    let last = tokio::spawn(service.clone().oneshot(Request::new(2)));
    assert!(!finish.is_finished() && !refusing.is_finished());
    let began = Instant::now();
    refusing.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 1);
    assert_eq!(service.oneshot(Request::new(3)).await, draining());
    let report = finish.await.unwrap();
    assert!(finished(report) && last.await.unwrap() == Ok(2));
    assert_eq!(report.took.as_secs(), 6);
}

#[tokio::test(start_paused = true)]
async fn the_first_call_after_the_grace_ends_it() {
    let drain = Drain::builder().grace(SECOND).build().unwrap();
    let service = drain.layer().layer(Leaf::new([Step::Answer]));
    drain.start();
    advance(SECOND * 999 / 1_000).await;
    drain.start();
    assert_eq!(service.clone().oneshot(Request::new(1)).await, Ok(1));
    advance(SECOND / 1_000).await;
    assert_eq!(service.oneshot(Request::new(1)).await, draining());
    assert_eq!(drain.snapshot().phase, Phase::Finished);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_wait_for_the_end_of_the_grace_is_told_that_it_is_not_over() {
    let drain = Drain::builder().grace(SECOND * 5).build().unwrap();
    let report = drain.finish_within(SECOND).await;
    assert_eq!((report.finished, report.in_flight), (false, 0));
    assert_eq!(drain.snapshot().phase, Phase::Grace);
    assert_eq!(drain.finish().await.took, SECOND * 5);
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_gives_back_what_its_service_held() {
    let (drain, gate) = (Drain::new(), Gate::with_places(1));
    let mut service = drain.layer().layer(Gated::new(Leaf::new([Step::Answer]), &gate));
    service.ready().await.unwrap();
    assert_eq!(gate.taken(), 1);
    drain.start();
    assert_eq!(service.call(Request::new(1)).await, draining());
    assert_eq!(gate.taken(), 0);
    // It needs no inner service to be ready, and to refuse.
    gate.set(false);
    for mut service in [service.clone(), service] {
        assert_eq!(service.ready().await.unwrap().call(Request::new(1)).await, draining());
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_inner_service_when_it_begins_is_let_go() {
    let (drain, gate) = (Drain::new(), Gate::default());
    let service = drain.layer().layer(Gated::new(Leaf::new([Step::Answer]), &gate));
    let waits = tokio::spawn(service.clone().oneshot(Request::new(1)));
    settle().await;
    assert!(!waits.is_finished());
    drain.start();
    assert_eq!(waits.await.unwrap(), draining());
    assert!(finished(drain.finish().await), "it was never a call");
    // And who comes now does not wait at all.
    assert_eq!(poll_once(pin!(service.oneshot(Request::new(1)))), Poll::Ready(draining()));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_becomes_ready_before_it_begins_is_called() {
    let (drain, gate) = (Drain::new(), Gate::default());
    let service = drain.layer().layer(Gated::new(Leaf::new([Step::Answer]), &gate));
    let waits = tokio::spawn(service.oneshot(Request::new(1)));
    settle().await;
    gate.set(true);
    assert_eq!(waits.await.unwrap(), Ok(1));
}

/// What tower asks, of a drain that has begun: readiness says nothing of it, calls do.
#[tokio::test(start_paused = true)]
async fn a_drain_that_has_begun_refuses_in_calls_only_and_tells_of_a_broken_service() {
    let drain = Drain::new();
    let leaf = Leaf::new([Step::Answer]);
    let mut service = drain.layer().layer(leaf.clone());
    drain.start();
    let mut cx = Context::from_waker(Waker::noop());
    for number in 0..3 {
        assert_eq!(service.poll_ready(&mut cx), Poll::Ready(Ok(())));
        assert_eq!(poll_once(pin!(service.call(Request::new(number)))), Poll::Ready(draining()));
    }
    leaf.break_down();
    let mut broken = drain.layer().layer(leaf);
    assert_eq!(broken.poll_ready(&mut cx), Poll::Ready(Err(Error::Broken)));
}

#[tokio::test(start_paused = true)]
async fn a_route_is_drained() {
    let drain = Drain::new();
    let app: Router = Router::new().route("/", get(async || sleep(SECOND).await)).layer(
        ServiceBuilder::new()
            .layer(respond())
            .drained_by(&drain)
            .layer(DeadlineLayer::new(SECOND * 10))
            .layer(box_errors()),
    );
    let request = || http::Request::get("/").body(Body::empty()).unwrap();
    let old = tokio::spawn(app.clone().oneshot(request()));
    settle().await;
    drain.start();
    let refused = app.oneshot(request()).await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(finished(drain.finish().await));
    assert_eq!(old.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[test]
fn a_drain_is_seen_in_the_metrics() {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        let drain = Drain::builder().named("process").build().unwrap();
        let service = drain.layer().layer(Leaf::new([Step::Answer]));
        assert!(poll_once(pin!(service.clone().oneshot(Request::new(1)))).is_ready());
        drain.start();
        assert!(poll_once(pin!(service.oneshot(Request::new(1)))).is_ready());
        assert!(drain.guard().is_none());
    });
    let seen = Recorded::at(&recorder);
    assert_eq!(seen.gauge("palisade_drain_draining", &[("layer", "process")]), Some(1.0));
    assert_eq!(seen.count("palisade_drain_refused_total", &[("layer", "process")]), 2);
}

#[test]
fn its_beginning_its_end_and_a_timeout_are_events_once_each() {
    let events = logged(&["in_flight"], || {
        run_paused(async {
            let drain = Drain::builder().named("process").timeout(SECOND).build().unwrap();
            let guard = drain.guard();
            drain.start();
            let (first, second) = tokio::join!(drain.finish(), drain.finish());
            assert!(!first.finished && first == second);
            drop(guard);
            assert!(drain.guard().is_none() && drain.finish().await.finished);
        });
    });
    let wanted = ["INFO", "WARN", "INFO", "DEBUG"];
    assert_eq!(events.len(), wanted.len(), "{events:?}");
    assert!(events.iter().zip(wanted).all(|(event, level)| event.starts_with(level)), "{events:?}");
    assert!(events[0].ends_with(" 1") && events[1].ends_with(" 1"), "{events:?}");
}

/// Whoever comes second to start it may find the first one at it.
#[test]
fn threads_that_start_it_together_each_find_it_closed_afterwards() {
    for _ in 0..500 {
        let (drain, barrier) = (Drain::new(), Barrier::new(4));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    barrier.wait();
                    drain.start();
                    assert!(drain.guard().is_none());
                });
            }
        });
    }
}

/// Calls on eight threads while another one drains. What was let in is over when the end is told, and nothing comes after.
#[test]
fn threads_that_call_while_it_begins_are_waited_for_or_refused() {
    const THREADS: usize = 8;
    for round in 0..200 {
        let grace = Duration::from_micros(200 * (round % 3));
        let drain = Drain::builder().grace(grace).build().unwrap();
        let (barrier, over) = (Barrier::new(THREADS + 1), Arc::new(AtomicBool::new(false)));
        let inside = Arc::new(AtomicU64::new(0));
        let leaf = {
            let (inside, over) = (Arc::clone(&inside), Arc::clone(&over));
            service_fn(move |(): ()| {
                inside.fetch_add(1, SeqCst);
                assert!(!over.load(SeqCst), "let in after the end");
                let inside = Arc::clone(&inside);
                async move {
                    std::thread::yield_now();
                    inside.fetch_sub(1, SeqCst);
                    Ok::<_, Error>(())
                }
            })
        };
        let service = drain.layer().layer(leaf);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    // Without a runtime: these calls never wait.
                    while let Poll::Ready(outcome) = poll_once(pin!(service.clone().oneshot(()))) {
                        if outcome.is_err() {
                            break;
                        }
                    }
                    assert!(drain.guard().is_none());
                });
            }
            barrier.wait();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let report = runtime.block_on(drain.finish());
            over.store(true, SeqCst);
            assert!(finished(report), "{report:?}");
            assert_eq!(inside.load(SeqCst), 0, "one that was let in has been forgotten");
        });
        assert_eq!(drain.in_flight(), 0);
    }
}

#[test]
fn a_call_allocates_nothing_and_its_future_is_small() {
    fn size<S: Service<Request, Future: Send + 'static>>(_: &S) -> usize {
        size_of::<S::Future>()
    }
    let drain = Drain::new();
    let mut service = drain.layer().layer(service_fn(|(): ()| std::future::ready(Ok::<_, Error>(()))));
    let mut call = || {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Service::poll_ready(&mut service, &mut cx).is_ready());
        assert!(poll_once(pin!(service.call(()))).is_ready());
    };
    call();
    assert_eq!(allocation_counter::measure(call).count_total, 0);
    let service = drain.layer().layer(Leaf::new([Step::Answer]));
    assert!(size(&service) <= 16 + 16, "{} bytes", size(&service));
}
