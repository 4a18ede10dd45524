//! The throttle's core: synchronous, and told the time and the chance.
//!
//! As long as the service has not said within the window that it is overloaded, a call is one load, and an answer is
//! one exchange in the window. Nothing waits for a lock but what finds a bucket of the window at its end.

use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::{
    clock::Instant,
    sync::{
        Mutex,
        atomic::{
            AtomicI64, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
        lock,
    },
    window::{Marks, Span, Sums, Window},
};

/// How much is refused, and when. All checked by the builder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) window: Duration,
    pub(super) max_rejection: f64,
    pub(super) min_passes_per_second: f64,
}

/// What the service said to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Anything but the following.
    Accepted,
    /// It has more work than it can do, and may have said when to come back.
    Overloaded { retry_after: Option<Duration> },
}

/// What is to become of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Decision {
    /// It passes: the last answer that speaks against it has left the window.
    Calm,
    /// It passes, while this share of the calls is to be refused.
    Pass { share: f64 },
    /// It is refused, as is this share of the calls.
    Refuse { share: f64 },
}

/// Figures of a throttle at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    pub(super) requests: u32,
    pub(super) accepts: u32,
    pub(super) rejections: u32,
    pub(super) share: f64,
}

pub(super) struct Core {
    // When the last answer that spoke of overload leaves the window, in nanoseconds of the clock; zero where there is none.
    until: AtomicU64,
    window: Window,
    // Held by who moves the window on.
    moving: Mutex<()>,
    rules: Rules,
    // The longest time between two passes.
    interval: u64,
    // Apart from what every call reads.
    weighed: CachePadded<Weighed>,
}

/// What calls write while some of them are refused.
struct Weighed {
    // How many refusals are owed, in parts of `ONE`: what the shares add up to, less the refusals.
    owed: AtomicI64,
    // When a call has to pass whatever the share.
    pass_at: AtomicU64,
    // When the service wants to be asked again.
    come_back_at: AtomicU64,
}

const ONE: i64 = 1 << 32;

/// A window needs generations only where it is emptied.
const GENERATION: u64 = 1;

// The marks of an event in the window. One without a mark is an accept.
const REJECTED: Marks = [true, false];
const REFUSED_HERE: Marks = [false, true];

