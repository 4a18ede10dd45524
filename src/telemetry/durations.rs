//! How long something takes, by how it ends.

use std::{sync::OnceLock, time::Duration};

use metrics::{Histogram, Label};

use super::by_name::ByName;

/// A histogram of durations for each way to end. Each is looked up when it is first needed, and kept.
#[derive(Debug)]
pub(super) struct Durations {
    metric: &'static str,
    labels: Vec<Label>,
    succeeded: OnceLock<Histogram>,
    failed: ByName<Histogram>,
}

impl Durations {
    pub(super) const fn new(metric: &'static str, labels: Vec<Label>) -> Self {
        Self { metric, labels, succeeded: OnceLock::new(), failed: ByName::new() }
    }

    #[inline]
    pub(super) fn succeeded(&self, duration: Duration) {
        self.succeeded.get_or_init(|| metrics::histogram!(self.metric, self.labels.clone())).record(duration);
    }

    /// It ended otherwise, which the label `error.type` tells.
    pub(super) fn failed(&self, error_type: &'static str, duration: Duration) {
        let look_up = || {
            let mut labels = self.labels.clone();
            labels.push(Label::from_static_parts("error.type", error_type));
            metrics::histogram!(self.metric, labels)
        };
        match self.failed.get_or_make(error_type, look_up) {
            Some(histogram) => histogram.record(duration),
            None => look_up().record(duration),
        }
    }
}
