use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower::Service;

use crate::{
    Rejection, TimeoutScope,
    readiness::ReadyCall,
    telemetry,
    timer::{Due, Timer},
};

pin_project! {
    /// The future of a [`Timeout`](super::Timeout) service.
    pub struct TimeoutFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        call: ReadyCall<S, Req>,
        timer: Timer,
        limit: Duration,
        name: &'static str,
    }
}

impl<S, Req> TimeoutFuture<S, Req>
where
    S: Service<Req>,
{
    pub(super) const fn new(call: ReadyCall<S, Req>, limit: Duration, name: &'static str) -> Self {
        Self { call, timer: Timer::unarmed(), limit, name }
    }
}

impl<S, Req> Future for TimeoutFuture<S, Req>
where
    S: Service<Req>,
    S::Error: From<Rejection>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(outcome) = this.timer.inside(cx, |cx| this.call.as_mut().poll(cx)) {
            return Poll::Ready(outcome);
        }
        let limit = *this.limit;
        ready!(this.timer.poll(cx, || Due::after(limit)));
        this.call.end();
        telemetry::count_timeout(this.name, TimeoutScope::Attempt);
        Poll::Ready(Err(Rejection::timed_out(TimeoutScope::Attempt, limit).into()))
    }
}

impl<S, Req> fmt::Debug for TimeoutFuture<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutFuture").field("limit", &self.limit).finish_non_exhaustive()
    }
}
