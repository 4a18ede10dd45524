use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::Service;

use super::turn::Turn;
use crate::{
    Rejection,
    clock::Instant,
    timer::{Due, Timer},
};

pin_project! {
    /// The future of a [`Shed`](super::Shed) service.
    pub struct ShedFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        stage: Stage<S, Req>,
    }
}

pin_project! {
    #[project = StageProj]
    #[project_replace = StageOwn]
    enum Stage<S, Req>
    where
        S: Service<Req>,
    {
        Calling { #[pin] future: S::Future },
        // The service goes first: a place that it has half won comes back before the next one asks for it.
        Waiting { service: S, request: Option<Req>, turn: Turn, timer: Timer },
        Refused { rejection: Rejection },
        // Everything that it held has been dropped.
        Ended,
    }
}

impl<S, Req> ShedFuture<S, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) const fn calling(future: S::Future) -> Self {
        Self { stage: Stage::Calling { future } }
    }

    pub(super) const fn waiting(service: S, request: Req, turn: Turn) -> Self {
        Self { stage: Stage::Waiting { service, request: Some(request), turn, timer: Timer::unarmed() } }
    }

    pub(super) const fn refused(rejection: Rejection) -> Self {
        Self { stage: Stage::Refused { rejection } }
    }
}

impl<S, Req> Future for ShedFuture<S, Req>
where
    S: Service<Req>,
    S::Error: From<Rejection>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut stage = self.project().stage;
        if let StageProj::Calling { future } = stage.as_mut().project() {
            return future.poll(cx);
        }
        poll_waiting(stage, cx)
    }
}

/// Waits, and polls the call once it is made.
fn poll_waiting<S, Req>(
    mut stage: Pin<&mut Stage<S, Req>>,
    cx: &mut Context<'_>,
) -> Poll<Result<S::Response, S::Error>>
where
    S: Service<Req>,
    S::Error: From<Rejection>,
{
    let ended = match stage.as_mut().project() {
        StageProj::Calling { future } => return future.poll(cx),
        // A future that is polled after its end may do as it likes, short of panicking here.
        StageProj::Ended => return Poll::Pending,
        StageProj::Refused { rejection } => Err(rejection.clone().into()),
        StageProj::Waiting { service, request, turn, timer } => {
            ready!(poll_turn(service, request, turn, timer, cx))
        }
    };
    match ended {
        Ok(future) => {
            stage.as_mut().project_replace(Stage::Calling { future });
            match stage.project() {
                StageProj::Calling { future } => future.poll(cx),
                _ => Poll::Pending,
            }
        }
        Err(error) => {
            stage.project_replace(Stage::Ended);
            Poll::Ready(Err(error))
        }
    }
}

/// Ready when the service has taken the call, or will not.
fn poll_turn<S, Req>(
    service: &mut S,
    request: &mut Option<Req>,
    turn: &mut Turn,
    timer: &mut Timer,
    cx: &mut Context<'_>,
) -> Poll<Result<S::Future, S::Error>>
where
    S: Service<Req>,
    S::Error: From<Rejection>,
{
    loop {
        let now = Instant::now();
        let view = match turn.look(now, cx.waker()) {
            Ok(view) => view,
            Err(rejection) => return Poll::Ready(Err(rejection.into())),
        };
        if view.head {
            match service.poll_ready(cx) {
                Poll::Ready(Ok(())) => {
                    let Some(request) = request.take() else {
                        return Poll::Pending;
                    };
                    let future = service.call(request);
                    // Before the call is polled, which may take its time.
                    turn.served();
                    return Poll::Ready(Ok(future));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        // A place that is there when the wait ends has counted by now.
        if view.give_up <= now {
            if let Err(rejection) = turn.expire(now) {
                return Poll::Ready(Err(rejection.into()));
            }
            *timer = Timer::unarmed();
            continue;
        }
        if timer.poll(cx, || Due::at_given(view.look_at, now)).is_pending() {
            return Poll::Pending;
        }
        *timer = Timer::unarmed();
    }
}

impl<S, Req> fmt::Debug for ShedFuture<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Calling { .. } => "calling",
            Stage::Waiting { .. } => "waiting",
            Stage::Refused { .. } => "refused",
            Stage::Ended => "ended",
        };
        f.debug_struct("ShedFuture").field("stage", &stage).finish_non_exhaustive()
    }
}
