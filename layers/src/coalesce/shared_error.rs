use std::{error::Error, fmt, sync::Arc};

use tower::BoxError;

/// The error of a call that several callers shared.
///
/// It reads as the original does, which is its [source](Error::source). So a refusal is found in it by
/// [`Rejection::find`](crate::Rejection::find), and an error of your own by [`Downcast`](crate::Downcast), as in the original: both mean
/// the same to a retry or a breaker.
///
/// A [`BoxError`] can be made of it as it is. An error type of your own that is `Clone` gives each caller the exact original:
///
/// ```
/// use palisade::{Rejection, SharedError};
///
/// #[derive(Clone, Debug)]
/// enum AppError {
///     Refused(Rejection),
///     NotFound,
///     Other(SharedError),
/// }
/// # impl std::fmt::Display for AppError {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("failed") }
/// # }
/// # impl std::error::Error for AppError {}
///
/// impl From<SharedError> for AppError {
///     fn from(shared: SharedError) -> Self {
///         match shared.downcast_ref::<Self>() {
///             Some(original) => original.clone(),
///             None => Self::Other(shared),
///         }
///     }
/// }
/// ```
#[derive(Clone)]
pub struct SharedError(Arc<dyn Error + Send + Sync>);

impl SharedError {
    /// Shares an error. One that is shared already stays as it is.
    pub fn new(error: impl Into<BoxError>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(shared) => *shared,
            Err(error) => Self(error.into()),
        }
    }

    /// The original, if it is an `E`.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedError").field(&self.0).finish()
    }
}

impl Error for SharedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Class, Classified, Classify, Downcast, Rejection, testkit};

    #[test]
    fn a_shared_error_means_what_the_original_means() {
        let refused = Rejection::rate_limited(Some(std::time::Duration::from_millis(7)));
        let original: BoxError = refused.clone().into();
        let shared: BoxError = SharedError::new(refused.clone()).into();
        assert_eq!(Rejection::find(&*shared), Some(refused));
        assert_eq!((shared.class(), shared.to_string()), (original.class(), original.to_string()));

        let failed = testkit::Error::Failed(testkit::CALLER, 3);
        let class =
            |boxed: BoxError| -> Class { Downcast::<testkit::Error>::new().classify(Err::<&(), _>(&boxed)) };
        assert_eq!(class(SharedError::new(failed.clone()).into()), failed.class());
        assert_eq!(testkit::Error::from(SharedError::new(failed.clone())), failed);
    }

    #[test]
    fn what_is_shared_again_is_wrapped_once() {
        let twice = SharedError::new(SharedError::new(Rejection::Closed));
        assert_eq!(twice.downcast_ref::<Rejection>(), Some(&Rejection::Closed));
    }
}
