use std::{fmt, hash::Hash, sync::Arc, time::Duration};

use tower::Layer;

use super::{
    Circuit, CircuitBreaker, Circuits, Mode, Transition,
    circuit::{Listener, Reports},
    rules::{Rules, Slow},
};
use crate::{
    Backoff, ByError, ConfigError,
    keyed::{PerKey, Single},
    window::Span,
};

/// Stops asking a service that fails. See the [module](super) for more.
///
/// Clones, and all services made by them, share the circuit.
pub struct CircuitBreakerLayer<C = ByError, P = Single<Circuit>> {
    circuits: P,
    reports: Arc<Reports>,
    classifier: C,
}

impl Default for CircuitBreakerLayer {
    fn default() -> Self {
        Self::builder().single()
    }
}

impl CircuitBreakerLayer {
    /// A layer with other settings than the default ones.
    pub fn builder() -> CircuitBreakerBuilder {
        CircuitBreakerBuilder {
            rules: Rules {
                span: Span::Time(Duration::from_secs(10)),
                minimum_calls: 20,
                failure_ratio: Some(0.5),
                slow: Some(Slow { longer_than: Duration::from_secs(10), ratio: 0.8 }),
                consecutive_failures: None,
                overload_counts: true,
                open_for: Backoff::DOUBLING_5S_TO_60S,
                probes: 5,
                probe_timeout: Duration::from_secs(10),
            },
            mode: Mode::Normal,
            listener: None,
            classifier: ByError,
            name: "circuit_breaker",
        }
    }
}

impl<C> CircuitBreakerLayer<C> {
    /// The circuit, to read it and to steer it.
    pub fn handle(&self) -> Arc<Circuit> {
        Arc::clone(self.circuits.state())
    }
}

impl<C, K, F> CircuitBreakerLayer<C, PerKey<K, F, Circuit>>
where
    K: Eq + Hash + Clone,
{
    /// The circuits by key, to read them and to steer them.
    pub fn handle(&self) -> Circuits<K> {
        Circuits { circuits: self.circuits.states().clone(), reports: Arc::clone(&self.reports) }
    }
}

impl<S, C: Clone, P: Clone> Layer<S> for CircuitBreakerLayer<C, P> {
    type Service = CircuitBreaker<S, C, P>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreaker::new(inner, self.circuits.clone(), self.classifier.clone())
    }
}

impl<C: Clone, P: Clone> Clone for CircuitBreakerLayer<C, P> {
    fn clone(&self) -> Self {
        Self {
            circuits: self.circuits.clone(),
            reports: Arc::clone(&self.reports),
            classifier: self.classifier.clone(),
        }
    }
}

impl<C, P: fmt::Debug> fmt::Debug for CircuitBreakerLayer<C, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerLayer").field("circuits", &self.circuits).finish_non_exhaustive()
    }
}

/// Builds a [`CircuitBreakerLayer`], or a [`Circuit`] without one.
#[derive(Clone)]
pub struct CircuitBreakerBuilder<C = ByError> {
    rules: Rules,
    mode: Mode,
    listener: Option<Listener>,
    classifier: C,
    name: &'static str,
}

impl<C> CircuitBreakerBuilder<C> {
    /// Judges by the last `calls` calls, from 1 to 100,000. The window moves on by a tenth of them.
    pub fn window_of_calls(mut self, calls: u32) -> Self {
        self.rules.span = Span::Calls(calls);
        self
    }

    /// Judges by the calls of the last `time`, from 10 ms to a day. The window moves on by a tenth of it. Default 10 s.
    pub fn window_of_time(mut self, time: Duration) -> Self {
        self.rules.span = Span::Time(time);
        self
    }

    /// As long as the window holds fewer calls than this, no ratio opens the circuit. From 1 to 30,000. Default 20.
    pub fn minimum_calls(mut self, calls: u32) -> Self {
        self.rules.minimum_calls = calls;
        self
    }

    /// Opens when this share of the calls in the window has failed, above 0 and up to 1. `None` to ignore it. Default 0.5.
    pub fn failure_ratio(mut self, ratio: impl Into<Option<f64>>) -> Self {
        self.rules.failure_ratio = ratio.into();
        self
    }

    /// Opens when the share `ratio` of the calls in the window, above 0 and up to 1, took longer than `longer_than`.
    /// A call that its caller drops counts as slow if it was older than that. Default 0.8 of them longer than 10 s.
    pub fn slow_calls(mut self, ratio: f64, longer_than: Duration) -> Self {
        self.rules.slow = Some(Slow { longer_than, ratio });
        self
    }

    /// Ignores how long calls take. Calls that are dropped do not count at all then.
    pub fn ignore_slow_calls(mut self) -> Self {
        self.rules.slow = None;
        self
    }

    /// Opens when so many calls in a row have failed, at least 1, however few calls the window holds. Overload does not
    /// count here. `None` to ignore it, which is the default.
    pub fn consecutive_failures(mut self, failures: impl Into<Option<u32>>) -> Self {
        self.rules.consecutive_failures = failures.into();
        self
    }

