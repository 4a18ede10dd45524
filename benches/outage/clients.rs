//! Who asks: the stack, the driver as it comes, and the driver with speculative execution.

use std::{
    cell::RefCell,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use scylla::{
    client::{execution_profile::ExecutionProfile, session::Session, session_builder::SessionBuilder},
    errors::{RequestAttemptError, RequestError},
    observability::history::{AttemptId, HistoryListener, RequestId, SpeculativeId},
    policies::{
        load_balancing::DefaultPolicy, retry::RetryDecision,
        speculative_execution::SimpleSpeculativeExecutionPolicy,
    },
    statement::{Consistency, prepared::PreparedStatement},
};
use tokio::task_local;
use tower::Service;
use tower_cassandra::{
    BoxStack, BoxStackFuture, Client, Error, Request, Response, Statement,
    ledger::{Ledger, Outcome},
};

use crate::{load::Failure, stack::stack};

const READ: &str = "SELECT v FROM outage.t WHERE k = ?";
const WRITE: &str = "INSERT INTO outage.t (k, v) VALUES (?, ?)";
const APPEND: &str = "UPDATE outage.l SET v = v + ? WHERE k = ?";
/// What is appended.
const ELEMENT: &[i32] = &[1];

/// What one request does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Read(i32),
    /// It may be repeated.
    Write(i32),
    /// It may not: an element more in a list.
    Append(i32),
}

/// Which datacenter requests stay in, as long as it serves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) local: &'static str,
    pub(crate) remote: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The driver's defaults.
    Bare,
    /// With two more executions, 50 ms after each other.
    Speculative,
    Stack,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Bare, Self::Speculative, Self::Stack];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare driver",
            Self::Speculative => "speculative",
            Self::Stack => "stack",
        }
    }
}

/// A client with its session.
#[derive(Clone)]
pub(crate) enum Target {
    Driver(Arc<Driver>),
    Stack { client: Client<Seen>, consistency: Consistency },
}

pub(crate) struct Driver {
    session: Session,
    read: PreparedStatement,
    write: PreparedStatement,
    append: PreparedStatement,
}

/// What came of a request.
pub(crate) struct Answer {
    pub(crate) attempts: usize,
    pub(crate) outcome: Result<SocketAddr, Failure>,
}

impl Target {
    pub(crate) async fn connect(
        kind: Kind,
        points: &[String],
        consistency: Consistency,
        site: Option<Site>,
    ) -> Self {
        if kind == Kind::Stack {
            let stack = stack(points, site).await.expect("a session");
            let client = Client::new(Seen(stack.client().stack().clone()));
            return Self::Stack { client, consistency };
        }
        let mut profile = ExecutionProfile::builder();
        if kind == Kind::Speculative {
            let retry_interval = Duration::from_millis(50);
            let policy = SimpleSpeculativeExecutionPolicy { max_retry_count: 2, retry_interval };
            profile = profile.speculative_execution_policy(Some(Arc::new(policy)));
        }
        if let Some(site) = site {
            // It may do by itself what the stack does, with a consistency that silently means the other datacenter.
            let policy = DefaultPolicy::builder().prefer_datacenter(site.local.to_owned());
            profile = profile.load_balancing_policy(policy.permit_dc_failover(true).build());
        }
        let session = SessionBuilder::new().known_nodes(points);
        let session = session.default_execution_profile_handle(profile.build().into_handle());
        let session = session.build().await.expect("a session");
        let prepare = async |text, idempotent| {
            let mut prepared = session.prepare(text).await.expect("a statement");
            prepared.set_consistency(consistency);
            prepared.set_is_idempotent(idempotent);
            prepared
        };
        let (read, write) = (prepare(READ, true).await, prepare(WRITE, true).await);
        let append = prepare(APPEND, false).await;
        Self::Driver(Arc::new(Driver { session, read, write, append }))
    }

