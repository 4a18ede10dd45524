use std::{fmt, hash::Hash, num::NonZeroU32, sync::Arc, time::Duration};

use tower::Layer;

use super::{Bulkhead, ConcurrencyLimit, ConcurrencyLimitSnapshot, bulkhead::Shared};
use crate::{
    ConfigError,
    keyed::{Keyed, PerKey, Single},
    until::{ByDeadline, NoDeadline},
};

/// Limits how many calls are in flight. See the [module](super) for more.
///
/// Clones, and all services made by them, share the limit.
#[derive(Clone)]
pub struct ConcurrencyLimitLayer<P = Single<Bulkhead>, D = NoDeadline> {
    bulkhead: P,
    shared: Arc<Shared>,
    until: D,
}

/// A [`ConcurrencyLimitLayer`] with a limit for each key.
pub type KeyedConcurrencyLimitLayer<K, F, D = NoDeadline> = ConcurrencyLimitLayer<PerKey<K, F, Bulkhead>, D>;

impl ConcurrencyLimitLayer {
    /// So many calls in flight at most; for the rest the default settings.
    pub fn new(limit: NonZeroU32) -> Self {
        Self::builder().limit(limit.get()).single()
    }

    /// A layer with other settings than the default ones. The limit has to be set.
    pub const fn builder() -> ConcurrencyLimitBuilder {
        ConcurrencyLimitBuilder {
            limit: 0,
            max_waiting: 1_000,
            queue_timeout: Duration::from_secs(1),
            until: NoDeadline,
            name: "concurrency_limit",
        }
    }
}

impl<P, D> ConcurrencyLimitLayer<P, D> {
    /// Reads the deadline of its requests, which have to know theirs: see [`ConcurrencyLimitBuilder::deadline_aware`].
    pub fn deadline_aware(self) -> ConcurrencyLimitLayer<P, ByDeadline> {
        ConcurrencyLimitLayer { bulkhead: self.bulkhead, shared: self.shared, until: ByDeadline }
    }
}

impl<D> ConcurrencyLimitLayer<Single<Bulkhead>, D> {
    /// Reads what is in flight, and changes the limit while it is in use.
    pub fn handle(&self) -> ConcurrencyLimitHandle {
        ConcurrencyLimitHandle { bulkhead: self.bulkhead.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<K, F, D> KeyedConcurrencyLimitLayer<K, F, D>
where
    K: Eq + Hash + Clone,
{
    /// Reads what is in flight, and changes the limit while it is in use.
    pub fn handle(&self) -> KeyedConcurrencyLimitHandle<K> {
        KeyedConcurrencyLimitHandle {
            bulkheads: self.bulkhead.states().clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<S, P: Clone, D: Clone> Layer<S> for ConcurrencyLimitLayer<P, D> {
    type Service = ConcurrencyLimit<S, P, D>;

    fn layer(&self, inner: S) -> ConcurrencyLimit<S, P, D> {
        ConcurrencyLimit::new(inner, self.bulkhead.clone(), self.until.clone())
    }
}

impl<P: fmt::Debug, D> fmt::Debug for ConcurrencyLimitLayer<P, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimitLayer")
            .field("bulkhead", &self.bulkhead)
            .field("max_waiting", &self.shared.max_waiting)
            .field("queue_timeout", &self.shared.queue_timeout)
            .finish_non_exhaustive()
    }
}

/// Reads a concurrency limit and changes it while it is in use. Clones are handles to the same one.
#[derive(Clone)]
pub struct ConcurrencyLimitHandle {
    bulkhead: Single<Bulkhead>,
    shared: Arc<Shared>,
}

impl ConcurrencyLimitHandle {
    /// Sets the limit, from 1 to 1,000,000. Raised, it lets those in line go on; lowered, it lets those in flight finish.
    ///
    /// # Errors
    ///
    /// If the limit is out of its range; nothing changes then.
    pub fn set_limit(&self, limit: u32) -> Result<(), ConfigError> {
        check(limit)?;
        self.shared.set_limit(limit);
        self.bulkhead.state().hand_out();
        Ok(())
    }

    /// What is in flight now, and what became of the calls so far.
    pub fn snapshot(&self) -> ConcurrencyLimitSnapshot {
        self.bulkhead.state().snapshot()
    }
}

impl fmt::Debug for ConcurrencyLimitHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConcurrencyLimitHandle").field(&self.bulkhead).finish()
    }
}

/// Reads the concurrency limits of a layer by key and changes them while they are in use. Clones are handles to the same ones.
#[derive(Clone)]
pub struct KeyedConcurrencyLimitHandle<K> {
    bulkheads: Keyed<K, Bulkhead>,
    shared: Arc<Shared>,
}

impl<K: Eq + Hash + Clone> KeyedConcurrencyLimitHandle<K> {
    /// Sets the limit of every key, known or new: see [`ConcurrencyLimitHandle::set_limit`].
    ///
    /// # Errors
    ///
    /// If the limit is out of its range; nothing changes then.
    pub fn set_limit(&self, limit: u32) -> Result<(), ConfigError> {
        check(limit)?;
        self.shared.set_limit(limit);
        for (_, bulkhead) in self.bulkheads.all() {
            bulkhead.hand_out();
        }
        Ok(())
    }

    /// What is in flight for `key` now, or `None` if it is not known: a key that was never seen, or not for long.
    pub fn snapshot(&self, key: &K) -> Option<ConcurrencyLimitSnapshot> {
        Some(self.bulkheads.get(key)?.snapshot())
    }

    /// All keys that are known, and what is in flight for them. Costs a copy of each key.
    pub fn all(&self) -> Vec<(K, ConcurrencyLimitSnapshot)> {
        self.bulkheads.all().into_iter().map(|(key, bulkhead)| (key, bulkhead.snapshot())).collect()
    }

    /// How many keys have a limit of their own now.
    pub fn len(&self) -> usize {
        self.bulkheads.len()
    }

    /// Whether no request has come yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K> fmt::Debug for KeyedConcurrencyLimitHandle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedConcurrencyLimitHandle").finish_non_exhaustive()
    }
}

/// Builds a [`ConcurrencyLimitLayer`].
#[derive(Clone, Debug)]
pub struct ConcurrencyLimitBuilder<D = NoDeadline> {
    limit: u32,
    max_waiting: u32,
    queue_timeout: Duration,
    until: D,
    name: &'static str,
}

impl<D> ConcurrencyLimitBuilder<D> {
    /// The most calls in flight, from 1 to 1,000,000; by key where there are keys. Has to be set.
    pub const fn limit(mut self, calls: u32) -> Self {
        self.limit = calls;
        self
    }

