use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    panic::resume_unwind,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::sleep;
use tower::Service;

use super::{Error, Gate};
use crate::{
    Class, Idempotence,
    sync::{Mutex, lock},
};

/// The request of a [`Leaf`] unless it is made for another: a number, with everything that layers can ask for.
pub type Request = crate::Envelope<u32>;

/// A request that may be sent twice.
pub fn idempotent(number: u32) -> Request {
    Request::new(number).idempotence(Idempotence::Yes)
}

/// What a [`Leaf`] does with a call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Step {
    /// Answers at the first poll.
    Answer,
    /// Answers after a while.
    AnswerAfter(Duration),
    /// Is pending at the first poll, with a wake-up at once, and answers at the next.
    PendingOnce,
    /// Answers when the gate is open.
    Hold(Gate),
    /// Fails at the first poll.
    Fail(Class),
    /// Never ends.
    Hang,
    /// Panics at the first poll, without a message on the standard error.
    Panic,
}

/// A service at the bottom of a stack that follows a script. Clones are the same leaf.
///
/// Each call takes a step off the script; the last step is done again and again. Without a script it answers.
///
/// ```
/// use palisade::testkit::{CALLER, Error, Leaf, Request, Step, run_paused};
/// use tower::ServiceExt;
///
/// let leaf = Leaf::new([Step::Answer, Step::Fail(CALLER)]);
/// run_paused(async {
///     assert_eq!(leaf.clone().oneshot(Request::new(7)).await, Ok(7));
///     assert_eq!(leaf.clone().oneshot(Request::new(8)).await, Err(Error::Failed(CALLER, 2)));
/// });
/// assert_eq!(*leaf.calls()[1], 8);
/// ```
pub struct Leaf<Req = Request, Res = u32>(Arc<State<Req, Res>>);

struct State<Req, Res> {
    script: Mutex<VecDeque<Step>>,
    calls: Mutex<Vec<Req>>,
    call_count: AtomicUsize,
    in_flight: Arc<InFlight>,
    broken: AtomicBool,
    record: fn(&Req) -> Option<Req>,
    answer: Box<dyn Fn(Req) -> Res + Send + Sync>,
}

impl Leaf {
    /// A leaf that answers a request with its number, and records the requests.
    pub fn new(script: impl IntoIterator<Item = Step>) -> Self {
        Self::make(script, |request| Some(request.clone()), |request: Request| *request)
    }
}

impl<Req, Res> Leaf<Req, Res> {
    /// A leaf for requests of any type: `answer` makes the answers. It records no requests.
    pub fn answering(
        script: impl IntoIterator<Item = Step>,
        answer: impl Fn(Req) -> Res + Send + Sync + 'static,
    ) -> Self {
        Self::make(script, |_| None, answer)
    }

    fn make(
        script: impl IntoIterator<Item = Step>,
        record: fn(&Req) -> Option<Req>,
        answer: impl Fn(Req) -> Res + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(State {
            script: Mutex::new(script.into_iter().collect()),
            calls: Mutex::new(Vec::new()),
            call_count: AtomicUsize::new(0),
            in_flight: Arc::default(),
            broken: AtomicBool::new(false),
            record,
            answer: Box::new(answer),
        }))
    }

    /// Follows another script from the next call on.
    pub fn follow(&self, script: impl IntoIterator<Item = Step>) {
        *lock(&self.0.script) = script.into_iter().collect();
    }

    /// Is never ready again: `poll_ready` fails with [`Error::Broken`].
    pub fn break_down(&self) {
        self.0.broken.store(true, SeqCst);
    }

    /// The number of calls that reached it.
    pub fn call_count(&self) -> usize {
        self.0.call_count.load(SeqCst)
    }

    /// How many of its futures are alive and have not ended.
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.now.load(SeqCst)
    }

    /// The most that were in flight at once so far.
    pub fn most_in_flight(&self) -> usize {
        self.0.in_flight.most.load(SeqCst)
    }

    /// How many of those in flight have been polled.
    pub(super) fn polled(&self) -> usize {
        self.0.in_flight.polled.load(SeqCst)
    }
}

impl<Req: Clone, Res> Leaf<Req, Res> {
    /// The requests that reached it, in order. Empty for a leaf made with [`answering`](Self::answering).
    pub fn calls(&self) -> Vec<Req> {
        lock(&self.0.calls).clone()
    }
}

impl<Req, Res> Clone for Leaf<Req, Res> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<Req, Res> fmt::Debug for Leaf<Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf")
            .field("script", &self.0.script)
            .field("call_count", &self.call_count())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl<Req, Res> Service<Req> for Leaf<Req, Res>
where
    Req: Send + 'static,
    Res: Send + 'static,
{
    type Response = Res;
    type Error = Error;
    type Future = LeafFuture<Res>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(if self.0.broken.load(SeqCst) { Err(Error::Broken) } else { Ok(()) })
    }

    fn call(&mut self, request: Req) -> LeafFuture<Res> {
        let number = u32::try_from(self.0.call_count.fetch_add(1, SeqCst) + 1).unwrap_or(u32::MAX);
        if let Some(copy) = (self.0.record)(&request) {
            lock(&self.0.calls).push(copy);
        }
        let step = {
            let mut script = lock(&self.0.script);
            let last = script.len() <= 1;
            if last { script.front().cloned() } else { script.pop_front() }
        };
        let in_flight = Guard::enter(&self.0.in_flight);
        let state = Arc::clone(&self.0);
        LeafFuture(Box::pin(async move {
            let mut in_flight = in_flight;
            in_flight.polled();
            match step.unwrap_or(Step::Answer) {
                Step::Answer => {}
                Step::AnswerAfter(wait) => sleep(wait).await,
                Step::PendingOnce => pending_once().await,
                Step::Hold(gate) => gate.opened().await,
                Step::Fail(class) => return Err(Error::Failed(class, number)),
                Step::Hang => std::future::pending().await,
                Step::Panic => resume_unwind(Box::new("the leaf panicked, as it was told to")),
            }
            Ok((state.answer)(request))
        }))
    }
}

/// The future of a [`Leaf`].
pub struct LeafFuture<Res>(Pin<Box<dyn Future<Output = Result<Res, Error>> + Send>>);

impl<Res> Future for LeafFuture<Res> {
    type Output = Result<Res, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<Res> fmt::Debug for LeafFuture<Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeafFuture")
    }
}

async fn pending_once() {
    let mut polled = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[derive(Debug, Default)]
struct InFlight {
    now: AtomicUsize,
    most: AtomicUsize,
    polled: AtomicUsize,
}

struct Guard {
    in_flight: Arc<InFlight>,
    polled: bool,
}

impl Guard {
    fn enter(in_flight: &Arc<InFlight>) -> Self {
        let now = in_flight.now.fetch_add(1, SeqCst) + 1;
        in_flight.most.fetch_max(now, SeqCst);
        Self { in_flight: Arc::clone(in_flight), polled: false }
    }

    fn polled(&mut self) {
        self.polled = true;
        self.in_flight.polled.fetch_add(1, SeqCst);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.in_flight.now.fetch_sub(1, SeqCst);
        self.in_flight.polled.fetch_sub(usize::from(self.polled), SeqCst);
    }
}
