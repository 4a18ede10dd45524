//! The layers of a stack, made of its configuration.

use std::{sync::Arc, time::Duration};

use palisade::{
    AdaptiveConcurrencyLayer, Backoff, Budget, ByDeadline, ByError, CircuitBreakerLayer, Class, Classify,
    CoalesceLayer, ConcurrencyLimitLayer, ConfigError, DeadlineLayer, Drain, DrainLayer, Effect, HasPriority,
    HedgeLayer, Jitter, Priority, RateLimitLayer, RetryLayer, ShedLayer, TimeoutLayer,
    breaker::Circuit,
    concurrency::Bulkhead,
    keyed::{PerKey, Single},
    rate::{EachOne, Limiter},
    throttle::KeyedThrottleLayer,
};

use scylla::statement::Consistency;

use super::{
    config::StackConfig,
    limits::{Lengths, LiveTimeouts, Scope},
};
use crate::{
    error::{Error, ErrorKind},
    failover::{FailoverBuilder, FailoverLayer},
    health::{HealthLayer, HealthMonitor, HealthMonitorBuilder},
    request::{ReadKey, Request},
    service::Cassandra,
    telemetry::TelemetryLayer,
};

type PriorityOf = fn(&Request) -> Priority;
type ReadKeyOf = fn(&Request) -> Option<ReadKey>;

type DatacenterOf = fn(&Request) -> Option<Arc<str>>;

pub(super) type CoalesceReads = CoalesceLayer<Request, ReadKey, ReadKeyOf, ByDeadline>;
pub(super) type RateLayer = RateLimitLayer<Single<Limiter>, EachOne, ByDeadline>;
pub(super) type ConcurrencyLayer = ConcurrencyLimitLayer<Single<Bulkhead>, ByDeadline>;
pub(super) type BreakerLayer = CircuitBreakerLayer<BySent>;
type ThrottlesLayer = KeyedThrottleLayer<Priority, PriorityOf, ByError>;

/// A circuit for each datacenter that requests name; `None` is the local one.
pub(super) type BreakersLayer = CircuitBreakerLayer<BySent, PerKey<Option<Arc<str>>, DatacenterOf, Circuit>>;

/// What the circuit of a cluster goes by. A call for which no node has a connection fails at once by itself, costs the cluster nothing, and tells
/// nothing of it; and the first connection that is back is not to wait for an open circuit.
#[derive(Clone, Copy, Debug)]
pub(super) struct BySent;

impl<Res> Classify<Res, Error> for BySent {
    fn classify(&self, outcome: Result<&Res, &Error>) -> Class {
        let class = ByError.classify(outcome);
        match outcome {
            Err(error) if error.kind() == ErrorKind::Unreachable && class.effect() == Effect::NotApplied => {
                class.refused_here()
            }
            _ => class,
        }
    }
}

/// The local datacenter, and those that a failover may have.
const DATACENTERS: usize = 16;

/// How many priorities there are: each has a throttle of its own.
const PRIORITIES: usize = 4;

/// What a stack is given rather than makes.
#[derive(Default)]
pub(super) struct Given<'a> {
    pub(super) drain: Option<Drain>,
    pub(super) health: Option<HealthMonitor>,
    pub(super) cassandra: Option<&'a Cassandra>,
}

/// The layers. `None` is one that is left out.
pub(super) struct Parts {
    pub(super) telemetry: Option<TelemetryLayer>,
    pub(super) health: Option<HealthLayer>,
    pub(super) monitor: Option<HealthMonitor>,
    pub(super) failover: Option<FailoverLayer>,
    pub(super) drain: Drain,
    pub(super) drain_layer: Option<DrainLayer>,
    pub(super) deadline_limits: LiveTimeouts,
    pub(super) deadline: Option<DeadlineLayer<LiveTimeouts>>,
    pub(super) rate: Option<RateLayer>,
    pub(super) concurrency: Option<ConcurrencyLayer>,
    pub(super) coalesce: Option<CoalesceReads>,
    pub(super) budget: Budget,
    pub(super) retry: Option<RetryLayer>,
    pub(super) hedge: Option<HedgeLayer>,
    pub(super) breaker: Option<BreakerLayer>,
    // In place of the one, where there are several datacenters.
    pub(super) breakers: Option<BreakersLayer>,
    pub(super) throttle: Option<ThrottlesLayer>,
    pub(super) shed: Option<ShedLayer<ByDeadline>>,
    pub(super) adaptive: Option<AdaptiveConcurrencyLayer>,
    pub(super) attempt_limits: LiveTimeouts,
    pub(super) attempt_timeout: Option<TimeoutLayer<LiveTimeouts>>,
}

