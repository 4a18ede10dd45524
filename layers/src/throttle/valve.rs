//! A core with those who are told what becomes of it: what one key has, or all requests together.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicU8, AtomicU32, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use super::state::{Answer, Core, Decision, Rules};
use crate::{
    class::{Class, Fault},
    clock::{Instant, nanos},
    handle::Handle,
    keyed::Keep,
    telemetry::{Counter, Gauge},
};

/// What a throttle does with calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// It refuses the share that the service's answers ask for. The default.
    #[default]
    On,
    /// It refuses nothing, and counts what it would have refused.
    Observing,
    /// It lets every call pass and counts nothing.
    Off,
}

impl Mode {
    const fn from_u8(number: u8) -> Self {
        match number {
            0 => Self::On,
            1 => Self::Observing,
            _ => Self::Off,
        }
    }
}

/// What a throttle has seen lately of one service, and how much it refuses. Layers hold one, or one for each key; you will not
/// need to name it.
pub struct Valve {
    core: Core,
    key: Option<Arc<str>>,
    refused: AtomicU64,
    suppressed: AtomicU64,
    // When a call was refused last, in nanoseconds of the clock; zero once everybody knows that none is any more.
    last_refused: AtomicU64,
    // The share that the gauge has of it, in hundredths.
    shown: AtomicU32,
    shared: Arc<Shared>,
}

/// What all valves of one layer share.
pub(super) struct Shared {
    pub(super) rules: Rules,
    mode: AtomicU8,
    // The bits of a float.
    multiplier: AtomicU64,
    name: &'static str,
    refused: Counter,
    suppressed: Counter,
    share: Gauge,
}

impl Shared {
    pub(super) fn new(rules: Rules, multiplier: f64, mode: Mode, name: &'static str) -> Self {
        Self {
            rules,
            mode: AtomicU8::new(mode as u8),
            multiplier: AtomicU64::new(multiplier.to_bits()),
            name,
            refused: Counter::new("palisade_throttle_refused_total", name, &[]),
            suppressed: Counter::new("palisade_throttle_suppressed_total", name, &[]),
            share: Gauge::new("palisade_throttle_refused_share", name),
        }
    }

    #[inline]
    fn mode(&self) -> Mode {
        Mode::from_u8(self.mode.load(Relaxed))
    }

    /// Where it does not refuse any more, [`Valve::settle`] has to be called for each valve.
    pub(super) fn set_mode(&self, mode: Mode) {
        if self.mode.swap(mode as u8, SeqCst) != mode as u8 {
            tracing::debug!(layer = self.name, ?mode, "mode set");
        }
    }

    fn multiplier(&self) -> f64 {
        f64::from_bits(self.multiplier.load(Relaxed))
    }

    pub(super) fn set_multiplier(&self, multiplier: f64) {
        self.multiplier.store(multiplier.to_bits(), Relaxed);
        tracing::debug!(layer = self.name, multiplier, "multiplier set");
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("name", &self.name)
            .field("rules", &self.rules)
            .field("mode", &self.mode())
            .field("multiplier", &self.multiplier())
            .finish_non_exhaustive()
    }
}

impl Keep for Valve {}

impl Valve {
    pub(super) fn new(shared: &Arc<Shared>, key: Option<Arc<str>>) -> Self {
        Self {
            core: Core::new(shared.rules, Instant::now()),
            key,
            refused: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
            last_refused: AtomicU64::new(0),
            shown: AtomicU32::new(0),
            shared: Arc::clone(shared),
        }
    }

    /// Lets a call pass, and tells who wants to know its outcome, if anybody does; or when the service wants to be asked again,
    /// where that is known.
    #[inline]
    pub(super) fn ask(this: &Handle<Self>) -> Result<Option<Handle<Self>>, Option<Duration>> {
        let mode = this.shared.mode();
        if mode == Mode::Off {
            return Ok(None);
        }
        if !this.core.is_calm() {
            this.weigh(mode)?;
        }
        Ok(Some(Arc::clone(this)))
    }

    /// Decides where the service has spoken of overload lately.
    #[inline(never)]
    fn weigh(&self, mode: Mode) -> Result<(), Option<Duration>> {
        let now = Instant::now();
        match self.core.decide(self.shared.multiplier(), fastrand::f64(), now) {
            Decision::Calm => self.end_refusing(),
            Decision::Refuse { .. } if mode != Mode::On => {
                self.suppressed.fetch_add(1, Relaxed);
                self.shared.suppressed.increment(1);
            }
            Decision::Refuse { share } => return Err(self.refuse(share, now)),
            Decision::Pass { .. } if self.last_refused.load(Relaxed) == 0 => {}
            Decision::Pass { share } if share > 0.0 => {
                self.show(share);
                self.settle();
            }
            // It may well begin again at once: one window is as long as it remembers.
            Decision::Pass { share } => {
                self.show(share);
                let last = self.last_refused.load(Relaxed);
                if now.as_nanos() >= last.saturating_add(nanos(self.core.window())) {
                    self.end_refusing();
                }
            }
        }
        Ok(())
    }