    /// The most calls that wait at once, up to 1,000,000; by key where there are keys. Default 1,000. With 0 nobody waits.
    pub const fn max_waiting(mut self, calls: u32) -> Self {
        self.max_waiting = calls;
        self
    }

    /// The longest that a call waits for a place, up to an hour. Default 1 s. With zero nobody waits.
    pub const fn queue_timeout(mut self, longest: Duration) -> Self {
        self.queue_timeout = longest;
        self
    }

    /// Reads the deadline of the requests, which then have to be [`HasDeadline`](crate::HasDeadline): a wait ends there at the
    /// latest. By default the layer takes any request and only [`queue_timeout`](Self::queue_timeout) bounds the wait.
    pub fn deadline_aware(self) -> ConcurrencyLimitBuilder<ByDeadline> {
        ConcurrencyLimitBuilder {
            limit: self.limit,
            max_waiting: self.max_waiting,
            queue_timeout: self.queue_timeout,
            until: ByDeadline,
            name: self.name,
        }
    }

    /// Sets the label `layer` of its metrics, to tell several apart. Default `concurrency_limit`.
    pub const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Makes the layer, with one limit for all requests.
    ///
    /// # Errors
    ///
    /// If the limit is not set, or a setting is out of its range.
    pub fn build(self) -> Result<ConcurrencyLimitLayer<Single<Bulkhead>, D>, ConfigError> {
        self.check()?;
        Ok(self.single())
    }

    /// Makes the layer, with a limit for each key that `key` tells: `|request: &MyRequest| request.tenant`.
    ///
    /// The limits of at most `max_keys` keys are kept, those used last. What has calls in flight or in line is never dropped.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), and if `max_keys` is zero.
    pub fn build_keyed<K, F, Req>(
        self,
        max_keys: usize,
        key: F,
    ) -> Result<KeyedConcurrencyLimitLayer<K, F, D>, ConfigError>
    where
        K: Eq + Hash + Clone,
        F: Fn(&Req) -> K,
    {
        self.check()?;
        let shared = Arc::new(self.shared());
        let each = Arc::clone(&shared);
        let bulkhead = PerKey::new(max_keys, key, move |_| Bulkhead::new(&each))?;
        Ok(ConcurrencyLimitLayer { bulkhead, shared, until: self.until })
    }

    fn check(&self) -> Result<(), ConfigError> {
        check(self.limit)?;
        if self.max_waiting > MOST {
            return Err(ConfigError::new(
                "max_waiting",
                format!("is {}, but must be from 0 to 1,000,000 calls", self.max_waiting),
            ));
        }
        if self.queue_timeout > LONGEST_WAIT {
            return Err(ConfigError::new(
                "queue_timeout",
                format!("is {:?}, but must be an hour at most: nobody waits that long", self.queue_timeout),
            ));
        }
        Ok(())
    }

    fn shared(&self) -> Shared {
        Shared::new(self.limit, self.queue_timeout, self.max_waiting, self.name)
    }

    fn single(self) -> ConcurrencyLimitLayer<Single<Bulkhead>, D> {
        let shared = Arc::new(self.shared());
        ConcurrencyLimitLayer { bulkhead: Single::new(Bulkhead::new(&shared)), shared, until: self.until }
    }
}

const MOST: u32 = 1_000_000;
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

fn check(limit: u32) -> Result<(), ConfigError> {
    if (1..=MOST).contains(&limit) {
        return Ok(());
    }
    Err(ConfigError::new(
        "limit",
        format!("is {limit}, but must be from 1 to 1,000,000 calls; to have no limit, leave the layer out"),
    ))
}
