use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use palisade::{Instant, clock::nanos};
use scylla::statement::Consistency;
use tokio::{
    runtime::Handle,
    sync::{broadcast, watch},
};
use uuid::Uuid;

use super::{
    HealthLayer, HealthMonitorBuilder, Liveness, NodeState, Readiness, Report, Transition, Transitions,
    outlook::{Judgement, Outlook, Question, level_name},
    record::Record,
    schedule::Timing,
    state::Rules,
    task,
    transitions::{Callback, Callbacks, KEPT},
    warm_up::{self, WarmUp},
};
use crate::{error::Error, service};

/// What the monitor goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) timing: Timing,
    pub(super) rules: Rules,
    pub(super) timeout: Duration,
}

/// Watches the nodes of a session's cluster. See the [module](super) for more.
///
/// Clones are handles of the same monitor. Dropping them does not end it: see [`stop`](Self::stop).
#[derive(Clone)]
pub struct HealthMonitor(Arc<Shared>);

/// What the monitor's task and its handles share. The session belongs to neither.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) cassandra: Weak<service::Shared>,
    pub(super) datacenter: Option<Arc<str>>,
    pub(super) outlook: Outlook,
    records: Mutex<HashMap<Uuid, Record>>,
    // None once the monitor has ended.
    transitions: Mutex<Option<broadcast::Sender<Transition>>>,
    /// Counts what the task has seen.
    pub(super) version: watch::Sender<u64>,
    pub(super) stop: watch::Sender<bool>,
    started: Instant,
    // Nanoseconds since then at which the task last looked at the nodes.
    seen: AtomicU64,
    is_running: AtomicBool,
    dropped: Arc<AtomicU64>,
}

/// The task looks at the nodes several times a second. When it has not for so long, something holds up the runtime.
const HELD_UP: Duration = Duration::from_secs(5);

impl HealthMonitor {
    /// Settings for a monitor.
    pub fn builder() -> HealthMonitorBuilder {
        HealthMonitorBuilder::default()
    }

    pub(super) fn start(
        settings: Settings,
        datacenter: Option<Arc<str>>,
        callbacks: &[Callback],
        cassandra: &Arc<service::Shared>,
        runtime: &Handle,
    ) -> Self {
        let shared = Arc::new(Shared::new(settings, datacenter, Arc::downgrade(cassandra)));
        let callbacks = Callbacks::start(callbacks, &shared.dropped);
        // So that the nodes are known as soon as this returns.
        let task = task::Task::new(Arc::clone(&shared), callbacks, cassandra);
        runtime.spawn(task.run());
        Self(shared)
    }

    /// Ends the monitor: no node is probed any more, and everything that was waiting for a transition is told so. Requests then serve as
    /// probes again, and a [`HealthLayer`] lets everything pass.
    pub fn stop(&self) {
        self.0.stop.send_replace(true);
    }

    /// The transitions of all nodes from now on.
    pub fn transitions(&self) -> Transitions {
        let transitions = self.0.transitions.lock().unwrap_or_else(PoisonError::into_inner);
        Transitions::new(match &*transitions {
            Some(sender) => sender.subscribe(),
            // Of a channel that has ended.
            None => broadcast::Sender::new(1).subscribe(),
        })
    }

    /// How many transitions callbacks were not told of, because they were slow.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }

    /// The state of a node; `None` if there is no such node, or a filter of the driver's excludes it.
    pub fn state(&self, host_id: Uuid) -> Option<NodeState> {
        self.0.records().get(&host_id).map(Record::state)
    }

    /// The health of all nodes, as of now. After the monitor has ended, as it was then.
    pub fn report(&self) -> Report {
        let now = Instant::now();
        let nodes = self.0.records().values().map(|record| record.report(now)).collect();
        Report::new(nodes, self.liveness())
    }

    /// Whether a keyspace can be served at a consistency level, by nodes that have answered: for `/ready`.
    ///
    /// It is ready if all of it can be served from the session's datacenter, or from any where none is named. To be content with less, look at
    /// [`Readiness::share`].
    pub fn readiness(&self, keyspace: &str, consistency: Consistency) -> Readiness {
        self.readiness_of(keyspace, consistency, self.0.datacenter.clone())
    }

    /// The same for another datacenter than the session's: whether a failover would help.
    pub fn readiness_in(
        &self,
        datacenter: impl Into<Arc<str>>,
        keyspace: &str,
        consistency: Consistency,
    ) -> Readiness {
        self.readiness_of(keyspace, consistency, Some(datacenter.into()))
    }

    fn readiness_of(
        &self,
        keyspace: &str,
        consistency: Consistency,
        datacenter: Option<Arc<str>>,
    ) -> Readiness {
        let liveness = self.liveness();
        let question = Question { keyspace, consistency, datacenter: datacenter.as_deref() };
        let judgement = self.0.outlook.view().prove(question);
        let Judgement { share, datacenters, problem } = judgement.unwrap_or_else(|| Judgement {
            share: 0.0,
            datacenters: Vec::new(),
            problem: Some(format!(
                "there is no keyspace {keyspace}: create it, or check its name, in which upper and lower case differ"
            )),
        });
        let reason = liveness.reason.or(problem);
        Readiness {
            ready: reason.is_none(),
            keyspace: keyspace.to_owned(),
            consistency: level_name(consistency),
            datacenter,
            share,
            datacenters,
            reason,
        }
    }

