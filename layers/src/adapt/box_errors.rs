use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::{BoxError, Layer, Service};

/// A layer that turns the error of a service into a [`BoxError`].
///
/// Readiness, and everything else, is that of the service.
///
/// ```
/// use std::{convert::Infallible, time::Duration};
/// use palisade::{TimeoutLayer, box_errors};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let service = ServiceBuilder::new()
///     .layer(TimeoutLayer::new(Duration::from_secs(1)))
///     .layer(box_errors())
///     .service(service_fn(|n: u32| async move { Ok::<_, Infallible>(n + 1) }));
/// assert_eq!(service.oneshot(1).await.unwrap(), 2);
/// # }
/// ```
pub const fn box_errors() -> BoxErrorsLayer {
    BoxErrorsLayer(())
}

/// See [`box_errors`].
#[derive(Clone, Copy, Debug)]
pub struct BoxErrorsLayer(());

impl<S> Layer<S> for BoxErrorsLayer {
    type Service = BoxErrors<S>;

    fn layer(&self, inner: S) -> BoxErrors<S> {
        BoxErrors { inner }
    }
}

/// A service whose error is a [`BoxError`]. See [`box_errors`].
#[derive(Clone, Copy, Debug)]
pub struct BoxErrors<S> {
    inner: S,
}

impl<S, Req> Service<Req> for BoxErrors<S>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxErrorsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        BoxErrorsFuture { inner: self.inner.call(request) }
    }
}

pin_project! {
    /// The future of a [`BoxErrors`] service.
    #[derive(Debug)]
    pub struct BoxErrorsFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F, Res, Err> Future for BoxErrorsFuture<F>
where
    F: Future<Output = Result<Res, Err>>,
    Err: Into<BoxError>,
{
    type Output = Result<Res, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(self.project().inner.poll(cx));
        Poll::Ready(outcome.map_err(Into::into))
    }
}
