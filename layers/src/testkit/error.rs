use std::{fmt, time::Duration};

use crate::{Class, Classified, Effect, Fault, Rejection, SharedError, TimeoutScope};

/// A failure of the service after which nobody knows whether the request was applied.
pub const AMBIGUOUS: Class = Class::new(Fault::Server, Effect::Unknown);

/// An overload: the request was surely not applied.
pub const NOT_APPLIED: Class = Class::new(Fault::Overload, Effect::NotApplied);

/// A bad request.
pub const CALLER: Class = Class::new(Fault::Caller, Effect::NotApplied);

/// A typed error, as a service of your own would have it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A layer refused the call.
    Refused(Rejection),
    /// The leaf failed at it. The number is that of the call, from 1: it tells errors apart.
    Failed(Class, u32),
    /// The leaf has broken down and will never be ready again: see [`Leaf::break_down`](super::Leaf::break_down).
    Broken,
}

impl Error {
    /// The refusal of a call that timed out.
    pub fn timed_out(scope: TimeoutScope, limit: Duration) -> Self {
        Rejection::timed_out(scope, limit).into()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(_) => f.write_str("refused"),
            Self::Failed(class, call) => write!(f, "call {call} failed: {}", class.fault().as_str()),
            Self::Broken => f.write_str("broken for good"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(rejection) => Some(rejection),
            Self::Failed(..) | Self::Broken => None,
        }
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(rejection)
    }
}

impl From<SharedError> for Error {
    /// The exact original.
    ///
    /// # Panics
    ///
    /// If the original is none of these, which no layer makes of one.
    fn from(shared: SharedError) -> Self {
        match shared.downcast_ref() {
            Some(original) => Self::clone(original),
            None => panic!("not an error of the test kit's: {shared}"),
        }
    }
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Refused(rejection) => rejection.class(),
            Self::Failed(class, _) => *class,
            Self::Broken => Class::new(Fault::Unreachable, Effect::NotApplied),
        }
    }
}
