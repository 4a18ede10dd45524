use std::fmt;

use crate::idempotence::{Analysis, Verb};

/// What a statement does, as far as time limits and metrics care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// `SELECT`.
    Read,
    /// `INSERT`, `UPDATE` or `DELETE` without a condition.
    Write,
    /// A write with a condition (`IF`): a lightweight transaction.
    Transaction,
    /// Several writes in one.
    Batch,
    /// `CREATE`, `ALTER`, `DROP`: followed by the nodes' agreement on the schema.
    Schema,
    /// `TRUNCATE`.
    Truncate,
    /// The preparation of a statement.
    Prepare,
    /// Anything else: `USE`, roles, permissions.
    Other,
}

impl Kind {
    pub(crate) fn of(statement: &Analysis) -> Self {
        match statement.verb() {
            Verb::Select => Self::Read,
            _ if statement.is_lwt() => Self::Transaction,
            Verb::Insert | Verb::Update | Verb::Delete => Self::Write,
            Verb::Batch => Self::Batch,
            Verb::Schema => Self::Schema,
            Verb::Truncate => Self::Truncate,
            _ => Self::Other,
        }
    }

    /// Whether statements of this kind take values and gain by being prepared.
    pub(crate) const fn is_preparable(self) -> bool {
        matches!(self, Self::Read | Self::Write | Self::Transaction | Self::Batch)
    }

    /// The kind as a metric label or span field.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Transaction => "transaction",
            Self::Batch => "batch",
            Self::Schema => "schema",
            Self::Truncate => "truncate",
            Self::Prepare => "prepare",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
