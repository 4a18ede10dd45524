//! What flows through a stack: one request, whatever the operation.
//!
//! A [`Request`] is owned, `Send + Sync`, and cheap to copy: its values are serialized once, when it is made, and
//! its copies share them. It carries what the layers read (deadline, idempotence, priority) and the
//! [`Ledger`] in which each attempt is noted.
//!
//! [`Client`](crate::Client) makes requests; whoever calls a stack without one makes them here:
//!
//! ```no_run
//! use tower::{Service, ServiceExt};
//! use tower_cassandra::{Cassandra, Request};
//!
//! # async fn example() -> Result<(), tower_cassandra::Error> {
//! let mut cassandra = Cassandra::connect("127.0.0.1:9042").await?;
//! let request = Request::text("SELECT release_version FROM system.local");
//! let response = cassandra.ready().await?.call(request).await?;
//! let (version,): (String,) = response.single_row()?;
//! # Ok(())
//! # }
//! ```

mod key;
mod keyspaces;
mod kind;
mod options;
mod row;

use std::{fmt, sync::Arc, time::Duration};

use palisade::{HasDeadline, HasPriority, Idempotence, Instant, Priority, Repeat, Why};
use scylla::{
    client::execution_profile::ExecutionProfile,
    response::PagingState,
    statement::{
        Consistency, SerialConsistency,
        batch::{self, BatchStatement},
        bound::BoundStatement,
    },
};

pub use self::{key::ReadKey, kind::Kind};
pub(crate) use self::{
    options::{Options, option_methods},
    row::{CaptureColumns, Row},
};
use crate::{
    idempotence::{self, Analysis, Verdict},
    leaf::configure,
    ledger::Ledger,
    limits::Limits,
    telemetry::OperationName,
    timestamp,
};

/// One request to the cluster. See the [module](self) for more.
#[derive(Clone)]
pub struct Request {
    operation: Operation,
    pub(crate) options: Options,
    kind: Kind,
    name: Arc<OperationName>,
    idempotence: Idempotence,
    deadline: Option<Instant>,
    ledger: Arc<Ledger>,
    // Whether it is a later step of an operation that has entered the stack already.
    is_step: bool,
    // Whether a layer watches the deadline, or has lifted it and watches in its place.
    is_deadline_enforced: bool,
    // Whether the driver's statement carries what this request asks for.
    is_settled: bool,
    // The datacenter to be served by, in place of the session's.
    datacenter: Option<Arc<str>>,
    // The text and the values of a read that may share its answer.
    read: Option<(Arc<str>, Arc<Row>)>,
}

/// What is to be done. Every variant shares its data between copies.
#[derive(Clone)]
pub(crate) enum Operation {
    Prepare { text: Arc<str> },
    Text { text: Arc<str>, row: Option<Arc<Row>>, page: PagingState },
    // Without a page, the result has one row at most and is asked for as a whole.
    Bound { bound: Arc<BoundStatement>, page: Option<PagingState> },
    Batch { batch: Arc<batch::Batch>, rows: Arc<[Row]> },
}

