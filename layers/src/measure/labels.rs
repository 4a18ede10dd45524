//! Series by the value of a label: the first values win, and the rest are counted together.

use std::{
    borrow::Cow,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use metrics::Label;

use super::series::Series;
use crate::{
    handle::Handles,
    sync::{Mutex, lock},
};

/// Tells the value of a label for a request: [`Unlabelled`], or the function that was given to
/// [`label_by`](super::MetricsBuilder::label_by). You will not need to name it.
#[diagnostic::on_unimplemented(
    message = "the function given to `label_by` does not take a `{Req}`",
    note = "name the type of the request in the function: `|request: &MyRequest| request.operation().into()`"
)]
pub trait LabelBy<Req> {
    /// The value for this request, if there is such a label.
    fn value<'r>(&self, request: &'r Req) -> Option<Cow<'r, str>>;
}

/// No label comes from the request.
#[derive(Clone, Copy, Debug)]
pub struct Unlabelled;

impl<Req> LabelBy<Req> for Unlabelled {
    #[inline]
    fn value<'r>(&self, _: &'r Req) -> Option<Cow<'r, str>> {
        None
    }
}

/// A label whose value a function tells.
#[derive(Clone, Copy)]
pub struct ByRequest<F>(pub(super) F);

impl<F, Req> LabelBy<Req> for ByRequest<F>
where
    F: Fn(&Req) -> Cow<'_, str>,
{
    #[inline]
    fn value<'r>(&self, request: &'r Req) -> Option<Cow<'r, str>> {
        Some((self.0)(request))
    }
}

impl<F> fmt::Debug for ByRequest<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByRequest")
    }
}

/// The value of what has too many values.
pub(super) const OTHER: &str = "other";

/// All series of a layer. Nothing is ever taken out, so that a reader needs no lock: a slot is empty or final.
pub(super) struct Book<C> {
    classifier: Arc<C>,
    labels: Vec<Label>,
    key: &'static str,
    hasher: RandomState,
    // Twice as many as values, in a power of two: a search soon comes to an empty one.
    slots: Box<[Slot<C>]>,
    max_values: usize,
    values: Mutex<usize>,
    full: AtomicBool,
    // Of calls without a value, or with one too many.
    rest: Handles<Series<C>>,
}

/// A value and its series.
type Slot<C> = OnceLock<(Box<str>, Handles<Series<C>>)>;

impl<C> Book<C> {
    /// A book for a label `key` of so many values.
    pub(super) fn new(classifier: C, labels: Vec<Label>, key: &'static str, max_values: usize) -> Self {
        let classifier = Arc::new(classifier);
        let rest = Series::new(Arc::clone(&classifier), with(&labels, key, OTHER));
        let slots = (0..(max_values * 2).next_power_of_two()).map(|_| OnceLock::new()).collect();
        Self {
            classifier,
            labels,
            key,
            hasher: RandomState::new(),
            slots,
            max_values,
            values: Mutex::new(0),
            full: AtomicBool::new(false),
            rest: Handles::new(rest),
        }
    }

    /// A book without such a label, of one series.
    pub(super) fn unlabelled(classifier: C, labels: Vec<Label>) -> Self {
        let classifier = Arc::new(classifier);
        let rest = Handles::new(Series::new(Arc::clone(&classifier), labels.clone()));
        Self {
            classifier,
            labels,
            key: "",
            hasher: RandomState::new(),
            slots: Box::default(),
            max_values: 0,
            values: Mutex::new(0),
            full: AtomicBool::new(true),
            rest,
        }
    }

    #[inline]
    pub(super) fn rest(&self) -> &Handles<Series<C>> {
        &self.rest
    }

    /// The series of a value, made if there is room for one more.
    pub(super) fn series(&self, value: &str) -> &Handles<Series<C>> {
        match self.find(value) {
            Found::Series(series) => series,
            // A value too many is found to be so without a lock, for ever after the first.
            Found::Empty(_) if self.full.load(Relaxed) => &self.rest,
            Found::Empty(_) => self.add(value),
        }
    }

