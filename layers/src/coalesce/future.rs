use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower::{BoxError, Service};

use super::{SharedError, follower::Follower, followers::Given, leader::Leader};
use crate::{
    Rejection, TimeoutScope,
    clock::Instant,
    readiness::ReadyCall,
    telemetry,
    timer::{Due, Timer},
};

pin_project! {
    /// The future of a [`Coalesce`](super::Coalesce) service.
    pub struct CoalesceFuture<S, Req, K>
    where
        S: Service<Req>,
    {
        #[pin]
        stage: Stage<S, Req, K>,
        wait: Wait,
    }
}

pin_project! {
    #[project = StageProj]
    enum Stage<S, Req, K>
    where
        S: Service<Req>,
    {
        Leading { leader: Leader<S, Req, K> },
        Following { follower: Follower<S, Req, K> },
        Passing { #[pin] call: ReadyCall<S, Req> },
        Refused { name: Option<&'static str> },
    }
}

/// How long a call may take.
pub(super) struct Wait {
    timer: Timer,
    bounds: Option<(Instant, Instant)>,
}

impl Wait {
    #[inline]
    pub(super) const fn new(began: Instant, until: Instant) -> Self {
        Self { timer: Timer::unarmed(), bounds: Some((began, until)) }
    }

    pub(super) const fn unbounded() -> Self {
        Self { timer: Timer::unarmed(), bounds: None }
    }

    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((began, until)) = self.bounds else {
            return Poll::Pending;
        };
        self.timer.poll(cx, || Due::at_given(until, began))
    }

    fn time_out(&mut self, name: &'static str) -> Rejection {
        let allowed = self.bounds.take().map(|(began, until)| until.saturating_duration_since(began));
        timed_out(name, allowed.unwrap_or_default())
    }
}

fn timed_out(name: &'static str, allowed: Duration) -> Rejection {
    telemetry::count_timeout(name, TimeoutScope::Total);
    Rejection::timed_out(TimeoutScope::Total, allowed)
}

impl<S, Req, K> CoalesceFuture<S, Req, K>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) const fn leading(leader: Leader<S, Req, K>, wait: Wait) -> Self {
        Self { stage: Stage::Leading { leader }, wait }
    }

    pub(super) const fn following(follower: Follower<S, Req, K>, wait: Wait) -> Self {
        Self { stage: Stage::Following { follower }, wait }
    }

    #[inline]
    pub(super) const fn passing(call: ReadyCall<S, Req>) -> Self {
        Self { stage: Stage::Passing { call }, wait: Wait::unbounded() }
    }

    /// A call that is too late already.
    pub(super) const fn refused(name: &'static str) -> Self {
        Self { stage: Stage::Refused { name: Some(name) }, wait: Wait::unbounded() }
    }
}

impl<S, Req, K> Future for CoalesceFuture<S, Req, K>
where
    S: Service<Req> + Clone,
    S::Response: Clone,
    S::Error: Into<BoxError> + From<SharedError> + From<Rejection>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let wait = this.wait;
        loop {
            match this.stage.as_mut().project() {
                StageProj::Passing { call } => return call.poll(cx),
                StageProj::Leading { leader } => {
                    if let Poll::Ready(outcome) = wait.timer.inside(cx, |cx| leader.poll(cx)) {
                        wait.bounds = None;
                        return Poll::Ready(outcome);
                    }
                    ready!(wait.poll(cx));
                    leader.leave();
                    return Poll::Ready(Err(wait.time_out(leader.kept().shared.name).into()));
                }
                StageProj::Following { follower } => match follower.poll(cx.waker()) {
                    Poll::Ready(Given::Answer(answer)) => {
                        wait.bounds = None;
                        return Poll::Ready(answer.map_err(S::Error::from));
                    }
                    // Following -> Leading.
                    Poll::Ready(Given::Lead) => {
                        let Some(leader) = follower.lead() else {
                            return Poll::Pending;
                        };
                        this.stage.set(Stage::Leading { leader });
                    }
                    Poll::Pending => {
                        ready!(wait.poll(cx));
                        follower.leave();
                        return Poll::Ready(Err(wait.time_out(follower.kept().shared.name).into()));
                    }
                },
                StageProj::Refused { name } => {
                    let Some(name) = name.take() else {
                        return Poll::Pending;
                    };
                    return Poll::Ready(Err(timed_out(name, Duration::ZERO).into()));
                }
            }
        }
    }
}

impl<S, Req, K> fmt::Debug for CoalesceFuture<S, Req, K>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Leading { .. } => "leading",
            Stage::Following { .. } => "following",
            Stage::Passing { .. } => "passing",
            Stage::Refused { .. } => "refused",
        };
        f.debug_struct("CoalesceFuture").field("stage", &stage).finish_non_exhaustive()
    }
}
