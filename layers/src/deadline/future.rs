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
    clock::Instant,
    readiness::ReadyCall,
    telemetry,
    timer::{Due, Timer},
};

pin_project! {
    /// The future of a [`Deadline`](super::Deadline) service.
    pub struct DeadlineFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        call: ReadyCall<S, Req>,
        timer: Timer,
        bound: Option<Bound>,
        name: &'static str,
    }
}

#[derive(Clone, Copy)]
struct Bound {
    deadline: Instant,
    // From the call to the deadline, for the error's text.
    allowed: Duration,
}

impl<S, Req> DeadlineFuture<S, Req>
where
    S: Service<Req>,
{
    pub(super) const fn bounded(
        call: ReadyCall<S, Req>,
        deadline: Instant,
        allowed: Duration,
        name: &'static str,
    ) -> Self {
        Self { call, timer: Timer::unarmed(), bound: Some(Bound { deadline, allowed }), name }
    }

    pub(super) const fn unbounded(call: ReadyCall<S, Req>, name: &'static str) -> Self {
        Self { call, timer: Timer::unarmed(), bound: None, name }
    }

    /// A call that is too late already: it never reaches the inner service.
    pub(super) fn refused(name: &'static str) -> Self {
        Self::bounded(ReadyCall::Ended, Instant::now(), Duration::ZERO, name)
    }
}

impl<S, Req> Future for DeadlineFuture<S, Req>
where
    S: Service<Req>,
    S::Error: From<Rejection>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(Bound { deadline, allowed }) = *this.bound else {
            return this.call.poll(cx);
        };
        if let Poll::Ready(outcome) = this.timer.inside(cx, |cx| this.call.as_mut().poll(cx)) {
            return Poll::Ready(outcome);
        }
        ready!(this.timer.poll(cx, || Due::at(deadline)));
        this.call.end();
        telemetry::count_timeout(this.name, TimeoutScope::Total);
        Poll::Ready(Err(Rejection::timed_out(TimeoutScope::Total, allowed).into()))
    }
}

impl<S, Req> fmt::Debug for DeadlineFuture<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineFuture")
            .field("deadline", &self.bound.map(|bound| bound.deadline))
            .finish_non_exhaustive()
    }
}
