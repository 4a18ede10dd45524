use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower::Service;

use super::{LabelBy, MetricsFuture, future::InFlight, layer::Shared};
use crate::class::Classify;

/// A service whose calls are counted and timed. See the [module](super) for more.
pub struct Metrics<S, C, L> {
    inner: S,
    shared: Arc<Shared<C, L>>,
}

impl<S, C, L> Metrics<S, C, L> {
    pub(super) const fn new(inner: S, shared: Arc<Shared<C, L>>) -> Self {
        Self { inner, shared }
    }
}

impl<S, C, L, Req> Service<Req> for Metrics<S, C, L>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error>,
    L: LabelBy<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = MetricsFuture<S::Future, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let book = &self.shared.book;
        let series = match self.shared.label_by.value(&request) {
            None => book.rest(),
            Some(value) => book.series(&value),
        };
        let mut in_flight = InFlight::begin(Arc::clone(series.here()));
        let inner = in_flight.watch(|| self.inner.call(request));
        MetricsFuture::new(inner, in_flight)
    }
}

impl<S: Clone, C, L> Clone for Metrics<S, C, L> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S: fmt::Debug, C, L> fmt::Debug for Metrics<S, C, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("inner", &self.inner).field("shared", &self.shared).finish()
    }
}
