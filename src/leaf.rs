//! One attempt: a request made into a call of the driver.
//!
//! The layers own every attempt. So the driver is told, on each statement, to make just one: no retries, no
//! speculative execution, no time limit of its own. That holds for a session of the caller's as well, whatever its
//! execution profile says.

use std::{
    cell::RefCell,
    future::{poll_fn, ready},
    sync::Arc,
    task::{self, Context, Poll},
    time::Duration,
};

use palisade::{HasDeadline, Instant, Rejection, TimeoutScope};
use scylla::{
    observability::history::HistoryListener,
    policies::retry::{FallthroughRetryPolicy, RetryPolicy},
    response::{PagingState, PagingStateResponse},
    statement::Statement,
};
use tokio::time::timeout;
use tokio_util::sync::ReusableBoxFuture;

use crate::{
    connect::check_datacenter,
    error::{Error, ErrorKind},
    request::{Kind, Operation, Options, Request, Row},
    response::Response,
    service::Shared,
};

/// What the driver does for one attempt.
///
/// Its futures take four kilobytes. Boxed here, once, they are not moved through every layer; and since that is more
/// than allocators give back and hand out quickly, a thread keeps the boxes of attempts that have ended for those to
/// come.
#[derive(Debug)]
pub(crate) struct Work(Option<Boxed>);

type Boxed = ReusableBoxFuture<'static, Result<Response, Error>>;

/// How many boxes a thread keeps: about 256 KiB.
const SPARE_BOXES: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<Boxed>> = const { RefCell::new(Vec::new()) };
}

impl Work {
    fn new(work: impl Future<Output = Result<Response, Error>> + Send + 'static) -> Self {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        Self(Some(match spare {
            Some(mut spare) => {
                spare.set(work);
                spare
            }
            None => ReusableBoxFuture::new(work),
        }))
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response, Error>> {
        let Some(work) = &mut self.0 else {
            return Poll::Pending;
        };
        let outcome = task::ready!(work.poll(cx));
        // What has ended holds nothing any more.
        if let Some(ended) = self.0.take() {
            SPARE.with_borrow_mut(|spare| {
                if spare.len() < SPARE_BOXES {
                    spare.push(ended);
                }
            });
        }
        Poll::Ready(outcome)
    }
}

/// Carries out a request, once.
pub(crate) fn work(shared: &Arc<Shared>, mut request: Request) -> Work {
    let bound = match request.deadline() {
        None => Bound {
            scope: TimeoutScope::Attempt,
            limit: shared.limits.of(request.kind()),
            is_ours: !request.is_deadline_enforced(),
        },
        // Who gives a call more time than is usual means it.
        Some(deadline) => Bound {
            scope: TimeoutScope::Total,
            limit: deadline.remaining(),
            is_ours: !request.is_deadline_enforced(),
        },
    };
    if bound.limit.is_zero() {
        return Work::new(ready(Err(Rejection::timed_out(bound.scope, bound.limit).into())));
    }
    if let Some(name) = request.datacenter()
        && !shared.nodes.has_datacenter(name)
        && let Err(unknown) = check_datacenter(name, &shared.session)
    {
        return Work::new(ready(Err(unknown.into())));
    }
    if !shared.is_routed {
        shared.nodes.keep_up(&shared.session.get_cluster_state(), Instant::now());
    }
    let datacenter = request.datacenter().or(shared.datacenter.as_ref());
    if shared.nodes.all_are_full(datacenter.map(|name| &**name)) {
        return Work::new(ready(Err(Error::full())));
    }
    let is_schema = request.kind() == Kind::Schema;
    request.settle(&shared.limits);
    let work = operation(Arc::clone(shared), request);
    match bound {
        _ if is_schema => {
            let shared = Arc::clone(shared);
            Work::new(async move { agreed(&shared, bound, work).await })
        }
        Bound { is_ours: true, .. } => Work::new(bound.watch(work)),
        Bound { is_ours: false, .. } => work,
    }
}

/// How long an attempt may take, and whether it is for us to watch that: a layer may do so already.
#[derive(Clone, Copy)]
struct Bound {
    scope: TimeoutScope,
    limit: Duration,
    is_ours: bool,
}

impl Bound {
    async fn watch(self, mut work: Work) -> Result<Response, Error> {
        let work = poll_fn(|cx| work.poll(cx));
        if !self.is_ours {
            return work.await;
        }
        match timeout(self.limit, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Rejection::timed_out(self.scope, self.limit).into()),
        }
    }
}

