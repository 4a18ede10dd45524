use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower::Service;

use super::{RetryFuture, future::Kept, layer::Shared};
use crate::{
    class::Classify,
    handle::Handles,
    readiness::Spare,
    request::{HasDeadline, Repeat, Why},
};

/// A service that sends requests again. See the [module](super) for more.
pub struct Retry<S, C> {
    inner: S,
    kept: Handles<Kept<S, C>>,
}

impl<S: Clone, C> Retry<S, C> {
    pub(super) fn new(inner: S, shared: Arc<Shared<C>>) -> Self {
        let service = Spare::of(&inner);
        Self { inner, kept: Handles::new(Kept { service, shared }) }
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
            self.kept.value().shared.budget.deposit();
        }
        let Some(spare) = request.repeat(Why::Spare) else {
            return RetryFuture::once(self.inner.call(request));
        };
        RetryFuture::new(self.inner.call(request), spare, Arc::clone(self.kept.here()))
    }
}

impl<S: Clone, C> Clone for Retry<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), kept: self.kept.clone() }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for Retry<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("inner", &self.inner)
            .field("shared", &self.kept.value().shared)
            .finish()
    }
}
