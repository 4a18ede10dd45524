use std::{fmt, hash::Hash, num::NonZeroU32, sync::Arc, time::Duration};

use tower::Layer;

use super::{Limiter, RateLimit, RateLimitSnapshot, limiter::Shared, state::Rate};
use crate::{
    ConfigError,
    clock::Instant,
    keyed::{Keyed, PerKey, Single},
    until::{ByDeadline, NoDeadline},
};

/// Limits the rate of calls. See the [module](super) for more.
///
/// Clones, and all services made by them, share the limit.
#[derive(Clone)]
pub struct RateLimitLayer<P = Single<Limiter>, W = EachOne, D = NoDeadline> {
    limiter: P,
    shared: Arc<Shared>,
    weight: W,
    until: D,
}

/// A [`RateLimitLayer`] with a limit for each key.
pub type KeyedRateLimitLayer<K, F, W = EachOne, D = NoDeadline> = RateLimitLayer<PerKey<K, F, Limiter>, W, D>;

impl RateLimitLayer {
    /// So many calls per second; for the rest the default settings.
    pub fn per_second(calls: NonZeroU32) -> Self {
        Self::builder().rate(calls.get(), Duration::from_secs(1)).single()
    }

    /// A layer with other settings than the default ones. The rate has to be set.
    pub const fn builder() -> RateLimitBuilder {
        RateLimitBuilder {
            permits: 0,
            per: Duration::from_secs(1),
            burst: None,
            max_wait: Duration::from_secs(1),
            max_waiting: 1_000,
            weight: EachOne,
            until: NoDeadline,
            name: "rate_limit",
        }
    }
}

impl<P, W, D> RateLimitLayer<P, W, D> {
    /// Reads the deadline of its requests, which have to know theirs: see [`RateLimitBuilder::deadline_aware`].
    pub fn deadline_aware(self) -> RateLimitLayer<P, W, ByDeadline> {
        RateLimitLayer { limiter: self.limiter, shared: self.shared, weight: self.weight, until: ByDeadline }
    }
}

impl<W, D> RateLimitLayer<Single<Limiter>, W, D> {
    /// Reads the limiter, and changes its rate while it is in use.
    pub fn handle(&self) -> RateLimitHandle {
        RateLimitHandle { limiter: self.limiter.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<K, F, W, D> RateLimitLayer<PerKey<K, F, Limiter>, W, D>
where
    K: Eq + Hash + Clone,
{
    /// Reads the limiters, and changes their rate while they are in use.
    pub fn handle(&self) -> KeyedRateLimitHandle<K> {
        KeyedRateLimitHandle { limiters: self.limiter.states().clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S, P: Clone, W: Clone, D: Clone> Layer<S> for RateLimitLayer<P, W, D> {
    type Service = RateLimit<S, P, W, D>;

    fn layer(&self, inner: S) -> RateLimit<S, P, W, D> {
        RateLimit::new(inner, self.limiter.clone(), self.weight.clone(), self.until.clone())
    }
}

impl<P: fmt::Debug, W, D> fmt::Debug for RateLimitLayer<P, W, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer")
            .field("limiter", &self.limiter)
            .field("max_wait", &self.shared.max_wait)
            .field("max_waiting", &self.shared.max_waiting)
            .finish_non_exhaustive()
    }
}

/// How many permits a request takes: a number for each, or [`EachOne`].
#[diagnostic::on_unimplemented(
    message = "the layer's weight function does not take a `{Req}`",
    note = "name the type of the request in the function: `|request: &MyRequest| request.rows`"
)]
pub trait Weigh<Req> {
    /// The permits that this request takes. With none it passes free.
    fn weigh(&self, request: &Req) -> u32;
}

/// Every request takes one permit.
#[derive(Clone, Copy, Debug, Default)]
pub struct EachOne;

impl<Req> Weigh<Req> for EachOne {
    #[inline]
    fn weigh(&self, _: &Req) -> u32 {
        1
    }
}

/// A weight made of a function. See [`RateLimitBuilder::weight`].
#[derive(Clone, Copy)]
pub struct WeighFn<F>(F);

impl<F, Req> Weigh<Req> for WeighFn<F>
where
    F: Fn(&Req) -> u32,
{
    #[inline]
    fn weigh(&self, request: &Req) -> u32 {
        (self.0)(request)
    }
}

impl<F> fmt::Debug for WeighFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeighFn")
    }
}

/// Reads a rate limit and changes it while it is in use. Clones are handles to the same one.
#[derive(Clone)]
pub struct RateLimitHandle {
    limiter: Single<Limiter>,
    shared: Arc<Shared>,
}

