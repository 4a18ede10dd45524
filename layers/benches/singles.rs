//! Each layer by itself, beside the peers' layers of that kind.

use std::{hint::black_box, pin::pin, time::Duration};

use palisade::{
    Backoff, CircuitBreakerLayer, Class, CoalesceLayer, ConcurrencyLimitLayer, DeadlineLayer, HedgeLayer,
    MetricsLayer, RateLimitLayer, Rejection, RetryLayer, SharedError, TimeoutLayer, TraceLayer,
    breaker::Mode,
};
use tower::{Layer, ServiceBuilder, util::MapErrLayer};
use tower_resilience::{bulkhead, circuitbreaker, coalesce, hedge, ratelimiter, retry, timelimiter};

use crate::{
    beside::{LIMIT, MANY, PLACES, TowerPolicy, beside, compare},
    harness::{Bars, allocations, finish, is_quick, is_wanted, side_by_side},
    leaf::{PendingOnceLeaf, ReadyLeaf, Request, call, refused},
};

pub(crate) fn run(bars: &mut Bars) {
    let timeout = TimeoutLayer::new(LIMIT);
    let tower_timeout = tower::timeout::TimeoutLayer::new(LIMIT);
    beside!(bars, "timeout", timeout, "tower", tower_timeout, 1.0, 1.0);
    let limiter = timelimiter::TimeLimiterLayer::builder().timeout_duration(LIMIT).build();
    beside!(bars, "timeout", timeout, "tower_resilience", limiter, 1.0, 1.0);
    // It reads the clock once more than a timeout does.
    beside!(bars, "deadline", DeadlineLayer::new(LIMIT), "tower_timeout", tower_timeout, 1.0, 1.2);

    let our_retry = RetryLayer::default();
    beside!(bars, "retry", our_retry, "tower", tower::retry::RetryLayer::new(TowerPolicy::new()), 1.0, 1.0);
    let theirs = retry::RetryLayer::<Request, u32, Rejection>::builder().max_attempts(3).build();
    beside!(bars, "retry", our_retry, "tower_resilience", theirs, 1.0, 1.0);

    let theirs = circuitbreaker::CircuitBreakerLayer::builder().build().expect("its defaults");
    beside!(
        bars,
        "breaker",
        CircuitBreakerLayer::default(),
        "tower_resilience",
        theirs,
        1.0 / 3.0,
        1.0 / 3.0
    );
    let (large, small) = (window_of(100_000), window_of(100));
    compare(
        bars,
        "breaker_large_window",
        "small_window",
        1.25,
        large.layer(ReadyLeaf),
        small.layer(ReadyLeaf),
    );
    open_breaker(bars);
    permits(bars);
    limits_and_watches(bars);

    let theirs = hedge::HedgeLayer::builder().delay(Duration::from_millis(100)).build();
    beside!(bars, "hedge", HedgeLayer::default(), "tower_resilience", theirs, 1.0, 1.0);
    let fixed = HedgeLayer::builder().fixed_delay(Duration::from_millis(100)).build().expect("a layer");
    beside!(bars, "hedge_armed", fixed, "tower_resilience", theirs, 1.0, 1.0);

    coalesced(bars);
}

/// A call that leads alone.
fn coalesced(bars: &mut Bars) {
    let shareable = MapErrLayer::new(Shareable);
    let ours = (CoalesceLayer::new(|request: &Request| Some(**request)), shareable.clone());
    let theirs = (coalesce::CoalesceLayer::new(|request: &Request| **request), shareable);
    beside!(bars, "coalesce", ours, "tower_resilience", theirs, 1.0, 1.0);
}

/// An error of which each caller can have one.
#[derive(Clone, Debug)]
struct Shareable(Rejection);

impl std::fmt::Display for Shareable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Shareable {}

impl From<Rejection> for Shareable {
    fn from(rejection: Rejection) -> Self {
        Self(rejection)
    }
}

impl From<SharedError> for Shareable {
    fn from(shared: SharedError) -> Self {
        shared.downcast_ref().cloned().unwrap_or(Self(Rejection::Closed))
    }
}

fn window_of(calls: u32) -> CircuitBreakerLayer {
    CircuitBreakerLayer::builder().window_of_calls(calls).build().expect("a layer")
}