impl Parts {
    /// All layers that are enabled. What is left out is checked all the same: it may be enabled next time.
    pub(super) fn new(config: &StackConfig, given: Given<'_>) -> Result<Self, ConfigError> {
        let telemetry = telemetry(config).map_err(|error| error.in_section("telemetry"))?;
        let own_drain = own_drain(config).map_err(|error| error.in_section("drain"))?;
        let drain = given.drain.unwrap_or(own_drain);
        let (deadline_limits, attempt_limits) = limits(config)?;
        let budget = budget(config).map_err(|error| error.in_section("budget"))?;
        let retry = retry(config, &budget).map_err(|error| error.in_section("retry"))?;
        let rate = rate(config).map_err(|error| error.in_section("rate"))?;
        let concurrency = concurrency(config).map_err(|error| error.in_section("concurrency"))?;
        let coalesce = coalesce(config).map_err(|error| error.in_section("coalesce"))?;
        let hedge = hedge(config, &budget).map_err(|error| error.in_section("hedge"))?;
        let (breaker, breakers) = breaker(config).map_err(|error| error.in_section("breaker"))?;
        let throttle = throttle(config).map_err(|error| error.in_section("throttle"))?;
        let shed = shed(config).map_err(|error| error.in_section("shed"))?;
        let adaptive = adaptive(config).map_err(|error| error.in_section("adaptive"))?;
        // The last, since they begin to work at once.
        let failover = match (failover(config)?, given.cassandra) {
            (Some(builder), Some(cassandra)) => Some(builder.build(cassandra).map_err(in_failover)?),
            _ => None,
        };
        let in_health = |error: ConfigError| error.in_section("health");
        let own_monitor = health(config).map_err(in_health)?;
        let monitor = match (given.health, given.cassandra) {
            _ if !config.health.enabled => None,
            (Some(monitor), _) => Some(monitor),
            (None, Some(cassandra)) => Some(own_monitor.start(cassandra).map_err(in_health)?),
            (None, None) => None,
        };
        Ok(Self {
            telemetry: config.telemetry.enabled.then_some(telemetry),
            health: monitor.as_ref().map(|monitor| monitor.layer().mode(config.health.mode)),
            monitor,
            drain_layer: config.drain.enabled.then(|| drain.layer()),
            drain,
            deadline: config.deadline.enabled.then(|| DeadlineLayer::new(deadline_limits.clone())),
            deadline_limits,
            rate: config.rate.enabled.then_some(rate),
            concurrency: config.concurrency.enabled.then_some(concurrency),
            coalesce: config.coalesce.enabled.then_some(coalesce),
            budget,
            retry: config.retry.enabled.then_some(retry),
            hedge: config.hedge.enabled.then_some(hedge),
            breaker: (config.breaker.enabled && failover.is_none()).then_some(breaker),
            breakers: (config.breaker.enabled && failover.is_some()).then_some(breakers),
            failover,
            throttle: config.throttle.enabled.then_some(throttle),
            shed: config.adaptive.enabled.then_some(shed),
            adaptive: config.adaptive.enabled.then_some(adaptive),
            attempt_timeout: config
                .attempt_timeout
                .enabled
                .then(|| TimeoutLayer::new(attempt_limits.clone())),
            attempt_limits,
        })
    }
}

/// `None` if there is nowhere to go.
fn failover(config: &StackConfig) -> Result<Option<FailoverBuilder>, ConfigError> {
    let section = &config.failover;
    let mut builder = FailoverLayer::builder()
        .min_servable(section.min_servable)
        .failures(section.failures)
        .back_after(section.back_after)
        .ramp(section.ramp)
        .hold(section.hold)
        .allow_serial(section.allow_serial);
    // No budget: a call is sent elsewhere once at most, where it would go to anyhow as soon as it is known that this datacenter is lost.
    // The retries of that moment have spent the budget, and calls would fail for that.
    for remote in &section.remotes {
        builder = builder.remote(remote.as_str());
    }
    for keyspace in &section.keyspaces {
        builder = builder.keyspace(keyspace);
    }
    if section.remotes.is_empty() {
        // What is set besides is checked all the same: with names that no cluster has to have.
        builder.remote("remote").checked(Some("local")).map_err(in_failover)?;
        return Ok(None);
    }
    builder.checked(config.connection.datacenter.as_deref()).map(Some).map_err(in_failover)
}

