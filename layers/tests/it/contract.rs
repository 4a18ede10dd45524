//! What tower asks of every service: readiness, clones, drops, and what the compiler is to know of the types.

use std::{
    num::NonZeroU32,
    task::{Context, Poll, Waker},
    time::Duration,
};

use palisade::{
    Backoff, Budget, CircuitBreakerLayer, ConcurrencyLimitLayer, DeadlineLayer, HedgeLayer, MetricsLayer,
    RateLimitLayer, RetryLayer, ThrottleLayer, TimeoutLayer, TraceLayer, box_errors,
    middleware::{Next, from_fn},
    respond,
    testkit::{Clause, Contract, Error, Gate, Gated, Leaf, Request, Step},
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

const LONG: Duration = Duration::from_secs(60);
/// Ends while the contract's calls are under way.
const SHORT: Duration = Duration::from_millis(15);

/// All layers in the recommended order.
macro_rules! everything {
    () => {{
        let budget = Budget::default();
        ServiceBuilder::new()
            .layer(MetricsLayer::default())
            .layer(TraceLayer::call())
            .layer(DeadlineLayer::new(LONG))
            .layer(RateLimitLayer::builder().rate(1_000, SHORT).burst(8).deadline_aware().build().unwrap())
            .layer(ConcurrencyLimitLayer::builder().limit(8).deadline_aware().build().unwrap())
            .layer(RetryLayer::builder().budget(budget.clone()).build().unwrap())
            .layer(HedgeLayer::builder().fixed_delay(SHORT / 2).budget(budget).build().unwrap())
            .layer(CircuitBreakerLayer::default())
            .layer(TraceLayer::attempt())
            .layer(TimeoutLayer::new(SHORT))
    }};
}

#[test]
fn services_futures_and_layers_are_send_sync_and_clone() {
    fn all<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: &T) {}
    fn future<T: Send + 'static>(_: &T) {}
    let stack = everything!();
    all(&MetricsLayer::default());
    all(&RateLimitLayer::per_second(NonZeroU32::MIN));
    all(&RateLimitLayer::per_second(NonZeroU32::MIN).handle());
    all(&ConcurrencyLimitLayer::new(NonZeroU32::MIN));
    all(&ConcurrencyLimitLayer::new(NonZeroU32::MIN).handle());
    all(&CircuitBreakerLayer::default());
    all(&CircuitBreakerLayer::default().handle());
    all(&ThrottleLayer::default());
    all(&ThrottleLayer::default().handle());
    all(&HedgeLayer::default());
    all(&HedgeLayer::default().handle());
    all(&TraceLayer::call());
    all(&DeadlineLayer::new(LONG));
    all(&TimeoutLayer::new(LONG));
    all(&RetryLayer::default());
    all(&Budget::default());
    all(&box_errors());
    let mut service = stack.service(Leaf::new([Step::Answer]));
    all(&service);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let call = service.ready().await.unwrap().call(Request::new(7));
        future(&call);
        assert_eq!(call.await, Ok(7));
    });
}

/// A test for each layer: `name: layer;`, made anew for each of the contract's scenarios.
macro_rules! keeps_the_contract {
    ($($name:ident: $layer:expr;)*) => {
        $(
            #[test]
            fn $name() {
                Contract::new(|inner| Layer::layer(&$layer, inner)).check();
            }
        )*
    };
}

