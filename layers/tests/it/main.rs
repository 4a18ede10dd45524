//! The layers around services that do what a test tells them, on a clock that a test moves.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod axum;
mod budget;
mod checker;
mod composition;
mod contract;
mod deadline;
mod hyper;
mod measure;
mod metrics;
mod middleware;
mod recorded;
mod retry;
mod timeout;
mod tonic;
mod trace;
