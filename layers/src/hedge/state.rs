//! When to send a second attempt, and whether there may be one: told the time.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use crate::{
    Budget, BudgetSnapshot,
    budget::Empty,
    clock::Instant,
    latency::Latencies,
    telemetry::{Counter, Gauge},
};

/// How the delay is found. Checked by the builder.
#[derive(Clone, Copy, Debug)]
pub(super) enum Delay {
    Fixed(Duration),
    Percentile { percentile: f64, min: Duration, max: Duration },
}

/// What became of a second attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Won,
    Lost,
    Failed,
    Dropped,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Won, Self::Lost, Self::Failed, Self::Dropped];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// Why there was no second attempt when it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Limit,
    Budget,
    NotAllowed,
}

impl Refused {
    const ALL: [Self; 3] = [Self::Limit, Self::Budget, Self::NotAllowed];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Budget => "budget",
            Self::NotAllowed => "not_allowed",
        }
    }
}

/// What all services of one layer share.
pub(super) struct Shared {
    delay: Delay,
    latencies: Latencies,
    limit: Budget,
    budget: Option<Budget>,
    enabled: AtomicBool,
    name: &'static str,
    outcomes: [Counter; Outcome::ALL.len()],
    refused: [Counter; Refused::ALL.len()],
    delay_gauge: Gauge,
}

impl Shared {
    pub(super) fn new(delay: Delay, limit: Budget, budget: Option<Budget>, name: &'static str) -> Self {
        let percentile = match delay {
            Delay::Percentile { percentile, .. } => percentile,
            Delay::Fixed(_) => 0.5,
        };
        Self {
            delay,
            latencies: Latencies::new(percentile, Instant::now()),
            limit,
            budget,
            enabled: AtomicBool::new(true),
            name,
            outcomes: Outcome::ALL
                .map(|outcome| Counter::new("palisade_hedges_total", name, &[("outcome", outcome.as_str())])),
            refused: Refused::ALL
                .map(|why| Counter::new("palisade_hedges_refused_total", name, &[("reason", why.as_str())])),
            delay_gauge: Gauge::new("palisade_hedge_delay_seconds", name),
        }
    }

    /// Whether there may be a second attempt, as far as can be told without a look at the clock.
    #[inline]
    pub(super) fn may_hedge(&self) -> bool {
        self.enabled.load(Relaxed)
            && match self.delay {
                Delay::Fixed(_) => true,
                Delay::Percentile { .. } => self.latencies.has_estimate(),
            }
    }

    /// How long to wait before the second attempt, if there may be one.
    #[inline]
    pub(super) fn delay(&self, now: Instant) -> Option<Duration> {
        if !self.enabled.load(Relaxed) {
            return None;
        }
        match self.delay {
            Delay::Fixed(delay) => Some(delay),
            Delay::Percentile { min, max, .. } => {
                let estimate = self.latencies.estimate(now)?;
                (estimate <= max).then(|| estimate.max(min))
            }
        }
    }

    /// Counts a call toward the limit.
    #[inline]
    pub(super) fn count_call(&self) {
        self.limit.deposit();
    }

    /// Whether there may be a second attempt now.
    pub(super) fn withdraw(&self) -> Result<(), Refused> {
        if !self.enabled.load(Relaxed) {
            return Err(Refused::NotAllowed);
        }
        self.limit.withdraw_both(self.budget.as_ref()).map_err(|empty| match empty {
            Empty::This => Refused::Limit,
            Empty::Other => Refused::Budget,
        })
    }

    /// Notes how long an attempt took, or has taken so far.
    #[inline]
    pub(super) fn measure(&self, began: Instant, now: Instant) {
        if let Delay::Percentile { .. } = self.delay {
            self.latencies.record(now.saturating_duration_since(began), now);
        }
    }

