//! Which keyspaces is a request about?

use std::borrow::Cow;

use scylla::statement::batch::BatchStatement;
use smallvec::{SmallVec, smallvec};

use super::{Kind, Operation, Request};
use crate::cql;

/// Each once; `None` is that of the session.
pub(crate) type Keyspaces<'a> = SmallVec<[Option<Cow<'a, str>>; 2]>;

impl Request {
    /// The keyspaces of its tables. Those of a batch over several are looked for in its members, which takes a while.
    pub(crate) fn keyspaces(&self) -> Keyspaces<'_> {
        if let Some(keyspace) = self.keyspace() {
            return smallvec![Some(Cow::Borrowed(keyspace))];
        }
        match &self.operation {
            Operation::Batch { batch, .. } => {
                let mut keyspaces = Keyspaces::new();
                batch.statements.iter().for_each(|member| of_member(member, &mut keyspaces));
                keyspaces
            }
            Operation::Text { text, .. } if self.may_have_members() => of_text(text),
            Operation::Bound { bound, .. } if self.may_have_members() => {
                of_text(bound.prepared().get_statement())
            }
            _ => smallvec![None],
        }
    }

    const fn may_have_members(&self) -> bool {
        matches!(self.kind, Kind::Batch | Kind::Transaction)
    }
}

fn of_member<'a>(member: &'a BatchStatement, keyspaces: &mut Keyspaces<'a>) {
    let (table, text) = match member {
        BatchStatement::PreparedStatement(prepared) => (prepared.get_table_spec(), prepared.get_statement()),
        BatchStatement::Query(statement) => (None, &*statement.contents),
        // What the driver may know one day: nothing is known of it here.
        _ => return,
    };
    match table {
        Some(table) => add(Some(Cow::Borrowed(table.ks_name())), keyspaces),
        None => of_text(text).into_iter().for_each(|keyspace| add(keyspace, keyspaces)),
    }
}

fn of_text<'a>(text: &str) -> Keyspaces<'a> {
    let mut keyspaces = Keyspaces::new();
    for member in cql::members(text) {
        add(member.keyspace.map(Cow::Owned), &mut keyspaces);
    }
    keyspaces
}

fn add<'a>(keyspace: Option<Cow<'a, str>>, keyspaces: &mut Keyspaces<'a>) {
    if !keyspaces.contains(&keyspace) {
        keyspaces.push(keyspace);
    }
}

#[cfg(test)]
mod tests {
    use scylla::statement::{batch::BatchType, unprepared::Statement};

    use super::*;
    use crate::telemetry::OperationName;

    fn told(request: &Request) -> Vec<String> {
        let or_session =
            |keyspace: Option<Cow<'_, str>>| keyspace.map_or("session".to_owned(), Cow::into_owned);
        request.keyspaces().into_iter().map(or_session).collect()
    }

    #[test]
    fn a_batch_is_about_the_keyspaces_of_all_its_members() {
        let text = |text: &str| told(&Request::text(text));
        assert_eq!(text("SELECT v FROM a.t"), ["a"]);
        assert_eq!(text("SELECT v FROM t"), ["session"]);
        assert_eq!(text("CREATE ROLE r"), ["session"]);
        assert_eq!(text("BEGIN BATCH INSERT INTO a.t (k) VALUES (1) APPLY BATCH"), ["a"]);
        let several = "BEGIN BATCH INSERT INTO a.t (k) VALUES (1); UPDATE \"B\".t SET v = 1 WHERE k = 1; \
                       DELETE FROM t WHERE k = 1; DELETE FROM a.u WHERE k = 2 APPLY BATCH";
        assert_eq!(text(several), ["a", "B", "session"]);

        let members = [
            "INSERT INTO a.t (k) VALUES (1)",
            "DELETE FROM t WHERE k = 1",
            "DELETE FROM \"B\".t WHERE k = 1",
        ];
        let statements = members.map(|member| BatchStatement::Query(Statement::new(member)));
        let batch =
            scylla::statement::batch::Batch::new_with_statements(BatchType::Logged, statements.into());
        let operation = Operation::Batch { batch: batch.into(), rows: [].into() };
        assert_eq!(
            told(&Request::new(operation, Kind::Batch, OperationName::of_batch([]))),
            ["a", "session", "B"]
        );
    }
}