impl RateLimitHandle {
    /// Sets the rate, and with it the burst: to `burst`, or to its default where that is `None`.
    ///
    /// Permits that were saved up stay, up to the new burst; nothing is granted at once because the burst is larger now. Who
    /// waits is served at the new rate, or refused where it makes the wait too long.
    ///
    /// # Errors
    ///
    /// As [`RateLimitBuilder::build`], and nothing changes then.
    pub fn set_rate(&self, permits: u32, per: Duration, burst: Option<u32>) -> Result<(), ConfigError> {
        let rate = checked(permits, per, burst)?;
        self.shared.set(rate);
        self.limiter.state().follow(Instant::now());
        Ok(())
    }

    /// What the limit has to give now, and what became of the calls so far.
    pub fn snapshot(&self) -> RateLimitSnapshot {
        self.limiter.state().snapshot(Instant::now())
    }
}

impl fmt::Debug for RateLimitHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RateLimitHandle").field(&self.limiter).finish()
    }
}

/// Reads the rate limits of a layer by key and changes them while they are in use. Clones are handles to the same ones.
#[derive(Clone)]
pub struct KeyedRateLimitHandle<K> {
    limiters: Keyed<K, Limiter>,
    shared: Arc<Shared>,
}

impl<K: Eq + Hash + Clone> KeyedRateLimitHandle<K> {
    /// Sets the rate of every key, known or new: see [`RateLimitHandle::set_rate`].
    ///
    /// # Errors
    ///
    /// As [`RateLimitBuilder::build`], and nothing changes then.
    pub fn set_rate(&self, permits: u32, per: Duration, burst: Option<u32>) -> Result<(), ConfigError> {
        let rate = checked(permits, per, burst)?;
        self.shared.set(rate);
        let now = Instant::now();
        self.limiters.all().iter().for_each(|(_, limiter)| limiter.follow(now));
        Ok(())
    }

    /// What the limit of `key` has to give now, or `None` if it is not known: a key that was never seen, or not for long.
    pub fn snapshot(&self, key: &K) -> Option<RateLimitSnapshot> {
        Some(self.limiters.get(key)?.snapshot(Instant::now()))
    }

    /// All keys that are known, and what their limits have to give. Costs a copy of each key.
    pub fn all(&self) -> Vec<(K, RateLimitSnapshot)> {
        let now = Instant::now();
        self.limiters.all().into_iter().map(|(key, limiter)| (key, limiter.snapshot(now))).collect()
    }

    /// How many keys have a limit of their own now.
    pub fn len(&self) -> usize {
        self.limiters.len()
    }

    /// Whether no request has come yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K> fmt::Debug for KeyedRateLimitHandle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRateLimitHandle").finish_non_exhaustive()
    }
}

/// Builds a [`RateLimitLayer`].
#[derive(Clone, Debug)]
pub struct RateLimitBuilder<W = EachOne, D = NoDeadline> {
    permits: u32,
    per: Duration,
    burst: Option<u32>,
    max_wait: Duration,
    max_waiting: u32,
    weight: W,
    until: D,
    name: &'static str,
}

impl<W, D> RateLimitBuilder<W, D> {
    /// So many permits in so much time, evenly. From 1 ms to 366 days, and at most 1,000,000,000 per second. Has to be set.
    pub const fn rate(mut self, permits: u32, per: Duration) -> Self {
        self.permits = permits;
        self.per = per;
        self
    }

    /// The most permits that are saved up while nobody takes them, and taken at once then: from 1 to 1,000,000,000. Default a
    /// tenth of the permits of [`rate`](Self::rate), at least 1.
    pub const fn burst(mut self, permits: u32) -> Self {
        self.burst = Some(permits);
        self
    }

    /// The longest that a call waits for its permits, up to an hour. Default 1 s. Zero refuses what cannot be served at once.
    pub const fn max_wait(mut self, longest: Duration) -> Self {
        self.max_wait = longest;
        self
    }

    /// The most calls that wait at once, up to 1,000,000; by key where there are keys. Default 1,000.
    pub const fn max_waiting(mut self, calls: u32) -> Self {
        self.max_waiting = calls;
        self
    }

    /// Refuses at once what cannot be served at once: nobody waits.
    pub const fn refuse(mut self) -> Self {
        self.max_wait = Duration::ZERO;
        self.max_waiting = 0;
        self
    }

    /// How many permits a request takes: `|request: &MyRequest| request.rows`. Default 1.
    ///
    /// With 0 it passes free. With more than the burst it can never be served, and is refused without a `retry_after`.
    pub fn weight<F, Req>(self, weight: F) -> RateLimitBuilder<WeighFn<F>, D>
    where
        F: Fn(&Req) -> u32,
    {
        RateLimitBuilder {
            permits: self.permits,
            per: self.per,
            burst: self.burst,
            max_wait: self.max_wait,
            max_waiting: self.max_waiting,
            weight: WeighFn(weight),
            until: self.until,
            name: self.name,
        }
    }

