//! The handles of all parts in one place, and changes while the stack is in use.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use palisade::{
    AdaptiveConcurrencyLayer, Budget, CoalesceLayer, ConfigError, Drain, HedgeLayer, Priority, ShedLayer,
    adaptive::AdaptiveConcurrencyHandle,
    breaker::{Circuit, Circuits},
    coalesce::CoalesceHandle,
    concurrency::ConcurrencyLimitHandle,
    hedge::HedgeHandle,
    rate::RateLimitHandle,
    shed::ShedHandle,
    throttle::{KeyedThrottleHandle, KeyedThrottleLayer},
};
use toml::{Table, Value};

use super::{
    config::{Secret, StackConfig},
    limits::LiveTimeouts,
    parts::{self, BreakerLayer, BreakersLayer, ConcurrencyLayer, Parts, RateLayer, SECOND},
    snapshot::{StackSnapshot, ThrottleView},
};
use crate::{
    failover::{FailoverHandle, FailoverLayer},
    health::HealthMonitor,
};

/// What operators read and change while the stack is in use. A part that is left out has no handle. Clones lead to the same
/// stack.
#[derive(Clone)]
#[non_exhaustive]
pub struct Handles {
    /// Ends the stack's work in order. If `drain.enabled` is false no call counts.
    pub drain: Drain,
    /// How each node is, and what can be served.
    pub health: Option<HealthMonitor>,
    /// The limit on calls per second.
    pub rate: Option<RateLimitHandle>,
    /// The fixed limit on calls in flight.
    pub concurrency: Option<ConcurrencyLimitHandle>,
    /// Reads that share their answers.
    pub coalesce: Option<CoalesceHandle>,
    /// What retries and hedges may do together.
    pub budget: Budget,
    /// Second attempts.
    pub hedge: Option<HedgeHandle>,
    /// Which datacenter serves.
    pub failover: Option<FailoverHandle>,
    /// The circuit breaker of the cluster, or of its local datacenter where there is a failover.
    pub breaker: Option<Arc<Circuit>>,
    /// The circuit breakers by datacenter, where there is a failover: `None` is the local one.
    pub breakers: Option<Circuits<Option<Arc<str>>>>,
    /// The throttles by priority.
    pub throttle: Option<KeyedThrottleHandle<Priority>>,
    /// The line before the adaptive limit.
    pub shed: Option<ShedHandle>,
    /// The adaptive limit.
    pub adaptive: Option<AdaptiveConcurrencyHandle>,
    deadline: Option<LiveTimeouts>,
    attempt_timeout: Option<LiveTimeouts>,
    running: Arc<Mutex<Running>>,
}

/// What became of a changed configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Applied {
    /// Settings that are in force now, as `section.setting`.
    pub changed: Vec<String>,
    /// Settings that differ from what runs, and will be in force after a restart only.
    pub needs_restart: Vec<String>,
}

/// The configuration in force.
struct Running {
    settings: Table,
    // A secret is not among the settings.
    password: Option<Secret>,
}

impl Handles {
    pub(super) fn of(parts: &Parts, config: &StackConfig) -> Result<Self, ConfigError> {
        let failover = parts.failover.as_ref().map(FailoverLayer::handle);
        if let Some(failover) = failover.as_ref().filter(|_| !config.failover.enabled) {
            failover.set_enabled(false);
        }
        let breakers = parts.breakers.as_ref().map(BreakersLayer::handle);
        let local = breakers.as_ref().map(|breakers| breakers.get_or_make(&None));
        Ok(Self {
            drain: parts.drain.clone(),
            health: parts.monitor.clone(),
            rate: parts.rate.as_ref().map(RateLayer::handle),
            concurrency: parts.concurrency.as_ref().map(ConcurrencyLayer::handle),
            coalesce: parts.coalesce.as_ref().map(CoalesceLayer::handle),
            budget: parts.budget.clone(),
            hedge: parts.hedge.as_ref().map(HedgeLayer::handle),
            failover,
            breaker: parts.breaker.as_ref().map(BreakerLayer::handle).or(local),
            breakers,
            throttle: parts.throttle.as_ref().map(KeyedThrottleLayer::handle),
            shed: parts.shed.as_ref().map(ShedLayer::handle),
            adaptive: parts.adaptive.as_ref().map(AdaptiveConcurrencyLayer::handle),
            deadline: parts.deadline.as_ref().map(|_| parts.deadline_limits.clone()),
            attempt_timeout: parts.attempt_timeout.as_ref().map(|_| parts.attempt_limits.clone()),
            running: Arc::new(Mutex::new(Running {
                settings: settings(config)?,
                password: config.connection.password.clone(),
            })),
        })
    }

