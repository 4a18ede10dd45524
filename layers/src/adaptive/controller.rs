//! The arithmetic: from what a window saw to the limit of the next one. Plain numbers, told the time.
//!
//! Two latencies are compared: `recent`, that of the last windows, and `base`, that of a service without a queue. By Little's law the calls
//! in flight are throughput times latency, so a latency of `tolerance` times the base means that as many calls again, less one, wait in the service as it
//! works on. The limit goes down in that proportion, and up while there is less than that.
//! How the base is measured stands in [`probe`].

mod probe;

use std::time::Duration;

use self::probe::{PROBE_EVERY, Probe};
use crate::clock::Instant;

/// The shortest window.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest window, unless calls take longer than a quarter of it; and the longest of all.
const LONGEST: Duration = Duration::from_secs(1);
const LONGEST_OF_ALL: Duration = Duration::from_secs(10);
/// After drops nothing is probed for so long.
const RECOVERY: Duration = Duration::from_secs(3);
/// The most that a probe waits for the calls of before it.
const LONGEST_DRAIN: Duration = Duration::from_secs(5);
/// A call that is dropped this old counts as one that took too long, before any latency is known.
const PATIENCE: Duration = Duration::from_secs(1);
/// Timers are no better than that.
const LEAST_PATIENCE: Duration = Duration::from_millis(1);
/// An estimate from this many samples changes the one from before by half.
const RECENT_WEIGHT: f64 = 16.0;
const BASE_WEIGHT: f64 = 64.0;
/// In so many seconds a peak of calls in flight counts half.
const PEAK_HALVES_IN: f64 = 5.0;
/// After so many seconds without a call the latency is another.
const IDLE: f64 = 10.0;
/// The limit is at most so many times what is used.
const MOST_ABOVE_USE: f64 = 5.0;

/// What an operator and the builder set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) initial: u32,
    pub(super) min: u32,
    pub(super) max: u32,
    pub(super) tolerance: f64,
}

/// What a window saw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// Calls that succeeded, and their mean latency in seconds.
    pub(super) samples: u32,
    pub(super) latency: f64,
    /// Calls that succeeded, and began before there was anything to measure.
    pub(super) others: u32,
    /// Calls that were dropped: by the service, or by callers for whom they took too long.
    pub(super) drops: u32,
    /// The most that were in flight at once.
    pub(super) most_in_flight: u32,
}

/// Why the limit went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Latency,
    Drops,
}

/// What a closed window led to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Verdict {
    /// The limit went down, apart from a probe.
    pub(super) decreased: Option<Cause>,
    /// A probe has begun.
    pub(super) probe: bool,
}

/// How long the window lasts that has just begun, and which calls count in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) at_least: Duration,
    pub(super) at_most: Duration,
    /// It ends between the two once so many calls have ended, and twice as many as were in flight: those that began and ended in it.
    pub(super) enough: u32,
    /// Only calls that begin from now on count, until the next plan says otherwise.
    pub(super) anew: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Steady,
    /// A probe that waits until the calls from before it have ended.
    Draining(Probe),
    Measuring(Probe),
    /// After a probe: its calls were faster than those that come now.
    Settling,
}

pub(super) struct Controller {
    settings: Settings,
    limit: f64,
    held: Option<u32>,
    base: Option<f64>,
    recent: Option<f64>,
    phase: Phase,
    /// Whether it was the limit that held calls back, of late: from 0 to 1.
    pressed: f64,
    /// The calls that succeeded in a second of the last window.
    throughput: f64,
    /// The most calls in flight, fading.
    peak: f64,
    /// The limit at which calls were dropped.
    ceiling: f64,
    /// Of how many samples the recent latency is; none if they were of other limits.
    known_from: f64,
    /// Whether the limit has just been raised by much: of calls that become more and more, short ones end first.
    growing: bool,
    /// Whether the base was measured where there was no queue of ours.
    verified: bool,
    /// The limit, and the latency, since which the latency has not fallen with the limit.
    reference: (f64, f64),
    probe_at: Instant,
    /// When a limit that falls in vain may be probed, and for how long it is not after a probe that found nothing new.
    doubt_at: Instant,
    doubt_wait: Duration,
    closed_at: Instant,
    random: fastrand::Rng,
}

