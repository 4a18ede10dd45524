//! What a request can tell the layers: small traits, of which a layer asks only for what it uses.
//!
//! | trait | asked for by | says |
//! | --- | --- | --- |
//! | [`HasDeadline`] | deadline, retry | until when the answer is of use |
//! | [`HasPriority`] | shedding | how important it is |
//! | [`Repeat`] | retry, hedge | whether it may be sent once more |
//!
//! A type of your own implements what it can. [`Envelope`] lends all three to any type that has none, and the
//! feature `http` gives them to [`http::Request`](https://docs.rs/http).

use std::fmt;

use crate::{
    class::{Class, Effect, Fault},
    clock::Instant,
};

/// A request that knows until when its answer is of use.
#[diagnostic::on_unimplemented(
    message = "the request `{Self}` cannot carry a deadline",
    note = "implement `palisade::HasDeadline` for it, or send `palisade::Envelope::new(request)`"
)]
pub trait HasDeadline {
    /// The instant after which nobody waits for the answer any more.
    fn deadline(&self) -> Option<Instant>;

    /// Brings the deadline forward to `at`. A deadline that is already earlier stays: a deadline is never
    /// extended.
    fn shorten_deadline(&mut self, at: Instant);

    /// Tells that a layer enforces the deadline from here on, so that a service further in, which would enforce it
    /// otherwise, need not arm a timer of its own. Does nothing by default.
    fn deadline_is_enforced(&mut self) {}

    /// Takes the deadline off: a layer enforces it from here on, and hands inward a request whose answer others wait for as well, some of
    /// them longer. The caller still ends at the deadline. Does nothing by default: then the answer may fail to come for those others.
    fn lift_deadline(&mut self) {}
}

/// How important a request is, the most important first in [`Ord`]'s sense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Priority {
    /// Work that nobody waits for: it can be done another day.
    Background,
    /// Work that can be repeated later, such as a prefetch.
    Low,
    /// What a person waits for. The default.
    #[default]
    Normal,
    /// What must be served last of all to be refused.
    Critical,
}

impl Priority {
    /// The priority as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Background => "background",
            Self::Low => "low",
            Self::Normal => "normal",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request that knows how important it is.
#[diagnostic::on_unimplemented(
    message = "the request `{Self}` has no priority",
    note = "implement `palisade::HasPriority` for it, or send `palisade::Envelope::new(request)`"
)]
pub trait HasPriority {
    /// How important the request is.
    fn priority(&self) -> Priority;
}

/// Whether applying a request twice leaves the same state as applying it once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Idempotence {
    /// It does: the request may be repeated even if it may have been applied.
    Yes,
    /// It does not: a repeat could apply it twice.
    No,
    /// Nobody knows. Treated as `No`.
    #[default]
    Unknown,
}

impl Idempotence {
    /// Whether a request that failed as `class` says may be sent again.
    ///
    /// | fault | effect | repeat |
    /// | --- | --- | --- |
    /// | none, caller | any | never |
    /// | server, overload, unreachable | not applied | always |
    /// | server, overload, unreachable | unknown | only if idempotent |
    /// | server, overload, unreachable | applied | never |
    pub const fn permits(self, class: &Class) -> bool {
        match (class.fault(), class.effect()) {
            (Fault::None | Fault::Caller, _) | (_, Effect::Applied) => false,
            (_, Effect::NotApplied) => true,
            (_, Effect::Unknown) => matches!(self, Self::Yes),
        }
    }
}

/// Why a layer asks for a copy of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// To keep it aside before the first attempt, in case it is needed.
    Spare,
    /// To send it again, after an attempt that failed in this way.
    Retry(Class),
    /// To send it a second time while the first attempt is still under way.
    Hedge,
}

