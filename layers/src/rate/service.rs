use std::{
    fmt,
    task::{Context, Poll},
};

use tower::Service;

use super::{EachOne, Limiter, RateLimitFuture, Weigh, limiter::Asked};
use crate::{
    Rejection,
    keyed::{Partition, Single},
    readiness::{Inner, ReadyCall},
    until::{NoDeadline, Until},
};

/// A service that is called at a limited rate. See the [module](super) for more.
#[derive(Clone)]
pub struct RateLimit<S, P = Single<Limiter>, W = EachOne, D = NoDeadline> {
    inner: Inner<S>,
    limiter: P,
    weight: W,
    until: D,
}

impl<S, P, W, D> RateLimit<S, P, W, D> {
    pub(super) const fn new(inner: S, limiter: P, weight: W, until: D) -> Self {
        Self { inner: Inner::new(inner), limiter, weight, until }
    }
}

impl<S, P, W, D, Req> Service<Req> for RateLimit<S, P, W, D>
where
    P: Partition<Req, State = Limiter>,
    W: Weigh<Req>,
    D: Until<Req>,
    S: Service<Req> + Clone,
    S::Error: From<Rejection>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RateLimitFuture<S, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let weight = self.weight.weigh(&request);
        let at_once = self.inner.is_ready();
        let asked = self
            .limiter
            .with(&request, |limiter| limiter.ask(weight, at_once, || self.until.until(&request)));
        match asked {
            Asked::Admitted => RateLimitFuture::calling(self.inner.call(request), None),
            Asked::Holding(held) => RateLimitFuture::calling(self.inner.call(request), Some(held)),
            Asked::Waiting(turn) => {
                let call = ReadyCall::of(self.inner.without_a_place(), request);
                RateLimitFuture::waiting(call, turn)
            }
            Asked::Refused(rejection) => {
                self.inner.give_up_place();
                RateLimitFuture::refused(rejection)
            }
        }
    }
}

impl<S: fmt::Debug, P: fmt::Debug, W, D> fmt::Debug for RateLimit<S, P, W, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit")
            .field("inner", &self.inner)
            .field("limiter", &self.limiter)
            .finish_non_exhaustive()
    }
}
