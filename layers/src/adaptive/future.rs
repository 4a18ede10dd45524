use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use super::{limiter::Call, state::Outcome};
use crate::class::{Class, Classify, Fault};

pin_project! {
    /// The future of an [`AdaptiveConcurrency`](super::AdaptiveConcurrency) service.
    pub struct AdaptiveConcurrencyFuture<F, C> {
        // Before the call, so that one which is dropped is over before another takes its place.
        #[pin]
        inner: F,
        call: Call,
        classifier: C,
    }
}

impl<F, C> AdaptiveConcurrencyFuture<F, C> {
    #[inline]
    pub(super) const fn new(inner: F, call: Call, classifier: C) -> Self {
        Self { inner, call, classifier }
    }
}

impl<F, C, Res, Err> Future for AdaptiveConcurrencyFuture<F, C>
where
    F: Future<Output = Result<Res, Err>>,
    C: Classify<Res, Err>,
{
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(cx));
        this.call.end(outcome_of(this.classifier.classify(answer.as_ref())));
        Poll::Ready(answer)
    }
}

#[inline]
const fn outcome_of(class: Class) -> Outcome {
    match class.fault() {
        // A layer further in refused it: the service was not asked.
        _ if class.is_refused_here() => Outcome::Neutral,
        Fault::None => Outcome::Success,
        Fault::Overload | Fault::Unreachable => Outcome::Dropped,
        // A fast failure tells nothing of what the service can do.
        Fault::Caller | Fault::Server => Outcome::Neutral,
    }
}

impl<F, C> fmt::Debug for AdaptiveConcurrencyFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveConcurrencyFuture").finish_non_exhaustive()
    }
}
