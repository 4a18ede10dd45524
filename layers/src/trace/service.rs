use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower::Service;

use super::{MakeSpan, TraceFuture, future::Recording};
use crate::class::Classify;

/// A service whose calls have spans. See the [module](super) for more.
pub struct Trace<S, C, M> {
    inner: S,
    classifier: Arc<C>,
    make: M,
}

impl<S, C, M> Trace<S, C, M> {
    pub(super) const fn new(inner: S, classifier: Arc<C>, make: M) -> Self {
        Self { inner, classifier, make }
    }
}

impl<S, C, M, Req> Service<Req> for Trace<S, C, M>
where
    S: Service<Req>,
    S::Error: fmt::Display,
    C: Classify<S::Response, S::Error>,
    M: MakeSpan<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = TraceFuture<S::Future, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let span = self.make.make_span(&request);
        if span.is_disabled() {
            return TraceFuture::untraced(self.inner.call(request));
        }
        let mut recording = Recording::begin(span, Arc::clone(&self.classifier));
        let inner = recording.inside(|| self.inner.call(request));
        TraceFuture::traced(inner, recording)
    }
}

impl<S: Clone, C, M: Clone> Clone for Trace<S, C, M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), classifier: Arc::clone(&self.classifier), make: self.make.clone() }
    }
}

impl<S: fmt::Debug, C, M: fmt::Debug> fmt::Debug for Trace<S, C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("inner", &self.inner).field("make", &self.make).finish_non_exhaustive()
    }
}
