//! The layers between tower's own, over a typed error and over a boxed one.

use std::time::Duration;

use palisade::{
    Class, Classified, Classify, DeadlineLayer, Downcast, Rejection, RetryLayer, TimeoutLayer, TimeoutScope,
    box_errors,
    testkit::{AMBIGUOUS, Error, Gate, Gated, Leaf, Request, Step, idempotent},
};
use tower::{
    BoxError, Layer, ServiceBuilder, ServiceExt, buffer::BufferLayer, limit::ConcurrencyLimitLayer,
    load_shed::LoadShedLayer, timeout::TimeoutLayer as TowerTimeoutLayer, util::BoxCloneSyncService,
};

const LIMIT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn towers_layers_stand_above_and_below_over_a_typed_error() {
    let leaf = Leaf::new([Step::Fail(AMBIGUOUS), Step::Answer]);
    let service: BoxCloneSyncService<Request, u32, Error> = ServiceBuilder::new()
        .layer_fn(BoxCloneSyncService::new)
        .layer(ConcurrencyLimitLayer::new(8))
        .layer(DeadlineLayer::new(LONG))
        .layer(RetryLayer::default())
        .layer(ConcurrencyLimitLayer::new(8))
        .layer(TimeoutLayer::new(LIMIT))
        .service(leaf.clone());
    assert_eq!(service.oneshot(idempotent(7)).await, Ok(7));
    assert_eq!(leaf.call_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn towers_layers_stand_above_and_below_over_a_boxed_error() {
    let leaf = Leaf::new([Step::Fail(AMBIGUOUS), Step::Answer]);
    let retry = RetryLayer::builder().classifier(Downcast::<Error>::new()).build().unwrap();
    let service: BoxCloneSyncService<Request, u32, BoxError> = ServiceBuilder::new()
        .layer_fn(BoxCloneSyncService::new)
        .layer(BufferLayer::new(16))
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(8))
        .layer(TowerTimeoutLayer::new(LONG))
        .layer(DeadlineLayer::new(LONG))
        .layer(retry)
        .layer(TimeoutLayer::new(LIMIT))
        .layer(TowerTimeoutLayer::new(LIMIT * 2))
        .layer(BufferLayer::new(16))
        .layer(LoadShedLayer::new())
        .layer(box_errors())
        .service(leaf.clone());
    assert_eq!(service.oneshot(idempotent(7)).await.unwrap(), 7);
    assert_eq!(leaf.call_count(), 2);
}

/// The same refusal, through every wrapping that a stack can put around it.
#[tokio::test(start_paused = true)]
async fn the_same_refusal_is_classified_alike_in_every_stack() {
    let expected = Rejection::timed_out(TimeoutScope::Attempt, LIMIT);
    let hung = || TimeoutLayer::new(LIMIT).layer(Leaf::new([Step::Hang]));

    let typed = hung().oneshot(Request::new(7)).await.unwrap_err();
    assert_eq!(typed.class(), expected.class());

    let boxed = box_errors().layer(hung()).oneshot(Request::new(7)).await.unwrap_err();
    let inside = TimeoutLayer::new(LIMIT).layer(box_errors().layer(Leaf::new([Step::Hang])));
    let inside = inside.oneshot(Request::new(7)).await.unwrap_err();
    let buffered = ServiceBuilder::new().layer(BufferLayer::new(4)).service(hung());
    let buffered = buffered.oneshot(Request::new(7)).await.unwrap_err();
    let shed = ServiceBuilder::new().layer(LoadShedLayer::new()).service(hung());
    let shed = shed.oneshot(Request::new(7)).await.unwrap_err();
    let towers = TowerTimeoutLayer::new(LIMIT).layer(Leaf::new([Step::Hang]));
    let towers = towers.oneshot(Request::new(7)).await.unwrap_err();

    for error in [boxed, inside, buffered, shed, towers] {
        assert_eq!(error.class(), expected.class(), "{error}");
        let by_downcast = Downcast::<Error>::new().classify(Err::<&u32, _>(&error));
        assert_eq!(by_downcast, expected.class(), "{error}");
        assert!(matches!(
            Rejection::find(&*error),
            Some(Rejection::TimedOut { scope: TimeoutScope::Attempt, .. })
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn the_services_own_error_is_classified_alike_in_every_stack() {
    let failing = || Leaf::new([Step::Fail(AMBIGUOUS.elsewhere())]);
    let boxed = box_errors().layer(failing()).oneshot(Request::new(7)).await.unwrap_err();
    let buffered = ServiceBuilder::new().layer(BufferLayer::new(4)).service(failing());
    let buffered = buffered.oneshot(Request::new(7)).await.unwrap_err();
    for error in [boxed, buffered] {
        let class: Class = Downcast::<Error>::new().classify(Err::<&u32, _>(&error));
        assert_eq!(class, AMBIGUOUS.elsewhere());
    }
}

/// tower's `LoadShed` refuses what is not ready: below a layer that waits inside it still does.
#[tokio::test(start_paused = true)]
async fn load_is_shed_below_a_layer_that_is_always_ready() {
    let service = ServiceBuilder::new()
        .layer(DeadlineLayer::new(LONG))
        .layer(LoadShedLayer::new())
        .service(Gated::new(Leaf::new([Step::Answer]), &Gate::default()));
    let error = service.oneshot(Request::new(7)).await.unwrap_err();
    assert!(matches!(Rejection::find(&*error), Some(Rejection::Shed { .. })), "{error}");
}
