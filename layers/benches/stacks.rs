//! A stack of eight layers, beside stacks of the peers that do less.

use palisade::{
    Budget, CircuitBreakerLayer, ConcurrencyLimitLayer, DeadlineLayer, HedgeLayer, MetricsLayer,
    RateLimitLayer, RetryLayer, TimeoutLayer,
};
use tower::{BoxError, Service, ServiceBuilder};
use tower_resilience::{bulkhead, circuitbreaker, ratelimiter, retry, timelimiter};

use crate::{
    beside::{LIMIT, MANY, PLACES, TowerPolicy, compare},
    harness::{Bars, is_wanted},
    leaf::{PendingOnceLeaf, ReadyLeaf, Request},
};

/// Deadline, metrics, rate limit, concurrency limit, retry, hedge, breaker, timeout.
pub(crate) fn eight<L>(
    leaf: L,
) -> impl Service<Request, Response = u32, Error = L::Error> + Clone + Send + Sync
where
    L: Service<Request, Response = u32, Error = palisade::Rejection> + Clone + Send + Sync + 'static,
    L::Future: Send,
{
    let budget = Budget::default();
    ServiceBuilder::new()
        .layer(DeadlineLayer::new(LIMIT))
        .layer(MetricsLayer::default())
        .layer(RateLimitLayer::per_second(MANY))
        .layer(ConcurrencyLimitLayer::new(PLACES))
        .layer(RetryLayer::builder().budget(budget.clone()).build().expect("a layer"))
        .layer(HedgeLayer::builder().budget(budget).build().expect("a layer"))
        .layer(CircuitBreakerLayer::default())
        .layer(TimeoutLayer::new(LIMIT))
        .service(leaf)
}

/// tower's timeout, concurrency limit, rate limit and retry.
fn towers_four<L>(leaf: L) -> impl Service<Request, Response = u32, Error = BoxError>
where
    L: Service<Request, Response = u32> + Clone + Send + 'static,
    L::Error: Into<BoxError>,
    L::Future: Send,
{
    ServiceBuilder::new()
        .timeout(LIMIT)
        .concurrency_limit(1_000)
        .rate_limit(1_000_000_000, std::time::Duration::from_secs(1))
        .retry(TowerPolicy::new())
        .service(leaf)
}

/// tower-resilience's time limit, retry, rate limit, bulkhead and breaker.
macro_rules! their_five {
    ($leaf:expr) => {
        ServiceBuilder::new()
            .layer(timelimiter::TimeLimiterLayer::builder().timeout_duration(LIMIT).build())
            .map_err(|_| ())
            .layer(retry::RetryLayer::<Request, u32, ()>::builder().max_attempts(3).build())
            .map_err(|_| ())
            .layer(
                ratelimiter::RateLimiterLayer::builder()
                    .limit_for_period(1_000_000_000)
                    .refresh_period(std::time::Duration::from_secs(1))
                    .build()
                    .expect("a layer"),
            )
            .map_err(|_| ())
            .layer(bulkhead::BulkheadLayer::builder().max_concurrent_calls(1_000).build().expect("a layer"))
            .map_err(|_| ())
            .layer(circuitbreaker::CircuitBreakerLayer::builder().build().expect("its defaults"))
            .service($leaf)
    };
}

pub(crate) fn run(bars: &mut Bars) {
    compare(bars, "eight_layers_ready", "towers_four", 2.7, eight(ReadyLeaf), towers_four(ReadyLeaf));
    compare(
        bars,
        "eight_layers_pending_once",
        "towers_four",
        2.0,
        eight(PendingOnceLeaf),
        towers_four(PendingOnceLeaf),
    );
    compare(
        bars,
        "eight_layers_ready",
        "tower_resiliences_five",
        0.4,
        eight(ReadyLeaf),
        their_five!(ReadyLeaf),
    );
    let pending = their_five!(PendingOnceLeaf);
    compare(
        bars,
        "eight_layers_pending_once",
        "tower_resiliences_five",
        0.4,
        eight(PendingOnceLeaf),
        pending,
    );

    if !is_wanted("eight_layers_future_bytes") {
        return;
    }
    let bytes = size_of_future(&eight(ReadyLeaf));
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    bars.at_most("eight_layers_future_bytes", bytes as f64, 1_024.0);
}

fn size_of_future<S: Service<Request>>(_: &S) -> usize {
    size_of::<S::Future>()
}
