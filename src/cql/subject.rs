//! What a statement is called, and which table it is about.

use super::lexer::{Token, tokens};

/// What a statement is called, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Subject {
    /// `SELECT`, `CREATE TABLE`, `BATCH INSERT`: one of a few dozen.
    pub(crate) name: &'static str,
    pub(crate) keyspace: Option<String>,
    pub(crate) table: Option<String>,
}

/// What nobody knows a better name for.
pub(crate) const OTHER: &str = "_OTHER";

impl Default for Subject {
    fn default() -> Self {
        Self::named(OTHER)
    }
}

impl Subject {
    pub(crate) const fn named(name: &'static str) -> Self {
        Self { name, keyspace: None, table: None }
    }

    /// The same, with the keyspace that an unqualified table belongs to.
    pub(crate) fn in_keyspace(mut self, keyspace: Option<&str>) -> Self {
        if self.table.is_some() && self.keyspace.is_none() {
            self.keyspace = keyspace.map(str::to_owned);
        }
        self
    }

    /// Several statements as one: what they have in common.
    pub(crate) fn of_batch<'a>(members: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut members = members.into_iter();
        let Some(first) = members.next() else {
            return Self::named("BATCH");
        };
        let mut common = Self { name: of_members(first.name), ..first.clone() };
        for member in members {
            if common.name != of_members(member.name) {
                common.name = "BATCH";
            }
            if common.keyspace != member.keyspace {
                (common.keyspace, common.table) = (None, None);
            }
            if common.table != member.table {
                common.table = None;
            }
        }
        common
    }
}

