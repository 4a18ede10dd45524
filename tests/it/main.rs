//! The crate against a real Cassandra.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed, and one that does not run says so"
)]

mod bad_input;
mod client;
mod cluster;
mod composition;
mod connect;
mod faults;
mod idempotence;
mod prepared;
mod proxy;
