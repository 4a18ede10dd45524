//! Metric handles that layers keep.
//!
//! Looking a metric up by name and labels costs more than a whole layer should, so a handle is resolved once
//! and kept. It is resolved at the first use and not when the layer is built, because a handle that is made
//! before the recorder is installed stays a no-op for ever.
//!
//! Each layer documents its metrics; all carry the label `layer` with the name that the layer was given.

use std::{fmt, sync::OnceLock};

use metrics::Label;

/// A counter that is looked up at its first use, and kept.
pub struct Counter {
    metric: &'static str,
    labels: Vec<Label>,
    handle: OnceLock<metrics::Counter>,
}

impl Counter {
    /// The counter `metric` of the layer named `layer`, with more labels of fixed value.
    pub fn new(metric: &'static str, layer: &'static str, labels: &[(&'static str, &'static str)]) -> Self {
        let labels = std::iter::once(&("layer", layer))
            .chain(labels)
            .map(|(key, value)| Label::from_static_parts(key, value))
            .collect();
        Self { metric, labels, handle: OnceLock::new() }
    }

    /// Adds `amount`.
    pub fn increment(&self, amount: u64) {
        self.handle.get_or_init(|| metrics::counter!(self.metric, self.labels.clone())).increment(amount);
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counter").field("metric", &self.metric).finish_non_exhaustive()
    }
}

/// A gauge that is looked up at its first use, and kept.
pub struct Gauge {
    metric: &'static str,
    layer: &'static str,
    handle: OnceLock<metrics::Gauge>,
}

impl Gauge {
    /// The gauge `metric` of the layer named `layer`.
    pub const fn new(metric: &'static str, layer: &'static str) -> Self {
        Self { metric, layer, handle: OnceLock::new() }
    }

    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.handle().set(value);
    }

    /// Adds `change`, which may be negative.
    pub fn add(&self, change: f64) {
        self.handle().increment(change);
    }

    fn handle(&self) -> &metrics::Gauge {
        self.handle.get_or_init(|| metrics::gauge!(self.metric, "layer" => self.layer))
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauge").field("metric", &self.metric).finish_non_exhaustive()
    }
}

/// Counts a wait that ran out, as `palisade_timeouts_total`.
///
/// This one is looked up when it happens: it is rare, costs less than the timer that fired, and a handle would
/// cost every call that does not time out a shared reference count.
pub(crate) fn count_timeout(layer: &'static str, scope: crate::TimeoutScope) {
    metrics::counter!("palisade_timeouts_total", "layer" => layer, "scope" => scope.as_str()).increment(1);
    tracing::debug!(layer, scope = scope.as_str(), "timed out");
}
