//! How a caller's statement becomes a request.

use std::{collections::HashMap, sync::Arc};

use palisade::Idempotence;
use scylla::{
    response::PagingState,
    serialize::row::SerializeRow,
    statement::{
        Statement as DriverStatement,
        batch::{Batch as DriverBatch, BatchStatement, BatchType},
    },
};
use tower::Service;

use super::Client;
use crate::{
    batch::Batch,
    error::{Error, ErrorKind},
    idempotence::{self, Verdict},
    ledger::Ledger,
    prepared::Prepared,
    request::{Kind, Operation, Options, Request, Row},
    response::Response,
    statement::{Source, Statement},
    telemetry::OperationName,
    timestamp,
};

impl<S> Client<S>
where
    S: Service<Request, Response = Response> + Clone,
    S::Error: Into<Error>,
{
    /// A statement with values as a request, prepared where that is of use.
    pub(super) async fn bind(
        &self,
        statement: &Statement<'_>,
        values: &impl SerializeRow,
        ledger: &Arc<Ledger>,
    ) -> Result<Request, Error> {
        let kept = match &statement.source {
            // What is not worth preparing, such as a schema change, has steps that only a text takes.
            Source::Prepared(prepared) if !prepared.kind().is_preparable() => None,
            Source::Prepared(prepared) if prepared.statement().is_some() => Some(prepared.clone()),
            Source::Prepared(_) | Source::Text(_) => self.kept(statement.text()),
        };
        let is_first = kept.is_some();
        let prepared = if let Some(prepared) = kept {
            prepared
        } else {
            let kind = Kind::of(&idempotence::analyze(statement.text()));
            if !kind.is_preparable() {
                if !values.is_empty() {
                    let message =
                        format!("a statement of kind {kind} takes no values: write them into its text");
                    return Err(Error::caller(ErrorKind::Values, message));
                }
                return self.unprepared(statement, ledger);
            }
            // Rare, and large: boxed, so that the usual path stays small.
            Box::pin(self.prepare_step(statement.text(), statement.options, ledger, true)).await?
        };
        let idempotence = idempotence::resolve(statement.idempotent, prepared.verdict())?;
        let operation = match prepared.statement() {
            Some(statement) => Operation::Bound {
                bound: Arc::new(statement.clone().bind(values)?),
                page: (!prepared.is_single_row()).then(PagingState::start),
            },
            None => Operation::Text {
                text: prepared.shared_text(),
                row: Some(Arc::new(Row::new(prepared.columns(), values)?)),
                page: PagingState::start(),
            },
        };
        let options = self.stamped(statement.options, prepared.kind(), idempotence, prepared.verdict());
        let mut request = Request::new(operation, prepared.kind(), Arc::clone(prepared.name()))
            .with_idempotence(idempotence)
            .with_options(options)
            .into_step_of(ledger, is_first);
        if self.shared.read_keys && prepared.kind() == Kind::Read {
            // The driver's statement does not show the values that are bound to it.
            let row = Row::new(prepared.columns(), values)?;
            request = request.with_read_of(prepared.shared_text(), row);
        }
        Ok(self.settled(request))
    }

    /// A statement without values as a request, as it is.
    pub(super) fn unprepared(
        &self,
        statement: &Statement<'_>,
        ledger: &Arc<Ledger>,
    ) -> Result<Request, Error> {
        let analysis = idempotence::analyze(statement.text());
        let verdict = analysis.verdict();
        let keyspace = self.keyspace();
        let keyspace = keyspace.as_ref().map(|keyspace| keyspace.as_str());
        let request = Request::of_text(statement.text().into(), &analysis, keyspace);
        let idempotence = idempotence::resolve(statement.idempotent, verdict)?;
        let options = self.stamped(statement.options, request.kind(), idempotence, verdict);
        Ok(request.with_idempotence(idempotence).with_options(options).into_step_of(ledger, true))
    }

    /// A batch as a request, with all its members prepared.
    pub(super) async fn bind_batch(&self, batch: &Batch<'_>, ledger: &Arc<Ledger>) -> Result<Request, Error> {
        if batch.is_empty() {
            return Err(Error::caller(ErrorKind::Values, "the batch is empty: add a statement to it"));
        }
        let mut is_first = true;
        let mut known: HashMap<&str, Prepared> = HashMap::new();
        let mut statements = Vec::with_capacity(batch.len());
        let mut rows = Vec::with_capacity(batch.len());
        for member in &batch.members {
            let text = member.statement.text();
            let kept = known.get(text).cloned().or_else(|| self.kept(text));
            let prepared = if let Some(prepared) = kept {
                prepared
            } else {
                let step = self.prepare_step(text, batch.options, ledger, is_first).await?;
                is_first = false;
                step
            };
            rows.push(Row::new(prepared.columns(), &member.values)?);
            statements.push(match prepared.statement() {
                Some(statement) => BatchStatement::PreparedStatement(statement.clone()),
                None => BatchStatement::Query(DriverStatement::new(text)),
            });
            known.insert(text, prepared);
        }
        let verdict = idempotence::batch(
            batch.kind == BatchType::Counter,
            batch
                .members
                .iter()
                .filter_map(|member| known.get(member.statement.text()))
                .map(Prepared::verdict),
        );
        let idempotence = idempotence::resolve(batch.idempotent, verdict)?;
        let operation = Operation::Batch {
            batch: Arc::new(DriverBatch::new_with_statements(batch.kind, statements)),
            rows: rows.into(),
        };
        let is_transaction = known.values().any(|prepared| prepared.kind() == Kind::Transaction);
        let kind = if is_transaction { Kind::Transaction } else { Kind::Batch };
        let members = batch.members.iter().filter_map(|member| known.get(member.statement.text()));
        let name = OperationName::of_batch(members.map(Prepared::operation));
        let request = Request::new(operation, kind, name)
            .with_idempotence(idempotence)
            .with_options(self.stamped(batch.options, kind, idempotence, verdict))
            .into_step_of(ledger, is_first);
        Ok(self.settled(request))
    }

    /// Does now, once, what the leaf would do at each attempt.
    fn settled(&self, mut request: Request) -> Request {
        if let Some(statements) = self.shared.statements.get() {
            request.settle(statements.limits());
        }
        request
    }

    /// The statement, prepared now by way of the stack.
    pub(super) async fn prepared(
        &self,
        text: &str,
        options: Options,
        ledger: &Arc<Ledger>,
    ) -> Result<Prepared, Error> {
        match self.kept(text) {
            Some(prepared) => Ok(prepared),
            None => self.prepare_step(text, options, ledger, true).await,
        }
    }

    async fn prepare_step(
        &self,
        text: &str,
        options: Options,
        ledger: &Arc<Ledger>,
        is_first: bool,
    ) -> Result<Prepared, Error> {
        let options = Options { timeout: options.timeout, priority: options.priority, ..Options::default() };
        let keyspace = self.keyspace();
        let keyspace = keyspace.as_ref().map(|keyspace| keyspace.as_str());
        let request = Request::of_preparation(text.into(), keyspace)
            .with_options(options)
            .into_step_of(ledger, is_first);
        let (prepared, kept_among) = self.send(request).await?.into_prepared().ok_or_else(|| {
            Error::answer(ErrorKind::Protocol, "the stack answered a request to prepare with something else")
        })?;
        let _ = self.shared.statements.set(kept_among);
        Ok(prepared)
    }

    /// The session's keyspace, where anything has told it yet.
    fn keyspace(&self) -> Option<Arc<String>> {
        self.shared.statements.get()?.keyspace()
    }

    fn kept(&self, text: &str) -> Option<Prepared> {
        self.shared.statements.get()?.get(text)
    }

    /// Whether values may not fit because the statement was prepared before somebody changed the schema.
    pub(super) fn is_outdated(&self, statement: &Statement<'_>, error: &Error) -> bool {
        let prepared = || match &statement.source {
            Source::Prepared(prepared) => Some(prepared.clone()),
            Source::Text(text) => self.kept(text),
        };
        error.kind() == ErrorKind::Values && prepared().is_some_and(|prepared| prepared.may_be_outdated())
    }

    pub(super) fn forget(&self, text: &str) {
        if let Some(statements) = self.shared.statements.get() {
            statements.forget(text);
        }
    }

    /// Gives a write that may be repeated its timestamp.
    fn stamped(
        &self,
        mut options: Options,
        kind: Kind,
        idempotence: Idempotence,
        verdict: Verdict,
    ) -> Options {
        if self.shared.timestamps && options.timestamp.is_none() {
            options.timestamp = timestamp::of_write(kind, idempotence, verdict);
        }
        options
    }
}