/// A request that says in one place whether it may be sent once more.
///
/// It stands in for `Clone`, which knows nothing of idempotence, of a body that can be read only once, or of
/// a transaction that must never race with itself.
///
/// ```
/// use palisade::{Idempotence, Repeat, Why};
///
/// struct Read { key: u64 }
///
/// impl Repeat for Read {
///     fn repeat(&self, why: Why) -> Option<Self> {
///         let allowed = match why {
///             Why::Retry(class) => Idempotence::Yes.permits(&class),
///             _ => true,
///         };
///         allowed.then(|| Read { key: self.key })
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "the request `{Self}` does not say whether it may be sent twice",
    note = "implement `palisade::Repeat` for it, or send `palisade::Envelope::new(request)`"
)]
pub trait Repeat: Sized {
    /// A copy to send for the reason `why`, or `None` where that is not allowed or not possible.
    ///
    /// `None` to [`Why::Spare`] means that the request can be sent just once.
    fn repeat(&self, why: Why) -> Option<Self>;

    /// Whether it counts as a request of its own, toward a retry budget for example.
    ///
    /// `false` is for a step of an operation that has been counted, such as the second page of a result.
    fn counts(&self) -> bool {
        true
    }
}

/// A request of any type, with everything that the layers can use.
///
/// ```
/// use palisade::{Envelope, Idempotence, Priority};
///
/// let request = Envelope::new("GET /users/7")
///     .idempotence(Idempotence::Yes)
///     .priority(Priority::Critical);
/// assert_eq!(*request, "GET /users/7");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Envelope<T> {
    request: T,
    deadline: Option<Instant>,
    priority: Priority,
    idempotence: Idempotence,
}

impl<T> Envelope<T> {
    /// A request without deadline, of normal priority and unknown idempotence.
    pub const fn new(request: T) -> Self {
        Self { request, deadline: None, priority: Priority::Normal, idempotence: Idempotence::Unknown }
    }

    /// Sets how important the request is.
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sets whether the request may be applied twice.
    pub const fn idempotence(mut self, idempotence: Idempotence) -> Self {
        self.idempotence = idempotence;
        self
    }

    /// The request itself.
    pub fn into_inner(self) -> T {
        self.request
    }
}

impl<T> std::ops::Deref for Envelope<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.request
    }
}

impl<T> HasDeadline for Envelope<T> {
    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn shorten_deadline(&mut self, at: Instant) {
        self.deadline = Some(self.deadline.map_or(at, |earlier| earlier.min(at)));
    }

    fn lift_deadline(&mut self) {
        self.deadline = None;
    }
}

impl<T> HasPriority for Envelope<T> {
    fn priority(&self) -> Priority {
        self.priority
    }
}

impl<T: Clone> Repeat for Envelope<T> {
    fn repeat(&self, why: Why) -> Option<Self> {
        let allowed = match why {
            Why::Spare => true,
            Why::Retry(class) => self.idempotence.permits(&class),
            Why::Hedge => self.idempotence == Idempotence::Yes,
        };
        allowed.then(|| self.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_what_cannot_do_harm_is_repeated() {
        use Effect::{Applied, NotApplied};
        use Fault::{Caller, Overload, Server, Unreachable};
        for idempotence in [Idempotence::Yes, Idempotence::No, Idempotence::Unknown] {
            for fault in [Fault::None, Caller, Server, Overload, Unreachable] {
                for effect in [Applied, NotApplied, Effect::Unknown] {
                    let permitted = idempotence.permits(&Class::new(fault, effect));
                    let retryable = matches!(fault, Server | Overload | Unreachable);
                    let harmless = effect == NotApplied
                        || (effect == Effect::Unknown && idempotence == Idempotence::Yes);
                    assert_eq!(permitted, retryable && harmless, "{idempotence:?} {fault:?} {effect:?}");
                }
            }
        }
    }

    #[test]
    fn a_deadline_is_never_extended() {
        let now = Instant::now();
        let mut request = Envelope::new(());
        request.shorten_deadline(now + Duration::from_secs(1));
        request.shorten_deadline(now + Duration::from_secs(9));
        assert_eq!(request.deadline(), Some(now + Duration::from_secs(1)));
    }

    #[test]
    fn a_request_of_unknown_idempotence_is_never_hedged() {
        assert!(Envelope::new(()).repeat(Why::Hedge).is_none());
        assert!(Envelope::new(()).idempotence(Idempotence::Yes).repeat(Why::Hedge).is_some());
    }
}
