//! The core by exact inputs, beside a model that remembers every call, and under loom.

use std::time::Duration;

use super::{
    change::{CircuitState, Mode},
    rules::{Rules, Slow},
    state::{Core, Outcome},
};
use crate::{Backoff, Jitter, clock::Instant, window::Span};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Opens at half of at least four calls, for one second, then two, then four; two probes.
fn rules() -> Rules {
    Rules {
        span: Span::Calls(10),
        minimum_calls: 4,
        failure_ratio: Some(0.5),
        slow: Some(Slow { longer_than: ms(100), ratio: 0.8 }),
        consecutive_failures: None,
        overload_counts: true,
        open_for: Backoff::exponential(ms(1_000), ms(4_000)).unwrap().with_jitter(Jitter::None),
        probes: 2,
        probe_timeout: ms(500),
    }
}

#[cfg(not(palisade_loom))]
mod exact {
    use super::{
        super::{
            change::{Cause, Change},
            state::Ticket,
        },
        *,
    };

    /// A circuit whose time a test moves.
    struct Driven {
        core: Core,
        now: Instant,
    }

    impl Driven {
        fn new(rules: Rules) -> Self {
            let now = Instant::now();
            Self { core: Core::new(rules, Mode::Normal, now), now }
        }

        fn wait(&mut self, millis: u64) {
            self.now = self.now + ms(millis);
        }

        fn admit(&self) -> Result<Ticket, Option<Duration>> {
            self.core.admit(self.now).0
        }

        fn end(&self, ticket: Ticket, outcome: Outcome) -> Option<Change> {
            self.core.record(ticket, outcome, self.now)
        }

        fn call(&self, outcome: Outcome) -> Option<Change> {
            self.end(self.admit().unwrap(), outcome)
        }

        /// Opens it by failures.
        fn open(&self) {
            while self.core.state() == CircuitState::Closed {
                self.call(Outcome::Failure);
            }
        }

        fn calls_in_window(&self) -> u32 {
            self.core.figures(self.now).sums.calls
        }
    }

    #[test]
    fn it_opens_at_the_ratio_but_not_below_the_minimum_of_calls() {
        let circuit = Driven::new(rules());
        assert!((0..3).all(|_| circuit.call(Outcome::Failure).is_none()));
        let change = circuit.call(Outcome::Failure).unwrap();
        assert_eq!((change.from, change.to), (CircuitState::Closed, CircuitState::Open));
        assert_eq!((change.cause, change.wait), (Cause::FailureRatio, Some(ms(1_000))));
    }

    #[test]
    fn a_success_never_opens_it() {
        let circuit = Driven::new(rules());
        (0..3).for_each(|_| assert_eq!(circuit.call(Outcome::Failure), None));
        assert_eq!(circuit.call(Outcome::Success), None, "three of four have failed");
        assert!(circuit.call(Outcome::Failure).is_some());
    }

    #[test]
    fn failures_in_a_row_open_it_however_few_and_overload_is_no_such_failure() {
        let circuit = Driven::new(Rules { consecutive_failures: Some(3), minimum_calls: 10, ..rules() });
        circuit.call(Outcome::Failure);
        circuit.call(Outcome::Failure);
        circuit.call(Outcome::Success);
        circuit.call(Outcome::Failure);
        circuit.call(Outcome::Overload);
        circuit.call(Outcome::Failure);
        assert_eq!(circuit.core.figures(circuit.now).in_a_row, 2);
        assert_eq!(circuit.call(Outcome::Failure).unwrap().cause, Cause::ConsecutiveFailures);
    }

    #[test]
    fn slow_calls_open_it_also_when_they_succeed() {
        let mut circuit = Driven::new(rules());
        for call in 1..=4 {
            let ticket = circuit.admit().unwrap();
            circuit.wait(101);
            let change = circuit.end(ticket, Outcome::Success);
            assert_eq!(change.map(|change| change.cause), (call == 4).then_some(Cause::SlowRatio));
        }
    }

    #[test]
    fn an_outcome_that_says_nothing_is_not_counted() {
        let circuit = Driven::new(rules());
        (0..100).for_each(|_| assert_eq!(circuit.call(Outcome::Neutral), None));
        assert_eq!(circuit.calls_in_window(), 0);
        let circuit = Driven::new(Rules { overload_counts: false, ..rules() });
        (0..100).for_each(|_| assert_eq!(circuit.call(Outcome::Overload), None));
        assert_eq!(circuit.calls_in_window(), 0);
    }

    #[test]
    fn a_dropped_call_counts_by_its_age() {
        let mut circuit = Driven::new(rules());
        assert_eq!(circuit.call(Outcome::Dropped), None);
        assert_eq!(circuit.calls_in_window(), 0, "young: the loser of a hedge, perhaps");
        let ticket = circuit.admit().unwrap();
        circuit.wait(101);
        circuit.end(ticket, Outcome::Dropped);
        let sums = circuit.core.figures(circuit.now).sums;
        assert_eq!((sums.calls, sums.slow, sums.failures), (1, 1, 0));
    }

