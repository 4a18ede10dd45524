//! What an error is over HTTP.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use tower_cassandra::{
    Error, ErrorKind,
    layers::{Classified, status},
};

/// A failure as it is answered.
pub(crate) enum Failure {
    /// The cluster, or a layer before it.
    Cassandra(Error),
    /// The caller asked for what cannot be.
    Caller(StatusCode, String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Cassandra(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = match self {
            Self::Caller(status, text) => return (status, text + "\n").into_response(),
            Self::Cassandra(error) => error,
        };
        let status = match error.rejection() {
            // What a layer refused by itself: 504 where time ran out, else 503.
            Some(rejection) => status(&rejection),
            None if error.is_timeout() => StatusCode::GATEWAY_TIMEOUT,
            None if error.is_overload() || error.kind() == ErrorKind::Unavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            None if error.kind() == ErrorKind::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
            None => StatusCode::INTERNAL_SERVER_ERROR,
        };
        // Its text names nodes and statements, which is for us and not for callers.
        tracing::warn!(%error, %status, "a request failed");
        let reason = status.canonical_reason().unwrap_or_default();
        let mut response = (status, format!("{reason}\n")).into_response();
        if let Some(wait) = error.class().retry_after() {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
