//! The sections of a configuration, one for each part of the stack.

use std::{path::PathBuf, time::Duration};

use palisade::{breaker, throttle};
use scylla::statement::{Consistency, SerialConsistency};
use serde::{Deserialize, Serialize};

use super::text::{self, Secret};
use crate::{health, telemetry::QueryText};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The session with the cluster. Changing any of it needs a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ConnectionConfig {
    /// Nodes to begin with, `host` or `host:port`: a list, or one text with commas. Default none; at least one is needed.
    #[serde(deserialize_with = "text::names::deserialize")]
    pub contact_points: Vec<String>,
    /// The datacenter that requests stay in. Default any.
    pub datacenter: Option<String>,
    /// The keyspace of unqualified table names. Default none.
    pub keyspace: Option<String>,
    /// The user, for `PasswordAuthenticator`. Default none.
    pub user: Option<String>,
    /// Their password. Default none. It is never printed, and left out where a configuration is written.
    #[serde(skip_serializing)]
    pub password: Option<Secret>,
    /// A file with the password, in place of `password`. A line break at its end does not count. Default none.
    pub password_file: Option<PathBuf>,
    /// A PEM file with the certificates of those whom to trust; encrypts all connections. Needs the feature `rustls`. Default
    /// none: no encryption.
    pub tls_ca: Option<PathBuf>,
    /// A PEM file with the certificate that is shown to nodes which ask for one. Needs `tls_ca` and `tls_key`. Default none.
    pub tls_certificate: Option<PathBuf>,
    /// A PEM file with its key. Default none.
    pub tls_key: Option<PathBuf>,
    /// Connections to each node. Default one for each shard, which is one on Cassandra.
    pub connections_per_node: Option<usize>,
    /// The level of requests that do not set their own. Default `LOCAL_QUORUM`.
    #[serde(with = "text::consistency")]
    pub consistency: Consistency,
    /// The level of lightweight transactions that do not set their own. Default `LOCAL_SERIAL`.
    #[serde(with = "text::serial_consistency")]
    pub serial_consistency: SerialConsistency,
    /// How long one try at connecting may take. Default 10 s.
    #[serde(with = "text::duration")]
    pub connect_timeout: Duration,
    /// Tries at connecting. Default 3.
    pub connect_attempts: u32,
    /// How long the preparation of a statement on all nodes may take, in the background. Default 30 s.
    #[serde(with = "text::duration")]
    pub prepare_timeout: Duration,
    /// Whether a schema change waits for the nodes' agreement. Default true.
    pub schema_agreement: bool,
    /// Prepared statements that are kept. Default 1,024.
    pub prepared_statements: usize,
    /// Whether a write that may be repeated gets its timestamp from this machine's clock. Default true.
    pub client_timestamps: bool,
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self {
            contact_points: Vec::new(),
            datacenter: None,
            keyspace: None,
            user: None,
            password: None,
            password_file: None,
            tls_ca: None,
            tls_certificate: None,
            tls_key: None,
            connections_per_node: None,
            consistency: Consistency::LocalQuorum,
            serial_consistency: SerialConsistency::LocalSerial,
            connect_timeout: s(10),
            connect_attempts: 3,
            prepare_timeout: s(30),
            schema_agreement: true,
            prepared_statements: 1_024,
            client_timestamps: true,
        }
    }
}

/// Which node is asked, and when one is taken for sick: see [`routing`](crate::routing). It cannot be left out. Changing any of it
/// needs a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RoutingConfig {
    /// The rack of `connection.datacenter` that is preferred. Default none.
    pub rack: Option<String>,
    /// The share of a datacenter's nodes that may be ejected at a time. Default 0.5.
    pub max_ejected: f64,
    /// Attempts at a node that may have been given up unanswered before others are asked. Default 512.
    pub max_abandoned: u32,
    /// Attempts without an answer that make a node suspect. Default 3.
    pub stalled_attempts: u32,
    /// After how long without an answer to so many it is ejected. Default 250 ms.
    #[serde(with = "text::duration")]
    pub stalled_after: Duration,
    /// In which time a node that comes back gets all of its traffic back. Default 10 s.
    #[serde(with = "text::duration")]
    pub slow_start: Duration,
}

impl Default for RoutingConfig {
    fn default() -> Self {
        Self {
            rack: None,
            max_ejected: 0.5,
            max_abandoned: 512,
            stalled_attempts: 3,
            stalled_after: ms(250),
            slow_start: s(10),
        }
    }
}

/// How long a whole call may take: see [`Timeouts::total`](crate::Timeouts::total). All of it but `enabled` changes at run time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DeadlineConfig {
    /// Whether the layer is there. Default true. Without it a call takes as long as its attempts.
    pub enabled: bool,
    /// The limit for reads, writes and preparations. Default 2 s.
    #[serde(with = "text::duration")]
    pub limit: Duration,
    /// The limit for schema changes and TRUNCATE. Default 60 s.
    #[serde(with = "text::duration")]
    pub schema: Duration,
}

