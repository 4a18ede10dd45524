//! What the monitor counts.

use std::{collections::HashMap, sync::Arc, time::Duration};

use metrics::{Counter, Gauge, Histogram, Label, counter, gauge, histogram};

use super::state::NodeState;

type Datacenter = Option<Arc<str>>;

/// The monitor's metrics. They belong to its task, which looks each up once, when it first has something to tell.
#[derive(Default)]
pub(super) struct Metrics {
    nodes: HashMap<Datacenter, [Gauge; 4]>,
    transitions: HashMap<(Datacenter, NodeState), Counter>,
    probes: HashMap<Datacenter, Histogram>,
    failures: HashMap<(Datacenter, &'static str), Counter>,
}

impl Metrics {
    /// Tells how many nodes there are of each state in each datacenter.
    pub(super) fn count(&mut self, nodes: impl IntoIterator<Item = (Datacenter, NodeState)>) {
        let mut counts: HashMap<Datacenter, [u32; 4]> = HashMap::new();
        for (datacenter, state) in nodes {
            counts.entry(datacenter).or_default()[state as usize] += 1;
        }
        for (datacenter, counts) in &counts {
            let gauges = self.nodes.entry(datacenter.clone()).or_insert_with(|| {
                NodeState::ALL.map(|state| {
                    let labels = vec![label(datacenter), Label::from_static_parts("state", state.as_str())];
                    gauge!("cassandra_health_nodes", labels)
                })
            });
            for (gauge, count) in gauges.iter().zip(counts) {
                gauge.set(f64::from(*count));
            }
        }
        // A datacenter that is gone has no nodes any more.
        self.nodes.retain(|datacenter, gauges| {
            let is_there = counts.contains_key(datacenter);
            if !is_there {
                for gauge in gauges {
                    gauge.set(0.0);
                }
            }
            is_there
        });
    }

    pub(super) fn changed(&mut self, datacenter: &Datacenter, to: NodeState) {
        let counter = self.transitions.entry((datacenter.clone(), to)).or_insert_with(|| {
            let labels = vec![label(datacenter), Label::from_static_parts("to", to.as_str())];
            counter!("cassandra_health_transitions_total", labels)
        });
        counter.increment(1);
    }

    pub(super) fn answered(&mut self, datacenter: &Datacenter, latency: Duration) {
        self.probes
            .entry(datacenter.clone())
            .or_insert_with(|| histogram!("cassandra_health_probe_seconds", vec![label(datacenter)]))
            .record(latency);
    }

    pub(super) fn failed(&mut self, datacenter: &Datacenter, error: &'static str) {
        let counter = self.failures.entry((datacenter.clone(), error)).or_insert_with(|| {
            let labels = vec![label(datacenter), Label::from_static_parts("error", error)];
            counter!("cassandra_health_probe_failures_total", labels)
        });
        counter.increment(1);
    }
}

impl Drop for Metrics {
    /// Nobody counts any more.
    fn drop(&mut self) {
        self.nodes.values().flatten().for_each(|gauge| gauge.set(0.0));
    }
}

fn label(datacenter: &Datacenter) -> Label {
    Label::new("datacenter", datacenter.clone().map_or_else(String::new, |name| name.to_string()))
}

#[cfg(test)]
mod tests {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    fn told(tell: impl FnOnce(&mut Metrics)) -> Vec<String> {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || {
            let mut metrics = Metrics::default();
            tell(&mut metrics);
            let mut told: Vec<_> = snapshotter
                .snapshot()
                .into_vec()
                .into_iter()
                .map(|(key, _, _, value)| {
                    let labels: Vec<_> = key.key().labels().map(|label| label.value().to_owned()).collect();
                    let value = match value {
                        DebugValue::Counter(count) => count.to_string(),
                        DebugValue::Gauge(value) => value.to_string(),
                        DebugValue::Histogram(values) => format!("{values:?}"),
                    };
                    format!("{} {} {value}", key.key().name(), labels.join(" "))
                })
                .filter(|line| !line.ends_with(" 0"))
                .collect();
            told.sort_unstable();
            told
        })
    }

    #[test]
    fn nodes_are_counted_by_state_and_a_datacenter_that_is_gone_has_none() {
        let (a, b): (Datacenter, Datacenter) = (Some("a".into()), None);
        let nodes = [
            (a.clone(), NodeState::Up),
            (a.clone(), NodeState::Up),
            (a, NodeState::Down),
            (b, NodeState::Degraded),
        ];
        let told = |kept: usize| {
            told(|metrics| {
                metrics.count(nodes.clone());
                metrics.count(nodes[..kept].iter().cloned());
            })
        };
        let of_a = ["cassandra_health_nodes a down 1", "cassandra_health_nodes a up 2"];
        assert_eq!(told(4), [&["cassandra_health_nodes  degraded 1"], &of_a[..]].concat());
        assert_eq!(told(3), of_a);
    }

    #[test]
    fn transitions_and_probes_are_counted_by_datacenter() {
        let a: Datacenter = Some("a".into());
        let told = told(|metrics| {
            metrics.changed(&a, NodeState::Down);
            metrics.changed(&a, NodeState::Down);
            metrics.answered(&a, Duration::from_millis(250));
            metrics.failed(&a, "attempt_timeout");
        });
        assert_eq!(
            told,
            [
                "cassandra_health_probe_failures_total a attempt_timeout 1",
                "cassandra_health_probe_seconds a [0.25]",
                "cassandra_health_transitions_total a down 2",
            ]
        );
    }
}
