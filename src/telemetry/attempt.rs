//! The span of one attempt at a node.

use std::{net::SocketAddr, sync::Arc};

use tracing::{
    Span,
    field::{self, Empty},
};

use crate::{
    error::{Error, HasErrorKind},
    nodes::Node,
    request::Request,
};

/// The span of an attempt that begins now.
#[inline]
pub(crate) fn attempt_span(request: &Request) -> Span {
    tracing::debug_span!(
        target: "tower_cassandra",
        "cassandra.attempt",
        kind = request.kind().as_str(),
        otel.kind = "internal",
        otel.status_code = Empty,
        "error.type" = Empty,
        db.response.status_code = Empty,
        network.peer.address = Empty,
        network.peer.port = Empty,
        cassandra.coordinator.id = Empty,
        cassandra.coordinator.dc = Empty,
    )
}

/// Tells which node was asked, and how the attempt ended.
pub(crate) fn record_attempt<T>(
    span: &Span,
    address: Option<SocketAddr>,
    node: Option<&Arc<Node>>,
    outcome: &Result<T, Error>,
) {
    if let Some(address) = address {
        span.record("network.peer.address", field::display(address.ip()));
        span.record("network.peer.port", address.port());
    }
    if let Some(node) = node {
        span.record("cassandra.coordinator.id", field::display(node.host_id()));
        if let Some(datacenter) = node.datacenter() {
            span.record("cassandra.coordinator.dc", datacenter);
        }
    }
    if let Err(error) = outcome {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", error.kind().as_str());
        if let Some(code) = error.server_code() {
            span.record("db.response.status_code", format!("{code:#06x}"));
        }
    }
}
