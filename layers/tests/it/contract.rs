//! What tower asks of every service: readiness, clones, drops, and what the compiler is to know of the types.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use palisade::{Budget, DeadlineLayer, RetryLayer, TimeoutLayer, box_errors};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

use crate::leaf::{AMBIGUOUS, Error, Gate, Gated, Leaf, Request, Step, idempotent};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn services_futures_and_layers_are_send_sync_and_clone() {
    fn all<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: &T) {}
    fn future<T: Send + 'static>(_: &T) {}
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(LONG))
        .layer(RetryLayer::default())
        .layer(TimeoutLayer::new(LONG));
    all(&DeadlineLayer::new(LONG));
    all(&TimeoutLayer::new(LONG));
    all(&RetryLayer::default());
    all(&Budget::default());
    all(&box_errors());
    let mut service = stack.service(Leaf::new([Step::Answer]));
    all(&service);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let call = service.ready().await.unwrap().call(Request::new(7));
        future(&call);
        assert_eq!(call.await, Ok(7));
    });
}

/// A clone that is called on the strength of its original's readiness would break what reserves a place in
/// `poll_ready`; the gate panics at that.
#[tokio::test(start_paused = true)]
async fn every_service_is_polled_ready_before_it_is_called() {
    let script = || Leaf::new([Step::Fail(AMBIGUOUS), Step::AnswerAfter(Duration::from_millis(5))]);
    let gate = Gate::open();
    let deadline = DeadlineLayer::new(LONG).layer(Gated::new(script(), &gate));
    let retry = RetryLayer::default().layer(Gated::new(script(), &gate));
    let timeout = TimeoutLayer::new(LONG).layer(Gated::new(script(), &gate));
    let all = ServiceBuilder::new()
        .layer(DeadlineLayer::new(LONG))
        .layer(RetryLayer::default())
        .layer(TimeoutLayer::new(LONG))
        .service(Gated::new(script(), &gate));
    called_in_every_way(deadline).await;
    called_in_every_way(retry).await;
    called_in_every_way(timeout).await;
    called_in_every_way(all).await;
}

async fn called_in_every_way<S>(mut service: S)
where
    S: Service<Request, Response = u32, Error = Error> + Clone,
{
    let _ = service.ready().await.unwrap().call(idempotent(1)).await;
    // A clone of a service that has been polled ready starts afresh.
    service.ready().await.unwrap();
    let mut clone = service.clone();
    let _ = clone.ready().await.unwrap().call(idempotent(2)).await;
    let _ = service.call(idempotent(3)).await;
    let _ = service.oneshot(idempotent(4)).await;
}

/// A future can be dropped after any number of polls; whatever it held goes with it.
#[tokio::test(start_paused = true)]
async fn a_call_can_be_dropped_at_every_point() {
    let script = [Step::Fail(AMBIGUOUS), Step::AnswerAfter(Duration::from_millis(30)), Step::Hang];
    for polls in 0..8 {
        let leaf = Leaf::new(script.clone());
        let service = ServiceBuilder::new()
            .layer(DeadlineLayer::new(LONG))
            .layer(RetryLayer::default())
            .layer(TimeoutLayer::new(Duration::from_millis(20)))
            .service(leaf.clone());
        {
            let mut call = pin!(service.oneshot(idempotent(7)));
            for _ in 0..polls {
                if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                    break;
                }
                tokio::time::advance(Duration::from_millis(10)).await;
            }
        }
        assert_eq!(leaf.in_flight(), 0, "after {polls} polls");
    }
}

/// A service that queued keeps its place: the very one that was polled moves into the future.
#[tokio::test(start_paused = true)]
async fn a_layer_that_waits_inside_is_ready_at_once_and_keeps_its_place_in_the_queue() {
    let gate = Gate::default();
    let limited = tower::limit::ConcurrencyLimit::new(Gated::new(Leaf::new([Step::Answer]), &gate), 1);
    let mut service = TimeoutLayer::new(LONG).layer(limited);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
    let first = tokio::spawn(service.call(Request::new(1)));
    assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
    let second = tokio::spawn(service.call(Request::new(2)));
    tokio::task::yield_now().await;
    gate.set(true);
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (Ok(1), Ok(2)));
}

#[test]
fn the_futures_of_a_stack_stay_small() {
    fn size<S: Service<Request>>(_: &S) -> usize {
        size_of::<S::Future>()
    }
    let leaf = Leaf::new([Step::Answer]);
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(LONG))
        .layer(RetryLayer::default())
        .layer(TimeoutLayer::new(LONG))
        .service(leaf);
    let bytes = size(&stack);
    assert!(bytes <= 640, "{bytes} bytes");
}
