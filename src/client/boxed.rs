//! A stack that does not name its layers in its type.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tower::{Service, util::ServiceExt};

use crate::{error::Error, request::Request, response::Response};

/// A stack of layers behind one pointer.
///
/// A clone counts one up and allocates nothing. A call allocates once, for its future, in which the stack is cloned, readied and
/// called; tower's `BoxCloneSyncService` allocates for each clone as well, and a [`Client`](crate::Client) clones for each call.
///
/// Readiness: always ready; waits inside its future. It hides the readiness of what is below: to shed load on readiness, place that
/// below.
#[derive(Clone)]
pub struct BoxStack(Arc<dyn Stack>);

type Answer = Pin<Box<dyn Future<Output = Result<Response, Error>> + Send>>;

trait Stack: Send + Sync {
    fn answer(&self, request: Request) -> Answer;
}

struct Of<S>(S);

impl<S> Stack for Of<S>
where
    S: Service<Request, Response = Response> + Clone + Send + Sync + 'static,
    S::Error: Into<Error>,
    S::Future: Send,
{
    fn answer(&self, request: Request) -> Answer {
        let stack = self.0.clone();
        Box::pin(async move { stack.oneshot(request).await.map_err(Into::into) })
    }
}

impl BoxStack {
    /// Puts a stack behind a pointer.
    pub fn new<S>(stack: S) -> Self
    where
        S: Service<Request, Response = Response> + Clone + Send + Sync + 'static,
        S::Error: Into<Error>,
        S::Future: Send + 'static,
    {
        Self(Arc::new(Of(stack)))
    }
}

impl Service<Request> for BoxStack {
    type Response = Response;
    type Error = Error;
    type Future = BoxStackFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> BoxStackFuture {
        BoxStackFuture(self.0.answer(request))
    }
}

impl fmt::Debug for BoxStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxStack")
    }
}

/// The future of a [`BoxStack`].
pub struct BoxStackFuture(Answer);

impl Future for BoxStackFuture {
    type Output = Result<Response, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for BoxStackFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxStackFuture")
    }
}