    #[test]
    fn an_open_circuit_refuses_until_its_wait_is_over_then_lets_two_probes_pass() {
        let mut circuit = Driven::new(rules());
        circuit.open();
        assert_eq!(circuit.admit().unwrap_err(), Some(ms(1_000)));
        circuit.wait(999);
        assert_eq!(circuit.admit().unwrap_err(), Some(ms(1)));
        circuit.wait(1);
        let (first, second) = (circuit.admit().unwrap(), circuit.admit().unwrap());
        assert_eq!(circuit.admit().unwrap_err(), None);
        assert_eq!(circuit.end(first, Outcome::Success), None, "one failure of two would reach the half");
        assert_eq!(circuit.end(second, Outcome::Success).unwrap().cause, Cause::ProbesSucceeded);
        assert_eq!(circuit.core.state(), CircuitState::Closed);
    }

    #[test]
    fn failed_probes_open_it_for_longer_each_time_up_to_the_maximum() {
        let mut circuit = Driven::new(rules());
        circuit.open();
        for wait in [1_000, 2_000, 4_000, 4_000] {
            assert_eq!(circuit.admit().unwrap_err(), Some(ms(wait)));
            circuit.wait(wait);
            assert_eq!(circuit.call(Outcome::Failure).unwrap().cause, Cause::ProbesFailed);
        }
    }

    #[test]
    fn a_circuit_that_stayed_closed_for_as_long_as_it_was_open_starts_anew() {
        let wait_when_closed_for = |closed_for| {
            let mut circuit = Driven::new(rules());
            circuit.open();
            circuit.wait(1_000);
            circuit.call(Outcome::Failure);
            circuit.wait(2_000);
            circuit.call(Outcome::Success);
            circuit.call(Outcome::Success);
            assert_eq!(circuit.core.state(), CircuitState::Closed);
            circuit.wait(closed_for);
            circuit.open();
            circuit.core.figures(circuit.now).retry_after.unwrap()
        };
        assert_eq!(wait_when_closed_for(1_999), ms(4_000));
        assert_eq!(wait_when_closed_for(2_000), ms(1_000));
    }

    #[test]
    fn probes_that_hang_open_it_again_and_do_not_wedge_it() {
        let mut circuit = Driven::new(rules());
        circuit.open();
        circuit.wait(1_000);
        let hung = [circuit.admit().unwrap(), circuit.admit().unwrap()];
        circuit.wait(499);
        assert_eq!(circuit.admit().unwrap_err(), None);
        circuit.wait(1);
        let (refused, change) = circuit.core.admit(circuit.now);
        assert_eq!(refused.unwrap_err(), Some(ms(2_000)));
        assert_eq!(change.unwrap().cause, Cause::ProbesTimedOut);
        for ticket in hung {
            assert_eq!(circuit.end(ticket, Outcome::Success), None, "too late");
        }
        circuit.wait(2_000);
        circuit.call(Outcome::Success);
        circuit.call(Outcome::Success);
        assert_eq!(circuit.core.state(), CircuitState::Closed);
    }

    #[test]
    fn probes_that_are_all_dropped_open_it_again_too() {
        let mut circuit = Driven::new(rules());
        circuit.open();
        circuit.wait(1_000);
        // Callers that give up long before a call is slow, each making room for the next.
        for _ in 0..10 {
            let probe = circuit.admit().unwrap();
            circuit.wait(50);
            circuit.end(probe, Outcome::Dropped);
        }
        let (refused, change) = circuit.core.admit(circuit.now);
        assert_eq!(refused.unwrap_err(), Some(ms(2_000)));
        assert_eq!(change.unwrap().cause, Cause::ProbesTimedOut);
    }

    #[test]
    fn a_service_that_answers_probes_is_given_time_for_the_others() {
        let mut circuit = Driven::new(rules());
        circuit.open();
        circuit.wait(1_000);
        let hangs = circuit.admit().unwrap();
        for _ in 0..10 {
            circuit.wait(400);
            assert_eq!(circuit.call(Outcome::Neutral), None, "a bad request, but an answer");
        }
        circuit.wait(499);
        assert!(circuit.admit().is_ok());
        circuit.wait(1);
        assert!(circuit.admit().is_err());
        assert_eq!(circuit.end(hangs, Outcome::Success), None, "too late");
        // With nothing under way, nothing is waited for.
        for outcome in [Outcome::Dropped, Outcome::Superseded, Outcome::Neutral] {
            let mut idle = Driven::new(rules());
            idle.open();
            idle.wait(1_000);
            idle.call(Outcome::Success);
            let given_up = idle.admit().unwrap();
            idle.wait(1);
            idle.end(given_up, outcome);
            idle.wait(3_600_000);
            assert_eq!(idle.call(Outcome::Success).unwrap().cause, Cause::ProbesSucceeded);
        }
    }

