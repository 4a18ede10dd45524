use NodeState::{Degraded, Down, Starting, Up};
use proptest::prelude::*;

use super::*;

/// A node under the default rules, and what it was told.
struct Told {
    machine: Machine,
    begin: Instant,
    rules: Rules,
    log: Vec<(u64, NodeState, Cause)>,
}

impl Told {
    fn new() -> Self {
        let begin = Instant::now();
        Self { machine: Machine::new(begin), begin, rules: Rules::default(), log: Vec::new() }
    }

    fn up() -> Self {
        let mut told = Self::new();
        told.at(0, Event::Connected(true)).at(0, OK);
        told.log.clear();
        told
    }

    /// Tells it something, so many milliseconds from the beginning.
    fn at(&mut self, millis: u64, event: Event) -> &mut Self {
        self.all_at(millis, &[event])
    }

    fn all_at(&mut self, millis: u64, events: &[Event]) -> &mut Self {
        let now = self.begin + Duration::from_millis(millis);
        let from = self.machine.state();
        if let Some(change) = self.machine.on(events.iter().copied(), now, &self.rules) {
            assert_eq!((change.from, change.to), (from, self.machine.state()));
            self.log.push((millis, change.to, change.cause));
        }
        self
    }

    #[track_caller]
    fn logged(&self, log: &[(u64, NodeState, Cause)]) {
        assert_eq!(self.log, log);
    }
}

const OK: Event = answer(1);
const FAILED: Event = Event::Failed;

/// An answer after so many milliseconds, where others take ten.
const fn answer(millis: u64) -> Event {
    Event::Answered { latency: Duration::from_millis(millis), typical: Some(Duration::from_millis(10)) }
}

#[test]
fn one_answer_is_enough_to_begin_with() {
    let mut told = Told::new();
    told.at(0, Event::Connected(true)).at(3, OK).logged(&[(3, Up, Cause::Answers)]);
}

#[test]
fn a_node_that_was_never_there_is_down_after_two_probes() {
    let mut told = Told::new();
    told.at(0, Event::Connected(false)).at(1_000, FAILED);
    assert_eq!(told.machine.state(), Starting);
    told.at(3_000, FAILED).logged(&[(3_000, Down, Cause::ProbeFailed)]);
}

#[test]
fn a_node_that_hangs_is_degraded_then_down_and_up_again_once_it_goes_on() {
    let mut told = Told::up();
    told.at(5_000, OK).at(11_000, FAILED).at(13_000, FAILED).at(19_000, FAILED);
    told.at(25_000, OK).at(26_000, OK).at(31_000, OK);
    told.logged(&[
        (11_000, Degraded, Cause::ProbeFailed),
        (13_000, Down, Cause::ProbeFailed),
        (26_000, Up, Cause::Answers),
    ]);
}

#[test]
fn a_node_that_is_killed_is_down_at_once_and_up_when_it_has_answered_twice() {
    let mut told = Told::up();
    told.at(7_000, Event::Connected(false)).at(9_000, FAILED).at(10_000, FAILED);
    told.at(30_000, Event::Connected(true)).at(31_000, OK).at(31_500, OK);
    told.logged(&[(7_000, Down, Cause::Disconnected), (31_500, Up, Cause::Answers)]);
}

#[test]
fn a_connection_that_is_back_does_not_make_a_node_up() {
    let mut told = Told::up();
    told.at(1_000, Event::Connected(false)).at(20_000, Event::Connected(true)).at(21_000, FAILED);
    told.logged(&[(1_000, Down, Cause::Disconnected)]);
    assert_eq!(told.machine.cause(), Cause::Disconnected);
}

#[test]
fn a_single_failed_probe_degrades_and_two_good_ones_mend() {
    let mut told = Told::up();
    told.at(5_000, FAILED).at(10_000, OK).at(15_000, OK);
    told.logged(&[(5_000, Degraded, Cause::ProbeFailed), (15_000, Up, Cause::Answers)]);
}

#[test]
fn answers_that_take_turns_with_failures_leave_a_node_degraded() {
    let mut told = Told::up();
    for round in 0..20 {
        told.at(10_000 * round + 5_000, FAILED).at(10_000 * round + 10_000, OK);
    }
    told.logged(&[(5_000, Degraded, Cause::ProbeFailed)]);
}

#[test]
fn a_node_that_leaves_down_needs_the_answers_in_a_row() {
    let mut told = Told::up();
    told.at(1_000, FAILED).at(2_000, FAILED);
    told.at(8_000, OK).at(9_000, FAILED).at(10_000, OK).at(11_000, FAILED).at(12_000, OK).at(13_000, OK);
    told.logged(&[
        (1_000, Degraded, Cause::ProbeFailed),
        (2_000, Down, Cause::ProbeFailed),
        (13_000, Up, Cause::Answers),
    ]);
}

