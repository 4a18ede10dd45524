use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use palisade::{
    HasDeadline, Instant, Priority, Rejection, ShedLayer, TimeoutScope,
    shed::{Shed, ShedBuilder},
    testkit::{Error, Gate, Gated, Leaf, Request, Step, poll_once, settle},
};
use tokio::time::sleep;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimit};

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

#[tokio::test(start_paused = true)]
async fn explore() {
    for (k, ms, newest) in [
        (10, 5, true),
        (10, 5, false),
        (10, 50, true),
        (10, 50, false),
        (1, 5, true),
        (1, 100, true),
        (1, 100, false),
        (100, 100, true),
        (100, 10, true),
    ] {
        for factor in [0.7, 0.9, 1.0, 1.2, 2.0, 5.0] {
            let layer = ShedLayer::builder().newest_first(newest).build().unwrap();
            let leaf = Leaf::new([Step::AnswerAfter(MILLISECOND * ms)]);
            let service = layer.layer(ConcurrencyLimit::new(leaf.clone(), k));
            let capacity = (k as f64) * 1000.0 / f64::from(ms);
            let lasts = Duration::from_secs(if capacity > 1000.0 { 5 } else { 60 });
            let began = Instant::now();
            let t = offer(&service, 7, (capacity * factor) as u32, [10, 30, 50, 10], lasts).await;
            let _ = began;
            let used = leaf.call_count() as f64 / (capacity * lasts.as_secs_f64());
            print!("{k}x{ms}ms newest {newest} load {factor}: used {used:.3}");
            for (p, t) in &t {
                let waits: Vec<_> = t.served.iter().map(|t| t.saturating_sub(MILLISECOND * ms)).collect();
                print!(
                    " | {p} {:.4} wait p50 {:?} p99 {:?} max {:?} refused p50 {:?} max {:?}",
                    t.share_served(),
                    percentile(&waits, 50),
                    percentile(&waits, 99),
                    percentile(&waits, 100),
                    percentile(&t.refused, 50),
                    percentile(&t.refused, 100)
                );
            }
            println!();
        }
    }
}