    #[test]
    fn a_probe_is_judged_by_the_rules_that_are_on() {
        let slow_only = Rules { failure_ratio: None, ..rules() };
        let row_only = Rules { failure_ratio: None, slow: None, consecutive_failures: Some(3), ..rules() };
        let half_open = |rules| {
            let mut circuit = Driven::new(rules);
            for _ in 0..4 {
                let ticket = circuit.admit();
                circuit.wait(101);
                ticket.ok().map(|ticket| circuit.end(ticket, Outcome::Failure));
            }
            assert_eq!(circuit.core.state(), CircuitState::Open);
            circuit.wait(1_000);
            circuit
        };
        let fast_again = half_open(slow_only);
        assert_eq!(fast_again.call(Outcome::Failure).unwrap().cause, Cause::ProbesSucceeded);
        let alive = half_open(row_only);
        alive.call(Outcome::Overload);
        assert_eq!(alive.call(Outcome::Overload).unwrap().cause, Cause::ProbesSucceeded);
        assert_eq!(half_open(row_only).call(Outcome::Failure).unwrap().cause, Cause::ProbesFailed);
        assert_eq!(half_open(rules()).call(Outcome::Overload).unwrap().cause, Cause::ProbesFailed);
    }

    #[test]
    fn a_superseded_call_is_neutral_however_old() {
        let mut circuit = Driven::new(rules());
        for _ in 0..100 {
            let ticket = circuit.admit().unwrap();
            circuit.wait(1_000);
            assert_eq!(circuit.end(ticket, Outcome::Superseded), None);
        }
        assert_eq!(circuit.calls_in_window(), 0);
    }

