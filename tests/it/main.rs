//! The crate against a real Cassandra.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_input;
mod client;
mod cluster;
mod composition;
mod connect;
mod datacenters;
mod failover;
mod faults;
mod health;
mod idempotence;
mod layers;
mod load;
mod prepared;
#[cfg(feature = "stack")]
#[path = "../../layers/tests/it/process.rs"]
mod process;
mod proxy;
mod revive;
mod routing;
#[cfg(feature = "stack")]
mod service;
mod spans;
#[cfg(feature = "stack")]
mod stack;
mod storm;
mod telemetry;
mod topology;
mod types;
