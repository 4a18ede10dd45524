//! The layers around services that do what a test tells them, on a clock that a test moves.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod adaptive;
mod axum;
mod breaker;
mod budget;
mod checker;
mod coalesce;
mod composition;
mod concurrency;
mod contract;
mod deadline;
mod drain;
mod events;
mod graceful;
mod hedge;
mod hyper;
mod measure;
mod metrics;
mod middleware;
mod process;
mod rate;
mod recorded;
mod retry;
mod shed;
mod throttle;
mod timeout;
mod tonic;
mod trace;
