//! One state for all requests of a layer, or one for each key: a tenant, a table, a node.
//!
//! A layer that keeps states by key asks a function of yours for the key of a request. There is no limit to the keys
//! that requests can bring, so the states have one: at `max_keys` the ones that are used least make room, and
//! start afresh when they come back. A state that a call is using at that moment is never taken away, so that there can be as
//! many more as there are calls in flight.

use std::{fmt, hash::Hash, sync::Arc};

use crossbeam_utils::CachePadded;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, UnitWeighter, sync::Cache};

use crate::{
    ConfigError,
    handle::{Handle, Handles, handle_to},
};

/// Which of a layer's states a request belongs to: [`Single`] or [`PerKey`].
///
/// Layers implement their services for any partition of their requests; you will not need to name it.
#[diagnostic::on_unimplemented(
    message = "the layer's key function does not take a `{Req}`",
    note = "name the type of the request in the key function: `|request: &MyRequest| request.tenant`"
)]
pub trait Partition<Req> {
    /// What the layer keeps.
    type State;

    /// Calls `then` with a handle to the state of `request`, behind a padding that keeps the counts of threads apart.
    fn with<R>(&self, request: &Req, then: impl FnOnce(&Arc<CachePadded<Arc<Self::State>>>) -> R) -> R;
}

/// What layers keep states of, for themselves.
pub trait Keep {
    /// Whether it has to be kept however little it is used.
    fn keep(&self) -> bool {
        false
    }

    /// It is where others find it now.
    fn made(&self) {}
}

/// One state for all requests. Clones share it.
pub struct Single<V>(Handles<V>);

impl<V> Single<V> {
    pub(crate) fn new(state: V) -> Self {
        Self(Handles::new(state))
    }

    /// The state.
    pub(crate) fn state(&self) -> &Arc<V> {
        self.0.value()
    }
}

impl<V, Req> Partition<Req> for Single<V> {
    type State = V;

    #[inline]
    fn with<R>(&self, _: &Req, then: impl FnOnce(&Handle<V>) -> R) -> R {
        then(self.0.here())
    }
}

impl<V> Clone for Single<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V: fmt::Debug> fmt::Debug for Single<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state().fmt(f)
    }
}

/// A state for each key, at most so many. Clones share them.
pub struct PerKey<K, F, V> {
    states: Keyed<K, V>,
    key: F,
}

impl<K, F, V> PerKey<K, F, V>
where
    K: Eq + Hash + Clone,
    V: Keep,
{
    /// States that `make` makes for the keys that `key` tells.
    ///
    /// # Errors
    ///
    /// If `max_keys` is zero.
    pub(crate) fn new(
        max_keys: usize,
        key: F,
        make: impl Fn(&K) -> V + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        Ok(Self { states: Keyed::new(max_keys, make)?, key })
    }
}

impl<K, F, V> PerKey<K, F, V> {
    /// The states, without the function that tells the key: for a handle.
    pub(crate) const fn states(&self) -> &Keyed<K, V> {
        &self.states
    }
}

impl<K, F, V, Req> Partition<Req> for PerKey<K, F, V>
where
    K: Eq + Hash + Clone,
    F: Fn(&Req) -> K,
    V: Keep,
{
    type State = V;

    #[inline]
    fn with<R>(&self, request: &Req, then: impl FnOnce(&Handle<V>) -> R) -> R {
        then(&self.states.handle(&(self.key)(request)))
    }
}

impl<K, F: Clone, V> Clone for PerKey<K, F, V> {
    fn clone(&self) -> Self {
        Self { states: self.states.clone(), key: self.key.clone() }
    }
}

impl<K, F, V> fmt::Debug for PerKey<K, F, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.states.fmt(f)
    }
}

/// More are no bound: a state takes some hundred bytes at least.
const MOST_KEYS: usize = 10_000_000;

/// The states themselves: a bounded map.
pub(crate) struct Keyed<K, V>(Arc<States<K, V>>);

struct States<K, V> {
    cache: Cache<K, Handle<V>, UnitWeighter, DefaultHashBuilder, InUse>,
    make: Box<dyn Fn(&K) -> V + Send + Sync>,
}

impl<K: Eq + Hash + Clone, V: Keep> Keyed<K, V> {
    fn new(max_keys: usize, make: impl Fn(&K) -> V + Send + Sync + 'static) -> Result<Self, ConfigError> {
        if !(1..=MOST_KEYS).contains(&max_keys) {
            return Err(ConfigError::new(
                "max_keys",
                format!(
                    "is {max_keys}, but must be from 1 to 10,000,000: so many keys have their states kept"
                ),
            ));
        }
        // Shards of at least 256 keys: smaller ones fill up long before the map does. The cache rounds a shard's share
        // up, so that it is rounded down here.
        let shards = 1 << (max_keys / 256).clamp(1, 64).ilog2();
        let options = OptionsBuilder::new()
            .estimated_items_capacity(max_keys)
            .weight_capacity((max_keys / shards * shards) as u64)
            .shards(shards)
            .build()
            .map_err(|error| ConfigError::new("max_keys", format!("is {max_keys}: {error}")))?;
        let cache = Cache::with_options(options, UnitWeighter, DefaultHashBuilder::default(), InUse);
        Ok(Self(Arc::new(States { cache, make: Box::new(make) })))
    }

