//! Which datacenter serves now?
//!
//! A plain core that is told the time, which datacenters can serve, and how calls end. Datacenters are indices: 0 is the local one, the
//! others follow in the order in which they are to be preferred.

use std::time::Duration;

use palisade::Instant;

use super::SwitchCause;

/// The local datacenter.
pub(super) const LOCAL: usize = 0;

/// What the local datacenter gets at first when it comes back, in thousandths.
const TRICKLE: u32 = 50;

/// How often the wait is doubled at most.
const MOST_DOUBLED: u32 = 3;

/// When it is switched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// So many failures in a row, and a datacenter is taken for sick.
    pub(super) failures: u32,
    /// For how long the local datacenter has to be well before it gets any traffic back.
    pub(super) back_after: Duration,
    /// In which time it then gets all of it.
    pub(super) ramp: Duration,
    /// The least time between two switches.
    pub(super) hold: Duration,
}

/// What is known of all datacenters, and where traffic goes.
#[derive(Debug)]
pub(super) struct State {
    rules: Rules,
    sites: Box<[Site]>,
    active: usize,
    switched: Option<Instant>,
    // When the local datacenter began to get traffic back.
    returning: Option<Instant>,
    // When all of it was back.
    returned: Option<Instant>,
    // How often it was left again too soon, the last times in a row.
    relapses: u32,
    held: Option<usize>,
    is_enabled: bool,
}

#[derive(Clone, Debug)]
struct Site {
    can_serve: bool,
    // Since when; `None` if it has never been otherwise.
    can_serve_since: Option<Instant>,
    // Failures since the last success.
    run: u32,
    // The last failure of a run that was long enough.
    sick: Option<Instant>,
}

/// How much can be expected of a datacenter, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Its nodes that are up cannot serve.
    Down,
    /// They could, but calls fail there, or did lately.
    Sick,
    Well,
}

/// Traffic goes elsewhere from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Switch {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) cause: SwitchCause,
}

impl State {
    pub(super) fn new(rules: Rules, datacenters: usize) -> Self {
        let site = Site { can_serve: true, can_serve_since: None, run: 0, sick: None };
        Self {
            rules,
            sites: vec![site; datacenters].into(),
            active: LOCAL,
            switched: None,
            returning: None,
            returned: None,
            relapses: 0,
            held: None,
            is_enabled: true,
        }
    }

    /// Takes over which datacenters can serve, and decides anew.
    pub(super) fn look(&mut self, can_serve: &[bool], now: Instant) -> Option<Switch> {
        for (site, can_serve) in self.sites.iter_mut().zip(can_serve) {
            if *can_serve && !site.can_serve {
                site.can_serve_since = Some(now);
            }
            site.can_serve = *can_serve;
        }
        self.decide(now)
    }

    /// A call failed in this datacenter in a way that speaks against it.
    pub(super) fn failed(&mut self, site: usize, now: Instant) -> Option<Switch> {
        let at = self.sites.get_mut(site)?;
        at.run = at.run.saturating_add(1);
        if at.run < self.rules.failures {
            return None;
        }
        at.sick = Some(now);
        self.decide(now)
    }

    /// A call was answered in this datacenter. One that does not serve stays sick for its time all the same, or it would be switched back
    /// and forth.
    pub(super) fn succeeded(&mut self, site: usize) {
        let is_active = site == self.active;
        if let Some(at) = self.sites.get_mut(site) {
            at.run = 0;
            if is_active {
                at.sick = None;
            }
        }
    }

    /// An operator wants traffic in this datacenter, whatever its state, or leaves it to us again.
    pub(super) fn hold(&mut self, site: Option<usize>, now: Instant) -> Option<Switch> {
        self.held = site.filter(|site| *site < self.sites.len());
        self.decide(now)
    }

    /// Without it everything stays in the local datacenter.
    pub(super) fn set_enabled(&mut self, is_enabled: bool, now: Instant) -> Option<Switch> {
        self.is_enabled = is_enabled;
        self.decide(now)
    }

    pub(super) fn active(&self) -> usize {
        self.active
    }

