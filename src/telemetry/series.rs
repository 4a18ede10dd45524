//! The metrics of one operation.

use std::{sync::OnceLock, time::Duration};

use metrics::{Gauge, Histogram, Label};

use super::{ACTIVE, DURATION, ROWS, durations::Durations};
use crate::cql::Subject;

/// The metrics of one operation, each looked up at its first use, and kept.
#[derive(Debug)]
pub(super) struct Series {
    labels: Vec<Label>,
    active: OnceLock<Gauge>,
    durations: Durations,
    rows: OnceLock<Histogram>,
}

impl Series {
    pub(super) fn new(subject: &Subject, more: &[Label]) -> Self {
        let mut labels = vec![
            Label::from_static_parts("db.system.name", "cassandra"),
            Label::from_static_parts("db.operation.name", subject.name),
        ];
        let names = [("db.namespace", &subject.keyspace), ("db.collection.name", &subject.table)];
        for (key, name) in names {
            labels.extend(name.as_ref().map(|name| Label::new(key, name.clone())));
        }
        labels.extend_from_slice(more);
        let durations = Durations::new(DURATION, labels.clone());
        Self { labels, active: OnceLock::new(), durations, rows: OnceLock::new() }
    }

    #[inline]
    pub(super) fn begin(&self) {
        self.active().increment(1.0);
    }

    #[inline]
    pub(super) fn succeeded(&self, duration: Duration) {
        self.durations.succeeded(duration);
        self.active().decrement(1.0);
    }

    pub(super) fn failed(&self, error_type: &'static str, duration: Duration) {
        self.durations.failed(error_type, duration);
        self.active().decrement(1.0);
    }

    #[inline]
    pub(super) fn returned(&self, rows: usize) {
        let look_up = || metrics::histogram!(ROWS, self.labels.clone());
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 rows")]
        self.rows.get_or_init(look_up).record(rows as f64);
    }

    #[inline]
    fn active(&self) -> &Gauge {
        self.active.get_or_init(|| metrics::gauge!(ACTIVE, self.labels.clone()))
    }
}