    #[test]
    fn waits_are_jittered_within_the_upper_half_and_a_short_one_is_no_recovery() {
        let open_for = Backoff::exponential(ms(1_000), ms(64_000)).unwrap().at_least_half();
        let mut waits = Vec::new();
        for _ in 0..200 {
            let mut circuit = Driven::new(Rules { open_for, ..rules() });
            circuit.open();
            let first = circuit.core.figures(circuit.now).retry_after.unwrap();
            circuit.wait(1_000);
            circuit.call(Outcome::Success);
            circuit.call(Outcome::Success);
            circuit.wait(999);
            circuit.open();
            let second = circuit.core.figures(circuit.now).retry_after.unwrap();
            assert!((ms(1_000)..=ms(2_000)).contains(&second), "{second:?}");
            waits.push(first);
        }
        let (shortest, longest) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*shortest >= ms(500) && *shortest < ms(600), "{shortest:?}");
        assert!(*longest <= ms(1_000) && *longest > ms(900), "{longest:?}");
    }

    #[test]
    fn a_dropped_probe_makes_room_for_another() {
        let mut circuit = Driven::new(rules());
        circuit.open();
        circuit.wait(1_000);
        for _ in 0..100 {
            let (first, second) = (circuit.admit().unwrap(), circuit.admit().unwrap());
            assert!(circuit.admit().is_err());
            circuit.end(first, Outcome::Dropped);
            circuit.end(second, Outcome::Neutral);
        }
        assert_eq!(circuit.core.figures(circuit.now).probes_in_flight, 0);
        assert_eq!(circuit.core.state(), CircuitState::HalfOpen);
    }

    #[test]
    fn a_late_outcome_changes_nothing_whatever_it_is() {
        for outcome in
            [Outcome::Success, Outcome::Failure, Outcome::Overload, Outcome::Neutral, Outcome::Dropped]
        {
            let mut circuit = Driven::new(rules());
            let late: Vec<_> = (0..100).map(|_| circuit.admit().unwrap()).collect();
            let mut late = late.into_iter();
            let mut some_end = |circuit: &Driven| {
                for ticket in late.by_ref().take(20) {
                    assert_eq!(circuit.end(ticket, outcome), None);
                }
            };
            circuit.open();
            some_end(&circuit);
            circuit.wait(1_000);
            let probes = [circuit.admit().unwrap(), circuit.admit().unwrap()];
            some_end(&circuit);
            assert_eq!(circuit.core.figures(circuit.now).probes_in_flight, 2);
            for probe in probes {
                circuit.end(probe, Outcome::Success);
            }
            some_end(&circuit);
            assert_eq!((circuit.core.state(), circuit.calls_in_window()), (CircuitState::Closed, 0));
        }
    }

    #[test]
    fn modes_can_be_switched_at_any_time() {
        let mut circuit = Driven::new(rules());
        circuit.open();
        let change = circuit.core.set_mode(Mode::ForcedClosed, circuit.now).unwrap();
        assert_eq!((change.to, change.cause), (CircuitState::Closed, Cause::Operator));
        (0..100).for_each(|_| assert_eq!(circuit.call(Outcome::Failure), None));

        circuit.core.set_mode(Mode::ForcedOpen, circuit.now);
        circuit.wait(3_600_000);
        assert_eq!(circuit.admit().unwrap_err(), None);

        circuit.core.set_mode(Mode::MetricsOnly, circuit.now);
        let mut suppressed = Vec::new();
        for _ in 0..3 {
            let failures = (0..1_000).filter_map(|_| circuit.call(Outcome::Failure));
            suppressed.extend(failures.map(|change| {
                assert!(change.suppressed && change.to == CircuitState::Open);
                change.wait.unwrap()
            }));
            circuit.wait(1_500);
        }
        assert_eq!(suppressed, [ms(1_000); 3], "as often as it would have opened, and no more");
        assert_eq!(circuit.core.state(), CircuitState::Closed);

        assert_eq!(circuit.core.set_mode(Mode::MetricsOnly, circuit.now), None);
        circuit.core.set_mode(Mode::Normal, circuit.now);
        circuit.open();
        assert_eq!(circuit.admit().unwrap_err(), Some(ms(1_000)));
    }

    #[test]
    fn a_reset_works_in_every_state() {
        let mut circuit = Driven::new(rules());
        let before = circuit.admit().unwrap();
        (0..3).for_each(|_| assert_eq!(circuit.call(Outcome::Failure), None));
        circuit.core.reset(circuit.now);
        assert_eq!(circuit.calls_in_window(), 0);
        assert_eq!(circuit.end(before, Outcome::Failure), None);
        assert_eq!(circuit.calls_in_window(), 0);
        circuit.open();
        circuit.core.reset(circuit.now);
        assert_eq!(circuit.core.state(), CircuitState::Closed);
        circuit.open();
        circuit.wait(1_000);
        circuit.admit().unwrap();
        circuit.core.reset(circuit.now);
        assert_eq!(circuit.core.state(), CircuitState::Closed);
        circuit.open();
        assert_eq!(circuit.core.figures(circuit.now).openings, 1);
    }

    #[test]
    fn a_trip_opens_a_closed_circuit_at_once_and_one_that_is_open_stays_as_it_is() {
        let mut circuit = Driven::new(rules());
        circuit.call(Outcome::Success);
        let change = circuit.core.trip(circuit.now).unwrap();
        assert_eq!((change.from, change.to), (CircuitState::Closed, CircuitState::Open));
        assert_eq!((change.cause, change.wait, change.suppressed), (Cause::Tripped, Some(ms(1_000)), false));
        circuit.wait(400);
        assert_eq!(circuit.core.trip(circuit.now), None);
        assert_eq!(circuit.admit().unwrap_err(), Some(ms(600)));
        circuit.wait(600);
        assert_eq!(circuit.core.trip(circuit.now), None);
        assert!(circuit.admit().is_ok(), "the wait is over");
    }

    #[test]
    fn a_trip_of_a_circuit_that_probes_opens_it_for_longer_and_its_probes_count_no_more() {
        let mut circuit = Driven::new(rules());
        circuit.core.trip(circuit.now);
        for wait in [1_000, 2_000, 4_000, 4_000] {
            assert_eq!(circuit.admit().unwrap_err(), Some(ms(wait)));
            circuit.wait(wait);
            let probe = circuit.admit().unwrap();
            assert_eq!(circuit.core.trip(circuit.now).unwrap().from, CircuitState::HalfOpen);
            assert_eq!(circuit.end(probe, Outcome::Success), None);
        }
        circuit.wait(4_000);
        let probes = [circuit.admit().unwrap(), circuit.admit().unwrap()];
        for probe in probes {
            circuit.end(probe, Outcome::Success);
        }
        assert_eq!(circuit.core.state(), CircuitState::Closed);
    }

    #[test]
    fn trips_and_rules_share_one_wait_which_is_forgotten_after_long_enough_closed() {
        let wait_when_closed_for = |closed_for| {
            let mut circuit = Driven::new(rules());
            circuit.open();
            circuit.wait(1_000);
            circuit.call(Outcome::Success);
            circuit.call(Outcome::Success);
            circuit.wait(closed_for);
            circuit.core.trip(circuit.now).unwrap().wait.unwrap()
        };
        assert_eq!(wait_when_closed_for(999), ms(2_000));
        assert_eq!(wait_when_closed_for(1_000), ms(1_000));
    }

    #[test]
    fn what_was_under_way_at_a_trip_changes_nothing_more() {
        for outcome in [Outcome::Success, Outcome::Failure, Outcome::Dropped, Outcome::Neutral] {
            let mut circuit = Driven::new(rules());
            let late: Vec<_> = (0..30).map(|_| circuit.admit().unwrap()).collect();
            let mut late = late.into_iter();
            let mut ten_end = |circuit: &Driven| {
                let changes = late.by_ref().take(10).filter_map(|ticket| circuit.end(ticket, outcome));
                assert_eq!(changes.count(), 0);
            };
            circuit.core.trip(circuit.now);
            ten_end(&circuit);
            circuit.wait(1_000);
            let probes = [circuit.admit().unwrap(), circuit.admit().unwrap()];
            ten_end(&circuit);
            assert_eq!(circuit.core.figures(circuit.now).probes_in_flight, 2);
            for probe in probes {
                circuit.end(probe, Outcome::Success);
            }
            ten_end(&circuit);
            assert_eq!((circuit.core.state(), circuit.calls_in_window()), (CircuitState::Closed, 0));
        }
    }

    #[test]
    fn a_trip_is_only_noted_where_the_mode_is_to_watch_and_forced_circuits_stay_as_they_are() {
        let mut circuit = Driven::new(rules());
        circuit.core.set_mode(Mode::MetricsOnly, circuit.now);
        let change = circuit.core.trip(circuit.now).unwrap();
        assert!(change.suppressed && change.cause == Cause::Tripped && change.to == CircuitState::Open);
        circuit.wait(999);
        assert_eq!(circuit.core.trip(circuit.now), None, "it would be open still");
        circuit.wait(1);
        assert!(circuit.core.trip(circuit.now).is_some());
        assert_eq!(circuit.core.state(), CircuitState::Closed);
        assert_eq!(circuit.core.retry_after(|| circuit.now), None);
        for (mode, state) in
            [(Mode::ForcedOpen, CircuitState::Open), (Mode::ForcedClosed, CircuitState::Closed)]
        {
            circuit.core.set_mode(mode, circuit.now);
            assert_eq!(circuit.core.trip(circuit.now), None);
            assert_eq!(circuit.core.state(), state);
        }
        circuit.core.set_mode(Mode::Normal, circuit.now);
        assert!(circuit.admit().is_ok());
    }

    #[test]
    fn only_an_open_circuit_knows_when_to_come_back() {
        let mut circuit = Driven::new(rules());
        let retry_after = |circuit: &Driven| circuit.core.retry_after(|| circuit.now);
        assert_eq!(circuit.core.retry_after(|| unreachable!("a closed one needs no clock")), None);
        circuit.core.trip(circuit.now);
        assert_eq!(retry_after(&circuit), Some(ms(1_000)));
        circuit.wait(999);
        assert_eq!(retry_after(&circuit), Some(ms(1)));
        circuit.wait(60_000);
        assert_eq!(retry_after(&circuit), Some(Duration::ZERO), "a probe may go");
        circuit.admit().unwrap();
        assert_eq!(retry_after(&circuit), None, "it probes");
        circuit.core.set_mode(Mode::ForcedOpen, circuit.now);
        assert_eq!(retry_after(&circuit), None, "only an operator knows");
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_does_no_harm() {
        let circuit = Driven::new(Rules { span: Span::Time(ms(10)), ..rules() });
        let ticket = circuit.admit().unwrap();
        let before = circuit.now - Duration::from_secs(60);
        assert_eq!(circuit.core.record(ticket, Outcome::Failure, before), None);
        assert_eq!(circuit.calls_in_window(), 1);
        circuit.open();
        (0..100).for_each(|_| assert!(circuit.admit().is_err()));
        assert!(circuit.core.admit(before).0.is_err());
    }
}

