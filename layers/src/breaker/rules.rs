//! When a circuit opens and closes: the settings, and whether they make sense.

use std::time::Duration;

use crate::{Backoff, ConfigError, window::Span};

/// When a circuit opens, and how it closes again. All checked by the builder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) span: Span,
    pub(super) minimum_calls: u32,
    pub(super) failure_ratio: Option<f64>,
    pub(super) slow: Option<Slow>,
    pub(super) consecutive_failures: Option<u32>,
    pub(super) overload_counts: bool,
    pub(super) open_for: Backoff,
    pub(super) probes: u32,
    pub(super) probe_timeout: Duration,
}

/// What is slow, and how much of it is too much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slow {
    pub(super) longer_than: Duration,
    pub(super) ratio: f64,
}

impl Rules {
    /// Whether they make sense.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let share = |setting, share: f64| {
            if share > 0.0 && share <= 1.0 {
                return Ok(());
            }
            Err(ConfigError::new(setting, format!("is {share}, but must be a share above 0 and up to 1")))
        };
        let has_ratio = self.failure_ratio.is_some() || self.slow.is_some();
        match self.span {
            Span::Calls(calls) if !(1..=100_000).contains(&calls) => {
                return Err(ConfigError::new(
                    "window_of_calls",
                    format!("is {calls}, but must be from 1 to 100,000 calls"),
                ));
            }
            Span::Calls(calls) if has_ratio && self.minimum_calls > Span::most_calls(calls) => {
                let most = Span::most_calls(calls);
                return Err(ConfigError::new(
                    "minimum_calls",
                    format!(
                        "is {}, and the window holds {most} calls at most, so that no ratio would ever count: lower `minimum_calls` to \
                         {most} or less, or widen the window",
                        self.minimum_calls
                    ),
                ));
            }
            Span::Time(time)
                if !(Duration::from_millis(10)..=Duration::from_secs(86_400)).contains(&time) =>
            {
                return Err(ConfigError::new(
                    "window_of_time",
                    format!("is {time:?}, but must be from 10 ms to a day"),
                ));
            }
            _ => {}
        }
        if !(1..=30_000).contains(&self.minimum_calls) {
            return Err(ConfigError::new(
                "minimum_calls",
                format!("is {}, but must be from 1 to 30,000 calls", self.minimum_calls),
            ));
        }
        if let Some(ratio) = self.failure_ratio {
            share("failure_ratio", ratio)?;
        }
        if let Some(slow) = self.slow {
            share("slow_calls", slow.ratio)?;
            if slow.longer_than.is_zero() {
                return Err(ConfigError::new(
                    "slow_calls",
                    "needs a duration above zero: every call is longer than that; use `ignore_slow_calls` to switch it off",
                ));
            }
        }
        if self.consecutive_failures == Some(0) {
            return Err(ConfigError::new(
                "consecutive_failures",
                "must be at least 1: use `None` to switch it off",
            ));
        }
        if self.failure_ratio.is_none() && self.slow.is_none() && self.consecutive_failures.is_none() {
            return Err(ConfigError::new(
                "failure_ratio",
                "is off, as are slow calls and consecutive failures: nothing could open the circuit",
            ));
        }
        if self.open_for == Backoff::NONE {
            return Err(ConfigError::new(
                "open_for",
                "must be a wait above zero: a circuit that is open for no time is none",
            ));
        }
        if !(1..=1_000).contains(&self.probes) {
            return Err(ConfigError::new(
                "probes",
                format!(
                    "is {}, but must be from 1 to 1,000: without a probe it could never close",
                    self.probes
                ),
            ));
        }
        if self.probe_timeout.is_zero() {
            return Err(ConfigError::new("probe_timeout", "must be above zero: no probe could end in time"));
        }
        Ok(())
    }
}

/// How many of the probes reach such a share.
pub(super) fn probes_for(ratio: f64, probes: u32) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a small number")]
    let reached = (ratio * f64::from(probes)).ceil() as u32;
    reached.max(1)
}
