use std::{fmt, sync::Arc, time::Duration};

use palisade::ConfigError;

use super::{
    HealthMonitor,
    monitor::Settings,
    schedule::Timing,
    state::Rules,
    transitions::{Callback, Transition},
};
use crate::{connect::check_datacenter, service::Cassandra};

/// Settings for a [`HealthMonitor`]. The [module](super) lists them.
#[derive(Clone)]
pub struct HealthMonitorBuilder {
    interval: Duration,
    timeout: Duration,
    confirm_after: Option<Duration>,
    jitter: f64,
    concurrency: usize,
    rules: Rules,
    datacenter: Option<Arc<str>>,
    callbacks: Vec<Callback>,
}

/// Longer than this is no monitoring.
const LONGEST: Duration = Duration::from_secs(86_400);

impl Default for HealthMonitorBuilder {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            confirm_after: None,
            jitter: 0.2,
            concurrency: 16,
            rules: Rules::default(),
            datacenter: None,
            callbacks: Vec::new(),
        }
    }
}

impl HealthMonitorBuilder {
    /// How often each node is probed.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How long a probe may take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// When a node is probed again whose last probe has not said the same as its state does.
    pub fn confirm_after(mut self, wait: Duration) -> Self {
        self.confirm_after = Some(wait);
        self
    }

    /// How much longer or shorter a wait may be, as a share of it, so that many processes do not probe at once.
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// How many probes may be under way at a time.
    pub fn concurrency(mut self, probes: usize) -> Self {
        self.concurrency = probes;
        self
    }

    /// How many failed probes in a row make a node [`Down`](super::NodeState::Down), and how many slow ones
    /// [`Degraded`](super::NodeState::Degraded).
    pub fn down_after(mut self, probes: u32) -> Self {
        self.rules.down_after = probes;
        self
    }

    /// How many good probes in a row make a node better.
    pub fn up_after(mut self, probes: u32) -> Self {
        self.rules.up_after = probes;
        self
    }

    /// A probe is slow that takes more than `factor` times the median of the other nodes in its datacenter, and more than `floor`. An
    /// infinite factor switches this off.
    pub fn slow(mut self, factor: f64, floor: Duration) -> Self {
        (self.rules.slow_factor, self.rules.slow_floor) = (factor, floor);
        self
    }

    /// A node is [`Degraded`](super::NodeState::Degraded) when this share of its requests in an interval fails, of at least 20. It
    /// is not any more below half of that.
    pub fn error_rate(mut self, share: f64) -> Self {
        self.rules.error_rate = share;
        self
    }

    /// How long a node stays in a state before it gets into a better one.
    pub fn minimum_stay(mut self, duration: Duration) -> Self {
        self.rules.minimum_stay = duration;
        self
    }

    /// The datacenter that requests stay in, by which readiness goes, in place of the session's.
    pub fn datacenter(mut self, name: impl Into<Arc<str>>) -> Self {
        self.datacenter = Some(name.into());
        self
    }

    /// Adds a function that is told of each transition, in order.
    ///
    /// It runs on a thread that may block, and cannot hold up the monitor: when 256 transitions wait for it, further ones are dropped
    /// and counted ([`HealthMonitor::dropped`]). A panic is logged, and the next transition is told. One that never returns keeps the
    /// runtime from shutting down.
    pub fn on_transition(mut self, callback: impl Fn(&Transition) + Send + Sync + 'static) -> Self {
        self.callbacks.push(Arc::new(callback));
        self
    }

