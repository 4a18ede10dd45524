//! A layer of one's own, complete, to start from: `cargo run --example custom_layer`. It needs no cluster.
//!
//! `Brake` lets fewer calls through at once when the service says that it is overloaded, and more again when it does
//! not. What a layer needs is all here: a core that decides, a layer with settings that are checked, a service, a
//! future, and a guard that gives back what a call holds. The guide in `palisade::guide` explains it step by step.
//!
//! In a crate of your own add a test that any layer should have, with `palisade`'s feature `testkit`:
//!
//! ```ignore
//! #[test]
//! fn it_keeps_the_contract() {
//!     palisade::testkit::Contract::new(|inner| BrakeLayer::new(8).unwrap().layer(inner)).check();
//! }
//! ```
#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_cassandra::layers::{
    ByError, Class, Classified, Classify, ConfigError, Effect, Fault, Instant, Rejection, telemetry::Counter,
};

/// The core. It is told what happened and when, and knows no services: a test can drive it by hand.
struct Core {
    most: usize,
    limit: usize,
    in_flight: usize,
    // Successes since the limit was last changed.
    successes: usize,
    cut: Option<Instant>,
}

impl Core {
    /// The answers of calls that were let through before a cut say nothing about its effect.
    const PAUSE: Duration = Duration::from_millis(50);

    fn enter(&mut self) -> bool {
        let room = self.in_flight < self.limit;
        self.in_flight += usize::from(room);
        room
    }

    fn leave(&mut self) {
        self.in_flight -= 1;
    }

    fn learn(&mut self, class: Class, now: Instant) {
        match class.fault() {
            Fault::Overload => {
                let paused = self.cut.is_some_and(|cut| now.saturating_duration_since(cut) < Self::PAUSE);
                if !paused {
                    self.limit = (self.limit / 2).max(1);
                    self.successes = 0;
                    self.cut = Some(now);
                }
            }
            Fault::None => {
                self.successes += 1;
                if self.successes > self.limit {
                    self.limit = (self.limit + 1).min(self.most);
                    self.successes = 0;
                }
            }
            // Other failures do not tell whether there is too much work.
            _ => {}
        }
    }
}

/// The layer. Clones, and all services made by them, share the core and the metrics.
#[derive(Clone)]
struct BrakeLayer<C = ByError> {
    shared: Arc<Shared<C>>,
}

struct Shared<C> {
    core: Mutex<Core>,
    classifier: C,
    refused: Counter,
}

impl<C> Shared<C> {
    /// Held for a few instructions: never over an `.await`, nor while anybody else's code runs.
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BrakeLayer {
    /// Lets at most `most` calls through at once, from 1 to 1,000,000.
    fn new(most: usize) -> Result<Self, ConfigError> {
        if !(1..=1_000_000).contains(&most) {
            return Err(ConfigError::new("most", format!("is {most}, but must be from 1 to 1,000,000")));
        }
        let core = Core { most, limit: most, in_flight: 0, successes: 0, cut: None };
        let refused = Counter::new("brake_refused_total", "brake", &[]);
        Ok(Self { shared: Arc::new(Shared { core: Mutex::new(core), classifier: ByError, refused }) })
    }

    /// How many calls may be in flight now.
    fn limit(&self) -> usize {
        self.shared.core().limit
    }
}

impl<S, C> Layer<S> for BrakeLayer<C> {
    type Service = Brake<S, C>;

    fn layer(&self, inner: S) -> Brake<S, C> {
        Brake { inner, shared: Arc::clone(&self.shared) }
    }
}

/// The service.
struct Brake<S, C> {
    inner: S,
    shared: Arc<Shared<C>>,
}

impl<S: Clone, C> Clone for Brake<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S, C, Req> Service<Req> for Brake<S, C>
where
    S: Service<Req> + Clone,
    S::Error: From<Rejection>,
    C: Classify<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BrakeFuture<S::Future, C>;

    /// Readiness is the inner service's. A refusal does not belong here: it would be for ever.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let Some(place) = Place::take(&self.shared) else {
            self.shared.refused.increment(1);
            // The ready service may hold a place in a limit further in. A clone holds none.
            self.inner = self.inner.clone();
            return BrakeFuture { call: None, place: None };
        };
        BrakeFuture { call: Some(self.inner.call(request)), place: Some(place) }
    }
}

/// The place of a call, given back when it ends, when its caller has gone, and after a panic.
struct Place<C>(Arc<Shared<C>>);

impl<C> Place<C> {
    fn take(shared: &Arc<Shared<C>>) -> Option<Self> {
        let room = shared.core().enter();
        room.then(|| Self(Arc::clone(shared)))
    }
}

impl<C> Drop for Place<C> {
    fn drop(&mut self) {
        self.0.core().leave();
    }
}

pin_project! {
    /// The future of a call.
    struct BrakeFuture<F, C> {
        // None for a call that was refused.
        #[pin]
        call: Option<F>,
        place: Option<Place<C>>,
    }
}

impl<F, C, Res, Err> Future for BrakeFuture<F, C>
where
    F: Future<Output = Result<Res, Err>>,
    Err: From<Rejection>,
    C: Classify<Res, Err>,
{
    type Output = Result<Res, Err>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(call) = this.call.as_pin_mut() else {
            return Poll::Ready(Err(Rejection::ConcurrencyLimited.into()));
        };
        let polled = call.poll(cx);
        if let Poll::Ready(outcome) = &polled
            && let Some(place) = this.place.take()
        {
            // The classifier is somebody else's code: first ask it, then lock.
            let class = place.0.classifier.classify(outcome.as_ref());
            place.0.core().learn(class, Instant::now());
        }
        polled
    }
}

/// An error of the service below, with room for what layers refuse.
#[derive(Debug)]
enum Error {
    Overloaded,
    Refused(Rejection),
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(rejection)
    }
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Overloaded => Class::new(Fault::Overload, Effect::NotApplied),
            Self::Refused(rejection) => rejection.class(),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), ConfigError> {
    // A service that can do four things at once.
    let places = Arc::new(tokio::sync::Semaphore::new(4));
    let service = service_fn(move |request: u32| {
        let place = Arc::clone(&places).try_acquire_owned();
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            place.map(|_place| request).map_err(|_| Error::Overloaded)
        }
    });
    let brake = BrakeLayer::new(16)?;
    let service = brake.layer(service);

    println!("Sixteen callers at once, for a service that can take four:");
    for round in 1..=6 {
        let limit = brake.limit();
        let calls: Vec<_> = (0..16).map(|caller| tokio::spawn(service.clone().oneshot(caller))).collect();
        let (mut answered, mut overloaded, mut refused) = (0, 0, 0);
        for call in calls {
            match call.await {
                Ok(Ok(_)) => answered += 1,
                Ok(Err(Error::Refused(_))) => refused += 1,
                Ok(Err(Error::Overloaded)) | Err(_) => overloaded += 1,
            }
        }
        println!(
            "  round {round}, limit {limit:2}: {answered} answered, {overloaded} overloaded, {refused} refused"
        );
        tokio::time::sleep(Core::PAUSE).await;
    }
    Ok(())
}
