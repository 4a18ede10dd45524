//! The one table that says what each error of the driver means.
//!
//! Everything that decides by an error (retries, breakers, throttles, metrics) decides by this table. A row is a
//! kind and a class; the class says where the fault lies and what the statement did.
//!
//! Two rules stand behind the rows. An effect is `NotApplied` only where it is certain: the statement never left,
//! or the coordinator refused it before it sent anything to a replica. And `Unknown` costs little, since what is
//! idempotent may be repeated after it.

use palisade::{Class, Effect, Fault};
use scylla::errors::{
    BadQuery, BrokenConnectionError, BrokenConnectionErrorKind, ConnectionPoolError, DbError, ExecutionError,
    PrepareError, RequestAttemptError,
};

use super::ErrorKind;

/// What an error is and means.
pub(super) type Row = (ErrorKind, Class);

const fn caller(kind: ErrorKind) -> Row {
    (kind, Class::new(Fault::Caller, Effect::NotApplied))
}

const fn server(kind: ErrorKind, effect: Effect) -> Row {
    (kind, Class::new(Fault::Server, effect))
}

const fn overload(kind: ErrorKind, effect: Effect) -> Row {
    (kind, Class::new(Fault::Overload, effect))
}

const fn unreachable(kind: ErrorKind, effect: Effect) -> Row {
    (kind, Class::new(Fault::Unreachable, effect))
}

/// Another node may do better.
const fn elsewhere((kind, class): Row) -> Row {
    (kind, class.elsewhere())
}

pub(super) fn execution(error: &ExecutionError) -> Row {
    match error {
        ExecutionError::BadQuery(error) => bad_query(error),
        // No node to ask: a datacenter without nodes, or a filter that leaves none.
        ExecutionError::EmptyPlan => unreachable(ErrorKind::Unreachable, Effect::NotApplied),
        ExecutionError::PrepareError(error) => prepare(error),
        ExecutionError::ConnectionPoolError(error) => pool(error),
        ExecutionError::LastAttemptError(error) => attempt(error),
        ExecutionError::RequestTimeout(_) => {
            let kind = ErrorKind::Timeout(palisade::TimeoutScope::Attempt);
            elsewhere(unreachable(kind, Effect::Unknown))
        }
        // The statement itself went through; what the driver did afterwards failed.
        ExecutionError::SchemaAgreementError(_) => server(ErrorKind::SchemaAgreement, Effect::Applied),
        ExecutionError::UseKeyspaceError(_) | ExecutionError::MetadataError(_) => {
            server(ErrorKind::Server, Effect::Applied)
        }
        _ => server(ErrorKind::Other, Effect::Unknown),
    }
}

fn bad_query(error: &BadQuery) -> Row {
    match error {
        BadQuery::PartitionKeyExtraction => server(ErrorKind::Protocol, Effect::NotApplied),
        _ => caller(ErrorKind::Values),
    }
}

pub(super) fn prepare(error: &PrepareError) -> Row {
    never_executed(match error {
        PrepareError::ConnectionPoolError(error) => pool(error),
        PrepareError::AllAttemptsFailed { first_attempt } => attempt(first_attempt),
        _ => server(ErrorKind::Protocol, Effect::NotApplied),
    })
}

/// Whatever went wrong, a statement that was not even prepared was not executed.
pub(super) const fn never_executed((kind, class): Row) -> Row {
    let row = (kind, Class::new(class.fault(), Effect::NotApplied));
    if matches!(class.fault(), Fault::Caller) { row } else { elsewhere(row) }
}

pub(super) fn pool(_: &ConnectionPoolError) -> Row {
    // Broken, still connecting or filtered out: there was no connection to send it on.
    elsewhere(unreachable(ErrorKind::Unreachable, Effect::NotApplied))
}