    fn refuse(&self, share: f64, now: Instant) -> Option<Duration> {
        self.core.count_refusal(now);
        self.refused.fetch_add(1, Relaxed);
        self.shared.refused.increment(1);
        if self.last_refused.swap(now.as_nanos(), SeqCst) == 0 {
            let (layer, key) = (self.shared.name, self.key.as_deref());
            tracing::debug!(layer, key, share, "the service says that it is overloaded: calls are refused");
        }
        self.show(share);
        self.settle();
        self.core.come_back_after(now)
    }

    /// Tells everybody that no calls are refused, where that came about while one was.
    #[inline]
    pub(super) fn settle(&self) {
        if Mode::from_u8(self.shared.mode.load(SeqCst)) != Mode::On || self.core.is_calm() {
            self.end_refusing();
        }
    }

    #[cold]
    fn end_refusing(&self) {
        if self.last_refused.swap(0, SeqCst) != 0 {
            let (layer, key) = (self.shared.name, self.key.as_deref());
            tracing::debug!(layer, key, "calls are not refused any more");
        }
        self.show_hundredths(0);
    }

    /// Gives the gauge a share that differs from what it has by some hundredths: it is dear where threads share it.
    fn show(&self, share: f64) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1")]
        let hundredths = (share * 100.0).round() as u32;
        if hundredths.abs_diff(self.shown.load(Relaxed)) >= STEP {
            self.show_hundredths(hundredths);
        }
    }

    fn show_hundredths(&self, hundredths: u32) {
        // Whoever is told by another thread of another share adds the difference to that.
        let shown = self.shown.swap(hundredths, SeqCst);
        if shown != hundredths {
            self.shared.share.add((f64::from(hundredths) - f64::from(shown)) / 100.0);
        }
    }

    /// Counts the outcome of a call that has passed, if it says anything.
    #[inline]
    pub(super) fn count(&self, class: &Class) {
        let answer = match class.fault() {
            // The service was not asked.
            _ if class.is_refused_here() => return,
            // Silence may have any reason.
            Fault::Unreachable => return,
            Fault::Overload => Answer::Overloaded { retry_after: class.retry_after() },
            Fault::None | Fault::Caller | Fault::Server => Answer::Accepted,
        };
        self.core.count_answer(answer, Instant::now());
    }

    pub(super) fn snapshot(&self) -> ThrottleSnapshot {
        let multiplier = self.shared.multiplier();
        let figures = self.core.figures(multiplier, Instant::now());
        ThrottleSnapshot {
            mode: self.shared.mode(),
            multiplier,
            requests: figures.requests,
            accepts: figures.accepts,
            rejections: figures.rejections,
            share: figures.share,
            refused: self.refused.load(Relaxed),
            suppressed: self.suppressed.load(Relaxed),
        }
    }
}

/// What the gauge may be wrong by, in hundredths, before it is corrected.
const STEP: u32 = 5;

impl Drop for Valve {
    fn drop(&mut self) {
        // One that refuses, and whose key makes room for another one.
        self.show_hundredths(0);
    }
}

impl fmt::Debug for Valve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Valve")
            .field("layer", &self.shared.name)
            .field("key", &self.key)
            .field("now", &self.snapshot())
            .finish_non_exhaustive()
    }
}

/// What a throttle has seen in its window and what it makes of it, and what became of the calls so far.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ThrottleSnapshot {
    /// What it does with calls.
    pub mode: Mode,
    /// How many calls there may be for each that the service accepts.
    pub multiplier: f64,
    /// Calls in the window: those that were answered, and those that were refused here.
    pub requests: u32,
    /// Those of them that the service has accepted, whatever it answered.
    pub accepts: u32,
    /// Those of them that the service has rejected because of overload.
    pub rejections: u32,
    /// The share of calls that is refused now, from 0 to less than 1; while [`Mode::Observing`], that would be. While
    /// [`Mode::Off`] it is what the window of before says.
    pub share: f64,
    /// Calls that were refused since the throttle was made.
    pub refused: u64,
    /// Calls that would have been refused, but for [`Mode::Observing`].
    pub suppressed: u64,
}
