//! The checker of the contract, on layers that break it one clause at a time.

use std::{
    future::Future,
    mem::take,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use palisade::{
    Rejection,
    testkit::{Clause, Contract, Error, Inner, Request},
};
use tokio::sync::Semaphore;
use tower::{Service, ServiceBuilder, buffer::BufferLayer, limit::ConcurrencyLimit, load_shed::LoadShed};

/// A mistake that somebody has made in a layer, somewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mistake {
    None,
    CallsAFreshClone,
    ReadiesAClone,
    ForgetsAReadiedServicesPlace,
    LosesThePermitOfADroppedCall,
    LeavesTheCallToATask,
    ChangesAnswers,
    MakesAnswersOfErrors,
    MakesErrorsItsOwn,
    UnwrapsTheInnerReadiness,
    WaitsForABrokenService,
    RefusesInPollReady,
    NeverServesAgain,
    KeepsTheFirstWaker,
    KeepsNoWaker,
    WakesItself,
    PoisonsItsLock,
}

struct Mistaken {
    inner: Inner,
    mistake: Mistake,
    shared: Arc<Shared>,
    counted: bool,
}

struct Shared {
    permits: Semaphore,
    readied: AtomicUsize,
    failures: AtomicUsize,
    lock: Mutex<()>,
}

impl Mistaken {
    fn new(inner: Inner, mistake: Mistake) -> Self {
        let shared = Shared {
            permits: Semaphore::new(8),
            readied: AtomicUsize::new(0),
            failures: AtomicUsize::new(0),
            lock: Mutex::new(()),
        };
        Self { inner, mistake, shared: Arc::new(shared), counted: false }
    }
}

impl Clone for Mistaken {
    fn clone(&self) -> Self {
        let (inner, shared) = (self.inner.clone(), Arc::clone(&self.shared));
        Self { inner, mistake: self.mistake, shared, counted: false }
    }
}

type Boxed = Pin<Box<dyn Future<Output = Result<u32, Error>> + Send>>;

impl Service<Request> for Mistaken {
    type Response = u32;
    type Error = Error;
    type Future = Boxed;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self.mistake {
            Mistake::ReadiesAClone => return self.inner.clone().poll_ready(cx),
            Mistake::UnwrapsTheInnerReadiness => {
                ready!(self.inner.poll_ready(cx)).unwrap();
                return Poll::Ready(Ok(()));
            }
            Mistake::WaitsForABrokenService if matches!(self.inner.poll_ready(cx), Poll::Ready(Err(_))) => {
                return Poll::Pending;
            }
            Mistake::RefusesInPollReady if self.shared.failures.load(SeqCst) >= 5 => {
                return Poll::Ready(Err(Rejection::circuit_open(None).into()));
            }
            Mistake::ForgetsAReadiedServicesPlace if !self.counted => {
                if self.shared.readied.load(SeqCst) == 8 {
                    return Poll::Pending;
                }
                self.shared.readied.fetch_add(1, SeqCst);
                self.counted = true;
            }
            _ => {}
        }
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Boxed {
        let shared = Arc::clone(&self.shared);
        if self.mistake == Mistake::CallsAFreshClone {
            return Box::pin(self.inner.clone().call(request));
        }
        let refused = self.mistake == Mistake::NeverServesAgain && shared.failures.load(SeqCst) >= 5;
        if refused {
            return Box::pin(async { Err(Rejection::circuit_open(None).into()) });
        }
        let call = self.inner.call(request);
        let mut wakers = Wakers { call: Box::pin(call), mistake: self.mistake, first: None };
        match self.mistake {
            Mistake::LosesThePermitOfADroppedCall => Box::pin(async move {
                shared.permits.acquire().await.unwrap().forget();
                let outcome = wakers.await;
                shared.permits.add_permits(1);
                outcome
            }),
            Mistake::LeavesTheCallToATask => Box::pin(async move { tokio::spawn(wakers).await.unwrap() }),
            Mistake::ChangesAnswers => Box::pin(async move { Ok(wakers.await? + 1) }),
            Mistake::MakesAnswersOfErrors => Box::pin(async move { wakers.await.or(Ok(0)) }),
            Mistake::MakesErrorsItsOwn => {
                Box::pin(async move { wakers.await.map_err(|_| Rejection::Closed.into()) })
            }
            Mistake::RefusesInPollReady | Mistake::NeverServesAgain => Box::pin(async move {
                let outcome = wakers.await;
                shared.failures.fetch_add(usize::from(outcome.is_err()), SeqCst);
                outcome
            }),
            Mistake::ForgetsAReadiedServicesPlace => {
                let place = take(&mut self.counted).then(|| Place(shared));
                Box::pin(async move {
                    let _place = place;
                    wakers.await
                })
            }
            Mistake::PoisonsItsLock => Box::pin(std::future::poll_fn(move |cx| {
                let _guard = shared.lock.lock().unwrap();
                Pin::new(&mut wakers).poll(cx)
            })),
            _ => Box::pin(wakers),
        }
    }
}

struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.readied.fetch_sub(1, SeqCst);
    }
}

/// Polls a call with another waker than it should, for some of the mistakes.
struct Wakers {
    call: Boxed,
    mistake: Mistake,
    first: Option<Waker>,
}

impl Future for Wakers {
    type Output = Result<u32, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = match self.mistake {
            Mistake::KeepsTheFirstWaker => self.first.get_or_insert_with(|| cx.waker().clone()).clone(),
            Mistake::KeepsNoWaker => Waker::noop().clone(),
            _ => cx.waker().clone(),
        };
        let polled = self.call.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_pending() && self.mistake == Mistake::WakesItself {
            cx.waker().wake_by_ref();
        }
        polled
    }
}

fn broken_by(mistake: Mistake) -> Vec<(Clause, String)> {
    let contract = Contract::new(move |inner| Mistaken::new(inner, mistake)).rest(Duration::from_secs(1));
    contract.violations().iter().map(|violation| (violation.clause(), violation.to_string())).collect()
}

#[test]
fn a_layer_without_a_mistake_passes() {
    assert_eq!(broken_by(Mistake::None), []);
}

#[test]
fn each_mistake_is_found_and_the_message_says_what_to_do() {
    let cases = [
        (Mistake::CallsAFreshClone, Clause::ReadyBeforeCall, "std::mem::replace(&mut self.inner, clone)"),
        (Mistake::ReadiesAClone, Clause::ReadyBeforeCall, "without having been polled ready"),
        (Mistake::ReadiesAClone, Clause::Wakes, "do not drop the clone that waits"),
        (Mistake::ForgetsAReadiedServicesPlace, Clause::ReadinessGivenBack, "none became ready any more"),
        (Mistake::LosesThePermitOfADroppedCall, Clause::DroppedCalls, "8 calls got through at once before"),
        (Mistake::LosesThePermitOfADroppedCall, Clause::Panics, "Give back what a call holds in `Drop`"),
        (Mistake::LeavesTheCallToATask, Clause::DroppedCalls, "1 inner calls in flight"),
        (Mistake::ChangesAnswers, Clause::Answers, "is another than the inner service's"),
        (Mistake::MakesAnswersOfErrors, Clause::Errors, "became an answer"),
        (Mistake::MakesErrorsItsOwn, Clause::Errors, "or as the `source()` of your own"),
        (Mistake::UnwrapsTheInnerReadiness, Clause::BrokenInner, "do not `unwrap` it"),
        (Mistake::WaitsForABrokenService, Clause::BrokenInner, "never ended"),
        (Mistake::RefusesInPollReady, Clause::NoRefusalInPollReady, "the circuit is open"),
        (Mistake::NeverServesAgain, Clause::NoRefusalInPollReady, "let it serve again"),
        (Mistake::KeepsTheFirstWaker, Clause::Wakes, "the waker of an earlier poll was woken"),
        (Mistake::KeepsNoWaker, Clause::Wakes, "nobody woke it"),
        (Mistake::WakesItself, Clause::NoSpinning, "Do not wake yourself"),
        (Mistake::PoisonsItsLock, Clause::Panics, "PoisonError::into_inner"),
    ];
    for (mistake, clause, advice) in cases {
        let broken = broken_by(mistake);
        let found = broken.iter().find(|(broken, _)| *broken == clause);
        assert!(found.is_some_and(|(_, text)| text.contains(advice)), "{mistake:?}: {broken:#?}");
    }
}

#[test]
#[should_panic(expected = "ReadyBeforeCall: the inner service was called")]
fn a_broken_contract_fails_the_test() {
    Contract::new(|inner| Mistaken::new(inner, Mistake::CallsAFreshClone)).check();
}

#[test]
fn a_clause_that_is_left_out_is_not_checked() {
    let contract = Contract::new(|inner| Mistaken::new(inner, Mistake::ChangesAnswers));
    assert!(!contract.violations().is_empty());
    contract.skip(Clause::Answers, "it adds one on purpose").check();
}

/// The contract is tower's: its own layers keep it, but for what they are known not to do.
#[test]
fn towers_own_layers_keep_it() {
    Contract::new(|inner| inner).check();
    Contract::new(|inner| ConcurrencyLimit::new(inner, 3)).check();
    Contract::new(|inner| tower::timeout::Timeout::new(inner, Duration::from_millis(50))).check();
    Contract::new(LoadShed::new).check();
    Contract::new(|inner| ServiceBuilder::new().layer(BufferLayer::new(64)).service(inner))
        .skip(Clause::Panics, "its worker dies of a panic")
        .check();
}
