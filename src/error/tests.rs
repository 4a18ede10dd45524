//! The table, row by row, against what a person would decide.

use std::sync::Arc;

use palisade::{Class, Classified, Effect, Fault, Idempotence, Rejection, SharedError, TimeoutScope};
use scylla::{
    errors::{
        BadQuery, ConnectionPoolError, DbError, ExecutionError, OperationType, PrepareError,
        RequestAttemptError, SchemaAgreementError, WriteType,
    },
    statement::Consistency,
};
use tower::BoxError;

use super::{Error, ErrorKind, ErrorKind as Kind};

fn of_server(error: DbError) -> Error {
    ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, String::new())).into()
}

fn write_types() -> Vec<WriteType> {
    vec![
        WriteType::Simple,
        WriteType::Batch,
        WriteType::UnloggedBatch,
        WriteType::Counter,
        WriteType::BatchLog,
        WriteType::Cas,
        WriteType::View,
        WriteType::Cdc,
        WriteType::Other("NEW".to_owned()),
    ]
}

/// When a failed request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Again {
    Never,
    IfIdempotent,
    Always,
}

use Again::{Always, IfIdempotent, Never};

/// Every error that a server can answer with: its kind, where the fault lies, when to send again, and whether
/// another node may do better.
#[expect(clippy::too_many_lines, reason = "a table")]
fn server_errors() -> Vec<(DbError, Kind, Fault, Again, bool)> {
    let quorum = Consistency::Quorum;
    let mut table = vec![
        (DbError::SyntaxError, Kind::Syntax, Fault::Caller, Never, false),
        (DbError::Invalid, Kind::Invalid, Fault::Caller, Never, false),
        (DbError::ConfigError, Kind::Invalid, Fault::Caller, Never, false),
        (
            DbError::AlreadyExists { keyspace: "k".into(), table: "t".into() },
            Kind::AlreadyExists,
            Fault::Caller,
            Never,
            false,
        ),
        (
            DbError::FunctionFailure { keyspace: "k".into(), function: "f".into(), arg_types: vec![] },
            Kind::FunctionFailure,
            Fault::Caller,
            Never,
            false,
        ),
        (DbError::AuthenticationError, Kind::Authentication, Fault::Caller, Never, false),
        (DbError::Unauthorized, Kind::Unauthorized, Fault::Caller, Never, false),
        (DbError::ProtocolError, Kind::Protocol, Fault::Caller, Never, false),
        (
            DbError::Unavailable { consistency: quorum, required: 2, alive: 1 },
            Kind::Unavailable,
            Fault::Server,
            IfIdempotent,
            true,
        ),
        (DbError::Overloaded, Kind::Overloaded, Fault::Overload, IfIdempotent, true),
        (DbError::IsBootstrapping, Kind::Bootstrapping, Fault::Unreachable, Always, true),
        (DbError::TruncateError, Kind::Truncate, Fault::Server, IfIdempotent, false),
        (DbError::Unprepared { statement_id: Vec::new().into() }, Kind::Server, Fault::Server, Always, true),
        (DbError::ServerError, Kind::Server, Fault::Server, IfIdempotent, true),
        (DbError::Other(0x1600), Kind::Server, Fault::Server, IfIdempotent, false),
        (DbError::Other(0x1700), Kind::Server, Fault::Server, IfIdempotent, false),
    ];
    for data_present in [false, true] {
        for received in [0, 1, 2] {
            table.push((
                DbError::ReadTimeout { consistency: quorum, received, required: 2, data_present },
                Kind::ReadTimeout,
                Fault::Server,
                IfIdempotent,
                true,
            ));
            table.push((
                DbError::ReadFailure {
                    consistency: quorum,
                    received,
                    required: 2,
                    numfailures: 1,
                    data_present,
                },
                Kind::ReadFailure,
                Fault::Server,
                IfIdempotent,
                true,
            ));
        }
    }
    for write_type in write_types() {
        table.push((
            DbError::WriteTimeout {
                consistency: quorum,
                received: 1,
                required: 2,
                write_type: write_type.clone(),
            },
            Kind::WriteTimeout,
            Fault::Server,
            IfIdempotent,
            true,
        ));
        table.push((
            DbError::WriteFailure {
                consistency: quorum,
                received: 1,
                required: 2,
                numfailures: 1,
                write_type,
            },
            Kind::WriteFailure,
            Fault::Server,
            IfIdempotent,
            true,
        ));
    }
    for op_type in [OperationType::Read, OperationType::Write, OperationType::Other(7)] {
        table.push((
            DbError::RateLimitReached { op_type: op_type.clone(), rejected_by_coordinator: true },
            Kind::RateLimited,
            Fault::Overload,
            Always,
            false,
        ));
        table.push((
            DbError::RateLimitReached { op_type, rejected_by_coordinator: false },
            Kind::RateLimited,
            Fault::Overload,
            IfIdempotent,
            false,
        ));
    }
    table
}

