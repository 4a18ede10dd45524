//! The service under test with everything around it, and ways to drive its calls.

use std::{
    any::Any,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{advance, sleep};
use tower::{BoxError, Service};

use super::{Contract, Inner};
use crate::testkit::{Gate, Gated, Leaf, Step, Wakes, poll_once, settle};

/// How many calls are made at once to see how many get through.
const PROBES: u32 = 16;

pub(super) struct Bench<'a, F, S, Req, Res>
where
    S: Service<Req>,
{
    contract: &'a Contract<F, S, Req, Res>,
    pub(super) service: S,
    pub(super) leaf: Leaf<Req, Res>,
    pub(super) gate: Gate,
}

/// Why a future did not end.
#[derive(Debug)]
pub(super) enum Stuck {
    Waits,
    Spins,
    Panicked(String),
}

/// What a future does that is left alone.
pub(super) enum Watched<T> {
    Ended(T),
    Waits,
    Spins,
}

pub(super) type Call<Res> = Pin<Box<dyn Future<Output = Result<Res, BoxError>>>>;

impl<F, S, Req, Res> Contract<F, S, Req, Res>
where
    F: Fn(Inner<Req, Res>) -> S,
    S: Service<Req>,
    Req: 'static,
    Res: 'static,
{
    pub(super) fn bench(&self, gate: &Gate, script: &[Step]) -> Bench<'_, F, S, Req, Res> {
        let answer = Arc::clone(&self.answer);
        let leaf = Leaf::answering(script.to_vec(), move |request| answer(request));
        gate.forgive();
        let service = (self.build)(Gated::new(leaf.clone(), gate));
        Bench { contract: self, service, leaf, gate: gate.clone() }
    }
}

impl<F, S, Req, Res> Bench<'_, F, S, Req, Res>
where
    S: Service<Req> + Clone + 'static,
    S::Future: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    pub(super) fn request(&self, number: u32) -> Req {
        (self.contract.request)(number)
    }

    /// A call by a clone of the service.
    pub(super) fn call(&self, number: u32) -> Call<S::Response> {
        let mut service = self.service.clone();
        let request = self.request(number);
        Box::pin(async move {
            ready(&mut service).await?;
            service.call(request).await.map_err(Into::into)
        })
    }

    /// How many calls get through to the leaf at once.
    pub(super) async fn concurrency(&self) -> usize {
        self.leaf.follow([Step::Hang]);
        let mut calls: Vec<_> = (0..PROBES).map(|number| Some(self.call(number))).collect();
        for _ in 0..3 {
            for slot in &mut calls {
                if slot.as_mut().is_some_and(|call| poll_once(call.as_mut()).is_ready()) {
                    *slot = None;
                }
            }
            settle().await;
        }
        let concurrency = self.leaf.polled();
        drop(calls);
        settle().await;
        self.leaf.follow([]);
        concurrency
    }

    /// Whether as many calls get through at once as before, after a rest if need be; if not, how many do.
    pub(super) async fn serves(&self, concurrency: usize) -> Result<(), usize> {
        let mut served = self.concurrency().await;
        for _ in 0..10 {
            if served >= concurrency {
                return Ok(());
            }
            advance(self.contract.rest).await;
            for number in 0..4 {
                let _ = finish(self.call(number), self.contract.rest).await;
            }
            // What those four have used up comes back too.
            advance(self.contract.rest).await;
            served = self.concurrency().await;
        }
        if served >= concurrency { Ok(()) } else { Err(served) }
    }
}

pub(super) async fn ready<S, Req>(service: &mut S) -> Result<(), BoxError>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)
}

/// Runs a future to its end, but not for longer than `within` on the paused clock, and not for ever on the real one.
pub(super) async fn finish<T>(future: impl Future<Output = T>, within: Duration) -> Result<T, Stuck> {
    const MOST_POLLS: u32 = 10_000;
    let (mut future, mut limit) = (pin!(future), pin!(sleep(within)));
    let mut polls = 0;
    poll_fn(|cx| {
        polls += 1;
        if polls > MOST_POLLS {
            return Poll::Ready(Err(Stuck::Spins));
        }
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => limit.as_mut().poll(cx).map(|()| Err(Stuck::Waits)),
            Err(panic) => Poll::Ready(Err(Stuck::Panicked(panic_text(&*panic)))),
        }
    })
    .await
}

/// Runs two futures to their ends.
pub(super) async fn both(first: impl Future, second: impl Future) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let mut ended = (false, false);
    poll_fn(|cx| {
        ended.0 = ended.0 || first.as_mut().poll(cx).is_ready();
        ended.1 = ended.1 || second.as_mut().poll(cx).is_ready();
        if ended == (true, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Polls a future as long as it is woken, on a clock that stands still.
pub(super) async fn watch<Res>(call: &mut Call<Res>, wakes: &Wakes) -> Watched<Result<Res, BoxError>> {
    const MOST_POLLS: u32 = 32;
    for _ in 0..MOST_POLLS {
        let before = wakes.count();
        if let Poll::Ready(output) = call.as_mut().poll(&mut Context::from_waker(&wakes.waker())) {
            return Watched::Ended(output);
        }
        settle().await;
        if wakes.count() == before {
            return Watched::Waits;
        }
    }
    Watched::Spins
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text").to_owned()
}
