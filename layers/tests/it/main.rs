//! The layers around services that do what a test tells them, on a clock that a test moves.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod axum;
mod breaker;
mod composition;
mod concurrency;
mod contract;
mod deadline;
mod hedge;
mod leaf;
mod metrics;
mod rate;
mod retry;
mod timeout;
