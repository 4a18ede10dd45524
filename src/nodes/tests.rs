//! A node's record, told exactly what happens to it.

use std::{sync::Arc, time::Duration};

use palisade::{Instant, TimeoutScope, breaker::CircuitState};

use super::{
    node::{Asked, Node, Standing},
    rules::{Rules, Shared, SlowStart},
};
use crate::error::{Error, ErrorKind};

const MS: Duration = Duration::from_millis(1);

struct Bench {
    node: Arc<Node>,
    began: Instant,
}

impl Bench {
    fn new(rules: Rules) -> Self {
        let circuit = rules.circuit.clone().build_circuit("node").unwrap();
        let address = ([127, 0, 0, 1], 9042).into();
        let shared = Arc::new(Shared::new(rules));
        let node = Arc::new(Node::new(uuid::Uuid::nil(), address, None, None, circuit, shared));
        Self { node, began: Instant::now() }
    }

    fn at(&self, milliseconds: u32) -> Instant {
        self.began + MS * milliseconds
    }

    fn ask(&self, at: u32) -> Asked {
        Asked::begin(Arc::clone(&self.node), true, self.at(at))
    }

    fn answered(&self, from: u32, to: u32) {
        self.ask(from).end(&Ok(()), self.at(to));
    }

    fn failed(&self, kind: ErrorKind, from: u32, to: u32) {
        self.ask(from).end::<()>(&Err(error(kind)), self.at(to));
    }

    fn standing(&self, at: u32) -> Standing {
        self.node.standing(true, self.at(at))
    }
}

fn error(kind: ErrorKind) -> Error {
    match kind {
        ErrorKind::Timeout(scope) => palisade::Rejection::timed_out(scope, Duration::ZERO).into(),
        kind => Error::caller(kind, ""),
    }
}

#[test]
fn an_answer_tells_how_long_answers_take_and_a_fast_failure_does_not() {
    let bench = Bench::new(Rules::default());
    bench.answered(0, 8);
    bench.failed(ErrorKind::Unavailable, 8, 9);
    let figures = bench.node.figures();
    assert!(figures.latency.unwrap() > 7 * MS, "{figures:?}");
    assert_eq!((figures.attempts, figures.failures, figures.in_flight), (2, 1, 0));
    bench.failed(ErrorKind::ReadTimeout, 10, 5_010);
    assert!(bench.node.latency(bench.at(5_010)) > 4_900_000_000, "{:?}", bench.node.figures());
}

#[test]
fn the_time_that_an_answer_is_owed_counts_as_a_latency() {
    let bench = Bench::new(Rules::default());
    bench.answered(0, 2);
    let _asked = bench.ask(10);
    assert!(bench.node.latency(bench.at(11)) < 3_000_000);
    assert_eq!(bench.node.latency(bench.at(60)), 50_000_000);
}

#[test]
fn three_attempts_without_an_answer_for_a_quarter_of_a_second_open_the_circuit() {
    let bench = Bench::new(Rules::default());
    bench.answered(0, 2);
    let _asked: Vec<_> = [10, 20, 200].map(|at| bench.ask(at)).into();
    bench.standing(260);
    assert!(bench.node.circuit().is_closed());
    bench.standing(261);
    assert_eq!(bench.node.circuit().state(), CircuitState::Open);
}

#[test]
fn two_attempts_without_an_answer_open_nothing() {
    let bench = Bench::new(Rules::default());
    let _asked: Vec<_> = [10, 20].map(|at| bench.ask(at)).into();
    bench.standing(5_000);
    assert!(bench.node.circuit().is_closed());
}

#[test]
fn a_node_whose_answers_usually_take_long_has_eight_times_that() {
    let bench = Bench::new(Rules::default());
    bench.answered(0, 100);
    let _asked: Vec<_> = [100, 100, 100].map(|at| bench.ask(at)).into();
    // The estimate falls a little meanwhile.
    bench.standing(700);
    assert!(bench.node.circuit().is_closed());
    bench.standing(901);
    assert!(!bench.node.circuit().is_closed());
}

#[test]
fn any_answer_ends_the_silence() {
    let bench = Bench::new(Rules::default());
    let _asked: Vec<_> = [0, 0, 0].map(|at| bench.ask(at)).into();
    // A scan, whose latency says nothing.
    Asked::begin(Arc::clone(&bench.node), false, bench.at(0)).end(&Ok(()), bench.at(240));
    bench.standing(400);
    assert!(bench.node.circuit().is_closed());
    bench.standing(491);
    assert!(!bench.node.circuit().is_closed(), "three are under way still");
}

