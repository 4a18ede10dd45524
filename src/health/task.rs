//! The task that watches the nodes.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Weak},
    time::Duration,
};

use palisade::Instant;
use scylla::cluster::ClusterState;
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::sleep,
};
use uuid::Uuid;

use super::{
    NodeState, Transition,
    metrics::Metrics,
    monitor::Shared,
    probe::{Leave, Probed, ask_leave, probe},
    record::Record,
    schedule::{Next, Schedule},
    transitions::Callbacks,
};
use crate::{
    nodes::{Known, Probing},
    service,
};

/// The driver does not tell when a connection is lost, so that somebody has to look.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(super) struct Task {
    shared: Arc<Shared>,
    schedule: Schedule<Uuid>,
    probes: JoinSet<Probed>,
    /// Whom each of them asks.
    asked: HashMap<Id, Uuid>,
    metrics: Metrics,
    callbacks: Callbacks,
    cluster: Weak<ClusterState>,
    _probing: Probing,
}

impl Task {
    pub(super) fn new(shared: Arc<Shared>, callbacks: Callbacks, cassandra: &Arc<service::Shared>) -> Self {
        let mut task = Self {
            schedule: Schedule::new(shared.settings.timing),
            shared,
            probes: JoinSet::new(),
            asked: HashMap::new(),
            metrics: Metrics::default(),
            callbacks,
            cluster: Weak::new(),
            _probing: cassandra.nodes.probing(),
        };
        task.look(cassandra, Instant::now());
        task
    }

    pub(super) async fn run(mut self) {
        let mut stop = self.shared.stop.subscribe();
        let Some(mut changes) = self.shared.cassandra.upgrade().map(|cassandra| cassandra.nodes.changes())
        else {
            return;
        };
        while !*stop.borrow_and_update() {
            let Some(cassandra) = self.shared.cassandra.upgrade() else { return };
            changes.mark_unchanged();
            let now = Instant::now();
            self.look(&cassandra, now);
            self.begin_probes(&cassandra, now);
            // While it waits, it keeps nobody's session.
            drop(cassandra);
            let wait = self.wait(Instant::now());
            tokio::select! {
                Some(probed) = self.probes.join_next_with_id() => self.end_probe(probed, Instant::now()),
                Ok(()) = changes.changed() => {}
                _ = stop.changed() => {}
                () = sleep(wait) => {}
            }
            while let Some(probed) = self.probes.try_join_next_with_id() {
                self.end_probe(probed, Instant::now());
            }
        }
    }

    /// How long there is nothing to do.
    fn wait(&self, now: Instant) -> Duration {
        let rules = &self.shared.settings.rules;
        let settled = self.shared.records().values().filter_map(|record| record.due(rules)).min();
        let next = [self.schedule.next(), settled].into_iter().flatten().min();
        next.map_or(LOOK_EVERY, |next| next.saturating_duration_since(now).min(LOOK_EVERY))
    }

    /// Looks at all nodes.
    fn look(&mut self, cassandra: &service::Shared, now: Instant) {
        let shared = Arc::clone(&self.shared);
        let settings = &shared.settings;
        let cluster = cassandra.session.get_cluster_state();
        if !std::ptr::eq(self.cluster.as_ptr(), Arc::as_ptr(&cluster)) {
            cassandra.nodes.sync(&cluster);
            self.cluster = Arc::downgrade(&cluster);
        }
        let table = cassandra.nodes.table();
        let (mut transitions, mut reconnected) = (Vec::new(), Vec::new());
        let mut records = shared.records();
        let enabled = || table.iter().filter(|known| known.is_enabled());
        for known in enabled() {
            let record = match records.entry(known.node.host_id()) {
                Entry::Occupied(entry) => {
                    let record = entry.into_mut();
                    // It has moved.
                    if !Arc::ptr_eq(&record.node, &known.node) {
                        *record = Record::new(Arc::clone(&known.node), now);
                    }
                    record
                }
                Entry::Vacant(entry) => entry.insert(Record::new(Arc::clone(&known.node), now)),
            };
            let was_connected = record.is_connected();
            transitions.extend(record.look(known, settings.timing.interval, now, &settings.rules));
            if record.is_connected() && !was_connected {
                reconnected.push(known.node.host_id());
            }
        }
        records.retain(|host_id, _| table.find(*host_id).is_some_and(Known::is_enabled));
        self.schedule.set_nodes(records.keys().copied(), now);
        for host_id in reconnected {
            self.schedule.bring_forward(&host_id, now);
        }
        for (host_id, record) in &*records {
            if let Some(wait) = record.node.circuit().retry_after() {
                self.schedule.bring_forward(host_id, now + wait);
            }
        }
        self.publish(&records);
        let states: Vec<_> =
            records.values().map(|record| (record.datacenter.clone(), record.state())).collect();
        drop(records);
        shared.seen(now);
        // A recorder is somebody else's code, and so is a subscriber: no lock is held.
        self.metrics.count(states);
        self.tell(transitions);
    }

