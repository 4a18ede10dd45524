//! Each scenario's bars, with the layers and without.

use overload_simulation::{
    report::{Bin, Report},
    run::{Scenario, Size, Variant},
    scenarios::{
        five_times, hot_key, retry_storm, sick_replica, slow_degradation, thousand_clients, thundering_herd,
        total_failure,
    },
    table::NORMAL,
};
use palisade::Priority;

/// A run that is judged.
pub(crate) struct Lived {
    scenario: Scenario,
    pub(crate) report: Report,
}

pub(crate) fn live(scenario: Scenario, variant: Variant) -> Lived {
    live_at(Size::Small, scenario, variant)
}

fn live_at(size: Size, scenario: Scenario, variant: Variant) -> Lived {
    // The bars hold for other seeds too: OVERLOAD_SEED=2 cargo test -p overload-simulation
    let seed = std::env::var("OVERLOAD_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let report = scenario.run(variant, size, seed);
    let lived = Lived { scenario, report };
    // Else what comes then would prove nothing.
    assert!(lived.before().success() > 0.99, "{} before: {}", variant.name, lived.before().success());
    lived
}

fn with(scenario: Scenario) -> Lived {
    live(scenario, scenario.with)
}

fn without(scenario: Scenario) -> Lived {
    live(scenario, scenario.without)
}

impl Lived {
    fn before(&self) -> Bin {
        self.report.between(2.0, self.scenario.trouble.0)
    }

    pub(crate) fn trouble(&self) -> Bin {
        self.report.between(self.scenario.trouble.0, self.scenario.trouble.1)
    }

    pub(crate) fn goodput(&self) -> f64 {
        self.report.goodput(self.scenario.trouble.0, self.scenario.trouble.1)
    }

    /// The 99th percentile in trouble, as a multiple of that before.
    fn slower(&self) -> f64 {
        self.trouble().latency(0.99) / self.before().latency(0.99)
    }

    #[track_caller]
    fn is_back_within(&self, seconds: f64) {
        let back = self.report.recovered(self.scenario.trouble.1, NORMAL);
        assert!(back.is_some_and(|back| back <= seconds), "back to normal after {back:?} s");
    }

    #[track_caller]
    fn is_still_down_after(&self, seconds: f64, share: f64) {
        let from = self.scenario.trouble.1 + seconds;
        let success = self.report.between(from, from + 5.0).success();
        assert!(success < share, "{success} after {seconds} s");
    }
}

#[test]
fn at_five_times_the_capacity_the_server_does_what_it_can_and_critical_work_is_served() {
    let lived = with(five_times::SCENARIO);
    let (from, to) = lived.scenario.trouble;
    assert!(lived.goodput() >= five_times::GOODPUT, "{}", lived.goodput());
    let critical = lived.trouble().served(Priority::Critical);
    assert!(critical >= five_times::CRITICAL, "{critical}");
    let low = lived.trouble().served(Priority::Low);
    assert!(low < 0.05, "{low}");
    assert!(lived.slower() <= five_times::SLOWER, "{}", lived.slower());
    let uneven = lived.report.unevenness(from + (to - from) / 3.0, to);
    assert!(uneven <= five_times::UNEVEN, "{uneven}");
    lived.is_back_within(five_times::BACK_WITHIN);
}

#[test]
fn at_five_times_the_capacity_the_server_collapses_without_them() {
    let lived = without(five_times::SCENARIO);
    assert!(lived.goodput() < five_times::COLLAPSED, "{}", lived.goodput());
    lived.is_still_down_after(5.0, NORMAL);
}

#[test]
fn after_a_stall_it_is_back_within_seconds() {
    let lived = with(retry_storm::SCENARIO);
    lived.is_back_within(retry_storm::BACK_WITHIN);
}

#[test]
fn after_a_stall_retries_keep_it_down_without_them() {
    without(retry_storm::SCENARIO).is_still_down_after(20.0, retry_storm::METASTABLE);
}

#[test]
fn after_an_outage_the_herd_does_not_take_it_down_again() {
    with(thundering_herd::SCENARIO).is_back_within(thundering_herd::BACK_WITHIN);
}

#[test]
fn after_an_outage_the_herd_takes_it_down_again_without_them() {
    without(thundering_herd::SCENARIO).is_still_down_after(20.0, thundering_herd::METASTABLE);
}

#[test]
fn a_server_that_becomes_slow_still_does_what_it_can() {
    use slow_degradation::{BACK_WITHIN, CRITICAL, GOODPUT, SCENARIO, SLOWEST, SPEED};
    let lived = with(SCENARIO);
    let goodput = lived.report.goodput(SLOWEST.0, SLOWEST.1) / SPEED;
    assert!(goodput >= GOODPUT, "{goodput}");
    let critical = lived.trouble().served(Priority::Critical);
    assert!(critical >= CRITICAL, "{critical}");
    lived.is_back_within(BACK_WITHIN);
}

#[test]
fn a_server_that_becomes_slow_collapses_without_them() {
    use slow_degradation::{COLLAPSED, SCENARIO, SLOWEST, SPEED};
    let lived = without(SCENARIO);
    let goodput = lived.report.goodput(SLOWEST.0, SLOWEST.1) / SPEED;
    assert!(goodput < COLLAPSED, "{goodput}");
    lived.is_still_down_after(5.0, NORMAL);
}

#[test]
fn a_hot_key_is_read_once_for_all_who_wait() {
    let lived = with(hot_key::SCENARIO);
    assert!(lived.trouble().success() >= hot_key::SUCCESS, "{}", lived.trouble().success());
    assert!(lived.slower() <= hot_key::SLOWER, "{}", lived.slower());
}

#[test]
fn a_hot_key_takes_all_workers_without_them() {
    let lived = without(hot_key::SCENARIO);
    assert!(lived.goodput() < hot_key::COLLAPSED, "{}", lived.goodput());
}

#[test]
fn hardly_anybody_meets_the_sick_replica() {
    let lived = with(sick_replica::SCENARIO);
    assert!(lived.trouble().success() >= sick_replica::SUCCESS, "{}", lived.trouble().success());
    assert!(lived.slower() <= sick_replica::SLOWER, "{}", lived.slower());
}

#[test]
fn one_of_three_meets_the_sick_replica_without_them() {
    let lived = without(sick_replica::SCENARIO);
    assert!(lived.slower() > sick_replica::SLOWER, "{}", lived.slower());
}

#[test]
fn a_thousand_clients_together_leave_the_server_what_it_can_do() {
    // At the full size: each of them calls often enough for its throttle to learn.
    let lived = live_at(Size::Full, thousand_clients::FLOOD, thousand_clients::FLOOD.with);
    let goodput = lived.goodput();
    assert!(goodput >= thousand_clients::GOODPUT, "{goodput}");
    let settled = lived.report.between(lived.scenario.settled(), lived.scenario.trouble.1);
    let critical = settled.served(Priority::Critical);
    assert!(critical >= thousand_clients::CRITICAL, "{critical}");
    lived.is_back_within(thousand_clients::BACK_WITHIN);
}

#[test]
fn a_thousand_clients_take_the_server_down_without_them() {
    let lived = without(thousand_clients::FLOOD);
    assert!(lived.goodput() < thousand_clients::COLLAPSED, "{}", lived.goodput());
    lived.is_still_down_after(5.0, NORMAL);
}

#[test]
fn a_thousand_clients_are_back_soon_after_a_stall() {
    with(thousand_clients::STALL).is_back_within(thousand_clients::BACK_WITHIN);
}

#[test]
fn a_thousand_clients_keep_the_server_down_after_a_stall_without_them() {
    without(thousand_clients::STALL).is_still_down_after(15.0, thousand_clients::COLLAPSED);
}

#[test]
fn where_nothing_is_answered_hardly_anything_is_asked_twice() {
    use total_failure::{ATTEMPTS, BACK_WITHIN, FAILING, FAILURE, HANGING, REFUSING};
    for scenario in [FAILING, REFUSING, HANGING] {
        let lived = with(scenario);
        let attempts = lived.report.between(FAILURE.0 + 1.0, FAILURE.1).attempts();
        assert!(attempts <= ATTEMPTS, "{}: {attempts}", scenario.name);
        lived.is_back_within(BACK_WITHIN);
    }
}

#[test]
fn where_nothing_is_answered_everything_is_asked_three_times_without_them() {
    use total_failure::{FAILING, FAILURE, HANGING, REFUSING};
    for scenario in [FAILING, REFUSING, HANGING] {
        let attempts = without(scenario).report.between(FAILURE.0 + 1.0, FAILURE.1).attempts();
        assert!(attempts > 2.8, "{}: {attempts}", scenario.name);
    }
}

#[test]
fn the_first_second_of_a_flood_costs_next_to_no_critical_call() {
    let lived = with(five_times::SCENARIO);
    let start = five_times::SCENARIO.trouble.0;
    let critical = lived.report.between(start, start + 1.0).served(Priority::Critical);
    assert!(critical >= 0.97, "{critical}");
}