    pub(crate) async fn call(&self, operation: Operation) -> Answer {
        match self {
            Self::Driver(driver) => driver.call(operation).await,
            Self::Stack { client, consistency } => call_stack(client, *consistency, operation).await,
        }
    }
}

impl Driver {
    async fn call(&self, operation: Operation) -> Answer {
        let attempts = Arc::new(Attempts::default());
        let listened = |statement: &PreparedStatement| {
            let mut statement = statement.clone();
            statement.set_history_listener(Arc::clone(&attempts) as _);
            statement
        };
        let outcome = match operation {
            Operation::Read(k) => self.session.execute_unpaged(&listened(&self.read), (k,)).await,
            Operation::Write(k) => self.session.execute_unpaged(&listened(&self.write), (k, k)).await,
            Operation::Append(k) => self.session.execute_unpaged(&listened(&self.append), (ELEMENT, k)).await,
        };
        let outcome = outcome.map(|result| result.request_coordinator().connection_address());
        let failed = |error: scylla::errors::ExecutionError| Failure {
            text: error.to_string(),
            may_have_been_applied: true,
            was_given_up: false,
            nodes: Vec::new(),
        };
        Answer { attempts: attempts.0.load(Ordering::Relaxed), outcome: outcome.map_err(failed) }
    }
}

/// Counts how often the driver asks a node for one request.
#[derive(Debug, Default)]
struct Attempts(AtomicUsize);

impl HistoryListener for Attempts {
    fn log_request_start(&self) -> RequestId {
        RequestId(0)
    }

    fn log_request_success(&self, _: RequestId) {}

    fn log_request_error(&self, _: RequestId, _: &RequestError) {}

    fn log_new_speculative_fiber(&self, _: RequestId) -> SpeculativeId {
        SpeculativeId(0)
    }

    fn log_attempt_start(&self, _: RequestId, _: Option<SpeculativeId>, _: SocketAddr) -> AttemptId {
        self.0.fetch_add(1, Ordering::Relaxed);
        AttemptId(0)
    }

    fn log_attempt_success(&self, _: AttemptId) {}

    fn log_attempt_error(&self, _: AttemptId, _: &RequestAttemptError, _: &RetryDecision) {}
}

task_local! {
    /// The ledger of the request that the task makes.
    static LEDGER: RefCell<Option<Arc<Ledger>>>;
}

/// A stack whose attempts are counted, also those of requests that end well.
#[derive(Clone)]
pub(crate) struct Seen(BoxStack);

impl Service<Request> for Seen {
    type Response = Response;
    type Error = Error;
    type Future = BoxStackFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let ledger = Arc::clone(request.ledger());
        // Only where somebody counts.
        let _ = LEDGER.try_with(|seen| seen.replace(Some(ledger)));
        self.0.call(request)
    }
}

async fn call_stack(client: &Client<Seen>, consistency: Consistency, operation: Operation) -> Answer {
    let call = async {
        let statement = |text| Statement::new(text).consistency(consistency);
        let outcome = match operation {
            Operation::Read(k) => client.execute(statement(READ), (k,)).await,
            Operation::Write(k) => client.execute(statement(WRITE), (k, k)).await,
            Operation::Append(k) => client.execute(statement(APPEND), (ELEMENT, k)).await,
        };
        (outcome, LEDGER.with(RefCell::take))
    };
    let (outcome, ledger) = LEDGER.scope(RefCell::new(None), call).await;
    let outcome = outcome.map(|response| response.node().expect("a coordinator")).map_err(|error| {
        let attempts = error.attempts().map(Ledger::attempts).unwrap_or_default();
        Failure {
            text: error.to_string(),
            may_have_been_applied: error.may_have_been_applied(),
            was_given_up: attempts
                .iter()
                .any(|attempt| attempt.node.is_some() && matches!(attempt.outcome, Outcome::Abandoned(_))),
            nodes: attempts.iter().filter_map(|attempt| attempt.node).collect(),
        }
    });
    Answer { attempts: ledger.map_or(0, |ledger| ledger.len()), outcome }
}
