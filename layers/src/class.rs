//! What the outcome of a call means, in the terms that layers decide by.
//!
//! An outcome is judged on two axes. [`Fault`] says where the trouble lies; circuit breakers and throttles
//! read it. [`Effect`] says what the request did at the other side; retries read it, because only a request
//! that was surely not applied, or may be applied twice, can be sent again.

use std::{error::Error, fmt, marker::PhantomData, time::Duration};

use tower::BoxError;

use crate::rejection::{Rejection, chain};

/// Where the trouble of a failed call lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// No trouble: the call succeeded.
    None,
    /// The request was bad. It says nothing about the health of the service.
    Caller,
    /// The service failed at it.
    Server,
    /// The service, or a limit before it, has more work than it can do.
    Overload,
    /// The service did not answer.
    Unreachable,
}

impl Fault {
    /// The fault as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Caller => "caller",
            Self::Server => "server",
            Self::Overload => "overload",
            Self::Unreachable => "unreachable",
        }
    }
}

/// What a request did at the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// It was carried out.
    Applied,
    /// It was surely not carried out, and will not be.
    NotApplied,
    /// It may have been carried out, or may still be.
    Unknown,
}

/// What the outcome of a call means.
///
/// ```
/// use std::time::Duration;
/// use palisade::{Class, Effect, Fault};
///
/// let busy = Class::new(Fault::Overload, Effect::NotApplied).with_retry_after(Duration::from_secs(1));
/// assert!(busy.is_failure());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    fault: Fault,
    effect: Effect,
    elsewhere: bool,
    refused_here: bool,
    retry_after: Option<Duration>,
}

impl Class {
    /// A call that succeeded.
    pub const SUCCESS: Self = Self::new(Fault::None, Effect::Applied);

    /// An outcome with this fault and effect.
    pub const fn new(fault: Fault, effect: Effect) -> Self {
        Self { fault, effect, elsewhere: false, refused_here: false, retry_after: None }
    }

    /// Adds that another target (node, replica, connection) may do better.
    pub const fn elsewhere(mut self) -> Self {
        self.elsewhere = true;
        self
    }

    /// Adds that a layer in this process refused the request: the service was not asked. A retry in the same stack does not
    /// wait for such a refusal to pass, unless another target may do better; and neither a breaker nor a throttle counts it.
    pub const fn refused_here(mut self) -> Self {
        self.refused_here = true;
        self
    }

    /// Adds the earliest time at which it is worth to try again.
    pub const fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Where the trouble lies.
    pub const fn fault(&self) -> Fault {
        self.fault
    }

    /// What the request did at the other side.
    pub const fn effect(&self) -> Effect {
        self.effect
    }

    /// Whether another target may do better.
    pub const fn may_do_elsewhere(&self) -> bool {
        self.elsewhere
    }

    /// Whether a layer in this process refused the request, so that the service was not asked.
    pub const fn is_refused_here(&self) -> bool {
        self.refused_here
    }

    /// The earliest time at which it is worth to try again, where the other side or a layer said so.
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the call failed, for whatever reason.
    pub const fn is_failure(&self) -> bool {
        !matches!(self.fault, Fault::None)
    }
}

/// An error that knows what it means.
///
/// Implement it for the error type of a service, and every layer's default classifier understands it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say what it means for a retry or a breaker",
    note = "implement `palisade::Classified` for the service's error, \
            or give the layer a classifier: `.classifier(...)`, `palisade::classify_fn(...)`"
)]
pub trait Classified {
    /// What this error means.
    fn class(&self) -> Class;
}

impl Classified for Rejection {
    fn class(&self) -> Class {
        let class = match self {
            Self::TimedOut { scope, .. } => match scope {
                crate::TimeoutScope::Queue => Class::new(Fault::Overload, Effect::NotApplied).refused_here(),
                _ => Class::new(Fault::Unreachable, Effect::Unknown).elsewhere(),
            },
            Self::CircuitOpen { .. } | Self::Draining | Self::Closed => {
                Class::new(Fault::Unreachable, Effect::NotApplied).refused_here()
            }
            Self::RateLimited { .. }
            | Self::Throttled { .. }
            | Self::ConcurrencyLimited
            | Self::Shed { .. } => Class::new(Fault::Overload, Effect::NotApplied).refused_here(),
        };
        match self.retry_after() {
            Some(wait) => class.with_retry_after(wait),
            None => class,
        }
    }
}

/// Understands the refusals of this crate and of tower. Any other error is a [`Fault::Server`] of unknown
/// effect: use [`Downcast`] where the box may hold an error type that knows better.
impl Classified for BoxError {
    fn class(&self) -> Class {
        class_of_refusal(&**self)
    }
}

impl Classified for std::convert::Infallible {
    fn class(&self) -> Class {
        match *self {}
    }
}

