//! How the base is measured: the latency of a service without a queue.
//!
//! That has to be where there is no queue of ours. Where the limit is what holds calls back, it is halved from time
//! to time for as long as a measurement takes (a probe): at a limit that allows for `tolerance` below two, half of it is less than
//! what the service can work on at once. If it was far too high, the latency falls by half as well, and it is halved again.

use std::time::Duration;

use super::{BASE_WEIGHT, Controller, LONGEST, Phase, RECENT_WEIGHT, Seen, toward};
use crate::clock::Instant;

/// A limit that holds calls back is probed after this time, with a jitter of a fifth of it; later if a probe takes long.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES_COST: u32 = 60;
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// A limit that is lower for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Probe {
    pub(super) began: Instant,
    /// The calls that it lets be in flight.
    pub(super) limit: u32,
    /// The latency at about twice as many.
    pub(super) before: f64,
    /// The latency when it began.
    at_first: f64,
}

impl Controller {
    /// Begins a probe where one is due.
    pub(super) fn probe_if_due(&mut self, ratio: f64, recent: f64, in_force: u32, now: Instant) {
        let limit = f64::from(in_force);
        let (high, latency) = self.reference;
        if limit >= high || recent <= latency * (limit / high).sqrt() {
            self.reference = (limit, recent);
        } else if limit <= 0.6 * high && recent > 0.85 * latency {
            // The limit has fallen, and the latency has not: it is not our queue, or it is still that of before. If the service has
            // become slower, less is done; if not, so many calls still find no queue.
            let unqueued = self.throughput * self.base.unwrap_or(0.0);
            if unqueued <= 0.8 * limit {
                if now >= self.doubt_at {
                    self.begin_probe((0.5 * limit).max(unqueued), in_force, recent, now);
                }
                return;
            }
        }
        let knee = 1.0 + 0.3 * (self.settings.tolerance - 1.0);
        let can_grow = ratio <= knee && self.whole(self.limit) > in_force;
        if self.pressed > 0.5 && !can_grow && now >= self.probe_at {
            self.begin_probe(0.5 * limit, in_force, recent, now);
        }
    }

    fn begin_probe(&mut self, limit: f64, in_force: u32, recent: f64, now: Instant) {
        let limit = self.whole(limit);
        if in_force > 1 && in_force == self.settings.min {
            // The bounds allow nothing lower: this is as near to an idle service as it gets.
            self.base = self.base.map(|base| toward(base, recent, 0.5));
            self.reference = (0.0, 0.0);
            return;
        }
        // What is not much less tells nothing.
        if f64::from(limit) <= 0.8 * f64::from(in_force) {
            self.phase = Phase::Draining(Probe { began: now, limit, before: recent, at_first: recent });
        }
    }

    /// Takes the base from a probe, or goes on to a lower limit.
    pub(super) fn end_probe(&mut self, probe: Probe, seen: Seen, now: Instant) -> Phase {
        let known = self.base.unwrap_or(f64::INFINITY);
        let latency = seen.latency.max(1e-9);
        let mut nothing_new = false;
        if seen.samples >= 4 {
            let as_known = self.verified && (0.9..=1.1).contains(&(latency / known));
            nothing_new = self.verified && (0.75..=1.33).contains(&(latency / known));
            let lower = probe.limit / 2;
            // It has fallen with the limit: there may still be a queue, unless it is what is known without one.
            if !(as_known || self.verified && (0.8..1.2).contains(&(latency / known)))
                && latency <= 0.8 * probe.before
                && lower >= self.settings.min
                && seen.most_in_flight >= probe.limit
            {
                self.recent = Some(latency);
                // Where there was a queue, the probe has cost nothing so far.
                return Phase::Draining(Probe { began: now, limit: lower, before: latency, ..probe });
            }
            let samples = f64::from(seen.samples);
            let weight = if as_known { BASE_WEIGHT } else { RECENT_WEIGHT };
            self.base = Some(if self.verified {
                toward(known, latency, samples / (samples + weight))
            } else {
                latency
            });
            self.verified = true;
        }
        if let Some(base) = self.base {
            let bearable = self.settings.tolerance * base / probe.at_first;
            self.limit *= bearable.min(1.0);
            self.known_from = 0.0;
        }
        self.reference = (0.0, 0.0);
        let took = now.saturating_duration_since(probe.began);
        // What is new may be wrong, and is looked at again soon.
        let (times, least) =
            if nothing_new { (PROBES_COST, PROBE_EVERY) } else { (PROBES_COST / 6, PROBE_EVERY / 5) };
        let pause = took.saturating_mul(times).clamp(least, LONGEST_PAUSE);
        self.probe_at = now + pause.mul_f64(0.8 + 0.4 * self.random.f64());
        self.doubt_wait =
            if nothing_new { self.doubt_wait * 2 } else { took.saturating_mul(4).max(LONGEST) }.min(pause);
        self.doubt_at = now + self.doubt_wait;
        Phase::Settling
    }
}
