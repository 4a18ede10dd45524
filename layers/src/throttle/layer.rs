use std::{fmt, hash::Hash, sync::Arc, time::Duration};

use tower::Layer;

use super::{Mode, Throttle, ThrottleSnapshot, Valve, state::Rules, valve::Shared};
use crate::{
    ByError, ConfigError,
    keyed::{Keyed, PerKey, Single},
};

/// Asks a service less when it says that it is overloaded. See the [module](super) for more.
///
/// Clones, and all services made by them, share what they know.
pub struct ThrottleLayer<C = ByError, P = Single<Valve>> {
    valves: P,
    shared: Arc<Shared>,
    classifier: C,
}

/// A [`ThrottleLayer`] with a throttle for each key.
pub type KeyedThrottleLayer<K, F, C = ByError> = ThrottleLayer<C, PerKey<K, F, Valve>>;

impl Default for ThrottleLayer {
    fn default() -> Self {
        Self::builder().single()
    }
}

impl ThrottleLayer {
    /// A layer with other settings than the default ones.
    pub const fn builder() -> ThrottleBuilder {
        ThrottleBuilder {
            rules: Rules { window: Duration::from_secs(3), max_rejection: 0.9, min_passes_per_second: 1.0 },
            multiplier: 2.0,
            mode: Mode::On,
            classifier: ByError,
            name: "throttle",
        }
    }
}

