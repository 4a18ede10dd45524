use std::{
    fmt,
    future::poll_fn,
    mem::take,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use pin_project_lite::pin_project;
use tower::Service;

use crate::sync::{Mutex, lock};

/// Decides when a [`Gated`] service is ready. Clones are the same gate. It is closed by default.
///
/// A gate can also count places, as a connection pool or tower's `ConcurrencyLimit` does: a service that has become
/// ready holds one, its call keeps it until it ends, and whoever drops either gives it back.
#[derive(Clone, Default)]
pub struct Gate(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    open: bool,
    // None: as many as you like.
    places: Option<usize>,
    taken: usize,
    calls_unready: usize,
    lenient: bool,
    next: u64,
    // Who waits, and whom to wake: as tower and Future have it, the waker of the latest poll only.
    waiting: Vec<(u64, Waker)>,
}

impl Gate {
    /// A gate that is open.
    pub fn open() -> Self {
        let gate = Self::default();
        gate.set(true);
        gate
    }

    /// An open gate with so many places.
    pub fn with_places(places: usize) -> Self {
        let gate = Self::open();
        lock(&gate.0).places = Some(places);
        gate
    }

    /// Opens or closes the gate. Whoever is ready already stays so.
    pub fn set(&self, open: bool) {
        lock(&self.0).open = open;
        self.wake_all();
    }

    /// How many are ready or being called now.
    pub fn taken(&self) -> usize {
        lock(&self.0).taken
    }

    /// Ready once the gate is open.
    pub(super) async fn opened(&self) {
        let waiter = Waiter::new(self);
        poll_fn(|cx| waiter.poll(cx, |state| state.open)).await;
    }

    /// From now on a call without readiness is counted, and served, where it would have panicked.
    pub(super) fn forgive(&self) {
        lock(&self.0).lenient = true;
    }

    pub(super) fn calls_unready(&self) -> usize {
        lock(&self.0).calls_unready
    }

    fn wake_all(&self) {
        let waiting = take(&mut lock(&self.0).waiting);
        // Not under the lock: who is woken may look at the gate at once.
        for (_, waker) in waiting {
            waker.wake();
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.0);
        f.debug_struct("Gate")
            .field("open", &state.open)
            .field("places", &state.places)
            .field("taken", &state.taken)
            .finish_non_exhaustive()
    }
}

/// Somebody before a gate, who no longer wants to be woken when it has gone.
struct Waiter {
    gate: Gate,
    id: u64,
}

impl Waiter {
    fn new(gate: &Gate) -> Self {
        let mut state = lock(&gate.0);
        state.next += 1;
        Self { gate: gate.clone(), id: state.next }
    }

    fn poll(&self, cx: &mut Context<'_>, pass: impl FnOnce(&mut State) -> bool) -> Poll<()> {
        let mut state = lock(&self.gate.0);
        state.waiting.retain(|(id, _)| *id != self.id);
        if pass(&mut state) {
            return Poll::Ready(());
        }
        state.waiting.push((self.id, cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        lock(&self.gate.0).waiting.retain(|(id, _)| *id != self.id);
    }
}

/// A place that was taken, and is given back when this is dropped.
#[derive(Debug)]
struct Place(Gate);

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.0.0).taken -= 1;
        self.0.wake_all();
    }
}

/// A service that becomes ready only while its [`Gate`] is open, and **panics when it is called without having been
/// polled ready**. So it tells who breaks tower's contract.
///
/// Readiness is not inherited by clones, as in everything that reserves something in `poll_ready`.
pub struct Gated<S> {
    inner: S,
    waiter: Waiter,
    place: Option<Place>,
    ready: bool,
}

impl<S> Gated<S> {
    /// `inner`, behind `gate`.
    pub fn new(inner: S, gate: &Gate) -> Self {
        Self { inner, waiter: Waiter::new(gate), place: None, ready: false }
    }
}

impl<S: Clone> Clone for Gated<S> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), &self.waiter.gate)
    }
}

impl<S: fmt::Debug> fmt::Debug for Gated<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gated")
            .field("inner", &self.inner)
            .field("gate", &self.waiter.gate)
            .field("ready", &self.ready)
            .finish_non_exhaustive()
    }
}

impl<S, Req> Service<Req> for Gated<S>
where
    S: Service<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = GatedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if self.place.is_none() {
            let passed = self.waiter.poll(cx, |state| {
                let free = state.open && state.places.is_none_or(|places| state.taken < places);
                state.taken += usize::from(free);
                free
            });
            if passed.is_pending() {
                return Poll::Pending;
            }
            self.place = Some(Place(self.waiter.gate.clone()));
        }
        let polled = self.inner.poll_ready(cx);
        self.ready = matches!(polled, Poll::Ready(Ok(())));
        polled
    }

    fn call(&mut self, request: Req) -> Self::Future {
        if !take(&mut self.ready) {
            let mut state = lock(&self.waiter.gate.0);
            state.calls_unready += 1;
            let lenient = state.lenient;
            drop(state);
            assert!(lenient, "called without having been polled ready");
        }
        GatedFuture { place: self.place.take(), inner: self.inner.call(request) }
    }
}

pin_project! {
    /// The future of a [`Gated`] service.
    pub struct GatedFuture<F> {
        #[pin]
        inner: F,
        place: Option<Place>,
    }
}

impl<F: Future> Future for GatedFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.inner.poll(cx);
        if polled.is_ready() {
            *this.place = None;
        }
        polled
    }
}

impl<F> fmt::Debug for GatedFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatedFuture")
    }
}

#[cfg(all(test, not(palisade_loom)))]
mod tests {
    use std::pin::pin;

    use tower::ServiceExt;

    use super::*;
    use crate::testkit::{Leaf, Request, Step, Wakes, poll_once, run_paused};

    #[test]
    #[should_panic(expected = "called without having been polled ready")]
    fn a_clone_is_not_called_on_the_readiness_of_its_original() {
        let mut service = Gated::new(Leaf::new([]), &Gate::open());
        run_paused(async {
            service.ready().await.unwrap();
            let _ = service.clone().call(Request::new(1)).await;
        });
    }

    #[test]
    fn a_place_comes_back_from_whatever_is_dropped() {
        let gate = Gate::with_places(1);
        let service = Gated::new(Leaf::new([Step::Hang]), &gate);
        run_paused(async {
            let mut readied = service.clone();
            readied.ready().await.unwrap();
            assert_eq!(gate.taken(), 1);
            assert!(poll_once(pin!(service.clone().ready())).is_pending());
            let call = readied.call(Request::new(1));
            assert_eq!(gate.taken(), 1);
            drop(call);
            assert_eq!(gate.taken(), 0);
        });
    }

    #[test]
    fn only_who_still_waits_is_woken_and_only_by_the_latest_waker() {
        let (gate, stale, latest) = (Gate::default(), Wakes::new(), Wakes::new());
        let mut service = Gated::new(Leaf::new([]), &gate);
        let mut gone = service.clone();
        for wakes in [&stale, &latest] {
            let waker = wakes.waker();
            let mut cx = Context::from_waker(&waker);
            assert!(Service::<Request>::poll_ready(&mut service, &mut cx).is_pending());
        }
        let waker = stale.waker();
        assert!(Service::<Request>::poll_ready(&mut gone, &mut Context::from_waker(&waker)).is_pending());
        drop(gone);
        gate.set(true);
        assert_eq!((stale.count(), latest.count()), (0, 1));
    }
}