#[cfg(not(palisade_loom))]
#[allow(clippy::cast_precision_loss, reason = "numbers of calls of a short test")]
mod beside_a_model {
    use proptest::prelude::*;

    use super::*;

    /// A circuit that remembers every call, and works out everything from them.
    struct Model {
        rules: Rules,
        state: CircuitState,
        generation: u64,
        // When the present generation began.
        since: u64,
        calls: Vec<(u64, Outcome, bool)>,
        wait: u64,
        openings: u32,
        closed_at: u64,
        probes: Vec<(usize, u64)>,
        // Since when probes are under way without an answer, and how long they were before.
        since_probe: Option<u64>,
        waited: u64,
    }

    #[derive(Clone, Copy)]
    struct Admitted {
        id: usize,
        generation: u64,
        at: u64,
    }

    impl Model {
        fn turn(&mut self, state: CircuitState, now: u64) {
            self.state = state;
            self.generation += 1;
            self.since = now;
            self.calls.clear();
            self.probes.clear();
            (self.since_probe, self.waited) = (None, 0);
            if state == CircuitState::Closed {
                self.closed_at = now;
            }
        }

        fn open(&mut self, now: u64) {
            let recovered = self.state == CircuitState::Closed && now - self.closed_at >= self.wait;
            self.openings = if recovered { 1 } else { self.openings + 1 };
            self.wait = (1_000 << (self.openings - 1).min(10)).min(4_000);
            self.turn(CircuitState::Open, now);
        }

        fn admit(&mut self, id: usize, now: u64) -> Option<Admitted> {
            if self.state == CircuitState::Open && now - self.since >= self.wait {
                self.turn(CircuitState::HalfOpen, now);
            }
            let admitted = match self.state {
                CircuitState::Closed => true,
                CircuitState::Open => false,
                CircuitState::HalfOpen => {
                    let used = self.probes.len() + self.calls.len();
                    if self.waited + self.since_probe.map_or(0, |since| now - since) >= 500 {
                        self.open(now);
                        return None;
                    }
                    let room = used < self.rules.probes as usize;
                    if room {
                        self.since_probe.get_or_insert(now);
                    }
                    room
                }
            };
            if admitted && self.state == CircuitState::HalfOpen {
                self.probes.push((id, now));
            }
            admitted.then_some(Admitted { id, generation: self.generation, at: now })
        }

