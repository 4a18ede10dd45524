//! An axum server that ends in order: `cargo run -p palisade --example graceful_shutdown -- 127.0.0.1:3000`.
//!
//! In another shell, with the number of the process that it prints:
//!
//! ```text
//! curl http://127.0.0.1:3000/slow &        # takes five seconds
//! kill -TERM NUMBER
//! curl -i http://127.0.0.1:3000/ready      # 503 at once: a load balancer stops sending
//! curl -i http://127.0.0.1:3000/           # 200 for three seconds more, until it has; then nobody listens
//! ```
//!
//! The slow request is answered, and then the process ends, with 0. What takes longer than 20 seconds is left behind, and it ends with 1.
#![allow(clippy::print_stdout, reason = "an example talks to a person")]

use std::{error::Error, process::ExitCode, time::Duration};

use axum::{Router, extract::State, routing::get};
use http::StatusCode;
use palisade::{DeadlineLayer, Drain, box_errors, respond};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use tower::ServiceBuilder;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let drain = Drain::builder().grace(Duration::from_secs(3)).timeout(Duration::from_secs(20)).build()?;

    let app = Router::new()
        .route("/", get(async || "hello\n"))
        .route("/slow", get(slow))
        .layer(
            ServiceBuilder::new()
                .layer(respond()) // a refusal is answered with 503
                .layer(drain.layer())
                .layer(DeadlineLayer::new(Duration::from_secs(10)))
                .layer(box_errors()),
        )
        // Not behind the layers: it has to be answered when they refuse.
        .route("/ready", get(ready))
        .with_state(drain.clone());

    let mut terminated = signal(SignalKind::terminate())?;
    let begins = drain.clone();
    tokio::spawn(async move {
        terminated.recv().await;
        begins.start();
    });

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("process {} listens on {}", std::process::id(), listener.local_addr()?);
    let server = axum::serve(listener, app).with_graceful_shutdown(drain.refusing());
    let server = tokio::spawn(server.into_future());

    drain.started().await;
    let report = drain.finish().await;
    println!("{report:?}");
    if !report.finished {
        return Ok(ExitCode::FAILURE);
    }
    // The calls have been answered; the server ends when it has written the answers out.
    timeout(Duration::from_secs(5), server).await???;
    Ok(ExitCode::SUCCESS)
}

async fn slow() -> &'static str {
    sleep(Duration::from_secs(5)).await;
    "done\n"
}

async fn ready(State(drain): State<Drain>) -> (StatusCode, String) {
    let status = if drain.is_draining() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, format!("{} in flight\n", drain.in_flight()))
}
