use std::{
    fmt,
    hash::Hash,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::runtime;
use tower::{BoxError, Service};

use super::{
    CoalesceFuture, SharedError,
    detached::Detached,
    follower::Follower,
    future::Wait,
    layer::Shared,
    leader::{Answer, Call, Crowd, Leader},
    state::{Boarded, Census, Flight, Flights},
};
use crate::{
    Rejection,
    clock::Instant,
    handle::{Handle, Handles},
    readiness::{Inner, Spare},
    until::{NoDeadline, Until},
};

/// A service whose calls share answers. See the [module](super) for more.
pub struct Coalesce<S, Req, K, F, D = NoDeadline>
where
    S: Service<Req>,
{
    inner: Inner<S>,
    key: F,
    until: D,
    kept: Handles<Kept<S, Req, K>>,
}

/// What a service keeps for all its calls.
pub(super) struct Kept<S, Req, K>
where
    S: Service<Req>,
{
    pub(super) flights: Flights<K, Call<S, Req>, Answer<S, Req>>,
    pub(super) spare: Spare<S>,
    pub(super) shared: Arc<Shared>,
    // A function, so that futures need not know that they can be sent to another thread.
    spawn: fn(&runtime::Handle, Detached<S, Req, K>),
}

impl<S, Req, K> Kept<S, Req, K>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Response: Clone + Send + 'static,
    S::Error: Into<BoxError> + From<SharedError> + Send + 'static,
    Req: Send + 'static,
    K: Send + 'static,
{
    pub(super) fn new(inner: &S, shared: Arc<Shared>) -> Self {
        Self {
            flights: Flights::new(shared.max_flights, shared.join_within),
            spare: Spare::of(inner),
            shared,
            spawn: |runtime, detached| drop(runtime.spawn(detached)),
        }
    }
}

impl<S, Req, K> Kept<S, Req, K>
where
    S: Service<Req>,
{
    /// A flight goes on in a task.
    pub(super) fn detach(kept: &Handle<Self>, runtime: &runtime::Handle, detached: Detached<S, Req, K>) {
        kept.shared.count_detached();
        (kept.spawn)(runtime, detached);
    }

    /// Drops the call of a flight, and leaves the flight to the next follower.
    pub(super) fn abandon(&self, flight: Flight, own: Option<&Crowd<S, Req>>, call: Call<S, Req>) {
        // Also if the call panics while it is dropped.
        let mut vacated = Vacated { kept: self, flight, own, call: Some(call) };
        if let Some(call) = &mut vacated.call {
            call.as_mut().end();
        }
    }

    pub(super) fn census(&self) -> Census {
        self.flights.census()
    }
}

struct Vacated<'a, S: Service<Req>, Req, K> {
    kept: &'a Kept<S, Req, K>,
    flight: Flight,
    own: Option<&'a Crowd<S, Req>>,
    call: Option<Call<S, Req>>,
}

impl<S: Service<Req>, Req, K> Drop for Vacated<'_, S, Req, K> {
    fn drop(&mut self) {
        self.kept.flights.offer(self.flight, self.own, self.call.take());
    }
}

impl<S, Req, K> Drop for Kept<S, Req, K>
where
    S: Service<Req>,
{
    fn drop(&mut self) {
        self.shared.add_past(self.flights.census().totals);
    }
}

impl<S, Req, K, F, D> Coalesce<S, Req, K, F, D>
where
    S: Service<Req>,
{
    pub(super) const fn new(inner: S, key: F, until: D, kept: Handles<Kept<S, Req, K>>) -> Self {
        Self { inner: Inner::new(inner), key, until, kept }
    }
}

impl<S, Req, K, F, D> Service<Req> for Coalesce<S, Req, K, F, D>
where
    S: Service<Req> + Clone,
    S::Response: Clone,
    S::Error: Into<BoxError> + From<SharedError> + From<Rejection>,
    K: Eq + Hash,
    F: Fn(&Req) -> Option<K>,
    D: Until<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = CoalesceFuture<S, Req, K>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Req) -> Self::Future {
        let Some(key) = (self.key)(&request) else {
            return CoalesceFuture::passing(self.inner.call(request));
        };
        let now = Instant::now();
        let deadline = self.until.until(&request);
        let kept = self.kept.here();
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.inner.give_up_place();
            return CoalesceFuture::refused(kept.shared.name);
        }
        match kept.flights.board(key, now) {
            Boarded::Leads(flight, shell) => {
                let leader = Leader::new(kept, flight, shell, || {
                    if deadline.is_some() {
                        self.until.lift(&mut request);
                    }
                    self.inner.call(request)
                });
                // It waits for nobody else's call, and is bounded by what would bound it without this layer.
                let wait = deadline.map_or(const { Wait::unbounded() }, |until| Wait::new(now, until));
                CoalesceFuture::leading(leader, wait)
            }
            Boarded::Follows(flight, seat, began) => {
                let until = deadline.unwrap_or(began + kept.shared.longest);
                // Seated first: what follows is code of others, and may panic.
                let mut follower = Follower::new(kept, flight, seat);
                kept.shared.count_joined();
                self.inner.give_up_place();
                if deadline.is_some() {
                    self.until.lift(&mut request);
                }
                follower.keep(request);
                CoalesceFuture::following(follower, Wait::new(now, until))
            }
            Boarded::Full => {
                kept.shared.count_passed();
                CoalesceFuture::passing(self.inner.call(request))
            }
        }
    }
}

impl<S, Req, K, F, D> Clone for Coalesce<S, Req, K, F, D>
where
    S: Service<Req> + Clone,
    F: Clone,
    D: Clone,
{
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            key: self.key.clone(),
            until: self.until.clone(),
            kept: self.kept.clone(),
        }
    }
}

impl<S, Req, K, F, D> fmt::Debug for Coalesce<S, Req, K, F, D>
where
    S: Service<Req> + fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalesce")
            .field("inner", &self.inner)
            .field("flights", &self.kept.value().census().flights)
            .finish_non_exhaustive()
    }
}
