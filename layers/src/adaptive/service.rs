use std::{
    fmt,
    task::{Context, Poll, ready},
};

use tower::Service;

use super::{
    AdaptiveConcurrencyFuture,
    limiter::{Limiter, Permit, Turn},
};
use crate::{ByError, class::Classify, handle::Handles};

/// A service of which as many calls are in flight as it can work on. See the [module](super) for more.
pub struct AdaptiveConcurrency<S, C = ByError> {
    inner: S,
    limiter: Handles<Limiter>,
    classifier: C,
    place: Place,
}

enum Place {
    None,
    Waiting(Turn),
    Taken(Permit),
}

impl<S, C> AdaptiveConcurrency<S, C> {
    pub(super) const fn new(inner: S, limiter: Handles<Limiter>, classifier: C) -> Self {
        Self { inner, limiter, classifier, place: Place::None }
    }
}

impl<S, C, Req> Service<Req> for AdaptiveConcurrency<S, C>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = AdaptiveConcurrencyFuture<S::Future, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        loop {
            self.place = match &mut self.place {
                Place::Taken(_) => break,
                Place::None => match Permit::take(self.limiter.here()) {
                    Some(permit) => Place::Taken(permit),
                    None => Place::Waiting(Turn::join(self.limiter.here())),
                },
                Place::Waiting(turn) => Place::Taken(ready!(turn.poll(cx.waker()))),
            };
        }
        let polled = self.inner.poll_ready(cx);
        if matches!(polled, Poll::Ready(Err(_))) {
            // It will not be called.
            self.place = Place::None;
        }
        polled
    }

    /// # Panics
    ///
    /// If the service was not polled ready, as tower's own limit does.
    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let Place::Taken(permit) = std::mem::replace(&mut self.place, Place::None) else {
            panic!("called without having been polled ready");
        };
        let call = permit.begin();
        AdaptiveConcurrencyFuture::new(self.inner.call(request), call, self.classifier.clone())
    }
}

/// A clone has its own readiness to win.
impl<S: Clone, C: Clone> Clone for AdaptiveConcurrency<S, C> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.limiter.clone(), self.classifier.clone())
    }
}

impl<S: fmt::Debug, C> fmt::Debug for AdaptiveConcurrency<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveConcurrency")
            .field("inner", &self.inner)
            .field("limiter", self.limiter.value())
            .field("has_place", &matches!(self.place, Place::Taken(_)))
            .finish_non_exhaustive()
    }
}
