//! What clients ask for, and what can go wrong with it.

use std::{fmt, time::Duration};

use palisade::{
    Class, Classified, Effect, Fault, HasDeadline, HasPriority, Idempotence, Instant, Priority, Rejection,
    Repeat, SharedError, Why,
};
use tower::BoxError;

/// A read of one key, which may be repeated.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// What is read.
    pub key: u32,
    /// How much the caller cares.
    pub priority: Priority,
    deadline: Option<Instant>,
}

impl Call {
    /// A read of `key`.
    pub const fn new(key: u32, priority: Priority) -> Self {
        Self { key, priority, deadline: None }
    }
}

impl HasDeadline for Call {
    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn shorten_deadline(&mut self, at: Instant) {
        self.deadline = Some(self.deadline.map_or(at, |deadline| deadline.min(at)));
    }
}

impl HasPriority for Call {
    fn priority(&self) -> Priority {
        self.priority
    }
}

impl Repeat for Call {
    fn repeat(&self, why: Why) -> Option<Self> {
        match why {
            Why::Retry(class) => Idempotence::Yes.permits(&class).then_some(*self),
            _ => Some(*self),
        }
    }
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// The server has no room, and says so.
    Overloaded,
    /// The server tried and failed.
    Failed,
    /// Nobody listens there.
    Unreachable,
    /// A layer in front of the server refused, or gave up.
    Refused(Rejection),
}

impl Error {
    /// What came out of a stack with tower's own layers.
    // By value, as `map_err` wants it.
    #[allow(clippy::needless_pass_by_value, reason = "a function for `map_err`")]
    pub fn unboxed(error: BoxError) -> Self {
        let mut sources =
            std::iter::successors(Some(&*error as &(dyn std::error::Error + 'static)), |error| {
                error.source()
            });
        match (sources.find_map(|error| error.downcast_ref::<Self>()), Rejection::find(&*error)) {
            (Some(error), _) => error.clone(),
            (None, Some(rejection)) => Self::Refused(rejection),
            (None, None) => Self::Failed,
        }
    }

    /// The same error as it arrives at the other end of a wire: the client does not know which layer of the server's it was.
    #[must_use]
    pub fn over_the_wire(self) -> Self {
        if self.class().is_refused_here() { Self::Overloaded } else { self }
    }
}

impl From<SharedError> for Error {
    fn from(shared: SharedError) -> Self {
        Self::unboxed(shared.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overloaded => "the server is overloaded",
            Self::Failed => "the server failed",
            Self::Unreachable => "nobody listens",
            Self::Refused(_) => "refused",
        })
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(rejection) => Some(rejection),
            _ => None,
        }
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(rejection)
    }
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Overloaded => Class::new(Fault::Overload, Effect::NotApplied),
            Self::Failed => Class::new(Fault::Server, Effect::NotApplied),
            Self::Unreachable => Class::new(Fault::Unreachable, Effect::NotApplied).elsewhere(),
            Self::Refused(rejection) => rejection.class(),
        }
    }
}

/// How long anybody waits for an answer in all simulations: twenty times and more of what an answer usually takes.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// How long one attempt may take: what fits three times into [`PATIENCE`].
pub const ATTEMPT: Duration = Duration::from_millis(300);
