use std::{
    task::{Context, Poll},
    time::Duration,
};

use tower::Service;

use super::DeadlineFuture;
use crate::{Limit, Rejection, clock::Instant, readiness::Inner, request::HasDeadline};

/// A service whose every call has a deadline. See the [module](super) for more.
#[derive(Clone, Debug)]
pub struct Deadline<S, L = Duration> {
    inner: Inner<S>,
    limit: Option<L>,
    name: &'static str,
}

impl<S, L> Deadline<S, L> {
    pub(super) const fn new(inner: S, limit: Option<L>, name: &'static str) -> Self {
        Self { inner: Inner::new(inner), limit, name }
    }
}

impl<S, L, Req> Service<Req> for Deadline<S, L>
where
    Req: HasDeadline,
    L: Limit<Req>,
    S: Service<Req> + Clone,
    S::Error: From<Rejection>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = DeadlineFuture<S, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Req) -> Self::Future {
        if self.limit.is_none() && request.deadline().is_none() {
            return DeadlineFuture::unbounded(self.inner.call(request), self.name);
        }
        let now = Instant::now();
        if let Some(limit) = &self.limit {
            request.shorten_deadline(now + limit.limit(&request));
        }
        let deadline = request.deadline().unwrap_or(now);
        let allowed = deadline.saturating_duration_since(now);
        if allowed.is_zero() {
            self.inner.give_up_place();
            return DeadlineFuture::refused(self.name);
        }
        request.deadline_is_enforced();
        DeadlineFuture::bounded(self.inner.call(request), deadline, allowed, self.name)
    }
}