/// The layers that limit, and those that watch.
fn limits_and_watches(bars: &mut Bars) {
    let rate = RateLimitLayer::per_second(MANY);
    let towers = tower::limit::RateLimitLayer::new(MANY.get().into(), Duration::from_secs(1));
    beside!(bars, "rate", rate, "tower", towers, 1.0, 1.0);
    let theirs = ratelimiter::RateLimiterLayer::builder()
        .limit_for_period(1_000_000_000)
        .refresh_period(Duration::from_secs(1))
        .build()
        .expect("a layer");
    beside!(bars, "rate", rate, "tower_resilience", theirs, 1.0, 1.0);

    let places = ConcurrencyLimitLayer::new(PLACES);
    let towers = tower::limit::ConcurrencyLimitLayer::new(1_000);
    beside!(bars, "concurrency", places, "tower", towers, 1.0, 1.0);
    let theirs = bulkhead::BulkheadLayer::builder().max_concurrent_calls(1_000).build().expect("a layer");
    beside!(bars, "concurrency", places, "tower_resilience", theirs, 1.0, 1.0);

    // No peer has them: beside the least that a service which is to be watched would do, to read the clock twice.
    let (metrics, spans) = (MetricsLayer::default(), TraceLayer::call());
    let clocks = || ServiceBuilder::new().map_future(timed).service(ReadyLeaf);
    compare(bars, "metrics_ready", "two_clock_reads", 1.0, metrics.layer(ReadyLeaf), clocks());
    compare(bars, "disabled_span_ready", "two_clock_reads", 1.0, spans.layer(ReadyLeaf), clocks());
    let clocks = || ServiceBuilder::new().map_future(timed).service(PendingOnceLeaf);
    compare(bars, "metrics_pending_once", "two_clock_reads", 1.0, metrics.layer(PendingOnceLeaf), clocks());
    compare(
        bars,
        "disabled_span_pending_once",
        "two_clock_reads",
        1.0,
        spans.layer(PendingOnceLeaf),
        clocks(),
    );
}

async fn timed<F: Future>(future: F) -> F::Output {
    let began = std::time::Instant::now();
    let output = future.await;
    black_box(began.elapsed());
    output
}

/// The refusal of an open circuit, in nanoseconds.
fn open_breaker(bars: &mut Bars) {
    if !is_wanted("breaker_open") {
        return;
    }
    let wait =
        Backoff::exponential(Duration::from_secs(3_600), Duration::from_secs(3_600)).expect("a backoff");
    let open =
        CircuitBreakerLayer::builder().open_for(wait).consecutive_failures(1).build().expect("a layer");
    let failing = tower::service_fn(async |_: Request| Err::<u32, _>(Rejection::Closed));
    let mut ours = open.layer(failing);
    refused(&mut ours);
    let forced = CircuitBreakerLayer::builder().mode(Mode::ForcedOpen).build().expect("a layer");
    let mut forced = forced.layer(ReadyLeaf);
    let theirs = circuitbreaker::CircuitBreakerLayer::builder().build().expect("its defaults");
    let mut theirs = theirs.layer(ReadyLeaf);
    finish(pin!(theirs.force_open()));
    let (rounds, iterations) = if is_quick() { (41, 5_000) } else { (201, 20_000) };
    let compared = side_by_side(rounds, iterations, &mut || refused(&mut ours), &mut || refused(&mut theirs));
    println!("breaker_open: {:.0} ns, tower_resilience {:.0} ns", compared.ours, compared.theirs);
    bars.at_most("breaker_open_nanoseconds", compared.ours, 100.0);
    bars.at_most("breaker_open_to_tower_resilience", compared.ratio, 1.0);
    #[expect(clippy::cast_precision_loss, reason = "a handful of allocations")]
    bars.at_most("breaker_open_allocations", allocations(&mut || refused(&mut ours)) as f64, 0.0);
    #[expect(clippy::cast_precision_loss, reason = "a handful of allocations")]
    bars.at_most("breaker_forced_open_allocations", allocations(&mut || refused(&mut forced)) as f64, 0.0);
}

/// A permit of a closed circuit without a layer, beside a call of the layer; and what a balancer asks at each choice.
fn permits(bars: &mut Bars) {
    if !is_wanted("breaker_permit") {
        return;
    }
    let circuit = CircuitBreakerLayer::builder().build_circuit("a node").expect("a circuit");
    let mut layer = CircuitBreakerLayer::default().layer(ReadyLeaf);
    let mut permit = || circuit.acquire().expect("a closed circuit").end(black_box(&Class::SUCCESS));
    let (rounds, iterations) = if is_quick() { (41, 5_000) } else { (201, 20_000) };
    let compared = side_by_side(rounds, iterations, &mut permit, &mut || call(&mut layer));
    println!("breaker_permit: {:.1} ns, the layer {:.1} ns", compared.ours, compared.theirs);
    bars.at_most("breaker_permit_to_layer", compared.ratio, 1.0);
    #[expect(clippy::cast_precision_loss, reason = "a handful of allocations")]
    bars.at_most("breaker_permit_allocations", allocations(&mut permit) as f64, 0.0);
    let open = CircuitBreakerLayer::builder().build_circuit("another node").expect("a circuit");
    open.trip();
    let asked = side_by_side(
        rounds,
        iterations,
        &mut || _ = black_box((circuit.is_closed(), circuit.retry_after())),
        &mut || _ = black_box((open.is_closed(), open.retry_after())),
    );
    println!("breaker_permit: asked whether it is open {:.1} ns, open {:.1} ns", asked.ours, asked.theirs);
}