    /// Notes an attempt that brought no answer. A fast one says nothing about how long an answer takes.
    #[inline]
    pub(super) fn measure_failure(&self, began: Instant, now: Instant) {
        if let Delay::Percentile { .. } = self.delay {
            let took = now.saturating_duration_since(began);
            if self.latencies.estimate(now).is_some_and(|estimate| took >= estimate) {
                self.latencies.record(took, now);
            }
        }
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].increment(1);
    }

    #[cold]
    pub(super) fn count_refused(&self, why: Refused) {
        self.refused[why as usize].increment(1);
        tracing::debug!(layer = self.name, reason = why.as_str(), "not hedging");
    }

    #[cold]
    pub(super) fn fired(&self, delay: Duration) {
        self.delay_gauge.set(delay.as_secs_f64());
        tracing::debug!(layer = self.name, ?delay, "hedging");
    }

    pub(super) fn set_enabled(&self, enabled: bool) {
        if self.enabled.swap(enabled, Relaxed) != enabled {
            tracing::info!(layer = self.name, enabled, "hedging was switched");
        }
    }

    pub(super) fn snapshot(&self) -> HedgeSnapshot {
        HedgeSnapshot {
            enabled: self.enabled.load(Relaxed),
            delay: self.delay(Instant::now()),
            limit: self.limit.snapshot(),
        }
    }
}

/// The figures of a [`HedgeLayer`](super::HedgeLayer) at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct HedgeSnapshot {
    /// Whether an operator lets it send second attempts.
    pub enabled: bool,
    /// After how long it would send one now, or `None` if it would not.
    pub delay: Option<Duration>,
    /// Its own limit: second attempts that it could make now, has made, and has refused.
    pub limit: BudgetSnapshot,
}

#[cfg(all(test, not(palisade_loom)))]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn shared(budget: Option<Budget>) -> Shared {
        let limit = Budget::builder().ratio(0.05).reserve_per_second(0.0).burst(10).unchecked();
        let delay = Delay::Percentile { percentile: 0.95, min: ms(1), max: ms(2_000) };
        Shared::new(delay, limit, budget, "hedge")
    }

    /// After calls of such latencies.
    fn delay_after(latencies: impl Iterator<Item = Duration>) -> Option<Duration> {
        let shared = shared(None);
        let start = Instant::now();
        let refresh = start + ms(4_000);
        latencies.for_each(|latency| shared.measure(refresh - latency, refresh - ms(2_000)));
        shared.measure(refresh, refresh);
        shared.delay(refresh)
    }

    #[test]
    fn the_delay_is_the_percentile_within_its_limits() {
        let after = |latency: u64| delay_after((0..1_000).map(|_| ms(2_000 + latency)));
        assert_eq!(after(0), Some(ms(1)), "never sooner");
        assert!((ms(50)..ms(54)).contains(&after(50).unwrap()));
        assert_eq!(after(2_100), None, "all calls are slow: a second attempt would not help");
        assert_eq!(delay_after(std::iter::empty()), None);
    }

    #[test]
    fn a_fast_failure_is_not_measured_and_a_slow_one_is() {
        let shared = shared(None);
        let start = Instant::now();
        let at = |millis| start + ms(millis);
        (0..100).for_each(|_| shared.measure(at(0), at(100)));
        shared.measure(at(3_400), at(3_500));
        let before = shared.delay(at(3_500)).unwrap();
        (0..10_000).for_each(|_| shared.measure_failure(at(3_500), at(3_501)));
        shared.measure(at(7_000), at(7_100));
        assert_eq!(shared.delay(at(7_100)), Some(before));
        (0..10_000).for_each(|_| shared.measure_failure(at(7_100), at(7_900)));
        shared.measure(at(11_000), at(11_100));
        assert!(shared.delay(at(11_100)).unwrap() >= ms(800));
    }

    #[test]
    fn a_second_attempt_needs_both_its_limit_and_the_budget() {
        let budget = Budget::builder().ratio(0.0).reserve_per_second(0.0).burst(3).build().unwrap();
        let shared = shared(Some(budget.clone()));
        assert!((0..3).all(|_| shared.withdraw().is_ok()));
        assert_eq!(shared.withdraw(), Err(Refused::Budget));
        let limit = shared.limit.snapshot();
        assert_eq!((limit.granted, limit.balance.to_string()), (3, "7".to_owned()), "one was given back");
        let alone = self::shared(None);
        assert!((0..10).all(|_| alone.withdraw().is_ok()));
        assert_eq!(alone.withdraw(), Err(Refused::Limit));
        (0..21).for_each(|_| alone.count_call());
        assert_eq!(alone.withdraw(), Ok(()));
        alone.set_enabled(false);
        assert_eq!(alone.withdraw(), Err(Refused::NotAllowed));
        assert_eq!(budget.snapshot().granted, 3);
    }
}
