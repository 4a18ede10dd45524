use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower::Service;

use super::bulkhead::{Permit, Turn};
use crate::{Rejection, admission::AdmittedCall, readiness::ReadyCall};

pin_project! {
    /// The future of a [`ConcurrencyLimit`](super::ConcurrencyLimit) service.
    pub struct ConcurrencyLimitFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        call: AdmittedCall<S, Req, Turn>,
    }
}

impl<S, Req> ConcurrencyLimitFuture<S, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) const fn calling(call: ReadyCall<S, Req>, permit: Permit) -> Self {
        Self { call: AdmittedCall::calling(call, Some(permit)) }
    }

    pub(super) const fn waiting(call: ReadyCall<S, Req>, turn: Turn) -> Self {
        Self { call: AdmittedCall::waiting(call, turn) }
    }

    pub(super) const fn refused(rejection: Rejection) -> Self {
        Self { call: AdmittedCall::refused(rejection) }
    }
}

impl<S, Req> Future for ConcurrencyLimitFuture<S, Req>
where
    S: Service<Req>,
    S::Error: From<Rejection>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().call.poll(cx)
    }
}

impl<S, Req> fmt::Debug for ConcurrencyLimitFuture<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimitFuture").field("stage", &self.call.stage()).finish_non_exhaustive()
    }
}
