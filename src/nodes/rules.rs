//! When is a node taken for sick, and how does it come back?

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use palisade::{Backoff, CircuitBreakerLayer, ConfigError, Jitter, breaker::CircuitBreakerBuilder};

/// When a node is taken for sick.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) circuit: CircuitBreakerBuilder,
    pub(crate) stall: Stall,
    pub(crate) slow_start: SlowStart,
    pub(crate) max_ejected: f64,
    pub(crate) max_abandoned: u32,
}

/// So many attempts without an answer for so long, and the node is taken for hung.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    pub(crate) attempts: u32,
    pub(crate) after: Duration,
}

/// How a node that has come back gets its traffic back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlowStart {
    pub(crate) lasts: Duration,
}

/// The driver tears a connection down at 1,024 orphans.
const ORPHANS_OF_THE_DRIVER: u32 = 1_024;

/// What a node gets at first, after Envoy's slow start.
const LEAST: f64 = 0.1;

impl SlowStart {
    /// The share of its usual traffic for a node that came back so long ago.
    pub(crate) fn weight(self, since: Duration) -> f64 {
        if since >= self.lasts { 1.0 } else { LEAST.max(since.as_secs_f64() / self.lasts.as_secs_f64()) }
    }
}

impl Default for Rules {
    fn default() -> Self {
        let wait = Backoff::exponential(Duration::from_millis(500), Duration::from_secs(5));
        let wait = wait.unwrap_or_default().with_jitter(Jitter::Equal);
        Self {
            circuit: CircuitBreakerLayer::builder()
                .named("node")
                .consecutive_failures(5)
                .overload_counts(false)
                .ignore_slow_calls()
                .open_for(wait)
                .probes(2)
                .probe_timeout(Duration::from_secs(2)),
            stall: Stall { attempts: 3, after: Duration::from_millis(250) },
            slow_start: SlowStart { lasts: Duration::from_secs(10) },
            max_ejected: 0.5,
            max_abandoned: ORPHANS_OF_THE_DRIVER / 2,
        }
    }
}

impl Rules {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let _ = self.circuit.clone().build_circuit("")?;
        if !(0.0..=1.0).contains(&self.max_ejected) {
            let problem = format!("is {}, which is no share: it must be from 0 to 1", self.max_ejected);
            return Err(ConfigError::new("max_ejected", problem));
        }
        if !(1..ORPHANS_OF_THE_DRIVER).contains(&self.max_abandoned) {
            let problem = format!(
                "must be from 1 to {}: with more the driver closes a connection",
                ORPHANS_OF_THE_DRIVER - 1
            );
            return Err(ConfigError::new("max_abandoned", problem));
        }
        if self.stall.attempts == 0 {
            return Err(ConfigError::new(
                "stalled_attempts",
                "must be at least 1: an idle node owes no answer",
            ));
        }
        if self.stall.after.is_zero() {
            return Err(ConfigError::new("stalled_after", "must be above zero: no node answers in no time"));
        }
        Ok(())
    }

    /// Which nodes are ejected, of those in one datacenter: told for how long the circuit of each has been open, if it is. Those that have
    /// been open for longest come first, as far as the share goes.
    pub(super) fn ejected(&self, open_for: &[Option<Duration>]) -> Vec<bool> {
        let mut open: Vec<_> =
            open_for.iter().enumerate().filter_map(|(index, open_for)| Some(((*open_for)?, index))).collect();
        open.sort_by(|(one, _), (other, _)| other.cmp(one));
        open.truncate(self.ejectable(open_for.len()));
        (0..open_for.len()).map(|index| open.iter().any(|(_, ejected)| *ejected == index)).collect()
    }

    /// How many of so many nodes may be ejected at a time: one at least, if the share is above zero.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a number of nodes"
    )]
    fn ejectable(&self, nodes: usize) -> usize {
        if self.max_ejected == 0.0 { 0 } else { ((nodes as f64 * self.max_ejected) as usize).max(1) }
    }
}

/// What the nodes of one session share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) rules: Rules,
    full: AtomicU32,
    // How many probe nodes.
    probers: AtomicU32,
}

