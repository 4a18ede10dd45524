//! The layers as methods of tower's [`ServiceBuilder`].

use std::num::NonZeroU32;

use tower::{ServiceBuilder, layer::util::Stack};

use crate::{
    Budget, CircuitBreakerLayer, ConcurrencyLimitLayer, DeadlineLayer, HedgeLayer, MetricsLayer,
    RateLimitLayer, RetryLayer, ThrottleLayer, TimeoutLayer, TraceLayer, adapt::BoxErrorsLayer, box_errors,
};

mod sealed {
    pub trait Sealed {}
    impl<L> Sealed for tower::ServiceBuilder<L> {}
}

/// The layers with their defaults, as methods of [`ServiceBuilder`]. For other settings, and for a layer whose handle is
/// wanted, make the layer and say `.layer(...)`.
///
/// ```
/// use std::{convert::Infallible, time::Duration};
/// use palisade::{Budget, Envelope, ServiceBuilderExt};
/// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let budget = Budget::default();
/// let service = ServiceBuilder::new()
///     .measured("users")
///     .traced_calls()
///     .deadline(Duration::from_secs(2))
///     .rate_limit_per_second(5_000.try_into()?)
///     .bulkhead(256.try_into()?)
///     .retry_within(&budget)
///     .hedge_within(&budget)
///     .circuit_breaker()
///     .throttle()
///     .traced_attempts()
///     .attempt_timeout(Duration::from_millis(300))
///     .boxed_errors()
///     .service(service_fn(|request: Envelope<u32>| async move { Ok::<_, Infallible>(*request + 1) }));
///
/// assert_eq!(service.oneshot(Envelope::new(41)).await?, 42);
/// # Ok(())
/// # }
/// ```
pub trait ServiceBuilderExt<L>: sealed::Sealed + Sized {
    /// Bounds the whole call: a [`DeadlineLayer`] of this limit.
    fn deadline<T>(self, limit: T) -> ServiceBuilder<Stack<DeadlineLayer<T>, L>>;

    /// Bounds each attempt: a [`TimeoutLayer`] of this limit.
    fn attempt_timeout<T>(self, limit: T) -> ServiceBuilder<Stack<TimeoutLayer<T>, L>>;

    /// Sends again what may be sent again: a [`RetryLayer`] that pays from `budget`.
    fn retry_within(self, budget: &Budget) -> ServiceBuilder<Stack<RetryLayer, L>>;

    /// Sends late requests a second time: a [`HedgeLayer`] that takes from `budget`, which a retry further out pays into.
    fn hedge_within(self, budget: &Budget) -> ServiceBuilder<Stack<HedgeLayer, L>>;

    /// Stops asking a service that fails: a [`CircuitBreakerLayer`].
    fn circuit_breaker(self) -> ServiceBuilder<Stack<CircuitBreakerLayer, L>>;

    /// Asks a service less that says that it is overloaded: a [`ThrottleLayer`].
    fn throttle(self) -> ServiceBuilder<Stack<ThrottleLayer, L>>;

    /// Lets so many calls through per second: a [`RateLimitLayer`], which does not know the requests' deadlines; where they
    /// have some, say `.layer(RateLimitLayer::per_second(calls).deadline_aware())`. (tower's own `rate_limit` makes services that cannot
    /// be cloned.)
    fn rate_limit_per_second(self, calls: NonZeroU32) -> ServiceBuilder<Stack<RateLimitLayer, L>>;

    /// Lets so many calls be in flight: a [`ConcurrencyLimitLayer`]; for requests with deadlines as above. (tower's own is called `concurrency_limit`.)
    fn bulkhead(self, calls: NonZeroU32) -> ServiceBuilder<Stack<ConcurrencyLimitLayer, L>>;

    /// Counts and times calls under this name: a [`MetricsLayer`].
    fn measured(self, name: &'static str) -> ServiceBuilder<Stack<MetricsLayer, L>>;

    /// A span for each call: [`TraceLayer::call`].
    fn traced_calls(self) -> ServiceBuilder<Stack<TraceLayer, L>>;

    /// A span for each attempt: [`TraceLayer::attempt`].
    fn traced_attempts(self) -> ServiceBuilder<Stack<TraceLayer, L>>;

    /// Boxes errors, so that layers further out can put refusals beside them: [`box_errors`](crate::box_errors).
    fn boxed_errors(self) -> ServiceBuilder<Stack<BoxErrorsLayer, L>>;
}

impl<L> ServiceBuilderExt<L> for ServiceBuilder<L> {
    fn deadline<T>(self, limit: T) -> ServiceBuilder<Stack<DeadlineLayer<T>, L>> {
        self.layer(DeadlineLayer::new(limit))
    }

    fn attempt_timeout<T>(self, limit: T) -> ServiceBuilder<Stack<TimeoutLayer<T>, L>> {
        self.layer(TimeoutLayer::new(limit))
    }

    fn retry_within(self, budget: &Budget) -> ServiceBuilder<Stack<RetryLayer, L>> {
        self.layer(RetryLayer::within(budget))
    }

    fn hedge_within(self, budget: &Budget) -> ServiceBuilder<Stack<HedgeLayer, L>> {
        self.layer(HedgeLayer::within(budget))
    }

    fn circuit_breaker(self) -> ServiceBuilder<Stack<CircuitBreakerLayer, L>> {
        self.layer(CircuitBreakerLayer::default())
    }

    fn throttle(self) -> ServiceBuilder<Stack<ThrottleLayer, L>> {
        self.layer(ThrottleLayer::default())
    }

    fn rate_limit_per_second(self, calls: NonZeroU32) -> ServiceBuilder<Stack<RateLimitLayer, L>> {
        self.layer(RateLimitLayer::per_second(calls))
    }

    fn bulkhead(self, calls: NonZeroU32) -> ServiceBuilder<Stack<ConcurrencyLimitLayer, L>> {
        self.layer(ConcurrencyLimitLayer::new(calls))
    }

    fn measured(self, name: &'static str) -> ServiceBuilder<Stack<MetricsLayer, L>> {
        self.layer(MetricsLayer::named(name))
    }

    fn traced_calls(self) -> ServiceBuilder<Stack<TraceLayer, L>> {
        self.layer(TraceLayer::call())
    }

    fn traced_attempts(self) -> ServiceBuilder<Stack<TraceLayer, L>> {
        self.layer(TraceLayer::attempt())
    }

    fn boxed_errors(self) -> ServiceBuilder<Stack<BoxErrorsLayer, L>> {
        self.layer(box_errors())
    }
}
