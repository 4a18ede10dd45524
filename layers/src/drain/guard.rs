use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use super::handle::Shared;
use crate::handle::{Handle, Handles};

/// Something in flight that a [`Drain`](super::Drain) waits for, until this is dropped.
///
/// A clone counts as one more, also while the drain waits: for what belongs to the same work.
#[must_use = "it counts until it is dropped"]
pub struct DrainGuard {
    // That of the thread where it entered, whichever thread it is on now.
    drain: Handle<Shared>,
    shard: usize,
}

impl DrainGuard {
    #[inline]
    pub(super) fn enter(drain: &Handles<Shared>) -> Option<Self> {
        let guard = Self::enter_unless_refused(drain);
        if guard.is_none() {
            drain.value().refuse();
        }
        guard
    }

    #[inline]
    fn enter_unless_refused(drain: &Handles<Shared>) -> Option<Self> {
        let (drain, shard) = drain.here_and_number();
        (drain.core.enter(shard) || drain.enter_late(shard)).then(|| Self { drain: Arc::clone(drain), shard })
    }

    pub(super) fn enter_along(drain: &Handles<Shared>) -> Option<Self> {
        if let Some(guard) = Self::enter_unless_refused(drain) {
            return Some(guard);
        }
        let (drain, shard) = drain.here_and_number();
        let Some(shard) = drain.core.enter_along(shard) else {
            drain.refuse();
            return None;
        };
        Some(Self { drain: Arc::clone(drain), shard })
    }

    /// Counts until `future` has ended, or is dropped.
    ///
    /// ```
    /// use palisade::Drain;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let drain = Drain::new();
    /// if let Some(guard) = drain.guard() {
    ///     tokio::spawn(guard.track(async { println!("written to the log") }));
    /// }
    /// assert!(drain.finish().await.finished);
    /// # }
    /// ```
    pub fn track<F: Future>(self, future: F) -> Tracked<F> {
        Tracked { inner: future, guard: Some(self) }
    }
}

impl Clone for DrainGuard {
    fn clone(&self) -> Self {
        self.drain.core.enter_with(self.shard);
        Self { drain: Arc::clone(&self.drain), shard: self.shard }
    }
}

impl Drop for DrainGuard {
    #[inline]
    fn drop(&mut self) {
        if self.drain.core.leave(self.shard) {
            self.drain.settle();
        }
    }
}

impl fmt::Debug for DrainGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainGuard").field("name", &self.drain.name).finish_non_exhaustive()
    }
}

pin_project! {
    /// A future that a drain waits for. See [`DrainGuard::track`].
    pub struct Tracked<F> {
        // Dropped first: it is in flight until nothing of it is left.
        #[pin]
        inner: F,
        guard: Option<DrainGuard>,
    }
}

impl<F: Future> Future for Tracked<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let output = ready!(this.inner.poll(cx));
        *this.guard = None;
        Poll::Ready(output)
    }
}

impl<F> fmt::Debug for Tracked<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked").field("ended", &self.guard.is_none()).finish_non_exhaustive()
    }
}