impl Default for DeadlineConfig {
    fn default() -> Self {
        Self { enabled: true, limit: s(2), schema: s(60) }
    }
}

/// How long one attempt may take: see [`Timeouts::attempt`](crate::Timeouts::attempt). All of it but `enabled` changes at run time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AttemptTimeoutConfig {
    /// Whether the layer is there. Default true. Without it an attempt at a node that hangs takes up the whole call.
    pub enabled: bool,
    /// The limit for reads and writes. Default 500 ms.
    #[serde(with = "text::duration")]
    pub limit: Duration,
    /// The limit for preparations. Default 1 s.
    #[serde(with = "text::duration")]
    pub prepare: Duration,
    /// The limit for schema changes and TRUNCATE. Default 60 s.
    #[serde(with = "text::duration")]
    pub schema: Duration,
}

impl Default for AttemptTimeoutConfig {
    fn default() -> Self {
        Self { enabled: true, limit: ms(500), prepare: s(1), schema: s(60) }
    }
}

/// Repeats after failures: see [`retry`](palisade::retry). Changing any of it needs a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RetryConfig {
    /// Whether the layer is there. Default true.
    pub enabled: bool,
    /// Attempts in all, the first included. Default 3.
    pub max_attempts: u32,
    /// The ceiling of the first wait, which doubles from then on; the wait is anything up to it. Default 10 ms: another node is asked
    /// next, so that there is little to wait for.
    #[serde(with = "text::duration")]
    pub first_wait: Duration,
    /// No wait is longer. Default 1 s.
    #[serde(with = "text::duration")]
    pub max_wait: Duration,
    /// How much longer than that a server's own "come back in" may be. Default 5 s.
    #[serde(with = "text::duration")]
    pub max_retry_after: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { enabled: true, max_attempts: 3, first_wait: ms(10), max_wait: s(1), max_retry_after: s(5) }
    }
}

/// What retries and hedges together may add to the load: see [`budget`](palisade::budget). It cannot be left out. Changing any of
/// it needs a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BudgetConfig {
    /// Repeats for each request. Default 0.08.
    pub ratio: f64,
    /// Repeats per second that there may be in any case. Default 1.
    pub reserve_per_second: f64,
    /// Repeats that can be saved up. Default 50.
    pub burst: u32,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self { ratio: 0.08, reserve_per_second: 1.0, burst: 50 }
    }
}

/// Second attempts beside late ones: see [`hedge`](palisade::hedge).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HedgeConfig {
    /// Whether there are second attempts. Default true. Changes at run time, if it was true at the start.
    pub enabled: bool,
    /// The share of calls that are answered before the second attempt begins. Default 0.95. Needs a restart.
    pub percentile: f64,
    /// It begins after this time in place of the percentile. Default none. Needs a restart.
    #[serde(with = "text::duration::optional", skip_serializing_if = "Option::is_none")]
    pub fixed_delay: Option<Duration>,
    /// It begins no sooner than this. Default 1 ms. Needs a restart.
    #[serde(with = "text::duration")]
    pub min_delay: Duration,
    /// No second attempts while the percentile is above this. Default 500 ms: from there on the attempt's timeout and the retry do
    /// more. Needs a restart.
    #[serde(with = "text::duration")]
    pub max_delay: Duration,
    /// Second attempts per call. Default 0.05. Needs a restart.
    pub max_extra_load: f64,
}

impl Default for HedgeConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            percentile: 0.95,
            fixed_delay: None,
            min_delay: ms(1),
            max_delay: ms(500),
            max_extra_load: 0.05,
        }
    }
}

/// The circuit breaker of the whole cluster: see [`breaker`](palisade::breaker). Overload does not count: that is the throttle's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BreakerConfig {
    /// Whether the layer is there. Default true. Needs a restart; `mode` does not.
    pub enabled: bool,
    /// `normal`, `metrics_only`, `forced_open` or `forced_closed`. Default `normal`. Changes at run time.
    #[serde(with = "text::breaker_mode")]
    pub mode: breaker::Mode,
    /// The window that it judges by. Default 10 s. Needs a restart, as the rest does.
    #[serde(with = "text::duration")]
    pub window: Duration,
    /// With fewer calls than this in the window it does not open. Default 20.
    pub minimum_calls: u32,
    /// The share of failures at which it opens. Default 0.5.
    pub failure_ratio: f64,
    /// For how long it is open the first time, with jitter; doubling each time. Default 1 s.
    #[serde(with = "text::duration")]
    pub open_for: Duration,
    /// The longest that it is open: so long it may take until a cluster that is back is used again. Default 5 s.
    #[serde(with = "text::duration")]
    pub max_open_for: Duration,
    /// Calls that may find out whether the cluster is back. Default 5.
    pub probes: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            mode: breaker::Mode::Normal,
            window: s(10),
            minimum_calls: 20,
            failure_ratio: 0.5,
            open_for: s(1),
            max_open_for: s(5),
            probes: 5,
        }
    }
}

