use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower::Service;

use super::{RetryFuture, layer::Shared};
use crate::{
    class::Classify,
    request::{HasDeadline, Repeat, Why},
};

/// A service that sends requests again. See the [module](super) for more.
pub struct Retry<S, C> {
    inner: S,
    shared: Arc<Shared<C>>,
}

impl<S, C> Retry<S, C> {
    pub(super) const fn new(inner: S, shared: Arc<Shared<C>>) -> Self {
        Self { inner, shared }
    }
}

impl<S, C, Req> Service<Req> for Retry<S, C>
where
    Req: Repeat + HasDeadline,
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RetryFuture<S, C, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        if request.counts() {
            self.shared.budget.deposit();
        }
        let Some(spare) = request.repeat(Why::Spare) else {
            return RetryFuture::once(self.inner.call(request));
        };
        let future = self.inner.call(request);
        // The clone has its own readiness to win before a repeat; the service that was ready has been called.
        RetryFuture::new(future, self.inner.clone(), spare, Arc::clone(&self.shared))
    }
}

impl<S: Clone, C> Clone for Retry<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for Retry<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("inner", &self.inner).field("shared", &self.shared).finish()
    }
}
