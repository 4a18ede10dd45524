//! An HTTP service on the recommended stack: `cargo run --example service -- service.toml 127.0.0.1:3000`.
//!
//! The file is a configuration of the stack (`-` for none); `CASSANDRA_...` variables of the environment count more. It has to name a
//! contact point and a keyspace, which is made if it is not there:
//!
//! ```text
//! CASSANDRA_CONNECTION__CONTACT_POINTS=127.0.0.1 CASSANDRA_CONNECTION__KEYSPACE=shop REPLICAS=1 \
//!     cargo run --example service -- - 127.0.0.1:3000
//! ```
//!
//! In another shell:
//!
//! ```text
//! curl -i -X PUT localhost:3000/users/7 -d '{"name": "Ada", "email": "ada@example.com"}' -H 'content-type: application/json'
//! curl -i localhost:3000/users/7
//! curl -i localhost:3000/users -H 'x-priority: background'
//! curl -i localhost:3000/ready
//! curl -i localhost:3000/nodes
//! curl -i localhost:3000/metrics
//! curl -i localhost:3000/admin/stack
//! curl -i -X PUT 'localhost:3000/admin/settings/breaker.mode' -d forced_open
//! curl -i localhost:3000/users/7        # 503
//! kill -TERM NUMBER                     # which it prints: what is under way is answered, then it ends with 0
//! ```
//!
//! | file | what it shows |
//! | --- | --- |
//! | `main.rs` | how it starts, and how it ends |
//! | `users.rs` | statements, pages, priorities |
//! | `failure.rs` | what an error is over HTTP |
//! | `operations.rs` | what a load balancer, a dashboard and an operator ask for |
#![allow(clippy::print_stdout, reason = "an example talks to a person")]

mod failure;
mod operations;
mod users;

use std::{
    env,
    error::Error,
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::DefaultBodyLimit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use tower::ServiceBuilder;
use tower_cassandra::{
    BoxClient, StackConfig, StandardStack,
    layers::{Drain, TimeoutLayer, box_errors, respond},
    stack::config::ConnectionConfig,
    telemetry,
};

/// What all handlers share.
#[derive(Clone)]
struct App {
    client: BoxClient,
    stack: StandardStack,
    /// The configuration as an operator has changed it. Not all of it is in force.
    config: Arc<Mutex<StackConfig>>,
    /// The session of this process, as it was made.
    connection: Arc<ConnectionConfig>,
    /// The end of this process, as its HTTP side sees it.
    drain: Drain,
    metrics: PrometheusHandle,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let file = arguments.next().filter(|file| file != "-");
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());

    // Before anything counts: a metric that is asked for earlier stays silent.
    let metrics = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("duration".to_owned()), &telemetry::DURATION_BUCKETS)?
        .install_recorder()?;
    telemetry::describe();
    // What is measured is kept one by one until somebody asks for it, or this sums it up.
    let upkeep = metrics.clone();
    tokio::spawn(async move {
        loop {
            sleep(Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });

    let config = StackConfig::load(file.as_deref().map(Path::new), "CASSANDRA_")?;
    users::create_schema(&config).await?;
    let stack = StandardStack::connect(config.clone()).await?;
    if let Some(health) = &stack.handles().health {
        health.warm_up(Duration::from_secs(10)).await?;
    }

    // Two drains, one after the other: an HTTP request that was let in may still ask the cluster.
    let drain = Drain::builder().grace(Duration::from_secs(1)).timeout(Duration::from_secs(20)).build()?;
    let app = App {
        client: stack.client(),
        stack: stack.clone(),
        connection: Arc::new(config.connection.clone()),
        config: Arc::new(Mutex::new(config)),
        drain: drain.clone(),
        metrics,
    };
    let router = Router::new()
        .merge(users::routes())
        .layer(
            ServiceBuilder::new()
                .layer(respond()) // a refusal of the drain is answered with 503
                .layer(drain.layer())
                // The calls of the stack have their own limit; a caller who does not send its body has none.
                .layer(TimeoutLayer::new(Duration::from_secs(15)))
                .layer(box_errors()),
        )
        // A user is small, and a page of them is held in memory.
        .layer(DefaultBodyLimit::max(16 * 1024))
        // Not behind the drain: they have to be answered while it refuses.
        .merge(operations::routes())
        .with_state(app);

    let mut terminated = signal(SignalKind::terminate())?;
    let begins = drain.clone();
    tokio::spawn(async move {
        terminated.recv().await;
        begins.start();
    });

    let listener = TcpListener::bind(address).await?;
    println!("process {} listens on {}", std::process::id(), listener.local_addr()?);
    let server = axum::serve(listener, router).with_graceful_shutdown(drain.refusing());
    let server = tokio::spawn(server.into_future());

    drain.started().await;
    let requests = drain.finish().await;
    stack.handles().drain.start();
    let calls = stack.handles().drain.finish_within(Duration::from_secs(5)).await;
    println!("requests: {requests:?}; calls: {calls:?}");
    if !requests.finished || !calls.finished {
        return Ok(ExitCode::FAILURE);
    }
    // The requests have been answered; the server ends when it has written the answers out. It also waits for who has sent half a
    // request, and that may be for ever.
    if let Ok(served) = timeout(Duration::from_secs(5), server).await {
        served??;
    }
    Ok(ExitCode::SUCCESS)
}
