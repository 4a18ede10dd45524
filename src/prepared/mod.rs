//! Prepared statements: prepared once, kept, and never waited for longer than it takes.
//!
//! The driver prepares a statement on every node and waits for the slowest, without a time limit, so that one hung
//! node holds up every statement that is new. Here a statement is prepared by a task of its own, once for all
//! callers that ask for it meanwhile ([single flight]). A caller waits for it a short while. After that it asks the
//! one node that the driver picks for it what the statement's bind markers are, and goes on with the statement as
//! text; the task goes on too, and later calls find the statement prepared.
//!
//! [single flight]: https://pkg.go.dev/golang.org/x/sync/singleflight

mod key;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use palisade::{Instant, Rejection, TimeoutScope};
use quick_cache::sync::Cache;
use scylla::{
    client::session::Session, errors::PrepareError, frame::response::result::ColumnSpec,
    response::PagingState, statement::prepared::PreparedStatement,
};
use tokio::{sync::watch, time::timeout};

use self::key::{Key, KeyRef};
use crate::{
    error::Error,
    idempotence::{self, Analysis, Verb, Verdict},
    leaf,
    ledger::Ledger,
    limits::Limits,
    request::{CaptureColumns, Kind},
    telemetry::OperationName,
};

/// How long a caller waits for a statement to be prepared on all nodes before it asks a single one.
const PATIENCE: Duration = Duration::from_millis(100);

/// How many statements are prepared at a time. Callers of more ask single nodes.
const MAX_FLIGHTS: usize = 1_024;

/// A statement that is prepared, or at least known well enough to be sent with values.
///
/// Made by [`Client::prepare`](crate::Client::prepare). Clones share it.
#[derive(Clone)]
pub struct Prepared(Arc<Inner>);

struct Inner {
    text: Arc<str>,
    kind: Kind,
    operation: Arc<OperationName>,
    verdict: Verdict,
    columns: Vec<ColumnSpec<'static>>,
    prepared: Instant,
    is_single_row: bool,
    // None for a statement that one node has described and that is not prepared on all yet.
    statement: Option<PreparedStatement>,
}

impl Prepared {
    fn new(
        session: &Session,
        text: Arc<str>,
        of: Result<PreparedStatement, Vec<ColumnSpec<'static>>>,
    ) -> Self {
        let (statement, columns) = match of {
            Ok(statement) => {
                let columns = statement.get_variable_col_specs().as_slice().to_vec();
                (Some(statement), columns)
            }
            Err(columns) => (None, columns),
        };
        let analysis = idempotence::analyze(&text);
        let table = columns.first().map(ColumnSpec::table_spec);
        let keyspace = session.get_keyspace();
        let keyspace = keyspace.as_ref().map(|keyspace| keyspace.as_str());
        Self(Arc::new(Inner {
            kind: Kind::of(&analysis),
            operation: OperationName::of_prepared(&analysis, table, keyspace),
            verdict: idempotence::refine(&analysis, &columns, Some(&session.get_cluster_state())),
            is_single_row: statement
                .as_ref()
                .is_some_and(|statement| is_single_row(&analysis, statement, session)),
            text,
            columns,
            prepared: Instant::now(),
            statement,
        }))
    }

    /// The statement's text.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// What the statement does.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What it is called: its verb, its table, and both in a few words.
    pub fn operation(&self) -> &OperationName {
        &self.0.operation
    }

    pub(crate) fn name(&self) -> &Arc<OperationName> {
        &self.0.operation
    }

    /// Whether the statement may be applied twice, and why not.
    pub fn verdict(&self) -> Verdict {
        self.0.verdict
    }

    /// The bind markers: their names and types, in the order of the values.
    pub fn columns(&self) -> &[ColumnSpec<'static>] {
        &self.0.columns
    }

    /// Whether its result has one row at most.
    pub(crate) fn is_single_row(&self) -> bool {
        self.0.is_single_row
    }

    /// Whether so much time has passed that somebody else may have changed the schema since.
    pub(crate) fn may_be_outdated(&self) -> bool {
        self.0.prepared.elapsed() > Duration::from_secs(10)
    }

    pub(crate) fn shared_text(&self) -> Arc<str> {
        Arc::clone(&self.0.text)
    }

    pub(crate) fn statement(&self) -> Option<&PreparedStatement> {
        self.0.statement.as_ref()
    }
}

/// Whether a `SELECT` names one partition by its whole key, in a table of which a partition is one row.
fn is_single_row(statement: &Analysis, prepared: &PreparedStatement, session: &Session) -> bool {
    let by_key = statement.verb() == Verb::Select && !statement.may_name_several_keys();
    let table = || {
        let spec = prepared.get_variable_col_specs().get_by_index(0)?.table_spec();
        let state = session.get_cluster_state();
        let table = state.get_keyspace(spec.ks_name())?.tables.get(spec.table_name())?;
        Some(
            table.clustering_key.is_empty()
                && prepared.get_variable_pk_indexes().len() == table.partition_key.len(),
        )
    };
    by_key && table() == Some(true)
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("text", &self.0.text)
            .field("kind", &self.0.kind)
            .field("idempotence", &self.0.verdict.idempotence())
            .finish_non_exhaustive()
    }
}

