use metrics_util::debugging::DebuggingRecorder;
use palisade::Budget;

use crate::recorded::Recorded;

const WITHDRAWALS: &str = "palisade_budget_withdrawals_total";
const BALANCE: &str = "palisade_budget_balance";

#[test]
fn what_becomes_of_repeats_is_counted_at_a_recorder_that_comes_late() {
    let budget =
        Budget::builder().ratio(0.0).reserve_per_second(0.0).burst(2).named("shared").build().unwrap();
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        for granted in [true, true, false, false, false] {
            assert_eq!(budget.clone().withdraw(), granted);
        }
    });
    let seen = Recorded::at(&recorder);
    let withdrawals = |outcome| seen.count(WITHDRAWALS, &[("layer", "shared"), ("outcome", outcome)]);
    assert_eq!((withdrawals("granted"), withdrawals("refused")), (2, 3));
    assert_eq!(seen.gauge(BALANCE, &[("layer", "shared")]), Some(0.0));
}

/// After an outage nothing is withdrawn, and the gauge has to come up all the same.
#[test]
fn the_balance_is_shown_while_requests_fill_it_up_again() {
    let budget = Budget::builder().ratio(0.25).reserve_per_second(0.0).burst(2).build().unwrap();
    let recorder = DebuggingRecorder::new();
    let balance = || Recorded::at(&recorder).gauge(BALANCE, &[]);
    metrics::with_local_recorder(&recorder, || {
        budget.deposit();
        assert_eq!(balance(), None, "a full budget is only read");
        assert!(budget.withdraw());
        assert_eq!(balance(), Some(1.0));
        budget.deposit();
        assert_eq!(balance(), Some(1.25));
        for _ in 0..3 {
            budget.deposit();
        }
        assert_eq!(balance(), Some(budget.snapshot().balance));
        assert_eq!(budget.snapshot().balance.to_string(), "2");
    });
}