        fn end(&mut self, call: Admitted, outcome: Outcome, now: u64) {
            if call.generation != self.generation {
                return;
            }
            self.probes.retain(|probe| probe.0 != call.id);
            let slow = now - call.at > 100;
            if outcome != Outcome::Dropped {
                self.waited = 0;
                self.since_probe = (!self.probes.is_empty()).then_some(now);
            } else if self.probes.is_empty() {
                self.waited += self.since_probe.take().map_or(0, |since| now - since);
            }
            if outcome == Outcome::Neutral || (outcome == Outcome::Dropped && !slow) {
                return;
            }
            // A probe is remembered by when it was admitted, any other call by when it ended.
            let when = if self.state == CircuitState::HalfOpen { call.at } else { now };
            self.calls.push((when, outcome, slow));
            match self.state {
                CircuitState::Closed => self.judge(outcome, slow, now),
                CircuitState::HalfOpen => {
                    let bad = |counts: &dyn Fn(&(u64, Outcome, bool)) -> bool, ratio: f64| {
                        let number = self.calls.iter().filter(|call| counts(call)).count() as f64;
                        let left = f64::from(self.rules.probes) - self.calls.len() as f64;
                        let most = (ratio * f64::from(self.rules.probes)).ceil().max(1.0);
                        (number >= most, number + left < most)
                    };
                    let failed = bad(&|call| failed(call.1), self.rules.failure_ratio.unwrap());
                    let slow = bad(&|call| call.2, self.rules.slow.unwrap().ratio);
                    if failed.0 || slow.0 {
                        self.open(now);
                    } else if failed.1 && slow.1 {
                        self.turn(CircuitState::Closed, now);
                    }
                }
                CircuitState::Open => unreachable!("no call has this generation"),
            }
        }

        fn window(&self, now: u64) -> Vec<(u64, Outcome, bool)> {
            match self.rules.span {
                Span::Time(time) => {
                    let bucket =
                        |at: u64| (at - self.since) / (u64::try_from(time.as_millis()).unwrap() / 10);
                    self.calls.iter().copied().filter(|call| bucket(call.0) + 10 > bucket(now)).collect()
                }
                Span::Calls(calls) => {
                    let capacity = (calls as usize).div_ceil(10);
                    let buckets = calls as usize / capacity;
                    let last = self.calls.len().saturating_sub(1) / capacity;
                    let first = (last + 1).saturating_sub(buckets) * capacity;
                    self.calls[first..].to_vec()
                }
            }
        }

        fn judge(&mut self, outcome: Outcome, slow: bool, now: u64) {
            if !failed(outcome) && !slow {
                return;
            }
            let row = self.calls.iter().rev().map(|call| call.1);
            let row = row.filter(|outcome| !matches!(outcome, Outcome::Overload | Outcome::Dropped));
            let in_a_row = row.take_while(|outcome| *outcome == Outcome::Failure).count();
            let most = self.rules.consecutive_failures.unwrap() as usize;
            let window = self.window(now);
            let share = |number: usize| number as f64 / window.len() as f64;
            let enough = window.len() >= self.rules.minimum_calls as usize;
            let failures = share(window.iter().filter(|call| failed(call.1)).count());
            let slow = share(window.iter().filter(|call| call.2).count());
            if (outcome == Outcome::Failure && in_a_row >= most)
                || enough && (failures >= self.rules.failure_ratio.unwrap() || slow >= 0.8)
            {
                self.open(now);
            }
        }
    }

    fn failed(outcome: Outcome) -> bool {
        matches!(outcome, Outcome::Failure | Outcome::Overload)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Admit,
        End(usize, Outcome),
        Wait(u64),
        Trip,
        Reset,
    }