/// The builder calls some by other names.
fn in_failover(error: ConfigError) -> ConfigError {
    match error.setting() {
        "local" => {
            let problem =
                "is missing or not the session's, and `failover.remotes` names others: name the local one";
            ConfigError::new("datacenter", problem).in_section("connection")
        }
        "remote" => {
            let text = error.to_string();
            let problem = text.trim_start_matches("`remote` ").to_owned();
            ConfigError::new("remotes", problem).in_section("failover")
        }
        _ => error.in_section("failover"),
    }
}

fn telemetry(config: &StackConfig) -> Result<TelemetryLayer, ConfigError> {
    let section = &config.telemetry;
    TelemetryLayer::builder().max_operations(section.max_operations).query_text(section.query_text).build()
}

fn health(config: &StackConfig) -> Result<HealthMonitorBuilder, ConfigError> {
    let section = &config.health;
    HealthMonitor::builder()
        .interval(section.interval)
        .timeout(section.timeout)
        .down_after(section.down_after)
        .up_after(section.up_after)
        .minimum_stay(section.minimum_stay)
        .checked()
}

fn own_drain(config: &StackConfig) -> Result<Drain, ConfigError> {
    Drain::builder().timeout(config.drain.timeout).grace(config.drain.grace).build()
}

/// The limits of a whole call.
pub(super) fn call_lengths(config: &StackConfig) -> Lengths {
    let section = &config.deadline;
    // A preparation is a step of a call: it has no limit of its own.
    Lengths { usual: section.limit, prepare: section.limit, schema: section.schema }
}

/// The limits of an attempt.
pub(super) fn attempt_lengths(config: &StackConfig) -> Lengths {
    let section = &config.attempt_timeout;
    Lengths { usual: section.limit, prepare: section.prepare, schema: section.schema }
}

fn limits(config: &StackConfig) -> Result<(LiveTimeouts, LiveTimeouts), ConfigError> {
    let (call, attempt) = (call_lengths(config), attempt_lengths(config));
    for (section, lengths) in [("deadline", call), ("attempt_timeout", attempt)] {
        let all = [("limit", lengths.usual), ("prepare", lengths.prepare), ("schema", lengths.schema)];
        if let Some((setting, _)) = all.iter().find(|(_, length)| length.is_zero()) {
            let problem = "is 0ms, but must be above zero: nothing could end in time";
            return Err(ConfigError::new(setting, problem).in_section(section));
        }
    }
    if config.deadline.enabled && config.attempt_timeout.enabled && attempt.usual > call.usual {
        let problem = format!(
            "is {:?}, longer than `deadline.limit`, {:?}: an attempt cannot take longer than its call; lower the first or raise \
             the second",
            attempt.usual, call.usual
        );
        return Err(ConfigError::new("limit", problem).in_section("attempt_timeout"));
    }
    Ok((LiveTimeouts::new(Scope::Call, call), LiveTimeouts::new(Scope::Attempt, attempt)))
}

fn budget(config: &StackConfig) -> Result<Budget, ConfigError> {
    let section = &config.budget;
    Budget::builder()
        .ratio(section.ratio)
        .reserve_per_second(section.reserve_per_second)
        .burst(section.burst)
        .build()
}

fn retry(config: &StackConfig, budget: &Budget) -> Result<RetryLayer, ConfigError> {
    let section = &config.retry;
    RetryLayer::builder()
        .max_attempts(section.max_attempts)
        .backoff(backoff(("first_wait", section.first_wait), ("max_wait", section.max_wait), Jitter::Full)?)
        .max_retry_after(section.max_retry_after)
        .budget(budget.clone())
        .build()
}

