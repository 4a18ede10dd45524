//! The handles of one combination of labels, each looked up at its first use.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use metrics::Label;

use crate::class::{Class, Classify, Fault};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    Caller,
    Server,
    Overload,
    Unreachable,
    Cancelled,
    Panicked,
}

impl Outcome {
    const COUNT: usize = Self::Panicked as usize + 1;

    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Caller => "caller",
            Self::Server => "server",
            Self::Overload => "overload",
            Self::Unreachable => "unreachable",
            Self::Cancelled => "cancelled",
            Self::Panicked => "panicked",
        }
    }
}

impl From<Class> for Outcome {
    #[inline]
    fn from(class: Class) -> Self {
        match class.fault() {
            Fault::None => Self::Success,
            Fault::Caller => Self::Caller,
            Fault::Server => Self::Server,
            Fault::Overload => Self::Overload,
            Fault::Unreachable => Self::Unreachable,
        }
    }
}

pub(super) struct Series<C> {
    classifier: Arc<C>,
    labels: Vec<Label>,
    in_flight: OnceLock<metrics::Gauge>,
    ended: [OnceLock<Ended>; Outcome::COUNT],
}

struct Ended {
    count: metrics::Counter,
    duration: metrics::Histogram,
}

impl<C> Series<C> {
    pub(super) fn new(classifier: Arc<C>, labels: Vec<Label>) -> Self {
        Self { classifier, labels, in_flight: OnceLock::new(), ended: Default::default() }
    }

    #[inline]
    pub(super) fn begin(&self) {
        self.in_flight().increment(1.0);
    }

    #[inline]
    pub(super) fn end(&self, outcome: Outcome, duration: Duration) {
        let ended = self.ended[outcome as usize].get_or_init(|| self.look_up(outcome));
        ended.count.increment(1);
        ended.duration.record(duration);
        self.in_flight().decrement(1.0);
    }

    #[inline]
    pub(super) fn outcome<Res, Err>(&self, result: Result<&Res, &Err>) -> Outcome
    where
        C: Classify<Res, Err>,
    {
        self.classifier.classify(result).into()
    }

    #[inline]
    fn in_flight(&self) -> &metrics::Gauge {
        self.in_flight.get_or_init(|| metrics::gauge!("palisade_requests_in_flight", self.labels.clone()))
    }

    #[cold]
    fn look_up(&self, outcome: Outcome) -> Ended {
        let mut labels = self.labels.clone();
        labels.push(Label::from_static_parts("outcome", outcome.as_str()));
        Ended {
            count: metrics::counter!("palisade_requests_total", labels.clone()),
            duration: metrics::histogram!("palisade_request_duration_seconds", labels),
        }
    }
}
