//! What the text of a statement tells by itself.

use palisade::Idempotence;

use super::{
    Reason, Verdict,
    lexer::{Token, tokens},
};

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
    is_lwt: bool,
    settled: Verdict,
    pending: Vec<Pending>,
    markers: usize,
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

    /// How many bind markers it has.
    pub fn markers(&self) -> usize {
        self.markers
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
        Self { verb, is_lwt: false, settled: Verdict::default(), pending: Vec::new(), markers: 0 }
    }

    fn because(mut self, reason: Reason) -> Self {
        self.doubt(reason);
        self
    }

    fn doubt(&mut self, reason: Reason) {
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
    analysis.markers = count_markers(&tokens);
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

fn count_markers(tokens: &[Token<'_>]) -> usize {
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

/// An `INSERT`, `UPDATE` or `DELETE` that has `before` bind markers before it.
fn write(tokens: &[Token<'_>], before: usize, analysis: &mut Analysis) {
    if tokens.iter().any(|token| token.is_word("IF")) {
        analysis.is_lwt = true;
        analysis.doubt(Reason::Condition);
    }
    let mut scan = Scan { tokens, before, analysis };
    match tokens.first() {
        Some(verb) if verb.is_word("INSERT") => scan.insert(),
        Some(verb) if verb.is_word("UPDATE") => scan.update(),
        _ => scan.delete(),
    }
}

struct Scan<'a, 'b> {
    tokens: &'a [Token<'a>],
    before: usize,
    analysis: &'b mut Analysis,
}

impl Scan<'_, '_> {
    /// `INSERT INTO table (columns) VALUES (values) ..`, or `INSERT INTO table JSON ..`
    fn insert(&mut self) {
        // A table, too, can be called `values`.
        let values = (1..self.tokens.len().saturating_sub(1)).find(|at| {
            self.tokens[*at].is_word("VALUES")
                && self.tokens[at - 1].is_symbol(')')
                && self.tokens[at + 1].is_symbol('(')
        });
        let Some(values) = values else {
            // Among the values of a JSON text there may be a list.
            let is_json = self.find(0, |token| token.is_word("JSON")).is_some();
            return self.analysis.doubt(if is_json { Reason::WholeList } else { Reason::NotUnderstood });
        };
        let columns: Vec<_> = self.list_before(values).filter_map(|at| column(&self.tokens[at])).collect();
        let end = self.find(values + 1, |token| token.is_word("USING") || token.is_word("IF"));
        let end = end.unwrap_or(self.tokens.len());
        // Between the parentheses; each value ends at a comma.
        let (mut from, mut columns) = (values + 2, columns.into_iter());
        while from < end {
            let to =
                self.find(from, |token| token.is_symbol(',') || token.is_symbol(')')).unwrap_or(end).min(end);
            self.written(from, to, columns.next().as_deref());
            from = to + 1;
        }
        self.functions(values + 1);
    }

    /// `UPDATE table [USING ..] SET assignments WHERE ..`
    fn update(&mut self) {
        let set = self.find(0, |token| token.is_word("SET"));
        let Some((set, end)) = set.zip(self.find(0, |token| token.is_word("WHERE"))) else {
            return self.analysis.doubt(Reason::NotUnderstood);
        };
        let mut from = set + 1;
        while from < end {
            let to = self.find(from, |token| token.is_symbol(',')).unwrap_or(end).min(end);
            self.assignment(from, to);
            from = to + 1;
        }
        self.functions(set + 1);
    }

    /// `DELETE [columns] FROM table [USING ..] WHERE ..`
    fn delete(&mut self) {
        let Some(from) = self.find(0, |token| token.is_word("FROM")) else {
            return self.analysis.doubt(Reason::NotUnderstood);
        };
        for at in 1..from {
            if self.tokens[at].is_symbol('[') {
                self.element(at + 1, Use::DeletedElement);
            }
        }
        self.functions(from);
    }

    /// One `column = value` of an `UPDATE`.
    fn assignment(&mut self, from: usize, to: usize) {
        let Some(equals) = self.find(from, |token| token.is_symbol('=')).filter(|equals| *equals < to) else {
            return self.analysis.doubt(Reason::NotUnderstood);
        };
        if self.tokens[from..equals].get(1).is_some_and(|token| token.is_symbol('[')) {
            self.element(from + 2, Use::SetElement);
        }
        let (value, sign) = (equals + 1, self.tokens[equals - 1]);
        if sign.is_symbol('+') || sign.is_symbol('-') {
            return self.changed(value, to, sign);
        }
        // `v = v + x`, `v = x + v`: it is the column's own value that changes. A sign that comes first belongs to a
        // number.
        let is_sign = |token: &Token<'_>| token.is_symbol('+') || token.is_symbol('-');
        let sign = match self.find(value, is_sign) {
            Some(at) if at == value => self.find(value + 1, is_sign),
            sign => sign,
        };
        let sign = sign.filter(|at| *at < to);
        let own = |at: usize| {
            self.tokens
                .get(at)
                .is_some_and(|token| column(token).is_some() && column(token) == column(&self.tokens[from]))
        };
        match sign {
            Some(sign) if own(value) => self.changed(sign + 1, to, self.tokens[sign]),
            Some(sign) if own(to - 1) => self.changed(value, sign, self.tokens[sign]),
            // Another column's value: nothing that a server accepts today.
            Some(_) if name(&self.tokens[value]).is_some() || name(&self.tokens[to - 1]).is_some() => {
                self.analysis.doubt(Reason::UnknownColumn);
            }
            _ => self.written(value, to, column(&self.tokens[from]).as_deref()),
        }
    }

    /// What is added to or taken from a column.
    fn changed(&mut self, from: usize, to: usize, sign: Token<'_>) {
        let (usage, of_list) = if sign.is_symbol('+') {
            (Use::Added, Reason::ListAppend)
        } else {
            (Use::Removed, Reason::ListRemoval)
        };
        match self.tokens.get(from) {
            Some(Token::Marker(_)) if from + 1 == to => self.wait(from, usage),
            Some(Token::Number) => self.analysis.doubt(Reason::Counter),
            Some(Token::Symbol('[')) => self.analysis.doubt(of_list),
            // A set or a map, whatever is in it.
            Some(Token::Symbol('{')) => {}
            _ => self.analysis.doubt(Reason::UnknownColumn),
        }
    }

    /// A value that becomes that of a column.
    fn written(&mut self, from: usize, to: usize, column: Option<&str>) {
        for at in from..to {
            match self.tokens[at] {
                Token::Marker(_) => {
                    let whole = to - from == 1;
                    self.wait_for(at, Use::Written, column.filter(|_| whole).map(str::to_owned));
                }
                // A list, or the part of a value that is frozen; a vector is written alike.
                Token::Symbol('[') => self.analysis.doubt(Reason::WholeList),
                _ => {}
            }
        }
    }

    /// What stands in the brackets behind a column.
    fn element(&mut self, at: usize, usage: Use) {
        match self.tokens.get(at) {
            Some(Token::Marker(_)) => self.wait(at, usage),
            // The key of a map, or the element of a set.
            Some(Token::Text) => {}
            _ => self.analysis.doubt(Reason::UnknownColumn),
        }
    }

    /// The functions that are called from here on.
    fn functions(&mut self, from: usize) {
        for at in from..self.tokens.len().saturating_sub(1) {
            let called = self.tokens[at + 1].is_symbol('(');
            if let (true, Some(function)) = (called, name(&self.tokens[at])) {
                let of_keyspace =
                    at >= 2 && self.tokens[at - 1].is_symbol('.') && !self.tokens[at - 2].is_word("system");
                match function.to_ascii_lowercase().as_str() {
                    _ if of_keyspace => self.analysis.doubt(Reason::UnknownFunction),
                    "in" | "and" | "where" | "if" | "using" => {}
                    function if is_deterministic(function) => {}
                    function if gives_another_value_each_time(function) => {
                        self.analysis.doubt(Reason::NotDeterministic);
                    }
                    _ => self.analysis.doubt(Reason::UnknownFunction),
                }
            }
        }
    }

    /// Leaves the verdict to the type of the bind marker at `at`.
    fn wait(&mut self, at: usize, usage: Use) {
        self.wait_for(at, usage, None);
    }

    fn wait_for(&mut self, at: usize, usage: Use, column: Option<String>) {
        let Token::Marker(name) = self.tokens[at] else { return };
        let marker = self.before + count_markers(&self.tokens[..at]);
        self.analysis.pending.push(Pending { marker, name: name.map(str::to_owned), column, usage });
    }

    /// The tokens between the last parentheses before `end`.
    fn list_before(&self, end: usize) -> impl Iterator<Item = usize> {
        let opened = self.tokens[..end].iter().rposition(|token| token.is_symbol('('));
        let closed = self.tokens[..end].iter().rposition(|token| token.is_symbol(')'));
        opened.zip(closed).map_or(0..0, |(opened, closed)| opened + 1..closed)
    }

    /// The first such token at or after `from` that stands in no brackets that open there. What opens and closes
    /// brackets is in them itself.
    fn find(&self, from: usize, is_it: impl Fn(&Token<'_>) -> bool) -> Option<usize> {
        let mut depth = 0_usize;
        (from..self.tokens.len()).find(|at| {
            let token = &self.tokens[*at];
            let is_outside = depth == 0;
            match token {
                Token::Symbol('(' | '[' | '{') => depth += 1,
                Token::Symbol(')' | ']' | '}') => depth = depth.saturating_sub(1),
                _ => {}
            }
            is_outside && is_it(token)
        })
    }
}

/// The name of a column as the server knows it: what is not quoted knows no case.
fn column(token: &Token<'_>) -> Option<String> {
    match token {
        Token::Word(name) => Some(name.to_ascii_lowercase()),
        Token::Quoted(name) => Some((*name).to_owned()),
        _ => None,
    }
}

fn name<'a>(token: &Token<'a>) -> Option<&'a str> {
    match token {
        Token::Word(name) | Token::Quoted(name) => Some(name),
        _ => None,
    }
}

/// Functions of the server that give another value at each call, by the names of Cassandra 3 to 5 and ScyllaDB.
fn gives_another_value_each_time(function: &str) -> bool {
    matches!(function, "now" | "uuid")
        || matches!(
            function.replace('_', "").as_str(),
            "currenttimestamp" | "currentdate" | "currenttime" | "currenttimeuuid"
        )
}

/// Functions of the server whose value depends on their arguments alone. Names that a user may have given to a function
/// in an older version are not among them.
fn is_deterministic(function: &str) -> bool {
    const TYPES: [&str; 21] = [
        "ascii",
        "bigint",
        "blob",
        "boolean",
        "counter",
        "date",
        "decimal",
        "double",
        "duration",
        "float",
        "inet",
        "int",
        "smallint",
        "text",
        "time",
        "timestamp",
        "timeuuid",
        "tinyint",
        "uuid",
        "varchar",
        "varint",
    ];
    let plain = function.replace('_', "");
    let converted = plain.strip_prefix("blobas").or_else(|| plain.strip_suffix("asblob"));
    converted.is_some_and(|of| TYPES.contains(&of))
        || matches!(
            plain.as_str(),
            "cast"
                | "token"
                | "totimestamp"
                | "todate"
                | "tounixtimestamp"
                | "mintimeuuid"
                | "maxtimeuuid"
                | "dateof"
                | "unixtimestampof"
        )
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