fn backoff(
    (first, base): (&'static str, Duration),
    (last, max): (&'static str, Duration),
    jitter: Jitter,
) -> Result<Backoff, ConfigError> {
    if base.is_zero() {
        return Err(ConfigError::new(first, "is 0ms, but must be above zero: \"1ms\" is next to nothing"));
    }
    if base > max {
        let problem = format!("is {max:?}, but must not be less than `{first}`, {base:?}");
        return Err(ConfigError::new(last, problem));
    }
    Ok(Backoff::exponential(base, max)?.with_jitter(jitter))
}

fn hedge(config: &StackConfig, budget: &Budget) -> Result<HedgeLayer, ConfigError> {
    let section = &config.hedge;
    let mut builder = HedgeLayer::builder()
        .percentile(section.percentile)
        .min_delay(section.min_delay)
        .max_delay(section.max_delay)
        .max_extra_load(section.max_extra_load);
    if let Some(delay) = section.fixed_delay {
        builder = builder.fixed_delay(delay);
    }
    // It is the retry that pays in: without one the budget would run dry, and the hedge has a limit of its own.
    if config.retry.enabled {
        builder = builder.budget(budget.clone());
    }
    builder.build()
}

/// One for all, and one for each datacenter.
fn breaker(config: &StackConfig) -> Result<(BreakerLayer, BreakersLayer), ConfigError> {
    let section = &config.breaker;
    let open_for =
        backoff(("open_for", section.open_for), ("max_open_for", section.max_open_for), Jitter::Equal)?;
    let builder = CircuitBreakerLayer::builder()
        .classifier(BySent)
        .window_of_time(section.window)
        .minimum_calls(section.minimum_calls)
        .failure_ratio(section.failure_ratio)
        .overload_counts(false)
        .open_for(open_for)
        .probes(section.probes)
        .mode(section.mode);
    let built = builder.clone().build();
    // The builder calls it by what it is of.
    let one = built.map_err(|error| match error.setting() {
        "window_of_time" => ConfigError::new("window", "must be from 10 ms to a day"),
        _ => error,
    })?;
    let datacenter: DatacenterOf = |request| request.datacenter().cloned();
    Ok((one, builder.build_keyed(DATACENTERS, datacenter)?))
}

fn throttle(config: &StackConfig) -> Result<ThrottlesLayer, ConfigError> {
    let section = &config.throttle;
    palisade::ThrottleLayer::builder()
        .mode(section.mode)
        .multiplier(section.multiplier)
        .window(section.window)
        .max_rejection(section.max_rejection)
        .min_passes_per_second(section.min_passes_per_second)
        .build_keyed(PRIORITIES, Request::priority as PriorityOf)
}

fn shed(config: &StackConfig) -> Result<ShedLayer<ByDeadline>, ConfigError> {
    let section = &config.shed;
    ShedLayer::builder()
        .max_waiting(section.max_waiting)
        .target(section.target)
        .interval(section.interval)
        .max_wait(section.max_wait)
        .deadline_aware()
        .build()
}

fn adaptive(config: &StackConfig) -> Result<AdaptiveConcurrencyLayer, ConfigError> {
    let section = &config.adaptive;
    AdaptiveConcurrencyLayer::builder()
        .initial(section.initial)
        .min(section.min)
        .max(section.max)
        .tolerance(section.tolerance)
        .build()
}

fn concurrency(config: &StackConfig) -> Result<ConcurrencyLayer, ConfigError> {
    let section = &config.concurrency;
    ConcurrencyLimitLayer::builder()
        .limit(section.limit)
        .max_waiting(section.max_waiting)
        .queue_timeout(section.queue_timeout)
        .deadline_aware()
        .build()
}

/// The time in which `rate.per_second` permits come.
pub(super) const SECOND: Duration = Duration::from_secs(1);

fn rate(config: &StackConfig) -> Result<RateLayer, ConfigError> {
    let section = &config.rate;
    let mut builder = RateLimitLayer::builder()
        .rate(section.per_second, SECOND)
        .max_wait(section.max_wait)
        .max_waiting(section.max_waiting)
        .deadline_aware();
    if let Some(burst) = section.burst {
        builder = builder.burst(burst);
    }
    builder.build().map_err(|error| match error.setting() {
        "rate" => ConfigError::new(
            "per_second",
            format!("is {}, but must be from 1 to 1,000,000,000 calls", section.per_second),
        ),
        _ => error,
    })
}

fn coalesce(config: &StackConfig) -> Result<CoalesceReads, ConfigError> {
    let section = &config.coalesce;
    if section.enabled
        && matches!(config.connection.consistency, Consistency::Serial | Consistency::LocalSerial)
    {
        let problem = "is true, and `connection.consistency` is a serial level: such a read has to see whatever was written \
                       before it began; leave one of them out";
        return Err(ConfigError::new("enabled", problem));
    }
    CoalesceLayer::builder(Request::read_key as ReadKeyOf)
        .join_within(section.join_within)
        .max_flights(section.max_flights)
        .deadline_aware()
        .build()
}
