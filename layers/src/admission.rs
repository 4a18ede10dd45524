//! A call that has to be admitted, at once or in its turn, before its service is called.
//!
//! What limits calls is always ready, and waits inside its future: for a turn first, then for the service. The futures of
//! the limits are this one; they differ in what a turn waits for, and in what a call holds while it is under way.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::Service;

use crate::{Rejection, readiness::ReadyCall, timer::Timer};

/// A wait for leave to call. Dropped before it is over, it takes nothing.
pub(crate) trait Turn {
    /// What a call holds from then on.
    type Pass: Pass;

    /// Ready with leave, or with the refusal. The timer is this call's own.
    fn poll(&mut self, timer: &mut Timer, cx: &mut Context<'_>) -> Poll<Result<Self::Pass, Rejection>>;
}

/// What an admitted call holds until it ends or is dropped.
pub(crate) trait Pass {
    /// The service has been called.
    fn called(&mut self) {}
}

pin_project! {
    /// The call.
    pub(crate) struct AdmittedCall<S, Req, T>
    where
        S: Service<Req>,
        T: Turn,
    {
        // Before the pass, so that a call which is dropped is over before another takes its place.
        #[pin]
        call: ReadyCall<S, Req>,
        stage: Stage<T>,
    }
}

enum Stage<T: Turn> {
    Calling { pass: Option<T::Pass> },
    Waiting { turn: T, timer: Timer },
    Refused { rejection: Option<Rejection> },
}

impl<S, Req, T> AdmittedCall<S, Req, T>
where
    S: Service<Req>,
    T: Turn,
{
    #[inline]
    pub(crate) const fn calling(call: ReadyCall<S, Req>, pass: Option<T::Pass>) -> Self {
        Self { call, stage: Stage::Calling { pass } }
    }

    pub(crate) const fn waiting(call: ReadyCall<S, Req>, turn: T) -> Self {
        Self { call, stage: Stage::Waiting { turn, timer: Timer::unarmed() } }
    }

    pub(crate) const fn refused(rejection: Rejection) -> Self {
        Self { call: ReadyCall::Ended, stage: Stage::Refused { rejection: Some(rejection) } }
    }

    /// How far it has got, for a reader.
    pub(crate) const fn stage(&self) -> &'static str {
        match &self.stage {
            Stage::Calling { .. } if self.call.is_waiting() => "readying",
            Stage::Calling { .. } => "calling",
            Stage::Waiting { .. } => "waiting",
            Stage::Refused { .. } => "refused",
        }
    }
}

impl<S, Req, T> Future for AdmittedCall<S, Req, T>
where
    S: Service<Req>,
    S::Error: From<Rejection>,
    T: Turn,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.stage {
                Stage::Calling { pass } => {
                    let outcome = this.call.as_mut().poll(cx);
                    if let Some(held) = pass {
                        if !this.call.is_waiting() {
                            held.called();
                        }
                        // Not when the caller drops this future, which may be much later.
                        if outcome.is_ready() {
                            *pass = None;
                        }
                    }
                    return outcome;
                }
                Stage::Waiting { turn, timer } => {
                    *this.stage = match ready!(turn.poll(timer, cx)) {
                        Ok(pass) => Stage::Calling { pass: Some(pass) },
                        Err(rejection) => Stage::Refused { rejection: Some(rejection) },
                    };
                }
                Stage::Refused { rejection } => {
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
