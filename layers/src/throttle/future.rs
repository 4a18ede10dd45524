use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower::Service;

use super::Valve;
use crate::{Rejection, class::Classify, handle::Handle, readiness::ReadyCall};

pin_project! {
    /// The future of a [`Throttle`](super::Throttle) service.
    pub struct ThrottleFuture<S, C, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        call: ReadyCall<S, Req>,
        fate: Fate,
        classifier: C,
    }
}

enum Fate {
    /// Nobody is told if it is dropped: that says nothing of the service.
    Passed(Option<Handle<Valve>>),
    Refused(Option<Duration>),
}

impl<S, C, Req> ThrottleFuture<S, C, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) const fn passed(call: ReadyCall<S, Req>, valve: Option<Handle<Valve>>, classifier: C) -> Self {
        Self { call, fate: Fate::Passed(valve), classifier }
    }

    pub(super) const fn refused(retry_after: Option<Duration>, classifier: C) -> Self {
        Self { call: ReadyCall::Ended, fate: Fate::Refused(retry_after), classifier }
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
        let this = self.project();
        match this.fate {
            Fate::Passed(valve) => {
                let answer = ready!(this.call.poll(cx));
                if let Some(valve) = valve.take() {
                    valve.count(&this.classifier.classify(answer.as_ref()));
                }
                Poll::Ready(answer)
            }
            Fate::Refused(retry_after) => Poll::Ready(Err(Rejection::throttled(*retry_after).into())),
        }
    }
}

impl<S, C, Req> fmt::Debug for ThrottleFuture<S, C, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThrottleFuture")
            .field("passed", &matches!(self.fate, Fate::Passed(_)))
            .finish_non_exhaustive()
    }
}