#[test]
fn slow_answers_in_a_row_degrade_and_a_single_one_does_not() {
    let mut told = Told::up();
    told.at(5_000, answer(51)).at(10_000, OK).at(15_000, answer(51)).at(20_000, answer(51));
    told.at(25_000, answer(51)).at(30_000, OK).at(35_000, OK);
    told.logged(&[(20_000, Degraded, Cause::Slow), (35_000, Up, Cause::Answers)]);
}

#[test]
fn slow_is_beyond_five_times_the_others_and_fifty_milliseconds() {
    let rules = Rules::default();
    let slow = |latency, typical: Option<u64>| {
        is_slow(Duration::from_millis(latency), typical.map(Duration::from_millis), &rules)
    };
    assert!(!slow(50, Some(1)), "too short to be noticed");
    assert!(slow(51, Some(1)));
    assert!(!slow(500, Some(100)));
    assert!(slow(501, Some(100)));
    assert!(!slow(5_000, None), "with nothing to compare");
}

#[test]
fn an_open_circuit_degrades_a_node_that_answers_probes_until_it_closes() {
    let mut told = Told::up();
    told.at(5_000, Event::CircuitOpen(true))
        .at(10_000, OK)
        .at(15_000, OK)
        .at(20_000, Event::CircuitOpen(false));
    told.logged(&[(5_000, Degraded, Cause::CircuitOpen), (20_000, Up, Cause::Answers)]);
}

#[test]
fn a_node_that_answers_again_while_its_circuit_is_open_is_degraded() {
    let mut told = Told::up();
    told.at(1_000, Event::CircuitOpen(true)).at(2_000, FAILED).at(3_000, FAILED);
    told.at(9_000, OK).at(10_000, OK).at(16_000, Event::CircuitOpen(false));
    told.logged(&[
        (1_000, Degraded, Cause::CircuitOpen),
        (3_000, Down, Cause::ProbeFailed),
        (10_000, Degraded, Cause::CircuitOpen),
        (16_000, Up, Cause::Answers),
    ]);
}

#[test]
fn requests_that_fail_degrade_a_node_where_there_are_enough_to_tell() {
    let traffic = |requests, failed| Event::Traffic { requests, failed };
    let mut told = Told::up();
    told.at(1_000, traffic(19, 19)).at(2_000, traffic(0, 0)).at(3_000, traffic(100, 49));
    told.logged(&[]);
    told.at(4_000, traffic(100, 50)).at(9_000, OK).at(10_000, OK).at(11_000, traffic(100, 25));
    told.logged(&[(4_000, Degraded, Cause::Errors)]);
    told.at(12_000, traffic(100, 24))
        .logged(&[(4_000, Degraded, Cause::Errors), (12_000, Up, Cause::Answers)]);
}

#[test]
fn a_better_state_waits_until_the_present_one_has_lasted() {
    let mut told = Told::up();
    told.at(1_000, FAILED).at(2_000, FAILED).at(3_000, OK);
    assert_eq!(told.machine.due(&told.rules), None, "it has answered once");
    told.at(4_000, OK);
    assert_eq!(told.machine.due(&told.rules), Some(told.begin + Duration::from_secs(7)));
    told.all_at(6_999, &[]).all_at(7_000, &[]);
    told.logged(&[
        (1_000, Degraded, Cause::ProbeFailed),
        (2_000, Down, Cause::ProbeFailed),
        (7_000, Up, Cause::Answers),
    ]);
    assert_eq!(told.machine.due(&told.rules), None);
}

#[test]
fn a_worse_state_waits_for_nothing() {
    let mut told = Told::up();
    told.at(1, FAILED).at(2, FAILED);
    told.logged(&[(1, Degraded, Cause::ProbeFailed), (2, Down, Cause::ProbeFailed)]);
}

/// The last probe that a circuit was waiting for is the one that makes the node up.
#[test]
fn what_is_told_at_once_makes_one_change() {
    let mut told = Told::up();
    told.at(1_000, FAILED).all_at(2_000, &[FAILED, Event::CircuitOpen(true)]);
    told.at(8_000, OK).all_at(9_000, &[OK, Event::CircuitOpen(false)]);
    told.logged(&[
        (1_000, Degraded, Cause::ProbeFailed),
        (2_000, Down, Cause::ProbeFailed),
        (9_000, Up, Cause::Answers),
    ]);
}

#[test]
fn a_change_tells_how_long_the_state_before_has_lasted() {
    let mut told = Told::up();
    let now = told.begin + Duration::from_millis(1_234);
    let change = told.machine.on([Event::Connected(false)], now, &told.rules).unwrap();
    assert_eq!(change.lasted, Duration::from_millis(1_234));
    assert_eq!(told.machine.since(), now);
}

