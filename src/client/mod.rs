//! What people call.

mod bind;
mod boxed;

use std::{
    fmt,
    future::poll_fn,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use palisade::{Instant, Rejection, TimeoutScope};
use scylla::{response::PagingState, serialize::row::SerializeRow};
use tokio::time::timeout;
use tower::{Service, ServiceExt};
use tracing::{Instrument, Span, field};

pub use self::boxed::{BoxStack, BoxStackFuture};
use crate::{
    batch::Batch,
    error::{Error, ErrorKind},
    ledger::Ledger,
    prepared::{Prepared, Statements},
    request::{Options, Request},
    response::Response,
    statement::Statement,
};

/// Statements in, rows out: a stack of layers over [`Cassandra`](crate::Cassandra), with the methods that a caller
/// wants.
///
/// It takes any stack whose requests are [`Request`]s, whatever its layers and whether its error is [`Error`] or a
/// box. Every operation passes the stack: single statements, batches, preparations, pages. Clones are as cheap as
/// the stack's, and share the prepared statements.
///
/// ```no_run
/// use std::time::Duration;
/// use tower::ServiceBuilder;
/// use tower_cassandra::{Cassandra, Client, Timeouts, layers::*};
///
/// # async fn example() -> Result<(), tower_cassandra::Error> {
/// let cassandra = Cassandra::connect("127.0.0.1:9042").await?;
/// let client = Client::new(
///     ServiceBuilder::new()
///         .layer(DeadlineLayer::new(Timeouts::total(Duration::from_secs(2))))
///         .layer(RetryLayer::default())
///         .layer(TimeoutLayer::new(Timeouts::attempt(Duration::from_millis(300))))
///         .service(cassandra),
/// );
/// let users = client.execute("SELECT name FROM app.users WHERE id = ?", (7_i64,)).await?;
/// let (name,): (String,) = users.single_row()?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// All methods return [`Error`], with the attempts of the request attached.
///
/// # Cancellation
///
/// Dropping the future of a call abandons the attempt that is under way; a write that was sent may still take
/// effect.
#[derive(Clone)]
pub struct Client<S> {
    stack: S,
    shared: Arc<Shared>,
}

/// A client that does not name its layers in its type.
pub type BoxClient = Client<BoxStack>;

struct Shared {
    // The session's prepared statements, known since the first one was prepared.
    statements: OnceLock<Arc<Statements>>,
    timestamps: bool,
    read_keys: bool,
}

impl<S> Client<S> {
    /// A client of this stack.
    pub fn new(stack: S) -> Self {
        Self {
            stack,
            shared: Arc::new(Shared { statements: OnceLock::new(), timestamps: true, read_keys: false }),
        }
    }

    /// Sets whether a write that may be repeated gets its timestamp here. Default `true`.
    ///
    /// With `true` all attempts of a write carry one timestamp, so that a late repeat cannot undo what came after
    /// the first attempt. But the clock of this machine then decides which write wins, not that of the
    /// coordinators: keep it in step with them. Reads, counters and lightweight transactions never get one.
    pub fn client_timestamps(self, on: bool) -> Self {
        let (statements, read_keys) = (self.shared.statements.clone(), self.shared.read_keys);
        Self { shared: Arc::new(Shared { statements, timestamps: on, read_keys }), ..self }
    }

    /// Sets whether a read gets a [`Request::read_key`], by which a [`CoalesceLayer`](palisade::CoalesceLayer) in the stack can let
    /// reads of the same share an answer. Default `false`: it costs a second copy of the values. A read may then not see what was
    /// written just before it, not even by the same caller: where that matters, use a client without.
    ///
    /// ```no_run
    /// use tower::ServiceBuilder;
    /// use tower_cassandra::{Cassandra, Client, Request, layers::{CoalesceLayer, RetryLayer}};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let stack = ServiceBuilder::new()
    ///     .layer(CoalesceLayer::builder(Request::read_key).deadline_aware().build()?)
    ///     .layer(RetryLayer::default())
    ///     .service(Cassandra::connect("127.0.0.1:9042").await?);
    /// let client = Client::new(stack).read_keys(true);
    /// # let _ = client;
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_keys(self, on: bool) -> Self {
        let (statements, timestamps) = (self.shared.statements.clone(), self.shared.timestamps);
        Self { shared: Arc::new(Shared { statements, timestamps, read_keys: on }), ..self }
    }

    /// The stack below.
    pub fn stack(&self) -> &S {
        &self.stack
    }
}

impl<S> Client<S>
where
    S: Service<Request, Response = Response> + Clone,
    S::Error: Into<Error>,
{
    /// Executes a statement with values, and reads its result to the end.
    ///
    /// The text is prepared at the first call, once for all callers, and kept. `()` stands for no values. A
    /// result of more than 100 pages of 5,000 rows is refused: see [`Statement::max_pages`] and
    /// [`execute_page`](Self::execute_page).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Values`] if the values do not fit, [`ErrorKind::NotIdempotent`] if the statement is called
    /// idempotent and is not; nothing is sent then. [`ErrorKind::TooManyPages`] if there are more pages than
    /// allowed. Else what the stack returns.
    pub async fn execute(
        &self,
        statement: impl Into<Statement<'_>>,
        values: impl SerializeRow,
    ) -> Result<Response, Error> {
        let statement = statement.into();
        let call = Call::begin("execute", &statement.options);
        let pages = Pages::All { most: statement.max_pages };
        call.end(run!(call, self.bound_and_sent(&statement, &values, &pages, &call.ledger)))
    }

    /// Executes a statement with values, and reads one page of its result.
    ///
    /// `page` is `None` for the first page, and [`Response::next_page`] for those that follow. It can be kept, and
    /// be resumed by another process. Hand it out signed only, or page by a key: one that somebody has made up is an error of the server
    /// (Cassandra 5.0 fails inside), which is repeated, and counts for circuits as if the node were sick.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute), without a limit on pages.
    pub async fn execute_page(
        &self,
        statement: impl Into<Statement<'_>>,
        values: impl SerializeRow,
        page: Option<PagingState>,
    ) -> Result<Response, Error> {
        let statement = statement.into();
        let call = Call::begin("execute_page", &statement.options);
        let pages = Pages::One { from: page };
        call.end(run!(call, self.bound_and_sent(&statement, &values, &pages, &call.ledger)))
    }

    /// Executes a statement as it is, without values and without preparing it: for schema changes and the like.
    ///
    /// A schema change is followed by a wait until all nodes know it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SchemaAgreement`] if the schema was changed, but the nodes did not agree on it in time. Else
    /// what the stack returns.
    pub async fn query(&self, statement: impl Into<Statement<'_>>) -> Result<Response, Error> {
        let statement = statement.into();
        let call = Call::begin("query", &statement.options);
        let work = async {
            let request = self.unprepared(&statement, &call.ledger)?;
            let first = self.send(request.clone()).await?;
            self.remaining_pages(request, first, statement.max_pages).await
        };
        call.end(call.run(work).await)
    }

    /// Executes several writes in one request.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Values`] if the values do not fit or there are no members, [`ErrorKind::NotIdempotent`] if the
    /// batch is called idempotent and is not; nothing is sent then. Else what the stack returns.
    pub async fn batch(&self, batch: Batch<'_>) -> Result<Response, Error> {
        let call = Call::begin("batch", &batch.options);
        let work = async {
            let request = self.bind_batch(&batch, &call.ledger).await?;
            match self.send(request).await {
                Err(error) if error.is_stale_statement() => {
                    batch.members.iter().for_each(|member| self.forget(member.statement.text()));
                    self.send(self.bind_batch(&batch, &call.ledger).await?).await
                }
                outcome => outcome,
            }
        };
        call.end(call.run(work).await)
    }

    /// Prepares a statement, once for all callers, and keeps it.
    ///
    /// Calling it is never needed: [`execute`](Self::execute) does it. It is a way to find a mistake in a text
    /// early, and to prepare before the traffic comes.
    ///
    /// # Errors
    ///
    /// What the stack returns.
    pub async fn prepare(&self, text: &str) -> Result<Prepared, Error> {
        let call = Call::begin("prepare", &Options::default());
        let work = async { self.prepared(text, Options::default(), &call.ledger).await };
        call.end(call.run(work).await)
    }

    /// A client of the same stack that does not name its layers in its type.
    pub fn boxed(self) -> BoxClient
    where
        S: Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        Client { stack: BoxStack::new(self.stack), shared: self.shared }
    }

    /// Makes a request of a statement and its values, and sends it.
    async fn bound_and_sent(
        &self,
        statement: &Statement<'_>,
        values: &impl SerializeRow,
        pages: &Pages,
        ledger: &Arc<Ledger>,
    ) -> Result<Response, Error> {
        let outcome = match self.bind(statement, values, ledger).await {
            // Written out, since each function on the way would copy the future once more.
            Ok(request) => {
                let request = pages.begin(request);
                let mut stack = self.stack.clone();
                let first = match poll_fn(|cx| stack.poll_ready(cx)).await {
                    Ok(()) => stack.call(request.clone()).await,
                    Err(error) => Err(error),
                };
                match (first.map_err(Into::into), pages) {
                    (Ok(response), Pages::All { most }) if response.next_page().is_some() => {
                        Box::pin(self.remaining_pages(request, response, *most)).await
                    }
                    (first, _) => first,
                }
            }
            Err(error) => Err(error),
        };
        match outcome {
            // The server knows the statement by another id since its schema changed, or its bind markers may have
            // other types since: once more, anew.
            Err(error) if error.is_stale_statement() || self.is_outdated(statement, &error) => {
                self.forget(statement.text());
                let statement = statement.anew();
                let again = async {
                    let request = pages.begin(self.bind(&statement, values, ledger).await?);
                    let first = self.send(request.clone()).await?;
                    match pages {
                        Pages::All { most } => self.remaining_pages(request, first, *most).await,
                        Pages::One { .. } => Ok(first),
                    }
                };
                // Rare, and large: boxed, so that the usual path stays small.
                Box::pin(again).await
            }
            outcome => outcome,
        }
    }

    async fn send(&self, request: Request) -> Result<Response, Error> {
        self.stack.clone().oneshot(request).await.map_err(Into::into)
    }

    /// Reads on until there are no more pages, or more than allowed.
    async fn remaining_pages(
        &self,
        request: Request,
        mut response: Response,
        most: usize,
    ) -> Result<Response, Error> {
        let mut pages = 1;
        while let Some(next) = response.next_page().cloned() {
            if pages >= most {
                let message = format!(
                    "the result has more than {most} pages: read it page by page with `execute_page`, narrow the \
                     statement, or raise `max_pages`"
                );
                return Err(Error::answer(ErrorKind::TooManyPages, message));
            }
            response.append(self.send(request.next_page(next)).await?);
            pages += 1;
        }
        Ok(response)
    }
}

