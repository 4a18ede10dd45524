use std::{
    fmt,
    task::{Context, Poll},
};

use tower::Service;

use super::{Drain, DrainGuard, DrainedFuture, shared::Watcher, state::Moment};
use crate::Rejection;

/// A service that can be drained. See the [module](super) for more.
pub struct Drained<S> {
    // None once a call was refused: none will be let in any more, and what the service holds is for others.
    inner: Option<S>,
    drain: Drain,
    // While the inner service is not ready.
    watcher: Option<Watcher>,
}

impl<S> Drained<S> {
    pub(super) const fn new(inner: S, drain: Drain) -> Self {
        Self { inner: Some(inner), drain, watcher: None }
    }

    /// Waits for the inner service, or for the drain: it refuses the call then, however long the inner service would take.
    #[cold]
    fn wait<E>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        let watcher = self.watcher.get_or_insert_with(|| Watcher::new(&self.drain));
        if !watcher.watch(cx.waker(), Moment::Closed) {
            return Poll::Pending;
        }
        (self.inner, self.watcher) = (None, None);
        Poll::Ready(Ok(()))
    }
}

impl<S, Req> Service<Req> for Drained<S>
where
    S: Service<Req>,
    S::Error: From<Rejection>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = DrainedFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(Ok(()));
        };
        let ready = inner.poll_ready(cx);
        if ready.is_pending() {
            return self.wait(cx);
        }
        if self.watcher.is_some() {
            self.watcher = None;
        }
        ready
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        if let Some(guard) = DrainGuard::enter(&self.drain.0)
            && let Some(inner) = &mut self.inner
        {
            return DrainedFuture::admitted(inner.call(request), guard);
        }
        self.inner = None;
        DrainedFuture::refused()
    }
}

impl<S: Clone> Clone for Drained<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), drain: self.drain.clone(), watcher: None }
    }
}

impl<S: fmt::Debug> fmt::Debug for Drained<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drained")
            .field("inner", &self.inner)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}