    /// How much of a keyspace can be served at a consistency level, from 0 to 1, as a [`HealthLayer`] sees it: for decisions that are
    /// made for each request. `None` if there is no such keyspace, or when the monitor has ended.
    ///
    /// A node counts as up until it is `Down`, and again as soon as it answers. It costs one read of an atomic while no node is, and the
    /// share is then taken to be 1; else it is looked up.
    pub fn share(&self, datacenter: Option<&str>, keyspace: &str, consistency: Consistency) -> Option<f64> {
        if self.0.outlook.is_clear() {
            return self.0.is_running().then_some(1.0);
        }
        let question = Question { keyspace, consistency, datacenter };
        self.0.outlook.judge(question).map(|judgement| judgement.share)
    }

    /// Whether the monitor itself is at work: for `/health`. Nodes that are down do not change it, since a restart of this process
    /// would not help them.
    pub fn liveness(&self) -> Liveness {
        let last_seen = self.0.last_seen();
        let reason = if !self.0.is_running() {
            let why = if self.0.cassandra.strong_count() == 0 {
                "its session was dropped"
            } else {
                "it was stopped"
            };
            Some(format!("the health monitor has ended: {why}; start another one"))
        } else if last_seen > HELD_UP {
            Some(format!(
                "the health monitor has not run for {last_seen:.1?}: something blocks the threads of the runtime"
            ))
        } else {
            None
        };
        Liveness { alive: reason.is_none(), last_seen, reason }
    }

    /// Waits until all nodes of the session's datacenter are connected and have answered a probe: before the first traffic.
    ///
    /// # Errors
    ///
    /// When that takes longer than `limit`, or when the monitor has ended. The error names the nodes that are missing; what is there can
    /// be used.
    pub async fn warm_up(&self, limit: Duration) -> Result<(), Error> {
        self.warm_up_by(&WarmUp::all(), limit).await
    }

    /// The same, with a choice of how many nodes are waited for, and of statements to prepare.
    ///
    /// # Errors
    ///
    /// As [`warm_up`](Self::warm_up), and when a statement cannot be prepared.
    pub async fn warm_up_by(&self, how: &WarmUp, limit: Duration) -> Result<(), Error> {
        warm_up::warm_up(&self.0, how, limit).await
    }

    /// A layer that refuses at once what cannot be served.
    pub fn layer(&self) -> HealthLayer {
        HealthLayer::new(self.clone())
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// Of no session, and without a task.
    #[cfg(test)]
    pub(super) fn detached() -> Self {
        let timing = Timing {
            interval: Duration::from_secs(5),
            confirm_after: Duration::from_secs(1),
            jitter: 0.0,
            concurrency: 1,
        };
        let settings = Settings { timing, rules: Rules::default(), timeout: Duration::from_secs(1) };
        Self(Arc::new(Shared::new(settings, None, Weak::new())))
    }
}

impl Shared {
    fn new(settings: Settings, datacenter: Option<Arc<str>>, cassandra: Weak<service::Shared>) -> Self {
        Self {
            settings,
            cassandra,
            datacenter,
            outlook: Outlook::new(),
            records: Mutex::default(),
            transitions: Mutex::new(Some(broadcast::Sender::new(KEPT))),
            version: watch::Sender::new(0),
            stop: watch::Sender::new(false),
            started: Instant::now(),
            seen: AtomicU64::new(0),
            is_running: AtomicBool::new(true),
            dropped: Arc::default(),
        }
    }

    pub(super) fn records(&self) -> MutexGuard<'_, HashMap<Uuid, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_running(&self) -> bool {
        self.is_running.load(Relaxed)
    }

    /// In nanoseconds since it was started.
    pub(super) fn now(&self) -> u64 {
        nanos(self.started.elapsed())
    }

    /// The task looks at the nodes, now.
    pub(super) fn seen(&self, now: Instant) {
        let since = now.saturating_duration_since(self.started);
        self.seen.store(nanos(since), Relaxed);
    }

    fn last_seen(&self) -> Duration {
        (self.started + Duration::from_nanos(self.seen.load(Relaxed))).elapsed()
    }

    pub(super) fn tell(&self, transition: &Transition) {
        let transitions = self.transitions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*transitions {
            // Nobody has to listen.
            let _ = sender.send(transition.clone());
        }
    }

    /// The task has ended, in one way or another.
    pub(super) fn ended(&self) {
        self.is_running.store(false, Relaxed);
        self.outlook.clear();
        drop(self.transitions.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.version.send_modify(|version| *version += 1);
    }
}

impl fmt::Debug for HealthMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthMonitor")
            .field("settings", &self.0.settings)
            .field("datacenter", &self.0.datacenter)
            .field("liveness", &self.liveness())
            .finish_non_exhaustive()
    }
}
