use std::{
    fmt,
    task::{Context, Poll},
};

use tower::Service;

use super::{BreakerFuture, Circuit, permit::Watched};
use crate::{
    ByError, Rejection,
    class::Classify,
    clock::Instant,
    keyed::{Partition, Single},
    readiness::Inner,
};

/// A service behind a circuit breaker. See the [module](super) for more.
pub struct CircuitBreaker<S, C = ByError, P = Single<Circuit>> {
    inner: Inner<S>,
    circuits: P,
    classifier: C,
}

impl<S, C, P> CircuitBreaker<S, C, P> {
    pub(super) const fn new(inner: S, circuits: P, classifier: C) -> Self {
        Self { inner: Inner::new(inner), circuits, classifier }
    }
}

impl<S, C, P, Req> Service<Req> for CircuitBreaker<S, C, P>
where
    S: Service<Req> + Clone,
    S::Error: From<Rejection>,
    C: Classify<S::Response, S::Error> + Clone,
    P: Partition<Req, State = Circuit>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BreakerFuture<S, C, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let now = Instant::now();
        let admitted = self
            .circuits
            .with(&request, |circuit| circuit.admit(now).map(|ticket| Watched::new(circuit, ticket)));
        match admitted {
            Ok(watched) => {
                BreakerFuture::admitted(self.inner.call(request), watched, self.classifier.clone())
            }
            Err(retry_after) => {
                self.inner.give_up_place();
                BreakerFuture::refused(retry_after, self.classifier.clone())
            }
        }
    }
}

impl<S: Clone, C: Clone, P: Clone> Clone for CircuitBreaker<S, C, P> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            circuits: self.circuits.clone(),
            classifier: self.classifier.clone(),
        }
    }
}

impl<S: fmt::Debug, C, P: fmt::Debug> fmt::Debug for CircuitBreaker<S, C, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("inner", &self.inner)
            .field("circuits", &self.circuits)
            .finish_non_exhaustive()
    }
}