impl<S: fmt::Debug> fmt::Debug for Client<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("stack", &self.stack).finish_non_exhaustive()
    }
}

/// What is wanted of a result.
enum Pages {
    All { most: usize },
    One { from: Option<PagingState> },
}

impl Pages {
    fn begin(&self, request: Request) -> Request {
        match self {
            Self::One { from: Some(page) } => request.with_page(page.clone()),
            _ => request,
        }
    }
}

/// Does the work of a call. Nearly always nobody watches, and it is awaited where it is made: to hand it on would copy it.
macro_rules! run {
    ($call:ident, $work:expr) => {
        if $call.is_plain() { $work.await } else { $call.run($work).await }
    };
}
use run;

/// One logical request: its ledger, its span, and how long it may take if the caller said so.
struct Call {
    ledger: Arc<Ledger>,
    span: Span,
    limit: Option<Duration>,
}

impl Call {
    fn begin(operation: &'static str, options: &Options) -> Self {
        let ledger = Arc::new(Ledger::default());
        if let Some(timeout) = options.timeout {
            ledger.fix_deadline(Instant::now() + timeout);
        }
        let span = tracing::debug_span!(
            "cassandra",
            operation,
            attempts = field::Empty,
            cassandra.failover.datacenter = field::Empty,
            error = field::Empty,
        );
        Self { ledger, span, limit: options.timeout }
    }

    /// Whether nobody traces the call, and it has no limit of its own.
    fn is_plain(&self) -> bool {
        self.span.is_disabled() && self.limit.is_none()
    }

    /// Does the work of the call, within its limit whatever the layers do.
    async fn run<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut work = pin!(work.instrument(self.span.clone()));
        let Some(limit) = self.limit else {
            return work.await;
        };
        match timeout(limit, work.as_mut()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Rejection::timed_out(TimeoutScope::Total, limit).into()),
        }
    }

    fn end<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        if !self.span.is_disabled() {
            self.span.record("attempts", field::display(&self.ledger));
            if let Err(error) = &outcome {
                self.span.record("error", error.kind().as_str());
            }
        }
        outcome.map_err(|error| error.with_attempts(&self.ledger))
    }
}