#[test]
fn overload_never_ejects_a_node() {
    let bench = Bench::new(Rules::default());
    for at in 0..200 {
        let kind =
            [ErrorKind::Overloaded, ErrorKind::RateLimited, ErrorKind::ConnectionFull][at as usize % 3];
        bench.failed(kind, at, at + 1);
    }
    assert!(bench.node.circuit().is_closed());
    assert_eq!(bench.node.figures().failures, 0);
}

#[test]
fn what_the_caller_did_wrong_is_no_failure_of_the_node() {
    let bench = Bench::new(Rules::default());
    for at in 0..200 {
        bench.failed(ErrorKind::Syntax, at, at + 1);
    }
    assert!(bench.node.circuit().is_closed());
}

#[test]
fn attempts_that_time_out_open_the_circuit_and_are_owed() {
    let bench = Bench::new(Rules::default());
    for at in 0..5 {
        bench.failed(ErrorKind::Timeout(TimeoutScope::Attempt), at, at + 300);
    }
    assert_eq!(bench.node.circuit().state(), CircuitState::Open);
    assert_eq!(bench.node.figures().abandoned, 5);
}

/// These run on the real clock, since a drop tells no time.
#[test]
fn what_is_dropped_is_charged_to_the_node() {
    let bench = Bench::new(Rules::default());
    for _ in 0..4 {
        drop(Asked::begin(Arc::clone(&bench.node), true, Instant::now()));
    }
    let figures = bench.node.figures();
    assert_eq!((figures.in_flight, figures.unanswered, figures.abandoned), (0, 4, 4));
    assert_eq!(figures.failures, 0, "whoever is impatient tells nothing");
    let long_ago = Instant::now() - 400 * MS;
    drop(Asked::begin(Arc::clone(&bench.node), true, long_ago));
    assert_eq!(bench.node.figures().failures, 1, "whoever waited for long does");
}

#[test]
fn a_node_that_owes_too_many_answers_is_full_until_it_answers() {
    let bench = Bench::new(Rules { max_abandoned: 3, ..Rules::default() });
    for _ in 0..3 {
        assert_eq!(bench.node.standing(true, Instant::now()), Standing::Usable);
        drop(Asked::begin(Arc::clone(&bench.node), false, Instant::now()));
    }
    assert_eq!(bench.node.standing(true, Instant::now()), Standing::Full);
    // It answers, twenty seconds later: by then it has answered those as well.
    bench.answered(20_000, 20_001);
    assert_eq!(bench.standing(20_002), Standing::Usable);
}

#[test]
fn new_connections_owe_nothing_and_start_slowly() {
    let bench = Bench::new(Rules { max_abandoned: 1, ..Rules::default() });
    drop(Asked::begin(Arc::clone(&bench.node), true, Instant::now()));
    assert_eq!(bench.node.standing(true, bench.at(1_000)), Standing::Full);
    assert_eq!(bench.node.standing(false, bench.at(1_000)), Standing::Down);
    assert_eq!(bench.node.standing(true, bench.at(5_000)), Standing::Usable);
    let weight = |at| (bench.node.weight(bench.at(at)) * 100.0).round();
    assert_eq!([5_000, 6_000, 10_000, 15_000].map(weight), [10.0, 10.0, 50.0, 100.0]);
}

#[test]
fn a_node_is_ejected_while_its_circuit_is_open_and_comes_back_slowly() {
    let slow_start = SlowStart { lasts: Duration::from_secs(4) };
    let bench = Bench::new(Rules { slow_start, ..Rules::default() });
    bench.node.shared().set_probed(true);
    bench.node.circuit().trip();
    bench.node.eject(true);
    assert_eq!(bench.standing(1_000), Standing::Ejected);
    bench.node.circuit().reset();
    bench.node.eject(false);
    assert_eq!(bench.standing(2_000), Standing::Usable);
    let weight = |at| (bench.node.weight(bench.at(at)) * 100.0).round();
    assert_eq!([2_000, 4_000, 6_000].map(weight), [10.0, 50.0, 100.0]);
}

/// out02: a listener of the circuit is called outside all locks; ours looks at all nodes from within.
/// out03: how often a node was ejected is forgotten when it has been well for as long.
#[test]
fn out03_the_growing_wait_of_a_node_is_forgotten_when_it_has_been_well() {
    let bench = Bench::new(Rules::default());
    bench.node.circuit().trip();
    assert_eq!(bench.node.circuit().snapshot().openings, 1);
    bench.node.circuit().reset();
    assert_eq!(bench.node.circuit().snapshot().openings, 0);
}
