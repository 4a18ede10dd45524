use std::{
    fmt,
    hash::Hash,
    marker::PhantomData,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tower::{BoxError, Layer, Service};

use super::{
    Coalesce, SharedError,
    service::Kept,
    state::{Census, Totals},
};
use crate::{
    ConfigError, Instant, Rejection,
    handle::Handles,
    telemetry::Counter,
    until::{ByDeadline, NoDeadline},
};

/// Lets calls of one key that are made at the same time share an answer. See the [module](super) for more.
///
/// Each service that it makes has flights of its own, shared by the service's clones.
pub struct CoalesceLayer<Req, K, F, D = NoDeadline> {
    key: F,
    until: D,
    shared: Arc<Shared>,
    types: PhantomData<fn(&Req) -> K>,
}

impl<Req, K, F> CoalesceLayer<Req, K, F>
where
    F: Fn(&Req) -> Option<K>,
{
    /// Calls for which `key` tells the same share an answer, and those for which it tells `None` do not: they change
    /// something. For the rest the default settings.
    pub fn new(key: F) -> Self {
        Self::builder(key).make()
    }

    /// A layer with other settings than the default ones.
    pub const fn builder(key: F) -> CoalesceBuilder<Req, K, F> {
        CoalesceBuilder {
            key,
            until: NoDeadline,
            longest: Duration::from_secs(30),
            join_within: None,
            max_flights: 10_000,
            name: "coalesce",
            types: PhantomData,
        }
    }
}

impl<Req, K, F, D> CoalesceLayer<Req, K, F, D> {
    /// Watches the deadlines of its requests, which have to know theirs: see [`CoalesceBuilder::deadline_aware`].
    pub fn deadline_aware(self) -> CoalesceLayer<Req, K, F, ByDeadline> {
        CoalesceLayer { key: self.key, until: ByDeadline, shared: self.shared, types: PhantomData }
    }

    /// Tells what is under way, in all services of this layer together.
    pub fn handle(&self) -> CoalesceHandle {
        CoalesceHandle(Arc::clone(&self.shared))
    }
}

impl<S, Req, K, F, D> Layer<S> for CoalesceLayer<Req, K, F, D>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Response: Clone + Send + 'static,
    S::Error: Into<BoxError> + From<SharedError> + From<Rejection> + Send + 'static,
    Req: Send + 'static,
    K: Eq + Hash + Send + 'static,
    F: Fn(&Req) -> Option<K> + Clone,
    D: Clone,
{
    type Service = Coalesce<S, Req, K, F, D>;

    fn layer(&self, inner: S) -> Self::Service {
        // The first reading of the clock measures it, which should not happen in a call.
        let _ = Instant::now();
        let kept = Handles::new(Kept::new(&inner, Arc::clone(&self.shared)));
        self.shared.watch(kept.value());
        Coalesce::new(inner, self.key.clone(), self.until.clone(), kept)
    }
}

impl<Req, K, F: Clone, D: Clone> Clone for CoalesceLayer<Req, K, F, D> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            until: self.until.clone(),
            shared: Arc::clone(&self.shared),
            types: PhantomData,
        }
    }
}

impl<Req, K, F, D> fmt::Debug for CoalesceLayer<Req, K, F, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoalesceLayer")
            .field("name", &self.shared.name)
            .field("longest", &self.shared.longest)
            .field("join_within", &self.shared.join_within)
            .field("max_flights", &self.shared.max_flights)
            .finish_non_exhaustive()
    }
}

/// What all services of one layer share.
pub(super) struct Shared {
    pub(super) name: &'static str,
    pub(super) longest: Duration,
    pub(super) join_within: Duration,
    pub(super) max_flights: usize,
    detached: AtomicU64,
    counters: [Counter; 3],
    services: Mutex<Services>,
}

#[derive(Default)]
struct Services {
    now: Vec<Weak<dyn Counted + Send + Sync>>,
    // What those that have been dropped did.
    past: Totals,
}

trait Counted {
    fn census(&self) -> Census;
}

impl<S: Service<Req>, Req, K> Counted for Kept<S, Req, K> {
    fn census(&self) -> Census {
        self.flights.census()
    }
}

impl Shared {
    fn watch<S, Req, K>(&self, kept: &Arc<Kept<S, Req, K>>)
    where
        S: Service<Req> + Send + 'static,
        S::Future: Send + 'static,
        S::Response: Send + 'static,
        Req: Send + 'static,
        K: Send + 'static,
    {
        let watched: Weak<Kept<S, Req, K>> = Arc::downgrade(kept);
        let mut services = self.services.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        services.now.retain(|service| service.strong_count() > 0);
        services.now.push(watched);
    }

    pub(super) fn add_past(&self, totals: Totals) {
        let mut services = self.services.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        services.past = services.past + totals;
    }

    pub(super) fn count_joined(&self) {
        self.counters[0].increment(1);
    }

    pub(super) fn count_detached(&self) {
        self.detached.fetch_add(1, Relaxed);
        self.counters[1].increment(1);
    }

    pub(super) fn count_passed(&self) {
        self.counters[2].increment(1);
    }

    fn snapshot(&self) -> CoalesceSnapshot {
        let services = self.services.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Looked at after the lock is released: the last holder of a service would come back here.
        let (mut totals, now) = (services.past, services.now.clone());
        drop(services);
        let (mut flights, mut followers) = (0, 0);
        for census in now.iter().filter_map(Weak::upgrade).map(|service| service.census()) {
            totals = totals + census.totals;
            flights += census.flights;
            followers += census.followers;
        }
        CoalesceSnapshot {
            flights,
            followers,
            led: totals.led,
            joined: totals.joined,
            detached: self.detached.load(Relaxed),
            passed: totals.passed,
        }
    }
}

