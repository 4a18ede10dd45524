//! One attempt: a request made into a call of the driver.
//!
//! The layers own every attempt. So the driver is told, on each statement, to make just one: no retries, no
//! speculative execution, no time limit of its own. That holds for a session of the caller's as well, whatever
//! its execution profile says.

use std::{sync::Arc, time::Duration};

use palisade::{HasDeadline, Instant, Rejection, TimeoutScope};
use scylla::{
    policies::retry::{FallthroughRetryPolicy, RetryPolicy},
    response::{PagingState, PagingStateResponse, query_result::QueryResult},
    statement::{Statement, batch::Batch, bound::BoundStatement},
};
use tokio::time::timeout;
use tracing::{Instrument, field};

use crate::{
    error::{Error, ErrorKind},
    ledger::AttemptGuard,
    request::{Kind, Operation, Options, Request, Row},
    response::Response,
    service::Shared,
};

/// Carries out a request, once.
pub(crate) async fn attempt(shared: Arc<Shared>, request: Request) -> Result<Response, Error> {
    let span = tracing::debug_span!(
        "cassandra.attempt",
        kind = request.kind().as_str(),
        node = field::Empty,
        error = field::Empty,
    );
    let record = span.clone();
    async move {
        let attempt = request.ledger().begin(request.kind());
        let outcome = within_limit(&shared, &request, &attempt).await;
        if !record.is_disabled() {
            if let Some(node) = attempt.node() {
                record.record("node", field::display(node));
            }
            if let Err(error) = &outcome {
                record.record("error", error.kind().as_str());
            }
        }
        attempt.end(&outcome);
        outcome
    }
    .instrument(span)
    .await
}

/// How much later than a layer the leaf enforces a deadline. Who set the deadline should be the one that speaks, and
/// counts; the leaf speaks where nobody else does.
const GRACE: Duration = Duration::from_millis(10);

/// Nothing is waited for without a limit, even in a stack without a deadline or a timeout.
async fn within_limit(
    shared: &Arc<Shared>,
    request: &Request,
    attempt: &AttemptGuard,
) -> Result<Response, Error> {
    let longest = match request.kind() {
        Kind::Schema | Kind::Truncate => shared.limits.schema,
        _ => shared.limits.request,
    };
    let now = Instant::now();
    let left = request.deadline().map(|deadline| deadline.saturating_duration_since(now));
    let (scope, limit, wait) = match left {
        Some(left) if left <= longest => (TimeoutScope::Total, left, left + GRACE),
        _ => (TimeoutScope::Attempt, longest, longest),
    };
    match timeout(wait, send(shared, request, attempt)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Rejection::timed_out(scope, limit).into()),
    }
}

async fn send(shared: &Arc<Shared>, request: &Request, attempt: &AttemptGuard) -> Result<Response, Error> {
    let session = &shared.session;
    match &request.operation {
        Operation::Prepare { text } => {
            let prepared = shared.statements.prepare(text, attempt).await?;
            Ok(Response::of_prepared(prepared, &shared.statements))
        }
        Operation::Bound { bound, page } => {
            let mut bound = BoundStatement::clone(bound);
            configure!(bound, request.options, attempt);
            if let Some(size) = request.options.page_size {
                bound.set_page_size(size);
            }
            let (result, next) = session.execute_bound_single_page(&bound, page.clone()).await?;
            Response::of_result(result, next)
        }
        Operation::Text { text, row, page } => {
            let mut statement = Statement::new(&**text);
            configure!(statement, request.options, attempt);
            if let Some(size) = request.options.page_size {
                statement.set_page_size(size);
            }
            let (result, next) = query(shared, statement, row.as_deref(), page).await?;
            if request.kind() == Kind::Schema && shared.limits.await_agreement {
                agree(shared).await?;
            }
            Response::of_result(result, next)
        }
        Operation::Batch { batch, rows } => {
            let mut batch = Batch::clone(batch);
            configure!(batch, request.options, attempt);
            let result = session.batch(&batch, &**rows).await?;
            Response::of_result(result, PagingStateResponse::NoMorePages)
        }
    }
}

async fn query(
    shared: &Arc<Shared>,
    statement: Statement,
    row: Option<&Row>,
    page: &PagingState,
) -> Result<(QueryResult, PagingStateResponse), Error> {
    let session = &shared.session;
    let outcome = match row {
        Some(row) => session.query_single_page(statement, row, page.clone()).await,
        None => session.query_single_page(statement, (), page.clone()).await,
    };
    Ok(outcome?)
}

/// Waits until all nodes have the new schema, and the driver knows it.
async fn agree(shared: &Arc<Shared>) -> Result<(), Error> {
    let session = &shared.session;
    session.await_schema_agreement().await.map_err(|error| {
        let message = format!("the schema was changed, but the nodes do not agree on it yet: {error}");
        Error::after(ErrorKind::SchemaAgreement, message)
    })?;
    session.refresh_metadata().await.map_err(|error| {
        let message = format!("the schema was changed, but could not be read again: {error}");
        Error::after(ErrorKind::SchemaAgreement, message)
    })
}

/// Applies a request's options to a statement of the driver's. The driver's three kinds of statement have the same
/// methods and no trait in common.
macro_rules! configure {
    ($statement:ident, $options:expr, $attempt:expr) => {{
        let options: &Options = &$options;
        $statement.set_retry_policy(Some(fallthrough()));
        $statement.set_is_idempotent(false);
        $statement.set_request_timeout(Some(NEVER));
        $statement.set_history_listener($attempt.listener());
        if let Some(consistency) = options.consistency {
            $statement.set_consistency(consistency);
        }
        if let Some(consistency) = options.serial_consistency {
            $statement.set_serial_consistency(Some(consistency));
        }
        if options.timestamp.is_some() {
            $statement.set_timestamp(options.timestamp);
        }
        if options.tracing {
            $statement.set_tracing(true);
        }
    }};
}
use configure;

/// A statement for which the driver makes a single attempt.
pub(crate) fn own_attempts(mut statement: Statement) -> Statement {
    statement.set_retry_policy(Some(fallthrough()));
    statement.set_is_idempotent(false);
    statement.set_request_timeout(Some(NEVER));
    statement
}

/// `None` would mean the execution profile's own limit.
const NEVER: Duration = Duration::MAX;

fn fallthrough() -> Arc<dyn RetryPolicy> {
    use std::sync::LazyLock;
    static POLICY: LazyLock<Arc<dyn RetryPolicy>> = LazyLock::new(|| Arc::new(FallthroughRetryPolicy::new()));
    Arc::clone(&POLICY)
}
