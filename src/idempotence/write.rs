//! What a single `INSERT`, `UPDATE` or `DELETE` does with its values.

use super::{
    Reason,
    analysis::{Analysis, Pending, Use, count_markers},
};
use crate::cql::Token;

/// An `INSERT`, `UPDATE` or `DELETE` that has `before` bind markers before it.
pub(super) fn write(tokens: &[Token<'_>], before: usize, analysis: &mut Analysis) {
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
        let changed = column(&self.tokens[from]);
        let own = |at: usize| changed.is_some() && self.tokens.get(at).and_then(column) == changed;
        match sign {
            Some(sign) if own(value) => self.changed(sign + 1, to, self.tokens[sign]),
            Some(sign) if own(to - 1) => self.changed(value, sign, self.tokens[sign]),
            // Another column's value: nothing that a server accepts today.
            Some(_) if name(&self.tokens[value]).is_some() || name(&self.tokens[to - 1]).is_some() => {
                self.analysis.doubt(Reason::UnknownColumn);
            }
            _ => self.written(value, to, changed.as_deref()),
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
