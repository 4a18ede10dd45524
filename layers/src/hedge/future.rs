use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower::Service;

use super::state::{Outcome, Refused, Shared};
use crate::{
    class::{Classify, Fault},
    clock::Instant,
    handle::Handle,
    readiness::Spare,
    request::{Repeat, Why},
    superseded::drop_loser,
    timer::{Due, Timer},
};

pin_project! {
    /// The future of a [`Hedge`](super::Hedge) service.
    #[project = HedgeFutureProj]
    pub struct HedgeFuture<S, C, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        first: First<S::Future>,
        #[pin]
        second: Second<S, S::Future, Req>,
        watch: Watch<S, C>,
    }
}

pin_project! {
    #[project = FirstProj]
    enum First<F> {
        Calling { #[pin] future: F },
        // It has failed while the second one was under way.
        Failed,
    }
}

pin_project! {
    #[project = SecondProj]
    enum Second<S, F, Req> {
        Waiting { timer: Timer, delay: Option<Duration>, spare: Option<Req> },
        Readying { service: S, request: Option<Req> },
        Calling { #[pin] future: F },
        // There will be none, or it has ended.
        None,
    }
}

/// What a call needs to send its request again.
pub(super) struct Kept<S, C> {
    pub(super) spare: Spare<S>,
    pub(super) shared: Arc<Shared>,
    pub(super) classifier: C,
}

/// Sees to it that every call is measured and every second attempt counted, dropped ones included.
struct Watch<S, C> {
    kept: Handle<Kept<S, C>>,
    // At the first poll: what a call waits for before that is not the service's doing.
    began: Option<Instant>,
    hedged: bool,
    ended: bool,
}

impl<S, C> Watch<S, C> {
    #[inline]
    fn began(&mut self) -> Instant {
        *self.began.get_or_insert_with(Instant::now)
    }

    /// The call has an answer, or a failure.
    #[inline]
    fn measure(&mut self, fault: Fault) {
        let (began, now) = (self.began(), Instant::now());
        self.ended = true;
        if fault == Fault::None {
            self.kept.shared.measure(began, now);
        } else {
            self.kept.shared.measure_failure(began, now);
        }
    }

    /// A second attempt is on its way.
    #[cold]
    fn fired(&mut self) {
        let began = self.began();
        self.kept.shared.fired(Instant::now().saturating_duration_since(began));
    }

    fn end(&mut self, outcome: Outcome) {
        if self.hedged {
            self.hedged = false;
            self.kept.shared.count(outcome);
        }
    }
}

impl<S, C> Drop for Watch<S, C> {
    fn drop(&mut self) {
        self.end(Outcome::Dropped);
        if let (false, Some(began)) = (self.ended, self.began) {
            self.kept.shared.measure_failure(began, Instant::now());
        }
    }
}

impl<S, C, Req> HedgeFuture<S, C, Req>
where
    S: Service<Req>,
{
    /// A call whose request may be sent again, from `spare`, if there is one.
    pub(super) fn new(first: S::Future, spare: Option<Req>, kept: Handle<Kept<S, C>>) -> Self {
        let second = match spare {
            Some(spare) => Second::Waiting { timer: Timer::unarmed(), delay: None, spare: Some(spare) },
            None => Second::None,
        };
        let watch = Watch { kept, began: None, hedged: false, ended: false };
        Self { first: First::Calling { future: first }, second, watch }
    }
}

impl<S, C, Req> Future for HedgeFuture<S, C, Req>
where
    Req: Repeat,
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        this.watch.began();
        if let FirstProj::Calling { future } = this.first.as_mut().project()
            && let Poll::Ready(outcome) = future.poll(cx)
        {
            let fault = this.watch.kept.classifier.classify(outcome.as_ref()).fault();
            this.watch.measure(fault);
            // A failure leaves it to the second attempt, where there is one that can do better.
            let decided = matches!(fault, Fault::None | Fault::Caller)
                || !matches!(*this.second, Second::Calling { .. });
            if decided {
                this.watch.end(Outcome::Lost);
                drop_loser(|| this.second.set(Second::None));
                return Poll::Ready(outcome);
            }
            this.first.set(First::Failed);
        }
        if matches!(*this.second, Second::None) {
            return Poll::Pending;
        }
        poll_second(this, cx)
    }
}

/// What comes after the first attempt was found pending, or has failed while the second was under way.
fn poll_second<S, C, Req>(
    mut this: HedgeFutureProj<'_, S, C, Req>,
    cx: &mut Context<'_>,
) -> Poll<Result<S::Response, S::Error>>
where
    Req: Repeat,
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error>,
{
    loop {
        let next = match this.second.as_mut().project() {
            SecondProj::None => return Poll::Pending,
            SecondProj::Waiting { timer, delay, spare } => {
                let began = this.watch.began();
                if delay.is_none() {
                    *delay = this.watch.kept.shared.delay(began);
                }
                match *delay {
                    None => Second::None,
                    Some(delay) => {
                        ready!(timer.poll(cx, || Due::at_given(began + delay, began)));
                        // Waiting -> Readying, if the request still says so.
                        let request = spare.take().and_then(|spare| spare.repeat(Why::Hedge));
                        if request.is_none() {
                            this.watch.kept.shared.count_refused(Refused::NotAllowed);
                            Second::None
                        } else {
                            Second::Readying { service: this.watch.kept.spare.fresh(), request }
                        }
                    }
                }
            }
            SecondProj::Readying { service, request } => match service.poll_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => Second::None,
                // Readying -> Calling, if there is room. Last, so that only what is sent is paid for.
                Poll::Ready(Ok(())) => match (request.take(), this.watch.kept.shared.withdraw()) {
                    (Some(request), Ok(())) => {
                        this.watch.hedged = true;
                        this.watch.fired();
                        Second::Calling { future: service.call(request) }
                    }
                    (_, Err(why)) => {
                        this.watch.kept.shared.count_refused(why);
                        Second::None
                    }
                    (None, Ok(())) => Second::None,
                },
            },
            SecondProj::Calling { future } => {
                let Poll::Ready(outcome) = future.poll(cx) else {
                    return Poll::Pending;
                };
                let first_failed = matches!(*this.first, First::Failed);
                let fault = this.watch.kept.classifier.classify(outcome.as_ref()).fault();
                this.watch.end(if fault == Fault::None { Outcome::Won } else { Outcome::Failed });
                if first_failed || matches!(fault, Fault::None | Fault::Caller) {
                    if !first_failed {
                        // The first attempt has taken that long at least.
                        this.watch.measure(fault);
                    }
                    // It is dropped now, and not when the caller gets to it.
                    drop_loser(|| this.first.set(First::Failed));
                    this.second.set(Second::None);
                    return Poll::Ready(outcome);
                }
                // The first attempt is still under way, and decides.
                Second::None
            }
        };
        this.second.set(next);
    }
}

impl<S, C, Req> fmt::Debug for HedgeFuture<S, C, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeFuture").field("hedged", &self.watch.hedged).finish_non_exhaustive()
    }
}
