//! What each layer is there for: what is missing without it.

use overload_simulation::{
    comparison::{SHORT_QUEUE, VARIANTS},
    run::Scenario,
    scenarios::{five_times, slow_degradation},
};
use palisade::Priority;

use crate::scenarios::{Lived, live};

fn with(name: &str, scenario: Scenario) -> Lived {
    let variant = VARIANTS.into_iter().find(|variant| variant.name == name);
    live(scenario, variant.expect("a variant of this name"))
}

#[test]
fn a_throttle_spares_a_server_that_refuses_the_work_of_refusing() {
    let (none, throttle) = (with("none", SHORT_QUEUE), with("throttle", SHORT_QUEUE));
    let saved = throttle.goodput() - none.goodput();
    assert!(saved > 0.1, "{} instead of {}", throttle.goodput(), none.goodput());
    assert!(throttle.trouble().attempts() < none.trouble().attempts() / 2.0);
}

#[test]
fn a_throttle_cannot_help_a_server_that_never_refuses_in_time() {
    let throttle = with("throttle", five_times::SCENARIO);
    assert!(throttle.goodput() < five_times::COLLAPSED, "{}", throttle.goodput());
}

#[test]
fn an_adaptive_limit_keeps_the_server_busy_but_knows_nothing_of_priority() {
    let adaptive = with("adaptive limit", five_times::SCENARIO);
    assert!(adaptive.goodput() >= five_times::GOODPUT, "{}", adaptive.goodput());
    let critical = adaptive.trouble().served(Priority::Critical);
    assert!(critical < 0.5, "{critical}");
}

#[test]
fn shedding_saves_the_critical_work() {
    for name in ["shed over the right limit", "shed over adaptive limit"] {
        let shed = with(name, five_times::SCENARIO);
        let critical = shed.trouble().served(Priority::Critical);
        assert!(critical >= five_times::CRITICAL, "{name}: {critical}");
    }
}

#[test]
fn a_limit_that_is_too_high_fails_when_the_server_becomes_slow_and_an_adaptive_one_does_not() {
    use slow_degradation::{CRITICAL, SCENARIO};
    let high = with("shed over 4 times that", SCENARIO).trouble().served(Priority::Critical);
    let adaptive = with("shed over adaptive limit", SCENARIO).trouble().served(Priority::Critical);
    assert!(high < 0.9 && adaptive >= CRITICAL, "{high}, {adaptive}");
}
