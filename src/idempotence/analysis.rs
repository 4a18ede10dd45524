//! What the text of a statement tells by itself.

use palisade::Idempotence;

use super::{Reason, Verdict, write::write};
use crate::cql::{Subject, Token, subject, tokens};

/// What a statement begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verb {
    /// `SELECT`.
    Select,
    /// `INSERT`.
    Insert,
    /// `UPDATE`.
    Update,
    /// `DELETE`.
    Delete,
    /// `BEGIN BATCH`.
    Batch,
    /// `CREATE`, `ALTER` or `DROP` of anything but a role.
    Schema,
    /// `TRUNCATE`.
    Truncate,
    /// Anything else.
    Other,
}

/// What the text of a statement tells. See [`analyze`].
#[derive(Clone, Debug)]
pub struct Analysis {
    verb: Verb,
    pub(super) is_lwt: bool,
    may_name_several_keys: bool,
    settled: Verdict,
    pub(super) pending: Vec<Pending>,
    markers: usize,
    subject: Subject,
}

/// A bind marker whose type decides.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    /// Its place among the bind markers.
    pub(super) marker: usize,
    /// Its name, if it has one.
    pub(super) name: Option<String>,
    /// The column that the value becomes that of, where that is all that it is.
    pub(super) column: Option<String>,
    pub(super) usage: Use,
}

/// What a statement does with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It becomes the value of a column.
    Written,
    /// It is added to a column.
    Added,
    /// It is taken from a column.
    Removed,
    /// It names the element of a column that is set.
    SetElement,
    /// It names the element of a column that is deleted.
    DeletedElement,
}

impl Analysis {
    /// What the statement begins with.
    pub fn verb(&self) -> Verb {
        self.verb
    }

    /// Whether it is a lightweight transaction: a write with a condition (`IF`).
    pub fn is_lwt(&self) -> bool {
        self.is_lwt
    }

    /// Whether bind markers for a whole key may stand for more than one: in an `IN`, or where rows are filtered.
    pub(crate) fn may_name_several_keys(&self) -> bool {
        self.may_name_several_keys
    }

    /// How many bind markers it has.
    pub fn markers(&self) -> usize {
        self.markers
    }

    /// What it is called, and what it is about.
    pub(crate) fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Whether it may be applied twice, as far as the text alone tells.
    pub fn verdict(&self) -> Verdict {
        if self.pending.is_empty() {
            self.settled
        } else {
            self.settled.and(Verdict::because(Reason::UnknownColumn))
        }
    }

    /// Whether it may be applied twice, as far as the text alone tells.
    pub fn idempotence(&self) -> Idempotence {
        self.verdict().idempotence()
    }

    /// The verdict without what the types of the bind markers decide.
    pub(super) fn settled(&self) -> Verdict {
        self.settled
    }

    pub(super) fn pending(&self) -> &[Pending] {
        &self.pending
    }

    fn new(verb: Verb) -> Self {
        Self {
            verb,
            is_lwt: false,
            may_name_several_keys: true,
            settled: Verdict::default(),
            pending: Vec::new(),
            markers: 0,
            subject: Subject::default(),
        }
    }

    fn because(mut self, reason: Reason) -> Self {
        self.doubt(reason);
        self
    }

    pub(super) fn doubt(&mut self, reason: Reason) {
        self.settled = self.settled.and(Verdict::because(reason));
    }
}

/// Reads the text of a statement.
///
/// It understands what a server would accept. What it does not understand is of unknown idempotence; no text makes
/// it panic.
pub fn analyze(cql: &str) -> Analysis {
    let Some(tokens) = tokens(cql) else {
        return Analysis::new(Verb::Other).because(Reason::NotUnderstood);
    };
    let verb = verb(&tokens);
    let mut analysis = Analysis::new(verb);
    match verb {
        Verb::Select => {}
        Verb::Insert | Verb::Update | Verb::Delete => write(&tokens, 0, &mut analysis),
        Verb::Batch => batch(&tokens, &mut analysis),
        Verb::Schema | Verb::Truncate | Verb::Other => analysis.doubt(Reason::Administration),
    }
    analysis.may_name_several_keys = tokens.iter().any(|token| token.is_word("IN") || token.is_word("ALLOW"));
    analysis.markers = count_markers(&tokens);
    analysis.subject = subject(&tokens);
    analysis
}

