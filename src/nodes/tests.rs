//! A node's record, told exactly what happens to it.

use std::{sync::Arc, time::Duration};

use palisade::{
    Backoff, Instant, Jitter, TimeoutScope,
    breaker::{CircuitState, Mode},
};
use proptest::prelude::*;

use super::{
    node::{Asked, Node, Standing},
    rules::{Probing, Rules, Shared, SlowStart},
};
use crate::error::{Error, ErrorKind};

const MS: Duration = Duration::from_millis(1);

/// The node 127.0.0.`last`.
pub(crate) fn node(last: u8, rules: Rules) -> Arc<Node> {
    let circuit = rules.circuit.clone().build_circuit("node").unwrap();
    let (id, address) = (uuid::Uuid::from_u128(last.into()), ([127, 0, 0, last], 9042).into());
    Arc::new(Node::new(id, address, None, None, circuit, Arc::new(Shared::new(rules))))
}

struct Bench {
    node: Arc<Node>,
    began: Instant,
}

impl Bench {
    fn new(rules: Rules) -> Self {
        Self { node: node(1, rules), began: Instant::now() }
    }

    fn at(&self, milliseconds: u32) -> Instant {
        self.began + MS * milliseconds
    }

    fn ask(&self, at: u32) -> Asked {
        Asked::begin(Arc::clone(&self.node), None, true, self.at(at))
    }

    fn scan(&self, at: u32) -> Asked {
        Asked::begin(Arc::clone(&self.node), None, false, self.at(at))
    }