/// Longer waits that a service asks for are told to callers as this.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl Core {
    pub(super) fn new(rules: Rules, now: Instant) -> Self {
        let interval = interval_of(rules.min_passes_per_second);
        Self {
            until: AtomicU64::new(0),
            window: Window::new(Span::Time(rules.window), GENERATION, now),
            moving: Mutex::new(()),
            rules,
            interval,
            weighed: CachePadded::new(Weighed {
                owed: AtomicI64::new(0),
                pass_at: AtomicU64::new(now.as_nanos().saturating_add(interval)),
                come_back_at: AtomicU64::new(0),
            }),
        }
    }

    /// Whether any call may pass without a question.
    #[inline]
    pub(super) fn is_calm(&self) -> bool {
        self.until.load(Relaxed) == 0
    }

    /// Decides about a call where it is not calm. `random` is at least 0 and less than 1.
    pub(super) fn decide(&self, multiplier: f64, random: f64, now: Instant) -> Decision {
        let until = self.until.load(Acquire);
        if now.as_nanos() >= until {
            // Not if another answer came meanwhile.
            let _ = self.until.compare_exchange(until, 0, Relaxed, Relaxed);
            return Decision::Calm;
        }
        let share = self.share(&self.sums(now), multiplier);
        if share <= 0.0 {
            return Decision::Pass { share };
        }
        let due = self.is_due(share, random);
        let passes = self.weighed.pass_at.load(Relaxed);
        if due && now.as_nanos() < passes {
            return Decision::Refuse { share };
        }
        // Of those who find that one has to pass, one does.
        let moved =
            self.weighed.pass_at.compare_exchange(passes, self.next_pass(passes, now), Relaxed, Relaxed);
        if due && moved.is_err() {
            return Decision::Refuse { share };
        }
        Decision::Pass { share }
    }

    /// Counts a call that was refused.
    pub(super) fn count_refusal(&self, now: Instant) {
        self.add(REFUSED_HERE, now);
    }

    /// Counts an answer.
    #[inline]
    pub(super) fn count_answer(&self, answer: Answer, now: Instant) {
        match answer {
            Answer::Accepted => self.add([false, false], now),
            Answer::Overloaded { retry_after } => self.count_rejection(retry_after, now),
        }
    }

    #[cold]
    fn count_rejection(&self, retry_after: Option<Duration>, now: Instant) {
        self.add(REJECTED, now);
        let weighed = &*self.weighed;
        let until = (now + self.rules.window).as_nanos();
        if self.until.fetch_max(until, Release) <= now.as_nanos() {
            // This call has passed, and what was owed and said before is long ago.
            weighed.pass_at.store(now.as_nanos().saturating_add(self.interval), Relaxed);
            weighed.owed.store(0, Relaxed);
            weighed.come_back_at.store(0, Relaxed);
        }
        if let Some(wait) = retry_after {
            weighed.come_back_at.store((now + wait.min(LONGEST_WAIT)).as_nanos(), Relaxed);
        }
    }

    /// The wait that the service has asked for, as far as it is not over.
    pub(super) fn come_back_after(&self, now: Instant) -> Option<Duration> {
        let wait = self.weighed.come_back_at.load(Relaxed).saturating_sub(now.as_nanos());
        (wait > 0).then(|| Duration::from_nanos(wait))
    }

    pub(super) fn window(&self) -> Duration {
        self.rules.window
    }

    pub(super) fn figures(&self, multiplier: f64, now: Instant) -> Figures {
        let sums = self.sums(now);
        let calm = now.as_nanos() >= self.until.load(Acquire);
        let share = if calm { 0.0 } else { self.share(&sums, multiplier) };
        Figures { requests: sums.events, accepts: accepts(&sums), rejections: sums.marked[0], share }
    }

    fn share(&self, sums: &Sums, multiplier: f64) -> f64 {
        let (requests, accepts) = (f64::from(sums.events), f64::from(accepts(sums)));
        let [rejected, refused_here] = sums.marked.map(f64::from);
        if refused_here >= self.refusals_for_each(multiplier) * rejected {
            return 0.0;
        }
        ((requests - multiplier * accepts) / (requests + 1.0)).max(0.0).min(self.rules.max_rejection)
    }

    /// How many refusals rest on a rejection at most: twice as many as there are for each when the largest share is refused
    /// of a service that accepts some of the rest.
    ///
    /// Without that a stray rejection throttles a service that is slow to accept, since refusals count as requests at once.
    fn refusals_for_each(&self, multiplier: f64) -> f64 {
        let largest = self.rules.max_rejection;
        2.0 * multiplier / (multiplier - 1.0) * largest / (1.0 - largest)
    }

    /// Whether a refusal is due. Of many calls in a row as many are as their shares add up to, give or take a few; chance
    /// decides which, so that of callers who take turns none is refused more often than the others.
    ///
    /// Where nothing is owed the chance is the share, and a fourth more for each refusal that is owed: enough to
    /// settle it soon, and so little that what came before does not decide.
    fn is_due(&self, share: f64, random: f64) -> bool {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "one is exact, and the rest a few times that"
        )]
        let parts = |refusals: f64| (refusals * ONE as f64) as i64;
        let (more, enough) = (parts(share), parts(share + (random - share) * 4.0));
        let owed = &self.weighed.owed;
        // Threads that add at the same moment may refuse one more each, and owe one less for it.
        let due = owed.fetch_add(more, Relaxed) + more > enough;
        if due {
            owed.fetch_sub(ONE, Relaxed);
        }
        due
    }

    /// When the next call has to pass, after one that passes now. At most one that was missed is made up for, and
    /// what was more than enough is no credit.
    fn next_pass(&self, due: u64, now: Instant) -> u64 {
        let now = now.as_nanos();
        due.saturating_add(self.interval).clamp(now, now.saturating_add(self.interval))
    }

    fn sums(&self, now: Instant) -> Sums {
        self.window.sums(GENERATION, now)
    }

    #[inline]
    fn add(&self, marks: Marks, now: Instant) {
        if !self.window.add(GENERATION, marks, now) {
            self.add_with_room(marks, now);
        }
    }

    #[cold]
    fn add_with_room(&self, marks: Marks, now: Instant) {
        let _moving = lock(&self.moving);
        while !self.window.add(GENERATION, marks, now) {
            self.window.make_room(GENERATION, now);
        }
    }
}

fn accepts(sums: &Sums) -> u32 {
    let [rejected, refused_here] = sums.marked;
    sums.events.saturating_sub(rejected).saturating_sub(refused_here)
}

/// In nanoseconds. Where no call ever has to pass, longer than anybody waits.
fn interval_of(per_second: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the setting is checked to be small and positive, and a cast saturates"
    )]
    let interval = (1e9 / per_second.abs()) as u64;
    interval.max(1)
}