fn class_of_refusal(error: &(dyn Error + 'static)) -> Class {
    Rejection::find(error).map_or(Class::new(Fault::Server, Effect::Unknown), |rejection| rejection.class())
}

/// Maps the outcome of a call to its [`Class`].
///
/// Layers use [`ByError`] unless told otherwise. A function does too: see [`classify_fn`].
pub trait Classify<Res, Err> {
    /// What this outcome means.
    fn classify(&self, outcome: Result<&Res, &Err>) -> Class;
}

/// The default classifier: `Ok` is a success, and an error says itself what it means.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByError;

impl<Res, Err: Classified> Classify<Res, Err> for ByError {
    fn classify(&self, outcome: Result<&Res, &Err>) -> Class {
        outcome.map_or_else(Classified::class, |_| Class::SUCCESS)
    }
}

/// A classifier for [`BoxError`] that looks for an `E` in the box, or among its sources.
///
/// What it does not find it reads as [`ByError`] does. So a refusal, and an `E`, are classified over a
/// boxed error as over a typed one.
///
/// ```
/// use palisade::{Class, Classified, Classify, Downcast, Effect, Fault};
/// use tower::BoxError;
///
/// #[derive(Debug)]
/// struct Busy;
/// impl std::fmt::Display for Busy {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("busy") }
/// }
/// impl std::error::Error for Busy {}
/// impl Classified for Busy {
///     fn class(&self) -> Class { Class::new(Fault::Overload, Effect::NotApplied) }
/// }
///
/// let boxed: BoxError = Busy.into();
/// let class = Downcast::<Busy>::new().classify(Err::<&(), _>(&boxed));
/// assert_eq!(class, Busy.class());
/// ```
pub struct Downcast<E>(PhantomData<fn() -> E>);

impl<E> Downcast<E> {
    /// A classifier that looks for an `E`.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<E> Default for Downcast<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> Clone for Downcast<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Downcast<E> {}

impl<E> fmt::Debug for Downcast<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Downcast<{}>", std::any::type_name::<E>())
    }
}

impl<Res, E: Classified + Error + 'static> Classify<Res, BoxError> for Downcast<E> {
    fn classify(&self, outcome: Result<&Res, &BoxError>) -> Class {
        match outcome {
            Ok(_) => Class::SUCCESS,
            Err(boxed) => chain(&**boxed)
                .find_map(|error| error.downcast_ref::<E>())
                .map_or_else(|| class_of_refusal(&**boxed), Classified::class),
        }
    }
}

/// Makes a classifier of a function.
///
/// ```
/// use palisade::{Class, Effect, Fault, classify_fn};
///
/// // A response can be a failure too.
/// let by_status = classify_fn(|outcome: Result<&u16, &std::io::Error>| match outcome {
///     Ok(503) => Class::new(Fault::Overload, Effect::NotApplied),
///     Ok(_) => Class::SUCCESS,
///     Err(_) => Class::new(Fault::Unreachable, Effect::Unknown),
/// });
/// # let _ = by_status;
/// ```
pub fn classify_fn<F, Res, Err>(classify: F) -> ClassifyFn<F>
where
    F: Fn(Result<&Res, &Err>) -> Class,
{
    ClassifyFn(classify)
}

/// A classifier made of a function. See [`classify_fn`].
#[derive(Clone, Copy)]
pub struct ClassifyFn<F>(F);

impl<F> fmt::Debug for ClassifyFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClassifyFn")
    }
}

impl<F, Res, Err> Classify<Res, Err> for ClassifyFn<F>
where
    F: Fn(Result<&Res, &Err>) -> Class,
{
    fn classify(&self, outcome: Result<&Res, &Err>) -> Class {
        (self.0)(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Priority, TimeoutScope};

    #[test]
    fn a_request_that_never_left_is_known_not_to_be_applied() {
        for refused in [
            Rejection::circuit_open(None),
            Rejection::rate_limited(None),
            Rejection::throttled(None),
            Rejection::ConcurrencyLimited,
            Rejection::shed(Priority::Low),
            Rejection::Draining,
            Rejection::Closed,
            Rejection::timed_out(TimeoutScope::Queue, Duration::from_secs(1)),
        ] {
            assert_eq!(refused.class().effect(), Effect::NotApplied, "{refused}");
            assert_ne!(refused.class().fault(), Fault::Caller, "{refused}");
        }
    }

    #[test]
    fn the_effect_of_a_timed_out_request_is_unknown() {
        for scope in [TimeoutScope::Total, TimeoutScope::Attempt] {
            let class = Rejection::timed_out(scope, Duration::from_secs(1)).class();
            assert_eq!((class.fault(), class.effect()), (Fault::Unreachable, Effect::Unknown));
        }
    }

    #[test]
    fn a_refusal_means_the_same_in_a_box() {
        let refused = Rejection::rate_limited(Some(Duration::from_millis(7)));
        let boxed: BoxError = refused.clone().into();
        assert_eq!(boxed.class(), refused.class());
        assert_eq!(ByError.classify(Err::<&(), _>(&boxed)), ByError.classify(Err::<&(), _>(&refused)));
    }

    #[test]
    fn an_unknown_error_in_a_box_is_a_server_fault_of_unknown_effect() {
        let boxed: BoxError = "what is this".into();
        assert_eq!(boxed.class(), Class::new(Fault::Server, Effect::Unknown));
    }
}
