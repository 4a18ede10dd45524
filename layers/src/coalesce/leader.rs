//! Whoever leads a flight: polls its call, and shares the answer.

use std::{
    mem::{forget, take},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tower::{BoxError, Service};

use super::{
    SharedError,
    detached::Detached,
    followers::{Followers, Seat},
    service::Kept,
    state::Flight,
};
use crate::{clock::Instant, handle::Handle, readiness::ReadyCall};

/// The call of a flight, which can move to a task after it was polled.
pub(super) type Call<S, Req> = Pin<Box<ReadyCall<S, Req>>>;

/// What a follower gets.
pub(super) type Answer<S, Req> = Result<<S as Service<Req>>::Response, SharedError>;

/// Those who wait for it.
pub(super) type Crowd<S, Req> = Followers<Call<S, Req>, Answer<S, Req>>;

/// The lead of a flight. It is in the table until this is dropped or has an answer.
pub(super) struct Leader<S, Req, K>
where
    S: Service<Req>,
{
    kept: Handle<Kept<S, Req, K>>,
    flight: Flight,
    // Where the table may not know them.
    followers: Option<Arc<Crowd<S, Req>>>,
    // None once the flight is over for this leader, and in a task as long as that does not poll it.
    call: Option<Call<S, Req>>,
    // Whether there is a call that could go on without its caller.
    called: bool,
}

impl<S, Req, K> Leader<S, Req, K>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn new(
        kept: &Handle<Kept<S, Req, K>>,
        flight: Flight,
        shell: Option<Call<S, Req>>,
        make_call: impl FnOnce() -> ReadyCall<S, Req>,
    ) -> Self {
        let shell = shell.unwrap_or_else(|| Box::pin(ReadyCall::Ended));
        let kept = Arc::clone(kept);
        // Before the call is made, which may panic: the flight is given up then.
        let mut leader = Self { kept, flight, followers: None, call: Some(shell), called: false };
        let call = make_call();
        if let Some(shell) = &mut leader.call {
            shell.set(call);
        }
        leader.called = true;
        leader
    }

    /// The lead of a follower that was offered it.
    pub(super) fn following(
        kept: &Handle<Kept<S, Req, K>>,
        flight: Flight,
        seat: &Seat<Call<S, Req>, Answer<S, Req>>,
        request: Req,
    ) -> Self
    where
        S: Clone,
    {
        let shell = kept.flights.lead(flight, seat, Instant::now());
        let mut leader = Self {
            kept: Arc::clone(kept),
            flight,
            followers: Some(Arc::clone(&seat.followers)),
            call: Some(shell.unwrap_or_else(|| Box::pin(ReadyCall::Ended))),
            called: false,
        };
        let call = ReadyCall::of(leader.kept.spare.fresh(), request);
        if let Some(shell) = &mut leader.call {
            shell.set(call);
        }
        leader.called = true;
        leader
    }

    /// The lead of a task, which has the call only while it polls it.
    fn of_task(&self, followers: &Arc<Crowd<S, Req>>) -> Self {
        Self {
            kept: Arc::clone(&self.kept),
            flight: self.flight,
            followers: Some(Arc::clone(followers)),
            call: None,
            called: true,
        }
    }

    pub(super) fn kept(&self) -> &Handle<Kept<S, Req, K>> {
        &self.kept
    }

    /// Ready with the answer, which the followers have too by then.
    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<S::Response, S::Error>>
    where
        S::Response: Clone,
        S::Error: Into<BoxError> + From<SharedError>,
    {
        // Whatever comes of it, followers do not hang.
        let lost = Lost(self);
        let polled = match &mut lost.0.call {
            Some(call) => call.as_mut().poll(cx).map(|outcome| {
                call.as_mut().end();
                outcome
            }),
            None => Poll::Pending,
        };
        forget(lost);
        Poll::Ready(self.land(ready!(polled)))
    }

    #[inline]
    fn land(&mut self, outcome: Result<S::Response, S::Error>) -> Result<S::Response, S::Error>
    where
        S::Response: Clone,
        S::Error: Into<BoxError> + From<SharedError>,
    {
        let Some(shell) = self.call.take() else {
            return outcome;
        };
        let mut landed = self.kept.flights.land(self.flight, shell);
        match self.followers.take().or_else(|| take(&mut landed.followers)) {
            Some(followers) => self.share(&followers, outcome),
            None => outcome,
        }
    }

    #[cold]
    fn share(
        &self,
        followers: &Crowd<S, Req>,
        outcome: Result<S::Response, S::Error>,
    ) -> Result<S::Response, S::Error>
    where
        S::Response: Clone,
        S::Error: Into<BoxError> + From<SharedError>,
    {
        // Nobody joins any more, but some may leave.
        let most = followers.waiting();
        if most == 0 {
            return outcome;
        }
        // The copies are the answer's own code. If that panics, the next one leads.
        let unshared = Unshared { leader: self, followers };
        let (answers, own): (Vec<Answer<S, Req>>, _) = match outcome {
            Ok(answer) => ((0..most).map(|_| Ok(answer.clone())).collect(), Ok(answer)),
            Err(error) => {
                let shared = SharedError::new(error);
                ((0..most).map(|_| Err(shared.clone())).collect(), Err(shared))
            }
        };
        forget(unshared);
        followers.answer(answers);
        own.map_err(S::Error::from)
    }

    /// The caller has gone: the flight goes on without it, if anybody follows.
    pub(super) fn leave(&mut self) {
        let Some(mut call) = self.call.take() else {
            return;
        };
        if self.called
            && let Some(followers) = self.followed()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            match followers.hand_over(call) {
                Ok(task) => {
                    let detached = Detached::new(self.of_task(&followers), followers, task);
                    return Kept::detach(&self.kept, &runtime, detached);
                }
                Err(back) => call = back,
            }
        }
        self.abandon(call);
    }

    fn followed(&self) -> Option<Arc<Crowd<S, Req>>> {
        match &self.followers {
            Some(followers) => (followers.waiting() > 0).then(|| Arc::clone(followers)),
            None => self.kept.flights.followed(self.flight),
        }
    }

    /// Drops the call, and leaves the flight to the next follower, if there is one.
    pub(super) fn abandon(&self, call: Call<S, Req>) {
        self.kept.abandon(self.flight, self.followers.as_deref(), call);
    }

    /// Polls the call that a task has been lent. Gives it back as long as there is no answer.
    pub(super) fn poll_lent(&mut self, call: Call<S, Req>, cx: &mut Context<'_>) -> Option<Call<S, Req>>
    where
        S::Response: Clone,
        S::Error: Into<BoxError> + From<SharedError>,
    {
        self.call = Some(call);
        match self.poll(cx) {
            Poll::Ready(_) => None,
            Poll::Pending => self.call.take(),
        }
    }
}

impl<S, Req, K> Drop for Leader<S, Req, K>
where
    S: Service<Req>,
{
    #[inline]
    fn drop(&mut self) {
        if self.call.is_some() {
            self.leave();
        }
    }
}

/// Gives the flight to the next one where a poll of its call panics.
struct Lost<'a, S: Service<Req>, Req, K>(&'a mut Leader<S, Req, K>);

impl<S: Service<Req>, Req, K> Drop for Lost<'_, S, Req, K> {
    fn drop(&mut self) {
        if let Some(call) = self.0.call.take() {
            self.0.abandon(call);
        }
    }
}

/// Gives a flight that is not in the table any more to the next one.
struct Unshared<'a, S: Service<Req>, Req, K> {
    leader: &'a Leader<S, Req, K>,
    followers: &'a Crowd<S, Req>,
}

impl<S: Service<Req>, Req, K> Drop for Unshared<'_, S, Req, K> {
    fn drop(&mut self) {
        self.leader.kept.flights.offer(self.leader.flight, Some(self.followers), None);
    }
}
