use std::time::Duration;

use palisade::{
    Rejection, TimeoutLayer,
    middleware::{Next, from_fn},
    testkit::{AMBIGUOUS, CALLER, Error, Gate, Gated, Leaf, Request, Step},
};
use tower::{Layer, Service, ServiceExt};

#[tokio::test]
async fn a_function_can_change_the_request_and_the_answer() {
    let layer = from_fn(|request: Request, next: Next<_, u32, Error>| async move {
        let doubled = Request::new(*request * 2);
        Ok(format!("answer {}", next.run(doubled).await?))
    });
    assert_eq!(layer.layer(Leaf::new([])).oneshot(Request::new(7)).await.unwrap(), "answer 14");
}

#[tokio::test]
async fn a_function_can_refuse_without_a_call() {
    let leaf = Leaf::new([]);
    let layer = from_fn(|_: Request, _: Next<Request, u32, Error>| async {
        Err::<u32, Error>(Rejection::Draining.into())
    });
    let outcome = layer.layer(leaf.clone()).oneshot(Request::new(7)).await;
    assert_eq!(outcome, Err(Error::Refused(Rejection::Draining)));
    assert_eq!(leaf.call_count(), 0);
}

#[tokio::test]
async fn the_errors_of_the_service_pass_as_they_are() {
    let layer = from_fn(|request: Request, next: Next<_, u32, Error>| next.run(request));
    let outcome = layer.layer(Leaf::new([Step::Fail(CALLER)])).oneshot(Request::new(7)).await;
    assert_eq!(outcome, Err(Error::Failed(CALLER, 1)));
}

#[tokio::test]
async fn a_function_can_run_the_rest_of_the_stack_again() {
    let again = from_fn(|request: Request, next: Next<_, u32, Error>| async move {
        match next.clone().run(request.clone()).await {
            Err(Error::Failed(..)) => next.run(request).await,
            outcome => outcome,
        }
    });
    let leaf = Leaf::new([Step::Fail(AMBIGUOUS), Step::Answer]);
    let service = again.layer(Gated::new(leaf.clone(), &Gate::with_places(1)));
    assert_eq!(service.oneshot(Request::new(7)).await, Ok(7));
    assert_eq!(leaf.call_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_place_of_the_service_is_taken_while_the_function_waits() {
    let gate = Gate::with_places(1);
    let slow = from_fn(|request: Request, next: Next<_, u32, Error>| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        next.run(request).await
    });
    let mut service = slow.layer(Gated::new(Leaf::new([Step::Hang]), &gate));
    let call = tokio::spawn(service.ready().await.unwrap().call(Request::new(7)));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(gate.taken(), 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(gate.taken(), 1);
    call.abort();
    assert!(call.await.is_err());
    assert_eq!(gate.taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_function_that_waits_for_ever_ends_with_the_limit_around_it() {
    let hung =
        from_fn(|_: Request, _: Next<Request, u32, Error>| std::future::pending::<Result<u32, Error>>());
    let service = TimeoutLayer::new(Duration::from_secs(1)).layer(hung.layer(Leaf::new([])));
    assert!(service.oneshot(Request::new(7)).await.is_err());
}