/// Every server error, with every write type, for every idempotence.
#[test]
fn a_server_error_is_repeated_only_where_that_can_do_no_harm() {
    for (error, kind, fault, again, elsewhere) in server_errors() {
        let text = format!("{error:?}");
        let error = of_server(error);
        let class = error.class();
        assert_eq!((error.kind(), class.fault()), (kind, fault), "{text}");
        assert_eq!(class.may_do_elsewhere(), elsewhere, "{text}");
        for idempotence in [Idempotence::Yes, Idempotence::No, Idempotence::Unknown] {
            let expected = match again {
                Never => false,
                IfIdempotent => idempotence == Idempotence::Yes,
                Always => true,
            };
            assert_eq!(idempotence.permits(&class), expected, "{text} {idempotence:?}");
        }
        assert_eq!(error.is_retryable(), again != Never, "{text}");
        assert_eq!(error.may_have_been_applied(), again == IfIdempotent, "{text}");
    }
}

/// What may be repeated although it is not idempotent must be certain not to have run.
#[test]
fn every_kind_of_server_error_is_in_the_table() {
    let kinds: std::collections::HashSet<_> = server_errors().iter().map(|row| row.1).collect();
    assert_eq!(kinds.len(), 17);
}

fn pool() -> ConnectionPoolError {
    ConnectionPoolError::Initializing
}

#[test]
fn the_drivers_own_errors_mean_what_they_say() {
    let attempt = |error| Error::from(ExecutionError::LastAttemptError(error));
    let cases: [(&str, Error, Kind, Fault, Effect); 9] = [
        (
            "partition key",
            ExecutionError::BadQuery(BadQuery::PartitionKeyExtraction).into(),
            Kind::Protocol,
            Fault::Server,
            Effect::NotApplied,
        ),
        (
            "keys and values",
            ExecutionError::BadQuery(BadQuery::ValuesTooLongForKey(70_000, 65_535)).into(),
            Kind::Values,
            Fault::Caller,
            Effect::NotApplied,
        ),
        (
            "empty plan",
            ExecutionError::EmptyPlan.into(),
            Kind::Unreachable,
            Fault::Unreachable,
            Effect::NotApplied,
        ),
        (
            "pool",
            ExecutionError::ConnectionPoolError(pool()).into(),
            Kind::Unreachable,
            Fault::Unreachable,
            Effect::NotApplied,
        ),
        (
            "prepare",
            ExecutionError::PrepareError(PrepareError::ConnectionPoolError(pool())).into(),
            Kind::Unreachable,
            Fault::Unreachable,
            Effect::NotApplied,
        ),
        (
            "stream ids",
            attempt(RequestAttemptError::UnableToAllocStreamId),
            Kind::ConnectionFull,
            Fault::Overload,
            Effect::NotApplied,
        ),
        (
            "request timeout",
            ExecutionError::RequestTimeout(std::time::Duration::from_secs(1)).into(),
            Kind::Timeout(TimeoutScope::Attempt),
            Fault::Unreachable,
            Effect::Unknown,
        ),
        (
            "agreement",
            ExecutionError::SchemaAgreementError(SchemaAgreementError::Timeout(std::time::Duration::ZERO))
                .into(),
            Kind::SchemaAgreement,
            Fault::Server,
            Effect::Applied,
        ),
        (
            "reprepared",
            attempt(RequestAttemptError::RepreparedIdMissingInBatch),
            Kind::StaleStatement,
            Fault::Caller,
            Effect::NotApplied,
        ),
    ];
    for (what, error, kind, fault, effect) in cases {
        let class = error.class();
        assert_eq!((error.kind(), class.fault(), class.effect()), (kind, fault, effect), "{what}");
    }
}

