use std::{
    convert::Infallible,
    fmt,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Response, StatusCode, header::RETRY_AFTER};
use pin_project_lite::pin_project;
use tower::{BoxError, Layer, Service};

use crate::Rejection;

/// A layer that answers errors with an HTTP response, so that nothing but responses leaves the service.
///
/// A refusal is answered as [`status`] says, with `Retry-After` in whole seconds where a time is known. Any
/// other error is answered with 500, and logged: its text may tell strangers more than they should know. The
/// refusal's text is the body.
///
/// Place it outermost, and [`box_errors`](crate::box_errors) innermost:
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use palisade::{DeadlineLayer, TimeoutLayer, box_errors, respond};
/// use tower::ServiceBuilder;
///
/// let app: Router = Router::new().route("/", get(|| async { "hello" })).layer(
///     ServiceBuilder::new()
///         .layer(respond())
///         .layer(DeadlineLayer::new(Duration::from_secs(2)))
///         .layer(TimeoutLayer::new(Duration::from_millis(500)))
///         .layer(box_errors()),
/// );
/// ```
///
/// Readiness is that of the service, except that a failure to become ready is answered too.
pub const fn respond() -> RespondLayer {
    RespondLayer(())
}

/// The status for a refusal: 504 where time ran out under way, else 503.
///
/// A wait for a place that took too long is 503: the request never reached the service.
pub const fn status(rejection: &Rejection) -> StatusCode {
    match rejection {
        Rejection::TimedOut { scope: crate::TimeoutScope::Total | crate::TimeoutScope::Attempt, .. } => {
            StatusCode::GATEWAY_TIMEOUT
        }
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// See [`respond`].
#[derive(Clone, Copy, Debug)]
pub struct RespondLayer(());

impl<S> Layer<S> for RespondLayer {
    type Service = Respond<S>;

    fn layer(&self, inner: S) -> Respond<S> {
        Respond { inner, broken: None }
    }
}

/// A service that answers its own errors. See [`respond`].
pub struct Respond<S> {
    inner: S,
    // Why the service could not become ready; the next call is answered with it.
    broken: Option<BoxError>,
}

impl<S: Clone> Clone for Respond<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), broken: None }
    }
}

impl<S: fmt::Debug> fmt::Debug for Respond<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Respond").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, Req, B> Service<Req> for Respond<S>
where
    S: Service<Req, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: From<String>,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = RespondFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.broken.is_some() {
            return Poll::Ready(Ok(()));
        }
        self.inner.poll_ready(cx).map(|ready| {
            self.broken = ready.err().map(Into::into);
            Ok(())
        })
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let state = match self.broken.take() {
            None => State::Calling { future: self.inner.call(request) },
            Some(error) => State::Broken { error: Some(error) },
        };
        RespondFuture { state, body: PhantomData }
    }
}

pin_project! {
    /// The future of a [`Respond`] service.
    pub struct RespondFuture<F, B> {
        #[pin]
        state: State<F>,
        body: PhantomData<fn() -> B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Calling { #[pin] future: F },
        Broken { error: Option<BoxError> },
    }
}

impl<F, B> fmt::Debug for RespondFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RespondFuture")
    }
}

impl<F, B, Err> Future for RespondFuture<F, B>
where
    F: Future<Output = Result<Response<B>, Err>>,
    Err: Into<BoxError>,
    B: From<String>,
{
    type Output = Result<Response<B>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let error = match self.project().state.project() {
            StateProj::Calling { future } => match future.poll(cx) {
                Poll::Ready(Ok(response)) => return Poll::Ready(Ok(response)),
                Poll::Ready(Err(error)) => error.into(),
                Poll::Pending => return Poll::Pending,
            },
            StateProj::Broken { error } => match error.take() {
                Some(error) => error,
                None => return Poll::Pending,
            },
        };
        Poll::Ready(Ok(answer(&error)))
    }
}

fn answer<B: From<String>>(error: &BoxError) -> Response<B> {
    let Some(rejection) = Rejection::find(&**error) else {
        tracing::error!(%error, "request failed");
        return with_status(StatusCode::INTERNAL_SERVER_ERROR, "internal error".to_owned());
    };
    let mut response = with_status(status(&rejection), rejection.to_string());
    if let Some(wait) = rejection.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, whole_seconds(wait));
    }
    response
}

fn with_status<B: From<String>>(status: StatusCode, text: String) -> Response<B> {
    let mut response = Response::new(B::from(text));
    *response.status_mut() = status;
    response
}

/// Rounded up, and never zero: a client that came back too early would be refused again.
fn whole_seconds(wait: Duration) -> HeaderValue {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(seconds.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TimeoutScope;

    fn answered(error: impl Into<BoxError>) -> (u16, Option<String>, String) {
        let response: Response<String> = answer(&error.into());
        let retry_after = response.headers().get(RETRY_AFTER);
        (
            response.status().as_u16(),
            retry_after.map(|value| value.to_str().unwrap().to_owned()),
            response.into_body(),
        )
    }

    #[test]
    fn a_refusal_is_answered_by_its_kind() {
        let second = Duration::from_secs(1);
        assert_eq!(answered(Rejection::timed_out(TimeoutScope::Total, second)).0, 504);
        assert_eq!(answered(Rejection::timed_out(TimeoutScope::Attempt, second)).0, 504);
        assert_eq!(answered(Rejection::timed_out(TimeoutScope::Queue, second)).0, 503);
        assert_eq!(answered(Rejection::Draining).0, 503);
        assert_eq!(answered(Rejection::throttled(None)).0, 503);
        assert_eq!(answered(tower::timeout::error::Elapsed::new()).0, 504);
        assert_eq!(answered(tower::load_shed::error::Overloaded::new()).0, 503);
    }

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        let header = |millis| answered(Rejection::rate_limited(Some(Duration::from_millis(millis)))).1;
        assert_eq!(header(0).as_deref(), Some("1"));
        assert_eq!(header(1_001).as_deref(), Some("2"));
        assert_eq!(answered(Rejection::rate_limited(None)).1, None);
    }

    #[test]
    fn a_foreign_error_does_not_tell_strangers_its_text() {
        let (status, _, body) = answered("password=hunter2");
        assert_eq!((status, body.as_str()), (500, "internal error"));
    }
}