impl<C> ThrottleLayer<C> {
    /// Reads the throttle, and changes it while it is in use.
    pub fn handle(&self) -> ThrottleHandle {
        ThrottleHandle { valve: self.valves.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<K, F, C> KeyedThrottleLayer<K, F, C>
where
    K: Eq + Hash + Clone,
{
    /// Reads the throttles of all keys, and changes them while they are in use.
    pub fn handle(&self) -> KeyedThrottleHandle<K> {
        KeyedThrottleHandle { valves: self.valves.states().clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S, C: Clone, P: Clone> Layer<S> for ThrottleLayer<C, P> {
    type Service = Throttle<S, C, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Throttle::new(inner, self.valves.clone(), self.classifier.clone())
    }
}

impl<C: Clone, P: Clone> Clone for ThrottleLayer<C, P> {
    fn clone(&self) -> Self {
        Self {
            valves: self.valves.clone(),
            shared: Arc::clone(&self.shared),
            classifier: self.classifier.clone(),
        }
    }
}

impl<C, P: fmt::Debug> fmt::Debug for ThrottleLayer<C, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThrottleLayer")
            .field("valves", &self.valves)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

/// Reads a throttle and changes it while it is in use. Clones are handles to the same one.
#[derive(Clone)]
pub struct ThrottleHandle {
    valve: Single<Valve>,
    shared: Arc<Shared>,
}

impl ThrottleHandle {
    /// Switches it on or off, or lets it observe only. What it has seen lately it knows still.
    pub fn set_mode(&self, mode: Mode) {
        self.shared.set_mode(mode);
        self.valve.state().settle();
    }

    /// Sets how many calls there may be for each that the service accepts: see [`ThrottleBuilder::multiplier`].
    ///
    /// # Errors
    ///
    /// If it is out of its range; nothing changes then.
    pub fn set_multiplier(&self, multiplier: f64) -> Result<(), ConfigError> {
        check_multiplier(multiplier)?;
        self.shared.set_multiplier(multiplier);
        Ok(())
    }

    /// All figures at this moment.
    pub fn snapshot(&self) -> ThrottleSnapshot {
        self.valve.state().snapshot()
    }
}

impl fmt::Debug for ThrottleHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ThrottleHandle").field(&self.valve).finish()
    }
}

/// Reads the throttles of a layer by key, and changes them while they are in use. Clones are handles to the same ones.
#[derive(Clone)]
pub struct KeyedThrottleHandle<K> {
    valves: Keyed<K, Valve>,
    shared: Arc<Shared>,
}

impl<K: Eq + Hash + Clone> KeyedThrottleHandle<K> {
    /// Sets the mode of every key, known or new: see [`ThrottleHandle::set_mode`].
    pub fn set_mode(&self, mode: Mode) {
        self.shared.set_mode(mode);
        for (_, valve) in self.valves.all() {
            valve.settle();
        }
    }

    /// Sets the multiplier of every key, known or new: see [`ThrottleBuilder::multiplier`].
    ///
    /// # Errors
    ///
    /// If it is out of its range; nothing changes then.
    pub fn set_multiplier(&self, multiplier: f64) -> Result<(), ConfigError> {
        check_multiplier(multiplier)?;
        self.shared.set_multiplier(multiplier);
        Ok(())
    }

    /// All figures of `key` at this moment, or `None` if it is not known: a key that was never seen, or not for long.
    pub fn snapshot(&self, key: &K) -> Option<ThrottleSnapshot> {
        Some(self.valves.get(key)?.snapshot())
    }

    /// All keys that are known, and their figures. Costs a copy of each key.
    pub fn all(&self) -> Vec<(K, ThrottleSnapshot)> {
        self.valves.all().into_iter().map(|(key, valve)| (key, valve.snapshot())).collect()
    }

    /// How many keys have a throttle of their own now.
    pub fn len(&self) -> usize {
        self.valves.len()
    }

    /// Whether no request has come yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K> fmt::Debug for KeyedThrottleHandle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedThrottleHandle").field("shared", &self.shared).finish_non_exhaustive()
    }
}

/// Builds a [`ThrottleLayer`].
#[derive(Clone)]
pub struct ThrottleBuilder<C = ByError> {
    rules: Rules,
    multiplier: f64,
    mode: Mode,
    classifier: C,
    name: &'static str,
}

impl<C> ThrottleBuilder<C> {
    /// How many calls there may be for each that the service accepts, from 1 to 100. Default 2: in a lasting overload, half of
    /// what the service gets is more than it can do. Less spares the service more, and where calls are few it uses less of what the
    /// service can do; more finds out sooner that it can do more.
    pub const fn multiplier(mut self, calls: f64) -> Self {
        self.multiplier = calls;
        self
    }

    /// Judges by the answers of the last `time`, from 100 ms to ten minutes, in tenths of it. Default 3 s. All calls pass
    /// again this long after the last rejection, at the latest.
    pub const fn window(mut self, time: Duration) -> Self {
        self.rules.window = time;
        self
    }

    /// The largest share of calls that is refused, above 0 and up to 0.99. Default 0.9.
    pub const fn max_rejection(mut self, share: f64) -> Self {
        self.rules.max_rejection = share;
        self
    }

    /// How many calls pass each second however large the share that is refused, as far as there are so many; from 0 to
    /// 1,000, by key where there are keys. Default 1. With 0 only [`max_rejection`](Self::max_rejection) lets some pass.
    pub const fn min_passes_per_second(mut self, calls: f64) -> Self {
        self.rules.min_passes_per_second = calls;
        self
    }

    /// The mode that it starts in. Default [`Mode::On`].
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// What tells the meaning of an outcome. Default [`ByError`].
    pub fn classifier<D>(self, classifier: D) -> ThrottleBuilder<D> {
        ThrottleBuilder {
            rules: self.rules,
            multiplier: self.multiplier,
            mode: self.mode,
            classifier,
            name: self.name,
        }
    }

    /// Sets the label `layer` of its metrics and events, to tell several apart. Default `throttle`.
    pub const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Makes a layer with one throttle for all requests.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range.
    pub fn build(self) -> Result<ThrottleLayer<C>, ConfigError> {
        self.check()?;
        Ok(self.single())
    }

    /// Makes a layer with a throttle for each key that `key` tells of a request: a node, a tenant.
    ///
    /// The throttles of at most `max_keys` keys are kept, those used last, and those of calls in flight. One takes about a
    /// kilobyte.
    ///
    /// ```
    /// use palisade::ThrottleLayer;
    ///
    /// struct Query { node: u32 }
    ///
    /// let layer = ThrottleLayer::builder().build_keyed(1_000, |query: &Query| query.node)?;
    /// assert!(layer.handle().snapshot(&7).is_none()); // no request yet
    /// # Ok::<_, palisade::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), and if `max_keys` is zero.
    pub fn build_keyed<K, F, Req>(
        self,
        max_keys: usize,
        key: F,
    ) -> Result<KeyedThrottleLayer<K, F, C>, ConfigError>
    where
        F: Fn(&Req) -> K,
        K: Eq + Hash + Clone + fmt::Debug,
    {
        self.check()?;
        let shared = self.shared();
        let each = Arc::clone(&shared);
        let make = move |key: &K| Valve::new(&each, Some(Arc::from(format!("{key:?}"))));
        let valves = PerKey::new(max_keys, key, make)?;
        Ok(ThrottleLayer { valves, shared, classifier: self.classifier })
    }

    fn check(&self) -> Result<(), ConfigError> {
        let Rules { window, max_rejection, min_passes_per_second } = self.rules;
        check_multiplier(self.multiplier)?;
        if !(SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&window) {
            return Err(ConfigError::new(
                "window",
                format!("is {window:?}, but must be from 100 ms to ten minutes"),
            ));
        }
        if !(max_rejection > 0.0 && max_rejection <= 0.99) {
            return Err(ConfigError::new(
                "max_rejection",
                format!(
                    "is {max_rejection}, but must be a share above 0 and up to 0.99: some calls have to find out that the \
                     service is well again; to refuse none, use `Mode::Observing`"
                ),
            ));
        }
        if !(0.0..=1_000.0).contains(&min_passes_per_second) {
            return Err(ConfigError::new(
                "min_passes_per_second",
                format!("is {min_passes_per_second}, but must be from 0 to 1,000 calls per second"),
            ));
        }
        Ok(())
    }

    fn shared(&self) -> Arc<Shared> {
        Arc::new(Shared::new(self.rules, self.multiplier, self.mode, self.name))
    }

    fn single(self) -> ThrottleLayer<C> {
        let shared = self.shared();
        ThrottleLayer { valves: Single::new(Valve::new(&shared, None)), shared, classifier: self.classifier }
    }
}

impl<C> fmt::Debug for ThrottleBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThrottleBuilder")
            .field("name", &self.name)
            .field("rules", &self.rules)
            .field("multiplier", &self.multiplier)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

const SHORTEST_WINDOW: Duration = Duration::from_millis(100);
const LONGEST_WINDOW: Duration = Duration::from_secs(600);

fn check_multiplier(multiplier: f64) -> Result<(), ConfigError> {
    if (1.0..=100.0).contains(&multiplier) {
        return Ok(());
    }
    Err(ConfigError::new(
        "multiplier",
        format!(
            "is {multiplier}, but must be from 1 to 100 calls for each that is accepted: with less than 1 the service would \
             get less and less"
        ),
    ))
}
