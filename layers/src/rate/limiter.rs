//! A limiter with its line: what one key has, or all requests together.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use super::state::{Gcra, Permit, Rate, Short};
use crate::{
    Rejection,
    admission::{self, Pass},
    clock::Instant,
    keyed::Keep,
    line::{Joined, Line},
    sync::{Mutex, MutexGuard, lock},
    telemetry::{Counter, Gauge},
    timer::{Due, Timer},
};

/// A rate limit and those who wait for it. Layers hold one, or one for each key; you will not need to name it.
pub struct Limiter {
    gcra: Gcra,
    line: Line,
    // Of the rate that it has, to see that another has been set.
    version: AtomicU64,
    refused: AtomicU64,
    shared: Arc<Shared>,
}

/// What all limiters of one layer share.
pub(super) struct Shared {
    rate: Mutex<Rate>,
    version: AtomicU64,
    pub(super) max_wait: Duration,
    pub(super) max_waiting: u32,
    pub(super) name: &'static str,
    refused: Counter,
    waited: Counter,
    waiting: Gauge,
}

impl Shared {
    pub(super) fn new(rate: Rate, max_wait: Duration, max_waiting: u32, name: &'static str) -> Self {
        Self {
            rate: Mutex::new(rate),
            version: AtomicU64::new(0),
            max_wait,
            max_waiting,
            name,
            refused: Counter::new("palisade_rate_limit_refused_total", name, &[]),
            waited: Counter::new("palisade_rate_limit_waited_total", name, &[]),
            waiting: Gauge::new("palisade_rate_limit_waiting", name),
        }
    }

    fn rate(&self) -> MutexGuard<'_, Rate> {
        lock(&self.rate)
    }

    /// Sets the rate that limiters have from their next use on.
    pub(super) fn set(&self, rate: Rate) {
        let mut current = self.rate();
        *current = rate;
        self.version.fetch_add(1, Relaxed);
        drop(current);
        tracing::debug!(layer = self.name, ?rate, "rate set");
    }
}

/// What becomes of a call.
pub(super) enum Asked {
    Admitted,
    Holding(Held),
    Waiting(Turn),
    Refused(Rejection),
}

impl Keep for Limiter {}

impl Limiter {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let rate = shared.rate();
        Self {
            gcra: Gcra::new(*rate, Instant::now()),
            line: Line::new(),
            version: AtomicU64::new(shared.version.load(Relaxed)),
            refused: AtomicU64::new(0),
            shared: Arc::clone(shared),
        }
    }

    /// Asks for `weight` permits. A call that will be made `at_once` has no use for a permit that it could give back.
    #[inline]
    pub(super) fn ask(
        self: &Arc<Self>,
        weight: u32,
        at_once: bool,
        until: impl FnOnce() -> Option<Instant>,
    ) -> Asked {
        if weight == 0 {
            self.gcra.count_admitted();
            return Asked::Admitted;
        }
        let now = Instant::now();
        self.follow(now);
        // Who comes later does not overtake those in line.
        if self.line.is_empty() {
            if at_once {
                if self.gcra.take(weight, now).is_ok() {
                    self.gcra.count_admitted();
                    return Asked::Admitted;
                }
            } else if let Ok(permit) = self.gcra.take_permit(weight, now) {
                return Asked::Holding(self.hold(permit));
            }
        }
        self.ask_to_wait(weight, now, until())
    }

    #[cold]
    fn ask_to_wait(self: &Arc<Self>, weight: u32, now: Instant, until: Option<Instant>) -> Asked {
        let Short::For(wait) = self.gcra.short(weight, self.line.weight(), now) else {
            return Asked::Refused(self.refuse(None));
        };
        let longest = now + self.shared.max_wait;
        // A permit that comes at the deadline is of no use.
        let give_up = until.map_or(longest, |until| longest.min(until - Duration::from_nanos(1)));
        if now + wait > give_up || self.line.len() >= self.shared.max_waiting {
            return Asked::Refused(self.refuse(Some(wait)));
        }
        Asked::Waiting(Turn {
            limiter: Arc::clone(self),
            weight,
            give_up,
            looks_at: give_up,
            armed: None,
            place: None,
        })
    }

    #[cold]
    fn refuse(&self, retry_after: Option<Duration>) -> Rejection {
        self.refused.fetch_add(1, Relaxed);
        self.shared.refused.increment(1);
        tracing::debug!(layer = self.shared.name, ?retry_after, "rate limited");
        Rejection::rate_limited(retry_after)
    }

    fn hold(self: &Arc<Self>, permit: Permit) -> Held {
        self.gcra.count_admitted();
        Held { unused: Some((Arc::clone(self), permit)) }
    }

    /// Goes over to the rate that was set last.
    #[inline]
    pub(super) fn follow(&self, now: Instant) {
        if self.version.load(Relaxed) != self.shared.version.load(Relaxed) {
            self.go_over(now);
        }
    }

    #[cold]
    fn go_over(&self, now: Instant) {
        let rate = self.shared.rate();
        let version = self.shared.version.load(Relaxed);
        if self.version.swap(version, Relaxed) == version {
            return;
        }
        self.gcra.set(*rate, now);
        drop(rate);
        // It has a timer for the old rate.
        self.line.nudge(|_, _| true);
    }

    pub(super) fn snapshot(&self, now: Instant) -> RateLimitSnapshot {
        self.follow(now);
        let Rate { permits, per, burst } = *self.shared.rate();
        RateLimitSnapshot {
            permits,
            per,
            burst,
            available: self.gcra.available(now),
            waiting: self.line.len(),
            admitted: self.gcra.admitted(),
            refused: self.refused.load(Relaxed),
        }
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = *self.shared.rate();
        f.debug_struct("Limiter")
            .field("name", &self.shared.name)
            .field("rate", &rate)
            .field("now", &self.snapshot(Instant::now()))
            .finish_non_exhaustive()
    }
}

