use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::DrainGuard;
use crate::Rejection;

pin_project! {
    /// The future of a [`Drained`](super::Drained) service.
    pub struct DrainedFuture<F> {
        // None if the call was refused. Dropped first: a call whose caller has gone is in flight until nothing of it is left.
        #[pin]
        inner: Option<F>,
        guard: Option<DrainGuard>,
    }
}

impl<F> DrainedFuture<F> {
    #[inline]
    pub(super) const fn admitted(inner: F, guard: DrainGuard) -> Self {
        Self { inner: Some(inner), guard: Some(guard) }
    }

    pub(super) const fn refused() -> Self {
        Self { inner: None, guard: None }
    }
}

impl<F, Res, Err> Future for DrainedFuture<F>
where
    F: Future<Output = Result<Res, Err>>,
    Err: From<Rejection>,
{
    type Output = Result<Res, Err>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else {
            return Poll::Ready(Err(Rejection::Draining.into()));
        };
        let polled = inner.poll(cx);
        if polled.is_ready() {
            // Now, and not when the caller drops this future, which may be much later.
            *this.guard = None;
        }
        polled
    }
}

impl<F> fmt::Debug for DrainedFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainedFuture").field("refused", &self.inner.is_none()).finish_non_exhaustive()
    }
}
