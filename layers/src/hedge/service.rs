use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower::Service;

use super::{HedgeFuture, future::Kept, state::Shared};
use crate::{
    class::Classify,
    handle::Handles,
    readiness::Spare,
    request::{Repeat, Why},
};

/// A service that sends late requests a second time. See the [module](super) for more.
pub struct Hedge<S, C> {
    inner: S,
    kept: Handles<Kept<S, C>>,
}

impl<S: Clone, C> Hedge<S, C> {
    pub(super) fn new(inner: S, shared: Arc<Shared>, classifier: C) -> Self {
        let spare = Spare::of(&inner);
        Self { inner, kept: Handles::new(Kept { spare, shared, classifier }) }
    }
}

impl<S, C, Req> Service<Req> for Hedge<S, C>
where
    Req: Repeat,
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = HedgeFuture<S, C, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let shared = &self.kept.value().shared;
        shared.count_call();
        let spare = if shared.may_hedge() { request.repeat(Why::Hedge) } else { None };
        HedgeFuture::new(self.inner.call(request), spare, Arc::clone(self.kept.here()))
    }
}

impl<S: Clone, C> Clone for Hedge<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), kept: self.kept.clone() }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for Hedge<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hedge")
            .field("inner", &self.inner)
            .field("snapshot", &self.kept.value().shared.snapshot())
            .finish_non_exhaustive()
    }
}
