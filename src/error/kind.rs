use std::fmt;

use palisade::{Rejection, TimeoutScope};

/// What kind of error an [`Error`](super::Error) is: when it occurs, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    // Before anything is sent.
    /// A setting makes no sense. The message names it. Mend the configuration.
    Config,
    /// The values do not fit the statement: their number, a type, or their size. Mend the call.
    Values,
    /// The caller calls a statement idempotent that is provably not. Remove the flag.
    NotIdempotent,

    // Connecting.
    /// No contact point could be reached, or none gave the cluster's topology. Check addresses, and TLS.
    Connect,
    /// User or password is wrong or missing. Check the credentials.
    Authentication,

    // Refusals of the layers, and limits on time.
    /// Time ran out on the client's side. What a write did meanwhile is not known, unless the scope is
    /// [`Queue`](TimeoutScope::Queue): then it was never sent.
    Timeout(TimeoutScope),
    /// A layer refused the request before it was sent: an open circuit, an exhausted limit, a shed request, a
    /// drain. Come back later; [`Class::retry_after`](palisade::Class::retry_after) says when, where it is known.
    Refused,

    // Answers of a coordinator.
    /// Not enough replicas are up for the consistency level. A write of a single partition was not done; of several,
    /// some may be. Lower the level or wait.
    Unavailable,
    /// The coordinator has too much to do. Send less.
    Overloaded,
    /// ScyllaDB's per-partition rate limit is reached. Send less to this partition.
    RateLimited,
    /// The node is still joining the ring. Another can answer.
    Bootstrapping,
    /// Not enough replicas answered the coordinator in time for a read. Safe to repeat where it was one: a counter
    /// update and a conditional write read too.
    ReadTimeout,
    /// Not enough replicas answered the coordinator in time for a write. It may be applied later.
    WriteTimeout,
    /// A replica failed at a read.
    ReadFailure,
    /// A replica failed at a write. It may be applied on others.
    WriteFailure,
    /// TRUNCATE failed on a replica.
    Truncate,
    /// The statement cannot be parsed. Mend it.
    Syntax,
    /// The statement makes no sense here: an unknown table, column or keyspace, for example. Mend it.
    Invalid,
    /// The user may not do this.
    Unauthorized,
    /// The keyspace or table exists already. Add `IF NOT EXISTS` if that is fine.
    AlreadyExists,
    /// A user-defined function failed.
    FunctionFailure,
    /// The server failed inside, or refuses for reasons of its configuration.
    Server,

    // Connections.
    /// No connection to a node could be had, or it broke before an answer came.
    Unreachable,
    /// A connection has no room for another request: more than 32,768 are in flight on it.
    ConnectionFull,
    /// Driver and server do not understand each other.
    Protocol,
    /// The server knows the statement by another id since its schema changed. [`Client`](crate::Client) prepares it
    /// anew by itself; who binds statements has to.
    StaleStatement,

    // After the statement was carried out.
    /// The schema was changed, but the nodes did not agree on it in time. Wait, do not repeat.
    SchemaAgreement,
    /// The rows cannot be read as asked: the wrong types, or none at all. Mend the call.
    Rows,
    /// The result has more pages than allowed. Use `execute_page`, or raise `max_pages`.
    TooManyPages,

    /// Something else; see the source.
    Other,
}

impl ErrorKind {
    /// What the refusal of a layer is.
    pub(super) const fn of(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::TimedOut { scope, .. } => Self::Timeout(*scope),
            _ => Self::Refused,
        }
    }

    /// The kind as a metric label or span field.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Values => "values",
            Self::NotIdempotent => "not_idempotent",
            Self::Connect => "connect",
            Self::Authentication => "authentication",
            Self::Timeout(TimeoutScope::Total) => "timeout",
            Self::Timeout(TimeoutScope::Queue) => "queue_timeout",
            Self::Timeout(_) => "attempt_timeout",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
            Self::RateLimited => "rate_limited",
            Self::Bootstrapping => "bootstrapping",
            Self::ReadTimeout => "read_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::ReadFailure => "read_failure",
            Self::WriteFailure => "write_failure",
            Self::Truncate => "truncate",
            Self::Syntax => "syntax",
            Self::Invalid => "invalid",
            Self::Unauthorized => "unauthorized",
            Self::AlreadyExists => "already_exists",
            Self::FunctionFailure => "function_failure",
            Self::Server => "server",
            Self::Unreachable => "unreachable",
            Self::ConnectionFull => "connection_full",
            Self::Protocol => "protocol",
            Self::StaleStatement => "stale_statement",
            Self::SchemaAgreement => "schema_agreement",
            Self::Rows => "rows",
            Self::TooManyPages => "too_many_pages",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