    fn step() -> impl Strategy<Value = Step> {
        let outcome = prop_oneof![
            4 => Just(Outcome::Success), 4 => Just(Outcome::Failure), 1 => Just(Outcome::Overload),
            1 => Just(Outcome::Neutral), 1 => Just(Outcome::Dropped)
        ];
        let wait = prop_oneof![3 => 0..30u64, 2 => 30..400u64, 1 => 400..3_000u64];
        prop_oneof![
            20 => Just(Step::Admit),
            20 => (0..1_000usize, outcome).prop_map(|(which, outcome)| Step::End(which, outcome)),
            8 => wait.prop_map(Step::Wait),
            1 => Just(Step::Trip),
            1 => Just(Step::Reset),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn the_circuit_agrees_with_a_model_that_remembers_every_call(
            span in prop_oneof![
                (1..60u32).prop_map(Span::Calls), (1..100u64).prop_map(|tens| Span::Time(ms(tens * 10)))
            ],
            minimum_calls in 1..12u32,
            ratio in prop_oneof![Just(0.25), Just(0.5), Just(1.0)],
            in_a_row in 2..8u32,
            probes in 1..5u32,
            steps in prop::collection::vec(step(), 1..300),
        ) {
            let rules = Rules {
                span,
                minimum_calls,
                failure_ratio: Some(ratio),
                consecutive_failures: Some(in_a_row),
                probes,
                ..rules()
            };
            let start = Instant::now();
            let core = Core::new(rules, Mode::Normal, start);
            let mut model = Model {
                rules,
                state: CircuitState::Closed,
                generation: 1,
                since: 0,
                calls: Vec::new(),
                wait: 0,
                openings: 0,
                closed_at: 0,
                probes: Vec::new(),
                since_probe: None,
                waited: 0,
            };
            let (mut now, mut under_way) = (0, Vec::new());
            for (id, step) in steps.into_iter().enumerate() {
                let at = start + ms(now);
                match step {
                    Step::Wait(wait) => now += wait,
                    Step::Admit => {
                        let (ours, theirs) = (core.admit(at).0, model.admit(id, now));
                        prop_assert_eq!(ours.is_ok(), theirs.is_some());
                        if let (Ok(ticket), Some(admitted)) = (ours, theirs) {
                            under_way.push((ticket, admitted));
                        }
                    }
                    Step::End(which, outcome) if !under_way.is_empty() => {
                        let (ticket, admitted) = under_way.swap_remove(which % under_way.len());
                        core.record(ticket, outcome, at);
                        model.end(admitted, outcome, now);
                    }
                    Step::End(..) => {}
                    Step::Trip => {
                        let trips = model.state != CircuitState::Open;
                        prop_assert_eq!(core.trip(at).is_some(), trips);
                        if trips {
                            model.open(now);
                        }
                    }
                    Step::Reset => {
                        core.reset(at);
                        model.turn(CircuitState::Closed, now);
                        (model.wait, model.openings) = (0, 0);
                    }
                }
                let figures = core.figures(start + ms(now));
                prop_assert_eq!(figures.state, model.state);
                prop_assert_eq!(figures.generation, model.generation);
                prop_assert_eq!(figures.openings, model.openings);
                let left = (model.since + model.wait).saturating_sub(now);
                let left = (model.state == CircuitState::Open).then_some(ms(left));
                prop_assert_eq!(core.retry_after(|| start + ms(now)), left);
                if model.state == CircuitState::Closed {
                    prop_assert_eq!(figures.sums.calls as usize, model.window(now).len());
                }
                if model.state == CircuitState::HalfOpen {
                    prop_assert_eq!(figures.probes_in_flight as usize, model.probes.len());
                }
            }
        }
    }
}

#[cfg(palisade_loom)]
mod models {
    use loom::{sync::Arc, thread};

    use super::*;

    /// Failures of several threads together open it: none is lost, and it opens once.
    #[test]
    fn loom_the_failure_that_reaches_the_limit_opens_it_exactly_once() {
        loom::model(|| {
            let now = Instant::now();
            let rules = Rules { consecutive_failures: Some(2), minimum_calls: 10, ..rules() };
            let core = Arc::new(Core::new(rules, Mode::Normal, now));
            let fail = |core: Arc<Core>| {
                move || {
                    let ticket = core.admit(now).0.ok()?;
                    core.record(ticket, Outcome::Failure, now)
                }
            };
            let other = thread::spawn(fail(Arc::clone(&core)));
            let changes = [fail(Arc::clone(&core))(), other.join().unwrap()];
            assert_eq!(changes.iter().flatten().count(), 1);
            assert_eq!(core.state(), CircuitState::Open);
        });
    }

    /// A success between two failures ends the row, whatever the others do at that moment.
    #[test]
    fn loom_a_success_ends_the_row_of_failures() {
        loom::model(|| {
            let now = Instant::now();
            let rules = Rules { consecutive_failures: Some(4), minimum_calls: 100, ..rules() };
            let core = Arc::new(Core::new(rules, Mode::Normal, now));
            let end = |core: &Core, outcome| core.record(core.admit(now).0.unwrap(), outcome, now);
            end(&core, Outcome::Failure);
            end(&core, Outcome::Failure);
            let other = {
                let core = Arc::clone(&core);
                thread::spawn(move || core.record(core.admit(now).0.unwrap(), Outcome::Failure, now))
            };
            end(&core, Outcome::Success);
            let during = other.join().unwrap();
            assert_eq!(during, None);
            assert_eq!(end(&core, Outcome::Failure), None, "two in a row since the success at most");
        });
    }

    /// Calls that find the bucket full make room for each other, and every one is counted.
    #[test]
    fn loom_no_outcome_is_lost_where_a_bucket_ends() {
        loom::model(|| {
            let now = Instant::now();
            // Buckets of one call.
            let core = Arc::new(Core::new(Rules { minimum_calls: 10, ..rules() }, Mode::Normal, now));
            let succeed = |core: Arc<Core>| {
                move || {
                    let ticket = core.admit(now).0.unwrap();
                    core.record(ticket, Outcome::Success, now);
                }
            };
            let other = thread::spawn(succeed(Arc::clone(&core)));
            succeed(Arc::clone(&core))();
            other.join().unwrap();
            assert_eq!(core.figures(now).sums.calls, 2);
        });
    }

    /// A reset races with an outcome of before: whichever wins, nothing of it is left afterwards.
    #[test]
    fn loom_an_outcome_of_before_a_reset_never_counts_after_it() {
        loom::model(|| {
            let now = Instant::now();
            let core =
                Arc::new(Core::new(Rules { consecutive_failures: Some(9), ..rules() }, Mode::Normal, now));
            let ticket = core.admit(now).0.unwrap();
            let other = {
                let core = Arc::clone(&core);
                thread::spawn(move || core.record(ticket, Outcome::Failure, now))
            };
            core.reset(now);
            other.join().unwrap();
            let figures = core.figures(now);
            assert_eq!((figures.sums.calls, figures.in_a_row), (0, 0));
        });
    }

