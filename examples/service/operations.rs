//! What a load balancer, a dashboard and an operator ask for. In earnest these would listen at an address of their own.

use std::sync::PoisonError;

use axum::{
    Json, Router,
    extract::{Path, State},
    response::IntoResponse,
    routing::{get, put},
};
use http::StatusCode;
use serde_json::{Value, json};
use tower_cassandra::stack::StackSnapshot;

use crate::{App, failure::Failure};

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/nodes", get(nodes))
        .route("/metrics", get(metrics))
        .route("/admin/stack", get(stack))
        .route("/admin/settings/{setting}", put(set))
}

/// Whether this process is to be restarted. What ails the cluster is no reason.
async fn health(State(app): State<App>) -> impl IntoResponse {
    let alive = app.stack.handles().health.as_ref().is_none_or(|health| health.liveness().alive);
    let status = if alive { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    (status, Json(json!({ "alive": alive })))
}

/// Whether this process is to get requests: not while it ends, nor while its keyspace cannot be served.
async fn ready(State(app): State<App>) -> impl IntoResponse {
    if app.drain.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ready": false, "reason": "shutting down" })));
    }
    let Some(health) = &app.stack.handles().health else {
        return (StatusCode::OK, Json(json!({ "ready": true })));
    };
    let keyspace = app.connection.keyspace.as_deref().unwrap_or_default();
    let readiness = health.readiness(keyspace, app.connection.consistency);
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!(readiness)))
}

/// How each node is.
async fn nodes(State(app): State<App>) -> Json<Value> {
    Json(app.stack.handles().health.as_ref().map_or(Value::Null, |health| json!(health.report())))
}

async fn metrics(State(app): State<App>) -> String {
    app.metrics.run_upkeep();
    app.metrics.render()
}

/// The figures of all parts of the stack.
async fn stack(State(app): State<App>) -> Json<StackSnapshot> {
    Json(app.stack.handles().snapshot())
}

/// Changes one setting, and tells whether that takes a restart.
async fn set(
    State(app): State<App>,
    Path(setting): Path<String>,
    value: String,
) -> Result<impl IntoResponse, Failure> {
    let bad = |problem: &dyn std::fmt::Display| Failure::Caller(StatusCode::BAD_REQUEST, problem.to_string());
    let mut current = app.config.lock().unwrap_or_else(PoisonError::into_inner);
    let mut config = current.clone();
    config.set(&setting, value.trim()).map_err(|error| bad(&error))?;
    let applied = app.stack.handles().apply(&config).map_err(|error| bad(&error))?;
    *current = config;
    Ok(Json(json!({ "changed": applied.changed, "needs_restart": applied.needs_restart })))
}
