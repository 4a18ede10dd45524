//! Whether a call is dropped because another attempt of its request was faster.
//!
//! What is dropped cannot be told why, and a loser is no bad sign: a hedge says so while it drops one, and a breaker asks.

use std::cell::Cell;

thread_local! {
    static SUPERSEDED: Cell<bool> = const { Cell::new(false) };
}

/// Drops the loser of two attempts: everything in it is superseded.
pub(crate) fn drop_loser<T>(drop: impl FnOnce() -> T) -> T {
    let restore = Restore(SUPERSEDED.replace(true));
    let output = drop();
    std::mem::drop(restore);
    output
}

/// Whether what is being dropped on this thread, at this moment, is the loser of a [hedge](crate::hedge): the other attempt was faster.
///
/// For the `Drop` of a layer's future, where a call that was given up counts for something: a loser tells nothing of the service.
pub fn is_superseded() -> bool {
    SUPERSEDED.get()
}

struct Restore(bool);

impl Drop for Restore {
    fn drop(&mut self) {
        SUPERSEDED.set(self.0);
    }
}