    /// Somebody has waited for so many milliseconds until now, and does so no longer. A drop tells no time: it is that of the clock.
    fn given_up_after(&self, milliseconds: u32, is_quick: bool) {
        let began = Instant::now() - MS * milliseconds;
        drop(Asked::begin(Arc::clone(&self.node), None, is_quick, began));
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
    bench.scan(0).end(&Ok(()), bench.at(240));
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

#[test]
fn what_is_dropped_is_charged_to_the_node() {
    let bench = Bench::new(Rules::default());
    for _ in 0..4 {
        bench.given_up_after(0, true);
    }
    let figures = bench.node.figures();
    assert_eq!((figures.in_flight, figures.unanswered, figures.abandoned), (0, 4, 4));
    assert_eq!(figures.failures, 0, "whoever is impatient tells nothing");
    bench.given_up_after(400, true);
    assert_eq!(bench.node.figures().failures, 1, "whoever waited for long does");
}

/// What nobody waited for to the end says how long an answer takes at least, and not how long is usual.
#[test]
fn a_hung_node_is_no_slow_one_after_the_first_attempt_that_timed_out() {
    let bench = Bench::new(Rules::default());
    bench.answered(0, 2);
    for _ in 0..5 {
        bench.given_up_after(300, true);
    }
    assert_eq!(bench.node.figures().failures, 5);
    assert_eq!(bench.node.circuit().state(), CircuitState::Open);
    assert!(bench.node.figures().latency.unwrap() > 290 * MS, "{:?}", bench.node.figures());
}

/// Statements without a key, and those that are sent as text, tell no latency.
#[test]
fn a_node_that_says_nothing_at_all_is_to_blame_whatever_the_statement() {
    let bench = Bench::new(Rules::default());
    bench.given_up_after(400, false);
    assert_eq!(bench.node.figures().failures, 1);
    let scan = Asked::begin(Arc::clone(&bench.node), None, false, Instant::now() - 400 * MS);
    Asked::begin(Arc::clone(&bench.node), None, false, Instant::now()).end(&Ok(()), Instant::now());
    drop(scan);
    assert_eq!(bench.node.figures().failures, 1, "it answers others");
}

#[test]
fn scans_under_way_are_no_silence() {
    let bench = Bench::new(Rules::default());
    let _scans: Vec<_> = [0, 0, 0, 0].map(|at| bench.scan(at)).into();
    bench.answered(5, 10);
    assert_eq!(bench.node.figures().unanswered, 0);
    bench.standing(60_000);
    assert!(bench.node.circuit().is_closed());
}

#[test]
fn a_node_that_nobody_asks_is_forgiven() {
    let bench = Bench::new(Rules::default());
    bench.answered(0, 2);
    for _ in 0..5 {
        bench.given_up_after(30, true);
    }
    for at in [10_000, 60_000, 3_600_000] {
        bench.standing(at);
        assert!(bench.node.circuit().is_closed());
    }
    assert!(bench.node.latency(bench.at(3_600_000)) < 1_000);
    // And the next attempt begins anew.
    let _asked = bench.ask(3_600_000);
    assert!(bench.node.latency(bench.at(3_600_001)) < 200_000_000);
    bench.standing(3_600_010);
    assert!(bench.node.circuit().is_closed());
}

#[test]
fn a_node_that_owes_too_many_answers_is_full_while_it_says_nothing() {
    let bench = Bench::new(Rules { max_abandoned: 3, ..Rules::default() });
    for _ in 0..3 {
        assert_eq!(bench.standing(0), Standing::Usable);
        bench.given_up_after(0, false);
    }
    assert!(bench.node.shared().any_is_full());
    // One attempt a second finds out whether it answers again.
    assert_eq!(bench.standing(1_000), Standing::Usable);
    let asked = bench.scan(1_000);
    assert_eq!((bench.standing(1_001), bench.standing(1_999)), (Standing::Full, Standing::Full));
    assert!(bench.node.is_out(bench.at(1_999)));
    assert_eq!(bench.standing(2_000), Standing::Usable);
    let mut asked_again = bench.scan(2_000);
    assert_eq!(bench.standing(2_500), Standing::Full);
    asked_again.end(&Ok(()), bench.at(2_600));
    assert_eq!(bench.standing(2_601), Standing::Usable);
    drop(asked);
    // It answers, and goes on to: by then it has answered those as well.
    for at in [14_000, 15_000, 16_000] {
        bench.answered(at, at + 1);
    }
    assert!(bench.node.figures().abandoned <= 1 && !bench.node.shared().any_is_full());
}

/// Of many hedged reads at a sound node, each of which may leave an answer behind that nobody waits for.
#[test]
fn a_node_that_answers_is_never_full() {
    let bench = Bench::new(Rules { max_abandoned: 10, ..Rules::default() });
    for at in 0..1_000 {
        bench.answered(at * 10, at * 10 + 1);
        bench.failed(ErrorKind::Timeout(TimeoutScope::Attempt), at * 10, at * 10 + 2);
        bench.answered(at * 10 + 3, at * 10 + 4);
        assert_ne!(bench.standing(at * 10 + 5), Standing::Full);
    }
}

#[test]
fn new_connections_owe_nothing_and_start_slowly() {
    let bench = Bench::new(Rules { max_abandoned: 1, ..Rules::default() });
    bench.given_up_after(0, true);
    let _asked = bench.scan(900);
    assert_eq!(bench.node.standing(true, bench.at(1_000)), Standing::Full);
    assert_eq!(bench.node.standing(false, bench.at(1_000)), Standing::Down);
    assert_eq!(bench.node.standing(true, bench.at(5_000)), Standing::Usable);
    assert_eq!(bench.node.figures().abandoned, 0);
    let weight = |at| format!("{:.2}", bench.node.weight(bench.at(at)));
    assert_eq!([5_000, 6_000, 10_000, 15_000].map(weight), ["0.10", "0.10", "0.50", "1.00"]);
}

#[test]
fn a_node_is_ejected_while_its_circuit_is_open_and_comes_back_slowly() {
    let slow_start = SlowStart { lasts: Duration::from_secs(4) };
    let bench = Bench::new(Rules { slow_start, ..Rules::default() });
    let _probing = Probing::begin(bench.node.shared());
    bench.node.circuit().trip();
    bench.node.eject(true);
    assert_eq!(bench.standing(1_000), Standing::Ejected);
    bench.node.circuit().reset();
    bench.node.eject(false);
    assert_eq!(bench.standing(2_000), Standing::Usable);
    let weight = |at| format!("{:.2}", bench.node.weight(bench.at(at)));
    assert_eq!([2_000, 4_000, 6_000].map(weight), ["0.10", "0.50", "1.00"]);
}

/// Rules by which an ejected node may be tried again after a millisecond or two.
fn impatient() -> Rules {
    let wait = Backoff::exponential(MS, 100 * MS).unwrap().with_jitter(Jitter::None);
    let rules = Rules::default();
    Rules { circuit: rules.circuit.clone().open_for(wait), ..rules }
}

fn ejected() -> Bench {
    let bench = Bench::new(impatient());
    bench.node.circuit().trip();
    bench.node.eject(true);
    bench
}

impl Bench {
    fn now(&self) -> Standing {
        self.node.standing(true, Instant::now())
    }

    fn wait_until_due(&self) {
        while self.now() != Standing::Due {
            std::thread::yield_now();
        }
    }

    fn probe(&self) -> Option<Asked> {
        let probe = self.node.probe()?;
        Some(Asked::begin(Arc::clone(&self.node), Some(probe), false, Instant::now()))
    }
}

/// What is refused goes to other nodes: traffic finds out whether a node is well by single attempts, and not by all that there is.
#[test]
fn a_node_whose_wait_is_over_gets_as_many_attempts_as_its_circuit_gives_leave_for() {
    let bench = ejected();
    bench.wait_until_due();
    let (mut one, mut other) = (bench.probe().unwrap(), bench.probe().unwrap());
    assert_eq!(bench.now(), Standing::Due);
    assert!(bench.probe().is_none() && bench.probe().is_none());
    one.end(&Ok(()), Instant::now());
    other.end(&Ok(()), Instant::now());
    assert_eq!(bench.node.circuit().state(), CircuitState::Closed);
    assert_eq!(bench.now(), Standing::Usable);
}

#[test]
fn a_probe_that_is_given_up_was_in_vain_however_soon() {
    let bench = ejected();
    bench.wait_until_due();
    drop(bench.probe().unwrap());
    assert_eq!(bench.node.circuit().state(), CircuitState::Open);
    assert_eq!(bench.node.circuit().snapshot().openings, 2);
}

#[test]
fn a_node_that_has_no_connection_when_it_is_probed_stays_out() {
    let bench = ejected();
    bench.wait_until_due();
    bench.node.unreachable(bench.node.probe());
    assert_eq!(bench.node.circuit().state(), CircuitState::Open);
}

#[test]
fn a_node_that_an_operator_keeps_out_is_not_probed() {
    let bench = Bench::new(impatient());
    bench.node.circuit().set_mode(Mode::ForcedOpen);
    bench.node.eject(true);
    for at in [0, 1_000, 1_000_000] {
        assert_eq!(bench.standing(at), Standing::Ejected);
    }
}

/// Nothing is decided by asking again and again: an ejected node costs no more than a look, and a look changes nothing.
#[test]
fn out01_an_ejected_node_makes_nobody_spin() {
    let bench = ejected();
    bench.node.circuit().set_mode(Mode::ForcedOpen);
    let before = bench.node.circuit().snapshot();
    for _ in 0..10_000 {
        assert_eq!(bench.now(), Standing::Ejected);
    }
    assert_eq!(bench.node.circuit().snapshot(), before);
}

/// How often a node was ejected is forgotten when it has been well for as long as it would have been ejected next.
#[test]
fn out03_the_growing_wait_of_a_node_is_forgotten_when_it_has_been_well() {
    let wait = Backoff::exponential(50 * MS, 200 * MS).unwrap().with_jitter(Jitter::None);
    let rules = Rules::default();
    let bench = Bench::new(Rules { circuit: rules.circuit.clone().open_for(wait), ..rules });
    bench.node.eject(true);
    let well_again = || {
        bench.wait_until_due();
        while bench.node.circuit().state() != CircuitState::Closed {
            bench.probe().unwrap().end(&Ok(()), Instant::now());
        }
    };
    let trip = || {
        bench.node.circuit().trip();
        (bench.node.circuit().snapshot().openings, bench.node.circuit().retry_after().unwrap())
    };
    let (openings, wait) = trip();
    assert!(openings == 1 && wait <= 50 * MS, "{wait:?}");
    for opening in 2..=3 {
        well_again();
        // At once, so that it has not been well for long.
        assert_eq!(trip().0, opening);
    }
    assert!(bench.node.circuit().retry_after().unwrap() > 50 * MS);
    well_again();
    std::thread::sleep(210 * MS);
    let (openings, wait) = trip();
    assert!(openings == 1 && wait <= 50 * MS, "{wait:?}");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Begin { is_quick: bool },
    Succeed,
    Fail(ErrorKind),
    Drop,
}

fn step() -> impl Strategy<Value = Step> {
    let kinds = [
        ErrorKind::Timeout(TimeoutScope::Attempt),
        ErrorKind::Unreachable,
        ErrorKind::ConnectionFull,
        ErrorKind::Overloaded,
        ErrorKind::Unavailable,
        ErrorKind::Syntax,
    ];
    prop_oneof![
        any::<bool>().prop_map(|is_quick| Step::Begin { is_quick }),
        Just(Step::Succeed),
        prop::sample::select(Vec::from(kinds)).prop_map(Step::Fail),
        Just(Step::Drop),
    ]
}

proptest! {
    #[test]
    fn however_attempts_end_none_is_left_under_way(steps in prop::collection::vec((step(), 0_usize..8), 0..80)) {
        let bench = Bench::new(Rules { max_abandoned: 3, ..impatient() });
        let mut under_way = Vec::new();
        for (at, (step, which)) in (1..).zip(steps) {
            let ends = !under_way.is_empty() && !matches!(step, Step::Begin { .. });
            let asked = ends.then(|| under_way.remove(which % under_way.len()));
            match (step, asked) {
                (Step::Begin { is_quick: true }, _) => under_way.push(bench.ask(at)),
                (Step::Begin { is_quick: false }, _) => under_way.push(bench.scan(at)),
                (Step::Succeed, Some(mut asked)) => asked.end(&Ok(()), bench.at(at)),
                (Step::Fail(kind), Some(mut asked)) => asked.end::<()>(&Err(error(kind)), bench.at(at)),
                (_, asked) => drop(asked),
            }
            prop_assert_eq!(bench.node.in_flight() as usize, under_way.len());
            let is_full = bench.node.figures().abandoned >= 3;
            prop_assert_eq!(bench.node.shared().any_is_full(), is_full);
        }
        drop(under_way);
        prop_assert_eq!(bench.node.in_flight(), 0);
        bench.answered(100_000, 100_001);
        prop_assert_eq!(bench.node.figures().unanswered, 0);
        prop_assert_eq!(bench.node.circuit().snapshot().probes_in_flight, 0);
        let shared = Arc::clone(bench.node.shared());
        drop(bench);
        prop_assert!(!shared.any_is_full());
    }
}

/// Whoever comes between whom: what has ended is not waited for.
#[test]
fn attempts_of_several_threads_are_counted_exactly() {
    let bench = Bench::new(Rules { max_abandoned: 5, ..Rules::default() });
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let bench = &bench;
            scope.spawn(move || {
                for round in 0..5_000 {
                    let mut asked =
                        Asked::begin(Arc::clone(&bench.node), None, round % 5 > 0, Instant::now());
                    match (round + thread) % 7 {
                        0 => drop(asked),
                        1 => asked.end::<()>(
                            &Err(error(ErrorKind::Timeout(TimeoutScope::Attempt))),
                            Instant::now(),
                        ),
                        _ => asked.end(&Ok(()), Instant::now()),
                    }
                    if round % 100 == 0 {
                        bench.node.standing(round % 200 == 0, Instant::now());
                    }
                }
            });
        }
    });
    bench.answered(100_000, 100_001);
    let figures = bench.node.figures();
    assert_eq!((figures.in_flight, figures.unanswered, figures.attempts), (0, 0, 20_001));
    assert_eq!(bench.node.shared().any_is_full(), figures.abandoned >= 5);
    assert!(bench.node.latency(bench.at(10_000_000)) < 1_000);
}