impl Request {
    /// A statement as text, without values. It is not prepared.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        let statement = idempotence::analyze(&text);
        Self::of_text(text, &statement, None)
    }

    /// A text whose unqualified names belong to `keyspace`, where that is known.
    pub(crate) fn of_text(text: Arc<str>, statement: &Analysis, keyspace: Option<&str>) -> Self {
        let name = OperationName::of_text(statement, keyspace);
        Self::new(Operation::Text { text, row: None, page: PagingState::start() }, Kind::of(statement), name)
            .judged(statement.verdict())
    }

    /// A prepared statement with its values.
    ///
    /// Its retry policy, request timeout and idempotence flag are set aside, since all attempts belong to the
    /// layers. A timestamp that it has stays. A load balancing policy or an execution profile that the statement
    /// carries stays in force.
    pub fn bound(bound: BoundStatement) -> Self {
        let statement = idempotence::analyze(bound.prepared().get_statement());
        let kind = Kind::of(&statement);
        let columns = bound.prepared().get_variable_col_specs();
        let verdict = idempotence::refine(&statement, columns.as_slice(), None);
        let has_timestamp = bound.prepared().get_timestamp().is_some();
        let name = OperationName::of_prepared(&statement, bound.prepared().get_table_spec(), None);
        let operation = Operation::Bound { bound: Arc::new(bound), page: Some(PagingState::start()) };
        let request = Self::new(operation, kind, name).judged(verdict);
        if has_timestamp { request.without_timestamp() } else { request }
    }

    /// Takes over what the statement says of itself. All attempts of a write that may be repeated carry one timestamp.
    fn judged(mut self, verdict: Verdict) -> Self {
        self.options.timestamp = timestamp::of_write(self.kind, verdict.idempotence(), verdict);
        self.with_idempotence(verdict.idempotence())
    }

    /// The preparation of a statement. Its response is [`Response::prepared`](crate::Response::prepared).
    pub fn prepare(text: impl Into<Arc<str>>) -> Self {
        Self::of_preparation(text.into(), None)
    }

    pub(crate) fn of_preparation(text: Arc<str>, keyspace: Option<&str>) -> Self {
        let name = OperationName::of_preparation(&idempotence::analyze(&text), keyspace);
        Self::new(Operation::Prepare { text }, Kind::Prepare, name).with_idempotence(Idempotence::Yes)
    }

    pub(crate) fn new(operation: Operation, kind: Kind, name: Arc<OperationName>) -> Self {
        Self {
            operation,
            options: Options::default(),
            kind,
            name,
            idempotence: Idempotence::Unknown,
            deadline: None,
            ledger: Arc::default(),
            is_step: false,
            is_deadline_enforced: false,
            is_settled: false,
            datacenter: None,
            read: None,
        }
    }

    /// Sets whether the statement may be applied twice, in place of what its text says.
    pub fn with_idempotence(mut self, idempotence: Idempotence) -> Self {
        self.idempotence = idempotence;
        self
    }

    /// Sets the consistency level, in place of the session's.
    pub fn with_consistency(mut self, consistency: Consistency) -> Self {
        self.options.consistency = Some(consistency);
        self.is_settled = false;
        self
    }

    /// Sets the consistency level of the conditional part of a lightweight transaction, in place of the session's.
    pub fn with_serial_consistency(mut self, consistency: SerialConsistency) -> Self {
        self.options.serial_consistency = Some(consistency);
        self.is_settled = false;
        self
    }

    /// Sets how long the whole call may take, from now on, in place of what [`Timeouts`](crate::Timeouts) say.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self.shorten_deadline(Instant::now() + timeout);
        self
    }

    /// Sets the rows a page. Values below 1 count as 1.
    pub fn with_page_size(mut self, rows: i32) -> Self {
        self.options.page_size = Some(rows.max(1));
        self.is_settled = false;
        self
    }

    /// Sets the page to begin with, in place of the first: a [`Response::next_page`](crate::Response::next_page).
    pub fn with_page(mut self, at: PagingState) -> Self {
        match &mut self.operation {
            Operation::Text { page, .. } => *page = at,
            Operation::Bound { page, .. } => *page = Some(at),
            Operation::Prepare { .. } | Operation::Batch { .. } => {}
        }
        self
    }

    /// Sets whether the server is asked for a trace. It is costly.
    pub fn with_tracing(mut self, tracing: bool) -> Self {
        self.options.tracing = Some(tracing);
        self.is_settled = false;
        self
    }

    /// Sets the write's timestamp, in microseconds since 1970, the same for all attempts.
    pub fn with_timestamp(mut self, microseconds: i64) -> Self {
        self.options.timestamp = Some(microseconds);
        self.is_settled = false;
        self
    }

    /// Leaves the timestamp of a write to the coordinators, a different one at each attempt.
    ///
    /// A request of a write that may be repeated is made with a timestamp of this process's clock: see
    /// [`Client::client_timestamps`](crate::Client::client_timestamps).
    pub fn without_timestamp(mut self) -> Self {
        self.options.timestamp = None;
        self.is_settled = false;
        self
    }

    /// Sets how important the request is.
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.options.priority = priority;
        self
    }

    /// Sets the datacenter whose nodes are asked, in place of the session's, where [`Routing`](crate::routing::Routing) chooses them. The
    /// consistency level stays: a local one then means that datacenter.
    pub fn with_datacenter(mut self, name: impl Into<Arc<str>>) -> Self {
        self.datacenter = Some(name.into());
        self
    }

    pub(crate) fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self.is_settled = false;
        self
    }

    /// Makes it a step of the operation that `ledger` belongs to. The first step counts, the others do not.
    pub(crate) fn into_step_of(mut self, ledger: &Arc<Ledger>, first: bool) -> Self {
        self.ledger = Arc::clone(ledger);
        self.deadline = ledger.deadline();
        self.is_step = !first;
        self.is_settled = false;
        self
    }

    /// Writes what the request asks for into the driver's statement, once for all its copies.
    pub(crate) fn settle(&mut self, limits: &Limits) {
        if std::mem::replace(&mut self.is_settled, true) {
            return;
        }
        let (options, limit) = (self.options, limits.driver);
        match &mut self.operation {
            Operation::Bound { bound, .. } => {
                let bound = Arc::make_mut(bound);
                configure!(*bound, options, limit, self.ledger);
                if let Some(size) = options.page_size {
                    bound.set_page_size(size);
                }
            }
            Operation::Batch { batch, .. } => configure!(*Arc::make_mut(batch), options, limit, self.ledger),
            Operation::Prepare { .. } | Operation::Text { .. } => {}
        }
    }

    pub(crate) fn is_deadline_enforced(&self) -> bool {
        self.is_deadline_enforced
    }

    pub(crate) fn into_operation(self) -> Operation {
        self.operation
    }

    /// What the statement does.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What the operation is called: its verb, its table, and both in a few words.
    pub fn operation(&self) -> &OperationName {
        &self.name
    }

    /// Whether the statement may be applied twice.
    pub fn idempotence(&self) -> Idempotence {
        self.idempotence
    }

    /// The consistency level, if it is not the session's.
    pub fn consistency(&self) -> Option<Consistency> {
        self.options.consistency
    }

    /// A repeat of what counts as a request already.
    pub(crate) fn uncounted(mut self) -> Self {
        self.is_step = true;
        self
    }

    /// The datacenter whose nodes are asked, if it is not the session's.
    pub fn datacenter(&self) -> Option<&Arc<str>> {
        self.datacenter.as_ref()
    }

    /// The keyspace of its table, where that is known.
    pub(crate) fn keyspace(&self) -> Option<&str> {
        self.name.keyspace()
    }

    /// The consistency level, if it is not the session's: the request's own, or that of a statement of the caller's or of the profile that
    /// this carries.
    pub(crate) fn stated_consistency(&self) -> Option<Consistency> {
        self.options.consistency.or_else(|| match &self.operation {
            Operation::Bound { bound, .. } => {
                let of_profile = || Some(self.profile()?.get_consistency());
                bound.prepared().get_consistency().or_else(of_profile)
            }
            Operation::Batch { batch, .. } => batch.get_consistency(),
            Operation::Prepare { .. } | Operation::Text { .. } => None,
        })
    }

    /// The same for the serial consistency level.
    pub(crate) fn stated_serial_consistency(&self) -> Option<SerialConsistency> {
        self.options.serial_consistency.or_else(|| match &self.operation {
            Operation::Bound { bound, .. } => {
                let of_profile = || self.profile()?.get_serial_consistency();
                bound.prepared().get_serial_consistency().or_else(of_profile)
            }
            Operation::Batch { batch, .. } => batch.get_serial_consistency(),
            Operation::Prepare { .. } | Operation::Text { .. } => None,
        })
    }

    /// The execution profile that a statement of the caller's carries.
    fn profile(&self) -> Option<ExecutionProfile> {
        match &self.operation {
            Operation::Bound { bound, .. } => {
                Some(bound.prepared().get_execution_profile_handle()?.to_profile())
            }
            _ => None,
        }
    }

    /// The time limit that the caller set for this request, in place of the stack's.
    pub fn timeout(&self) -> Option<Duration> {
        self.options.timeout
    }

    /// The statement's text, or `None` for a batch.
    pub fn statement(&self) -> Option<&str> {
        match &self.operation {
            Operation::Prepare { text } | Operation::Text { text, .. } => Some(text),
            Operation::Bound { bound, .. } => Some(bound.prepared().get_statement()),
            Operation::Batch { .. } => None,
        }
    }

    /// The texts of the statements that it holds.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        let members = match &self.operation {
            Operation::Batch { batch, .. } => batch.statements.as_slice(),
            _ => &[],
        };
        self.statement().into_iter().chain(members.iter().filter_map(|member| match member {
            BatchStatement::Query(statement) => Some(statement.contents.as_str()),
            BatchStatement::PreparedStatement(prepared) => Some(prepared.get_statement()),
            _ => None,
        }))
    }

    /// How many statements it holds: the members of a batch, else 1. What a rate limit may count by.
    pub fn statements(&self) -> u32 {
        match &self.operation {
            Operation::Batch { rows, .. } => u32::try_from(rows.len()).unwrap_or(u32::MAX),
            _ => 1,
        }
    }

    /// The record of the request's attempts.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// The page that follows, of the same result.
    pub(crate) fn next_page(&self, next: PagingState) -> Self {
        let mut request = self.clone().with_page(next);
        request.is_step = true;
        request.deadline = self.ledger.deadline();
        request.is_deadline_enforced = false;
        request
    }
}

