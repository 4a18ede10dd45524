//! The span of an operation.

use std::{net::SocketAddr, sync::Arc};

use palisade::{Idempotence, Instant};
use scylla::statement::Consistency;
use tracing::{
    Span,
    field::{self, Empty},
};

use super::QueryText;
use crate::{
    ledger::{Attempt, Ledger, Outcome},
    request::Request,
    response::Response,
};

/// A span, and where the attempts are noted that are to be told at its end.
pub(super) struct Recording {
    span: Span,
    ledger: Arc<Ledger>,
}

impl Recording {
    /// The span of a request, unless nobody wants it.
    #[inline]
    pub(super) fn begin(request: &Request, text: QueryText) -> Option<Box<Self>> {
        let name = request.operation();
        let span = tracing::info_span!(
            target: "tower_cassandra",
            "cassandra.operation",
            otel.name = name.summary(),
            otel.kind = "client",
            otel.status_code = Empty,
            "error.type" = Empty,
            db.system.name = "cassandra",
            db.operation.name = name.name(),
            db.namespace = name.keyspace(),
            db.collection.name = name.table(),
            db.query.summary = name.summary(),
            db.query.text = text.of(request),
            // One statement is no batch.
            db.operation.batch.size = Some(request.statements()).filter(|size| *size > 1),
            db.response.status_code = Empty,
            db.response.returned_rows = Empty,
            server.address = Empty,
            server.port = Empty,
            cassandra.consistency.level = request.consistency().map(level),
            cassandra.query.idempotent = request.idempotence() == Idempotence::Yes,
            cassandra.page.size = request.options.page_size,
            cassandra.coordinator.id = Empty,
            cassandra.coordinator.dc = Empty,
            cassandra.attempt.count = Empty,
            cassandra.speculative_execution.count = Empty,
            // Told by a failover below.
            cassandra.failover.datacenter = Empty,
        );
        if span.is_disabled() {
            return None;
        }
        Some(Box::new(Self { span, ledger: Arc::clone(request.ledger()) }))
    }

    pub(super) fn in_scope<T>(&self, work: impl FnOnce() -> T) -> T {
        self.span.in_scope(work)
    }

    pub(super) fn succeeded(&self, since: Instant, response: &Response) {
        self.attempts(since);
        if response.is_rows() {
            self.span.record("db.response.returned_rows", response.rows_num());
        }
        if let Some(coordinator) = response.coordinator() {
            self.server(coordinator.connection_address());
            let node = coordinator.node();
            self.span.record("cassandra.coordinator.id", field::display(node.host_id));
            if let Some(datacenter) = &node.datacenter {
                self.span.record("cassandra.coordinator.dc", datacenter.as_str());
            }
        }
    }

    /// The text of an error is not told: the server repeats in it what it has been sent.
    pub(super) fn failed(&self, since: Instant, error_type: &'static str, server_code: Option<i32>) {
        if let Some(node) = self.attempts(since) {
            self.server(node);
        }
        self.span.record("otel.status_code", "ERROR");
        self.span.record("error.type", error_type);
        if let Some(code) = server_code {
            self.span.record("db.response.status_code", format!("{code:#06x}"));
        }
    }

    /// Tells of the attempts that were made, and returns the node of the last one.
    fn attempts(&self, since: Instant) -> Option<SocketAddr> {
        // Earlier steps of the same call are in the ledger too.
        let mut attempts = self.ledger.attempts();
        attempts.retain(|attempt| attempt.started >= since);
        self.span.record("cassandra.attempt.count", attempts.len());
        self.span.record("cassandra.speculative_execution.count", speculative(&attempts));
        attempts.last()?.node
    }

    fn server(&self, node: SocketAddr) {
        self.span.record("server.address", field::display(node.ip()));
        self.span.record("server.port", node.port());
    }
}

/// How many attempts began while an earlier one was still under way.
fn speculative(attempts: &[Attempt]) -> usize {
    let overlaps = |(at, later): (usize, &Attempt)| {
        attempts[..at].iter().any(|earlier| match earlier.outcome {
            Outcome::Succeeded(after) | Outcome::Failed(_, after) | Outcome::Abandoned(after) => {
                earlier.started + after > later.started
            }
            Outcome::Pending => true,
        })
    };
    attempts.iter().enumerate().filter(|attempt| overlaps(*attempt)).count()
}

/// The name of a level as OpenTelemetry has it.
fn level(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Any => "any",
        Consistency::One => "one",
        Consistency::Two => "two",
        Consistency::Three => "three",
        Consistency::Quorum => "quorum",
        Consistency::All => "all",
        Consistency::LocalQuorum => "local_quorum",
        Consistency::EachQuorum => "each_quorum",
        Consistency::LocalOne => "local_one",
        Consistency::Serial => "serial",
        Consistency::LocalSerial => "local_serial",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{error::ErrorKind, request::Kind};

    #[test]
    fn an_attempt_is_speculative_if_it_began_beside_another() {
        let began = Instant::now();
        let at = |millis: u64, outcome| Attempt {
            kind: Kind::Read,
            node: None,
            host_id: None,
            passed_over: Vec::new(),
            datacenter: None,
            started: began + Duration::from_millis(millis),
            outcome,
        };
        let millis = Duration::from_millis;
        let retried = [
            at(0, Outcome::Failed(ErrorKind::Overloaded, millis(5))),
            at(5, Outcome::Abandoned(millis(300))),
            at(305, Outcome::Succeeded(millis(1))),
        ];
        assert_eq!(speculative(&retried), 0);
        let hedged = [at(0, Outcome::Abandoned(millis(60))), at(50, Outcome::Succeeded(millis(10)))];
        assert_eq!(speculative(&hedged), 1);
        let twice = [
            at(0, Outcome::Pending),
            at(50, Outcome::Failed(ErrorKind::Overloaded, millis(1))),
            at(60, Outcome::Succeeded(millis(10))),
        ];
        assert_eq!(speculative(&twice), 2);
        assert_eq!(speculative(&[]), 0);
    }
}
