#![doc = include_str!("../README.md")]

mod batch;
mod client;
mod connect;
mod cql;
mod error;
pub mod failover;
pub mod health;
pub mod idempotence;
mod leaf;
pub mod ledger;
mod limits;
pub mod nodes;
mod prepared;
pub mod request;
mod response;
mod revive;
pub mod routing;
mod service;
#[cfg(feature = "stack")]
pub mod stack;
mod statement;
pub mod telemetry;
mod timeouts;
mod timestamp;
#[cfg(feature = "rustls")]
mod tls;

/// The layers: all of [`palisade`].
pub mod layers {
    pub use palisade::*;
}

/// The driver, whose types appear in this crate's interface: consistency levels, values, rows.
pub use scylla;

#[cfg(feature = "stack")]
pub use self::stack::{StackConfig, StandardStack};
#[cfg(feature = "rustls")]
pub use self::tls::Tls;
pub use self::{
    batch::Batch,
    client::{BoxClient, BoxStack, BoxStackFuture, Client},
    connect::CassandraBuilder,
    error::{Error, ErrorKind, HasErrorKind},
    ledger::Ledger,
    prepared::Prepared,
    request::{Kind, ReadKey, Request},
    response::Response,
    service::{Cassandra, ResponseFuture},
    statement::Statement,
    telemetry::{OperationName, TelemetryLayer},
    timeouts::Timeouts,
};
