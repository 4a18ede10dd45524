//! A flight whose leader has gone, in a task of its own.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tower::{BoxError, Service};

use super::{
    SharedError,
    leader::{Crowd, Leader},
};

/// Polls the call of a flight for its followers, as long as there are some.
pub(super) struct Detached<S, Req, K>
where
    S: Service<Req>,
{
    leader: Leader<S, Req, K>,
    followers: Arc<Crowd<S, Req>>,
    task: u64,
}

impl<S, Req, K> Detached<S, Req, K>
where
    S: Service<Req>,
{
    pub(super) const fn new(leader: Leader<S, Req, K>, followers: Arc<Crowd<S, Req>>, task: u64) -> Self {
        Self { leader, followers, task }
    }
}

// Nothing in it is pinned: the call is in a box.
impl<S: Service<Req>, Req, K> Unpin for Detached<S, Req, K> {}

impl<S, Req, K> Future for Detached<S, Req, K>
where
    S: Service<Req>,
    S::Response: Clone,
    S::Error: Into<BoxError> + From<SharedError>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // Gone: the last follower has left, and dropped it.
        let Some(call) = this.followers.lend(this.task, Some(cx.waker().clone())) else {
            return Poll::Ready(());
        };
        let Some(call) = this.leader.poll_lent(call, cx) else {
            return Poll::Ready(());
        };
        match this.followers.put_back(call) {
            Ok(()) => Poll::Pending,
            // The last follower left during the poll.
            Err(call) => {
                this.leader.abandon(call);
                Poll::Ready(())
            }
        }
    }
}

impl<S, Req, K> Drop for Detached<S, Req, K>
where
    S: Service<Req>,
{
    fn drop(&mut self) {
        // Its runtime is shut down: followers may have another one.
        if let Some(call) = self.followers.lend(self.task, None) {
            self.leader.abandon(call);
        }
    }
}
