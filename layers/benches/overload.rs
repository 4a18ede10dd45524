//! The layers for overload, beside the nearest that there is, and what their refusals cost.

use std::task::Context;

use palisade::{
    AdaptiveConcurrencyLayer, Drain, Priority, Rejection, ShedLayer, ThrottleLayer,
    class::{Class, Effect, Fault},
    classify_fn,
};
use tower::{Layer, Service, ServiceBuilder};
use tower_resilience::{adaptive, circuitbreaker};

use crate::{
    beside::{beside, compare},
    harness::{Bars, allocations, is_quick, is_wanted, side_by_side},
    leaf::{PendingOnceLeaf, ReadyLeaf, Request, refused},
};

pub(crate) fn run(bars: &mut Bars) {
    let adaptive = AdaptiveConcurrencyLayer::default();
    let aimd = adaptive::Aimd::builder().initial_limit(20).max_limit(1_000).build().expect("an algorithm");
    beside!(
        bars,
        "adaptive",
        adaptive,
        "tower_resilience_aimd",
        adaptive::AdaptiveLimiterLayer::new(aimd),
        1.0,
        1.0
    );
    let vegas = adaptive::Vegas::builder().initial_limit(20).max_limit(1_000).build().expect("an algorithm");
    beside!(
        bars,
        "adaptive",
        adaptive,
        "tower_resilience_vegas",
        adaptive::AdaptiveLimiterLayer::new(vegas),
        1.0,
        1.0
    );

    // tower-resilience has none of the following: beside the nearest, which do less. tower's load shed looks at nothing but
    // whether the service is ready.
    let shed = ShedLayer::default();
    beside!(bars, "shed", shed, "tower_load_shed", tower::load_shed::LoadShedLayer::new(), 4.0, 2.0);
    let (pair, towers) = (
        ServiceBuilder::new().layer(shed).layer(adaptive),
        ServiceBuilder::new().load_shed().concurrency_limit(20),
    );
    beside!(bars, "shed_before_adaptive", pair, "towers_two", towers, 3.0, 3.0);

    let breaker = circuitbreaker::CircuitBreakerLayer::builder().build().expect("its defaults");
    beside!(bars, "throttle", ThrottleLayer::default(), "tower_resilience_breaker", breaker, 1.0, 1.0);
    let towers = tower::limit::ConcurrencyLimitLayer::new(1_000);
    beside!(bars, "drain", Drain::new().layer(), "tower_concurrency", towers, 1.6, 1.0);

    refusals(bars);
}

/// What it costs to refuse, in nanoseconds: an overload is when that is done most.
fn refusals(bars: &mut Bars) {
    let busy = || tower::service_fn(async |_: Request| Err::<u32, _>(Rejection::Closed));
    let says_overload = classify_fn(|outcome: Result<&u32, &Rejection>| match outcome {
        Ok(_) => Class::SUCCESS,
        Err(_) => Class::new(Fault::Overload, Effect::NotApplied),
    });
    let throttle = ThrottleLayer::builder().classifier(says_overload).build().expect("a layer");
    let mut throttled = throttle.layer(busy());
    // Before the floor lets one pass, which a run of this length hardly sees.
    (0..1_000).for_each(|_| refused(&mut throttled));
    refusal(bars, "throttle_refusal", &mut throttled);

    let shed = ShedLayer::default();
    shed.handle().refuse_below(Some(Priority::Critical));
    refusal(bars, "shed_refusal", &mut shed.layer(ReadyLeaf));

    let drain = Drain::new();
    drain.start();
    refusal(bars, "drain_refusal", &mut drain.layer().layer(ReadyLeaf));
}

fn refusal<S>(bars: &mut Bars, name: &str, service: &mut S)
where
    S: Service<Request, Response = u32>,
{
    if !is_wanted(name) {
        return;
    }
    let mut busy = tower::load_shed::LoadShed::new(NeverReady);
    let (rounds, iterations) = if is_quick() { (41, 5_000) } else { (201, 20_000) };
    let compared = side_by_side(rounds, iterations, &mut || refused(service), &mut || refused(&mut busy));
    println!("{name}: {:.0} ns, tower's load shed {:.0} ns", compared.ours, compared.theirs);
    bars.at_most(&format!("{name}_nanoseconds"), compared.ours, 100.0);
    #[expect(clippy::cast_precision_loss, reason = "a handful of allocations")]
    bars.at_most(&format!("{name}_allocations"), allocations(&mut || refused(service)) as f64, 0.0);
}

/// What a load shed refuses for.
#[derive(Clone)]
struct NeverReady;

impl Service<Request> for NeverReady {
    type Response = u32;
    type Error = Rejection;
    type Future = std::future::Ready<Result<u32, Rejection>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> std::task::Poll<Result<(), Rejection>> {
        std::task::Poll::Pending
    }

    fn call(&mut self, request: Request) -> Self::Future {
        std::future::ready(Ok(*request))
    }
}