impl Shared {
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, full: AtomicU32::new(0), probers: AtomicU32::new(0) }
    }

    /// Whether somebody probes nodes, so that traffic need not.
    pub(super) fn is_probed(&self) -> bool {
        self.probers.load(Relaxed) > 0
    }

    /// One more node is full, or one less.
    pub(super) fn one_is_full(&self, is_full: bool) {
        if is_full {
            self.full.fetch_add(1, Relaxed);
        } else {
            self.full.fetch_sub(1, Relaxed);
        }
    }

    #[inline]
    pub(super) fn any_is_full(&self) -> bool {
        self.full.load(Relaxed) > 0
    }
}

/// Somebody probes nodes, as long as it lives. One who begins before another has ended is not ended with him.
#[derive(Debug)]
pub(crate) struct Probing(Arc<Shared>);

impl Probing {
    pub(super) fn begin(shared: &Arc<Shared>) -> Self {
        shared.probers.fetch_add(1, Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Probing {
    fn drop(&mut self) {
        self.0.probers.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_probed_until_the_last_of_those_who_do_has_ended() {
        let shared = Arc::new(Shared::new(Rules::default()));
        assert!(!shared.is_probed());
        let before = Probing::begin(&shared);
        let after = Probing::begin(&shared);
        drop(before);
        assert!(shared.is_probed());
        drop(after);
        assert!(!shared.is_probed());
    }

    #[test]
    fn traffic_comes_back_slowly_and_all_of_it() {
        let slow_start = SlowStart { lasts: Duration::from_secs(10) };
        for (since, weight) in
            [(0, 0.1), (500, 0.1), (2_500, 0.25), (9_000, 0.9), (10_000, 1.0), (99_000, 1.0)]
        {
            assert!((slow_start.weight(Duration::from_millis(since)) - weight).abs() < 1e-9, "{since} ms");
        }
        assert!((SlowStart { lasts: Duration::ZERO }.weight(Duration::ZERO) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn at_most_a_share_of_the_nodes_is_ejected_and_one_in_any_case() {
        let rules = Rules::default();
        let ejectable: Vec<_> = [1, 2, 3, 4, 6, 9].map(|nodes| rules.ejectable(nodes)).into();
        assert_eq!(ejectable, [1, 1, 1, 2, 3, 4]);
        assert_eq!(Rules { max_ejected: 0.0, ..rules }.ejectable(9), 0);
    }

    #[test]
    fn of_too_many_open_circuits_the_longest_open_ones_are_ejected() {
        let rules = Rules::default();
        let open_for =
            |seconds: [u64; 3]| seconds.map(|seconds| (seconds > 0).then(|| Duration::from_secs(seconds)));
        assert_eq!(rules.ejected(&open_for([0, 0, 0])), [false, false, false]);
        assert_eq!(rules.ejected(&open_for([0, 3, 0])), [false, true, false]);
        assert_eq!(rules.ejected(&open_for([1, 3, 2])), [false, true, false]);
        assert_eq!(rules.ejected(&[Some(Duration::ZERO)]), [true]);
        assert_eq!(rules.ejected(&[]), [] as [bool; 0]);
        let all = Rules { max_ejected: 1.0, ..Rules::default() };
        assert_eq!(all.ejected(&open_for([1, 3, 2])), [true, true, true]);
    }

    #[test]
    fn rules_that_make_no_sense_are_refused_with_what_to_do() {
        let problem = |change: fn(&mut Rules)| {
            let mut rules = Rules::default();
            change(&mut rules);
            rules.check().unwrap_err().to_string()
        };
        Rules::default().check().unwrap();
        assert!(problem(|rules| rules.max_ejected = 1.5).starts_with("`max_ejected` is 1.5"));
        assert!(problem(|rules| rules.max_ejected = f64::NAN).starts_with("`max_ejected` "));
        assert!(problem(|rules| rules.max_abandoned = 0).starts_with("`max_abandoned` "));
        assert!(problem(|rules| rules.max_abandoned = 1_024).starts_with("`max_abandoned` "));
        assert!(problem(|rules| rules.stall.attempts = 0).starts_with("`stalled_attempts` "));
        assert!(problem(|rules| rules.stall.after = Duration::ZERO).starts_with("`stalled_after` "));
    }
}
