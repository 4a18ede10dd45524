//! When there is too much to do: levels whose line has been too long for too long.
//!
//! The lines nest: that of a level is everybody of its priority and above, since they all go first. So do the levels that
//! are overloaded: they are always the lowest ones.

use std::time::Duration;

use super::line::{LEVELS, Lines};
use crate::clock::Instant;

/// The settings that an operator can turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) target: Duration,
    pub(super) interval: Duration,
    pub(super) max_wait: Duration,
    pub(super) max_waiting: u32,
    pub(super) newest_first: bool,
}

/// Which levels are overloaded, and how fast those in line are served.
#[derive(Debug)]
pub(super) struct Overload {
    /// So many levels are overloaded, from the lowest up.
    levels: usize,
    // Since when somebody in the line of each level has waited for longer than the target.
    late_since: [Option<Instant>; LEVELS],
    // The mean time between two that are served, while somebody waits.
    gap: Option<Duration>,
    last_served: Option<Instant>,
}

/// How slowly the mean follows.
const MEMORY: u32 = 16;

impl Overload {
    pub(super) const fn none() -> Self {
        Self { levels: 0, late_since: [None; LEVELS], gap: None, last_served: None }
    }

    /// So many levels are overloaded, from the lowest up.
    pub(super) const fn levels(&self) -> usize {
        self.levels
    }

    /// Whether this level is.
    pub(super) const fn at(&self, level: usize) -> bool {
        level < self.levels
    }

    /// How long those at an overloaded level may wait. Where fewer than two are served in the time of the target, that
    /// time is too short to tell a long line from a slow service, and everybody could be sent away before anybody is served.
    pub(super) fn target(&self, rules: &Rules) -> Duration {
        let twice = self.gap.unwrap_or_default().saturating_mul(2);
        rules.target.max(twice.min(rules.max_wait))
    }

    /// The interval, longer by as much as the target is.
    fn interval(&self, rules: &Rules) -> Duration {
        let target = self.target(rules);
        if target == rules.target {
            return rules.interval;
        }
        let stretched =
            rules.interval.as_nanos().saturating_mul(target.as_nanos()) / rules.target.as_nanos().max(1);
        let stretched = u64::try_from(stretched).map_or(Duration::MAX, Duration::from_nanos);
        stretched.min(rules.max_wait.max(rules.interval))
    }

    /// Somebody joins where nobody was in line.
    pub(super) fn begun(&mut self, now: Instant) {
        self.last_served = Some(now);
    }

    /// One of those in line is served.
    pub(super) fn served(&mut self, now: Instant, rules: &Rules) {
        if let Some(last) = self.last_served.replace(now) {
            let gap = now.saturating_duration_since(last).min(rules.max_wait);
            self.gap = Some(self.gap.map_or(gap, |mean| (mean * (MEMORY - 1) + gap) / MEMORY));
        }
    }

    /// Looks at the lines as they are now: to be called after each change of them, and before each decision.
    pub(super) fn update(&mut self, lines: &Lines, now: Instant, rules: &Rules) {
        let target = self.target(rules);
        let mut oldest: Option<Instant> = None;
        for level in (0..LEVELS).rev() {
            let here = lines.oldest(level).and_then(|place| lines.get(place)).map(|waiter| waiter.joined);
            oldest = match (oldest, here) {
                (Some(above), Some(here)) => Some(above.min(here)),
                (above, here) => above.or(here),
            };
            match oldest {
                None => {
                    self.late_since[level] = None;
                    self.levels = self.levels.min(level);
                }
                Some(joined) => {
                    let late = joined + target;
                    if late <= now {
                        self.late_since[level].get_or_insert(late);
                    } else if level >= self.levels {
                        self.late_since[level] = None;
                    }
                }
            }
        }
        if oldest.is_none() {
            self.last_served = None;
        }
        let interval = self.interval(rules);
        while self.levels < LEVELS
            && self.late_since[self.levels]
                .is_some_and(|since| now.saturating_duration_since(since) >= interval)
        {
            self.levels += 1;
        }
    }
}
