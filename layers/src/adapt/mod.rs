//! Adaptors for services whose error cannot hold a refusal.
//!
//! The layers need `S::Error: From<Rejection>`. Where the service's error is
//! [`Infallible`](std::convert::Infallible) (an axum route, a tonic server) or a foreign type, place
//! [`box_errors`] innermost: it turns the error into a [`BoxError`](tower::BoxError), which holds both. For a
//! server, `respond` (feature `http`) outermost then answers a refusal with 503 or 504.

mod box_errors;
#[cfg(feature = "http")]
mod respond;

pub use self::box_errors::{BoxErrors, BoxErrorsFuture, BoxErrorsLayer, box_errors};
#[cfg(feature = "http")]
pub use self::respond::{Respond, RespondFuture, RespondLayer, respond, status};