    /// The figures of all parts at this moment.
    pub fn snapshot(&self) -> StackSnapshot {
        let usual = |limits: &LiveTimeouts| limits.usual().as_secs_f64();
        StackSnapshot {
            drain: self.drain.snapshot().into(),
            health: self.health.as_ref().map(HealthMonitor::report),
            deadline_seconds: self.deadline.as_ref().map(usual),
            attempt_timeout_seconds: self.attempt_timeout.as_ref().map(usual),
            rate: self.rate.as_ref().map(|handle| handle.snapshot().into()),
            concurrency: self.concurrency.as_ref().map(|handle| handle.snapshot().into()),
            coalesce: self.coalesce.as_ref().map(|handle| handle.snapshot().into()),
            budget: self.budget.snapshot().into(),
            hedge: self.hedge.as_ref().map(|handle| handle.snapshot().into()),
            failover: self.failover.as_ref().map(|handle| handle.snapshot().into()),
            breaker: self.breaker.as_ref().map(|handle| handle.snapshot().into()),
            throttle: self.throttle.as_ref().map(|handle| {
                let mut all = handle.all();
                all.sort_unstable_by_key(|(priority, _)| *priority);
                all.into_iter().map(ThrottleView::of).collect()
            }),
            shed: self.shed.as_ref().map(|handle| handle.snapshot().into()),
            adaptive: self.adaptive.as_ref().map(|handle| handle.snapshot().into()),
        }
    }

    /// Brings what changes at run time in line with `config`, and tells what does not.
    ///
    /// It looks at the settings that differ from those of the configuration that was applied last. What somebody has set by a handle
    /// meanwhile stays, unless its setting is among them. Each setting of [`StackConfig`] says whether it changes at run time.
    ///
    /// # Errors
    ///
    /// If `config` makes no sense: see [`StackConfig::check`]. Nothing has changed then.
    pub fn apply(&self, config: &StackConfig) -> Result<Applied, ConfigError> {
        config.check()?;
        let wanted = settings(config)?;
        let mut applied = Applied::default();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for (section, setting) in differences(&running.settings, &wanted) {
            let path = format!("{section}.{setting}");
            let was_there = self.is_there(&running.settings, &section);
            if !was_there && !is_wanted(&wanted, &section, &setting) {
                // Of a part that is left out, and stays so.
                copy(&wanted, &mut running.settings, &section, &setting);
            } else if self.set(&path, config) {
                copy(&wanted, &mut running.settings, &section, &setting);
                applied.changed.push(path);
            } else {
                applied.needs_restart.push(path);
            }
        }
        if running.password != config.connection.password {
            applied.needs_restart.push("connection.password".to_owned());
        }
        drop(running);
        if applied != Applied::default() {
            tracing::info!(changed = ?applied.changed, needs_restart = ?applied.needs_restart, "configuration applied");
        }
        Ok(applied)
    }

    /// Whether a part is there. Some are while they are switched off.
    fn is_there(&self, settings: &Table, section: &str) -> bool {
        match section {
            "hedge" => self.hedge.is_some(),
            "failover" => self.failover.is_some(),
            _ => is_enabled(settings, section),
        }
    }

