use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::Service;

use super::limiter::{Held, Turn};
use crate::{Rejection, readiness::ReadyCall, timer::Timer};

pin_project! {
    /// The future of a [`RateLimit`](super::RateLimit) service.
    pub struct RateLimitFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        call: ReadyCall<S, Req>,
        #[pin]
        stage: Stage,
    }
}

pin_project! {
    #[project = StageProj]
    enum Stage {
        // Before the inner service is called, with what comes back if it never is.
        Readying { held: Held },
        Calling,
        Waiting { turn: Turn, timer: Timer },
        Refused { rejection: Option<Rejection> },
    }
}

impl<S, Req> RateLimitFuture<S, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn calling(call: ReadyCall<S, Req>, held: Option<Held>) -> Self {
        Self { call, stage: held.map_or(Stage::Calling, |held| Stage::Readying { held }) }
    }

    pub(super) const fn waiting(call: ReadyCall<S, Req>, turn: Turn) -> Self {
        Self { call, stage: Stage::Waiting { turn, timer: Timer::unarmed() } }
    }

    pub(super) const fn refused(rejection: Rejection) -> Self {
        Self { call: ReadyCall::Ended, stage: Stage::Refused { rejection: Some(rejection) } }
    }
}

impl<S, Req> Future for RateLimitFuture<S, Req>
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
                StageProj::Calling => return this.call.poll(cx),
                StageProj::Readying { held } => {
                    let outcome = this.call.as_mut().poll(cx);
                    if !this.call.is_waiting() {
                        held.used();
                        this.stage.set(Stage::Calling);
                    } else if outcome.is_ready() {
                        // The inner service is broken: it was never called.
                        this.stage.set(Stage::Calling);
                    }
                    return outcome;
                }
                StageProj::Waiting { turn, timer } => match ready!(turn.poll(timer, cx)) {
                    Ok(held) => this.stage.set(Stage::Readying { held }),
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

impl<S, Req> fmt::Debug for RateLimitFuture<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Readying { .. } => "readying",
            Stage::Calling => "calling",
            Stage::Waiting { .. } => "waiting",
            Stage::Refused { .. } => "refused",
        };
        f.debug_struct("RateLimitFuture").field("stage", &stage).finish_non_exhaustive()
    }
}
