use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules {
    failures: 3,
    back_after: Duration::from_secs(10),
    ramp: Duration::from_secs(4),
    hold: Duration::from_secs(2),
};

/// A state, and a clock that a test sets.
struct Told {
    state: State,
    began: Instant,
}

fn told(datacenters: usize) -> Told {
    Told { state: State::new(RULES, datacenters), began: Instant::now() }
}

impl Told {
    fn at(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(ms)
    }

    /// At this millisecond these can serve. Which one it is switched to, and why?
    fn look(&mut self, ms: u64, can_serve: &[bool]) -> Option<(usize, SwitchCause)> {
        let switch = self.state.look(can_serve, self.at(ms));
        switch.map(|switch| (switch.to, switch.cause))
    }

    fn fail(&mut self, ms: u64, site: usize) -> Option<(usize, SwitchCause)> {
        let switch = self.state.failed(site, self.at(ms));
        switch.map(|switch| (switch.to, switch.cause))
    }

    fn trickle(&self, ms: u64) -> u32 {
        self.state.trickle(self.at(ms))
    }
}

use SwitchCause::{CannotServe, Failures, Operator, Recovered};

#[test]
fn what_cannot_serve_is_left_at_once_and_taken_back_after_the_wait_and_a_trickle() {
    let mut told = told(2);
    assert_eq!(told.look(0, &[true, true]), None);
    assert_eq!(told.look(100, &[false, true]), Some((1, CannotServe)));
    assert_eq!(told.look(30_000, &[false, true]), None);
    assert_eq!(told.look(30_100, &[true, true]), None);
    assert_eq!((told.look(40_099, &[true, true]), told.trickle(40_099)), (None, 0));
    // After ten seconds a twentieth, then more and more of it.
    assert_eq!((told.look(40_100, &[true, true]), told.trickle(40_100)), (None, 50));
    assert_eq!((told.trickle(41_100), told.trickle(42_100), told.trickle(44_099)), (250, 500, 999));
    assert_eq!((told.look(44_099, &[true, true]), told.state.active()), (None, 1));
    assert_eq!(told.look(44_100, &[true, true]), Some((0, Recovered)));
    assert_eq!((told.look(90_000, &[true, true]), told.trickle(90_000)), (None, 0));
}

#[test]
fn an_interruption_begins_the_wait_anew() {
    let mut told = told(2);
    told.look(0, &[false, true]);
    told.look(1_000, &[true, true]);
    told.look(10_900, &[false, true]);
    told.look(10_950, &[true, true]);
    told.look(11_000, &[true, true]);
    assert_eq!(told.trickle(11_000), 0);
    told.look(20_949, &[true, true]);
    assert_eq!(told.trickle(20_949), 0);
    told.look(20_950, &[true, true]);
    assert_eq!(told.trickle(20_950), 50);
}

#[test]
fn failures_in_a_row_count_and_a_success_between_forgives_them() {
    let mut told = told(2);
    assert_eq!((told.fail(0, 0), told.fail(1, 0)), (None, None));
    told.state.succeeded(0);
    assert_eq!((told.fail(2, 0), told.fail(3, 0)), (None, None));
    assert_eq!(told.fail(4, 0), Some((1, Failures)));
    // What was under way fails as well, and puts the way back off.
    assert_eq!(told.fail(5_000, 0), None);
    told.look(14_999, &[true, true]);
    assert_eq!(told.trickle(14_999), 0);
    told.look(15_000, &[true, true]);
    assert_eq!(told.trickle(15_000), 50);
    assert_eq!(told.look(19_000, &[true, true]), Some((0, Recovered)));
}

#[test]
fn a_late_answer_does_not_bring_it_back_sooner() {
    let mut told = told(2);
    (0..3).for_each(|ms| _ = told.fail(ms, 0));
    told.state.succeeded(0);
    told.look(5_000, &[true, true]);
    assert_eq!((told.state.active(), told.trickle(5_000)), (1, 0));
}