pub(super) fn attempt(error: &RequestAttemptError) -> Row {
    match error {
        RequestAttemptError::SerializationError(_) | RequestAttemptError::CqlRequestSerialization(_) => {
            caller(ErrorKind::Values)
        }
        RequestAttemptError::UnableToAllocStreamId => {
            elsewhere(overload(ErrorKind::ConnectionFull, Effect::NotApplied))
        }
        RequestAttemptError::BrokenConnectionError(error) => broken(error),
        RequestAttemptError::DbError(error, _) => database(error),
        // Nothing ran, and sending the same again is of no use: the statement has to be prepared anew.
        RequestAttemptError::RepreparedIdChanged { .. } | RequestAttemptError::RepreparedIdMissingInBatch => {
            caller(ErrorKind::StaleStatement)
        }
        // An answer came, but nobody could read it.
        _ => server(ErrorKind::Protocol, Effect::Unknown),
    }
}

fn broken(error: &BrokenConnectionError) -> Row {
    let fault = match error.downcast_ref::<BrokenConnectionErrorKind>() {
        // The driver gives a connection up when too many answers are overdue on it.
        Some(BrokenConnectionErrorKind::TooManyOrphanedStreamIds(_)) => Fault::Overload,
        _ => Fault::Unreachable,
    };
    elsewhere((ErrorKind::Unreachable, Class::new(fault, Effect::Unknown)))
}

/// The errors of the CQL protocol, section 9 of its specification.
pub(super) fn database(error: &DbError) -> Row {
    match error {
        DbError::SyntaxError => caller(ErrorKind::Syntax),
        DbError::Invalid | DbError::ConfigError => caller(ErrorKind::Invalid),
        DbError::AlreadyExists { .. } => caller(ErrorKind::AlreadyExists),
        DbError::FunctionFailure { .. } => caller(ErrorKind::FunctionFailure),
        DbError::AuthenticationError => caller(ErrorKind::Authentication),
        DbError::Unauthorized => caller(ErrorKind::Unauthorized),
        DbError::ProtocolError => caller(ErrorKind::Protocol),

        // A coordinator checks each partition just before it writes it: the first may be written when the second has
        // too few replicas. And a conditional write has several phases, of which an earlier one may have had its
        // effect.
        DbError::Unavailable { .. } => elsewhere(server(ErrorKind::Unavailable, Effect::Unknown)),
        // Cassandra also raises it while it sends to replicas, when it has too many hints to write.
        DbError::Overloaded => elsewhere(overload(ErrorKind::Overloaded, Effect::Unknown)),
        DbError::RateLimitReached { rejected_by_coordinator, .. } => {
            let effect = if *rejected_by_coordinator { Effect::NotApplied } else { Effect::Unknown };
            overload(ErrorKind::RateLimited, effect)
        }
        DbError::IsBootstrapping => elsewhere(unreachable(ErrorKind::Bootstrapping, Effect::NotApplied)),
        DbError::Unprepared { .. } => elsewhere(server(ErrorKind::Server, Effect::NotApplied)),

        // Whatever the write type says, some replica may have it, or get it from a batch log or a hint.
        DbError::WriteTimeout { .. } => elsewhere(server(ErrorKind::WriteTimeout, Effect::Unknown)),
        DbError::WriteFailure { .. } => elsewhere(server(ErrorKind::WriteFailure, Effect::Unknown)),
        // Also raised by the read that a counter update or a conditional write begins with.
        DbError::ReadTimeout { .. } => elsewhere(server(ErrorKind::ReadTimeout, Effect::Unknown)),
        DbError::ReadFailure { .. } => elsewhere(server(ErrorKind::ReadFailure, Effect::Unknown)),
        DbError::TruncateError => server(ErrorKind::Truncate, Effect::Unknown),
        DbError::ServerError => elsewhere(server(ErrorKind::Server, Effect::Unknown)),
        // 0x1600 (CDC log full), 0x1700 (outcome of a conditional write unknown) and what is to come.
        _ => server(ErrorKind::Server, Effect::Unknown),
    }
}