    /// The state of a key, made if there is none.
    pub(crate) fn get_or_make(&self, key: &K) -> Arc<V> {
        Arc::clone(&**self.handle(key))
    }

    fn handle(&self, key: &K) -> Handle<V> {
        if let Some(state) = self.0.cache.get(key) {
            return state;
        }
        let made = self.0.cache.get_or_insert_with(key, || {
            Ok::<_, std::convert::Infallible>(handle_to(Arc::new((self.0.make)(key))))
        });
        match made {
            Ok(state) => {
                state.made();
                state
            }
            Err(never) => match never {},
        }
    }

    /// The state of a key that has been seen, and is still kept.
    pub(crate) fn get(&self, key: &K) -> Option<Arc<V>> {
        self.0.cache.peek(key).map(|handle| Arc::clone(&**handle))
    }

    /// All keys and their states.
    pub(crate) fn all(&self) -> Vec<(K, Arc<V>)> {
        self.0.cache.iter().map(|(key, handle)| (key, Arc::clone(&**handle))).collect()
    }

    /// How many keys are kept.
    pub(crate) fn len(&self) -> usize {
        self.0.cache.len()
    }
}

impl<K, V> Clone for Keyed<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> fmt::Debug for Keyed<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerKey").finish_non_exhaustive()
    }
}

/// Keeps a state as long as a call holds it: a second state of the same key would admit as much again.
#[derive(Clone, Debug)]
struct InUse;

impl<K, V: Keep> Lifecycle<K, Handle<V>> for InUse {
    // What was evicted is dropped when the map's lock is not held any more: that may run code of others.
    type RequestState = Vec<(K, Handle<V>)>;

    fn on_evict(&self, evicted: &mut Self::RequestState, key: K, state: Handle<V>) {
        evicted.push((key, state));
    }

    fn is_pinned(&self, _: &K, state: &Handle<V>) -> bool {
        // By a call, or by an operator.
        Arc::strong_count(state) > 1 || Arc::strong_count(state.as_ref()) > 1 || state.keep()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    impl Keep for AtomicUsize {
        fn keep(&self) -> bool {
            self.load(SeqCst) == usize::MAX
        }
    }

    fn partition(max_keys: usize) -> PerKey<u32, fn(&u32) -> u32, AtomicUsize> {
        PerKey::new(max_keys, (|request: &u32| *request) as fn(&u32) -> u32, |_| AtomicUsize::new(0)).unwrap()
    }

    #[test]
    fn a_key_keeps_its_state_and_shares_it_with_clones() {
        let states = partition(10);
        states.with(&1, |state| state.fetch_add(1, SeqCst));
        states.clone().with(&1, |state| state.fetch_add(1, SeqCst));
        states.with(&2, |state| assert_eq!(state.load(SeqCst), 0));
        assert_eq!(states.states().get(&1).unwrap().load(SeqCst), 2);
        assert!(states.states().get(&3).is_none());
    }

    #[test]
    fn the_number_of_keys_is_bounded_whatever_requests_bring() {
        for max in [1, 10, 1_000, 10_000] {
            let states = partition(max);
            for key in 0..30_000 {
                states.with(&key, |_| ());
            }
            let kept = states.states().len();
            assert!(kept <= max && kept >= max / 2, "{kept} of {max}");
        }
    }

    #[test]
    fn a_state_that_is_in_use_is_never_replaced() {
        let states = partition(4);
        let held = states.with(&7, Arc::clone);
        for key in 100..10_000 {
            states.with(&key, |_| ());
        }
        assert!(states.with(&7, |state| Arc::ptr_eq(state, &held)));
    }

    #[test]
    fn a_state_that_is_to_be_kept_is_kept() {
        let states = partition(4);
        states.with(&7, |state| state.store(usize::MAX, SeqCst));
        for key in 100..10_000 {
            states.with(&key, |_| ());
        }
        assert!(states.states().get(&7).is_some());
    }

    #[test]
    fn no_key_at_all_and_no_bound_at_all_are_refused() {
        for max_keys in [0, usize::MAX] {
            let none = PerKey::new(max_keys, |request: &u32| *request, |_: &u32| AtomicUsize::new(0));
            assert_eq!(none.unwrap_err().setting(), "max_keys");
        }
    }
}
