use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use crossbeam_utils::CachePadded;
use pin_project_lite::pin_project;
use tower::Service;

use super::state::{Outcome, Refused, Shared};
use crate::{
    class::{Classify, Fault},
    clock::Instant,
    readiness::Spare,
    request::{Repeat, Why},
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
        Waiting { timer: Timer, delay: Duration, spare: Option<Req> },
        Readying { service: S, request: Option<Req> },
        Calling { #[pin] future: F },
        // There will be none, or it has ended.
        None,
    }
}

/// What a call needs to send its request again. Padded where it is shared, so that the calls, which count themselves in
/// and out, do not hold up those that read it.
pub(super) struct Kept<S, C> {
    pub(super) spare: Spare<S>,
    pub(super) shared: Arc<Shared>,
    pub(super) classifier: C,
}

/// Sees to it that every call is measured and every second attempt counted, dropped ones included.
struct Watch<S, C> {
    kept: Arc<CachePadded<Kept<S, C>>>,
    began: Instant,
    hedged: bool,
    ended: bool,
}

impl<S, C> Watch<S, C> {
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
        if !self.ended {
            self.kept.shared.measure_failure(self.began, Instant::now());
        }
    }
}

impl<S, C, Req> HedgeFuture<S, C, Req>
where
    S: Service<Req>,
{
    pub(super) fn new(
        first: S::Future,
        second: Option<(Req, Duration)>,
        kept: Arc<CachePadded<Kept<S, C>>>,
        began: Instant,
    ) -> Self {
        Self {
            first: First::Calling { future: first },
            second: match second {
                Some((spare, delay)) => {
                    Second::Waiting { timer: Timer::unarmed(), delay, spare: Some(spare) }
                }
                None => Second::None,
            },
            watch: Watch { kept, began, hedged: false, ended: false },
        }
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
        if let FirstProj::Calling { future } = this.first.as_mut().project()
            && let Poll::Ready(outcome) = future.poll(cx)
        {
            let now = Instant::now();
            let fault = this.watch.kept.classifier.classify(outcome.as_ref()).fault();
            if fault == Fault::None {
                this.watch.kept.shared.measure(this.watch.began, now);
            } else {
                this.watch.kept.shared.measure_failure(this.watch.began, now);
            }
            this.watch.ended = true;
            // A failure leaves it to the second attempt, where there is one that can do better.
            let decided = matches!(fault, Fault::None | Fault::Caller)
                || !matches!(*this.second, Second::Calling { .. });
            if decided {
                this.watch.end(Outcome::Lost);
                this.second.set(Second::None);
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
                let due = this.watch.began + *delay;
                ready!(timer.poll(cx, || Due::at(due)));
                // Waiting -> Readying, if the request still says so, and there is room.
                let request = spare.take().and_then(|spare| spare.repeat(Why::Hedge));
                match request.ok_or(Refused::NotAllowed).and_then(|request| {
                    this.watch.kept.shared.withdraw()?;
                    Ok(request)
                }) {
                    Ok(request) => {
                        this.watch.hedged = true;
                        this.watch.kept.shared.fired(*delay);
                        Second::Readying { service: this.watch.kept.spare.fresh(), request: Some(request) }
                    }
                    Err(why) => {
                        this.watch.kept.shared.count_refused(why);
                        Second::None
                    }
                }
            }
            SecondProj::Readying { service, request } => match (service.poll_ready(cx), request.take()) {
                (Poll::Pending, waiting) => {
                    *request = waiting;
                    return Poll::Pending;
                }
                (Poll::Ready(Ok(())), Some(request)) => Second::Calling { future: service.call(request) },
                (Poll::Ready(_), _) => {
                    this.watch.end(Outcome::Failed);
                    Second::None
                }
            },
            SecondProj::Calling { future } => {
                let Poll::Ready(outcome) = future.poll(cx) else {
                    return Poll::Pending;
                };
                let first_failed = matches!(*this.first, First::Failed);
                let fault = this.watch.kept.classifier.classify(outcome.as_ref()).fault();
                match fault {
                    Fault::None => {
                        if !first_failed {
                            this.watch.kept.shared.measure(this.watch.began, Instant::now());
                            this.watch.ended = true;
                        }
                        this.watch.end(Outcome::Won);
                    }
                    _ => this.watch.end(Outcome::Failed),
                }
                if first_failed || matches!(fault, Fault::None | Fault::Caller) {
                    // The other one is dropped now, and not when the caller gets to it.
                    this.first.set(First::Failed);
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