/// Asks less of a cluster that says it is overloaded, for each priority by itself: see [`throttle`](palisade::throttle).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ThrottleConfig {
    /// Whether the layer is there. Default true. Needs a restart; `mode` does not.
    pub enabled: bool,
    /// `on`, `observing` or `off`. Default `on`. Changes at run time.
    #[serde(with = "text::throttle_mode")]
    pub mode: throttle::Mode,
    /// Calls for each that the cluster accepts. Default 2. Changes at run time.
    pub multiplier: f64,
    /// The window that it judges by. Default 3 s. Needs a restart, as the rest does.
    #[serde(with = "text::duration")]
    pub window: Duration,
    /// The largest share of calls that is refused. Default 0.9.
    pub max_rejection: f64,
    /// Calls per second and priority that pass in any case. Default 1.
    pub min_passes_per_second: f64,
}

impl Default for ThrottleConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            mode: throttle::Mode::On,
            multiplier: 2.0,
            window: s(3),
            max_rejection: 0.9,
            min_passes_per_second: 1.0,
        }
    }
}

/// The line before the adaptive limit, which refuses the least important first: see [`shed`](palisade::shed). It is there if the
/// adaptive limit is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ShedConfig {
    /// Calls that wait at once. Default 1,000. Changes at run time.
    pub max_waiting: u32,
    /// How long calls of an overloaded priority wait. Default 10 ms. Changes at run time.
    #[serde(with = "text::duration")]
    pub target: Duration,
    /// For how long they have to wait longer than that to be overloaded. Default 100 ms. Needs a restart.
    #[serde(with = "text::duration")]
    pub interval: Duration,
    /// The longest that a call waits. Default 1 s. Changes at run time.
    #[serde(with = "text::duration")]
    pub max_wait: Duration,
}

impl Default for ShedConfig {
    fn default() -> Self {
        Self { max_waiting: 1_000, target: ms(10), interval: ms(100), max_wait: s(1) }
    }
}

/// A limit on attempts in flight that finds by itself how many the cluster can work on: see [`adaptive`](palisade::adaptive).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AdaptiveConfig {
    /// Whether the layer is there, and [the line](ShedConfig) before it. Default false. Needs a restart.
    pub enabled: bool,
    /// Attempts in flight to begin with. Default 64. Needs a restart.
    pub initial: u32,
    /// The limit goes no lower. Default 16. Changes at run time.
    pub min: u32,
    /// The limit goes no higher. Default 1,000. Changes at run time.
    pub max: u32,
    /// How many times the latency of an idle cluster is fine. Default 1.5. Needs a restart.
    pub tolerance: f64,
}

impl Default for AdaptiveConfig {
    fn default() -> Self {
        Self { enabled: false, initial: 64, min: 16, max: 1_000, tolerance: 1.5 }
    }
}

/// A fixed limit on calls in flight: see [`concurrency`](palisade::concurrency).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ConcurrencyConfig {
    /// Whether the layer is there. Default false. Needs a restart.
    pub enabled: bool,
    /// Calls in flight. Default 1,024. Changes at run time.
    pub limit: u32,
    /// Calls that wait for a place. Default 1,000. Needs a restart.
    pub max_waiting: u32,
    /// How long they wait. Default 1 s. Needs a restart.
    #[serde(with = "text::duration")]
    pub queue_timeout: Duration,
}

impl Default for ConcurrencyConfig {
    fn default() -> Self {
        Self { enabled: false, limit: 1_024, max_waiting: 1_000, queue_timeout: s(1) }
    }
}

/// A limit on calls per second: see [`rate`](palisade::rate).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RateConfig {
    /// Whether the layer is there. Default false. Needs a restart.
    pub enabled: bool,
    /// Calls per second. Default 1,000. Changes at run time.
    pub per_second: u32,
    /// Calls at once. Default a tenth of `per_second`. Changes at run time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// How long a call waits for its turn. Default 1 s. Needs a restart.
    #[serde(with = "text::duration")]
    pub max_wait: Duration,
    /// Calls that wait at once. Default 1,000. Needs a restart.
    pub max_waiting: u32,
}

impl Default for RateConfig {
    fn default() -> Self {
        Self { enabled: false, per_second: 1_000, burst: None, max_wait: s(1), max_waiting: 1_000 }
    }
}

