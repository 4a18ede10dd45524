use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower::Service;

use super::{TelemetryFuture, call::Call, layer::Shared, span::Recording};
use crate::{error::HasErrorKind, request::Request, response::Response};

/// A service whose operations are counted, timed and traced. See the [module](super) for more.
#[derive(Clone)]
pub struct Telemetry<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Telemetry<S> {
    pub(super) const fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S> Service<Request> for Telemetry<S>
where
    S: Service<Request, Response = Response>,
    S::Error: HasErrorKind,
{
    type Response = Response;
    type Error = S::Error;
    type Future = TelemetryFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request) -> Self::Future {
        let series = Arc::clone(self.shared.book.series(request.operation()));
        let mut call = Call::begin(series, Recording::begin(&request, self.shared.text));
        let inner = call.inside(|| self.inner.call(request));
        TelemetryFuture::new(inner, call)
    }
}

impl<S: fmt::Debug> fmt::Debug for Telemetry<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("inner", &self.inner).field("shared", &self.shared).finish()
    }
}
