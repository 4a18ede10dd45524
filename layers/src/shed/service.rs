use std::{
    fmt,
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::task::coop::{has_budget_remaining, unconstrained};
use tower::Service;

use super::{
    ShedFuture,
    turn::{Shared, Turn},
};
use crate::{
    HasPriority, Rejection,
    until::{NoDeadline, Until},
};

/// A service before which calls wait by priority, and of which the least important are refused first. See the
/// [module](super) for more.
pub struct Shed<S, D = NoDeadline> {
    inner: S,
    readiness: Readiness,
    shared: Arc<Shared>,
    until: D,
}

/// What the inner service has said when it was last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    /// Nothing: it holds no place, and queues for none.
    Unasked,
    /// That it is not ready: it may queue for a place.
    Pending,
    Ready,
}

impl<S, D> Shed<S, D> {
    pub(super) const fn new(inner: S, shared: Arc<Shared>, until: D) -> Self {
        Self { inner, readiness: Readiness::Unasked, shared, until }
    }
}

impl<S: Clone, D: Clone> Clone for Shed<S, D> {
    fn clone(&self) -> Self {
        // Readiness is not inherited: a clone has to ask for itself.
        Self::new(self.inner.clone(), Arc::clone(&self.shared), self.until.clone())
    }
}

impl<S, D, Req> Service<Req> for Shed<S, D>
where
    Req: HasPriority,
    D: Until<Req>,
    S: Service<Req> + Clone,
    S::Error: From<Rejection>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ShedFuture<S, Req>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // Nobody overtakes those who wait, nor asks while it is their turn.
        if !self.shared.queue.is_empty() && self.readiness != Readiness::Ready {
            self.give_up_place();
            return Poll::Ready(Ok(()));
        }
        let mut polled = self.inner.poll_ready(cx);
        if polled.is_pending() && !has_budget_remaining() {
            // Perhaps only because this task has had its turn, by tokio's budget: that is no reason to refuse anybody. It lets others
            // run, and then the service is asked whatever is left: there are futures that use up the budget at each poll.
            if self.readiness != Readiness::Pending {
                self.readiness = Readiness::Pending;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            polled = pin!(unconstrained(poll_fn(|cx| self.inner.poll_ready(cx)))).poll(cx);
        }
        self.readiness = match polled {
            Poll::Ready(Ok(())) => Readiness::Ready,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => Readiness::Pending,
        };
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        if self.shared.queue.is_idle() && self.readiness == Readiness::Ready {
            self.readiness = Readiness::Unasked;
            return ShedFuture::calling(self.inner.call(request));
        }
        self.call_in_turn(request)
    }
}

impl<S: Clone, D> Shed<S, D> {
    fn call_in_turn<Req>(&mut self, request: Req) -> ShedFuture<S, Req>
    where
        Req: HasPriority,
        D: Until<Req>,
        S: Service<Req>,
    {
        let priority = request.priority();
        if let Some(rejection) = self.shared.refuses(priority) {
            self.give_up_place();
            return ShedFuture::refused(rejection);
        }
        if self.readiness == Readiness::Ready {
            // It won its place before anybody had to wait.
            self.readiness = Readiness::Unasked;
            return ShedFuture::calling(self.inner.call(request));
        }
        self.give_up_place();
        let turn = Turn::new(Arc::clone(&self.shared), priority, self.until.until(&request));
        ShedFuture::waiting(self.inner.clone(), request, turn)
    }

    /// Others may have the place that has been won, or is being queued for.
    fn give_up_place(&mut self) {
        if self.readiness != Readiness::Unasked {
            self.readiness = Readiness::Unasked;
            self.inner = self.inner.clone();
        }
    }
}

impl<S: fmt::Debug, D> fmt::Debug for Shed<S, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shed")
            .field("inner", &self.inner)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
