//! Two threads with a service of one layer: together they should do more than one, and not less than a peer's.

use std::{
    hint::black_box,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use palisade::{
    AdaptiveConcurrencyLayer, CircuitBreakerLayer, ConcurrencyLimitLayer, DeadlineLayer, Drain, HedgeLayer,
    MetricsLayer, RateLimitLayer, RetryLayer, ShedLayer, ThrottleLayer, TimeoutLayer,
};
use tower::{Layer, Service};
use tower_resilience::circuitbreaker;

use crate::{
    beside::{LIMIT, MANY, PLACES},
    harness::{Bars, is_quick, is_wanted, median},
    leaf::{ReadyLeaf, Request, call},
    stacks,
};

/// Calls per second of `threads` threads together, each with a clone of its own.
fn throughput<S>(service: &S, threads: usize, time: Duration) -> f64
where
    S: Service<Request, Response = u32> + Clone + Send + Sync,
{
    let (start, stop) = (Barrier::new(threads + 1), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut service = service.clone();
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                    let runtime = runtime.expect("a runtime");
                    let _context = runtime.enter();
                    start.wait();
                    let (began, mut calls) = (Instant::now(), 0_u32);
                    while !stop.load(Relaxed) {
                        for _ in 0..64 {
                            call(black_box(&mut service));
                        }
                        calls += 64;
                    }
                    f64::from(calls) / began.elapsed().as_secs_f64()
                })
            })
            .collect();
        start.wait();
        std::thread::sleep(time);
        stop.store(true, Relaxed);
        workers.into_iter().map(|worker| worker.join().expect("a worker that does not panic")).sum()
    })
}

/// Medians of throughputs, taken in turns.
fn in_turns<const N: usize>(measure: [&dyn Fn(Duration) -> f64; N]) -> [f64; N] {
    let (rounds, time) = if is_quick() { (15, 30) } else { (41, 100) };
    let mut figures = [const { Vec::new() }; N];
    for _ in 0..rounds {
        for (figures, measure) in figures.iter_mut().zip(measure) {
            figures.push(measure(Duration::from_millis(time)));
        }
    }
    figures.map(median)
}

/// Where two threads meet: how each layer fares by itself.
fn each_layer() {
    macro_rules! one_and_two {
        ($($name:literal: $layer:expr;)*) => {
            $(
                let service = $layer.layer(ReadyLeaf);
                let [one, two] =
                    in_turns([&|time| throughput(&service, 1, time), &|time| throughput(&service, 2, time)]);
                println!("{}: one thread {:.1}, two threads {:.1} million calls/s", $name, one / 1e6, two / 1e6);
            )*
        };
    }
    one_and_two! {
        "drain": Drain::new().layer();
        "adaptive": AdaptiveConcurrencyLayer::default();
        "shed": ShedLayer::default();
        "throttle": ThrottleLayer::default();
        "deadline": DeadlineLayer::new(LIMIT);
        "metrics": MetricsLayer::default();
        "rate": RateLimitLayer::per_second(MANY);
        "concurrency": ConcurrencyLimitLayer::new(PLACES);
        "tower's concurrency": tower::limit::ConcurrencyLimitLayer::new(1_000);
        "retry": RetryLayer::default();
        "hedge": HedgeLayer::default();
        "breaker": CircuitBreakerLayer::default();
        "timeout": TimeoutLayer::new(LIMIT);
    }
}

pub(crate) fn run(bars: &mut Bars) {
    // Only if it is asked for by this name.
    if std::env::args().any(|argument| argument == "each_on_two_threads") {
        each_layer();
    }
    if !is_wanted("two_threads") {
        return;
    }
    let breaker = CircuitBreakerLayer::default().layer(ReadyLeaf);
    let tower = tower::limit::ConcurrencyLimitLayer::new(1_000).layer(ReadyLeaf);
    let theirs =
        circuitbreaker::CircuitBreakerLayer::builder().build().expect("its defaults").layer(ReadyLeaf);
    let stack = stacks::eight(ReadyLeaf);
    let [one, two, limit, peer, stack_one, stack_two] = in_turns([
        &|time| throughput(&breaker, 1, time),
        &|time| throughput(&breaker, 2, time),
        &|time| throughput(&tower, 2, time),
        &|time| throughput(&theirs, 2, time),
        &|time| throughput(&stack, 1, time),
        &|time| throughput(&stack, 2, time),
    ]);
    println!(
        "two threads, million calls/s: breaker {:.1} (one thread {:.1}), tower's concurrency limit {:.1}, \
         tower_resilience's breaker {:.3}; eight layers {:.2} (one thread {:.2})",
        two / 1e6,
        one / 1e6,
        limit / 1e6,
        peer / 1e6,
        stack_two / 1e6,
        stack_one / 1e6,
    );
    bars.at_least("breaker_two_threads_to_tower_concurrency_limit", two / limit, 1.0);
    bars.at_least("eight_layers_two_threads_to_one", stack_two / stack_one, 1.2);
}
