//! Whoever waits for the answer of another's call.

use std::{
    sync::Arc,
    task::{Poll, Waker},
};

use tower::Service;

use super::{
    followers::{Given, Seat},
    leader::{Answer, Call, Leader},
    service::Kept,
    state::Flight,
};
use crate::handle::Handle;

/// A follower, who is ready to lead.
pub(super) struct Follower<S, Req, K>
where
    S: Service<Req>,
{
    kept: Handle<Kept<S, Req, K>>,
    flight: Flight,
    // None once it has its answer, or has left.
    seat: Option<Seat<Call<S, Req>, Answer<S, Req>>>,
    request: Option<Req>,
}

impl<S, Req, K> Follower<S, Req, K>
where
    S: Service<Req>,
{
    pub(super) fn new(
        kept: &Handle<Kept<S, Req, K>>,
        flight: Flight,
        seat: Seat<Call<S, Req>, Answer<S, Req>>,
    ) -> Self {
        Self { kept: Arc::clone(kept), flight, seat: Some(seat), request: None }
    }

    /// Keeps the request for the case that it has to lead.
    pub(super) fn keep(&mut self, request: Req) {
        self.request = Some(request);
    }

    pub(super) fn kept(&self) -> &Handle<Kept<S, Req, K>> {
        &self.kept
    }

    /// Ready with the answer, or with the lead.
    pub(super) fn poll(&mut self, waker: &Waker) -> Poll<Given<Answer<S, Req>>> {
        let Some(seat) = &self.seat else {
            return Poll::Pending;
        };
        let polled = seat.followers.poll(seat.slot, waker);
        if let Poll::Ready(Given::Answer(_)) = polled {
            self.seat = None;
        }
        polled
    }

    /// Takes the lead that it was offered. None if it was not.
    pub(super) fn lead(&mut self) -> Option<Leader<S, Req, K>>
    where
        S: Clone,
    {
        let request = self.request.take()?;
        let seat = self.seat.take()?;
        Some(Leader::following(&self.kept, self.flight, &seat, request))
    }

    /// Waits no more.
    pub(super) fn leave(&mut self) {
        let Some(Seat { followers, slot }) = self.seat.take() else {
            return;
        };
        let mut departed = followers.depart(slot);
        let _task = WokenAtLast(departed.task.take());
        if let Some(call) = departed.call.take() {
            self.kept.abandon(self.flight, Some(&followers), call);
        }
        if departed.vacant {
            self.kept.flights.offer(self.flight, Some(&followers), None);
        }
    }
}

impl<S, Req, K> Drop for Follower<S, Req, K>
where
    S: Service<Req>,
{
    fn drop(&mut self) {
        self.leave();
    }
}

/// A task that has nothing to do any more, and has to be told so that it ends: also if the call panics while it is dropped.
struct WokenAtLast(Option<Waker>);

impl Drop for WokenAtLast {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.wake();
        }
    }
}
