//! The refusals that a layer makes by itself.

use std::{error::Error, fmt, time::Duration};

use crate::request::Priority;

/// Which wait ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimeoutScope {
    /// The whole call: its deadline has passed.
    Total,
    /// One attempt of the call.
    Attempt,
    /// The wait for a place: in a queue, for a token, for a permit.
    Queue,
}

impl TimeoutScope {
    /// The scope as a metric label: `total`, `attempt` or `queue`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Attempt => "attempt",
            Self::Queue => "queue",
        }
    }
}

/// A refusal that a layer made by itself, without an answer from the service below.
///
/// Every layer of this crate keeps the error type of the service that it wraps and asks one thing of it:
/// `S::Error: From<Rejection>`. That holds for an error enum of your own, and for
/// [`BoxError`](tower::BoxError), so nothing is boxed or turned into text on the way.
///
/// ```
/// use palisade::Rejection;
///
/// #[derive(Debug)]
/// enum AppError {
///     Refused(Rejection),
///     NotFound,
/// }
///
/// impl From<Rejection> for AppError {
///     fn from(rejection: Rejection) -> Self {
///         Self::Refused(rejection)
///     }
/// }
/// ```
///
/// The constructors ([`Rejection::timed_out`] and so on) are for layers, yours included.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// A wait ran out. What the request did meanwhile is not known, unless the scope is [`TimeoutScope::Queue`]: then it was
    /// not sent.
    #[non_exhaustive]
    TimedOut {
        /// Which wait.
        scope: TimeoutScope,
        /// How long it was allowed to last, where that is known.
        limit: Option<Duration>,
    },
    /// A circuit breaker is open. The request was not sent.
    #[non_exhaustive]
    CircuitOpen {
        /// When the breaker will let a probe through.
        retry_after: Option<Duration>,
    },
    /// A rate limit is exhausted. The request was not sent.
    #[non_exhaustive]
    RateLimited {
        /// When there will be room.
        retry_after: Option<Duration>,
    },
    /// The service below says that it is overloaded, and is asked less. The request was not sent.
    #[non_exhaustive]
    Throttled {
        /// When the service itself wants to be asked again, if it said so.
        retry_after: Option<Duration>,
    },
    /// Too many requests are in flight and no room is left to wait. The request was not sent.
    ConcurrencyLimited,
    /// Dropped to save more important work. The request was not sent.
    #[non_exhaustive]
    Shed {
        /// The priority that was not enough.
        priority: Priority,
    },
    /// The service is shutting down and finishes old work only. The request was not sent.
    Draining,
    /// The service has been closed. The request was not sent.
    Closed,
}

impl Rejection {
    /// A wait of `scope` that was allowed to last `limit` ran out.
    pub const fn timed_out(scope: TimeoutScope, limit: Duration) -> Self {
        Self::TimedOut { scope, limit: Some(limit) }
    }

    /// An open circuit, which lets a probe through after `retry_after`.
    pub const fn circuit_open(retry_after: Option<Duration>) -> Self {
        Self::CircuitOpen { retry_after }
    }

    /// An exhausted rate limit, with room again after `retry_after`.
    pub const fn rate_limited(retry_after: Option<Duration>) -> Self {
        Self::RateLimited { retry_after }
    }

    /// A service that is overloaded, and wants to be asked again after `retry_after`.
    pub const fn throttled(retry_after: Option<Duration>) -> Self {
        Self::Throttled { retry_after }
    }

    /// A request of `priority` that was dropped to save more important work.
    pub const fn shed(priority: Priority) -> Self {
        Self::Shed { priority }
    }

