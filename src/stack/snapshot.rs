//! The figures of all parts at one moment, to be written as JSON or the like.

use std::time::Duration;

use palisade::{
    BudgetSnapshot, Priority,
    adaptive::AdaptiveConcurrencySnapshot,
    breaker::CircuitSnapshot,
    coalesce::CoalesceSnapshot,
    concurrency::ConcurrencyLimitSnapshot,
    drain::DrainSnapshot,
    hedge::HedgeSnapshot,
    rate::RateLimitSnapshot,
    shed::{ByPriority, ShedSnapshot},
    throttle::ThrottleSnapshot,
};
use serde::Serialize;

use super::config::text::{breaker_mode, throttle_mode};
use crate::{failover::FailoverSnapshot, health::Report};

/// The figures of a stack at a moment. A part that is left out is `None`. Times are in seconds.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct StackSnapshot {
    /// How far the end of the process has got.
    pub drain: DrainView,
    /// How each node is.
    pub health: Option<Report>,
    /// The limit of a call that is a read or a write.
    pub deadline_seconds: Option<f64>,
    /// The limit of an attempt that is a read or a write.
    pub attempt_timeout_seconds: Option<f64>,
    /// The limit on calls per second.
    pub rate: Option<RateView>,
    /// The fixed limit on calls in flight.
    pub concurrency: Option<ConcurrencyView>,
    /// Reads that share their answers.
    pub coalesce: Option<CoalesceView>,
    /// What retries and hedges may do.
    pub budget: BudgetView,
    /// Second attempts.
    pub hedge: Option<HedgeView>,
    /// Which datacenter serves.
    pub failover: Option<FailoverView>,
    /// The circuit breaker of the cluster, or of its local datacenter.
    pub breaker: Option<BreakerView>,
    /// The throttles, one for each priority that was seen.
    pub throttle: Option<Vec<ThrottleView>>,
    /// The line before the adaptive limit.
    pub shed: Option<ShedView>,
    /// The adaptive limit.
    pub adaptive: Option<AdaptiveView>,
}