#[test]
fn a_trickle_that_fails_ends_and_the_next_wait_is_twice_as_long() {
    let mut told = told(2);
    told.look(0, &[false, true]);
    told.look(1_000, &[true, true]);
    told.look(11_000, &[true, true]);
    assert_eq!(told.trickle(11_000), 50);
    assert_eq!((told.fail(11_100, 0), told.fail(11_200, 0), told.fail(11_300, 0)), (None, None, None));
    assert_eq!(told.trickle(11_300), 0);
    told.look(31_299, &[true, true]);
    assert_eq!(told.trickle(31_299), 0);
    told.look(31_300, &[true, true]);
    assert_eq!(told.trickle(31_300), 50);
}

#[test]
fn a_trickle_whose_last_call_failed_is_not_taken_for_a_recovery() {
    let mut told = told(2);
    told.look(0, &[false, true]);
    told.look(0, &[true, true]);
    told.look(10_000, &[true, true]);
    told.fail(13_999, 0);
    assert_eq!(told.look(14_000, &[true, true]), None);
    told.state.succeeded(0);
    assert_eq!(told.look(14_001, &[true, true]), Some((0, Recovered)));
}

#[test]
fn the_wait_doubles_up_to_eight_times_while_it_is_left_soon_after_each_return() {
    let mut told = told(2);
    let (mut now, mut waits) = (0, Vec::new());
    for _ in 0..6 {
        assert_eq!(told.look(now, &[false, true]), Some((1, CannotServe)));
        let well = now;
        told.look(now, &[true, true]);
        while told.look(now, &[true, true]).is_none() {
            now += 1_000;
        }
        waits.push((now - well) / 1_000 - 4);
        now += 5_000;
    }
    assert_eq!(waits, [10, 20, 40, 80, 80, 80]);
    // Once it has been well for as long, that is forgotten.
    now += 80_000;
    assert_eq!(told.look(now, &[false, true]), Some((1, CannotServe)));
    told.look(now, &[true, true]);
    told.look(now + 10_000, &[true, true]);
    assert_eq!(told.trickle(now + 10_000), 50);
}

#[test]
fn the_first_of_the_others_that_can_serve_is_taken_and_left_for_the_next_if_it_cannot() {
    let mut told = told(4);
    assert_eq!(told.look(0, &[false, false, true, true]), Some((2, CannotServe)));
    // A better one of them is no reason to move.
    assert_eq!(told.look(10_000, &[false, true, true, true]), None);
    assert_eq!(told.look(11_000, &[false, false, false, true]), Some((3, CannotServe)));
    assert_eq!(told.look(20_000, &[false, false, false, false]), None);
    assert_eq!(told.look(20_100, &[false, true, false, false]), Some((1, CannotServe)));
}

#[test]
fn where_no_other_can_serve_it_stays() {
    let mut told = told(2);
    assert_eq!(told.look(0, &[false, false]), None);
    assert_eq!(told.state.active(), LOCAL);
    assert_eq!(told.look(100, &[true, false]), None);
    (0..10).for_each(|ms| assert_eq!(told.fail(200 + ms, 0), None));
    // Both fail: there is nothing to choose.
    assert_eq!(told.look(300, &[true, true]), Some((1, Failures)));
    (0..10).for_each(|ms| assert_eq!(told.fail(3_000 + ms, 1), None));
    assert_eq!(told.state.active(), 1);
    // Until one is well again, whichever it is.
    assert_eq!(told.look(10_209, &[true, true]), Some((0, Failures)));
}

#[test]
fn the_local_one_is_taken_at_once_if_the_other_cannot_serve_and_it_can() {
    let mut told = told(2);
    told.look(0, &[false, true]);
    told.look(5_000, &[true, true]);
    assert_eq!(told.look(5_100, &[true, false]), Some((0, CannotServe)));
}