/// Tells what is under way in a [`CoalesceLayer`]. Clones are handles to the same.
#[derive(Clone)]
pub struct CoalesceHandle(Arc<Shared>);

impl CoalesceHandle {
    /// What is under way now, and what became of the calls so far.
    pub fn snapshot(&self) -> CoalesceSnapshot {
        self.0.snapshot()
    }
}

impl fmt::Debug for CoalesceHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CoalesceHandle").field(&self.snapshot()).finish()
    }
}

/// What is under way at a moment, and what became of the calls so far. Calls without a key are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoalesceSnapshot {
    /// Flights under way.
    pub flights: usize,
    /// Calls that wait for the answer of another's.
    pub followers: usize,
    /// Calls that began a flight.
    pub led: u64,
    /// Calls that joined one.
    pub joined: u64,
    /// Flights that went on in a task, since their leader had gone.
    pub detached: u64,
    /// Calls that went through by themselves, since there were as many flights as there may be.
    pub passed: u64,
}

/// Builds a [`CoalesceLayer`].
pub struct CoalesceBuilder<Req, K, F, D = NoDeadline> {
    key: F,
    until: D,
    longest: Duration,
    join_within: Option<Duration>,
    max_flights: usize,
    name: &'static str,
    types: PhantomData<fn(&Req) -> K>,
}

impl<Req, K, F, D> CoalesceBuilder<Req, K, F, D> {
    /// How long a call without a deadline waits at most, counted from when its flight began; up to an hour. Default 30 s.
    pub fn longest(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// A flight that is older than this is not joined: the next call begins another one. So an answer is at most so old when a call
    /// joins. Above zero and below `longest`. Default half of `longest`.
    pub fn join_within(mut self, age: Duration) -> Self {
        self.join_within = Some(age);
        self
    }

    /// The most flights at once, from 1 to 1,000,000; by service. Default 10,000. Calls beyond go through by themselves. The flights
    /// are kept in up to 32 parts by key, of which one may be full while a quarter of all places are free.
    pub fn max_flights(mut self, flights: usize) -> Self {
        self.max_flights = flights;
        self
    }

    /// Reads the deadline of the requests, which then have to be [`HasDeadline`](crate::HasDeadline), takes it off
    /// ([`lift_deadline`](crate::HasDeadline::lift_deadline)), and ends each call at its own. So a flight is not ended by the
    /// deadline of the one that leads it. By default the layer takes any request, and lets it be.
    pub fn deadline_aware(self) -> CoalesceBuilder<Req, K, F, ByDeadline> {
        CoalesceBuilder {
            key: self.key,
            until: ByDeadline,
            longest: self.longest,
            join_within: self.join_within,
            max_flights: self.max_flights,
            name: self.name,
            types: PhantomData,
        }
    }

    /// Sets the label `layer` of its metrics, to tell several apart. Default `coalesce`.
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range.
    pub fn build(self) -> Result<CoalesceLayer<Req, K, F, D>, ConfigError> {
        const LONGEST: Duration = Duration::from_secs(3_600);
        const MOST: usize = 1_000_000;
        if self.longest.is_zero() || self.longest > LONGEST {
            return Err(ConfigError::new(
                "longest",
                format!("is {:?}, but must be above zero and an hour at most", self.longest),
            ));
        }
        if self.join_within.is_some_and(|age| age.is_zero() || age >= self.longest) {
            return Err(ConfigError::new(
                "join_within",
                format!(
                    "is {:?}, but must be above zero and below `longest`, {:?}; to join nothing, leave the layer out",
                    self.join_within.unwrap_or_default(),
                    self.longest
                ),
            ));
        }
        if !(1..=MOST).contains(&self.max_flights) {
            return Err(ConfigError::new(
                "max_flights",
                format!(
                    "is {}, but must be from 1 to 1,000,000; to share nothing, leave the layer out",
                    self.max_flights
                ),
            ));
        }
        Ok(self.make())
    }

    fn make(self) -> CoalesceLayer<Req, K, F, D> {
        let counter = |metric| Counter::new(metric, self.name, &[]);
        let shared = Shared {
            name: self.name,
            longest: self.longest,
            join_within: self.join_within.unwrap_or(self.longest / 2),
            max_flights: self.max_flights,
            detached: AtomicU64::new(0),
            counters: [
                counter("palisade_coalesce_joined_total"),
                counter("palisade_coalesce_detached_total"),
                counter("palisade_coalesce_passed_total"),
            ],
            services: Mutex::default(),
        };
        CoalesceLayer { key: self.key, until: self.until, shared: Arc::new(shared), types: PhantomData }
    }
}

impl<Req, K, F: Clone, D: Clone> Clone for CoalesceBuilder<Req, K, F, D> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            until: self.until.clone(),
            longest: self.longest,
            join_within: self.join_within,
            max_flights: self.max_flights,
            name: self.name,
            types: PhantomData,
        }
    }
}

impl<Req, K, F, D> fmt::Debug for CoalesceBuilder<Req, K, F, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoalesceBuilder")
            .field("name", &self.name)
            .field("longest", &self.longest)
            .field("join_within", &self.join_within)
            .field("max_flights", &self.max_flights)
            .finish_non_exhaustive()
    }
}
