//! Atomics and locks: the standard library's, or loom's where a model of a core is checked.
//!
//! `RUSTFLAGS="--cfg palisade_loom" cargo test -p palisade --lib loom` runs the models. The `cfg` is this crate's own,
//! because `--cfg loom` would change tokio as well.

#[cfg(palisade_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
#[cfg(not(palisade_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

/// Locks, whether or not a thread has panicked while it held the lock. What is kept behind locks here is whole after each step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
