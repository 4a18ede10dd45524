//! What the types of a prepared statement's bind markers add to the analysis of its text.

use scylla::{
    cluster::ClusterState,
    frame::response::result::{CollectionType, ColumnSpec, ColumnType, NativeType},
};

use super::{
    Reason, Verdict,
    analysis::{Analysis, Pending, Use},
};

/// The verdict on a statement whose bind markers these are.
///
/// The description of a bind marker does not say whether a collection is frozen; the schema does, where it is known.
pub(crate) fn refine(
    statement: &Analysis,
    markers: &[ColumnSpec<'_>],
    schema: Option<&ClusterState>,
) -> Verdict {
    refine_by(statement, markers, |pending, marker| {
        let column = pending.column.as_deref()?;
        let table = marker.table_spec();
        let table = schema?.get_keyspace(table.ks_name())?.tables.get(table.table_name())?;
        let column = table.columns.get(column)?;
        Some(matches!(column.typ, ColumnType::Collection { frozen: true, .. }))
    })
}

fn refine_by(
    statement: &Analysis,
    markers: &[ColumnSpec<'_>],
    is_frozen: impl Fn(&Pending, &ColumnSpec<'_>) -> Option<bool>,
) -> Verdict {
    statement.pending().iter().fold(statement.settled(), |sum, pending| {
        // Some servers describe a name that stands twice only once.
        let column = match &pending.name {
            Some(name) if markers.len() != statement.markers() => {
                markers.iter().find(|marker| marker.name().eq_ignore_ascii_case(name))
            }
            _ if markers.len() == statement.markers() => markers.get(pending.marker),
            _ => None,
        };
        let reason = match column {
            Some(column) if is_frozen(pending, column) == Some(true) => None,
            Some(column) => judge(pending.usage, column),
            None => Some(Reason::NotUnderstood),
        };
        reason.map_or(sum, |reason| sum.and(Verdict::because(reason)))
    })
}

fn judge(usage: Use, column: &ColumnSpec<'_>) -> Option<Reason> {
    let shape = Shape::of(column.typ());
    match (usage, shape) {
        (Use::Added | Use::Removed | Use::Written, Shape::Counter) => Some(Reason::Counter),
        (Use::Added, Shape::List) => Some(Reason::ListAppend),
        (Use::Removed, Shape::List) => Some(Reason::ListRemoval),
        (Use::Written, Shape::List) => Some(Reason::WholeList),
        (Use::Added | Use::Removed, Shape::SetOrMap) | (Use::Written, _) => None,
        (Use::Added | Use::Removed, Shape::Other { .. }) => Some(Reason::UnknownColumn),
        (Use::SetElement, shape) => shape.is_index(column).then_some(Reason::ListElementSet),
        (Use::DeletedElement, shape) => shape.is_index(column).then(|| {
            // Without the server's word that it is an index, it may be the key of a map.
            if is_named_index(column) { Reason::ListElementDeleted } else { Reason::UnknownColumn }
        }),
    }
}

#[derive(Clone, Copy)]
enum Shape {
    Counter,
    /// A list of which each element is a cell. A frozen list is one value like any other.
    List,
    SetOrMap,
    Other {
        is_int: bool,
    },
}

impl Shape {
    fn of(typ: &ColumnType<'_>) -> Self {
        match typ {
            ColumnType::Native(NativeType::Counter) => Self::Counter,
            ColumnType::Collection { frozen: false, typ: CollectionType::List(_) } => Self::List,
            ColumnType::Collection { typ: CollectionType::Set(_) | CollectionType::Map(..), .. } => {
                Self::SetOrMap
            }
            other => Self::Other { is_int: matches!(other, ColumnType::Native(NativeType::Int)) },
        }
    }

    /// Whether what stands in the brackets may be the index of a list.
    fn is_index(self, column: &ColumnSpec<'_>) -> bool {
        let is_key = column.name().starts_with("key(") || column.name().starts_with("value(");
        matches!(self, Self::Other { is_int: true }) && !is_key
    }
}

/// Servers call the marker of a list's index `idx(column)`, that of a map's key `key(column)`, and that of a set's
/// element `value(column)`.
fn is_named_index(column: &ColumnSpec<'_>) -> bool {
    column.name().starts_with("idx(")
}

#[cfg(test)]
mod tests {
    use palisade::Idempotence;
    use scylla::frame::response::result::TableSpec;

    use super::{super::analyze, *};

    fn marker(name: &str, typ: ColumnType<'static>) -> ColumnSpec<'static> {
        ColumnSpec::owned(name.to_owned(), typ, TableSpec::owned("app".to_owned(), "t".to_owned()))
    }

    fn collection(frozen: bool, typ: CollectionType<'static>) -> ColumnType<'static> {
        ColumnType::Collection { frozen, typ }
    }

    fn list(frozen: bool) -> ColumnType<'static> {
        collection(frozen, CollectionType::List(Box::new(INT)))
    }

    fn set() -> ColumnType<'static> {
        collection(false, CollectionType::Set(Box::new(INT)))
    }

    const INT: ColumnType<'static> = ColumnType::Native(NativeType::Int);
    const COUNTER: ColumnType<'static> = ColumnType::Native(NativeType::Counter);

    fn reason(cql: &str, markers: &[ColumnSpec<'_>]) -> Option<Reason> {
        refine(&analyze(cql), markers, None).reason()
    }

    #[test]
    fn the_type_of_a_marker_tells_what_a_plus_does() {
        let added = |typ| reason("UPDATE t SET v = v + ? WHERE k = ?", &[marker("v", typ), marker("k", INT)]);
        assert_eq!(added(COUNTER), Some(Reason::Counter));
        assert_eq!(added(list(false)), Some(Reason::ListAppend));
        assert_eq!(added(set()), None);
        assert_eq!(added(INT), Some(Reason::UnknownColumn));
        let prepended = reason("UPDATE t SET v = ? + v WHERE k = 1", &[marker("v", list(false))]);
        assert_eq!(prepended, Some(Reason::ListAppend));
    }

    #[test]
    fn the_type_of_a_marker_tells_what_a_minus_does() {
        let removed = |typ| reason("UPDATE t SET v -= ? WHERE k = 1", &[marker("v", typ)]);
        assert_eq!(removed(COUNTER), Some(Reason::Counter));
        assert_eq!(removed(list(false)), Some(Reason::ListRemoval));
        assert_eq!(removed(set()), None);
    }

    #[test]
    fn a_whole_list_is_not_repeated_and_never_stamped_unless_it_is_frozen() {
        for cql in ["INSERT INTO t (k, v) VALUES (1, ?)", "UPDATE t SET v = ? WHERE k = 1"] {
            let verdict = refine(&analyze(cql), &[marker("v", list(false))], None);
            assert_eq!(verdict.idempotence(), Idempotence::Unknown);
            assert!(!verdict.can_be_stamped());
            let verdict = refine(&analyze(cql), &[marker("v", list(true))], None);
            assert_eq!(verdict.idempotence(), Idempotence::Yes);
            assert!(verdict.can_be_stamped());
        }
    }

    #[test]
    fn the_schema_tells_which_list_is_frozen_by_the_column_that_is_written() {
        let columns = |cql: &str| {
            let statement = analyze(cql);
            let count = statement.markers();
            let specs: Vec<_> = (0..count).map(|at| marker(&format!("m{at}"), list(false))).collect();
            let seen = std::cell::RefCell::new(Vec::new());
            let verdict = refine_by(&statement, &specs, |pending, _| {
                seen.borrow_mut().push(pending.column.clone());
                Some(pending.column.as_deref() == Some("f"))
            });
            (seen.into_inner(), verdict.reason())
        };
        let named =
            |names: &[Option<&str>]| names.iter().map(|name| name.map(str::to_owned)).collect::<Vec<_>>();
        assert_eq!(columns("UPDATE t SET f = ? WHERE k = ?"), (named(&[Some("f")]), None));
        assert_eq!(
            columns("INSERT INTO t (f, \"f\") VALUES (?, :f)"),
            (named(&[Some("f"), Some("f")]), None)
        );
        assert_eq!(
            columns("INSERT INTO t (k, l, f) VALUES (1, ?, ?)"),
            (named(&[Some("l"), Some("f")]), Some(Reason::WholeList))
        );
        assert_eq!(
            columns("INSERT INTO t (k, d, m, f) VALUES (1, toDate(?), {1: f(?, 1)}, ?)").0,
            named(&[None, None, Some("f")])
        );
        // A part of a value is not the column's value.
        assert_eq!(columns("INSERT INTO t (f) VALUES ({1: ?})"), (named(&[None]), Some(Reason::WholeList)));
    }

    #[test]
    fn an_index_of_a_list_is_told_from_a_key_of_a_map() {
        let deleted = |name, typ| reason("DELETE v[?] FROM t WHERE k = 1", &[marker(name, typ)]);
        assert_eq!(deleted("idx(v)", INT), Some(Reason::ListElementDeleted));
        assert_eq!(deleted("key(v)", INT), None);
        assert_eq!(deleted("value(v)", INT), None);
        assert_eq!(deleted("named", INT), Some(Reason::UnknownColumn));
        assert_eq!(deleted("named", ColumnType::Native(NativeType::Text)), None);

        let set =
            |name| reason("UPDATE t SET v[?] = ? WHERE k = 1", &[marker(name, INT), marker("value(v)", INT)]);
        assert_eq!(set("idx(v)"), Some(Reason::ListElementSet));
        assert_eq!(set("key(v)"), None);
    }

    #[test]
    fn a_name_that_stands_twice_is_found_however_the_server_describes_it() {
        let cql = "UPDATE t SET v = v + :n, w = w + :n WHERE k = :k";
        let once = [marker("n", COUNTER), marker("k", INT)];
        let each = [marker("n", COUNTER), marker("n", COUNTER), marker("k", INT)];
        assert_eq!(reason(cql, &once), Some(Reason::Counter));
        assert_eq!(reason(cql, &each), Some(Reason::Counter));
    }

    #[test]
    fn markers_that_do_not_match_the_text_prove_nothing() {
        let cql = "UPDATE t SET v = v + ? WHERE k = ?";
        assert_eq!(reason(cql, &[marker("v", set())]), Some(Reason::NotUnderstood));
    }
}