    /// As many probes as allowed, however many threads ask for one, and a dropped one makes room.
    #[test]
    fn loom_probes_are_bounded_and_none_is_lost() {
        loom::model(|| {
            let start = Instant::now();
            let rules = Rules { probes: 1, minimum_calls: 1, ..rules() };
            let core = Arc::new(Core::new(rules, Mode::Normal, start));
            core.record(core.admit(start).0.unwrap(), Outcome::Failure, start);
            assert_eq!(core.state(), CircuitState::Open);
            let later = start + ms(1_000);
            let probe = |core: Arc<Core>| move || core.admit(later).0.ok();
            let other = thread::spawn(probe(Arc::clone(&core)));
            let probes = [probe(Arc::clone(&core))(), other.join().unwrap()];
            assert_eq!(probes.iter().flatten().count(), 1);
            for ticket in probes.into_iter().flatten() {
                core.record(ticket, Outcome::Dropped, later);
            }
            assert!(core.admit(later).0.is_ok());
        });
    }

    /// The end of a probe races with the start of the next one.
    #[test]
    fn loom_a_probe_that_succeeds_closes_it_for_everybody() {
        loom::model(|| {
            let start = Instant::now();
            let rules = Rules { probes: 1, minimum_calls: 1, ..rules() };
            let core = Arc::new(Core::new(rules, Mode::Normal, start));
            core.record(core.admit(start).0.unwrap(), Outcome::Failure, start);
            let later = start + ms(1_000);
            let ticket = core.admit(later).0.unwrap();
            let other = {
                let core = Arc::clone(&core);
                thread::spawn(move || core.admit(later).0.is_ok())
            };
            let change = core.record(ticket, Outcome::Success, later).unwrap();
            assert_eq!(change.to, CircuitState::Closed);
            let _either = other.join().unwrap();
            assert!(core.admit(later).0.is_ok());
            assert_eq!(core.figures(later).probes_in_flight, 0);
        });
    }

    /// A trip races with the probe that closes it. Who trips knows better than a probe from before, so that it is open
    /// afterwards, for longer; and both tell of a change only if they made one.
    #[test]
    fn loom_a_trip_holds_against_the_probe_that_closes_it() {
        loom::model(|| {
            let start = Instant::now();
            let rules = Rules { probes: 1, minimum_calls: 1, ..rules() };
            let core = Arc::new(Core::new(rules, Mode::Normal, start));
            assert!(core.trip(start).is_some());
            let later = start + ms(1_000);
            let ticket = core.admit(later).0.unwrap();
            let before = core.figures(later).generation;
            let other = {
                let core = Arc::clone(&core);
                thread::spawn(move || core.trip(later))
            };
            let closed = core.record(ticket, Outcome::Success, later);
            let tripped = other.join().unwrap().unwrap();
            let (from, changes) = match closed {
                Some(_) => (CircuitState::Closed, 2),
                None => (CircuitState::HalfOpen, 1),
            };
            let figures = core.figures(later);
            assert_eq!(tripped.from, from);
            assert_eq!(figures.generation, before + changes);
            assert_eq!((figures.state, figures.openings), (CircuitState::Open, 2));
            assert_eq!(core.retry_after(|| later), Some(ms(2_000)));
        });
    }

    /// A trip and the failure that reaches the limit open it once, not one after the other.
    #[test]
    fn loom_a_trip_and_a_failure_open_it_exactly_once() {
        loom::model(|| {
            let now = Instant::now();
            let rules = Rules { consecutive_failures: Some(1), ..rules() };
            let core = Arc::new(Core::new(rules, Mode::Normal, now));
            let ticket = core.admit(now).0.unwrap();
            let other = {
                let core = Arc::clone(&core);
                thread::spawn(move || core.trip(now))
            };
            let changes = [core.record(ticket, Outcome::Failure, now), other.join().unwrap()];
            assert_eq!(changes.iter().flatten().count(), 1);
            let figures = core.figures(now);
            assert_eq!((figures.state, figures.openings), (CircuitState::Open, 1));
        });
    }

    /// A trip races with a call that asks to pass: refused with the wait that was just set, or let through and late.
    #[test]
    fn loom_who_is_refused_by_a_trip_is_told_its_wait() {
        loom::model(|| {
            let now = Instant::now();
            let core = Arc::new(Core::new(rules(), Mode::Normal, now));
            let other = {
                let core = Arc::clone(&core);
                thread::spawn(move || core.trip(now).is_some())
            };
            match core.admit(now).0 {
                Ok(ticket) => {
                    core.record(ticket, Outcome::Failure, now);
                }
                Err(wait) => assert_eq!(wait, Some(ms(1_000))),
            }
            assert!(other.join().unwrap());
            assert_eq!((core.state(), core.figures(now).openings), (CircuitState::Open, 1));
        });
    }
}
