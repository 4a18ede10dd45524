//! CQL text as tokens: what matters here, and nothing more.

use std::ops::Range;

/// A piece of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// A keyword or an unquoted name. Keywords and such names know no case.
    Word(&'a str),
    /// A name in double quotes, without them.
    Quoted(&'a str),
    /// A string, in quotes or dollars.
    Text,
    /// A number, a blob, a duration or a UUID.
    Number,
    /// A bind marker: `?`, or `:name`.
    Marker(Option<&'a str>),
    /// Any other character.
    Symbol(char),
}

impl Token<'_> {
    pub(crate) fn is_word(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    pub(crate) fn is_symbol(&self, symbol: char) -> bool {
        *self == Self::Symbol(symbol)
    }

    /// Whether a value or a name ends here, so that a colon after it belongs to a map.
    const fn ends_operand(&self) -> bool {
        !matches!(
            self,
            Self::Symbol('(' | '[' | '{' | ',' | ':' | '=' | '<' | '>' | '+' | '-' | '*' | '/' | '%')
        )
    }
}

/// The tokens of a statement, or `None` if a string, a quoted name or a comment does not end, or a bind marker has no
/// name.
pub(crate) fn tokens(cql: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    each(cql, |token, _| tokens.push(token))?;
    Some(tokens)
}

/// Tells each token of a statement, and where it stands. See [`tokens`].
pub(super) fn each<'a>(cql: &'a str, mut tell: impl FnMut(Token<'a>, Range<usize>)) -> Option<()> {
    let mut last: Option<Token<'_>> = None;
    let mut rest = cql;
    // How many braces are open: in them, a colon after an operand parts a key from its value.
    let mut braces = 0_usize;
    loop {
        rest = skip_blank(rest)?;
        let Some(first) = rest.chars().next() else {
            return Some(());
        };
        let (token, length) = match first {
            '\'' => (Token::Text, quoted(rest, '\'')?),
            '"' => {
                let length = quoted(rest, '"')?;
                (Token::Quoted(&rest[1..length - 1]), length)
            }
            '$' if rest.starts_with("$$") => (Token::Text, rest[2..].find("$$")? + 4),
            '?' => (Token::Marker(None), 1),
            ':' if !(braces > 0 && last.as_ref().is_some_and(Token::ends_operand)) => {
                let name = skip_blank(&rest[1..])?;
                let before = rest.len() - name.len();
                if name.starts_with('"') {
                    let length = quoted(name, '"')?;
                    (Token::Marker(Some(&name[1..length - 1])), before + length)
                } else {
                    let name = Some(word(name)).filter(|name| !name.is_empty())?;
                    (Token::Marker(Some(name)), before + name.len())
                }
            }
            _ if is_uuid(rest) => (Token::Number, UUID_LENGTH),
            '0'..='9' => (Token::Number, number(rest)),
            'a'..='z' | 'A'..='Z' | '_' => {
                let word = word(rest);
                (Token::Word(word), word.len())
            }
            _ => (Token::Symbol(first), first.len_utf8()),
        };
        match first {
            '{' => braces += 1,
            '}' => braces = braces.saturating_sub(1),
            _ => {}
        }
        let at = cql.len() - rest.len();
        tell(token, at..at + length);
        last = Some(token);
        rest = &rest[length..];
    }
}

/// What follows white space and comments.
fn skip_blank(text: &str) -> Option<&str> {
    let mut rest = text.trim_start();
    loop {
        rest = if rest.starts_with("--") || rest.starts_with("//") {
            rest.split_once(['\n', '\r']).map_or("", |(_, after)| after)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/")?.1
        } else {
            return Some(rest);
        }
        .trim_start();
    }
}

/// The length of what stands in quotes, in which a doubled quote stands for one.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut at = 1;
    loop {
        at += text[at..].find(quote)? + 1;
        if text[at..].starts_with(quote) {
            at += 1;
        } else {
            return Some(at);
        }
    }
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// The length of a number, a blob or a duration. It ends where no more of it can come: `1IF` is two tokens.
fn number(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits =
        |from: usize| bytes[from.min(bytes.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    if text.starts_with("0x") || text.starts_with("0X") {
        return 2 + bytes[2..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    }
    let mut end = digits(0);
    if let Some(unit) = unit(&text[end..]) {
        // A duration: any number of digits, each with a unit.
        end += unit;
        while let more @ 1.. = digits(end)
            && let Some(unit) = self::unit(&text[end + more..])
        {
            end += more + unit;
        }
        return end;
    }
    if bytes.get(end) == Some(&b'.') {
        end += 1 + digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if let exponent @ 1.. = digits(end + 1 + sign) {
            end += 1 + sign + exponent;
        }
    }
    end
}

/// The length of the unit of a duration, the longest that it may be.
fn unit(text: &str) -> Option<usize> {
    const UNITS: [&str; 11] = ["mo", "ms", "us", "µs", "ns", "y", "w", "d", "h", "m", "s"];
    let is_at_start =
        |unit: &&str| text.get(..unit.len()).is_some_and(|text| text.eq_ignore_ascii_case(unit));
    UNITS.iter().find(|unit| is_at_start(unit)).map(|unit| unit.len())
}

const UUID_LENGTH: usize = 36;

fn is_uuid(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= UUID_LENGTH
        && bytes[..UUID_LENGTH].iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lexed(cql: &str) -> Vec<Token<'_>> {
        tokens(cql).unwrap()
    }

    #[test]
    fn strings_comments_and_quoted_names_hide_what_is_in_them() {
        use Token::*;
        assert_eq!(
            lexed("SELECT 'it''s ?' -- ?\n, $$ ? $$ /* ? */ , \"A \"\"?\" // ?"),
            [Word("SELECT"), Text, Symbol(','), Text, Symbol(','), Quoted("A \"\"?")]
        );
    }

    #[test]
    fn a_comment_ends_with_its_line_whatever_ends_that() {
        assert_eq!(lexed("a -- b\rc"), [Token::Word("a"), Token::Word("c")]);
        assert_eq!(lexed("a // b\nc"), [Token::Word("a"), Token::Word("c")]);
    }

    #[test]
    fn numbers_blobs_durations_and_uuids_are_one_token() {
        for one in [
            "1",
            "1.5e-3",
            "1E+5",
            "0xdeadbeef",
            "1h30m",
            "2y10mo3w4d5h6m7s8ms9us10ns",
            "1µs5ns",
            "a1b2c3d4-e5f6-4711-8888-0123456789ab",
        ] {
            assert_eq!(lexed(one), [Token::Number], "{one}");
        }
        assert_eq!(
            lexed("1AND 0xfIF 5e"),
            [
                Token::Number,
                Token::Word("AND"),
                Token::Number,
                Token::Word("IF"),
                Token::Number,
                Token::Word("e"),
            ]
        );
        assert_eq!(lexed("c-1"), [Token::Word("c"), Token::Symbol('-'), Token::Number]);
    }

    #[test]
    fn a_colon_is_a_marker_except_between_a_key_and_its_value() {
        use Token::*;
        assert_eq!(lexed("k = :key"), [Word("k"), Symbol('='), Marker(Some("key"))]);
        assert_eq!(lexed("TTL :ttl"), [Word("TTL"), Marker(Some("ttl"))]);
        assert_eq!(lexed("{'a':1}"), [Symbol('{'), Text, Symbol(':'), Number, Symbol('}')]);
        assert_eq!(lexed("{f:now}"), [Symbol('{'), Word("f"), Symbol(':'), Word("now"), Symbol('}')]);
        assert_eq!(
            lexed("{:k::v}"),
            [Symbol('{'), Marker(Some("k")), Symbol(':'), Marker(Some("v")), Symbol('}')]
        );
        assert_eq!(lexed(": key, :\"Key\""), [Marker(Some("key")), Symbol(','), Marker(Some("Key"))]);
        assert_eq!(tokens("k = :"), None);
    }

    #[test]
    fn what_does_not_end_is_no_statement() {
        for open in ["'a", "\"a", "$$a", "/* a", "'a''"] {
            assert_eq!(tokens(open), None, "{open}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(cql in "\\PC*", ascii in "[ -~\n]{0,60}") {
            for text in [&cql, &ascii] {
                let mut end = 0;
                let told = each(text, |_, at| {
                    assert!(end <= at.start && at.start < at.end, "tokens stand one after the other");
                    assert!(text.get(at.clone()).is_some(), "and between characters");
                    end = at.end;
                });
                assert_eq!(told.is_some(), tokens(text).is_some());
            }
        }
    }
}