impl HasDeadline for Request {
    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn shorten_deadline(&mut self, at: Instant) {
        if self.deadline.is_some_and(|earlier| earlier <= at) {
            return;
        }
        self.deadline = Some(at);
        // Whoever enforced the one before does not know of this one.
        self.is_deadline_enforced = false;
        // What sets a deadline first, the outermost layer, sets it for all steps of the operation.
        self.ledger.fix_deadline(at);
    }

    fn deadline_is_enforced(&mut self) {
        self.is_deadline_enforced = true;
    }

    /// Whoever lifts it watches: the leaf, which sets the usual limit to a request without a deadline, leaves that to the layer, as a
    /// caller's deadline may be later than usual.
    fn lift_deadline(&mut self) {
        if self.deadline.take().is_some() {
            self.is_deadline_enforced = true;
        }
    }
}

impl HasPriority for Request {
    fn priority(&self) -> Priority {
        self.options.priority
    }
}

/// A copy shares the values and the ledger, by which routing asks another node. A lightweight transaction is never hedged: two copies of
/// it would contend for the same partition, and the loser's answer would be taken for the outcome. Nor is anything hedged that no
/// other replica could take.
impl Repeat for Request {
    fn repeat(&self, why: Why) -> Option<Self> {
        let allowed = match why {
            Why::Spare => true,
            Why::Retry(class) => self.idempotence.permits(&class),
            Why::Hedge => {
                self.idempotence == Idempotence::Yes
                    && self.kind != Kind::Transaction
                    && self.ledger.has_another_node() != Some(false)
            }
            _ => false,
        };
        allowed.then(|| self.clone())
    }

    fn counts(&self) -> bool {
        !self.is_step
    }
}

/// Values are left out: they may be secret.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("kind", &self.kind)
            .field("statement", &self.statement())
            .field("idempotence", &self.idempotence)
            .field("deadline", &self.deadline)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The leaf sets its own limit where nobody watches, and only there.
    #[test]
    fn whoever_lifts_a_deadline_watches_until_there_is_another() {
        let mut request = Request::text("SELECT a FROM k.t");
        request.lift_deadline();
        assert!(!request.is_deadline_enforced(), "there was none to lift");

        let at = Instant::now() + Duration::from_secs(60);
        request.shorten_deadline(at);
        request.lift_deadline();
        assert_eq!((request.deadline(), request.is_deadline_enforced()), (None, true));

        request.shorten_deadline(at);
        assert_eq!((request.deadline(), request.is_deadline_enforced()), (Some(at), false));
    }
}