    /// Starts monitoring, by a task of the present tokio runtime, until [`HealthMonitor::stop`] or until nothing of the session is left.
    ///
    /// A session has one monitor: with two of them, each node is probed twice.
    ///
    /// # Errors
    ///
    /// Names the setting that makes no sense, and what to do.
    pub fn start(self, cassandra: &Cassandra) -> Result<HealthMonitor, ConfigError> {
        let settings = self.check()?;
        let datacenter = match &self.datacenter {
            Some(name) => {
                check_datacenter(name, cassandra.session())?;
                Some(Arc::clone(name))
            }
            None => cassandra.shared().datacenter.clone(),
        };
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| {
            ConfigError::new("start", "was called outside of a tokio runtime: call it in an async function")
        })?;
        Ok(HealthMonitor::start(settings, datacenter, &self.callbacks, cassandra.shared(), &runtime))
    }

    /// The same settings, found to make sense.
    #[cfg(feature = "stack")]
    pub(crate) fn checked(self) -> Result<Self, ConfigError> {
        self.check().map(|_| self)
    }

    fn check(&self) -> Result<Settings, ConfigError> {
        let wrong = |setting, problem: String| Err(ConfigError::new(setting, problem));
        if self.interval.is_zero() || self.interval > LONGEST {
            let problem = "must be above zero and at most a day: a few seconds suit most clusters";
            return wrong("interval", problem.into());
        }
        if self.timeout.is_zero() {
            return wrong("timeout", "must be above zero: no probe could succeed".into());
        }
        if self.timeout >= self.interval {
            let problem = format!(
                "is {:?}, which is not shorter than `interval` ({:?}): shorten it, or probe less often",
                self.timeout, self.interval
            );
            return wrong("timeout", problem);
        }
        let confirm_after = self.confirm_after.unwrap_or(self.interval / 5);
        if confirm_after.is_zero() || confirm_after > self.interval {
            let problem = format!("must be above zero and at most `interval` ({:?})", self.interval);
            return wrong("confirm_after", problem);
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            let problem = format!("is {}, which is no share: it must be from 0 to 1", self.jitter);
            return wrong("jitter", problem);
        }
        if self.concurrency == 0 {
            return wrong("concurrency", "must be at least 1: no node could be probed".into());
        }
        let rules = self.rules;
        if rules.down_after == 0 {
            return wrong("down_after", "must be at least 1: no node could be up".into());
        }
        if rules.up_after == 0 {
            return wrong(
                "up_after",
                "must be at least 1: a node that is down could not be told from others".into(),
            );
        }
        if rules.slow_factor.is_nan() || rules.slow_factor < 1.0 {
            let problem =
                format!("has the factor {}: it must be at least 1, or infinite for never", rules.slow_factor);
            return wrong("slow", problem);
        }
        if !(rules.error_rate > 0.0 && rules.error_rate <= 1.0) {
            let problem = format!("is {}: it must be above 0 and at most 1", rules.error_rate);
            return wrong("error_rate", problem);
        }
        if self.datacenter.as_deref().is_some_and(str::is_empty) {
            return wrong("datacenter", "is empty: name one, or leave the setting out".into());
        }
        let timing = Timing {
            interval: self.interval,
            confirm_after,
            jitter: self.jitter,
            concurrency: self.concurrency,
        };
        Ok(Settings { timing, rules, timeout: self.timeout })
    }
}

impl fmt::Debug for HealthMonitorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthMonitorBuilder")
            .field("interval", &self.interval)
            .field("timeout", &self.timeout)
            .field("jitter", &self.jitter)
            .field("concurrency", &self.concurrency)
            .field("rules", &self.rules)
            .field("datacenter", &self.datacenter)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(change: impl FnOnce(HealthMonitorBuilder) -> HealthMonitorBuilder) -> String {
        change(HealthMonitorBuilder::default()).check().unwrap_err().to_string()
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_with_what_to_do() {
        let (zero, second, minute) = (Duration::ZERO, Duration::from_secs(1), Duration::from_secs(60));
        let cases = [
            ("interval", problem(|builder| builder.interval(zero))),
            ("interval", problem(|builder| builder.interval(Duration::MAX))),
            ("timeout", problem(|builder| builder.timeout(zero))),
            ("timeout", problem(|builder| builder.timeout(minute))),
            ("timeout", problem(|builder| builder.interval(second).timeout(second))),
            ("confirm_after", problem(|builder| builder.confirm_after(zero))),
            ("confirm_after", problem(|builder| builder.confirm_after(minute))),
            ("jitter", problem(|builder| builder.jitter(-0.1))),
            ("jitter", problem(|builder| builder.jitter(1.1))),
            ("jitter", problem(|builder| builder.jitter(f64::NAN))),
            ("concurrency", problem(|builder| builder.concurrency(0))),
            ("down_after", problem(|builder| builder.down_after(0))),
            ("up_after", problem(|builder| builder.up_after(0))),
            ("slow", problem(|builder| builder.slow(0.9, zero))),
            ("slow", problem(|builder| builder.slow(f64::NAN, zero))),
            ("error_rate", problem(|builder| builder.error_rate(0.0))),
            ("error_rate", problem(|builder| builder.error_rate(f64::NAN))),
            ("datacenter", problem(|builder| builder.datacenter(""))),
        ];
        for (setting, problem) in cases {
            assert!(problem.starts_with(&format!("`{setting}` ")), "{setting}: {problem}");
        }
        assert_eq!(
            problem(|builder| builder.interval(second).timeout(minute)),
            "`timeout` is 60s, which is not shorter than `interval` (1s): shorten it, or probe less often"
        );
    }

    #[test]
    fn a_doubt_is_asked_about_after_a_fifth_of_the_interval() {
        let builder = HealthMonitorBuilder::default();
        assert_eq!(builder.check().unwrap().timing.confirm_after, Duration::from_secs(1));
        let never_slow = builder.slow(f64::INFINITY, Duration::ZERO).minimum_stay(Duration::MAX);
        assert!(never_slow.check().is_ok());
    }
}