    /// Reads the deadline of the requests, which then have to be [`HasDeadline`](crate::HasDeadline): a call that could
    /// not be served before its deadline is refused at once. By default the layer takes any request and only
    /// [`max_wait`](Self::max_wait) bounds the wait.
    pub fn deadline_aware(self) -> RateLimitBuilder<W, ByDeadline> {
        RateLimitBuilder {
            permits: self.permits,
            per: self.per,
            burst: self.burst,
            max_wait: self.max_wait,
            max_waiting: self.max_waiting,
            weight: self.weight,
            until: ByDeadline,
            name: self.name,
        }
    }

    /// Sets the label `layer` of its metrics, to tell several apart. Default `rate_limit`.
    pub const fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Makes the layer, with one limit for all requests.
    ///
    /// # Errors
    ///
    /// If the rate is not set, or a setting is out of its range.
    pub fn build(self) -> Result<RateLimitLayer<Single<Limiter>, W, D>, ConfigError> {
        self.check()?;
        Ok(self.single())
    }

    /// Makes the layer, with a limit for each key that `key` tells: `|request: &MyRequest| request.tenant`.
    ///
    /// The limits of at most `max_keys` keys are kept, those used last. A key that comes back after its limit was dropped starts with a
    /// full burst: choose more keys than are in use at a time. What a call waits for is never dropped.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), and if `max_keys` is zero.
    pub fn build_keyed<K, F, Req>(
        self,
        max_keys: usize,
        key: F,
    ) -> Result<KeyedRateLimitLayer<K, F, W, D>, ConfigError>
    where
        K: Eq + Hash + Clone,
        F: Fn(&Req) -> K,
    {
        self.check()?;
        let shared = Arc::new(self.shared());
        let each = Arc::clone(&shared);
        let limiter = PerKey::new(max_keys, key, move |_| Limiter::new(&each))?;
        Ok(RateLimitLayer { limiter, shared, weight: self.weight, until: self.until })
    }

    fn check(&self) -> Result<(), ConfigError> {
        checked(self.permits, self.per, self.burst)?;
        if self.max_wait > LONGEST_WAIT {
            return Err(ConfigError::new(
                "max_wait",
                format!("is {:?}, but must be an hour at most: nobody waits that long", self.max_wait),
            ));
        }
        if self.max_waiting > MOST_WAITING {
            return Err(ConfigError::new(
                "max_waiting",
                format!("is {}, but must be from 0 to 1,000,000 calls", self.max_waiting),
            ));
        }
        Ok(())
    }

    fn shared(&self) -> Shared {
        let rate = rate(self.permits, self.per, self.burst);
        Shared::new(rate, self.max_wait, self.max_waiting, self.name)
    }

    fn single(self) -> RateLimitLayer<Single<Limiter>, W, D> {
        let shared = Arc::new(self.shared());
        RateLimitLayer {
            limiter: Single::new(Limiter::new(&shared)),
            shared,
            weight: self.weight,
            until: self.until,
        }
    }
}

const LONGEST_WAIT: Duration = Duration::from_secs(3_600);
const MOST_WAITING: u32 = 1_000_000;

fn rate(permits: u32, per: Duration, burst: Option<u32>) -> Rate {
    Rate { permits, per, burst: burst.unwrap_or((permits / 10).max(1)) }
}

fn checked(permits: u32, per: Duration, burst: Option<u32>) -> Result<Rate, ConfigError> {
    const MOST: u32 = 1_000_000_000;
    if permits == 0 {
        return Err(ConfigError::new(
            "rate",
            "must be set to at least 1 permit: `.rate(permits, per)`; to have no limit, leave the layer out",
        ));
    }
    let range = Duration::from_millis(1)..=Duration::from_secs(86_400 * 366);
    if !range.contains(&per) {
        return Err(ConfigError::new(
            "rate",
            format!("is for {per:?}, but must be for a time from 1 ms to 366 days"),
        ));
    }
    if u128::from(permits) > per.as_nanos() {
        return Err(ConfigError::new(
            "rate",
            format!("is {permits} permits in {per:?}, but must be 1,000,000,000 per second at most"),
        ));
    }
    if burst.is_some_and(|burst| !(1..=MOST).contains(&burst)) {
        return Err(ConfigError::new(
            "burst",
            format!("is {}, but must be from 1 to 1,000,000,000 permits", burst.unwrap_or(0)),
        ));
    }
    let rate = rate(permits, per, burst);
    // The clock of the limiter runs for 36 years.
    let years =
        u128::from(rate.burst) * per.as_nanos() / u128::from(permits) / (365 * 86_400 * 1_000_000_000);
    if years >= 30 {
        return Err(ConfigError::new(
            "burst",
            format!(
                "is {}, which would take {years} years to save up: lower it, or raise the rate",
                rate.burst
            ),
        ));
    }
    Ok(rate)
}
