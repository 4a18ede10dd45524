//! A budget for repeats, shared by everything that repeats.
//!
//! Retries help against rare failures and make common ones worse: with three attempts, a service that fails at
//! everything is asked three times as often, just when it can least bear it. A budget makes the extra load a
//! fraction of the real one: each request deposits a fraction of a token, each repeat takes a whole one, and
//! where none is left there is no repeat. A success after a retry gives nothing back.
//!
//! Share one budget among all retries and hedges that lead to the same servers: clones share it.
//!
//! ```
//! use palisade::{Budget, RetryLayer};
//!
//! let budget = Budget::builder().ratio(0.05).burst(20).build()?;
//! let reads = RetryLayer::builder().budget(budget.clone()).build()?;
//! let writes = RetryLayer::builder().budget(budget.clone()).build()?;
//!
//! assert_eq!(budget.snapshot().balance, 20.0); // it starts full
//! # let _ = (reads, writes);
//! # Ok::<_, palisade::ConfigError>(())
//! ```
//!
//! The design follows Finagle's [`RetryBudget`][finagle] and the token bucket of the [gRPC retry design
//! (A6)][grpc]: like the first it pays deposits for requests and not for successes, and keeps a small reserve
//! for callers with little traffic; like the second it is one bounded bucket without a history.
//!
//! [finagle]: https://twitter.github.io/finagle/guide/Clients.html#retries
//! [grpc]: https://github.com/grpc/proposal/blob/master/A6-client-retries.md

mod state;

use std::{fmt, sync::Arc};

use self::state::Tokens;
use crate::{ConfigError, clock::Instant, telemetry};

/// A budget for repeats. Clones share it. See the [module](self) for more.
///
/// | knob | unit | default |
/// | --- | --- | --- |
/// | `ratio` | repeats per request | 0.08 |
/// | `reserve_per_second` | repeats per second that need no request | 1 |
/// | `burst` | repeats at once, after a time without any | 50 |
///
/// In any stretch of time the repeats are at most `ratio` x requests + `reserve_per_second` x seconds + `burst`.
///
/// The last two count for each budget. Of a thousand clients with the defaults, a server may see a thousand repeats a second that no
/// request has paid for, and fifty thousand at once: in a large fleet set them so low that all together stay at a few percent of what
/// the server can do.
///
/// Metrics: the gauge `palisade_budget_balance{layer}` in repeats, from the first repeat on, and the counter
/// `palisade_budget_withdrawals_total{layer, outcome}`, where the outcome is `granted` or `refused`. What the reserve
/// pays in shows at the next withdrawal.
#[derive(Clone)]
pub struct Budget {
    shared: Arc<Shared>,
}

struct Shared {
    tokens: Tokens,
    balance: telemetry::Gauge,
    granted: telemetry::Counter,
    refused: telemetry::Counter,
}

impl Default for Budget {
    fn default() -> Self {
        Self::from_builder(&Budget::builder())
    }
}

impl Budget {
    /// A budget with other settings than the default ones.
    pub const fn builder() -> BudgetBuilder {
        BudgetBuilder { ratio: 0.08, reserve_per_second: 1.0, burst: 50, name: "budget" }
    }

    fn from_builder(builder: &BudgetBuilder) -> Self {
        let tokens = Tokens::new(builder.ratio, builder.reserve_per_second, builder.burst, Instant::now());
        let withdrawals = |outcome| {
            telemetry::Counter::new(
                "palisade_budget_withdrawals_total",
                builder.name,
                &[("outcome", outcome)],
            )
        };
        Self {
            shared: Arc::new(Shared {
                tokens,
                balance: telemetry::Gauge::new("palisade_budget_balance", builder.name),
                granted: withdrawals("granted"),
                refused: withdrawals("refused"),
            }),
        }
    }

    /// Pays in for one request. Costs one read of memory while the budget is full.
    pub fn deposit(&self) {
        // While there is room: after an outage the gauge would show an empty budget until the next repeat.
        if self.shared.tokens.deposit() {
            self.shared.balance.set(self.shared.tokens.balance());
        }
    }

    /// Takes a token for one repeat, or says that none is left. Never waits.
    pub fn withdraw(&self) -> bool {
        let granted = self.shared.tokens.take(Instant::now());
        self.count(granted);
        granted
    }

