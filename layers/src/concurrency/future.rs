use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::Service;

use super::bulkhead::{Permit, Turn};
use crate::{Rejection, readiness::ReadyCall, timer::Timer};

pin_project! {
    /// The future of a [`ConcurrencyLimit`](super::ConcurrencyLimit) service.
    pub struct ConcurrencyLimitFuture<S, Req>
    where
        S: Service<Req>,
    {
        // Before the permit, so that a call which is dropped is over before another takes its place.
        #[pin]
        call: ReadyCall<S, Req>,
        #[pin]
        stage: Stage,
    }
}

pin_project! {
    #[project = StageProj]
    enum Stage {
        Calling { permit: Option<Permit> },
        Waiting { turn: Turn, timer: Timer },
        Refused { rejection: Option<Rejection> },
    }
}

impl<S, Req> ConcurrencyLimitFuture<S, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) const fn calling(call: ReadyCall<S, Req>, permit: Permit) -> Self {
        Self { call, stage: Stage::Calling { permit: Some(permit) } }
    }

    pub(super) const fn waiting(call: ReadyCall<S, Req>, turn: Turn) -> Self {
        Self { call, stage: Stage::Waiting { turn, timer: Timer::unarmed() } }
    }

    pub(super) const fn refused(rejection: Rejection) -> Self {
        Self { call: ReadyCall::Ended, stage: Stage::Refused { rejection: Some(rejection) } }
    }
}

impl<S, Req> Future for ConcurrencyLimitFuture<S, Req>
where
    S: Service<Req>,
    S::Error: From<Rejection>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.stage.as_mut().project() {
                StageProj::Calling { permit } => {
                    let outcome = ready!(this.call.poll(cx));
                    // Not when the caller drops this future, which may be much later.
                    permit.take();
                    return Poll::Ready(outcome);
                }
                StageProj::Waiting { turn, timer } => match ready!(turn.poll(timer, cx)) {
                    Ok(permit) => this.stage.set(Stage::Calling { permit: Some(permit) }),
                    Err(rejection) => this.stage.set(Stage::Refused { rejection: Some(rejection) }),
                },
                StageProj::Refused { rejection } => {
                    let Some(rejection) = rejection.take() else {
                        return Poll::Pending;
                    };
                    this.call.end();
                    return Poll::Ready(Err(rejection.into()));
                }
            }
        }
    }
}

impl<S, Req> fmt::Debug for ConcurrencyLimitFuture<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Calling { .. } => "calling",
            Stage::Waiting { .. } => "waiting",
            Stage::Refused { .. } => "refused",
        };
        f.debug_struct("ConcurrencyLimitFuture").field("stage", &stage).finish_non_exhaustive()
    }
}
