//! What a recorder has seen, for tests to ask.

use metrics::{Key, Label};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

pub(crate) struct Recorded(Vec<(Key, DebugValue)>);

impl Recorded {
    /// Takes everything out of the recorder.
    pub(crate) fn at(recorder: &DebuggingRecorder) -> Self {
        let seen = recorder.snapshotter().snapshot().into_vec();
        Self(seen.into_iter().map(|(key, _, _, value)| (key.key().clone(), value)).collect())
    }

    /// The sum over all series that have these labels.
    pub(crate) fn count(&self, metric: &str, labels: &[(&str, &str)]) -> u64 {
        self.of(metric, labels)
            .map(|value| if let DebugValue::Counter(count) = value { *count } else { 0 })
            .sum()
    }

    /// The value of the one gauge that has these labels.
    pub(crate) fn gauge(&self, metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.of(metric, labels).find_map(|value| match value {
            DebugValue::Gauge(gauge) => Some(gauge.0),
            _ => None,
        })
    }

    /// All values of the histograms that have these labels.
    pub(crate) fn values(&self, metric: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        self.of(metric, labels)
            .flat_map(|value| match value {
                DebugValue::Histogram(values) => values.iter().map(|value| value.0).collect(),
                _ => Vec::new(),
            })
            .collect()
    }

    /// How many series a metric has.
    pub(crate) fn series(&self, metric: &str) -> usize {
        self.of(metric, &[]).count()
    }

    fn of<'a>(
        &'a self,
        metric: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a DebugValue> {
        let has = |label: &Label, (key, value): (&str, &str)| label.key() == key && label.value() == value;
        self.0
            .iter()
            .filter(move |(key, _)| {
                key.name() == metric
                    && labels.iter().all(|wanted| key.labels().any(|label| has(label, *wanted)))
            })
            .map(|(_, value)| value)
    }
}
