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
    request::{HasDeadline, Repeat, Why},
    timer::Timer,
};

pin_project! {
    /// The future of a [`Retry`](super::Retry) service.
    pub struct RetryFuture<S, C, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S::Future>,
        // None for a request that can be sent just once.
        retries: Option<Retries<S, C, Req>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Calling { #[pin] future: F },
        BackingOff { #[pin] timer: Timer },
        Readying,
    }
}

/// What is kept for the repeats.
struct Retries<S, C, Req> {
    service: S,
    // A copy of the request, from which each repeat is made.
    spare: Req,
    // The repeat that is about to be sent.
    next: Option<Req>,
    attempt: u32,
    wait: Duration,
    shared: Arc<Shared<C>>,
}

impl<S, C, Req> RetryFuture<S, C, Req>
where
    S: Service<Req>,
{
    pub(super) const fn once(future: S::Future) -> Self {
        Self { state: State::Calling { future }, retries: None }
    }

    pub(super) const fn new(future: S::Future, service: S, spare: Req, shared: Arc<Shared<C>>) -> Self {
        Self {
            state: State::Calling { future },
            retries: Some(Retries { service, spare, next: None, attempt: 1, wait: Duration::ZERO, shared }),
        }
    }
}

impl<S, C, Req> Future for RetryFuture<S, C, Req>
where
    Req: Repeat + HasDeadline,
    S: Service<Req>,
    C: Classify<S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Calling { future } => {
                    let outcome = ready!(future.poll(cx));
                    let Some(retries) = this.retries.as_mut() else {
                        return Poll::Ready(outcome);
                    };
                    if !retries.plan(outcome.as_ref()) {
                        return Poll::Ready(outcome);
                    }
                    // Calling -> BackingOff, or straight on where there is nothing to wait for.
                    this.state.set(if retries.wait.is_zero() {
                        State::Readying
                    } else {
                        State::BackingOff { timer: Timer::unarmed() }
                    });
                }
                StateProj::BackingOff { timer } => {
                    let wait = this.retries.as_ref().map_or(Duration::ZERO, |retries| retries.wait);
                    ready!(timer.poll(cx, || Instant::on_tokios_clock_after(wait)));
                    this.state.set(State::Readying);
                }
                StateProj::Readying => {
                    // Both are there in this state; there is nothing to wait for if they were not.
                    let Some(retries) = this.retries.as_mut() else {
                        return Poll::Pending;
                    };
                    ready!(retries.service.poll_ready(cx))?;
                    let Some(request) = retries.next.take() else {
                        return Poll::Pending;
                    };
                    retries.attempt += 1;
                    let future = retries.service.call(request);
                    this.state.set(State::Calling { future });
                }
            }
        }
    }
}

impl<S, C, Req> Retries<S, C, Req>
where
    Req: Repeat + HasDeadline,
{
    /// Plans a repeat after this outcome, if there is to be one.
    fn plan<Res, Err>(&mut self, outcome: Result<&Res, &Err>) -> bool
    where
        C: Classify<Res, Err>,
    {
        let class = self.shared.classifier.classify(outcome);
        if !class.is_failure() {
            return false;
        }
        match self.decide(class) {
            Ok((request, wait)) => {
                tracing::debug!(
                    layer = self.shared.name,
                    attempt = self.attempt,
                    fault = class.fault().as_str(),
                    ?wait,
                    "retrying"
                );
                self.shared.retries.increment(1);
                self.next = Some(request);
                self.wait = wait;
                true
            }
            Err(stop) => {
                tracing::debug!(
                    layer = self.shared.name,
                    attempt = self.attempt,
                    fault = class.fault().as_str(),
                    reason = stop.as_str(),
                    "not retrying"
                );
                self.shared.count_stop(stop);
                false
            }
        }
    }

    fn decide(&self, class: Class) -> Result<(Req, Duration), Stop> {
        let rules = &self.shared.rules;
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
        if !self.shared.budget.withdraw() {
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
