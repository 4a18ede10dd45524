use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::call::Call;
use crate::{error::HasErrorKind, response::Response};

pin_project! {
    /// The future of a [`Telemetry`](super::Telemetry) service.
    pub struct TelemetryFuture<F> {
        // None once it has been dropped, inside the span.
        #[pin]
        inner: Option<F>,
        call: Call,
    }

    impl<F> PinnedDrop for TelemetryFuture<F> {
        #[inline]
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            // A call whose caller has gone is under way until nothing of it is left.
            this.call.leave(|| this.inner.set(None));
        }
    }
}

impl<F> TelemetryFuture<F> {
    #[inline]
    pub(super) const fn new(inner: F, call: Call) -> Self {
        Self { inner: Some(inner), call }
    }
}

impl<F, Err> Future for TelemetryFuture<F>
where
    F: Future<Output = Result<Response, Err>>,
    Err: HasErrorKind,
{
    type Output = Result<Response, Err>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        let polled = this.call.inside(|| inner.poll(cx));
        if let Poll::Ready(outcome) = &polled {
            // The span ends with the call, and not when its caller drops this future.
            this.call.leave(|| this.inner.set(None));
            this.call.end(outcome.as_ref());
        }
        polled
    }
}

impl<F> fmt::Debug for TelemetryFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetryFuture").field("call", &self.call).finish_non_exhaustive()
    }
}
