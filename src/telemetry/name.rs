//! What an operation is called.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use scylla::frame::response::result::TableSpec;

use super::{book::BookId, series::Series};
use crate::{
    cql::Subject,
    idempotence::{Analysis, Verb},
};

/// What an operation is called, for metrics and spans: its verb, its table, and both in a few words.
///
/// A prepared statement has one for all its requests, so that a request costs no look at the text.
///
/// ```
/// use tower_cassandra::Request;
///
/// let request = Request::text("SELECT name FROM app.users WHERE id = 7");
/// let operation = request.operation();
/// assert_eq!((operation.name(), operation.keyspace(), operation.table()), ("SELECT", Some("app"), Some("users")));
/// assert_eq!(operation.summary(), "SELECT app.users");
/// ```
pub struct OperationName {
    subject: Subject,
    summary: Box<str>,
    // Those of the first layer that asked.
    series: OnceLock<(BookId, Arc<Series>)>,
}

impl OperationName {
    /// The verb: `SELECT`, `INSERT`, `UPDATE`, `DELETE`, `TRUNCATE`, `PREPARE`, `CREATE TABLE` and the like, `BATCH`, or
    /// `BATCH INSERT` where all members of a batch are such. `_OTHER` for what is not known here.
    pub fn name(&self) -> &'static str {
        self.subject.name
    }

    /// The keyspace of the table, as the server knows it. `None` where the text does not name it and the session has
    /// none, or nobody asked it.
    pub fn keyspace(&self) -> Option<&str> {
        self.subject.keyspace.as_deref()
    }

    /// The table, as the server knows it. `None` where there is none, or more than one.
    pub fn table(&self) -> Option<&str> {
        self.subject.table.as_deref()
    }

    /// The verb and what it is about: `SELECT app.users`, `BATCH`. It takes few values, whatever values the statement has.
    pub fn summary(&self) -> &str {
        &self.summary
    }

    fn new(subject: Subject) -> Arc<Self> {
        let about = match (&subject.keyspace, &subject.table) {
            (Some(keyspace), Some(table)) => format!(" {keyspace}.{table}"),
            (None, Some(table)) => format!(" {table}"),
            // What several members or a text to prepare have in common is not what they are about.
            (Some(keyspace), None) if !subject.name.starts_with("BATCH") && subject.name != PREPARE => {
                format!(" {keyspace}")
            }
            _ => String::new(),
        };
        let summary = format!("{}{about}", subject.name).into();
        Arc::new(Self { subject, summary, series: OnceLock::new() })
    }

    /// A statement by its text, in the keyspace of its session.
    pub(crate) fn of_text(statement: &Analysis, keyspace: Option<&str>) -> Arc<Self> {
        Self::new(statement.subject().clone().in_keyspace(keyspace))
    }

    /// A statement of which the server has told the table.
    pub(crate) fn of_prepared(
        statement: &Analysis,
        table: Option<&TableSpec<'_>>,
        keyspace: Option<&str>,
    ) -> Arc<Self> {
        let subject = statement.subject();
        match table {
            // The members of a batch may be about several.
            Some(table) if statement.verb() != Verb::Batch => Self::new(Subject {
                keyspace: Some(table.ks_name().to_owned()),
                table: Some(table.table_name().to_owned()),
                name: subject.name,
            }),
            _ => Self::of_text(statement, keyspace),
        }
    }

    /// The preparation of a statement.
    pub(crate) fn of_preparation(statement: &Analysis, keyspace: Option<&str>) -> Arc<Self> {
        Self::new(Subject { name: PREPARE, ..statement.subject().clone() }.in_keyspace(keyspace))
    }

    /// A batch by its members.
    pub(crate) fn of_batch<'a>(members: impl IntoIterator<Item = &'a Self>) -> Arc<Self> {
        Self::new(Subject::of_batch(members.into_iter().map(|member| &member.subject)))
    }

    pub(super) fn subject(&self) -> &Subject {
        &self.subject
    }

    pub(super) fn series(&self) -> &OnceLock<(BookId, Arc<Series>)> {
        &self.series
    }
}

const PREPARE: &str = "PREPARE";

impl fmt::Display for OperationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)
    }
}

impl fmt::Debug for OperationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OperationName").field(&self.summary).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idempotence::analyze;

    fn summary(cql: &str) -> String {
        OperationName::of_text(&analyze(cql), Some("mine")).to_string()
    }

    #[test]
    fn a_summary_tells_the_verb_and_what_it_is_about() {
        for (cql, expected) in [
            ("SELECT * FROM app.users WHERE k = ?", "SELECT app.users"),
            ("INSERT INTO Users (k) VALUES (?)", "INSERT mine.users"),
            ("CREATE KEYSPACE app WITH x = 1", "CREATE KEYSPACE app"),
            ("CREATE TABLE t (k int PRIMARY KEY)", "CREATE TABLE mine.t"),
            ("CREATE ROLE r", "CREATE ROLE"),
            ("USE app", "USE app"),
            (
                "BEGIN BATCH DELETE FROM a.t WHERE k = 1; DELETE FROM a.u WHERE k = 1 APPLY BATCH",
                "BATCH DELETE",
            ),
            ("what?", "_OTHER"),
        ] {
            assert_eq!(summary(cql), expected, "{cql}");
        }
        let prepare = |cql| OperationName::of_preparation(&analyze(cql), None).to_string();
        assert_eq!(prepare("SELECT * FROM app.users"), "PREPARE app.users");
        assert_eq!(prepare("USE app"), "PREPARE");
    }

    #[test]
    fn what_the_server_says_of_a_statement_outweighs_its_text() {
        let spec = TableSpec::borrowed("App", "Users");
        let select = analyze("SELECT * FROM \"Users\" WHERE k = ?");
        let told = OperationName::of_prepared(&select, Some(&spec), Some("mine"));
        assert_eq!((told.keyspace(), told.table()), (Some("App"), Some("Users")));
        assert_eq!(OperationName::of_prepared(&select, None, Some("mine")).summary(), "SELECT mine.Users");

        let batch = "BEGIN BATCH DELETE FROM a WHERE k = ?; DELETE FROM b WHERE k = ? APPLY BATCH";
        let told = OperationName::of_prepared(&analyze(batch), Some(&spec), Some("mine"));
        assert_eq!((told.summary(), told.table()), ("BATCH DELETE", None));
    }

    #[test]
    fn a_batch_is_called_by_what_its_members_have_in_common() {
        let member = |cql: &str| OperationName::of_text(&analyze(cql), None);
        let insert = member("INSERT INTO app.a (k) VALUES (?)");
        let other = member("INSERT INTO app.b (k) VALUES (?)");
        let delete = member("DELETE FROM app.a WHERE k = ?");
        let batch = |members: &[&Arc<OperationName>]| {
            let batch = OperationName::of_batch(members.iter().map(|member| &***member));
            (batch.summary().to_owned(), batch.keyspace().map(str::to_owned))
        };
        let app = || Some("app".to_owned());
        assert_eq!(batch(&[&insert, &insert]), ("BATCH INSERT app.a".to_owned(), app()));
        assert_eq!(batch(&[&insert, &delete]), ("BATCH app.a".to_owned(), app()));
        assert_eq!(batch(&[&insert, &other]), ("BATCH INSERT".to_owned(), app()));
        assert_eq!(batch(&[&insert, &other, &delete]), ("BATCH".to_owned(), app()));
        assert_eq!(batch(&[]), ("BATCH".to_owned(), None));
    }
}