fn verb(tokens: &[Token<'_>]) -> Verb {
    let Some(Token::Word(first)) = tokens.first() else {
        return Verb::Other;
    };
    let of_role = tokens.get(1).is_some_and(|second| second.is_word("ROLE") || second.is_word("USER"));
    match first.to_ascii_uppercase().as_str() {
        "SELECT" => Verb::Select,
        "INSERT" => Verb::Insert,
        "UPDATE" => Verb::Update,
        "DELETE" => Verb::Delete,
        "BEGIN" => Verb::Batch,
        "CREATE" | "ALTER" | "DROP" if !of_role => Verb::Schema,
        "TRUNCATE" => Verb::Truncate,
        _ => Verb::Other,
    }
}

pub(super) fn count_markers(tokens: &[Token<'_>]) -> usize {
    tokens.iter().filter(|token| matches!(token, Token::Marker(_))).count()
}

/// `BEGIN [UNLOGGED | COUNTER] BATCH [USING ..] statement [;] statement [;] .. APPLY BATCH`
fn batch(tokens: &[Token<'_>], analysis: &mut Analysis) {
    if tokens.get(1).is_some_and(|token| token.is_word("COUNTER")) {
        analysis.doubt(Reason::Counter);
    }
    let starts_member =
        |token: &Token<'_>| ["INSERT", "UPDATE", "DELETE", "APPLY"].iter().any(|verb| token.is_word(verb));
    let starts: Vec<_> = (0..tokens.len()).filter(|at| starts_member(&tokens[*at])).collect();
    let is_whole = starts.last().is_some_and(|last| tokens[*last].is_word("APPLY"));
    if !is_whole {
        analysis.doubt(Reason::NotUnderstood);
    }
    for pair in starts.windows(2) {
        write(&tokens[pair[0]..pair[1]], count_markers(&tokens[..pair[0]]), analysis);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reason(cql: &str) -> Option<Reason> {
        analyze(cql).verdict().reason()
    }

    #[test]
    fn reads_and_plain_writes_may_be_repeated() {
        for cql in [
            "SELECT * FROM t WHERE k = ?",
            "  select now() from system.local",
            "SELECT JSON * FROM t",
            "INSERT INTO t (k, v) VALUES (1, 'now()')",
            "insert into ks.t (k) values (a1b2c3d4-e5f6-4711-8888-0123456789ab) using ttl 5",
            "INSERT INTO t (k, v) VALUES (1, {'a': 1}) USING TIMESTAMP 5",
            "INSERT INTO t (k, d) VALUES (1, toDate('2026-01-01')) -- now()",
            "INSERT INTO values (values) VALUES (intAsBlob(1))",
            "INSERT INTO t (k, v) VALUES (1, system.blob_as_text(0x00))",
            "UPDATE t SET v = - 1, w = 1 + 2 WHERE k = 1",
            "UPDATE t SET v = 1, w = 'a' WHERE k = 1",
            "UPDATE t SET v = -1 WHERE k = 1",
            "UPDATE t USING TTL ? SET v = null WHERE k IN (1, 2)",
            "UPDATE t SET s = s + {1, 2}, m = m - {'a'}, n = {'a': 1} + n WHERE k = 1",
            "UPDATE t SET m['a'] = 1 WHERE k = 1",
            "UPDATE t SET address.street = 'x' WHERE k = 1",
            "DELETE FROM t WHERE k = ?",
            "DELETE v, m['a'] FROM t WHERE k = 1",
            "BEGIN BATCH INSERT INTO t (k) VALUES (1); DELETE FROM t WHERE k = ?; APPLY BATCH",
            "BEGIN UNLOGGED BATCH USING TIMESTAMP 1 UPDATE t SET v = 1 WHERE k = 1 APPLY BATCH;",
        ] {
            assert_eq!(reason(cql), None, "{cql}");
        }
    }

    #[test]
    fn what_is_proved_not_to_be_repeatable_has_its_reason() {
        for (cql, expected) in [
            ("UPDATE t SET c = c + 1 WHERE k = 1", Reason::Counter),
            ("UPDATE t SET c = c-1 WHERE k = 1", Reason::Counter),
            ("UPDATE t SET c += 1 WHERE k = 1", Reason::Counter),
            ("UPDATE t SET \"C\" = \"C\" - 1 WHERE k = 1", Reason::Counter),
            ("BEGIN COUNTER BATCH UPDATE t SET c = c + ? WHERE k = 1 APPLY BATCH", Reason::Counter),
            ("UPDATE t SET v = 1, c = c + 2 WHERE k = 1", Reason::Counter),
            ("UPDATE t SET Hits = hits + 1 WHERE k = 1", Reason::Counter),
            ("UPDATE t SET hits = HITS - 1 WHERE k = 1", Reason::Counter),
            ("UPDATE t SET \"c\" = C + 1 WHERE k = 1", Reason::Counter),
            ("UPDATE t SET v = 1, -- x\r c = c + 1\n WHERE k = 1", Reason::Counter),
            ("UPDATE t SET l = [-1] + l WHERE k = 1", Reason::ListAppend),
            ("UPDATE t SET l = l + [1] WHERE k = 1", Reason::ListAppend),
            ("UPDATE t SET l = [1] + l WHERE k = 1", Reason::ListAppend),
            ("UPDATE t SET l += ['a', 'b'] WHERE k = 1", Reason::ListAppend),
            ("INSERT INTO t (k) VALUES (now())", Reason::NotDeterministic),
            ("INSERT INTO t (k) VALUES (toTimestamp(NOW()))", Reason::NotDeterministic),
            ("INSERT INTO t (k, v) VALUES (1, {id: uuid()})", Reason::NotDeterministic),
            ("UPDATE t SET v = current_timestamp() WHERE k = 1", Reason::NotDeterministic),
            ("DELETE FROM t WHERE k = currentDate()", Reason::NotDeterministic),
            ("INSERT INTO t (k) VALUES (1) IF NOT EXISTS", Reason::Condition),
            ("UPDATE t SET v = 1 WHERE k = 1 IF v = 2", Reason::Condition),
            ("DELETE FROM t WHERE k = 1 IF EXISTS", Reason::Condition),
            ("BEGIN BATCH INSERT INTO t (k) VALUES (1) IF NOT EXISTS APPLY BATCH", Reason::Condition),
            (
                "BEGIN BATCH INSERT INTO t (k) VALUES (1); UPDATE t SET l = l + [1] WHERE k = 1; APPLY BATCH",
                Reason::ListAppend,
            ),
        ] {
            assert_eq!(reason(cql), Some(expected), "{cql}");
            assert_eq!(analyze(cql).idempotence(), Idempotence::No, "{cql}");
        }
    }

    #[test]
    fn what_the_text_does_not_tell_is_not_known() {
        for (cql, expected) in [
            ("UPDATE t SET v = v + ? WHERE k = 1", Reason::UnknownColumn),
            ("UPDATE t SET l = l - [1] WHERE k = 1", Reason::ListRemoval),
            ("UPDATE t SET l[0] = 1 WHERE k = 1", Reason::UnknownColumn),
            ("DELETE l[0] FROM t WHERE k = 1", Reason::UnknownColumn),
            ("INSERT INTO t (k, l) VALUES (1, [1, 2])", Reason::WholeList),
            ("INSERT INTO t JSON '{\"k\": 1}'", Reason::WholeList),
            ("INSERT INTO ks.values JSON '{\"k\": 1, \"l\": [1]}'", Reason::WholeList),
            ("INSERT INTO t (k, l) VALUES (1, fromJson('[1]'))", Reason::UnknownFunction),
            ("UPDATE t SET v = w + 1 WHERE k = 1", Reason::UnknownColumn),
            ("INSERT INTO t (k) VALUES (ks.log(1))", Reason::UnknownFunction),
            ("INSERT INTO t (k) VALUES (ks.now())", Reason::UnknownFunction),
            ("INSERT INTO t (k) VALUES (values(1))", Reason::UnknownFunction),
            ("INSERT INTO t (k) VALUES (now_as_blob())", Reason::UnknownFunction),
            ("INSERT INTO t (k, l) VALUES (:\"K\", : l)", Reason::UnknownColumn),
            ("UPDATE t SET l = [1, 2] WHERE k = 1", Reason::WholeList),
            ("UPDATE t SET v = my_function(1) WHERE k = 1", Reason::UnknownFunction),
            ("INSERT INTO t (k) VALUES (ks.f(1))", Reason::UnknownFunction),
            ("CREATE TABLE IF NOT EXISTS t (k int PRIMARY KEY)", Reason::Administration),
            ("TRUNCATE t", Reason::Administration),
            ("GRANT SELECT ON t TO r", Reason::Administration),
            ("INSERT INTO t", Reason::NotUnderstood),
            ("UPDATE t SET", Reason::NotUnderstood),
            ("BEGIN BATCH INSERT INTO t (k) VALUES (1)", Reason::NotUnderstood),
            ("INSERT INTO t (k) VALUES ('", Reason::NotUnderstood),
        ] {
            assert_eq!(reason(cql), Some(expected), "{cql}");
            assert_eq!(analyze(cql).idempotence(), Idempotence::Unknown, "{cql}");
        }
        assert_eq!(reason(""), Some(Reason::Administration));
    }

    #[test]
    fn a_condition_makes_a_lightweight_transaction_of_a_write_only() {
        assert!(analyze("INSERT INTO t (k) VALUES (1) IF NOT EXISTS").is_lwt());
        assert!(!analyze("CREATE TABLE IF NOT EXISTS t (k int PRIMARY KEY)").is_lwt());
        assert!(!analyze("INSERT INTO t (k) VALUES ('IF')").is_lwt());
        // A number ends where no more of it can come, with a blank or without.
        for key in ["1", "1.5", "1.", "1e5", "0xcafe", "1h30m", "3mo"] {
            assert!(analyze(&format!("UPDATE t SET v = 1 WHERE k = {key}IF v = 2")).is_lwt(), "{key}");
        }
        assert!(!analyze("INSERT INTO t (\"if\") VALUES (1)").is_lwt());
    }

    #[test]
    fn markers_are_counted_through_a_batch() {
        let cql = "BEGIN BATCH USING TIMESTAMP ? INSERT INTO t (k) VALUES (?); UPDATE t SET v = v + ? WHERE k = ? \
                   APPLY BATCH";
        let analysis = analyze(cql);
        assert_eq!(analysis.markers(), 4);
        let waiting: Vec<_> =
            analysis.pending().iter().map(|pending| (pending.marker, pending.usage)).collect();
        assert_eq!(waiting, [(1, Use::Written), (2, Use::Added)]);
    }

    #[test]
    fn the_verb_is_what_the_statement_begins_with() {
        for (cql, expected) in [
            ("/* INSERT */ SELECT 1", Verb::Select),
            ("ALTER TABLE t ADD c int", Verb::Schema),
            ("DROP KEYSPACE k", Verb::Schema),
            ("CREATE ROLE r", Verb::Other),
            ("truncate t", Verb::Truncate),
            ("USE k", Verb::Other),
        ] {
            assert_eq!(analyze(cql).verb(), expected, "{cql}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(
            cql in "(INSERT|UPDATE|DELETE|BEGIN BATCH)?[ a-z0-9?:=+,(){}\\[\\]'\"-]{0,40}(SET|VALUES|FROM|WHERE)?[ -~]{0,40}",
        ) {
            let _ = analyze(&cql);
        }

        /// A counter stays a counter, whatever is written around it.
        #[test]
        fn a_counter_update_is_never_taken_for_repeatable(
            column in "[a-z][a-z0-9_]{0,8}",
            upper in any::<bool>(),
            sign in prop::sample::select(vec!["+", "-", " + ", " - "]),
            amount in 0..1_000_u32,
            other in prop::sample::select(vec!["", "a = 1, ", "s = s + {1}, ", "m['k'] = ?, ", "/* c */ t = '+', "]),
            using in prop::sample::select(vec!["", "USING TTL 5 ", "USING TIMESTAMP ? "]),
        ) {
            prop_assume!(!["if", "set", "where", "using"].contains(&column.as_str()));
            let own = if upper { column.to_uppercase() } else { column.clone() };
            let cql = format!("UPDATE ks.t {using}SET {other}{column} = {own}{sign}{amount} WHERE k = ?");
            prop_assert_eq!(analyze(&cql).idempotence(), Idempotence::No, "{}", cql);
        }
    }
}
