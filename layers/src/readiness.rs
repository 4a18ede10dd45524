//! Waiting for the inner service inside the response future.
//!
//! A limit on time is worth little if the wait for the inner service's readiness does not count: a queue in an
//! inner `poll_ready` could hold a call for as long as it likes. So the layers that watch the time are always
//! ready themselves. Usually the inner service is ready when asked, and is called at once, without a clone. When
//! it is not, the very service that has queued moves into the future, so that its place in the queue is kept,
//! and a clone takes its place outside.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower::Service;

use crate::sync::{Mutex, lock};

/// An inner service, and whether it was ready when last asked.
#[derive(Debug)]
pub(crate) struct Inner<S> {
    service: S,
    ready: bool,
}

impl<S: Clone> Clone for Inner<S> {
    fn clone(&self) -> Self {
        // Readiness is not inherited: a clone has to ask for itself.
        Self::new(self.service.clone())
    }
}

impl<S> Inner<S> {
    pub(crate) const fn new(service: S) -> Self {
        Self { service, ready: false }
    }

    /// Always ready, unless the inner service is broken for good.
    pub(crate) fn poll_ready<Req>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>>
    where
        S: Service<Req>,
    {
        self.ready = match self.service.poll_ready(cx) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => false,
        };
        Poll::Ready(Ok(()))
    }

    pub(crate) fn call<Req>(&mut self, request: Req) -> ReadyCall<S, Req>
    where
        S: Service<Req> + Clone,
    {
        if std::mem::take(&mut self.ready) {
            return ReadyCall::Calling { future: self.service.call(request) };
        }
        let fresh = self.service.clone();
        ReadyCall::Waiting { service: std::mem::replace(&mut self.service, fresh), request: Some(request) }
    }

    /// Whether the next call goes through without a wait for the inner service.
    pub(crate) const fn is_ready(&self) -> bool {
        self.ready
    }

    /// A service for a call that waits for something else first. Neither it nor what stays here holds a place: one that
    /// has been won, or is being queued for, would be kept from others meanwhile.
    pub(crate) fn without_a_place(&mut self) -> S
    where
        S: Clone,
    {
        self.give_up_place();
        self.service.clone()
    }

    /// Lets others have the place that has been won, or is being queued for: the call was refused, and who made it may not
    /// make another for long.
    pub(crate) fn give_up_place(&mut self)
    where
        S: Clone,
    {
        *self = Self::new(self.service.clone());
    }
}

/// A service to clone for another attempt, behind a lock so that it can be shared.
///
/// A clone that each call keeps in case it is needed would cost every call a clone of all layers below.
pub(crate) struct Spare<S>(Mutex<S>);

impl<S: Clone> Spare<S> {
    pub(crate) fn of(service: &S) -> Self {
        Self(Mutex::new(service.clone()))
    }

    /// A clone, which has its own readiness to win.
    pub(crate) fn fresh(&self) -> S {
        lock(&self.0).clone()
    }
}

pin_project! {
    /// A call that waits for its service first, where that was not ready.
    #[project = ReadyCallProj]
    #[project_replace = ReadyCallOwn]
    pub(crate) enum ReadyCall<S, Req>
    where
        S: Service<Req>,
    {
        Waiting { service: S, request: Option<Req> },
        Calling { #[pin] future: S::Future },
        // Ended, by itself or by its caller: everything that it held has been dropped.
        Ended,
    }
}

impl<S, Req> ReadyCall<S, Req>
where
    S: Service<Req>,
{
    /// A call that readies `service` at its first poll.
    pub(crate) const fn of(service: S, request: Req) -> Self {
        Self::Waiting { service, request: Some(request) }
    }

    /// Whether the inner service has not been called yet.
    pub(crate) const fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting { .. })
    }

    /// Drops whatever the call still holds.
    pub(crate) fn end(self: Pin<&mut Self>) {
        self.project_replace(Self::Ended);
    }
}

impl<S, Req> Future for ReadyCall<S, Req>
where
    S: Service<Req>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let future = match self.as_mut().project() {
                ReadyCallProj::Calling { future } => return future.poll(cx),
                // A future that is polled after its end may do as it likes, short of panicking here.
                ReadyCallProj::Ended => return Poll::Pending,
                ReadyCallProj::Waiting { service, request } => {
                    match service.poll_ready(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => return Poll::Pending,
                    }
                    let Some(request) = request.take() else {
                        return Poll::Pending;
                    };
                    service.call(request)
                }
            };
            self.as_mut().project_replace(Self::Calling { future });
        }
    }
}
