use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower::Service;

use super::{
    Circuit,
    state::{Outcome, Ticket},
};
use crate::{
    Rejection,
    class::{Class, Classify, Fault},
    clock::Instant,
    handle::Handle,
    judged::{Judge, JudgedCall},
    readiness::ReadyCall,
    superseded::is_superseded,
};

pin_project! {
    /// The future of a [`CircuitBreaker`](super::CircuitBreaker) service.
    pub struct BreakerFuture<S, C, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        call: JudgedCall<S, Req, C, Watched>,
    }
}

/// A call that was admitted. Dropped before its outcome is known, it counts as one that its caller gave up.
pub(super) struct Watched {
    circuit: Option<Handle<Circuit>>,
    ticket: Ticket,
}

impl Watched {
    #[inline]
    pub(super) fn new(circuit: &Handle<Circuit>, ticket: Ticket) -> Self {
        Self { circuit: Some(Arc::clone(circuit)), ticket }
    }

    #[inline]
    fn end(&mut self, outcome: Outcome) {
        if let Some(circuit) = self.circuit.take() {
            circuit.record(self.ticket, outcome, Instant::now());
        }
    }
}

impl Judge for Watched {
    #[inline]
    fn judge(&mut self, class: &Class) {
        self.end(match class.fault() {
            // A layer further in refused it: the service was not asked.
            _ if class.is_refused_here() => Outcome::Neutral,
            Fault::None => Outcome::Success,
            Fault::Caller => Outcome::Neutral,
            Fault::Overload => Outcome::Overload,
            Fault::Server | Fault::Unreachable => Outcome::Failure,
        });
    }

    fn refusal(retry_after: Option<Duration>) -> Rejection {
        Rejection::circuit_open(retry_after)
    }
}

impl Drop for Watched {
    #[inline]
    fn drop(&mut self) {
        if self.circuit.is_some() {
            self.end(if is_superseded() { Outcome::Superseded } else { Outcome::Dropped });
        }
    }
}

impl<S, C, Req> BreakerFuture<S, C, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) const fn admitted(call: ReadyCall<S, Req>, watched: Watched, classifier: C) -> Self {
        Self { call: JudgedCall::passed(call, watched, classifier) }
    }

    pub(super) const fn refused(retry_after: Option<Duration>, classifier: C) -> Self {
        Self { call: JudgedCall::refused(retry_after, classifier) }
    }
}

impl<S, C, Req> Future for BreakerFuture<S, C, Req>
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

impl<S, C, Req> fmt::Debug for BreakerFuture<S, C, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerFuture").field("admitted", &self.call.has_passed()).finish_non_exhaustive()
    }
}
