//! Services at the bottom of a stack that do what a test tells them.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use palisade::{Class, Classified, Effect, Fault, Idempotence, Rejection, TimeoutScope};
use tokio::time::sleep;
use tower::Service;

pub(crate) type Request = palisade::Envelope<u32>;

pub(crate) fn idempotent(request: u32) -> Request {
    Request::new(request).idempotence(Idempotence::Yes)
}

/// A typed error, as a service of its own would have it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Error {
    Refused(Rejection),
    /// The number tells errors apart.
    Failed(Class, u32),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(rejection) => Some(rejection),
            Self::Failed(..) => None,
        }
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(rejection)
    }
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Refused(rejection) => rejection.class(),
            Self::Failed(class, _) => *class,
        }
    }
}

impl Error {
    pub(crate) fn timed_out(scope: TimeoutScope, limit: Duration) -> Self {
        Rejection::timed_out(scope, limit).into()
    }
}

pub(crate) const AMBIGUOUS: Class = Class::new(Fault::Server, Effect::Unknown);
pub(crate) const NOT_APPLIED: Class = Class::new(Fault::Overload, Effect::NotApplied);
pub(crate) const CALLER: Class = Class::new(Fault::Caller, Effect::NotApplied);

/// What the leaf does with a call.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Answer,
    AnswerAfter(Duration),
    Fail(Class),
    Hang,
}

/// A leaf that follows a script, and does the last step again and again when the script has ended.
#[derive(Clone, Debug)]
pub(crate) struct Leaf(Arc<State>);

#[derive(Debug)]
struct State {
    script: Mutex<VecDeque<Step>>,
    calls: Mutex<Vec<Request>>,
    in_flight: AtomicUsize,
}

impl Leaf {
    pub(crate) fn new(script: impl IntoIterator<Item = Step>) -> Self {
        Self(Arc::new(State {
            script: Mutex::new(script.into_iter().collect()),
            calls: Mutex::default(),
            in_flight: AtomicUsize::new(0),
        }))
    }

    /// The requests that reached it.
    pub(crate) fn calls(&self) -> Vec<Request> {
        self.0.calls.lock().unwrap().clone()
    }

    pub(crate) fn call_count(&self) -> usize {
        self.0.calls.lock().unwrap().len()
    }

    /// How many of its futures are alive and not answered.
    pub(crate) fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::SeqCst)
    }
}

struct InFlight(Arc<State>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service<Request> for Leaf {
    type Response = u32;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<u32, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let number = {
            let mut calls = self.0.calls.lock().unwrap();
            calls.push(request.clone());
            u32::try_from(calls.len()).unwrap()
        };
        let step = {
            let mut script = self.0.script.lock().unwrap();
            if script.len() > 1 { script.pop_front().unwrap() } else { script[0].clone() }
        };
        self.0.in_flight.fetch_add(1, Ordering::SeqCst);
        let in_flight = InFlight(Arc::clone(&self.0));
        Box::pin(async move {
            let _in_flight = in_flight;
            match step {
                Step::Answer => Ok(*request),
                Step::AnswerAfter(wait) => {
                    sleep(wait).await;
                    Ok(*request)
                }
                Step::Fail(class) => Err(Error::Failed(class, number)),
                Step::Hang => std::future::pending().await,
            }
        })
    }
}

/// A service that lets the inner one be ready only while its gate is open, and panics if it is called without
/// having been polled ready.
#[derive(Debug)]
pub(crate) struct Gated<S> {
    inner: S,
    gate: Gate,
    ready: bool,
}

/// Opened and closed by a test. Shared by clones of the service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<Mutex<GateState>>);

#[derive(Debug, Default)]
struct GateState {
    open: bool,
    wakers: Vec<std::task::Waker>,
}

impl Gate {
    pub(crate) fn open() -> Self {
        let gate = Self::default();
        gate.set(true);
        gate
    }

    pub(crate) fn set(&self, open: bool) {
        let mut state = self.0.lock().unwrap();
        state.open = open;
        state.wakers.drain(..).for_each(std::task::Waker::wake);
    }
}

impl<S> Gated<S> {
    pub(crate) fn new(inner: S, gate: &Gate) -> Self {
        Self { inner, gate: gate.clone(), ready: false }
    }
}

impl<S: Clone> Clone for Gated<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), gate: self.gate.clone(), ready: false }
    }
}

impl<S: Service<Request>> Service<Request> for Gated<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let mut state = self.gate.0.lock().unwrap();
        if !state.open {
            state.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        self.ready = true;
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> S::Future {
        assert!(std::mem::take(&mut self.ready), "called without having been polled ready");
        self.inner.call(request)
    }
}
