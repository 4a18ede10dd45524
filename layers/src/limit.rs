//! How long a request may take: one duration for all, or each its own.

use std::{fmt, time::Duration};

/// Tells how long a request may take.
///
/// A [`Duration`] is the same limit for every request. Where what suits a read would never let a schema change or
/// an upload end, implement it for a type of your own, or use [`limit_fn`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how long a `{Req}` may take",
    note = "use a `std::time::Duration`, `palisade::limit_fn(|request| ...)`, or implement `palisade::Limit`"
)]
pub trait Limit<Req> {
    /// The longest that this request may take. Zero refuses what is not answered at once.
    fn limit(&self, request: &Req) -> Duration;
}

impl<Req> Limit<Req> for Duration {
    fn limit(&self, _: &Req) -> Duration {
        *self
    }
}

/// Makes a limit of a function.
///
/// ```
/// use std::time::Duration;
/// use palisade::{TimeoutLayer, limit_fn};
///
/// let by_size = limit_fn(|upload: &Vec<u8>| Duration::from_millis(100 + upload.len() as u64 / 1_000));
/// let layer = TimeoutLayer::new(by_size);
/// # let _ = layer;
/// ```
pub const fn limit_fn<F, Req>(limit: F) -> LimitFn<F>
where
    F: Fn(&Req) -> Duration,
{
    LimitFn(limit)
}

/// A limit made of a function. See [`limit_fn`].
#[derive(Clone, Copy)]
pub struct LimitFn<F>(F);

impl<F> fmt::Debug for LimitFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LimitFn")
    }
}

impl<F, Req> Limit<Req> for LimitFn<F>
where
    F: Fn(&Req) -> Duration,
{
    fn limit(&self, request: &Req) -> Duration {
        (self.0)(request)
    }
}
