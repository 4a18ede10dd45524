//! What a span tells of a statement's text.

use crate::{
    cql::{truncate, without_literals},
    request::Request,
};

/// What of a statement's text is told by its span, as `db.query.text`. At most 4,096 bytes of it are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryText {
    /// Nothing.
    #[default]
    Off,
    /// The text, with `?` in place of each value that is written into it, and without comments. A text with a string that does not
    /// end is left out as a whole. What stands without quotes where a value should is taken for a name, and told: no server
    /// would take it for anything else.
    WithoutLiterals,
    /// The text as it is, with all values that are written into it. Those that are bound to it are never told.
    WithLiterals,
}

/// More help nobody, and a batch can have a thousand members.
const LONGEST: usize = 4_096;

impl QueryText {
    /// What is told of the statements of a request: the one text that they share, or one after the other.
    pub(super) fn of(self, request: &Request) -> Option<String> {
        match self {
            Self::Off => None,
            Self::WithoutLiterals => joined(request.texts(), |text| without_literals(text, LONGEST)),
            Self::WithLiterals => joined(request.texts(), |text| Some(head(text).to_owned())),
        }
    }
}

/// As much of a text as may be told, and a little more.
fn head(text: &str) -> &str {
    text.char_indices().nth(LONGEST + 1).map_or(text, |(end, _)| &text[..end])
}

fn joined<'a>(texts: impl Iterator<Item = &'a str>, told: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut texts = texts.peekable();
    let first = *texts.peek()?;
    let mut all = String::new();
    let mut before = None;
    for text in texts {
        if all.len() > LONGEST {
            break;
        }
        // Members with the same text as the first stand once.
        if before.is_some() && text == first {
            continue;
        }
        if before.is_some() {
            all.push_str("; ");
        }
        all.push_str(&told(text)?);
        before = Some(text);
    }
    truncate(&mut all, LONGEST);
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: QueryText, cql: &str) -> Option<String> {
        text.of(&Request::text(cql))
    }

    #[test]
    fn a_text_is_told_as_asked() {
        let cql = "SELECT a FROM t WHERE k = 'secret' -- mine";
        assert_eq!(told(QueryText::default(), cql), None);
        assert_eq!(told(QueryText::WithoutLiterals, cql).as_deref(), Some("SELECT a FROM t WHERE k = ?"));
        assert_eq!(told(QueryText::WithLiterals, cql).as_deref(), Some(cql));
        assert_eq!(told(QueryText::WithoutLiterals, "SELECT 'secret"), None);
    }

    #[test]
    fn members_of_a_batch_stand_one_after_the_other_and_equal_ones_once() {
        let as_is = |texts: &[&str]| joined(texts.iter().copied(), |text| Some(text.to_owned()));
        assert_eq!(as_is(&["a"; 1_000]).as_deref(), Some("a"));
        assert_eq!(as_is(&["a", "b", "a"]).as_deref(), Some("a; b"));
        assert_eq!(as_is(&[]), None);
        assert_eq!(as_is(&[&"ä".repeat(LONGEST)]).map(|text| text.len()), Some(LONGEST));
        let many: Vec<_> = (0..100_000).map(|number| format!("SELECT {number}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(as_is(&many).map(|text| text.len()), Some(LONGEST));
    }
}
