//! What an error at connecting means, in words that say what to do.

use std::{error::Error as StdError, io};

use palisade::{Class, Effect, Fault};
use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, NewSessionError,
    UseKeyspaceError,
};

use super::{Cause, Error, ErrorKind, table};

impl Error {
    /// Judges why the driver could not build a session with these contact points.
    pub(crate) fn connecting(error: NewSessionError, contact_points: &[String], tls: bool) -> Self {
        let points = contact_points.join(", ");
        let (row, message) = judge(&error, &points, tls);
        Self::new(row, Cause::Connect(error, message))
    }

    /// Whether another try at connecting may succeed.
    pub(crate) fn is_worth_another_try(&self) -> bool {
        self.0.class.fault() != Fault::Caller
    }
}

fn judge(error: &NewSessionError, points: &str, tls: bool) -> (table::Row, String) {
    let caller = |kind| (kind, Class::new(Fault::Caller, Effect::NotApplied));
    if let NewSessionError::UseKeyspaceError(error) = error {
        let row = match error {
            UseKeyspaceError::BadKeyspaceName(_) => caller(ErrorKind::Invalid),
            UseKeyspaceError::RequestError(error) => table::attempt(error),
            _ => unreachable(),
        };
        let advice = if row.0 == ErrorKind::Invalid { "; create it first" } else { "" };
        return (row, format!("the keyspace cannot be used: {error}{advice}"));
    }
    if let NewSessionError::FailedToResolveAnyHostname(names) = error {
        let names = names.join(", ");
        return (unreachable(), format!("no contact point has an address: check the name of {names}"));
    }
    if let NewSessionError::EmptyKnownNodesList | NewSessionError::IllegalConfig(_) = error {
        return (caller(ErrorKind::Config), error.to_string());
    }
    match root(error) {
        Root::Credentials => (
            caller(ErrorKind::Authentication),
            format!("{points} refused the user or password: check `credentials(user, password)`"),
        ),
        Root::NoCredentials => (
            caller(ErrorKind::Authentication),
            format!("{points} asks for a user and password: set `credentials(user, password)`"),
        ),
        Root::Refused => (
            unreachable(),
            format!("nothing listens at {points}: check the address and port, and that the node is up"),
        ),
        Root::Unknown if tls => (
            unreachable(),
            format!(
                "no session with {points}: {error}; check that the node speaks TLS on this port, that its \
                 certificate names this address, and that `tls` trusts its issuer"
            ),
        ),
        Root::Unknown => {
            (unreachable(), format!("no session with {points}: {error}; if the node requires TLS, set `tls`"))
        }
    }
}

const fn unreachable() -> table::Row {
    (ErrorKind::Connect, Class::new(Fault::Unreachable, Effect::NotApplied))
}

enum Root {
    Credentials,
    NoCredentials,
    Refused,
    Unknown,
}

/// Looks for the cause below the driver's wrappers.
fn root(error: &NewSessionError) -> Root {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        // What broke the pool is in it, but is not named as its source.
        if let Some(ConnectionPoolError::Broken { last_connection_error }) = error.downcast_ref() {
            return of_connection(last_connection_error);
        }
        next = error.source();
    }
    Root::Unknown
}

fn of_connection(error: &ConnectionError) -> Root {
    match error {
        ConnectionError::IoError(io) if io.kind() == io::ErrorKind::ConnectionRefused => Root::Refused,
        ConnectionError::ConnectionSetupRequestError(setup) => match &setup.error {
            ConnectionSetupRequestErrorKind::DbError(DbError::AuthenticationError, _) => Root::Credentials,
            ConnectionSetupRequestErrorKind::MissingAuthentication => Root::NoCredentials,
            _ => Root::Unknown,
        },
        _ => Root::Unknown,
    }
}