    /// Takes a token if another budget, which is asked second, grants one too.
    pub(crate) fn withdraw_both(&self, other: Option<&Self>) -> Result<(), Empty> {
        if !self.shared.tokens.take(Instant::now()) {
            self.count(false);
            return Err(Empty::This);
        }
        if other.is_some_and(|other| !other.withdraw()) {
            self.shared.tokens.give_back();
            return Err(Empty::Other);
        }
        self.count(true);
        Ok(())
    }

    fn count(&self, granted: bool) {
        self.shared.tokens.count(granted);
        let counter = if granted { &self.shared.granted } else { &self.shared.refused };
        counter.increment(1);
        self.shared.balance.set(self.shared.tokens.balance());
    }

    /// What the budget holds now, and what became of it so far.
    pub fn snapshot(&self) -> BudgetSnapshot {
        self.shared.tokens.pay_reserve(Instant::now());
        self.shared.tokens.snapshot()
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Budget").field(&self.snapshot()).finish()
    }
}

/// Which of two budgets had no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Empty {
    This,
    Other,
}

/// What a [`Budget`] holds at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BudgetSnapshot {
    /// Repeats that could be made now.
    pub balance: f64,
    /// Repeats that were granted since the budget was made.
    pub granted: u64,
    /// Repeats that were refused since the budget was made.
    pub refused: u64,
}

/// Builds a [`Budget`].
#[derive(Clone, Copy, Debug)]
pub struct BudgetBuilder {
    ratio: f64,
    reserve_per_second: f64,
    burst: u32,
    name: &'static str,
}

impl BudgetBuilder {
    /// Repeats per request, from 0 to 10. Default 0.08.
    pub const fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio;
        self
    }

    /// Repeats per second that are granted without a request, from 0 to 1,000. Default 1.
    pub const fn reserve_per_second(mut self, reserve: f64) -> Self {
        self.reserve_per_second = reserve;
        self
    }

    /// The most that can be saved up, in repeats, from 1 to 1,000,000. Default 50. The budget starts with it.
    pub const fn burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self
    }

    /// Sets the label `layer` of its metrics. Default `budget`.
    pub const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Makes the budget of settings that somebody else has checked.
    pub(crate) fn unchecked(self) -> Budget {
        Budget::from_builder(&self)
    }

    /// Makes the budget.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range, or not a number.
    pub fn build(self) -> Result<Budget, ConfigError> {
        if !(0.0..=10.0).contains(&self.ratio) {
            return Err(ConfigError::new(
                "ratio",
                format!("is {}, but must be from 0 to 10 repeats per request", self.ratio),
            ));
        }
        if !(0.0..=1_000.0).contains(&self.reserve_per_second) {
            return Err(ConfigError::new(
                "reserve_per_second",
                format!("is {}, but must be from 0 to 1,000 repeats per second", self.reserve_per_second),
            ));
        }
        if !(1..=1_000_000).contains(&self.burst) {
            return Err(ConfigError::new(
                "burst",
                format!(
                    "is {}, but must be from 1 to 1,000,000: to switch repeats off, leave the layer out",
                    self.burst
                ),
            ));
        }
        Ok(Budget::from_builder(&self))
    }
}

#[cfg(all(test, not(palisade_loom)))]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let setting = |builder: BudgetBuilder| builder.build().unwrap_err().setting();
        assert_eq!(setting(Budget::builder().ratio(-0.1)), "ratio");
        assert_eq!(setting(Budget::builder().ratio(f64::NAN)), "ratio");
        assert_eq!(setting(Budget::builder().reserve_per_second(f64::INFINITY)), "reserve_per_second");
        assert_eq!(setting(Budget::builder().burst(0)), "burst");
    }

    #[tokio::test(start_paused = true)]
    async fn the_snapshot_shows_the_reserve_that_has_come_in_since() {
        let budget = Budget::builder().ratio(0.0).reserve_per_second(1.0).burst(3).unchecked();
        assert!((0..3).all(|_| budget.withdraw()));
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        assert!((budget.snapshot().balance - 2.0).abs() < 0.01, "{budget:?}");
    }

    #[test]
    fn clones_share_the_budget() {
        let budget = Budget::builder().ratio(0.0).reserve_per_second(0.0).burst(1).build().unwrap();
        assert!(budget.clone().withdraw());
        assert!(!budget.withdraw());
        assert_eq!(budget.snapshot().granted, 1);
        assert_eq!(budget.snapshot().refused, 1);
    }
}
