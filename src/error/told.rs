//! What an error tells without being taken apart, whatever its type.

use std::error::Error as StdError;

use palisade::{Rejection, SharedError};
use scylla::{
    errors::{DbError, ExecutionError, PrepareError, RequestAttemptError},
    frame::protocol_features::ProtocolFeatures,
};
use tower::BoxError;

use super::{Cause, Error, ErrorKind, row_of};

/// An error that tells what kind it is, for layers that keep the error of the service below as it is.
#[diagnostic::on_unimplemented(
    message = "the error `{Self}` does not tell an `ErrorKind`",
    note = "the errors of this crate do, and boxed ones; implement `HasErrorKind` for one of your own"
)]
pub trait HasErrorKind {
    /// What kind of error it is.
    fn error_kind(&self) -> ErrorKind;

    /// The code of the error that the server has answered with, if that is what it is.
    fn server_code(&self) -> Option<i32> {
        None
    }
}

impl HasErrorKind for Error {
    fn error_kind(&self) -> ErrorKind {
        self.kind()
    }

    fn server_code(&self) -> Option<i32> {
        match self.cause() {
            Cause::Execution(error) => of_execution(error),
            Cause::Prepare(error) => of_preparation(error),
            Cause::Other(error) => find(&**error)?.server_code(),
            _ => None,
        }
    }
}

impl HasErrorKind for Rejection {
    fn error_kind(&self) -> ErrorKind {
        ErrorKind::of(self)
    }
}

impl HasErrorKind for SharedError {
    fn error_kind(&self) -> ErrorKind {
        row_of(self).0
    }

    fn server_code(&self) -> Option<i32> {
        find(self)?.server_code()
    }
}

/// As what is found inside.
impl HasErrorKind for BoxError {
    fn error_kind(&self) -> ErrorKind {
        row_of(&**self).0
    }

    fn server_code(&self) -> Option<i32> {
        find(&**self)?.server_code()
    }
}

/// The first error of ours among an error and its sources.
fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref() {
            return Some(ours);
        }
        next = error.source();
    }
    None
}

fn of_execution(error: &ExecutionError) -> Option<i32> {
    match error {
        ExecutionError::LastAttemptError(error) => of_attempt(error),
        ExecutionError::PrepareError(error) => of_preparation(error),
        _ => None,
    }
}

fn of_preparation(error: &PrepareError) -> Option<i32> {
    match error {
        PrepareError::AllAttemptsFailed { first_attempt } => of_attempt(first_attempt),
        _ => None,
    }
}

fn of_attempt(error: &RequestAttemptError) -> Option<i32> {
    match error {
        // Its code is agreed upon by each connection.
        RequestAttemptError::DbError(DbError::RateLimitReached { .. }, _) => None,
        RequestAttemptError::DbError(error, _) => Some(error.code(&ProtocolFeatures::default())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use palisade::TimeoutScope;

    use super::*;

    fn answered(error: DbError) -> Error {
        let error = RequestAttemptError::DbError(error, String::new());
        ExecutionError::LastAttemptError(error).into()
    }

    #[test]
    fn an_error_tells_the_same_whatever_it_is_wrapped_in() {
        let told = |error: &dyn HasErrorKind| (error.error_kind(), error.server_code());
        let overloaded = || answered(DbError::Overloaded);
        let expected = (ErrorKind::Overloaded, Some(0x1001));
        assert_eq!(told(&overloaded()), expected);
        assert_eq!(told(&BoxError::from(overloaded())), expected);
        assert_eq!(told(&SharedError::new(overloaded())), expected);
        assert_eq!(told(&BoxError::from(SharedError::new(overloaded()))), expected);
        assert_eq!(told(&Error::from(SharedError::new(overloaded()))), expected);

        let late = || Rejection::timed_out(TimeoutScope::Total, std::time::Duration::ZERO);
        let expected = (ErrorKind::Timeout(TimeoutScope::Total), None);
        assert_eq!(told(&late()), expected);
        assert_eq!(told(&Error::from(late())), expected);
        assert_eq!(told(&BoxError::from(late())), expected);
        assert_eq!(told(&BoxError::from("anything")), (ErrorKind::Other, None));
    }

    #[test]
    fn a_code_that_is_agreed_upon_is_not_guessed() {
        use scylla::errors::OperationType;
        let limited =
            DbError::RateLimitReached { op_type: OperationType::Read, rejected_by_coordinator: true };
        assert_eq!(answered(limited).server_code(), None);
        assert_eq!(answered(DbError::Other(0x1600)).server_code(), Some(0x1600));
    }
}
