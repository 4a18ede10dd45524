//! A statement without the values that are written into it.

use super::lexer::{Token, each};

/// The text of a statement with `?` for each value that is written into it, and without comments. At most `limit` bytes, and
/// `None` for what is not understood: nobody knows what is a value there.
pub(crate) fn without_literals(cql: &str, limit: usize) -> Option<String> {
    let mut text = String::with_capacity(cql.len().min(limit));
    let (mut end, mut last) = (0, None);
    each(cql, |token, at| {
        if text.len() >= limit {
            return;
        }
        let gap = &cql[end..at.start];
        // What stands in a comment may be a value as well.
        text.push_str(if gap.trim().is_empty() { gap } else { " " });
        // What follows a number without a blank is more of a value that somebody forgot to put in quotes.
        let is_tail =
            gap.is_empty() && last == Some(Token::Number) && matches!(token, Token::Word(_) | Token::Number);
        if !is_tail {
            text.push_str(if is_literal(&token, last, &cql[at.end..]) { "?" } else { &cql[at.clone()] });
        }
        (end, last) = (at.end, Some(if is_tail { Token::Number } else { token }));
    })?;
    truncate(&mut text, limit);
    Some(text)
}

/// Cuts a text off, between two characters.
pub(crate) fn truncate(text: &mut String, limit: usize) {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}

fn is_literal(token: &Token<'_>, before: Option<Token<'_>>, after: &str) -> bool {
    match token {
        Token::Text | Token::Number => true,
        // No name begins with a digit: a part of a time of the day.
        Token::Marker(Some(name)) => name.starts_with(|c: char| c.is_ascii_digit()),
        Token::Word(word) => {
            ["true", "false", "NaN", "Infinity"].iter().any(|value| token.is_word(value))
                || (is_duration(word, after) && before.is_some_and(|before| starts_value(&before)))
        }
        Token::Quoted(_) | Token::Marker(None) | Token::Symbol(_) => false,
    }
}

/// `P1Y2M`, `PT30S`, or the beginning of `P0001-02-03T04:05:06`. A column may be called so too, and loses its name then.
fn is_duration(word: &str, after: &str) -> bool {
    let Some(rest) = word.strip_prefix(['P', 'p']) else {
        return false;
    };
    let is_digit = |letter: char| letter.is_ascii_digit();
    let is_part = |letter: char| is_digit(letter) || "YMWDTHS".contains(letter.to_ascii_uppercase());
    let has_units = rest.chars().all(is_part) && rest.contains(is_digit) && !rest.ends_with(is_digit);
    let is_date = rest.len() == 4 && rest.chars().all(is_digit) && after.starts_with('-');
    has_units || is_date
}

fn starts_value(before: &Token<'_>) -> bool {
    matches!(before, Token::Symbol('(' | '[' | '{' | ',' | ':' | '=' | '<' | '>' | '+' | '-'))
        || before.is_word("TTL")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn without(cql: &str) -> String {
        without_literals(cql, 1_000).unwrap()
    }

    #[test]
    fn a_statement_without_values_stays_as_it_is() {
        for cql in [
            "SELECT a, \"B\" FROM app.users WHERE k = ? AND c > :c",
            "INSERT INTO users (k, p1)\n VALUES (?, ?)",
            "UPDATE c SET n = n + ? WHERE k = ?",
            "SELECT p1 FROM t",
        ] {
            assert_eq!(without(cql), cql);
        }
    }

    #[test]
    fn values_and_comments_are_left_out() {
        for (cql, expected) in [
            ("SELECT * FROM t WHERE k = 'it''s secret'", "SELECT * FROM t WHERE k = ?"),
            ("SELECT * FROM t WHERE k IN (1, -2.5e3, 0xcafe)", "SELECT * FROM t WHERE k IN (?, -?, ?)"),
            ("UPDATE t SET a = true, b = $$secret$$ WHERE k = 1", "UPDATE t SET a = ?, b = ? WHERE k = ?"),
            (
                "UPDATE t SET d = 1h30m, e = P1Y2M, f = PT5M WHERE k = ?",
                "UPDATE t SET d = ?, e = ?, f = ? WHERE k = ?",
            ),
            ("UPDATE t SET d = P0001-02-03T04:05:06 WHERE k = ?", "UPDATE t SET d = ?-?-??? WHERE k = ?"),
            ("UPDATE t SET m = {'a': 1, 'b': NaN} WHERE k = ?", "UPDATE t SET m = {?: ?, ?: ?} WHERE k = ?"),
            ("SELECT * FROM t WHERE k = a1b2c3d4-e5f6-4711-8888-0123456789ab", "SELECT * FROM t WHERE k = ?"),
            ("UPDATE t SET d = 1µs500ns WHERE k = ?", "UPDATE t SET d = ? WHERE k = ?"),
            ("SELECT a FROM t WHERE k = 12ab34 AND c = 5", "SELECT a FROM t WHERE k = ? AND c = ?"),
            ("SELECT a /* secret */ FROM t -- secret", "SELECT a FROM t"),
            ("SELECT a/* secret */FROM t LIMIT 5", "SELECT a FROM t LIMIT ?"),
        ] {
            assert_eq!(without(cql), expected);
        }
    }

    #[test]
    fn what_is_not_understood_is_not_told() {
        assert_eq!(without_literals("SELECT 'secret", 1_000), None);
    }

    #[test]
    fn a_long_text_is_cut_off_between_characters() {
        assert_eq!(without_literals("SELECT \"ää\" FROM t", 9).as_deref(), Some("SELECT \""));
        let members = "INSERT INTO t (k) VALUES ('x'); ".repeat(1_000);
        assert_eq!(without_literals(&members, 100).unwrap().len(), 100);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(cql in "\\PC*", limit in 0..40_usize) {
            if let Some(text) = without_literals(&cql, limit) {
                prop_assert!(text.len() <= limit);
            }
        }

        #[test]
        fn no_string_or_number_is_left(
            secret in "[a-zA-Z0-9 ';-]{1,20}",
            number in 100_000..999_999_u32,
        ) {
            let secret = format!("zq{secret}");
            let cql = format!(
                "INSERT INTO t (a, b) VALUES ('{}', {number}) -- {secret}\n USING TTL {number}",
                secret.replace('\'', "''"),
            );
            let text = without(&cql);
            prop_assert!(!text.contains("zq") && !text.contains(&number.to_string()), "{}", text);
        }
    }
}