/// The prepared statements of one session.
pub(crate) struct Statements {
    session: Arc<Session>,
    cache: Cache<Key, Prepared>,
    flights: Mutex<HashMap<Key, Flight>>,
    limits: Limits,
}

/// A statement that is being prepared.
#[derive(Clone)]
struct Flight {
    started: Instant,
    landed: watch::Receiver<Option<Landing>>,
}

type Landing = Result<Prepared, Failure>;

#[derive(Clone)]
enum Failure {
    Prepare(PrepareError),
    TimedOut(Duration),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Prepare(error) => error.into(),
            Failure::TimedOut(limit) => Rejection::timed_out(TimeoutScope::Attempt, limit).into(),
        }
    }
}

impl Statements {
    pub(crate) fn new(session: Arc<Session>, limits: Limits) -> Self {
        Self { session, cache: Cache::new(limits.statements), flights: Mutex::default(), limits }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The session's present keyspace, to which unqualified names belong.
    pub(crate) fn keyspace(&self) -> Option<Arc<String>> {
        self.session.get_keyspace()
    }

    /// The statement, if it is prepared for the session's present keyspace.
    pub(crate) fn get(&self, text: &str) -> Option<Prepared> {
        let keyspace = self.session.get_keyspace();
        self.cache.get(&KeyRef { text, keyspace: keyspace.as_ref().map(|keyspace| keyspace.as_str()) })
    }

    /// Forgets all statements: after a change of the schema, their bind markers may have other types.
    pub(crate) fn clear(&self) {
        self.cache.clear();
    }

    /// Forgets a statement that the server knows by another id now, or that may have other bind markers.
    pub(crate) fn forget(&self, text: &str) {
        let keyspace = self.session.get_keyspace();
        self.cache.remove(&KeyRef { text, keyspace: keyspace.as_ref().map(|keyspace| keyspace.as_str()) });
    }

    /// Prepares the statement, or describes it where that takes too long.
    ///
    /// Dropping the future leaves the preparation under way, for those who come after.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        text: &Arc<str>,
        ledger: &Arc<Ledger>,
    ) -> Result<Prepared, Error> {
        if let Some(prepared) = self.get(text) {
            return Ok(prepared);
        }
        let Some(mut flight) = self.board(text) else {
            return self.describe(text, ledger).await;
        };
        let patience = PATIENCE.saturating_sub(flight.started.elapsed());
        // It may still be under way then, or its task was lost with its runtime.
        let _ = timeout(patience, flight.landed.wait_for(Option::is_some)).await;
        let landing = flight.landed.borrow().clone();
        match landing {
            Some(landing) => Ok(landing?),
            None => self.describe(text, ledger).await,
        }
    }

    /// The flight that prepares this statement: one under way, or a new one unless there are too many.
    fn board(self: &Arc<Self>, text: &Arc<str>) -> Option<Flight> {
        let key = Key { text: Arc::clone(text), keyspace: self.session.get_keyspace() };
        let mut flights = self.flights();
        // A flight whose task was lost with its runtime never lands: it is replaced.
        if let Some(flight) = flights.get(&key).filter(|flight| flight.landed.has_changed().is_ok()) {
            return Some(flight.clone());
        }
        if flights.len() >= MAX_FLIGHTS {
            return None;
        }
        let (sender, landed) = watch::channel(None);
        let flight = Flight { started: Instant::now(), landed };
        flights.insert(key.clone(), flight.clone());
        drop(flights);
        tokio::spawn(Arc::clone(self).fly(key, sender));
        Some(flight)
    }

    async fn fly(self: Arc<Self>, key: Key, landing: watch::Sender<Option<Landing>>) {
        let statement = leaf::once(&key.text, self.limits.driver);
        let outcome = match timeout(self.limits.prepare, self.session.prepare(statement)).await {
            Ok(Ok(statement)) => {
                let prepared = Prepared::new(&self.session, Arc::clone(&key.text), Ok(statement));
                self.cache.insert(key.clone(), prepared.clone());
                Ok(prepared)
            }
            Ok(Err(error)) => Err(Failure::Prepare(error)),
            Err(_) => Err(Failure::TimedOut(self.limits.prepare)),
        };
        self.flights().remove(&key);
        // Nobody may be waiting any more.
        let _ = landing.send(Some(outcome));
    }

    /// Asks a single node for the statement's bind markers.
    async fn describe(self: &Arc<Self>, text: &Arc<str>, ledger: &Arc<Ledger>) -> Result<Prepared, Error> {
        let mut statement = leaf::once(text, self.limits.driver);
        statement.set_history_listener(leaf::listener(ledger));
        let columns = CaptureColumns::default();
        let outcome = self.session.query_single_page(statement, &columns, PagingState::start()).await;
        match (columns.take(), outcome) {
            (Some(columns), _) => Ok(Prepared::new(&self.session, Arc::clone(text), Err(columns))),
            (None, Err(error)) => Err(Error::undescribed(error)),
            (None, Ok(_)) => Err(Error::unconnected("the driver sent a statement without its values")),
        }
    }

    // A panic while the lock is held leaves a map that is whole.
    fn flights(&self) -> MutexGuard<'_, HashMap<Key, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Statements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statements").field("kept", &self.cache.len()).finish_non_exhaustive()
    }
}
