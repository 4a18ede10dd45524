use tower::Layer;

use super::{Drain, Drained};

/// Counts calls for a [`Drain`], and refuses them once it has begun. See the [module](super) for more.
#[derive(Clone, Debug)]
pub struct DrainLayer {
    drain: Drain,
}

impl DrainLayer {
    pub(super) const fn new(drain: Drain) -> Self {
        Self { drain }
    }

    /// The drain.
    pub const fn handle(&self) -> &Drain {
        &self.drain
    }
}

impl<S> Layer<S> for DrainLayer {
    type Service = Drained<S>;

    fn layer(&self, inner: S) -> Drained<S> {
        Drained::new(inner, self.drain.clone())
    }
}
