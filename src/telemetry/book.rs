//! The series of a layer: the first operations have their own, and the rest are counted together by their verbs.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use metrics::Label;

use super::{by_name::ByName, name::OperationName, series::Series};
use crate::cql::{OTHER, Subject};

/// Tells layers apart in what their operations share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BookId(u64);

impl BookId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Relaxed))
    }
}

/// All series of a layer. Nothing is ever taken out, so that a reader needs no lock: a slot is empty or final.
pub(super) struct Book {
    id: BookId,
    labels: Vec<Label>,
    hasher: RandomState,
    // Twice as many as operations, in a power of two: a search soon comes to an empty one.
    slots: Box<[OnceLock<Box<Entry>>]>,
    max_operations: usize,
    operations: Mutex<usize>,
    full: AtomicBool,
    // Of operations that are too many, by their verbs.
    rest: ByName<Arc<Series>>,
    unnamed: Arc<Series>,
}

struct Entry {
    subject: Subject,
    series: Arc<Series>,
}

impl Book {
    pub(super) fn new(max_operations: usize, labels: Vec<Label>) -> Self {
        Self {
            id: BookId::next(),
            hasher: RandomState::new(),
            slots: (0..(max_operations * 2).next_power_of_two()).map(|_| OnceLock::new()).collect(),
            max_operations,
            operations: Mutex::new(0),
            full: AtomicBool::new(false),
            rest: ByName::new(),
            unnamed: Arc::new(Series::new(&other(OTHER), &labels)),
            labels,
        }
    }

    /// The series of an operation, made if there is room for one more.
    #[inline]
    pub(super) fn series<'a>(&'a self, operation: &'a OperationName) -> &'a Arc<Series> {
        match operation.series().get() {
            Some((id, series)) if *id == self.id => series,
            _ => self.look_up(operation),
        }
    }

    /// The series of an operation that is new here, or that another layer was the first to ask for.
    #[cold]
    fn look_up<'a>(&'a self, operation: &'a OperationName) -> &'a Arc<Series> {
        let subject = operation.subject();
        let series = match self.find(subject) {
            Found::Series(series) => series,
            // An operation too many is found to be so without a lock, for ever after the first.
            Found::Empty(_) if self.full.load(Acquire) => self.rest(subject),
            Found::Empty(_) => self.add(subject),
        };
        let _ = operation.series().set((self.id, Arc::clone(series)));
        series
    }

    fn add(&self, subject: &Subject) -> &Arc<Series> {
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        // Only who holds the lock fills slots; another may have done so since.
        let slot = match self.find(subject) {
            Found::Series(series) => return series,
            Found::Empty(slot) => slot,
        };
        if *operations == self.max_operations {
            let first = !self.full.swap(true, Release);
            drop(operations);
            if first {
                tracing::warn!(
                    max_operations = self.max_operations,
                    "there are more operations than may have metrics of their own: from now on new ones are counted \
                     by their verbs; raise `max_operations`, or find out why tables come and go"
                );
            }
            return self.rest(subject);
        }
        *operations += 1;
        let made = || {
            let series = Arc::new(Series::new(subject, &self.labels));
            Box::new(Entry { subject: subject.clone(), series })
        };
        &slot.get_or_init(made).series
    }

    fn find(&self, subject: &Subject) -> Found<'_> {
        let mask = self.slots.len() - 1;
        #[expect(clippy::cast_possible_truncation, reason = "the lower bits of a hash are as good as all")]
        let mut at = self.hasher.hash_one(subject) as usize & mask;
        loop {
            let slot = &self.slots[at];
            match slot.get() {
                Some(entry) if entry.subject == *subject => return Found::Series(&entry.series),
                // At least half of the slots are empty.
                Some(_) => at = (at + 1) & mask,
                None => return Found::Empty(slot),
            }
        }
    }

    fn rest(&self, subject: &Subject) -> &Arc<Series> {
        let make = || Arc::new(Series::new(&other(subject.name), &self.labels));
        self.rest.get_or_make(subject.name, make).unwrap_or(&self.unnamed)
    }
}

/// Operations of this name on any other tables.
fn other(name: &'static str) -> Subject {
    Subject { name, keyspace: Some(OTHER.to_owned()), table: Some(OTHER.to_owned()) }
}

enum Found<'a> {
    Series(&'a Arc<Series>),
    Empty(&'a OnceLock<Box<Entry>>),
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Book").field("max_operations", &self.max_operations).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::idempotence::analyze;

    fn operation(verb: &str, table: &str) -> Arc<OperationName> {
        let cql = match verb {
            "SELECT" => format!("SELECT * FROM app.{table}"),
            _ => format!("DELETE FROM app.{table} WHERE k = 1"),
        };
        OperationName::of_text(&analyze(&cql), None)
    }

    #[test]
    fn the_first_operations_win_and_the_rest_are_counted_by_their_verbs() {
        let book = Book::new(2, Vec::new());
        let at = |verb, table| Arc::as_ptr(book.series(&operation(verb, table)));
        let (a, b) = (at("SELECT", "a"), at("DELETE", "a"));
        assert_ne!(a, b);
        let (selects, deletes) = (at("SELECT", "b"), at("DELETE", "b"));
        assert_ne!(selects, deletes);
        assert_eq!((at("SELECT", "c"), at("DELETE", "c")), (selects, deletes));
        assert_eq!((at("SELECT", "a"), at("DELETE", "a")), (a, b));
    }

    #[test]
    fn layers_have_series_of_their_own_for_what_they_share() {
        let (one, two) = (Book::new(9, Vec::new()), Book::new(9, Vec::new()));
        let shared = operation("SELECT", "a");
        assert!(!Arc::ptr_eq(one.series(&shared), two.series(&shared)));
        for book in [&one, &two] {
            assert!(Arc::ptr_eq(book.series(&shared), book.series(&shared)));
            assert!(Arc::ptr_eq(book.series(&shared), book.series(&operation("SELECT", "a"))));
        }
    }

    #[test]
    fn threads_agree_about_who_came_first() {
        let book = Book::new(16, Vec::new());
        let seen: Vec<Vec<usize>> = std::thread::scope(|scope| {
            let all = || {
                let at = |table: usize| Arc::as_ptr(book.series(&operation("SELECT", &format!("t{table}"))));
                (0..64).map(|table| at(table) as usize).collect()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(all)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let rest = Arc::as_ptr(book.rest(operation("SELECT", "t").subject())) as usize;
        for table in 0..64 {
            let mut series: Vec<_> = seen.iter().map(|seen| seen[table]).filter(|at| *at != rest).collect();
            series.dedup();
            assert!(series.len() <= 1, "two series of one operation");
        }
        assert_eq!(*book.operations.lock().unwrap(), 16);
    }

    proptest! {
        /// Beside a map that stops to grow.
        #[test]
        fn the_book_agrees_with_a_plain_map(
            max_operations in 1..12_usize,
            tables in prop::collection::vec("[a-e]{1,2}", 0..200),
        ) {
            let book = Book::new(max_operations, Vec::new());
            let mut model: HashMap<String, *const Series> = HashMap::new();
            for table in tables {
                let operation = operation("SELECT", &table);
                let series = Arc::as_ptr(book.series(&operation));
                if let Some(known) = model.get(&table) {
                    prop_assert_eq!(*known, series);
                } else if model.len() < max_operations {
                    prop_assert!(!model.values().any(|known| *known == series));
                    model.insert(table, series);
                } else {
                    prop_assert_eq!(series, Arc::as_ptr(book.rest(operation.subject())));
                }
            }
        }
    }
}
