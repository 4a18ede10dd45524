//! The layers around hyper's client and server, over a real connection.

use std::{
    convert::Infallible,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use metrics_util::debugging::DebuggingRecorder;
use palisade::{
    Backoff, CircuitBreakerLayer, ConcurrencyLimitLayer, DeadlineLayer, HedgeLayer, MetricsLayer,
    RateLimitLayer, Rejection, RetryLayer, TimeoutLayer, TimeoutScope, TraceLayer, box_errors,
    http::ByStatus, respond,
};
use tokio::net::TcpListener;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

use crate::recorded::Recorded;

/// Serves on a port of its own until the test ends.
async fn serve<S>(service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

fn get(address: SocketAddr) -> Request<Full<Bytes>> {
    Request::get(format!("http://{address}/")).body(Full::default()).unwrap()
}

#[tokio::test]
async fn a_client_stack_repeats_over_the_network_what_hung_and_what_was_refused() {
    let recorder = DebuggingRecorder::new();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let address = serve(service_fn(move |_: Request<Incoming>| {
        let number = count.fetch_add(1, SeqCst);
        async move {
            let mut response = Response::new(Full::from("hello"));
            match number {
                0 => std::future::pending().await,
                1 => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
                _ => {}
            }
            Ok::<_, Infallible>(response)
        }
    }))
    .await;

    let metrics = |name| MetricsLayer::builder().named(name).classifier(ByStatus).build().unwrap();
    let retry = RetryLayer::builder().backoff(Backoff::NONE).classifier(ByStatus).build().unwrap();
    let client = ServiceBuilder::new()
        .layer(metrics("calls"))
        .layer(TraceLayer::call().classifier(ByStatus))
        .layer(DeadlineLayer::new(Duration::from_secs(30)))
        .layer(RateLimitLayer::per_second(NonZeroU32::new(1_000).unwrap()).deadline_aware())
        .layer(ConcurrencyLimitLayer::new(NonZeroU32::new(10).unwrap()).deadline_aware())
        .layer(retry)
        .layer(HedgeLayer::builder().classifier(ByStatus).build().unwrap())
        .layer(CircuitBreakerLayer::builder().classifier(ByStatus).build().unwrap())
        .layer(metrics("attempts"))
        .layer(TraceLayer::attempt().classifier(ByStatus))
        .layer(TimeoutLayer::new(Duration::from_millis(200)))
        .layer(box_errors())
        .service(client());
    let response = client.oneshot(get(address)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    assert_eq!(asked.load(SeqCst), 3);

    let seen = Recorded::at(&recorder);
    let total =
        |layer, outcome| seen.count("palisade_requests_total", &[("layer", layer), ("outcome", outcome)]);
    assert_eq!(total("calls", "success"), 1);
    assert_eq!(["unreachable", "overload", "success"].map(|outcome| total("attempts", outcome)), [1, 1, 1]);
}

#[tokio::test]
async fn a_host_that_is_down_is_not_asked_any_more_and_another_one_is() {
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let down = serve(service_fn(move |_: Request<Incoming>| {
        count.fetch_add(1, SeqCst);
        let down = Response::builder().status(500).body(Full::default()).unwrap();
        async { Ok::<_, Infallible>(down) }
    }))
    .await;
    let up = serve(service_fn(|_: Request<Incoming>| async {
        Ok::<_, Infallible>(Response::new(Full::from("up")))
    }));
    let up = up.await;

    let breaker = CircuitBreakerLayer::builder()
        .consecutive_failures(3)
        .classifier(ByStatus)
        .build_keyed(100, |request: &Request<Full<Bytes>>| request.uri().authority().cloned())
        .unwrap();
    let client = ServiceBuilder::new().layer(breaker).layer(box_errors()).service(client());
    for _ in 0..3 {
        let answer = client.clone().oneshot(get(down)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    let refused = client.clone().oneshot(get(down)).await.unwrap_err();
    assert!(matches!(Rejection::find(&*refused), Some(Rejection::CircuitOpen { .. })));
    assert_eq!(client.oneshot(get(up)).await.unwrap().status(), StatusCode::OK);
    assert_eq!(asked.load(SeqCst), 3);
}

#[tokio::test]
async fn a_server_answers_over_the_network_what_its_layers_refuse() {
    let address = serve(
        ServiceBuilder::new()
            .layer(respond())
            .layer(MetricsLayer::default())
            .layer(TraceLayer::call())
            .layer(TimeoutLayer::new(Duration::from_millis(20)))
            .layer(box_errors())
            .service(service_fn(|_: Request<Incoming>| {
                std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
            })),
    )
    .await;
    let response = client().request(get(address)).await.unwrap();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, Rejection::timed_out(TimeoutScope::Attempt, Duration::from_millis(20)).to_string());
}

#[tokio::test]
async fn an_unreachable_server_is_an_error_of_the_clients_own_not_a_refusal() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = ServiceBuilder::new()
        .layer(TimeoutLayer::new(Duration::from_secs(30)))
        .layer(box_errors())
        .service(client());
    let error = client.oneshot(get(address)).await.unwrap_err();
    assert!(error.downcast_ref::<hyper_util::client::legacy::Error>().unwrap().is_connect(), "{error}");
    assert_eq!(Rejection::find(&*error), None);
}