impl Controller {
    pub(super) fn new(settings: Settings, seed: u64, now: Instant) -> Self {
        Self {
            settings,
            limit: f64::from(settings.initial),
            held: None,
            base: None,
            recent: None,
            phase: Phase::Steady,
            pressed: 0.0,
            throughput: 0.0,
            peak: 0.0,
            ceiling: f64::INFINITY,
            known_from: 0.0,
            growing: false,
            verified: false,
            reference: (0.0, 0.0),
            probe_at: now,
            doubt_at: now,
            doubt_wait: Duration::ZERO,
            closed_at: now,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// The limit that is in force.
    pub(super) fn limit(&self) -> u32 {
        match (self.held, self.phase) {
            (Some(held), _) => held,
            (None, Phase::Draining(probe) | Phase::Measuring(probe)) => {
                probe.limit.clamp(self.settings.min, self.settings.max)
            }
            _ => self.whole(self.limit),
        }
    }

    pub(super) const fn settings(&self) -> Settings {
        self.settings
    }

    pub(super) const fn held(&self) -> Option<u32> {
        self.held
    }

    pub(super) const fn base(&self) -> Option<f64> {
        self.base
    }

    pub(super) const fn recent(&self) -> Option<f64> {
        self.recent
    }

    pub(super) const fn is_probing(&self) -> bool {
        matches!(self.phase, Phase::Draining(_) | Phase::Measuring(_))
    }

    /// How old a call has to be for its caller's giving up to count.
    pub(super) fn patience(&self) -> Duration {
        self.recent.map_or(PATIENCE, |recent| seconds(2.0 * recent).max(LEAST_PATIENCE))
    }

    /// Sets the bounds, which have been checked.
    pub(super) fn set_bounds(&mut self, min: u32, max: u32) {
        self.settings.min = min;
        self.settings.max = max;
        self.limit = self.bounded(self.limit);
    }

    /// Keeps the limit where it is put, or lets it go on from there.
    pub(super) fn hold(&mut self, limit: Option<u32>) {
        if let Some(limit) = limit.or(self.held) {
            self.limit = self.bounded(f64::from(limit));
        }
        self.held = limit;
        self.phase = Phase::Steady;
    }

    pub(super) fn plan(&self) -> Plan {
        let recent = seconds(self.recent.unwrap_or(0.0));
        let at_most = (recent * 4).clamp(LONGEST, LONGEST_OF_ALL);
        match self.phase {
            Phase::Steady | Phase::Measuring(_) => {
                let few = if self.is_probing() { 32 } else { self.limit().saturating_mul(3).min(32) };
                Plan { at_least: SHORTEST, at_most, enough: few, anew: false }
            }
            Phase::Draining(_) | Phase::Settling => {
                let drain = (recent * 3).clamp(SHORTEST / 10, LONGEST_DRAIN);
                Plan { at_least: drain, at_most: drain, enough: 0, anew: true }
            }
        }
    }

    /// Closes a window, and moves the limit.
    pub(super) fn close(&mut self, seen: Seen, now: Instant) -> Verdict {
        let in_force = self.limit();
        let length = now.saturating_duration_since(self.closed_at).as_secs_f64();
        self.closed_at = now;
        if length > IDLE {
            self.known_from = 0.0;
        }
        if length > 0.0 && !self.is_probing() {
            self.throughput = (f64::from(seen.samples) + f64::from(seen.others)) / length;
        }
        self.peak = f64::from(seen.most_in_flight).max(self.peak * (-length / PEAK_HALVES_IN).exp2());
        let was = self.limit;
        let decreased = match self.phase {
            Phase::Steady => self.steady(seen, in_force, now),
            probing_or_after => {
                let decreased = self.after_drops(seen, now);
                self.phase = match probing_or_after {
                    Phase::Draining(probe) if decreased.is_none() => Phase::Measuring(probe),
                    Phase::Measuring(probe) if decreased.is_none() => self.end_probe(probe, seen, now),
                    _ => Phase::Steady,
                };
                decreased
            }
        };
        if self.held.is_some() {
            self.limit = was;
            self.phase = Phase::Steady;
            return Verdict { decreased: None, probe: false };
        }
        let most = (MOST_ABOVE_USE * self.peak).max(f64::from(self.settings.initial));
        self.limit = self.bounded(self.limit.min(most));
        Verdict {
            decreased: decreased.filter(|_| self.limit < was),
            probe: matches!(self.phase, Phase::Draining(_)),
        }
    }

    fn steady(&mut self, seen: Seen, in_force: u32, now: Instant) -> Option<Cause> {
        let binding = seen.most_in_flight >= in_force;
        self.pressed = 0.8 * self.pressed + if binding { 0.2 } else { 0.0 };
        let before = self.limit;
        let dropped = self.after_drops(seen, now);
        if seen.samples == 0 {
            return dropped;
        }
        let (recent, base) = self.measure(seen, in_force);
        let Settings { tolerance, .. } = self.settings;
        let ratio = recent / base;
        let knee = 1.0 + 0.3 * (tolerance - 1.0);
        if in_force == 1 && dropped.is_none() {
            // It is not our queue, whatever the latency; a limit that cannot fall has to try.
            self.limit = self.limit.max(2.0);
        } else if ratio > tolerance {
            // Few samples may be wrong: the first ones after a change must be far off to count, and the later ones count less.
            if ratio < tolerance * self.doubt() {
                self.growing = false;
                return dropped;
            }
            let evidence = f64::from(seen.samples) / (f64::from(seen.samples) + RECENT_WEIGHT);
            self.limit = self.limit.min(before * (1.0 - evidence * (1.0 - (tolerance / ratio).max(0.5))));
        } else if dropped.is_none() && seen.most_in_flight.saturating_mul(2) >= in_force {
            let step = self.limit.sqrt().min(0.14 * self.limit).max(1.0);
            self.limit += if ratio > knee {
                step * (tolerance - ratio) / (tolerance - knee)
            } else if self.limit > 0.8 * self.ceiling {
                // Slowly past where calls were dropped the last time.
                0.03 * self.limit
            } else if binding {
                // There is no queue to speak of, and a queue as long as this is still tolerated.
                (0.3 * self.limit).max(1.0)
            } else {
                step
            };
        }
        if self.limit > 1.1 * self.ceiling {
            self.ceiling = f64::INFINITY;
        }
        self.growing = self.limit > 1.05 * before;
        if seen.most_in_flight.saturating_mul(2) <= in_force && ratio <= knee {
            // So few calls do not queue behind each other.
            self.verified = true;
        }
        if self.pressed < 0.1 && ratio <= knee {
            // What comes now may be a flood, whose first calls tell of the way to it.
            self.probe_at = self.probe_at.max(now + PROBE_EVERY / 5);
        }
        let decreased = dropped.or_else(|| (self.limit < before).then_some(Cause::Latency));
        if binding && dropped.is_none() {
            self.probe_if_due(ratio, recent, in_force, now);
        }
        decreased
    }

    /// What drops make of the limit: less if there are few, and half of it at most.
    fn after_drops(&mut self, seen: Seen, now: Instant) -> Option<Cause> {
        let (drops, succeeded) = (f64::from(seen.drops), f64::from(seen.samples) + f64::from(seen.others));
        let share = drops / (drops + succeeded).max(1.0);
        if seen.drops == 0 || share < 0.02 || (seen.drops < 3 && succeeded > 0.0) {
            return None;
        }
        // Ten calls that fail at once tell little of a limit of a thousand.
        let evidence = (drops / (0.1 * self.limit).max(3.0)).min(1.0);
        let severity = ((share - 0.5) / 0.4).clamp(0.0, 1.0);
        if self.ceiling.is_infinite() || self.limit > 0.8 * self.ceiling {
            self.ceiling = self.limit;
        }
        self.limit *= 1.0 - evidence * (0.1 + 0.4 * severity);
        self.known_from = 0.0;
        self.reference = (0.0, 0.0);
        // What drops calls now cannot be measured now, and the way back up is not to be held up.
        self.probe_at = self.probe_at.max(now + RECOVERY);
        self.doubt_at = self.doubt_at.max(now + RECOVERY);
        Some(Cause::Drops)
    }

    /// Takes the samples of a window into both latencies.
    fn measure(&mut self, seen: Seen, in_force: u32) -> (f64, f64) {
        let samples = f64::from(seen.samples);
        let latency = seen.latency.max(1e-9);
        let recent = self
            .recent
            .map_or(latency, |recent| toward(recent, latency, samples / (samples + self.known_from)));
        self.known_from = (self.known_from + samples).min(RECENT_WEIGHT);
        self.recent = Some(recent);
        let base = match self.base {
            None => latency,
            // One call at a time does not queue behind another of ours.
            Some(base) if in_force == 1 => toward(base, latency, samples / (samples + RECENT_WEIGHT)),
            Some(base) if !self.growing && latency < base * (1.0 - samples.sqrt().recip()) => {
                toward(base, latency, samples / (samples + BASE_WEIGHT))
            }
            // Nor do so few calls, as long as the latency is what is tolerated.
            Some(base)
                if seen.most_in_flight.saturating_mul(2) <= in_force
                    && latency <= self.settings.tolerance * base =>
            {
                toward(base, latency, 0.1 * samples / (samples + BASE_WEIGHT))
            }
            Some(base) => base,
        };
        self.base = Some(base);
        (recent, base)
    }

    /// How far the recent latency may be off.
    fn doubt(&self) -> f64 {
        if self.known_from < RECENT_WEIGHT { 1.0 + self.known_from.sqrt().recip() } else { 1.0 }
    }

    fn bounded(&self, limit: f64) -> f64 {
        limit.clamp(f64::from(self.settings.min), f64::from(self.settings.max))
    }

    fn whole(&self, limit: f64) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between the bounds")]
        let whole = limit as u32;
        whole.clamp(self.settings.min, self.settings.max)
    }
}

fn toward(from: f64, to: f64, share: f64) -> f64 {
    from + share * (to - from)
}

/// At most an hour.
pub(super) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.clamp(0.0, 3_600.0)).unwrap_or_default()
}
