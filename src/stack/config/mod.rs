//! One configuration for the whole stack.

mod load;
mod sections;
pub(super) mod text;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::{
    sections::{
        AdaptiveConfig, AttemptTimeoutConfig, BreakerConfig, BudgetConfig, CoalesceConfig, ConcurrencyConfig,
        ConnectionConfig, DeadlineConfig, DrainConfig, FailoverConfig, HealthConfig, HedgeConfig, RateConfig,
        RetryConfig, RoutingConfig, ShedConfig, TelemetryConfig, ThrottleConfig,
    },
    text::Secret,
};

/// The settings of a [`StandardStack`](super::StandardStack): a section for each of its parts.
///
/// All have defaults but [`connection.contact_points`](ConnectionConfig::contact_points). Durations are texts with a unit:
/// `"300ms"`, `"2s"`, `"1m"`. A setting that does not exist is an error.
///
/// ```
/// use std::time::Duration;
/// use tower_cassandra::stack::StackConfig;
///
/// let config = StackConfig::from_toml(
///     r#"
///     preset = "interactive"
///
///     [connection]
///     contact_points = ["10.0.0.1", "10.0.0.2:9042"]
///     datacenter = "dc1"
///
///     [retry]
///     max_attempts = 2
///
///     [breaker]
///     mode = "metrics_only"
///     "#,
/// )?;
/// assert_eq!(config.retry.max_attempts, 2);
/// assert_eq!(config.deadline.limit, Duration::from_millis(500)); // the preset's
/// # Ok::<_, tower_cassandra::Error>(())
/// ```
///
/// From a file and the environment, of which the environment counts more: see [`load`](Self::load).
///
/// # Presets
///
/// What is not set is the preset's. `standard` is [`StackConfig::default`]; each section documents its defaults. The others differ in:
///
/// | setting | `standard` | `interactive` | `batch` |
/// | --- | --- | --- | --- |
/// | for | a service | what a person waits for | jobs that can wait, and must not get in others' way |
/// | `deadline.limit` | 2 s | 500 ms | 30 s |
/// | `attempt_timeout.limit` | 500 ms | 150 ms | 10 s |
/// | `attempt_timeout.prepare` | 1 s | 250 ms | 1 s |
/// | `retry.max_attempts` | 3 | 3 | 5 |
/// | `retry.first_wait`, `retry.max_wait` | 10 ms, 1 s | 5 ms, 100 ms | 50 ms, 5 s |
/// | `hedge.enabled` | yes | yes | no: nobody waits for the last percent |
/// | `hedge.max_delay` | 500 ms | 150 ms | |
/// | `adaptive.enabled` | no | no | yes: a job would send as much as it can |
/// | `shed.target`, `interval`, `max_wait` | 10 ms, 100 ms, 1 s | the same | 1 s, 5 s, 20 s: a job rather waits than fails |
///
/// How important a call is says the call: a job sets `Priority::Background` on its statements.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct StackConfig {
    /// Where the defaults come from. Only read while a configuration is loaded.
    pub preset: Preset,
    /// The session with the cluster.
    pub connection: ConnectionConfig,
    /// Which node is asked.
    pub routing: RoutingConfig,
    /// Probes of the nodes, and refusals of what they cannot serve.
    pub health: HealthConfig,
    /// Another datacenter when the local one cannot serve.
    pub failover: FailoverConfig,
    /// Metrics and spans of operations.
    pub telemetry: TelemetryConfig,
    /// How long a whole call may take.
    pub deadline: DeadlineConfig,
    /// How long one attempt may take.
    pub attempt_timeout: AttemptTimeoutConfig,
    /// Repeats after failures.
    pub retry: RetryConfig,
    /// What repeats of any kind may add to the load.
    pub budget: BudgetConfig,
    /// Second attempts beside late ones.
    pub hedge: HedgeConfig,
    /// The circuit breaker of the whole cluster.
    pub breaker: BreakerConfig,
    /// Asks less of a cluster that says it is overloaded.
    pub throttle: ThrottleConfig,
    /// The line before the adaptive limit.
    pub shed: ShedConfig,
    /// A limit on attempts in flight that finds itself.
    pub adaptive: AdaptiveConfig,
    /// A fixed limit on calls in flight.
    pub concurrency: ConcurrencyConfig,
    /// A limit on calls per second.
    pub rate: RateConfig,
    /// One answer for reads of the same.
    pub coalesce: CoalesceConfig,
    /// The end of the process.
    pub drain: DrainConfig,
}

/// Named defaults. See [`StackConfig`] for what they differ in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Preset {
    /// For a service: [`StackConfig::default`].
    #[default]
    Standard,
    /// For what a person waits for: [`StackConfig::interactive`].
    Interactive,
    /// For jobs that can wait: [`StackConfig::batch`].
    Batch,
}

impl StackConfig {
    /// The defaults of a preset.
    pub fn of(preset: Preset) -> Self {
        match preset {
            Preset::Standard => Self::default(),
            Preset::Interactive => Self::interactive(),
            Preset::Batch => Self::batch(),
        }
    }

    /// For what a person waits for: an answer within half a second, or an error to show.
    pub fn interactive() -> Self {
        let ms = Duration::from_millis;
        let mut config = Self { preset: Preset::Interactive, ..Self::default() };
        config.deadline.limit = ms(500);
        config.attempt_timeout.limit = ms(150);
        config.attempt_timeout.prepare = ms(250);
        config.retry.first_wait = ms(5);
        config.retry.max_wait = ms(100);
        config.hedge.max_delay = ms(150);
        config
    }

    /// For jobs that can wait: long limits, patient repeats, and no more in flight than the cluster can work on.
    pub fn batch() -> Self {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        let mut config = Self { preset: Preset::Batch, ..Self::default() };
        config.deadline.limit = s(30);
        config.attempt_timeout.limit = s(10);
        config.retry.max_attempts = 5;
        config.retry.first_wait = ms(50);
        config.retry.max_wait = s(5);
        config.hedge.enabled = false;
        config.adaptive.enabled = true;
        config.shed.target = s(1);
        config.shed.interval = s(5);
        config.shed.max_wait = s(20);
        config
    }
}