#[test]
fn a_probe_that_contradicts_the_state_leaves_a_doubt() {
    let mut told = Told::up();
    let doubt = |told: &mut Told, at, event| told.at(at, event).machine.is_in_doubt(&Rules::default());
    assert!(!doubt(&mut told, 1_000, OK));
    assert!(doubt(&mut told, 2_000, FAILED), "is it down?");
    assert!(!doubt(&mut told, 3_000, FAILED), "it is");
    assert!(!doubt(&mut told, 8_000, FAILED));
    assert!(doubt(&mut told, 9_000, OK), "is it up?");
    assert!(!doubt(&mut told, 10_000, OK), "it is");
    assert!(doubt(&mut told, 11_000, answer(60)), "is it slow?");
    assert!(!doubt(&mut told, 12_000, answer(60)), "it is");
    assert!(doubt(&mut told, 18_000, OK));
    assert!(!doubt(&mut told, 19_000, OK));
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(OK),
        2 => Just(answer(60)),
        3 => Just(FAILED),
        1 => any::<bool>().prop_map(Event::Connected),
        1 => any::<bool>().prop_map(Event::CircuitOpen),
        1 => (0_u64..50, 0_u64..50).prop_map(|(a, b)| Event::Traffic { requests: a.max(b), failed: a.min(b) }),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_a_better_state_comes_only_after_the_stay(
        steps in prop::collection::vec((0_u64..3_000, events()), 0..200),
    ) {
        let mut told = Told::new();
        let (mut now, mut changed, mut last) = (0, 0, Starting);
        for (wait, event) in steps {
            now += wait;
            told.at(now, event);
            let state = told.machine.state();
            if state != last {
                prop_assert!(state != Starting);
                if state.is_better_than(last) && last != Starting {
                    prop_assert!(now - changed >= 5_000, "{last} to {state} after {} ms", now - changed);
                }
                (changed, last) = (now, state);
            }
            // What is due has not come yet.
            if let Some(due) = told.machine.due(&told.rules) {
                prop_assert!(due > told.begin + Duration::from_millis(now));
            }
        }
    }

    #[test]
    fn whatever_happened_answers_make_a_node_up_again(steps in prop::collection::vec(events(), 0..50)) {
        let mut told = Told::new();
        for (at, event) in (0..).zip(steps) {
            told.at(at * 100, event);
        }
        told.at(10_000, Event::CircuitOpen(false)).at(10_000, Event::Traffic { requests: 0, failed: 0 });
        told.at(11_000, OK).at(12_000, OK).all_at(20_000, &[]);
        prop_assert_eq!(told.machine.state(), Up);
    }
}

#[test]
fn a_node_that_answers_again_is_no_longer_gone_while_it_is_down_for_a_while_yet() {
    let mut told = Told::up();
    let is_gone = |told: &Told| (told.machine.state(), told.machine.is_gone(&told.rules));
    assert_eq!(is_gone(&told), (Up, false));
    told.at(10_000, FAILED);
    assert_eq!(is_gone(&told), (Degraded, false));
    told.at(11_000, FAILED);
    assert_eq!(is_gone(&told), (Down, true));
    told.at(12_000, OK);
    assert_eq!(is_gone(&told), (Down, false));
    told.at(12_001, FAILED).at(12_002, FAILED);
    assert_eq!(is_gone(&told), (Down, true));
    // A new connection has seen an answer too, whatever probes have failed without one.
    told.at(20_000, Event::Connected(false)).at(21_000, FAILED).at(22_000, FAILED);
    assert_eq!(is_gone(&told), (Down, true));
    told.at(23_000, Event::Connected(true));
    assert_eq!(is_gone(&told), (Down, false));
    // That it is connected is told again and again, and forgives a failed probe no second time.
    told.at(23_100, FAILED).at(23_200, Event::Connected(true)).at(23_300, FAILED);
    assert_eq!(is_gone(&told), (Down, true));
}

#[test]
fn a_node_that_hangs_after_it_was_connected_again_is_found_though_it_was_down_before() {
    let mut told = Told::up();
    let is_hung = |told: &Told| told.machine.is_hung(&told.rules);
    told.at(10_000, Event::Connected(false)).at(10_100, FAILED).at(10_200, FAILED);
    assert!(!is_hung(&told), "without a connection nothing is sent there");
    told.at(11_000, Event::Connected(true));
    assert_eq!((told.machine.state(), is_hung(&told)), (Down, false));
    told.at(11_100, FAILED);
    assert!(!is_hung(&told));
    told.at(11_200, FAILED);
    assert_eq!((told.machine.state(), is_hung(&told)), (Down, true));
    // The same without having been lost in between.
    told.at(12_000, OK);
    assert_eq!((told.machine.state(), is_hung(&told)), (Down, false));
    told.at(12_100, FAILED).at(12_200, FAILED);
    assert!(is_hung(&told));
    let mut told = Told::up();
    told.at(10_000, FAILED);
    assert!(!is_hung(&told));
    told.at(10_100, FAILED);
    assert!(is_hung(&told));
}