    pub(super) fn held(&self) -> Option<usize> {
        self.held
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// The share of the traffic that the local datacenter gets back, in thousandths, while another one serves.
    pub(super) fn trickle(&self, now: Instant) -> u32 {
        let Some(began) = self.returning else { return 0 };
        let since = now.saturating_duration_since(began);
        if since >= self.rules.ramp {
            return 1_000;
        }
        let share = since.as_millis() * 1_000 / self.rules.ramp.as_millis().max(1);
        u32::try_from(share).unwrap_or(1_000).clamp(TRICKLE, 1_000)
    }

    /// Whether a failure of this datacenter is not forgotten yet.
    pub(super) fn is_troubled(&self, site: usize) -> bool {
        self.sites.get(site).is_some_and(|site| site.run > 0 || site.sick.is_some())
    }

    /// Whether calls that failed elsewhere may be sent there.
    pub(super) fn is_refuge(&self, site: usize, now: Instant) -> bool {
        self.is_enabled && self.held.is_none() && self.standing(site, now) == Standing::Well
    }

    pub(super) fn standing(&self, site: usize, now: Instant) -> Standing {
        let Some(site) = self.sites.get(site) else { return Standing::Down };
        let is_sick =
            site.sick.is_some_and(|sick| now.saturating_duration_since(sick) < self.rules.back_after);
        match (site.can_serve, is_sick) {
            (false, _) => Standing::Down,
            (true, true) => Standing::Sick,
            (true, false) => Standing::Well,
        }
    }

    /// How long the local datacenter has to be well: longer if it was left again soon after it had come back.
    fn wait(&self) -> Duration {
        self.rules.back_after * 2_u32.pow(self.relapses.min(MOST_DOUBLED))
    }

    fn decide(&mut self, now: Instant) -> Option<Switch> {
        if let Some(wanted) = self.held.or_else(|| (!self.is_enabled).then_some(LOCAL)) {
            self.returning = None;
            return (wanted != self.active).then(|| self.switch(wanted, SwitchCause::Operator, now));
        }
        let local = self.standing(LOCAL, now);
        if self.returning.is_some() && local != Standing::Well {
            // Returning -> away: it is not what it seemed.
            self.returning = None;
            self.relapses = (self.relapses + 1).min(MOST_DOUBLED);
        }
        if self.switched.is_some_and(|last| now.saturating_duration_since(last) < self.rules.hold) {
            return None;
        }
        let here = self.standing(self.active, now);
        let best = self.best(now);
        if self.standing(best, now) > here {
            let cause = if here == Standing::Down { SwitchCause::CannotServe } else { SwitchCause::Failures };
            return Some(self.switch(best, cause, now));
        }
        if self.active == LOCAL || local != Standing::Well {
            return None;
        }
        let site = &self.sites[LOCAL];
        let is_well_for = |wait| {
            [site.can_serve_since, site.sick]
                .into_iter()
                .flatten()
                .all(|since| now.saturating_duration_since(since) >= wait)
        };
        match self.returning {
            // Away -> returning.
            None if is_well_for(self.wait()) => {
                self.returning = Some(now);
                self.sites[LOCAL].run = 0;
                self.sites[LOCAL].sick = None;
            }
            None => return None,
            Some(_) => {}
        }
        let is_back = self.trickle(now) >= 1_000 && self.sites[LOCAL].run == 0;
        is_back.then(|| self.switch(LOCAL, SwitchCause::Recovered, now))
    }

    /// The first one of those of which most can be expected.
    fn best(&self, now: Instant) -> usize {
        let better = |best: usize, site| {
            if self.standing(site, now) > self.standing(best, now) { site } else { best }
        };
        (0..self.sites.len()).fold(LOCAL, better)
    }

    fn switch(&mut self, to: usize, cause: SwitchCause, now: Instant) -> Switch {
        let from = self.active;
        if from == LOCAL && cause != SwitchCause::Operator {
            let wait = self.wait();
            let is_relapse =
                self.returned.is_some_and(|returned| now.saturating_duration_since(returned) < wait);
            self.relapses = if is_relapse { (self.relapses + 1).min(MOST_DOUBLED) } else { 0 };
        }
        if to == LOCAL {
            self.returned = Some(now);
            self.sites[LOCAL].run = 0;
            self.sites[LOCAL].sick = None;
        }
        self.active = to;
        self.switched = Some(now);
        self.returning = None;
        Switch { from, to, cause }
    }
}

#[cfg(test)]
mod tests;