/// A statement that could not be prepared was not executed, whatever the server said.
#[test]
fn a_failed_preparation_never_counts_as_applied() {
    for (error, _, fault, ..) in server_errors() {
        let text = format!("{error:?}");
        let first_attempt = RequestAttemptError::DbError(error, String::new());
        let error = Error::from(PrepareError::AllAttemptsFailed { first_attempt });
        assert!(!error.may_have_been_applied(), "{text}");
        assert_eq!(error.class().fault(), fault, "{text}");
        assert_eq!(error.is_retryable(), fault != Fault::Caller, "{text}");
    }
}

fn refusals() -> Vec<Rejection> {
    let second = std::time::Duration::from_secs(1);
    vec![
        Rejection::timed_out(TimeoutScope::Total, second),
        Rejection::timed_out(TimeoutScope::Attempt, second),
        Rejection::timed_out(TimeoutScope::Queue, second),
        Rejection::circuit_open(Some(second)),
        Rejection::rate_limited(Some(second)),
        Rejection::ConcurrencyLimited,
        Rejection::shed(palisade::Priority::Low),
        Rejection::Draining,
        Rejection::Closed,
    ]
}

#[test]
fn a_refusal_means_the_same_typed_and_in_any_number_of_boxes() {
    for rejection in refusals() {
        let typed = Error::from(rejection.clone());
        assert_eq!(typed.class(), rejection.class());
        assert_eq!(typed.rejection().as_ref(), Some(&rejection));

        let boxed: BoxError = rejection.clone().into();
        let from_box = Error::from(boxed);
        let ours_in_a_box: BoxError = Error::from(rejection.clone()).into();
        let unboxed = Error::from(ours_in_a_box);
        let deep: BoxError = Box::new(Wrapper(Box::new(Wrapper(rejection.clone().into()))));
        for error in [from_box, unboxed, Error::from(deep)] {
            assert_eq!((error.kind(), error.class()), (typed.kind(), typed.class()), "{rejection}");
            assert_eq!(error.rejection().as_ref(), Some(&rejection));
        }
    }
}

#[derive(Debug)]
struct Wrapper(BoxError);

impl std::fmt::Display for Wrapper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("wrapped")
    }
}

impl std::error::Error for Wrapper {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

#[test]
fn an_error_of_ours_comes_out_of_a_box_as_it_went_in() {
    let ledger = Arc::default();
    let error = of_server(DbError::Overloaded).with_attempts(&ledger);
    let boxed: BoxError = error.into();
    let out = Error::from(boxed);
    assert_eq!(out.kind(), ErrorKind::Overloaded);
    assert!(out.attempts().is_some());
    assert!(std::error::Error::source(&out).unwrap().is::<ExecutionError>());
}

#[test]
fn an_error_that_several_callers_share_is_the_same_for_each() {
    let ledger = Arc::default();
    let original = of_server(DbError::Overloaded).with_attempts(&ledger);
    let (text, class) = (original.to_string(), original.class());
    let shared = SharedError::new(original);
    let again = SharedError::new(Error::from(shared.clone()));
    let boxed: BoxError = shared.clone().into();
    for error in [Error::from(shared), Error::from(again), Error::from(boxed)] {
        assert_eq!((error.kind(), error.class(), error.to_string()), (Kind::Overloaded, class, text.clone()));
        assert!(error.attempts().is_some());
        assert!(std::error::Error::source(&error).unwrap().is::<ExecutionError>());
    }
    let refused = Error::from(SharedError::new(Rejection::Draining));
    assert_eq!(
        (refused.kind(), refused.class(), refused.rejection()),
        (Kind::Refused, Rejection::Draining.class(), Some(Rejection::Draining))
    );
}

#[test]
fn an_unknown_error_in_a_box_is_kept_as_the_source() {
    let error = Error::from(BoxError::from("what is this"));
    assert_eq!((error.kind(), error.class()), (Kind::Other, Class::new(Fault::Server, Effect::Unknown)));
    assert_eq!(error.to_string(), "what is this");
}

#[test]
fn an_error_is_one_pointer() {
    assert_eq!(size_of::<Error>(), size_of::<usize>());
}

#[test]
fn a_node_that_a_filter_rejects_cannot_be_reached_and_the_error_says_whose_filter_it_may_be() {
    let error: Error =
        ExecutionError::ConnectionPoolError(ConnectionPoolError::NodeDisabledByHostFilter).into();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(!error.may_have_been_applied() && error.is_retryable());
    assert!(error.to_string().contains("a filter rejects nodes for good if it is yours"), "{error}");
}
