//! Leaves that do nothing, and how they are called.

use std::{
    future::{Ready, ready},
    hint::black_box,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use palisade::{Idempotence, Rejection};
use tower::Service;

use crate::harness::finish;

pub(crate) type Request = palisade::Envelope<u32>;

/// Answers at the first poll.
#[derive(Clone, Debug)]
pub(crate) struct ReadyLeaf;

impl Service<Request> for ReadyLeaf {
    type Response = u32;
    type Error = Rejection;
    type Future = Ready<Result<u32, Rejection>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        ready(Ok(*request))
    }
}

/// Answers at the second poll, as whatever waits for the network does.
#[derive(Clone, Debug)]
pub(crate) struct PendingOnceLeaf;

pub(crate) struct PendingOnce {
    request: Request,
    polled: bool,
}

impl Future for PendingOnce {
    type Output = Result<u32, Rejection>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::replace(&mut self.polled, true) {
            return Poll::Ready(Ok(*self.request));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Service<Request> for PendingOnceLeaf {
    type Response = u32;
    type Error = Rejection;
    type Future = PendingOnce;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> PendingOnce {
        PendingOnce { request, polled: false }
    }
}

/// One call from readiness to answer, as a caller makes it.
#[inline]
pub(crate) fn call<S>(service: &mut S)
where
    S: Service<Request, Response = u32>,
{
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))), "the leaf is always ready");
    let request = black_box(Request::new(7).idempotence(Idempotence::Yes));
    assert!(matches!(finish(pin!(service.call(request))), Ok(7)));
}

/// One call that is refused.
#[inline]
pub(crate) fn refused<S>(service: &mut S)
where
    S: Service<Request, Response = u32>,
{
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))), "a refusal comes in the call");
    let request = black_box(Request::new(7).idempotence(Idempotence::Yes));
    assert!(finish(pin!(service.call(request))).is_err());
}
