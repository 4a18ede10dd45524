//! The layers under an axum router: its routes never fail, so refusals have to become answers.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, routing::get};
use http::{Method, Request, StatusCode};
use metrics_util::debugging::DebuggingRecorder;
use palisade::{
    CircuitBreakerLayer, ConcurrencyLimitLayer, DeadlineLayer, MetricsLayer, RateLimitLayer, Rejection,
    RetryLayer, TimeoutLayer, TimeoutScope, TraceLayer, box_errors, respond, status,
};
use tokio::sync::Notify;
use tower::{ServiceBuilder, ServiceExt, buffer::BufferLayer, load_shed::LoadShedLayer};

use crate::recorded::Recorded;

fn request(path: &str) -> Request<Body> {
    Request::builder().method(Method::GET).uri(path).body(Body::empty()).unwrap()
}

/// What a test does with a request that is held.
#[derive(Clone, Default)]
struct Held {
    entered: Arc<Notify>,
    release: Arc<Notify>,
}

fn router(held: Held) -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/hangs", get(std::future::pending::<&'static str>))
        .route(
            "/held",
            get(move || async move {
                held.entered.notify_one();
                held.release.notified().await;
            }),
        )
}

#[tokio::test(start_paused = true)]
async fn a_route_answers_refusals_with_503_or_504() {
    let app = router(Held::default()).layer(
        ServiceBuilder::new()
            .layer(respond())
            .layer(DeadlineLayer::new(Duration::from_secs(2)))
            .layer(TimeoutLayer::new(Duration::from_millis(500)))
            .layer(box_errors()),
    );
    assert_eq!(app.clone().oneshot(request("/")).await.unwrap().status(), StatusCode::OK);
    let hung = app.oneshot(request("/hangs")).await.unwrap();
    let rejection = Rejection::timed_out(TimeoutScope::Attempt, Duration::from_millis(500));
    assert_eq!(hung.status(), status(&rejection));
    let body = axum::body::to_bytes(hung.into_body(), 1_024).await.unwrap();
    assert_eq!(body, rejection.to_string());
}

#[tokio::test(start_paused = true)]
async fn towers_load_shedding_is_answered_too() {
    let held = Held::default();
    let app = router(held.clone()).layer(
        ServiceBuilder::new()
            .layer(respond())
            .layer(DeadlineLayer::new(Duration::from_secs(2)))
            .layer(BufferLayer::new(1))
            .layer(LoadShedLayer::new())
            .layer(tower::limit::ConcurrencyLimitLayer::new(1)),
    );
    // Makes the layers' services now and not anew for each request, as axum does when it serves.
    let app: Router = app.with_state(());
    let first = tokio::spawn(app.clone().oneshot(request("/held")));
    held.entered.notified().await;
    let second = app.oneshot(request("/held")).await.unwrap();
    assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
    held.release.notify_one();
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
}

/// What was refused is measured and traced as well, since the layers for that stand outside of what refuses.
#[tokio::test(start_paused = true)]
async fn routes_are_measured_and_traced_with_their_refusals() {
    let recorder = DebuggingRecorder::new();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let metrics = MetricsLayer::builder()
        .named("http")
        .label_by("path", 2, |request: &Request<Body>| request.uri().path().into())
        .build()
        .unwrap();
    let app = router(Held::default()).layer(
        ServiceBuilder::new()
            .layer(respond())
            .layer(metrics)
            .layer(TraceLayer::call().make_span(|request: &Request<Body>| {
                tracing::info_span!("http", path = request.uri().path(), outcome = tracing::field::Empty)
            }))
            .layer(DeadlineLayer::new(Duration::from_secs(2)))
            .layer(box_errors()),
    );
    for path in ["/", "/hangs", "/made-up", "/made-up-too"] {
        app.clone().oneshot(request(path)).await.unwrap();
    }
    let seen = Recorded::at(&recorder);
    let total = |path, outcome| {
        seen.count("palisade_requests_total", &[("layer", "http"), ("path", path), ("outcome", outcome)])
    };
    assert_eq!((total("/", "success"), total("/hangs", "unreachable"), total("other", "success")), (1, 1, 2));
    let waited = seen.values("palisade_request_duration_seconds", &[("path", "/hangs")]);
    assert!(matches!(waited[..], [wait] if (1.99..2.01).contains(&wait)), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_route_is_limited_in_rate_and_in_calls_at_once_and_says_when_to_come_back() {
    let held = Held::default();
    let app = router(held.clone()).layer(
        ServiceBuilder::new()
            .layer(respond())
            .layer(DeadlineLayer::new(Duration::from_millis(300)))
            .layer(
                RateLimitLayer::builder()
                    .rate(2, Duration::from_secs(1))
                    .burst(3)
                    .build()
                    .unwrap()
                    .deadline_aware(),
            )
            .layer(ConcurrencyLimitLayer::builder().limit(1).max_waiting(0).build().unwrap())
            .layer(CircuitBreakerLayer::default())
            .layer(box_errors()),
    );
    let app: Router = app.with_state(());
    let first = tokio::spawn(app.clone().oneshot(request("/held")));
    held.entered.notified().await;
    let crowded = app.clone().oneshot(request("/")).await.unwrap();
    assert_eq!(crowded.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(crowded.headers().get("retry-after").is_none(), "nobody knows when a call ends");
    held.release.notify_one();
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(app.clone().oneshot(request("/")).await.unwrap().status(), StatusCode::OK);
    let too_soon = app.oneshot(request("/")).await.unwrap();
    assert_eq!(too_soon.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(too_soon.headers()["retry-after"], "1", "half a second, in whole ones");
}

/// A client stack over `http::Request` with a body that can be sent twice.
#[tokio::test(start_paused = true)]
async fn an_http_client_stack_repeats_by_method() {
    use std::sync::atomic::{AtomicU32, Ordering};

    use palisade::Downcast;
    use tower::{BoxError, service_fn};

    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let upstream = service_fn(move |_: Request<String>| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            if number.is_multiple_of(2) {
                Err::<http::Response<String>, BoxError>("reset".into())
            } else {
                Ok(http::Response::default())
            }
        }
    });
    let client = ServiceBuilder::new()
        .layer(DeadlineLayer::new(Duration::from_secs(2)))
        .layer(RetryLayer::builder().classifier(Downcast::<Rejection>::new()).build().unwrap())
        .service(upstream);
    let send = async |method: Method| {
        let request = Request::builder().method(method).body("body".to_owned()).unwrap();
        client.clone().oneshot(request).await.is_ok()
    };
    assert!(send(Method::PUT).await, "what is idempotent is sent again");
    assert!(!send(Method::POST).await, "what is not is left alone");
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}
