use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use palisade::{Classified, HasDeadline};
use pin_project_lite::pin_project;
use tower::Service;
use tracing::Span;

use super::{
    service::Kept,
    shared::{Tells, Verdict},
    state::LOCAL,
};
use crate::{error::Error, request::Request};

pin_project! {
    /// The future of a [`Failover`](super::Failover) service.
    pub struct FailoverFuture<S>
    where
        S: Service<Request>,
    {
        #[pin]
        state: State<S, S::Future>,
        // None where the caller has chosen the datacenter.
        watch: Option<Watch<S>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F> {
        Calling { #[pin] future: F },
        Readying { service: S, request: Option<Request> },
    }
}

/// Sees to it that what becomes of a call is known, also if it is dropped.
struct Watch<S> {
    kept: Arc<Kept<S>>,
    // As it came, for a repeat.
    request: Request,
    datacenter: usize,
    // Where it failed before, and how.
    first: Option<(usize, Error)>,
    is_called: bool,
}

impl<S: Service<Request>> FailoverFuture<S> {
    pub(super) const fn unwatched(future: S::Future) -> Self {
        Self { state: State::Calling { future }, watch: None }
    }

    #[inline]
    pub(super) fn new(future: S::Future, kept: Arc<Kept<S>>, request: Request, datacenter: usize) -> Self {
        let watch = Watch { kept, request, datacenter, first: None, is_called: true };
        if datacenter != LOCAL {
            watch.show();
        }
        Self { state: State::Calling { future }, watch: Some(watch) }
    }
}

impl<S> Future for FailoverFuture<S>
where
    S: Service<Request> + Clone,
    S::Error: Into<Error>,
{
    type Output = Result<S::Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Calling { future } => {
                    let outcome = ready!(future.poll(cx));
                    let Some(watch) = this.watch else {
                        return Poll::Ready(outcome.map_err(Into::into));
                    };
                    match outcome {
                        Ok(response) => {
                            watch.answered();
                            return Poll::Ready(Ok(response));
                        }
                        Err(error) => match watch.failed(error.into()) {
                            Next::Ends(error) => return Poll::Ready(Err(error)),
                            // Calling -> Readying: it goes to another datacenter.
                            Next::Repeats(request) => {
                                State::Readying { service: watch.kept.fresh(), request: Some(request) }
                            }
                        },
                    }
                }
                StateProj::Readying { service, request } => {
                    let outcome = ready!(service.poll_ready(cx));
                    let (Some(watch), Some(request)) = (this.watch.as_mut(), request.take()) else {
                        return Poll::Pending;
                    };
                    if let Err(error) = outcome {
                        return Poll::Ready(Err(watch.both(error.into())));
                    }
                    watch.kept.shared.figures.sent(watch.datacenter);
                    watch.is_called = true;
                    State::Calling { future: service.call(request) }
                }
            };
            this.state.set(next);
        }
    }
}

enum Next {
    Ends(Error),
    Repeats(Request),
}

impl<S> Watch<S> {
    /// Shows on the operation's span, if it has a field for that, where it is served.
    fn show(&self) {
        let name = &*self.kept.shared.datacenters[self.datacenter].name;
        Span::current().record("cassandra.failover.datacenter", name);
    }

    #[inline]
    fn answered(&mut self) {
        self.is_called = false;
        self.kept.shared.succeeded(self.datacenter);
    }

    #[cold]
    fn failed(&mut self, error: Error) -> Next {
        self.is_called = false;
        let shared = &self.kept.shared;
        match Tells::of(&error, &error.class()) {
            Tells::Trouble => shared.failed(&self.request, self.datacenter),
            Tells::Refused => {}
            Tells::Answer => {
                shared.succeeded(self.datacenter);
                return Next::Ends(self.both(error));
            }
            Tells::Nothing => return Next::Ends(self.both(error)),
        }
        if self.first.is_some() {
            return Next::Ends(self.both(error));
        }
        match shared.after_failure(&self.request, self.datacenter, &error) {
            Verdict::Stays(None) => Next::Ends(error),
            Verdict::Stays(Some(note)) => Next::Ends(error.with_note(note)),
            Verdict::Goes(to, request) => {
                let from = self.datacenter;
                let name = |index: usize| &*shared.datacenters[index].name;
                tracing::debug!(layer = shared.name, from = name(from), to = name(to.datacenter), %error, "sent elsewhere");
                let request = shared.addressed(request, to);
                self.first = Some((from, error));
                self.datacenter = to.datacenter;
                self.show();
                Next::Repeats(request)
            }
        }
    }

    /// The error to end with, if there were two: the one by which something may have been done.
    fn both(&mut self, second: Error) -> Error {
        let Some((from, first)) = self.first.take() else { return second };
        let datacenters = &self.kept.shared.datacenters;
        if first.may_have_been_applied() && !second.may_have_been_applied() {
            let note =
                format!("then it failed in datacenter {}: {second}", datacenters[self.datacenter].name);
            return first.with_note(note);
        }
        let note = format!("before that it failed in datacenter {}: {first}", datacenters[from].name);
        second.with_note(note)
    }
}

impl<S> Drop for Watch<S> {
    fn drop(&mut self) {
        // Whoever is impatient tells nothing of the datacenter. Who waited until the deadline does.
        let waited = || self.request.deadline().is_some_and(|deadline| deadline.remaining().is_zero());
        if self.is_called && waited() && !palisade::is_superseded() {
            self.kept.shared.failed(&self.request, self.datacenter);
        }
    }
}

impl<S: Service<Request>> fmt::Debug for FailoverFuture<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let datacenter = self.watch.as_ref().map(|watch| &watch.kept.shared.datacenters[watch.datacenter]);
        f.debug_struct("FailoverFuture").field("datacenter", &datacenter).finish_non_exhaustive()
    }
}
