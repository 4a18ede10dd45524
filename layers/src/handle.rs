//! Handles to a shared value that threads count apart.
//!
//! A call that holds what its layer shares counts itself in and out. If all threads do that in one place, each waits for the
//! others' caches: at a hundred nanoseconds or so each time, on some machines, that is most of what a stack costs. So a value has a
//! few handles, each with a count in a cache line of its own, and a thread uses the one that falls to it.

use std::{
    cell::Cell,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crossbeam_utils::CachePadded;

/// More threads than this share handles, which is slower and does no harm.
pub(crate) const HANDLES: usize = 16;

/// Holds the value. The padding keeps the count apart from what is read.
pub(crate) type Handle<T> = Arc<CachePadded<Arc<T>>>;

/// A handle of its own.
pub(crate) fn handle_to<T>(value: Arc<T>) -> Handle<T> {
    Arc::new(CachePadded::new(value))
}

/// A shared value and its handles. Clones have the same ones.
pub(crate) struct Handles<T>(Arc<Inner<T>>);

struct Inner<T> {
    value: Arc<T>,
    // Made when a thread first asks.
    handles: [OnceLock<Handle<T>>; HANDLES],
}

impl<T> Handles<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new(Inner { value: Arc::new(value), handles: [const { OnceLock::new() }; HANDLES] }))
    }

    /// The value, for those who hold it for long.
    pub(crate) fn value(&self) -> &Arc<T> {
        &self.0.value
    }

    /// The handle of this thread.
    #[inline]
    pub(crate) fn here(&self) -> &Handle<T> {
        self.0.handles[handle_of_thread()].get_or_init(|| handle_to(Arc::clone(&self.0.value)))
    }
}

impl<T> Clone for Handles<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The number of this thread's handle. Threads take them in turns, as they come.
#[inline]
pub(crate) fn handle_of_thread() -> usize {
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(NEXT.fetch_add(1, Relaxed) % HANDLES);
        }
        number.get()
    })
}

#[cfg(all(test, not(palisade_loom)))]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_thread_keeps_its_handle_and_all_lead_to_one_value() {
        let handles = Handles::new(7);
        let at = |handle: &Handle<i32>| Arc::as_ptr(handle) as usize;
        assert_eq!(at(handles.here()), at(handles.clone().here()));
        let others: HashSet<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| at(handles.here()))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect()
        });
        assert!(others.len() >= 7, "{} handles for eight threads", others.len());
        assert!(Arc::ptr_eq(handles.here(), handles.here()));
        assert!(Arc::ptr_eq(handles.value(), &***handles.here()));
    }

    #[test]
    fn the_value_goes_with_the_last_who_holds_it() {
        let handles = Handles::new(());
        let (value, held) = (Arc::downgrade(handles.value()), Arc::clone(handles.here()));
        drop(handles);
        assert!(value.upgrade().is_some());
        drop(held);
        assert!(value.upgrade().is_none());
    }
}
