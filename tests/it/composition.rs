//! Stacks with tower's own layers above and below, over the typed error and over a boxed one, on a real cluster.

use std::time::Duration;

use palisade::{
    Classified, Classify, DeadlineLayer, Downcast, Rejection, RetryLayer, TimeoutLayer, TimeoutScope,
    box_errors,
};
use scylla_proxy::RequestOpcode;
use tower::{
    BoxError, Layer, ServiceBuilder, ServiceExt,
    buffer::BufferLayer,
    limit::{ConcurrencyLimitLayer, RateLimitLayer},
    load_shed::LoadShedLayer,
    timeout::TimeoutLayer as TowerTimeoutLayer,
    util::BoxCloneSyncService,
};
use tower_cassandra::{Cassandra, Client, Error, ErrorKind, Request, Response, ledger::LedgerLayer};

use crate::{cluster::session, proxy::Proxied};

const LONG: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_millis(150);
const SELECT: &str = "SELECT key FROM system.local WHERE key = ?";

async fn serves<S>(client: Client<S>)
where
    S: tower::Service<Request, Response = Response> + Clone,
    S::Error: Into<Error>,
{
    for _ in 0..3 {
        let found = client.execute(SELECT, ("local",)).await.unwrap();
        assert_eq!(found.single_row::<(String,)>().unwrap().0, "local");
    }
}

#[tokio::test]
async fn towers_layers_stand_around_ours_over_the_typed_error() {
    let Some(cassandra) = session().await else { return };
    let stack: BoxCloneSyncService<Request, Response, Error> = ServiceBuilder::new()
        .layer_fn(BoxCloneSyncService::new)
        .layer(ConcurrencyLimitLayer::new(4))
        .layer(DeadlineLayer::new(LONG))
        .layer(RetryLayer::default())
        .layer(ConcurrencyLimitLayer::new(4))
        .layer(TimeoutLayer::new(LONG))
        .service(cassandra);
    serves(Client::new(stack)).await;
}

#[tokio::test]
async fn towers_layers_stand_around_ours_over_a_boxed_error() {
    let Some(cassandra) = session().await else { return };
    let stack = ServiceBuilder::new()
        .layer(BufferLayer::new(8))
        .layer(LoadShedLayer::new())
        .layer(RateLimitLayer::new(1_000, Duration::from_secs(1)))
        .layer(DeadlineLayer::new(LONG))
        .layer(RetryLayer::builder().classifier(Downcast::<Error>::new()).build().unwrap())
        .layer(ConcurrencyLimitLayer::new(4))
        .layer(TowerTimeoutLayer::new(LONG))
        .layer(TimeoutLayer::new(LONG))
        .layer(box_errors())
        .service(cassandra);
    serves(Client::new(stack).boxed()).await;
}

/// Through every stack, one hung server gives one and the same error.
#[tokio::test]
async fn the_same_refusal_reads_alike_in_every_stack() {
    let Some(mut proxied) = Proxied::start().await else { return };
    let client = proxied.client_with_table("alike").await;
    let cassandra = client.stack().clone();
    let select = "SELECT v FROM alike WHERE k = ?";
    client.execute(select, (1,)).await.unwrap();

    let typed = Client::new(TimeoutLayer::new(LIMIT).layer(cassandra.clone())).boxed();
    let boxed = Client::new(box_errors().layer(TimeoutLayer::new(LIMIT).layer(cassandra.clone()))).boxed();
    let inside = Client::new(TimeoutLayer::new(LIMIT).layer(box_errors().layer(cassandra.clone()))).boxed();
    let buffered = ServiceBuilder::new().layer(BufferLayer::new(4)).layer(LoadShedLayer::new());
    let buffered = Client::new(buffered.layer(TimeoutLayer::new(LIMIT)).service(cassandra.clone())).boxed();
    let towers = Client::new(TowerTimeoutLayer::new(LIMIT).layer(cassandra.clone())).boxed();
    let clients = [typed, boxed, inside, buffered, towers];
    for client in &clients {
        client.execute(select, (1,)).await.unwrap();
    }

    let _lost = proxied.swallow(RequestOpcode::Execute);
    for (index, client) in clients.iter().enumerate() {
        let error = client.execute(select, (1,)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout(TimeoutScope::Attempt), "{index}: {error}");
        assert_eq!(
            error.class(),
            Rejection::timed_out(TimeoutScope::Attempt, LIMIT).class(),
            "{index}: {error}"
        );
        assert!(matches!(error.rejection(), Some(Rejection::TimedOut { .. })), "{index}: {error}");
        assert!(error.is_timeout() && error.may_have_been_applied(), "{index}: {error}");
        // Whoever refused, the error names the node that was asked.
        assert!(error.to_string().contains(&format!("{} abandoned", proxied.address())), "{index}: {error}");
    }
}

#[tokio::test]
async fn load_that_tower_sheds_is_an_overload() {
    let Some(mut proxied) = Proxied::start().await else { return };
    let client = proxied.client_with_table("shed").await;
    let select = "SELECT v FROM shed WHERE k = ?";
    let stack = ServiceBuilder::new()
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(1))
        .service(client.stack().clone());
    let limited = Client::new(stack).boxed();
    limited.execute(select, (1,)).await.unwrap();
    let _lost = proxied.swallow(RequestOpcode::Execute);
    let held = tokio::spawn({
        let limited = limited.clone();
        async move { limited.execute(select, (1,)).await.map(drop) }
    });
    tokio::task::yield_now().await;
    let error = limited.execute(select, (1,)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.is_overload() && !error.may_have_been_applied(), "{error}");
    held.abort();
}

/// A stack that is called without a client tells the attempts through a layer of its own.
#[tokio::test]
async fn a_ledger_layer_names_the_nodes_in_a_bare_stack() {
    let Some(mut proxied) = Proxied::start().await else { return };
    let client = proxied.client_with_table("ledgers").await;
    let stack = ServiceBuilder::new()
        .layer(LedgerLayer)
        .layer(TimeoutLayer::new(LIMIT))
        .layer(box_errors())
        .service(client.stack().clone());
    let _lost = proxied.swallow(RequestOpcode::Query);
    let error = stack.oneshot(Request::text("SELECT v FROM ledgers")).await.unwrap_err();
    assert_eq!(
        error.to_string().split_inclusive("abandoned after").next().unwrap(),
        format!("the attempt timed out after 150ms ({} abandoned after", proxied.address())
    );
    let by_box: BoxError = error.into();
    let class = Downcast::<Error>::new().classify(Err::<&Response, _>(&by_box));
    assert_eq!(class, Rejection::timed_out(TimeoutScope::Attempt, LIMIT).class());
}

#[test]
fn a_leaf_is_cheap_to_clone_and_goes_anywhere() {
    fn shared<T: Send + Sync + 'static>() {}
    fn all<T: Clone + Send + Sync + std::fmt::Debug + 'static>() {}
    all::<Cassandra>();
    all::<Request>();
    all::<Client<Cassandra>>();
    all::<tower_cassandra::BoxClient>();
    shared::<Error>();
    shared::<Response>();
    assert_eq!(size_of::<Cassandra>(), size_of::<usize>());
    assert!(size_of::<Request>() <= 176, "{} bytes", size_of::<Request>());
}
