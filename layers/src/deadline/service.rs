use std::task::{Context, Poll};

use tower::Service;

use super::{DeadlineFuture, DeadlineLayer};
use crate::{Rejection, clock::Instant, readiness::Inner, request::HasDeadline};

/// A service whose every call has a deadline. See the [module](super) for more.
#[derive(Clone, Debug)]
pub struct Deadline<S> {
    inner: Inner<S>,
    settings: DeadlineLayer,
}

impl<S> Deadline<S> {
    pub(super) const fn new(inner: S, settings: DeadlineLayer) -> Self {
        Self { inner: Inner::new(inner), settings }
    }
}

impl<S, Req> Service<Req> for Deadline<S>
where
    Req: HasDeadline,
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
        if self.settings.limit.is_none() && request.deadline().is_none() {
            return DeadlineFuture::unbounded(self.inner.call(request), self.settings.name);
        }
        let now = Instant::now();
        if let Some(limit) = self.settings.limit {
            request.shorten_deadline(now + limit);
        }
        let deadline = request.deadline().unwrap_or(now);
        let allowed = deadline.saturating_duration_since(now);
        if allowed.is_zero() {
            return DeadlineFuture::refused(self.settings.name);
        }
        DeadlineFuture::bounded(self.inner.call(request), deadline, allowed, self.settings.name)
    }
}
