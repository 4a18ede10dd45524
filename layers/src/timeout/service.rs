use std::task::{Context, Poll};

use tower::Service;

use super::{TimeoutFuture, TimeoutLayer};
use crate::{Rejection, readiness::Inner};

/// A service whose every call has a time limit. See the [module](super) for more.
#[derive(Clone, Debug)]
pub struct Timeout<S> {
    inner: Inner<S>,
    settings: TimeoutLayer,
}

impl<S> Timeout<S> {
    pub(super) const fn new(inner: S, settings: TimeoutLayer) -> Self {
        Self { inner: Inner::new(inner), settings }
    }
}

impl<S, Req> Service<Req> for Timeout<S>
where
    S: Service<Req> + Clone,
    S::Error: From<Rejection>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = TimeoutFuture<S, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        TimeoutFuture::new(self.inner.call(request), self.settings)
    }
}
