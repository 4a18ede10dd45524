use std::{
    fmt,
    task::{Context, Poll},
};

use tower::Service;

use super::{ThrottleFuture, Valve};
use crate::{
    ByError, Rejection,
    class::Classify,
    keyed::{Partition, Single},
    readiness::Inner,
};

/// A service that is asked less when it is overloaded. See the [module](super) for more.
pub struct Throttle<S, C = ByError, P = Single<Valve>> {
    inner: Inner<S>,
    valves: P,
    classifier: C,
}

impl<S, C, P> Throttle<S, C, P> {
    pub(super) const fn new(inner: S, valves: P, classifier: C) -> Self {
        Self { inner: Inner::new(inner), valves, classifier }
    }
}

impl<S, C, P, Req> Service<Req> for Throttle<S, C, P>
where
    S: Service<Req> + Clone,
    S::Error: From<Rejection>,
    C: Classify<S::Response, S::Error> + Clone,
    P: Partition<Req, State = Valve>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ThrottleFuture<S, C, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        match self.valves.with(&request, Valve::ask) {
            Ok(valve) => ThrottleFuture::passed(self.inner.call(request), valve, self.classifier.clone()),
            Err(retry_after) => {
                self.inner.give_up_place();
                ThrottleFuture::refused(retry_after, self.classifier.clone())
            }
        }
    }
}

impl<S: Clone, C: Clone, P: Clone> Clone for Throttle<S, C, P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), valves: self.valves.clone(), classifier: self.classifier.clone() }
    }
}

impl<S: fmt::Debug, C, P: fmt::Debug> fmt::Debug for Throttle<S, C, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle")
            .field("inner", &self.inner)
            .field("valves", &self.valves)
            .finish_non_exhaustive()
    }
}