    /// Lets everybody see how the nodes are. Whoever sees that a node is down sees what can be served without it.
    fn publish(&self, records: &HashMap<Uuid, Record>) {
        if let Some(cluster) = self.cluster.upgrade() {
            let rules = &self.shared.settings.rules;
            let look = |host_id| Some(records.get(&host_id)?.outlook(rules));
            self.shared.outlook.set(&cluster, look);
        }
        self.shared.version.send_modify(|version| *version += 1);
    }

    fn begin_probes(&mut self, cassandra: &service::Shared, now: Instant) {
        while let Some(host_id) = self.schedule.begin(now) {
            let table = cassandra.nodes.table();
            let Some(known) = table.find(host_id) else {
                self.schedule.end(&host_id, Next::Usual, now, fastrand::f64());
                continue;
            };
            let permit = match ask_leave(&known.node) {
                Leave::Given(permit) => Some(permit),
                Leave::Free => None,
                Leave::NotYet(wait) => {
                    self.schedule.put_off(&host_id, now + wait);
                    continue;
                }
            };
            // Of all that the session's users share it holds the session alone, so that it is seen when they are gone.
            let probe = probe(
                Arc::clone(&cassandra.session),
                Arc::clone(&known.driver),
                Arc::clone(&known.node),
                permit,
                self.shared.settings.timeout,
            );
            let id = self.probes.spawn(probe).id();
            self.asked.insert(id, host_id);
        }
    }

    fn end_probe(&mut self, ended: Result<(Id, Probed), JoinError>, now: Instant) {
        let (id, probed) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, "a health probe has not come to its end; the node is probed again");
                (error.id(), Probed::Overslept)
            }
        };
        let Some(host_id) = self.asked.remove(&id) else { return };
        let Probed::Told(outcome, latency) = probed else {
            return self.schedule.end(&host_id, Next::Soon, now, fastrand::f64());
        };
        let shared = Arc::clone(&self.shared);
        let mut records = shared.records();
        let typical = typical(&records, host_id);
        let Some(record) = records.get_mut(&host_id) else {
            return self.schedule.end(&host_id, Next::Usual, now, fastrand::f64());
        };
        let (transition, next) = record.probed(&outcome, latency, typical, now, &shared.settings.rules);
        let (node, datacenter) = (Arc::clone(&record.node), record.datacenter.clone());
        let is_hung = record.is_hung(&shared.settings.rules);
        self.publish(&records);
        drop(records);
        self.schedule.end(&host_id, next, now, fastrand::f64());
        match &outcome {
            Ok(()) => self.metrics.answered(&datacenter, latency),
            Err(error) => {
                tracing::debug!(node = %node.address(), %error, "a health probe failed");
                self.metrics.failed(&datacenter, error.kind().as_str());
            }
        }
        if is_hung {
            // Its connections look well, so that requests would be sent there. What is open already stays as it is.
            node.circuit().trip();
        }
        self.tell(transition);
    }

    fn tell(&mut self, transitions: impl IntoIterator<Item = Transition>) {
        for transition in transitions {
            let Transition { node, host_id, datacenter, from, to, cause, lasted } = &transition;
            let datacenter = datacenter.as_deref();
            macro_rules! event {
                ($level:ident, $text:literal) => {
                    tracing::$level!(%node, %host_id, datacenter, %from, %to, cause = cause.as_str(), ?lasted, $text)
                };
            }
            match to {
                NodeState::Up => event!(info, "the node is up"),
                NodeState::Degraded => event!(warn, "the node is degraded"),
                NodeState::Down => event!(warn, "the node is down"),
                NodeState::Starting => event!(info, "the node is new"),
            }
            self.metrics.changed(&transition.datacenter, transition.to);
            self.shared.tell(&transition);
            self.callbacks.tell(&transition);
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.shared.ended();
    }
}

/// How long the others of its datacenter take to answer: the median of them, the lower one of two.
fn typical(records: &HashMap<Uuid, Record>, of: Uuid) -> Option<Duration> {
    let datacenter = &records.get(&of)?.datacenter;
    let others =
        records.iter().filter(|(host_id, record)| **host_id != of && record.datacenter == *datacenter);
    median(others.filter_map(|(_, record)| record.answers_in()).collect())
}

fn median(mut latencies: Vec<Duration>) -> Option<Duration> {
    let middle = latencies.len().checked_sub(1)? / 2;
    Some(*latencies.select_nth_unstable(middle).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_two_is_the_lower_one() {
        let median = |millis: &[u64]| {
            let latencies = millis.iter().copied().map(Duration::from_millis).collect();
            median(latencies).map(|median| median.as_millis())
        };
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7]), Some(7));
        assert_eq!(median(&[900, 2]), Some(2));
        assert_eq!(median(&[900, 2, 3]), Some(3));
        assert_eq!(median(&[1, 4, 3, 2]), Some(2));
    }
}
