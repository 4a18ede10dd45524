//! Which keyspace does a statement name?

use std::borrow::Cow;

use super::lexer::{Token, tokens};

/// The keyspace that the first table of a statement is qualified by, if it is. Names that are not in quotes are in lower case.
pub(crate) fn keyspace(cql: &str) -> Option<Cow<'_, str>> {
    let tokens = tokens(cql)?;
    let leads_to_table =
        |token: &Token<'_>| ["FROM", "INTO", "UPDATE"].iter().any(|word| token.is_word(word));
    let table = tokens.iter().position(leads_to_table)? + 1;
    if !tokens.get(table + 1)?.is_symbol('.') {
        return None;
    }
    match *tokens.get(table)? {
        Token::Word(name) if name.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            Some(name.to_ascii_lowercase().into())
        }
        Token::Quoted(name) if name.contains('"') => Some(name.replace("\"\"", "\"").into()),
        Token::Word(name) | Token::Quoted(name) => Some(name.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keyspace_of_the_first_table_is_found() {
        for (cql, expected) in [
            ("SELECT a, writetime(b) FROM app.t WHERE k = 'FROM x.y'", Some("app")),
            ("select a from App . t", Some("app")),
            ("INSERT INTO \"App\".t (k) VALUES (?)", Some("App")),
            ("INSERT INTO \"a\"\"b\".t (k) VALUES (?)", Some("a\"b")),
            ("UPDATE /* other. */ app.t USING TTL 5 SET m['x.y'] = 1.5 WHERE k = 1", Some("app")),
            ("DELETE m['a.b'] FROM app.t WHERE k = 1", Some("app")),
            (
                "BEGIN BATCH INSERT INTO app.t (k) VALUES (1); UPDATE b.t SET a = 1 WHERE k = 1; APPLY BATCH",
                Some("app"),
            ),
            ("SELECT a FROM t WHERE b = 1.5", None),
            ("UPDATE t SET a = 1 WHERE k = 1", None),
            ("SELECT a FROM", None),
            ("SELECT a FROM 'app'.t", None),
            ("SELECT 'unended", None),
        ] {
            assert_eq!(keyspace(cql).as_deref(), expected, "{cql}");
        }
    }
}
