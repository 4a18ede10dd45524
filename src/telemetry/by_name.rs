//! Values by names of which there are few.

use std::{fmt, sync::OnceLock};

/// There are 34 ways in which a call ends, and 49 names of operations.
const MOST: usize = 64;

/// Values by names of which there are few: a name is found by looking at one after the other, without a lock, and the ones that
/// are used most are usually the first. Nothing is ever taken out.
pub(super) struct ByName<V> {
    // Most have none.
    slots: OnceLock<Box<[Slot<V>]>>,
}

type Slot<V> = OnceLock<(&'static str, V)>;

impl<V> ByName<V> {
    pub(super) const fn new() -> Self {
        Self { slots: OnceLock::new() }
    }

    /// The value of a name, made if it is new. `None` if there are too many names.
    pub(super) fn get_or_make(&self, name: &'static str, make: impl Fn() -> V) -> Option<&V> {
        let slots = self.slots.get_or_init(|| (0..MOST).map(|_| OnceLock::new()).collect());
        slots.iter().find_map(|slot| {
            // Whoever comes first has an empty slot, and who comes second goes on to the next.
            let (kept, value) = slot.get_or_init(|| (name, make()));
            (*kept == name).then_some(value)
        })
    }
}

impl<V> fmt::Debug for ByName<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.slots.get().into_iter().flatten().filter_map(OnceLock::get).map(|(name, _)| name);
        f.debug_set().entries(names).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// A hundred names, of which it has room for sixty-four.
    fn names() -> Vec<&'static str> {
        (0..100).map(|number| &*number.to_string().leak()).collect()
    }

    #[test]
    fn a_name_keeps_its_value_and_there_are_so_many_at_most() {
        let (values, names) = (ByName::new(), names());
        for (number, name) in names.iter().enumerate() {
            let value = values.get_or_make(name, || number);
            assert_eq!(value, (number < MOST).then_some(&number));
        }
        assert_eq!(values.get_or_make(names[7], || 100), Some(&7));
    }

    #[test]
    fn threads_agree_about_the_value_of_a_name() {
        let (values, names) = (ByName::new(), names());
        let seen: Vec<Vec<_>> = std::thread::scope(|scope| {
            let all = |turn: usize| {
                let (values, names) = (&values, &names);
                move || {
                    let at = |number: usize| {
                        values.get_or_make(names[(number + turn) % 60], Box::<usize>::default)
                    };
                    (0..60)
                        .map(|number| at(number + 60 - turn).map(|value| &raw const **value as usize))
                        .collect()
                }
            };
            let threads: Vec<_> = (0..8).map(|turn| scope.spawn(all(turn * 7))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(seen.iter().all(|of_thread| *of_thread == seen[0]));
        assert_eq!(seen[0].iter().flatten().collect::<HashSet<_>>().len(), 60, "one slot a name");
    }
}