/// Makes a view: the fields of a snapshot that an operator wants, as they are.
macro_rules! views {
    ($($(#[$doc:meta])* $view:ident of $snapshot:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $value:expr,)+ })+) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[non_exhaustive]
        pub struct $view {
            $($(#[$field_doc])* pub $field: $type,)+
        }

        impl From<$snapshot> for $view {
            fn from(snapshot: $snapshot) -> Self {
                Self { $($field: $value(&snapshot),)+ }
            }
        }
    )+ };
}

views! {
    /// See [`DrainSnapshot`].
    DrainView of DrainSnapshot {
        /// `open`, `grace`, `draining` or `finished`.
        phase: &'static str = |it: &DrainSnapshot| it.phase.as_str(),
        /// Calls in flight.
        in_flight: u64 = |it: &DrainSnapshot| it.in_flight,
        /// Calls that were refused.
        refused: u64 = |it: &DrainSnapshot| it.refused,
    }

    /// See [`RateLimitSnapshot`].
    RateView of RateLimitSnapshot {
        /// Calls that there may be per second.
        per_second: f64 = |it: &RateLimitSnapshot| f64::from(it.permits) / it.per.as_secs_f64(),
        /// Calls that there may be at once.
        burst: u32 = |it: &RateLimitSnapshot| it.burst,
        /// Calls that there may be now.
        available: u32 = |it: &RateLimitSnapshot| it.available,
        /// Calls that wait.
        waiting: u32 = |it: &RateLimitSnapshot| it.waiting,
        /// Calls that were let in.
        admitted: u64 = |it: &RateLimitSnapshot| it.admitted,
        /// Calls that were refused.
        refused: u64 = |it: &RateLimitSnapshot| it.refused,
    }

    /// See [`ConcurrencyLimitSnapshot`].
    ConcurrencyView of ConcurrencyLimitSnapshot {
        /// Calls that may be in flight.
        limit: u32 = |it: &ConcurrencyLimitSnapshot| it.limit,
        /// Calls in flight.
        in_flight: u32 = |it: &ConcurrencyLimitSnapshot| it.in_flight,
        /// Calls that wait.
        waiting: u32 = |it: &ConcurrencyLimitSnapshot| it.waiting,
        /// Calls that were refused.
        refused: u64 = |it: &ConcurrencyLimitSnapshot| it.refused,
    }

    /// See [`CoalesceSnapshot`].
    CoalesceView of CoalesceSnapshot {
        /// Different reads under way.
        flights: usize = |it: &CoalesceSnapshot| it.flights,
        /// Reads that wait for the answer of another.
        followers: usize = |it: &CoalesceSnapshot| it.followers,
        /// Reads that asked.
        led: u64 = |it: &CoalesceSnapshot| it.led,
        /// Reads that shared an answer.
        joined: u64 = |it: &CoalesceSnapshot| it.joined,
    }

    /// See [`BudgetSnapshot`].
    BudgetView of BudgetSnapshot {
        /// Repeats that there may be now.
        balance: f64 = |it: &BudgetSnapshot| it.balance,
        /// Repeats that there were.
        granted: u64 = |it: &BudgetSnapshot| it.granted,
        /// Repeats that were refused.
        refused: u64 = |it: &BudgetSnapshot| it.refused,
    }

    /// See [`HedgeSnapshot`].
    HedgeView of HedgeSnapshot {
        /// Whether there may be second attempts.
        enabled: bool = |it: &HedgeSnapshot| it.enabled,
        /// When one would begin, if at all.
        delay_seconds: Option<f64> = |it: &HedgeSnapshot| it.delay.map(|delay| delay.as_secs_f64()),
        /// Second attempts that its own limit has allowed.
        granted: u64 = |it: &HedgeSnapshot| it.limit.granted,
        /// Second attempts that its own limit has refused.
        refused: u64 = |it: &HedgeSnapshot| it.limit.refused,
    }

    /// See [`FailoverSnapshot`].
    FailoverView of FailoverSnapshot {
        /// The datacenter that serves.
        active: String = |it: &FailoverSnapshot| it.active.to_string(),
        /// The one that an operator holds.
        held: Option<String> = |it: &FailoverSnapshot| it.held.as_deref().map(str::to_owned),
        /// Whether requests go elsewhere.
        enabled: bool = |it: &FailoverSnapshot| it.is_enabled,
        /// How often another datacenter became the active one.
        switches: u64 = |it: &FailoverSnapshot| it.switches,
    }

    /// See [`CircuitSnapshot`].
    BreakerView of CircuitSnapshot {
        /// `closed`, `open` or `half_open`.
        state: &'static str = |it: &CircuitSnapshot| it.state.as_str(),
        /// `normal`, `metrics_only`, `forced_open` or `forced_closed`.
        mode: &'static str = |it: &CircuitSnapshot| breaker_mode::name(it.mode),
        /// Attempts in the window.
        calls: u32 = |it: &CircuitSnapshot| it.calls,
        /// Those of them that failed.
        failures: u32 = |it: &CircuitSnapshot| it.failures,
        /// The time until one may find out whether the cluster is back.
        retry_after_seconds: Option<f64> = |it: &CircuitSnapshot| it.retry_after.map(|wait| wait.as_secs_f64()),
    }

    /// See [`ShedSnapshot`].
    ShedView of ShedSnapshot {
        /// Calls that wait, by priority.
        waiting: PrioritiesView = |it: &ShedSnapshot| it.waiting.into(),
        /// Calls that were refused, by priority.
        shed: PrioritiesView = |it: &ShedSnapshot| it.shed.into(),
        /// The highest priority that is overloaded.
        overloaded: Option<&'static str> = |it: &ShedSnapshot| it.overloaded.map(Priority::as_str),
        /// What is less important than this is refused at once.
        refused_below: Option<&'static str> = |it: &ShedSnapshot| it.refused_below.map(Priority::as_str),
        /// How long calls of an overloaded priority wait.
        target_seconds: f64 = |it: &ShedSnapshot| it.target.as_secs_f64(),
        /// Calls whose deadline passed while they waited.
        timed_out: u64 = |it: &ShedSnapshot| it.timed_out,
    }

    /// See [`AdaptiveConcurrencySnapshot`].
    AdaptiveView of AdaptiveConcurrencySnapshot {
        /// Attempts that may be in flight now.
        limit: u32 = |it: &AdaptiveConcurrencySnapshot| it.limit,
        /// The limit goes no lower.
        min: u32 = |it: &AdaptiveConcurrencySnapshot| it.min,
        /// The limit goes no higher.
        max: u32 = |it: &AdaptiveConcurrencySnapshot| it.max,
        /// Attempts in flight.
        in_flight: u32 = |it: &AdaptiveConcurrencySnapshot| it.in_flight,
        /// The latency of a cluster without a queue.
        base_latency_seconds: Option<f64> = |it: &AdaptiveConcurrencySnapshot| seconds(it.base_latency),
        /// The latency lately.
        recent_latency_seconds: Option<f64> = |it: &AdaptiveConcurrencySnapshot| seconds(it.recent_latency),
        /// Attempts that were dropped.
        drops: u64 = |it: &AdaptiveConcurrencySnapshot| it.drops,
    }
}

/// The throttle of a priority: see [`ThrottleSnapshot`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ThrottleView {
    /// The priority.
    pub priority: &'static str,
    /// `on`, `observing` or `off`.
    pub mode: &'static str,
    /// Calls for each that the cluster accepts.
    pub multiplier: f64,
    /// The share of calls that is refused now.
    pub share: f64,
    /// Calls that were refused.
    pub refused: u64,
}

impl ThrottleView {
    pub(super) fn of((priority, snapshot): (Priority, ThrottleSnapshot)) -> Self {
        Self {
            priority: priority.as_str(),
            mode: throttle_mode::name(snapshot.mode),
            multiplier: snapshot.multiplier,
            share: snapshot.share,
            refused: snapshot.refused,
        }
    }
}

/// A figure for each priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each is what its name says")]
#[non_exhaustive]
pub struct PrioritiesView {
    pub background: u64,
    pub low: u64,
    pub normal: u64,
    pub critical: u64,
}

impl<T: Copy + Into<u64>> From<ByPriority<T>> for PrioritiesView {
    fn from(figures: ByPriority<T>) -> Self {
        Self {
            background: figures[Priority::Background].into(),
            low: figures[Priority::Low].into(),
            normal: figures[Priority::Normal].into(),
            critical: figures[Priority::Critical].into(),
        }
    }
}

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}
