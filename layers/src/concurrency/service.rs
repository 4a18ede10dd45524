use std::{
    fmt,
    task::{Context, Poll},
};

use tower::Service;

use super::{Bulkhead, ConcurrencyLimitFuture, bulkhead::Asked};
use crate::{
    Rejection,
    keyed::{Partition, Single},
    readiness::{Inner, ReadyCall},
    until::{NoDeadline, Until},
};

/// A service of which so many calls are in flight at most. See the [module](super) for more.
#[derive(Clone)]
pub struct ConcurrencyLimit<S, P = Single<Bulkhead>, D = NoDeadline> {
    inner: Inner<S>,
    bulkhead: P,
    until: D,
}

impl<S, P, D> ConcurrencyLimit<S, P, D> {
    pub(super) const fn new(inner: S, bulkhead: P, until: D) -> Self {
        Self { inner: Inner::new(inner), bulkhead, until }
    }
}

impl<S, P, D, Req> Service<Req> for ConcurrencyLimit<S, P, D>
where
    P: Partition<Req, State = Bulkhead>,
    D: Until<Req>,
    S: Service<Req> + Clone,
    S::Error: From<Rejection>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ConcurrencyLimitFuture<S, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let asked =
            self.bulkhead.with(&request, |bulkhead| Bulkhead::ask(bulkhead, || self.until.until(&request)));
        match asked {
            Asked::Admitted(permit) => ConcurrencyLimitFuture::calling(self.inner.call(request), permit),
            Asked::Waiting(turn) => {
                let call = ReadyCall::of(self.inner.without_a_place(), request);
                ConcurrencyLimitFuture::waiting(call, turn)
            }
            Asked::Refused(rejection) => {
                self.inner.give_up_place();
                ConcurrencyLimitFuture::refused(rejection)
            }
        }
    }
}

impl<S: fmt::Debug, P: fmt::Debug, D> fmt::Debug for ConcurrencyLimit<S, P, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimit")
            .field("inner", &self.inner)
            .field("bulkhead", &self.bulkhead)
            .finish_non_exhaustive()
    }
}
