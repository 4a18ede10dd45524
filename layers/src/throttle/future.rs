use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower::Service;

use super::Valve;
use crate::{
    Rejection,
    class::{Class, Classify},
    handle::Handle,
    judged::{Judge, JudgedCall},
    readiness::ReadyCall,
};

pin_project! {
    /// The future of a [`Throttle`](super::Throttle) service.
    pub struct ThrottleFuture<S, C, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        call: JudgedCall<S, Req, C, Watched>,
    }
}

/// The throttle of a call that it counts. A call that its caller gives up counts for nothing.
struct Watched(Option<Handle<Valve>>);

impl Judge for Watched {
    #[inline]
    fn judge(&mut self, class: &Class) {
        if let Some(valve) = self.0.take() {
            valve.count(class);
        }
    }

    fn refusal(retry_after: Option<Duration>) -> Rejection {
        Rejection::throttled(retry_after)
    }
}

impl<S, C, Req> ThrottleFuture<S, C, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) const fn passed(call: ReadyCall<S, Req>, valve: Option<Handle<Valve>>, classifier: C) -> Self {
        Self { call: JudgedCall::passed(call, Watched(valve), classifier) }
    }

    pub(super) const fn refused(retry_after: Option<Duration>, classifier: C) -> Self {
        Self { call: JudgedCall::refused(retry_after, classifier) }
    }
}

impl<S, C, Req> Future for ThrottleFuture<S, C, Req>
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

impl<S, C, Req> fmt::Debug for ThrottleFuture<S, C, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThrottleFuture").field("passed", &self.call.has_passed()).finish_non_exhaustive()
    }
}