    /// Sets one setting, if it changes at run time and what else is running allows it.
    fn set(&self, path: &str, config: &StackConfig) -> bool {
        fn done<H>(handle: Option<&H>, set: impl FnOnce(&H) -> Result<(), ConfigError>) -> bool {
            handle.is_some_and(|handle| set(handle).is_ok())
        }
        match path {
            "deadline.limit" | "deadline.schema" => done(self.deadline.as_ref(), |limits| {
                limits.set(parts::call_lengths(config));
                Ok(())
            }),
            "attempt_timeout.limit" | "attempt_timeout.prepare" | "attempt_timeout.schema" => {
                done(self.attempt_timeout.as_ref(), |limits| {
                    limits.set(parts::attempt_lengths(config));
                    Ok(())
                })
            }
            "rate.per_second" | "rate.burst" => done(self.rate.as_ref(), |rate| {
                rate.set_rate(config.rate.per_second, SECOND, config.rate.burst)
            }),
            "concurrency.limit" => {
                done(self.concurrency.as_ref(), |limit| limit.set_limit(config.concurrency.limit))
            }
            "hedge.enabled" => done(self.hedge.as_ref(), |hedge| {
                hedge.set_enabled(config.hedge.enabled);
                Ok(())
            }),
            "failover.enabled" => done(self.failover.as_ref(), |failover| {
                failover.set_enabled(config.failover.enabled);
                Ok(())
            }),
            "breaker.mode" => done(self.breaker.as_ref(), |circuit| {
                match &self.breakers {
                    Some(all) => all.set_mode(config.breaker.mode),
                    None => circuit.set_mode(config.breaker.mode),
                }
                Ok(())
            }),
            "throttle.mode" => done(self.throttle.as_ref(), |throttle| {
                throttle.set_mode(config.throttle.mode);
                Ok(())
            }),
            "throttle.multiplier" => {
                done(self.throttle.as_ref(), |throttle| throttle.set_multiplier(config.throttle.multiplier))
            }
            "shed.max_waiting" => {
                done(self.shed.as_ref(), |shed| shed.set_max_waiting(config.shed.max_waiting))
            }
            // The target must not be above the longest wait, on the way there neither: where one has to make room, it goes first.
            "shed.target" => done(self.shed.as_ref(), |shed| {
                shed.set_target(config.shed.target).or_else(|_| {
                    shed.set_max_wait(config.shed.max_wait)?;
                    shed.set_target(config.shed.target)
                })
            }),
            "shed.max_wait" => done(self.shed.as_ref(), |shed| {
                shed.set_max_wait(config.shed.max_wait).or_else(|_| {
                    shed.set_target(config.shed.target)?;
                    shed.set_max_wait(config.shed.max_wait)
                })
            }),
            "adaptive.min" | "adaptive.max" => done(self.adaptive.as_ref(), |limit| {
                limit.set_limits(config.adaptive.min, config.adaptive.max)
            }),
            _ => false,
        }
    }
}

impl fmt::Debug for Handles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handles").field(&self.snapshot()).finish()
    }
}

fn settings(config: &StackConfig) -> Result<Table, ConfigError> {
    Table::try_from(config).map_err(|error| {
        ConfigError::new(
            "connection",
            format!("cannot be written as TOML, by which changes are found: {error}"),
        )
    })
}

/// The settings that differ, in the order of their names.
fn differences(one: &Table, other: &Table) -> Vec<(String, String)> {
    let mut differ = Vec::new();
    for (section, settings) in one {
        let (Some(one), Some(other)) = (settings.as_table(), other.get(section).and_then(Value::as_table))
        else {
            continue; // the preset, which only says where defaults came from
        };
        let mut names: Vec<_> = one.keys().chain(other.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let changed = names.into_iter().filter(|name| one.get(*name) != other.get(*name));
        differ.extend(changed.map(|name| (section.clone(), name.clone())));
    }
    differ
}

/// Whether a setting would be of any effect after a restart.
fn is_wanted(settings: &Table, section: &str, setting: &str) -> bool {
    match (section, setting) {
        // A failover is there as soon as there is somewhere to go.
        ("failover", "remotes") => true,
        ("failover", _) => {
            let remotes = settings.get(section).and_then(|section| section.get("remotes"));
            remotes.and_then(Value::as_array).is_some_and(|remotes| !remotes.is_empty())
        }
        (_, "enabled") => true,
        _ => is_enabled(settings, section),
    }
}

/// Whether a part is enabled. The line before the adaptive limit comes with that, and some cannot be left out.
fn is_enabled(settings: &Table, section: &str) -> bool {
    let section = if section == "shed" { "adaptive" } else { section };
    let enabled = settings.get(section).and_then(|section| section.get("enabled"));
    enabled.and_then(Value::as_bool).unwrap_or(true)
}

fn copy(from: &Table, to: &mut Table, section: &str, setting: &str) {
    let value = from.get(section).and_then(|section| section.get(setting));
    if let Some(Value::Table(to)) = to.get_mut(section) {
        match value {
            Some(value) => {
                to.insert(setting.to_owned(), value.clone());
            }
            None => {
                to.remove(setting);
            }
        }
    }
}
