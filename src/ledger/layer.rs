use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::Ledger;
use crate::{error::Error, request::Request};

/// Attaches the attempts of a request to its error. Place it outermost in a stack that is called without a
/// [`Client`](crate::Client), which does the same by itself.
///
/// Readiness is that of the service below.
#[derive(Clone, Copy, Debug, Default)]
pub struct LedgerLayer;

impl<S> Layer<S> for LedgerLayer {
    type Service = LedgerService<S>;

    fn layer(&self, inner: S) -> LedgerService<S> {
        LedgerService { inner }
    }
}

/// A service whose errors name the nodes that were asked. See [`LedgerLayer`].
#[derive(Clone, Copy, Debug)]
pub struct LedgerService<S> {
    inner: S,
}

impl<S> Service<Request> for LedgerService<S>
where
    S: Service<Request>,
    S::Error: Into<Error>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = LedgerFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let ledger = Arc::clone(request.ledger());
        LedgerFuture { inner: self.inner.call(request), ledger }
    }
}

pin_project! {
    /// The future of a [`LedgerService`].
    #[derive(Debug)]
    pub struct LedgerFuture<F> {
        #[pin]
        inner: F,
        ledger: Arc<Ledger>,
    }
}

impl<F, Res, Err> Future for LedgerFuture<F>
where
    F: Future<Output = Result<Res, Err>>,
    Err: Into<Error>,
{
    type Output = Result<Res, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let outcome = ready!(this.inner.poll(cx));
        Poll::Ready(outcome.map_err(|error| error.into().with_attempts(this.ledger)))
    }
}