#[test]
fn there_is_at_most_one_switch_per_hold_time() {
    let mut told = told(2);
    let mut switches = Vec::new();
    for tick in 0..100 {
        let ms = tick * 100;
        // Both flap, against each other.
        let up = tick % 2 == 0;
        if let Some((to, _)) = told.look(ms, &[up, !up]) {
            switches.push((ms, to));
        }
    }
    assert_eq!(switches, [(100, 1), (2_200, 0), (4_300, 1), (6_400, 0), (8_500, 1)]);
}

#[test]
fn a_local_datacenter_that_flaps_is_left_once() {
    let mut told = told(2);
    let mut switches = Vec::new();
    for tick in 0..6_000 {
        let ms = tick * 100;
        // Down for a second in every nine.
        if let Some((to, _)) = told.look(ms, &[tick % 90 >= 10, true]) {
            switches.push((ms, to));
        }
    }
    assert_eq!(switches, [(0, 1)]);
}

#[test]
fn an_operator_has_the_last_word() {
    let mut told = told(3);
    let at = told.at(0);
    assert_eq!(told.state.hold(Some(2), at).map(|switch| (switch.to, switch.cause)), Some((2, Operator)));
    assert_eq!(told.look(5_000, &[true, true, false]), None);
    assert!(!told.state.is_refuge(0, told.at(5_000)), "nothing is sent elsewhere");
    assert_eq!(told.state.hold(None, told.at(6_000)).map(|switch| switch.to), Some(0));

    assert_eq!(told.look(10_000, &[false, true, true]), Some((1, CannotServe)));
    let at = told.at(10_100);
    let switch = told.state.set_enabled(false, at).unwrap();
    assert_eq!((switch.to, switch.cause), (0, Operator));
    assert_eq!(told.look(20_000, &[false, true, true]), None);
    assert_eq!(told.state.set_enabled(true, told.at(20_100)).map(|switch| switch.to), Some(1));
    assert_eq!(told.state.hold(Some(7), told.at(30_000)), None, "there is no such datacenter");
}

#[derive(Clone, Debug)]
enum Input {
    Look(Vec<bool>),
    Fail(usize),
    Succeed(usize),
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        prop::collection::vec(any::<bool>(), 3).prop_map(Input::Look),
        (0..3_usize).prop_map(Input::Fail),
        (0..3_usize).prop_map(Input::Succeed),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_switches_are_a_hold_time_apart_and_lead_to_what_is_better_or_back(
        inputs in prop::collection::vec((0..1_500_u64, input()), 1..300),
    ) {
        let mut told = told(3);
        let (mut ms, mut last) = (0, None);
        for (wait, input) in inputs {
            ms += wait;
            let (now, before) = (told.at(ms), told.state.active());
            let switch = match &input {
                Input::Look(can_serve) => told.state.look(can_serve, now),
                Input::Fail(site) => told.state.failed(*site, now),
                Input::Succeed(site) => {
                    told.state.succeeded(*site);
                    None
                }
            };
            prop_assert_eq!(switch.map_or(before, |switch| switch.to), told.state.active());
            if let Some(Switch { from, to, cause }) = switch {
                prop_assert_eq!(from, before);
                prop_assert_ne!(from, to);
                prop_assert!(last.is_none_or(|last| ms - last >= 2_000), "{} after {:?}", ms, last);
                prop_assert!(told.state.standing(to, now) > Standing::Down);
                if cause == Recovered {
                    prop_assert_eq!((to, told.state.standing(LOCAL, now)), (LOCAL, Standing::Well));
                } else {
                    prop_assert!(told.state.standing(to, now) > told.state.standing(from, now));
                }
                last = Some(ms);
            }
            prop_assert!(told.trickle(ms) <= 1_000);
            prop_assert!(told.state.active() != LOCAL || told.trickle(ms) == 0);
        }
    }
}