    /// Whether [`Fault::Overload`](crate::Fault::Overload) counts as a failure in the window. Default true. Say false
    /// where something else, such as a throttle, answers overload.
    pub fn overload_counts(mut self, counts: bool) -> Self {
        self.rules.overload_counts = counts;
        self
    }

    /// For how long the circuit stays open. It takes the next longer wait each time that it opens again without having
    /// been closed for as long as it was open. Default 5 s doubling to 60 s, equal jitter: half of it to all of it. Full
    /// jitter would make a wait of next to nothing, and is taken as equal jitter.
    pub fn open_for(mut self, wait: Backoff) -> Self {
        self.rules.open_for = wait.at_least_half();
        self
    }

    /// How many calls may pass at once after that, and at most how many decide. From 1 to 1,000. Default 5.
    pub fn probes(mut self, probes: u32) -> Self {
        self.rules.probes = probes;
        self
    }

    /// When no probe has been answered for so long, the next call opens the circuit again. Default 10 s.
    pub fn probe_timeout(mut self, timeout: Duration) -> Self {
        self.rules.probe_timeout = timeout;
        self
    }

    /// The mode that it starts in. Default [`Mode::Normal`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Calls `listener` after each change of state, on the task whose call caused it and outside all locks: it may
    /// call the circuit, and should be quick. Its panics are logged and go no further.
    pub fn on_transition(mut self, listener: impl Fn(&Transition) + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// What tells the meaning of an outcome. Default [`ByError`].
    pub fn classifier<D>(self, classifier: D) -> CircuitBreakerBuilder<D> {
        CircuitBreakerBuilder {
            rules: self.rules,
            mode: self.mode,
            listener: self.listener,
            classifier,
            name: self.name,
        }
    }

    /// Sets the label `layer` of its metrics and events, to tell several apart. Default `circuit_breaker`.
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Makes a layer with one circuit.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range, or nothing could ever open the circuit.
    pub fn build(self) -> Result<CircuitBreakerLayer<C>, ConfigError> {
        self.rules.check()?;
        Ok(self.single())
    }

    fn single(self) -> CircuitBreakerLayer<C> {
        let reports = Arc::new(Reports::new(self.name, self.listener, self.mode));
        let circuit = Circuit::new(self.rules, None, Arc::clone(&reports));
        CircuitBreakerLayer { circuits: Single::new(circuit), reports, classifier: self.classifier }
    }

    /// Makes a layer with a circuit for each key that `key` tells of a request: a tenant, a table, a node.
    ///
    /// At most `max_keys` circuits are kept, and those of calls in flight; the ones that are used least make room, and start
    /// closed when they come back, unless an operator has forced them. A circuit takes about a kilobyte.
    ///
    /// ```
    /// use palisade::CircuitBreakerLayer;
    ///
    /// struct Query { table: &'static str }
    ///
    /// let layer = CircuitBreakerLayer::builder().build_keyed(1_000, |query: &Query| query.table)?;
    /// assert!(layer.handle().get(&"users").is_none()); // no request yet
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
    ) -> Result<CircuitBreakerLayer<C, PerKey<K, F, Circuit>>, ConfigError>
    where
        F: Fn(&Req) -> K,
        K: Eq + Hash + Clone + fmt::Debug,
    {
        self.rules.check()?;
        let reports = Arc::new(Reports::new(self.name, self.listener, self.mode));
        let (rules, their_reports) = (self.rules, Arc::clone(&reports));
        let make = move |key: &K| Circuit::keyed(rules, key, Arc::clone(&their_reports));
        let circuits = PerKey::new(max_keys, key, make)?;
        Ok(CircuitBreakerLayer { circuits, reports, classifier: self.classifier })
    }

    /// Makes a circuit [by itself](super#without-a-layer), for a target that is known only inside a call. Listeners, events and
    /// [`Circuit::key`] show the `Debug` text of `key`. A clone of the builder makes the next one; they have nothing
    /// in common but the name in their metrics. The classifier is not used: the caller says what a call has come to.
    ///
    /// ```
    /// use palisade::{CircuitBreakerLayer, Class};
    ///
    /// let builder = CircuitBreakerLayer::builder().named("nodes");
    /// let (one, other) = (builder.clone().build_circuit("10.0.0.1")?, builder.build_circuit("10.0.0.2")?);
    /// one.trip();
    /// assert!(one.acquire().is_err());
    /// other.acquire()?.end(&Class::SUCCESS);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_circuit(self, key: impl fmt::Debug) -> Result<Arc<Circuit>, ConfigError> {
        self.rules.check()?;
        let reports = Arc::new(Reports::new(self.name, self.listener, self.mode));
        Ok(Arc::new(Circuit::keyed(self.rules, &key, reports)))
    }
}

impl<C> fmt::Debug for CircuitBreakerBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerBuilder")
            .field("name", &self.name)
            .field("rules", &self.rules)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}
