use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tracing::Span;

use super::span::{record_end, record_outcome};
use crate::{class::Classify, clock::Instant};

pin_project! {
    /// The future of a [`Trace`](super::Trace) service.
    pub struct TraceFuture<F, C> {
        // None once it has been dropped, inside the span.
        #[pin]
        inner: Option<F>,
        // None for a span that nobody wants.
        recording: Option<Recording<C>>,
    }

    impl<F, C> PinnedDrop for TraceFuture<F, C> {
        #[inline]
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(recording) = this.recording {
                recording.span.in_scope(|| this.inner.set(None));
            }
        }
    }
}

impl<F, C> TraceFuture<F, C> {
    #[inline]
    pub(super) const fn untraced(inner: F) -> Self {
        Self { inner: Some(inner), recording: None }
    }

    #[inline]
    pub(super) const fn traced(inner: F, recording: Recording<C>) -> Self {
        Self { inner: Some(inner), recording: Some(recording) }
    }
}

impl<F, C, Res, Err> Future for TraceFuture<F, C>
where
    F: Future<Output = Result<Res, Err>>,
    Err: fmt::Display,
    C: Classify<Res, Err>,
{
    type Output = Result<Res, Err>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        let Some(recording) = this.recording else {
            return inner.poll(cx);
        };
        let polled = recording.inside(|| inner.poll(cx));
        if let Poll::Ready(outcome) = &polled {
            recording.end(outcome.as_ref());
            // The span ends with the call, and not when its caller drops this future.
            recording.span.in_scope(|| this.inner.set(None));
            *this.recording = None;
        }
        polled
    }
}

impl<F, C> fmt::Debug for TraceFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = self.recording.as_ref().map(|recording| &recording.span);
        f.debug_struct("TraceFuture").field("span", &span).finish_non_exhaustive()
    }
}

/// A span, and what is to be written into it when the call ends.
pub(super) struct Recording<C> {
    span: Span,
    since: Instant,
    classifier: Arc<C>,
    // Still set when it is dropped only if the inner service has panicked.
    inside: bool,
    ended: bool,
}

impl<C> Recording<C> {
    pub(super) fn begin(span: Span, classifier: Arc<C>) -> Self {
        Self { span, since: Instant::now(), classifier, inside: false, ended: false }
    }

    /// Runs code of the inner service, which may panic, in the span.
    pub(super) fn inside<T>(&mut self, inner: impl FnOnce() -> T) -> T {
        self.inside = true;
        let output = self.span.in_scope(inner);
        self.inside = false;
        output
    }

    fn end<Res, Err>(&mut self, result: Result<&Res, &Err>)
    where
        Err: fmt::Display,
        C: Classify<Res, Err>,
    {
        if !self.ended {
            let elapsed = self.since.elapsed();
            // It may panic, and this is dropped then.
            self.inside = true;
            let class = self.classifier.classify(result);
            self.inside = false;
            self.ended = true;
            let error = result.err().map(|error| error as &dyn fmt::Display);
            record_end(&self.span, class, error, elapsed);
        }
    }
}

impl<C> Drop for Recording<C> {
    fn drop(&mut self) {
        if !self.ended {
            let outcome = if self.inside { "panicked" } else { "cancelled" };
            record_outcome(&self.span, outcome, self.since.elapsed());
        }
    }
}
