//! The one error type of this crate.

mod connect;
mod kind;
mod table;
#[cfg(test)]
mod tests;
mod told;

use std::{error::Error as StdError, fmt, sync::Arc};

use palisade::{Class, Classified, ConfigError, Effect, Fault, Idempotence, Rejection, SharedError};
use scylla::errors::{
    ConnectionPoolError, ExecutionError, NewSessionError, PrepareError, SerializationError,
};
use tower::BoxError;

pub use self::{kind::ErrorKind, told::HasErrorKind};
use crate::{idempotence::Contradiction, ledger::Ledger};

/// Whatever can go wrong, the same for every operation.
///
/// [`kind`](Error::kind) tells what happened and what to do about it; questions such as
/// [`may_have_been_applied`](Error::may_have_been_applied) answer what callers decide by; the source is the
/// driver's own error. [`attempts`](Error::attempts) lists every node that was asked.
///
/// An `Error` can hold a layer's [`Rejection`], so that all layers stack on a service with this error. And it can
/// be made of a [`BoxError`]: behind layers that box errors, such as tower's `Buffer`, the original is found
/// inside.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    class: Class,
    cause: Cause,
    ledger: Option<Arc<Ledger>>,
    // What else was tried, or why nothing was.
    note: Option<Arc<str>>,
}

enum Cause {
    Execution(ExecutionError),
    Prepare(PrepareError),
    Connect(NewSessionError, String),
    Values(SerializationError),
    Rejection(Rejection),
    Config(ConfigError),
    Contradiction(Contradiction),
    Other(BoxError),
    Message(String),
    // Holds an `Error`.
    Shared(SharedError),
}

impl Error {
    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether time ran out, on the client's side or on the server's.
    pub fn is_timeout(&self) -> bool {
        matches!(self.kind(), ErrorKind::Timeout(_) | ErrorKind::ReadTimeout | ErrorKind::WriteTimeout)
    }

    /// Whether something had more to do than it could: the cluster, a node, a connection, or a limit.
    pub fn is_overload(&self) -> bool {
        self.0.class.fault() == Fault::Overload
    }

    /// Whether the same request may succeed if sent again, provided that it is idempotent.
    pub fn is_retryable(&self) -> bool {
        Idempotence::Yes.permits(&self.0.class)
    }

    /// Whether the statement may have been carried out, or may still be.
    ///
    /// `false` is certain: nothing was done and nothing will be.
    pub fn may_have_been_applied(&self) -> bool {
        self.0.class.effect() != Effect::NotApplied
    }

    /// The refusal of a layer, of this crate's or of tower's, if that is what this is.
    pub fn rejection(&self) -> Option<Rejection> {
        Rejection::find(self)
    }

    /// The nodes that were asked on behalf of the request, and how each attempt ended.
    ///
    /// `None` where no request was under way, or where nobody attached it: [`Client`](crate::Client) does, and in
    /// a bare stack a [`LedgerLayer`](crate::ledger::LedgerLayer).
    pub fn attempts(&self) -> Option<&Ledger> {
        self.0.ledger.as_deref()
    }

    /// Attaches the attempts of the request that failed, unless some are attached already.
    pub fn with_attempts(mut self, ledger: &Arc<Ledger>) -> Self {
        self.0.ledger.get_or_insert_with(|| Arc::clone(ledger));
        self
    }

    /// Adds what else was tried, or why nothing was.
    pub(crate) fn with_note(mut self, note: impl Into<Arc<str>>) -> Self {
        self.0.note = Some(note.into());
        self
    }

    fn new((kind, class): table::Row, cause: Cause) -> Self {
        Self(Box::new(Inner { kind, class, cause, ledger: None, note: None }))
    }

    fn of_other(error: BoxError) -> Self {
        Self::new(row_of(&*error), Cause::Other(error))
    }

    /// The caller asked for what cannot be. Nothing was sent.
    pub(crate) fn caller(kind: ErrorKind, message: impl Into<String>) -> Self {
        let class = Class::new(Fault::Caller, Effect::NotApplied);
        Self::new((kind, class), Cause::Message(message.into()))
    }

    /// The answer came, and cannot be used as asked.
    pub(crate) fn answer(kind: ErrorKind, message: impl Into<String>) -> Self {
        let class = Class::new(Fault::Caller, Effect::Applied);
        Self::new((kind, class), Cause::Message(message.into()))
    }

    /// The statement was carried out; what had to follow failed.
    pub(crate) fn after(kind: ErrorKind, message: impl Into<String>) -> Self {
        let class = Class::new(Fault::Server, Effect::Applied);
        Self::new((kind, class), Cause::Message(message.into()))
    }

    /// A statement that was only to be described could not even be prepared. Nothing was carried out.
    pub(crate) fn undescribed(error: ExecutionError) -> Self {
        let (kind, class) = table::execution(&error);
        Self::new(table::never_executed((kind, class)), Cause::Execution(error))
    }

    /// One more attempt could cost a connection, on which others wait. Nothing was sent.
    pub(crate) fn full() -> Self {
        let class = Class::new(Fault::Overload, Effect::NotApplied).refused_here();
        let message = "so many attempts at each node were given up unanswered that one more could cost the connection: \
                       wait until they answer, or allow for longer attempts";
        Self::new((ErrorKind::ConnectionFull, class), Cause::Message(message.into()))
    }

