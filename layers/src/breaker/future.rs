use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower::Service;

use super::{Circuit, permit::Watched};
use crate::{Rejection, class::Classify, handle::Handle, judged::JudgedCall, readiness::ReadyCall};

pin_project! {
    /// The future of a [`CircuitBreaker`](super::CircuitBreaker) service.
    pub struct BreakerFuture<S, C, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        call: JudgedCall<S, Req, C, Watched<Handle<Circuit>>>,
    }
}

impl<S, C, Req> BreakerFuture<S, C, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) const fn admitted(
        call: ReadyCall<S, Req>,
        watched: Watched<Handle<Circuit>>,
        classifier: C,
    ) -> Self {
        Self { call: JudgedCall::passed(call, watched, classifier) }
    }

    pub(super) const fn refused(retry_after: Option<Duration>, classifier: C) -> Self {
        Self { call: JudgedCall::refused(retry_after, classifier) }
    }
}

impl<S, C, Req> Future for BreakerFuture<S, C, Req>
where
    S: Service<Req>,
    S::Error: From<Rejection>,
    C: Classify<S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().call.poll(cx)
    }
}

impl<S, C, Req> fmt::Debug for BreakerFuture<S, C, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerFuture").field("admitted", &self.call.has_passed()).finish_non_exhaustive()
    }
}