/// What a rate limit has to give at a moment, and what became of the calls so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitSnapshot {
    /// So many permits come in `per`.
    pub permits: u32,
    /// The time in which `permits` come.
    pub per: Duration,
    /// The most that is saved up.
    pub burst: u32,
    /// Permits that could be taken now.
    pub available: u32,
    /// Calls that wait for permits.
    pub waiting: u32,
    /// Calls that were given their permits, whether or not they used them.
    pub admitted: u64,
    /// Calls that were refused.
    pub refused: u64,
}

/// A permit that comes back if its call is dropped before the inner service is called.
pub(super) struct Held {
    unused: Option<(Arc<Limiter>, Permit)>,
}

impl Pass for Held {
    fn called(&mut self) {
        self.unused = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((limiter, permit)) = self.unused.take() {
            limiter.gcra.give_back(&permit, Instant::now);
            limiter.line.nudge(|_, _| true);
        }
    }
}

/// A call that waits for its turn.
pub(super) struct Turn {
    limiter: Arc<Limiter>,
    weight: u32,
    give_up: Instant,
    // When it will look by itself whether its turn has come.
    looks_at: Instant,
    // What the timer is armed for.
    armed: Option<Instant>,
    // None before the first poll, and after the last.
    place: Option<u32>,
}

impl admission::Turn for Turn {
    type Pass = Held;

    fn poll(&mut self, timer: &mut Timer, cx: &mut Context<'_>) -> Poll<Result<Held, Rejection>> {
        loop {
            let now = Instant::now();
            self.limiter.follow(now);
            let place = match self.place {
                Some(place) => place,
                None => match self.join(now) {
                    Ok(place) => place,
                    Err(rejection) => return Poll::Ready(Err(rejection)),
                },
            };
            if self.watch(place, cx) {
                match self.limiter.gcra.take_permit(self.weight, now) {
                    Ok(permit) => {
                        self.leave(now);
                        return Poll::Ready(Ok(self.limiter.hold(permit)));
                    }
                    Err(Short::For(wait)) if now + wait <= self.give_up => self.looks_at = now + wait,
                    // It was to come in time when the wait began: the rate has been lowered since, or a timer was late.
                    Err(short) => return Poll::Ready(Err(self.give_up(short, now))),
                }
            } else if now >= self.give_up {
                let ahead = self.limiter.line.weight().saturating_sub(u64::from(self.weight));
                let short = self.limiter.gcra.short(self.weight, ahead, now);
                return Poll::Ready(Err(self.give_up(short, now)));
            } else if now >= self.looks_at {
                // Somebody ahead is late, and will wake this one.
                self.looks_at = self.give_up;
                if self.watch(place, cx) {
                    continue;
                }
            }
            if self.armed != Some(self.looks_at) {
                self.armed = Some(self.looks_at);
                *timer = Timer::unarmed();
            }
            let looks_at = self.looks_at;
            ready!(timer.poll(cx, || Due::at_given(looks_at, now)));
            self.armed = None;
        }
    }
}

impl Turn {
    fn join(&mut self, now: Instant) -> Result<u32, Rejection> {
        let Self { limiter, weight, .. } = self;
        let Ok(Joined { place, ahead }) = limiter.line.join(*weight, limiter.shared.max_waiting) else {
            let short = limiter.gcra.short(*weight, limiter.line.weight(), now);
            return Err(self.give_up(short, now));
        };
        self.place = Some(place);
        limiter.shared.waited.increment(1);
        limiter.shared.waiting.add(1.0);
        match limiter.gcra.short(*weight, ahead, now) {
            Short::For(wait) if now + wait <= self.give_up => {
                self.looks_at = now + wait;
                Ok(place)
            }
            short => Err(self.give_up(short, now)),
        }
    }

    fn watch(&self, place: u32, cx: &Context<'_>) -> bool {
        self.limiter.line.watch(place, cx.waker(), self.looks_at.as_nanos())
    }

    fn give_up(&mut self, short: Short, now: Instant) -> Rejection {
        self.leave(now);
        self.limiter.refuse(match short {
            Short::For(wait) => Some(wait),
            Short::Forever => None,
        })
    }

    fn leave(&mut self, now: Instant) {
        let Some(place) = self.place.take() else {
            return;
        };
        let gcra = &self.limiter.gcra;
        self.limiter.line.leave(place, |weight, looks_at| match gcra.short(weight, 0, now) {
            // It has a timer of its own, which is right unless somebody before it has left without a permit.
            Short::For(wait) => looks_at > (now + wait).as_nanos(),
            Short::Forever => true,
        });
        self.limiter.shared.waiting.add(-1.0);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.leave(Instant::now());
        }
    }
}
