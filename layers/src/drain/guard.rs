use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use super::shared::{Door, Doors, Way};

/// Something in flight that a [`Drain`](super::Drain) waits for, until this is dropped.
///
/// A clone counts as one more, also while the drain waits: for what belongs to the same work.
#[must_use = "it counts until it is dropped"]
pub struct DrainGuard {
    // That of the thread where it entered, whichever thread it is on now.
    door: Door,
}

impl DrainGuard {
    #[inline]
    pub(super) fn enter(doors: &Doors) -> Option<Self> {
        let guard = Self::enter_unless_refused(doors);
        if guard.is_none() {
            doors.shared().refuse();
        }
        guard
    }

    #[inline]
    fn enter_unless_refused(doors: &Doors) -> Option<Self> {
        let door = doors.here();
        let drain = &door.drain;
        (drain.core.enter(door.shard) || drain.enter_late(door.shard))
            .then(|| Self { door: Arc::clone(door) })
    }

    pub(super) fn enter_along(doors: &Doors) -> Option<Self> {
        if let Some(guard) = Self::enter_unless_refused(doors) {
            return Some(guard);
        }
        let Some(shard) = doors.shared().core.enter_along(doors.here().shard) else {
            doors.shared().refuse();
            return None;
        };
        Some(Self { door: Arc::clone(doors.of(shard)) })
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
        self.door.drain.core.enter_with(self.door.shard);
        Self { door: Arc::clone(&self.door) }
    }
}

impl Drop for DrainGuard {
    #[inline]
    fn drop(&mut self) {
        let Way { drain, shard } = &**self.door;
        if drain.core.leave(*shard) {
            drain.settle();
        }
    }
}

impl fmt::Debug for DrainGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainGuard").field("name", &self.door.drain.name).finish_non_exhaustive()
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
