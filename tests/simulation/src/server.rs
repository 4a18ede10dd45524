//! The server as a service: what stacks end in.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use palisade::HasDeadline;
use tokio::{
    sync::oneshot,
    time::{Sleep, sleep_until},
};
use tower::Service;

use crate::{
    call::{Call, Error},
    clock::Clock,
    engine::{Engine, Job, Settings},
    speed::Nanos,
};

type Reply = oneshot::Sender<Result<(), Error>>;

/// A simulated server. Clones are the same one.
///
/// It goes on with work whose caller has gone, as real ones do: a future that is dropped here sends no message there. That
/// is what lets timeouts and retries keep a server down that nothing is wrong with any more.
#[derive(Clone)]
pub struct Server {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

struct State {
    engine: Engine<Reply>,
    // Of the task that runs the engine, and for when it has set its alarm.
    runner: Option<Waker>,
    alarm: Nanos,
}

impl Server {
    /// Starts a server, in a task of the present runtime.
    pub fn start(settings: Settings, clock: Clock, seed: u64) -> Self {
        let engine = Engine::new(settings, seed);
        let state = Arc::new(Mutex::new(State { engine, runner: None, alarm: Nanos::MAX }));
        let server = Self { clock, state };
        tokio::spawn(Runner { server: server.clone(), sleep: None });
        server
    }

    /// Requests that have arrived so far.
    pub fn arrived(&self) -> u64 {
        self.state().engine.arrived()
    }

    /// Requests that wait for a worker.
    pub fn waiting(&self) -> usize {
        self.state().engine.waiting()
    }

    /// Lets the workers pay for a refusal by a layer that stands on the server's machine.
    pub fn charge_refusal(&self) {
        self.state().engine.charge_refusal();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("arrived", &self.arrived()).finish_non_exhaustive()
    }
}

impl Service<Call> for Server {
    type Response = ();
    type Error = Error;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Answer {
        let (reply, answer) = oneshot::channel();
        let deadline = call.deadline().map(|at| self.clock.nanos_of(at));
        let job = Job { key: call.key, deadline, reply };
        let mut state = self.state();
        state.engine.arrive(self.clock.nanos(), job, &mut send);
        let is_sooner = state.engine.next_end().is_some_and(|next| next < state.alarm);
        let runner = state.runner.take_if(|_| is_sooner);
        drop(state);
        if let Some(runner) = runner {
            runner.wake();
        }
        Answer(answer)
    }
}

fn send(reply: Reply, answer: Result<(), Error>) {
    // Nobody may wait for it any more: the work was done in vain.
    let _ = reply.send(answer);
}

/// The answer of a [`Server`].
#[derive(Debug)]
pub struct Answer(oneshot::Receiver<Result<(), Error>>);

impl Future for Answer {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match ready!(Pin::new(&mut self.0).poll(cx)) {
            Ok(answer) => Poll::Ready(answer),
            // The server has thrown the request away.
            Err(_) => Poll::Pending,
        }
    }
}

/// One timer for all that a server does.
struct Runner {
    server: Server,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Future for Runner {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let clock = this.server.clock;
        loop {
            let next = {
                let mut state = this.server.state();
                state.engine.run_until(clock.nanos(), &mut send);
                state.alarm = state.engine.next_end().unwrap_or(Nanos::MAX);
                state.runner = Some(cx.waker().clone());
                state.alarm
            };
            if next == Nanos::MAX {
                this.sleep = None;
                return Poll::Pending;
            }
            let sleep = match &mut this.sleep {
                Some(sleep) => {
                    sleep.as_mut().reset(clock.at(next));
                    sleep
                }
                none => none.insert(Box::pin(sleep_until(clock.at(next)))),
            };
            ready!(sleep.as_mut().poll(cx));
        }
    }
}