/// A batch whose members are all called so.
fn of_members(name: &'static str) -> &'static str {
    match name {
        "INSERT" => "BATCH INSERT",
        "UPDATE" => "BATCH UPDATE",
        "DELETE" => "BATCH DELETE",
        _ => "BATCH",
    }
}

/// What a statement of these tokens is called, and what it is about. No text makes it panic.
pub(crate) fn subject(tokens: &[Token<'_>]) -> Subject {
    let Some(first) = tokens.first() else {
        return Subject::default();
    };
    let is = |word| first.is_word(word);
    if is("SELECT") {
        of_table("SELECT", after(tokens, "FROM"))
    } else if is("INSERT") {
        of_table("INSERT", after(tokens, "INTO"))
    } else if is("UPDATE") {
        of_table("UPDATE", table(tokens, 1))
    } else if is("DELETE") {
        of_table("DELETE", after(tokens, "FROM"))
    } else if is("TRUNCATE") {
        of_table("TRUNCATE", table(tokens, if is_table(tokens.get(1)) { 2 } else { 1 }))
    } else if is("BEGIN") {
        batch(tokens)
    } else if is("USE") {
        Subject { keyspace: tokens.get(1).and_then(identifier), ..Subject::named("USE") }
    } else {
        match ["CREATE", "ALTER", "DROP"].iter().position(|verb| is(verb)) {
            Some(verb) => schema(verb, tokens),
            None => match ["GRANT", "REVOKE", "LIST", "DESCRIBE"].into_iter().find(|verb| is(verb)) {
                Some(verb) => Subject::named(verb),
                None => Subject::default(),
            },
        }
    }
}

/// A keyspace, if it is named, and a table.
type Table = (Option<String>, String);

fn of_table(name: &'static str, of: Option<Table>) -> Subject {
    let (keyspace, table) = of.unzip();
    Subject { name, keyspace: keyspace.flatten(), table }
}

/// `BEGIN [UNLOGGED | COUNTER] BATCH [USING ..] statement [;] statement [;] .. APPLY BATCH`
fn batch(tokens: &[Token<'_>]) -> Subject {
    Subject::of_batch(&members_of(tokens))
}

/// The members of a batch, or the only statement there is; none of what cannot be understood.
pub(crate) fn members(cql: &str) -> Vec<Subject> {
    match tokens(cql) {
        Some(tokens) if tokens.first().is_some_and(|first| first.is_word("BEGIN")) => members_of(&tokens),
        Some(tokens) => vec![subject(&tokens)],
        None => Vec::new(),
    }
}

fn members_of(tokens: &[Token<'_>]) -> Vec<Subject> {
    let starts_member =
        |token: &Token<'_>| ["INSERT", "UPDATE", "DELETE", "APPLY"].iter().any(|verb| token.is_word(verb));
    let starts: Vec<_> = (1..tokens.len()).filter(|at| starts_member(&tokens[*at])).collect();
    starts.windows(2).map(|pair| subject(&tokens[pair[0]..pair[1]])).collect()
}

/// What can be created, altered and dropped, by the word for it, and by the names of doing so.
const SCHEMA: [(&str, [&str; 3]); 12] = [
    ("TABLE", ["CREATE TABLE", "ALTER TABLE", "DROP TABLE"]),
    ("COLUMNFAMILY", ["CREATE TABLE", "ALTER TABLE", "DROP TABLE"]),
    ("KEYSPACE", ["CREATE KEYSPACE", "ALTER KEYSPACE", "DROP KEYSPACE"]),
    ("SCHEMA", ["CREATE KEYSPACE", "ALTER KEYSPACE", "DROP KEYSPACE"]),
    ("VIEW", ["CREATE MATERIALIZED VIEW", "ALTER MATERIALIZED VIEW", "DROP MATERIALIZED VIEW"]),
    ("INDEX", ["CREATE INDEX", "ALTER INDEX", "DROP INDEX"]),
    ("TYPE", ["CREATE TYPE", "ALTER TYPE", "DROP TYPE"]),
    ("FUNCTION", ["CREATE FUNCTION", "ALTER FUNCTION", "DROP FUNCTION"]),
    ("AGGREGATE", ["CREATE AGGREGATE", "ALTER AGGREGATE", "DROP AGGREGATE"]),
    ("TRIGGER", ["CREATE TRIGGER", "ALTER TRIGGER", "DROP TRIGGER"]),
    ("ROLE", ["CREATE ROLE", "ALTER ROLE", "DROP ROLE"]),
    ("USER", ["CREATE USER", "ALTER USER", "DROP USER"]),
];

/// `CREATE [OR REPLACE | CUSTOM | MATERIALIZED] what [IF [NOT] EXISTS] name ..`, with one of three verbs.
fn schema(verb: usize, tokens: &[Token<'_>]) -> Subject {
    let found = (1..tokens.len().min(4)).find_map(|at| {
        let what = SCHEMA.iter().find(|(what, _)| tokens[at].is_word(what))?;
        Some((at, what))
    });
    let Some((at, (what, names))) = found else {
        return Subject::named(["CREATE", "ALTER", "DROP"][verb]);
    };
    let name = names[verb];
    let words = ["IF", "NOT", "EXISTS"];
    let skipped = |token: &&Token<'_>| words.iter().any(|word| token.is_word(word));
    let at = at + 1 + tokens[at + 1..].iter().take_while(skipped).count();
    match *what {
        "TABLE" | "COLUMNFAMILY" | "VIEW" => of_table(name, table(tokens, at)),
        "KEYSPACE" | "SCHEMA" => {
            Subject { keyspace: tokens.get(at).and_then(identifier), ..Subject::named(name) }
        }
        "INDEX" | "TRIGGER" => of_table(name, after(tokens, "ON")),
        _ => Subject::named(name),
    }
}

fn is_table(token: Option<&Token<'_>>) -> bool {
    token.is_some_and(|token| token.is_word("TABLE") || token.is_word("COLUMNFAMILY"))
}

/// The table that is named after the first such keyword, which stands in no brackets.
fn after(tokens: &[Token<'_>], keyword: &str) -> Option<Table> {
    let mut depth = 0_usize;
    let at = tokens.iter().position(|token| {
        match token {
            Token::Symbol('(' | '[' | '{') => depth += 1,
            Token::Symbol(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && token.is_word(keyword)
    })?;
    table(tokens, at + 1)
}

/// `[keyspace.]table`
fn table(tokens: &[Token<'_>], at: usize) -> Option<Table> {
    let first = identifier(tokens.get(at)?)?;
    if !tokens.get(at + 1).is_some_and(|token| token.is_symbol('.')) {
        return Some((None, first));
    }
    Some((Some(first), identifier(tokens.get(at + 2)?)?))
}

/// No server has a name that is longer.
const LONGEST: usize = 255;

/// A name as the server knows it: what is not quoted knows no case. What cannot be a name is none, so that no text becomes the
/// label of a metric.
fn identifier(token: &Token<'_>) -> Option<String> {
    let name = match token {
        Token::Word(name) => name.to_ascii_lowercase(),
        Token::Quoted(name) => (*name).to_owned(),
        _ => return None,
    };
    let is_one = |name: &str| {
        (1..=LONGEST).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
    };
    Some(name).filter(|name| is_one(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::tokens, *};

    fn of(cql: &str) -> Subject {
        subject(&tokens(cql).unwrap())
    }

    fn told(cql: &str) -> (&'static str, Option<String>, Option<String>) {
        let Subject { name, keyspace, table } = of(cql);
        (name, keyspace, table)
    }

    #[test]
    fn a_statement_is_called_by_its_verb_and_is_about_its_table() {
        for (cql, name) in [
            ("SELECT * FROM app.users WHERE k = ?", "SELECT"),
            ("select json distinct k, max(v) as \"from\" from App.Users", "SELECT"),
            ("SELECT CAST(a AS int), \"from\" -- FROM a.b\n FROM app /* . */ . users", "SELECT"),
            ("INSERT INTO app.users (k) VALUES ('INTO a.b') USING TTL 5", "INSERT"),
            ("INSERT INTO \"app\".\"users\" JSON '{}'", "INSERT"),
            ("UPDATE app.users USING TIMESTAMP ? SET v = 1 WHERE k = 1", "UPDATE"),
            ("DELETE m['FROM'], l[0] FROM app.users WHERE k = 1", "DELETE"),
            ("TRUNCATE app.users", "TRUNCATE"),
            ("TRUNCATE TABLE app.users;", "TRUNCATE"),
            ("CREATE TABLE IF NOT EXISTS app.users (k int PRIMARY KEY)", "CREATE TABLE"),
            ("ALTER TABLE app.users ADD v int", "ALTER TABLE"),
            ("DROP COLUMNFAMILY IF EXISTS app.users", "DROP TABLE"),
            ("CREATE MATERIALIZED VIEW app.users AS SELECT * FROM a.b", "CREATE MATERIALIZED VIEW"),
            ("CREATE CUSTOM INDEX IF NOT EXISTS ON app.users (v) USING 'x'", "CREATE INDEX"),
            ("BEGIN BATCH INSERT INTO app.users (k) VALUES (1); APPLY BATCH", "BATCH INSERT"),
            (
                "BEGIN UNLOGGED BATCH USING TIMESTAMP 1 UPDATE app.users SET v = 1 WHERE k = 1 \
              UPDATE app.users SET v = 1 WHERE k = 1 APPLY BATCH",
                "BATCH UPDATE",
            ),
            (
                "BEGIN BATCH DELETE FROM app.users WHERE k = 1; INSERT INTO app.users (k) VALUES (1) APPLY BATCH",
                "BATCH",
            ),
        ] {
            assert_eq!(told(cql), (name, Some("app".to_owned()), Some("users".to_owned())), "{cql}");
        }
    }

    #[test]
    fn what_is_not_said_is_not_told() {
        let keyspace = |keyspace: &str| Some(keyspace.to_owned());
        for (cql, expected) in [
            ("SELECT * FROM Users", ("SELECT", None, keyspace("users"))),
            ("SELECT * FROM \"Users\"", ("SELECT", None, keyspace("Users"))),
            ("USE \"App\"", ("USE", keyspace("App"), None)),
            ("CREATE KEYSPACE IF NOT EXISTS app WITH x = 1", ("CREATE KEYSPACE", keyspace("app"), None)),
            ("CREATE OR REPLACE FUNCTION app.f (a int)", ("CREATE FUNCTION", None, None)),
            ("CREATE ROLE r WITH PASSWORD = 'x'", ("CREATE ROLE", None, None)),
            ("CREATE SOMETHING", ("CREATE", None, None)),
            ("GRANT SELECT ON app.users TO r", ("GRANT", None, None)),
            (
                "BEGIN BATCH DELETE FROM app.a WHERE k = 1; DELETE FROM app.b WHERE k = 1 APPLY BATCH",
                ("BATCH DELETE", keyspace("app"), None),
            ),
            (
                "BEGIN BATCH DELETE FROM a.t WHERE k = 1; DELETE FROM b.t WHERE k = 1 APPLY BATCH",
                ("BATCH DELETE", None, None),
            ),
            ("BEGIN BATCH APPLY BATCH", ("BATCH", None, None)),
            ("SELECT", ("SELECT", None, None)),
            ("SELECT * FROM app.", ("SELECT", None, None)),
            ("SELECT * FROM 'users'", ("SELECT", None, None)),
            ("SELECT * FROM \"no such; name\"", ("SELECT", None, None)),
            ("EXPLODE", (OTHER, None, None)),
            ("", (OTHER, None, None)),
        ] {
            assert_eq!(told(cql), expected, "{cql}");
        }
        let long = format!("SELECT * FROM {}", "a".repeat(LONGEST + 1));
        assert_eq!(of(&long).table, None);
    }

    #[test]
    fn an_unqualified_table_is_in_the_keyspace_of_the_session() {
        let in_keyspace = |cql: &str| of(cql).in_keyspace(Some("mine")).keyspace;
        assert_eq!(in_keyspace("SELECT * FROM t").as_deref(), Some("mine"));
        assert_eq!(in_keyspace("SELECT * FROM app.t").as_deref(), Some("app"));
        assert_eq!(in_keyspace("USE app").as_deref(), Some("app"));
        assert_eq!(in_keyspace("CREATE ROLE r"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(
            cql in "(SELECT|INSERT INTO|UPDATE|DELETE FROM|TRUNCATE TABLE|BEGIN BATCH|CREATE|DROP|USE)?\
                    [ a-zA-Z0-9_.,;(){}\"'?:]{0,30}( FROM | INTO | ON | TABLE | APPLY BATCH)?[ -~]{0,30}",
        ) {
            if let Some(tokens) = tokens(&cql) {
                let subject = subject(&tokens);
                for name in subject.keyspace.iter().chain(&subject.table) {
                    prop_assert!(!name.is_empty() && name.len() <= LONGEST);
                }
            }
        }

        /// Whatever stands around it.
        #[test]
        fn a_table_is_found_by_its_name(
            keyspace in prop::option::of("[a-z][a-z0-9_]{0,8}"),
            table in "[a-zA-Z][a-zA-Z0-9_]{0,8}",
            blank in prop::sample::select(vec![" ", "\n", " /* FROM a.b */ ", " -- INTO a.b\n"]),
            shape in 0..5_usize,
        ) {
            let of_keyspace = keyspace.as_ref().map(|keyspace| format!("\"{keyspace}\".")).unwrap_or_default();
            let name = format!("{blank}{of_keyspace}\"{table}\"{blank}");
            let cql = match shape {
                0 => format!("SELECT a, f(b) FROM{name}WHERE k = ?"),
                1 => format!("INSERT INTO{name}(k) VALUES (?)"),
                2 => format!("UPDATE{name}SET v = 'FROM' WHERE k = ?"),
                3 => format!("DELETE v FROM{name}WHERE k = ?"),
                _ => format!("TRUNCATE{name}"),
            };
            let subject = of(&cql);
            prop_assert_eq!((subject.keyspace, subject.table), (keyspace, Some(table)), "{}", cql);
        }
    }
}
