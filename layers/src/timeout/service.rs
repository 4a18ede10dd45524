use std::{
    task::{Context, Poll},
    time::Duration,
};

use tower::Service;

use super::TimeoutFuture;
use crate::{Limit, Rejection, readiness::Inner};

/// A service whose every call has a time limit. See the [module](super) for more.
#[derive(Clone, Debug)]
pub struct Timeout<S, L = Duration> {
    inner: Inner<S>,
    limit: L,
    name: &'static str,
}

impl<S, L> Timeout<S, L> {
    pub(super) const fn new(inner: S, limit: L, name: &'static str) -> Self {
        Self { inner: Inner::new(inner), limit, name }
    }
}

impl<S, L, Req> Service<Req> for Timeout<S, L>
where
    L: Limit<Req>,
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
        let limit = self.limit.limit(&request);
        TimeoutFuture::new(self.inner.call(request), limit, self.name)
    }
}