/// One answer for reads of the same that are under way at once: see [`coalesce`](palisade::coalesce). A read may then not see what
/// its own caller wrote just before. Changing any of it needs a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CoalesceConfig {
    /// Whether the layer is there. Default false.
    pub enabled: bool,
    /// A call joins no other that is older than this. Default 100 ms.
    #[serde(with = "text::duration")]
    pub join_within: Duration,
    /// Different reads that are shared at once. Default 10,000.
    pub max_flights: usize,
}

impl Default for CoalesceConfig {
    fn default() -> Self {
        Self { enabled: false, join_within: ms(100), max_flights: 10_000 }
    }
}

/// Probes of the nodes, and refusals of what they cannot serve: see [`health`](crate::health). It takes a session: a stack over another leaf
/// has none. Changing any of it needs a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HealthConfig {
    /// Whether nodes are probed, and the layer is there. Default true.
    pub enabled: bool,
    /// `refuse` or `report_only`: what is done with a request that cannot be served. Default `refuse`.
    #[serde(with = "text::health_mode")]
    pub mode: health::Mode,
    /// The time between the probes of a node. Default 5 s.
    #[serde(with = "text::duration")]
    pub interval: Duration,
    /// How long a probe may take. Default 1 s.
    #[serde(with = "text::duration")]
    pub timeout: Duration,
    /// Failed probes in a row after which a node is down. Default 2.
    pub down_after: u32,
    /// Good probes in a row after which a node is better. Default 2.
    pub up_after: u32,
    /// How long a node stays as it is before it is better. Default 5 s.
    #[serde(with = "text::duration")]
    pub minimum_stay: Duration,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            mode: health::Mode::Refuse,
            interval: s(5),
            timeout: s(1),
            down_after: 2,
            up_after: 2,
            minimum_stay: s(5),
        }
    }
}

/// Another datacenter when the local one cannot serve: see [`failover`](crate::failover). It is there as soon as `remotes` names one, and
/// takes a session: a stack over another leaf has none. The breaker then is one for each datacenter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct FailoverConfig {
    /// Whether requests go elsewhere. Default true. Changes at run time.
    pub enabled: bool,
    /// The datacenters to go to, the best first: a list, or one text with commas. `connection.datacenter` names the local one. Default none.
    /// Needs a restart, as the rest does.
    #[serde(deserialize_with = "text::names::deserialize")]
    pub remotes: Vec<String>,
    /// The keyspaces by which it is decided whether a datacenter can serve. Default all that have replicas in several of them.
    #[serde(deserialize_with = "text::names::deserialize")]
    pub keyspaces: Vec<String>,
    /// The share of them that has to be servable. Default 1.0.
    pub min_servable: f64,
    /// Failed calls in a row that take a datacenter for sick. Default 5.
    pub failures: u32,
    /// For how long the local datacenter has to be well before it gets traffic back. Default 10 s.
    #[serde(with = "text::duration")]
    pub back_after: Duration,
    /// In which time it then gets all of it back. Default 5 s.
    #[serde(with = "text::duration")]
    pub ramp: Duration,
    /// The least time between two switches. Default 2 s.
    #[serde(with = "text::duration")]
    pub hold: Duration,
    /// Whether lightweight transactions go elsewhere too, which gives up what they are for. Default false.
    pub allow_serial: bool,
}

impl Default for FailoverConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            remotes: Vec::new(),
            keyspaces: Vec::new(),
            min_servable: 1.0,
            failures: 5,
            back_after: s(10),
            ramp: s(5),
            hold: s(2),
            allow_serial: false,
        }
    }
}

/// Metrics and spans of operations: see [`telemetry`](crate::telemetry). Changing any of it needs a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TelemetryConfig {
    /// Whether the layer is there. Default true.
    pub enabled: bool,
    /// Operations, each a verb on a table, with metrics of their own. Default 1,000.
    pub max_operations: usize,
    /// `off`, `without_literals` or `with_literals`: what spans tell of a statement's text. Default `off`.
    #[serde(with = "text::query_text")]
    pub query_text: QueryText,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { enabled: true, max_operations: 1_000, query_text: QueryText::Off }
    }
}

/// The end of the process: see [`drain`](palisade::drain). Changing any of it needs a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DrainConfig {
    /// Whether calls count for the drain, and are refused when it has begun. Default true.
    pub enabled: bool,
    /// How long it waits for the calls in flight, the grace included. Default 30 s.
    #[serde(with = "text::duration")]
    pub timeout: Duration,
    /// For how long it still lets new calls in. Default zero.
    #[serde(with = "text::duration")]
    pub grace: Duration,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { enabled: true, timeout: s(30), grace: Duration::ZERO }
    }
}