keeps_the_contract! {
    a_deadline_keeps_the_contract: DeadlineLayer::new(LONG);
    a_short_deadline_keeps_the_contract: DeadlineLayer::new(SHORT);
    a_deadline_from_the_request_keeps_the_contract: DeadlineLayer::<Duration>::from_request();
    a_timeout_keeps_the_contract: TimeoutLayer::new(LONG);
    a_short_timeout_keeps_the_contract: TimeoutLayer::new(SHORT);
    a_retry_keeps_the_contract: RetryLayer::default();
    boxed_errors_keep_the_contract: box_errors();
    metrics_keep_the_contract: MetricsLayer::default();
    labelled_metrics_keep_the_contract: MetricsLayer::builder()
        .label_by("number", 3, |request: &Request| request.to_string().into())
        .build()
        .unwrap();
    a_span_for_each_call_keeps_the_contract: TraceLayer::call();
    a_rate_limit_that_refuses_keeps_the_contract:
        RateLimitLayer::builder().rate(100_000, SHORT).burst(1_000).refuse().build().unwrap();
    a_rate_limit_by_key_keeps_the_contract: RateLimitLayer::builder()
        .rate(1_000, SHORT)
        .burst(8)
        .build_keyed(100, |request: &Request| **request % 3)
        .unwrap();
    a_concurrency_limit_keeps_the_contract: ConcurrencyLimitLayer::builder().limit(8).build().unwrap();
    a_concurrency_limit_by_key_keeps_the_contract: ConcurrencyLimitLayer::builder()
        .limit(8)
        .deadline_aware()
        .build_keyed(100, |request: &Request| **request % 3)
        .unwrap();
    a_circuit_breaker_keeps_the_contract: CircuitBreakerLayer::default();
    a_circuit_breaker_that_probes_keeps_the_contract: probing();
    a_circuit_breaker_by_key_keeps_the_contract: CircuitBreakerLayer::builder()
        .build_keyed(100, |request: &Request| **request % 3)
        .unwrap();
    a_throttle_keeps_the_contract: ThrottleLayer::default();
    a_throttle_by_key_keeps_the_contract: ThrottleLayer::builder()
        .build_keyed(100, |request: &Request| **request % 3)
        .unwrap();
    a_hedge_that_measures_keeps_the_contract: HedgeLayer::default();
    a_hedge_keeps_the_contract: HedgeLayer::builder().fixed_delay(SHORT / 2).max_extra_load(1.0).build().unwrap();
    a_function_keeps_the_contract: from_fn(|request: Request, next: Next<_, u32, Error>| next.run(request));
}

/// A circuit whose probes each make room for the next: sixteen of them at once.
fn probing() -> CircuitBreakerLayer {
    let wait = Backoff::exponential(Duration::from_nanos(1), Duration::from_nanos(1)).unwrap();
    let builder = CircuitBreakerLayer::builder().open_for(wait).probes(16).consecutive_failures(1);
    builder.minimum_calls(1_000).build().unwrap()
}

/// What a rate limit has let through is used up, whatever became of it, and comes back with time.
#[test]
fn a_rate_limit_keeps_the_contract() {
    let layer = || RateLimitLayer::builder().rate(1_000, SHORT).burst(8).build().unwrap();
    Contract::new(|inner| layer().layer(inner)).rest(SHORT).check();
}

#[test]
fn a_whole_stack_keeps_the_contract() {
    Contract::new(|inner| everything!().service(inner)).check();
}

#[test]
fn answered_refusals_keep_the_contract() {
    let answered = "errors become answers";
    Contract::over(
        |inner| ServiceBuilder::new().layer(respond()).service(inner),
        |number| http::Request::new(number.to_string()),
        |request: http::Request<String>| http::Response::new(request.into_body()),
        |number, response| response.body() == &number.to_string(),
    )
    .skip(Clause::Errors, answered)
    .skip(Clause::BrokenInner, answered)
    .check();
}

/// A service that queued keeps its place: the very one that was polled moves into the future.
#[tokio::test(start_paused = true)]
async fn a_layer_that_waits_inside_is_ready_at_once_and_keeps_its_place_in_the_queue() {
    let gate = Gate::default();
    let limited = tower::limit::ConcurrencyLimit::new(Gated::new(Leaf::new([Step::Answer]), &gate), 1);
    let mut service = TimeoutLayer::new(LONG).layer(limited);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
    let first = tokio::spawn(service.call(Request::new(1)));
    assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
    let second = tokio::spawn(service.call(Request::new(2)));
    tokio::task::yield_now().await;
    gate.set(true);
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (Ok(1), Ok(2)));
}

#[test]
fn the_futures_of_a_stack_stay_small() {
    fn size<S: Service<Request>>(_: &S) -> usize {
        size_of::<S::Future>()
    }
    let leaf = Leaf::new([Step::Answer]);
    let three = ServiceBuilder::new()
        .layer(DeadlineLayer::new(LONG))
        .layer(RetryLayer::default())
        .layer(TimeoutLayer::new(LONG))
        .service(leaf.clone());
    assert!(size(&three) <= 320, "{} bytes", size(&three));
    let all = everything!().service(leaf);
    assert!(size(&all) <= 1_024, "{} bytes", size(&all));
}
