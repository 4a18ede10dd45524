use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::series::{Outcome, Series};
use crate::{class::Classify, clock::Instant, handle::Handle};

pin_project! {
    /// The future of a [`Metrics`](super::Metrics) service.
    pub struct MetricsFuture<F, C> {
        // Dropped first: a call whose caller has gone is in flight until nothing of it is left.
        #[pin]
        inner: F,
        in_flight: InFlight<C>,
    }
}

impl<F, C> MetricsFuture<F, C> {
    #[inline]
    pub(super) const fn new(inner: F, in_flight: InFlight<C>) -> Self {
        Self { inner, in_flight }
    }
}

impl<F, C, Res, Err> Future for MetricsFuture<F, C>
where
    F: Future<Output = Result<Res, Err>>,
    C: Classify<Res, Err>,
{
    type Output = Result<Res, Err>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = this.in_flight.watch(|| this.inner.poll(cx));
        if let Poll::Ready(outcome) = &polled {
            this.in_flight.end(outcome.as_ref());
        }
        polled
    }
}

impl<F, C> fmt::Debug for MetricsFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsFuture").field("since", &self.in_flight.since).finish_non_exhaustive()
    }
}

/// A call that has begun. It is counted when it ends, or when this is dropped.
pub(super) struct InFlight<C> {
    // None once it has been counted.
    series: Option<Handle<Series<C>>>,
    since: Instant,
    // Still set when it is dropped only if the inner service, or the classifier, has panicked.
    inside: bool,
}

impl<C> InFlight<C> {
    #[inline]
    pub(super) fn begin(series: Handle<Series<C>>) -> Self {
        series.begin();
        Self { series: Some(series), since: Instant::now(), inside: false }
    }

    /// Runs code of the inner service, which may panic.
    #[inline]
    pub(super) fn watch<T>(&mut self, inner: impl FnOnce() -> T) -> T {
        self.inside = true;
        let output = inner();
        self.inside = false;
        output
    }

    #[inline]
    fn end<Res, Err>(&mut self, result: Result<&Res, &Err>)
    where
        C: Classify<Res, Err>,
    {
        if let Some(series) = &self.series {
            // The classifier is not ours either.
            self.inside = true;
            let outcome = series.outcome(result);
            self.inside = false;
            series.end(outcome, self.since.elapsed());
            self.series = None;
        }
    }
}

impl<C> Drop for InFlight<C> {
    #[inline]
    fn drop(&mut self) {
        if let Some(series) = &self.series {
            let outcome = if self.inside { Outcome::Panicked } else { Outcome::Cancelled };
            series.end(outcome, self.since.elapsed());
        }
    }
}
