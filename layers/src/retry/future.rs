use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower::Service;

use super::{
    layer::Shared,
    state::{Failure, Stop},
};
use crate::{
    class::{Class, Classify},
    clock::Instant,
    handle::Handle,
    readiness::Spare,
    request::{HasDeadline, Repeat, Why},
    timer::{Due, Timer},
};

pin_project! {
    /// The future of a [`Retry`](super::Retry) service.
    pub struct RetryFuture<S, C, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S, S::Future, Req>,
        // None for a request that can be sent just once.
        retries: Option<Retries<S, C, Req>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, Req> {
        Calling { #[pin] future: F },
        BackingOff { timer: Timer, wait: Duration, request: Option<Req> },
        Readying { service: S, request: Option<Req> },
    }
}

/// What a service keeps for the repeats of all its calls.
pub(super) struct Kept<S, C> {
    pub(super) service: Spare<S>,
    pub(super) shared: Arc<Shared<C>>,
}

/// What a call keeps for its repeats.
struct Retries<S, C, Req> {
    kept: Handle<Kept<S, C>>,
    // A copy of the request, from which each repeat is made.
    spare: Req,
    attempt: u32,
    wait: Duration,
}

impl<S, C, Req> RetryFuture<S, C, Req>
where
    S: Service<Req>,
{
    pub(super) const fn once(future: S::Future) -> Self {
        Self { state: State::Calling { future }, retries: None }
    }

    pub(super) const fn new(future: S::Future, spare: Req, kept: Handle<Kept<S, C>>) -> Self {
        Self {
            state: State::Calling { future },
            retries: Some(Retries { kept, spare, attempt: 1, wait: Duration::ZERO }),
        }
    }
}

impl<S, C, Req> Future for RetryFuture<S, C, Req>
where
    Req: Repeat + HasDeadline,
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Calling { future } => {
                    let outcome = ready!(future.poll(cx));
                    let Some(retries) = this.retries.as_mut() else {
                        return Poll::Ready(outcome);
                    };
                    let Some((request, wait)) = retries.plan(outcome.as_ref()) else {
                        return Poll::Ready(outcome);
                    };
                    // Calling -> BackingOff, which is over at once where there is nothing to wait for.
                    State::BackingOff { timer: Timer::unarmed(), wait, request: Some(request) }
                }
                StateProj::BackingOff { timer, wait, request } => {
                    ready!(timer.poll(cx, || Due::after(*wait)));
                    // They are there in this state; there is nothing to wait for if they were not.
                    let Some(retries) = this.retries.as_mut() else {
                        return Poll::Pending;
                    };
                    State::Readying { service: retries.kept.service.fresh(), request: request.take() }
                }
                StateProj::Readying { service, request } => {
                    ready!(service.poll_ready(cx))?;
                    let (Some(retries), Some(request)) = (this.retries.as_mut(), request.take()) else {
                        return Poll::Pending;
                    };
                    retries.attempt += 1;
                    State::Calling { future: service.call(request) }
                }
            };
            this.state.set(next);
        }
    }
}

impl<S, C, Req> Retries<S, C, Req>
where
    Req: Repeat + HasDeadline,
{
    /// Plans a repeat after this outcome, if there is to be one: the request, and how long to wait before it is sent.
    fn plan<Res, Err>(&mut self, outcome: Result<&Res, &Err>) -> Option<(Req, Duration)>
    where
        C: Classify<Res, Err>,
    {
        let shared = &self.kept.shared;
        let class = shared.classifier.classify(outcome);
        if !class.is_failure() {
            return None;
        }
        match self.decide(class) {
            Ok((request, wait)) => {
                tracing::debug!(
                    layer = shared.name,
                    attempt = self.attempt,
                    fault = class.fault().as_str(),
                    ?wait,
                    "retrying"
                );
                shared.retries.increment(1);
                self.wait = wait;
                Some((request, wait))
            }
            Err(stop) => {
                tracing::debug!(
                    layer = shared.name,
                    attempt = self.attempt,
                    fault = class.fault().as_str(),
                    reason = stop.as_str(),
                    "not retrying"
                );
                shared.count_stop(stop);
                None
            }
        }
    }

    fn decide(&self, class: Class) -> Result<(Req, Duration), Stop> {
        let rules = &self.kept.shared.rules;
        // An open circuit, or a limit: to wait here would only hold the call, and all of them would come back at once.
        if class.is_refused_here() && !class.may_do_elsewhere() {
            return Err(Stop::Refused);
        }
        if !rules.attempts_left(self.attempt) {
            return Err(Stop::Attempts);
        }
        let request = self.spare.repeat(Why::Retry(class)).ok_or(Stop::NotAllowed)?;
        let failure = Failure {
            attempt: self.attempt,
            class,
            previous_wait: self.wait,
            deadline: self.spare.deadline(),
        };
        let wait = rules.wait(&failure, fastrand::f64(), Instant::now).ok_or(Stop::Deadline)?;
        // Last, so that a token is taken only for a repeat that will be made.
        if !self.kept.shared.budget.withdraw() {
            return Err(Stop::Budget);
        }
        Ok((request, wait))
    }
}

impl<S, C, Req> fmt::Debug for RetryFuture<S, C, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryFuture")
            .field("attempt", &self.retries.as_ref().map_or(1, |retries| retries.attempt))
            .finish_non_exhaustive()
    }
}