    /// Too few replicas are known to be up for it. Nothing was sent.
    pub(crate) fn unservable(message: impl Into<String>) -> Self {
        let class = Class::new(Fault::Server, Effect::NotApplied).refused_here();
        Self::new((ErrorKind::Unavailable, class), Cause::Message(message.into()))
    }

    /// No session could be had. Nothing was sent.
    pub(crate) fn unconnected(message: impl Into<String>) -> Self {
        let class = Class::new(Fault::Unreachable, Effect::NotApplied);
        Self::new((ErrorKind::Connect, class), Cause::Message(message.into()))
    }

    /// What caused it, also where it is shared.
    fn cause(&self) -> &Cause {
        match &self.0.cause {
            Cause::Shared(shared) => shared.downcast_ref::<Self>().map_or(&self.0.cause, Self::cause),
            cause => cause,
        }
    }

    /// Whether the statement has to be prepared and bound anew, because the server knows it by another id now.
    pub(crate) fn is_stale_statement(&self) -> bool {
        self.kind() == ErrorKind::StaleStatement
    }
}

impl Classified for Error {
    fn class(&self) -> Class {
        self.0.class
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause() {
            Cause::Execution(error) => error.fmt(f),
            Cause::Prepare(error) => write!(f, "the statement could not be prepared: {error}"),
            Cause::Connect(_, message) | Cause::Message(message) => f.write_str(message),
            Cause::Values(error) => write!(f, "the values do not fit the statement: {error}"),
            Cause::Rejection(rejection) => rejection.fmt(f),
            Cause::Config(error) => write!(f, "invalid configuration: {error}"),
            Cause::Contradiction(error) => error.fmt(f),
            Cause::Other(error) => error.fmt(f),
            Cause::Shared(error) => error.fmt(f),
        }?;
        if let Some(note) = &self.0.note {
            write!(f, "; {note}")?;
        }
        match &self.0.ledger {
            Some(ledger) if !ledger.is_empty() => write!(f, " ({ledger})"),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("class", &self.0.class)
            .field("message", &format_args!("{self}"))
            .finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self.cause() {
            Cause::Execution(error) => Some(error),
            Cause::Prepare(error) => Some(error),
            Cause::Connect(error, _) => Some(error),
            Cause::Values(error) => Some(error),
            Cause::Rejection(rejection) => Some(rejection),
            Cause::Config(error) => Some(error),
            Cause::Contradiction(error) => Some(error),
            Cause::Other(error) => Some(&**error),
            Cause::Shared(error) => Some(error),
            Cause::Message(_) => None,
        }
    }
}

/// Why the driver speaks of a host filter where nobody has set one.
const DISABLED: &str = "a filter rejects nodes for good if it is yours, and for a moment while a node that is back is connected to anew";

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Self::new((ErrorKind::of(&rejection), rejection.class()), Cause::Rejection(rejection))
    }
}

impl From<ExecutionError> for Error {
    fn from(error: ExecutionError) -> Self {
        let is_disabled = matches!(
            error,
            ExecutionError::ConnectionPoolError(ConnectionPoolError::NodeDisabledByHostFilter)
        );
        let error = Self::new(table::execution(&error), Cause::Execution(error));
        if is_disabled { error.with_note(DISABLED) } else { error }
    }
}

impl From<PrepareError> for Error {
    fn from(error: PrepareError) -> Self {
        Self::new(table::prepare(&error), Cause::Prepare(error))
    }
}

impl From<SerializationError> for Error {
    fn from(error: SerializationError) -> Self {
        let class = Class::new(Fault::Caller, Effect::NotApplied);
        Self::new((ErrorKind::Values, class), Cause::Values(error))
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        let class = Class::new(Fault::Caller, Effect::NotApplied);
        Self::new((ErrorKind::Config, class), Cause::Config(error))
    }
}

impl From<Contradiction> for Error {
    fn from(error: Contradiction) -> Self {
        let class = Class::new(Fault::Caller, Effect::NotApplied);
        Self::new((ErrorKind::NotIdempotent, class), Cause::Contradiction(error))
    }
}

/// The same error as the original in every respect: its kind, its meaning, its sources, and the attempts that are attached to it.
impl From<SharedError> for Error {
    fn from(shared: SharedError) -> Self {
        let Some(original) = shared.downcast_ref::<Self>() else {
            return Self::of_other(Box::new(shared));
        };
        let Inner { kind, class, ref ledger, ref note, .. } = *original.0;
        let (ledger, note) = (ledger.clone(), note.clone());
        Self(Box::new(Inner { kind, class, cause: Cause::Shared(shared), ledger, note }))
    }
}

impl From<BoxError> for Error {
    /// Takes the error that is in the box. Where that is not ours, but one of ours or a refusal is found among its
    /// sources, the result means what that means; anything else is of kind [`Other`](ErrorKind::Other).
    fn from(boxed: BoxError) -> Self {
        match boxed.downcast::<Self>() {
            Ok(error) => *error,
            Err(boxed) => match boxed.downcast::<SharedError>() {
                Ok(shared) => (*shared).into(),
                Err(boxed) => Self::of_other(boxed),
            },
        }
    }
}

/// What an error of somebody else's means by what is found among its sources.
fn row_of(error: &(dyn StdError + 'static)) -> table::Row {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref::<Error>() {
            return (ours.0.kind, ours.0.class);
        }
        next = error.source();
    }
    match Rejection::find(error) {
        Some(rejection) => (ErrorKind::of(&rejection), rejection.class()),
        None => (ErrorKind::Other, Class::new(Fault::Server, Effect::Unknown)),
    }
}