/// The driver's future is large, and each future around it would copy it once more. So what has to be around it holds
/// it in its box.
fn operation(shared: Arc<Shared>, request: Request) -> Work {
    let options = request.options;
    let ledger = Arc::clone(request.ledger());
    match request.into_operation() {
        Operation::Bound { bound, page: None } => Work::new(async move {
            let result = shared.session.execute_bound_unpaged(&bound).await?;
            Response::of_result(result, PagingStateResponse::NoMorePages)
        }),
        Operation::Bound { bound, page: Some(page) } => Work::new(async move {
            let (result, next) = shared.session.execute_bound_single_page(&bound, page).await?;
            Response::of_result(result, next)
        }),
        Operation::Batch { batch, rows } => Work::new(async move {
            let result = shared.session.batch(&batch, &*rows).await?;
            Response::of_result(result, PagingStateResponse::NoMorePages)
        }),
        Operation::Text { text, row, page } => Work::new(async move {
            let mut statement = Statement::new(&*text);
            configure!(statement, options, shared.limits.driver, ledger);
            if let Some(size) = options.page_size {
                statement.set_page_size(size);
            }
            query(&shared, statement, row.as_deref(), page).await
        }),
        Operation::Prepare { text } => Work::new(async move {
            let prepared = shared.statements.prepare(&text, &ledger).await?;
            Ok(Response::of_prepared(prepared, &shared.statements))
        }),
    }
}

async fn query(
    shared: &Shared,
    statement: Statement,
    row: Option<&Row>,
    page: PagingState,
) -> Result<Response, Error> {
    let (result, next) = match row {
        Some(row) => shared.session.query_single_page(statement, row, page).await,
        None => shared.session.query_single_page(statement, (), page).await,
    }?;
    Response::of_result(result, next)
}

/// Changes the schema, and waits until all nodes have the new one and the driver knows it, all within the bound.
async fn agreed(shared: &Shared, bound: Bound, change: Work) -> Result<Response, Error> {
    let began = Instant::now();
    let response = bound.watch(change).await?;
    shared.statements.clear();
    if shared.limits.await_agreement {
        let session = &shared.session;
        let agreement = async {
            session.await_schema_agreement().await.map_err(|error| error.to_string())?;
            session.refresh_metadata().await.map_err(|error| error.to_string())
        };
        let limit = bound.limit;
        let agreement = timeout(limit.saturating_sub(began.elapsed()), agreement).await;
        agreement.unwrap_or_else(|_| Err(format!("it took more than {limit:?}"))).map_err(|why| {
            let message = format!("the schema was changed, but the nodes may not agree on it yet: {why}");
            Error::after(ErrorKind::SchemaAgreement, message)
        })?;
    }
    Ok(response)
}

/// Applies what a request asks for to a statement of the driver's, and leaves the attempts to the layers. The driver's
/// kinds of statement have the same methods and no trait in common.
macro_rules! configure {
    ($statement:expr, $options:expr, $limit:expr, $ledger:expr) => {{
        let options: Options = $options;
        let statement = &mut $statement;
        $crate::leaf::own_attempts!(statement, $limit);
        statement.set_history_listener($crate::leaf::listener(&$ledger));
        if let Some(consistency) = options.consistency {
            statement.set_consistency(consistency);
        }
        if let Some(consistency) = options.serial_consistency {
            statement.set_serial_consistency(Some(consistency));
        }
        if options.timestamp.is_some() {
            statement.set_timestamp(options.timestamp);
        }
        if let Some(tracing) = options.tracing {
            statement.set_tracing(tracing);
        }
    }};
}
pub(crate) use configure;

/// Leaves the attempts at a statement to the layers.
macro_rules! own_attempts {
    ($statement:expr, $limit:expr) => {{
        $statement.set_retry_policy(Some($crate::leaf::no_retries()));
        $statement.set_is_idempotent(false);
        $statement.set_request_timeout($limit);
    }};
}
pub(crate) use own_attempts;

/// A statement for which the driver makes a single attempt.
pub(crate) fn once(text: &str, limit: Option<Duration>) -> Statement {
    let mut statement = Statement::new(text);
    own_attempts!(statement, limit);
    statement
}

pub(crate) fn no_retries() -> Arc<dyn RetryPolicy> {
    use std::sync::LazyLock;
    static POLICY: LazyLock<Arc<dyn RetryPolicy>> = LazyLock::new(|| Arc::new(FallthroughRetryPolicy::new()));
    Arc::clone(&POLICY)
}

/// What tells a ledger which node the driver asks.
pub(crate) fn listener(ledger: &Arc<crate::ledger::Ledger>) -> Arc<dyn HistoryListener> {
    Arc::clone(ledger) as Arc<dyn HistoryListener>
}