    /// When it may be worth to ask again, where the layer knows.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::CircuitOpen { retry_after }
            | Self::RateLimited { retry_after }
            | Self::Throttled { retry_after } => *retry_after,
            _ => None,
        }
    }

    /// Finds the refusal in an error or among its sources.
    ///
    /// tower's own refusals count as well: its `Elapsed` is an attempt that timed out, its `Overloaded` a
    /// shed request of normal priority. So a refusal reads the same in a typed error, in a
    /// [`BoxError`](tower::BoxError) and behind tower's `Buffer`.
    ///
    /// ```
    /// use palisade::{Rejection, TimeoutScope};
    /// use tower::BoxError;
    ///
    /// let boxed: BoxError = Rejection::Draining.into();
    /// assert_eq!(Rejection::find(&*boxed), Some(Rejection::Draining));
    ///
    /// let elapsed: BoxError = tower::timeout::error::Elapsed::new().into();
    /// assert!(matches!(
    ///     Rejection::find(&*elapsed),
    ///     Some(Rejection::TimedOut { scope: TimeoutScope::Attempt, .. })
    /// ));
    /// ```
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        chain(error).find_map(|error| {
            if let Some(rejection) = error.downcast_ref::<Self>() {
                Some(rejection.clone())
            } else if error.is::<tower::timeout::error::Elapsed>() {
                Some(Self::TimedOut { scope: TimeoutScope::Attempt, limit: None })
            } else if error.is::<tower::load_shed::error::Overloaded>() {
                Some(Self::shed(Priority::Normal))
            } else {
                None
            }
        })
    }
}

/// An error and all its sources, outermost first.
pub(crate) fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { scope, limit } => {
                f.write_str(match scope {
                    TimeoutScope::Total => "the deadline passed",
                    TimeoutScope::Attempt => "the attempt timed out",
                    TimeoutScope::Queue => "the wait for a place timed out",
                })?;
                limit.map_or(Ok(()), |limit| write!(f, " after {:?}", rounded(limit)))
            }
            Self::CircuitOpen { retry_after } => after(f, "the circuit is open", *retry_after),
            Self::RateLimited { retry_after } => after(f, "the rate limit is exhausted", *retry_after),
            Self::Throttled { retry_after } => {
                after(f, "the service is overloaded and is asked less", *retry_after)
            }
            Self::ConcurrencyLimited => f.write_str("too many requests are in flight"),
            Self::Shed { priority } => write!(f, "overloaded: a request of {priority} priority was shed"),
            Self::Draining => f.write_str("the service is draining and takes no new requests"),
            Self::Closed => f.write_str("the service is closed"),
        }
    }
}

fn after(f: &mut fmt::Formatter<'_>, what: &str, retry_after: Option<Duration>) -> fmt::Result {
    f.write_str(what)?;
    retry_after.map_or(Ok(()), |wait| write!(f, ", try again after {:?}", rounded(wait)))
}

/// To three or four digits, which is as much as a reader wants: `400ms`, not `399.988292ms`.
fn rounded(duration: Duration) -> Duration {
    let nanos = duration.as_nanos();
    let unit = 10_u128.pow(nanos.checked_ilog10().unwrap_or(0).saturating_sub(2));
    u64::try_from((nanos + unit / 2) / unit * unit).map_or(duration, Duration::from_nanos)
}

impl Error for Rejection {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_happened_and_when_to_come_back() {
        let cases = [
            (
                Rejection::timed_out(TimeoutScope::Total, Duration::from_secs(2)),
                "the deadline passed after 2s",
            ),
            (
                Rejection::circuit_open(Some(Duration::from_secs(5))),
                "the circuit is open, try again after 5s",
            ),
            (
                Rejection::timed_out(TimeoutScope::Attempt, Duration::from_nanos(399_988_292)),
                "the attempt timed out after 400ms",
            ),
            (
                Rejection::rate_limited(Some(Duration::ZERO)),
                "the rate limit is exhausted, try again after 0ns",
            ),
            (Rejection::rate_limited(None), "the rate limit is exhausted"),
            (Rejection::throttled(None), "the service is overloaded and is asked less"),
            (
                Rejection::throttled(Some(Duration::from_secs(2))),
                "the service is overloaded and is asked less, try again after 2s",
            ),
            (Rejection::shed(Priority::Low), "overloaded: a request of low priority was shed"),
        ];
        for (rejection, text) in cases {
            assert_eq!(rejection.to_string(), text);
        }
    }

    #[test]
    fn a_refusal_is_found_behind_any_number_of_wrappers() {
        #[derive(Debug)]
        struct Wrapper(Box<dyn Error + Send + Sync>);
        impl fmt::Display for Wrapper {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("wrapped")
            }
        }
        impl Error for Wrapper {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&*self.0)
            }
        }

        let twice = Wrapper(Box::new(Wrapper(Box::new(Rejection::ConcurrencyLimited))));
        assert_eq!(Rejection::find(&twice), Some(Rejection::ConcurrencyLimited));
        assert_eq!(Rejection::find(&fmt::Error), None);
    }
}
