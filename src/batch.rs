//! Several writes in one request.

use std::{fmt, time::Duration};

use palisade::Priority;
use scylla::{
    serialize::row::SerializeRow,
    statement::{Consistency, SerialConsistency, batch::BatchType},
};

use crate::{
    request::{Options, option_methods},
    statement::Statement,
};

/// Several writes in one request.
///
/// A batch is as idempotent as its members: one counter update, and it is never repeated after an unknown effect.
///
/// ```no_run
/// use tower_cassandra::{Batch, Cassandra, Client};
///
/// # async fn example(client: Client<Cassandra>) -> Result<(), tower_cassandra::Error> {
/// let batch = Batch::logged()
///     .with("INSERT INTO app.users (id, name) VALUES (?, ?)", (1_i64, "ada"))
///     .with("INSERT INTO app.names (name, id) VALUES (?, ?)", ("ada", 1_i64));
/// client.batch(batch).await?;
/// # Ok(())
/// # }
/// ```
pub struct Batch<'a> {
    pub(crate) kind: BatchType,
    pub(crate) members: Vec<Member<'a>>,
    pub(crate) options: Options,
    pub(crate) idempotent: Option<bool>,
}

pub(crate) struct Member<'a> {
    pub(crate) statement: Statement<'a>,
    pub(crate) values: Box<dyn SerializeRow + Send + Sync + 'a>,
}

impl<'a> Batch<'a> {
    /// All members are applied in the end, or none: the coordinator keeps a log. Use it to keep tables in step.
    pub fn logged() -> Self {
        Self::of(BatchType::Logged)
    }

    /// Without a log, for members of one partition.
    pub fn unlogged() -> Self {
        Self::of(BatchType::Unlogged)
    }

    /// For counter updates; nothing else may be in it.
    pub fn counter() -> Self {
        Self::of(BatchType::Counter)
    }

    fn of(kind: BatchType) -> Self {
        Self { kind, members: Vec::new(), options: Options::default(), idempotent: None }
    }

    /// Adds a statement with its values. Options that are set on the statement itself do not count: they are the
    /// batch's.
    pub fn with(
        mut self,
        statement: impl Into<Statement<'a>>,
        values: impl SerializeRow + Send + Sync + 'a,
    ) -> Self {
        self.push(statement, values);
        self
    }

    /// As [`with`](Self::with), for a loop.
    pub fn push(
        &mut self,
        statement: impl Into<Statement<'a>>,
        values: impl SerializeRow + Send + Sync + 'a,
    ) {
        self.members.push(Member { statement: statement.into(), values: Box::new(values) });
    }

    /// How many statements are in it.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether no statement is in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    option_methods!();

    /// Says whether the batch may be applied twice, where its members do not say or say otherwise.
    ///
    /// `true` for a batch with a member that provably may not is refused when it is executed.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = Some(idempotent);
        self
    }
}

/// Values are left out: they may be secret.
impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.members.iter().map(|member| member.statement.text()).collect();
        f.debug_struct("Batch").field("kind", &self.kind).field("members", &texts).finish_non_exhaustive()
    }
}