    #[cold]
    fn add(&self, value: &str) -> &Handles<Series<C>> {
        let mut values = lock(&self.values);
        // Only who holds the lock fills slots; another may have done so since.
        let slot = match self.find(value) {
            Found::Series(series) => return series,
            Found::Empty(slot) => slot,
        };
        if *values == self.max_values {
            let first = !self.full.swap(true, Relaxed);
            drop(values);
            if first {
                tracing::debug!(
                    label = self.key,
                    max_values = self.max_values,
                    "a label has more values than it may: from now on new ones are counted as `other`"
                );
            }
            return &self.rest;
        }
        *values += 1;
        let made = || {
            let series = Series::new(Arc::clone(&self.classifier), with(&self.labels, self.key, value));
            (value.into(), Handles::new(series))
        };
        &slot.get_or_init(made).1
    }

    fn find(&self, value: &str) -> Found<'_, C> {
        let mask = self.slots.len() - 1;
        #[expect(clippy::cast_possible_truncation, reason = "the lower bits of a hash are as good as all")]
        let mut at = self.hasher.hash_one(value) as usize & mask;
        loop {
            let slot = &self.slots[at];
            match slot.get() {
                Some((kept, series)) if **kept == *value => return Found::Series(series),
                // At least half of the slots are empty.
                Some(_) => at = (at + 1) & mask,
                None => return Found::Empty(slot),
            }
        }
    }
}

enum Found<'a, C> {
    Series(&'a Handles<Series<C>>),
    Empty(&'a Slot<C>),
}

fn with(labels: &[Label], key: &'static str, value: &str) -> Vec<Label> {
    let mut labels = labels.to_vec();
    labels.push(Label::new(key, value.to_owned()));
    labels
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::ByError;

    fn book(max_values: usize) -> Book<ByError> {
        Book::new(ByError, Vec::new(), "operation", max_values)
    }

    #[test]
    fn the_first_values_win_and_the_rest_are_counted_together() {
        let book = book(2);
        let (a, b) = (Arc::clone(book.series("a").value()), Arc::clone(book.series("b").value()));
        assert!(!Arc::ptr_eq(&a, &b));
        assert!(Arc::ptr_eq(book.series("c").value(), book.rest().value()));
        assert!(Arc::ptr_eq(book.series("d").value(), book.rest().value()));
        assert!(Arc::ptr_eq(book.series("a").value(), &a) && Arc::ptr_eq(book.series("b").value(), &b));
    }

    #[test]
    fn threads_agree_about_who_came_first() {
        let book = book(16);
        let seen: Vec<Vec<_>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        (0..64)
                            .map(|value| Arc::as_ptr(book.series(&value.to_string()).value()) as usize)
                            .collect()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let rest = Arc::as_ptr(book.rest().value()) as usize;
        for value in 0..64 {
            let mut series: Vec<_> = seen.iter().map(|seen| seen[value]).filter(|at| *at != rest).collect();
            series.dedup();
            assert!(series.len() <= 1, "two series of one value");
        }
        assert_eq!(*book.values.lock().unwrap(), 16);
    }

    proptest! {
        /// Beside a map that stops to grow.
        #[test]
        fn the_book_agrees_with_a_plain_map(
            max_values in 1..12usize,
            values in prop::collection::vec("[a-e]{0,2}", 0..200),
        ) {
            let book = book(max_values);
            let mut model: HashMap<String, usize> = HashMap::new();
            for value in values {
                let series = Arc::as_ptr(book.series(&value).value()) as usize;
                if let Some(known) = model.get(&value) {
                    prop_assert_eq!(*known, series);
                } else if model.len() < max_values {
                    prop_assert!(!model.values().any(|known| *known == series));
                    model.insert(value, series);
                } else {
                    prop_assert_eq!(series, Arc::as_ptr(book.rest().value()) as usize);
                }
            }
        }
    }
}
