//! One node of three is slow again and again: it stops for 40 ms, and goes on for 40 ms.

use std::time::Duration;

use scylla::statement::Consistency;

use crate::{
    clients::{Kind, Operation},
    faults::pulse,
    ground::{Ground, key},
    harness::Bars,
    load::Load,
    report::{Run, number},
};

const LOAD: Load = Load { per_second: 1_000, operation: |number| Operation::Read(key(number)) };
const EACH: Duration = Duration::from_millis(40);
const LASTS: Duration = Duration::from_secs(60);
const PULSING: usize = 2;

pub(crate) fn run(ground: &Ground, bars: &mut Bars) {
    println!("  steady");
    for kind in [Kind::Bare, Kind::Stack] {
        ground.through(kind, Consistency::LocalOne, LOAD, |clock| clock.sleep_until(LASTS));
    }
    println!("  with pulses");
    let [driver, _, stack] = Kind::ALL.map(|kind| {
        let pulsing = |clock: &_| pulse(&ground.cluster, PULSING, EACH, clock, LASTS);
        ground.through(kind, Consistency::LocalOne, LOAD, pulsing).0
    });
    // A busy machine would flatter whoever went when it was not: nothing is reached then.
    let in_time = stack.is_in_time() && driver.is_in_time();
    let ratio = |permille| {
        if in_time { stack.all().percentile(permille) / driver.all().percentile(permille) } else { f64::NAN }
    };
    let served = |run: &Run| 100.0 * run.all().share_of(&[ground.cluster.address(PULSING)]);
    println!(
        "  the slow node answers {:.0} % of the bare driver, {:.0} % of the stack",
        served(&driver),
        served(&stack)
    );
    bars.at_most("pulses_errors", number(stack.all().errors().count() + stack.lost()), 0.0);
    bars.at_most("pulses_p99_ratio", ratio(990), 0.2);
    bars.at_most("pulses_p99.9_ratio", ratio(999), 1.0 / 3.0);
    println!("goal pulses_p99_ratio {:.3} 0.100", ratio(990));
    println!("goal pulses_p99.9_ratio {:.3} 0.100", ratio(999));
    bars.at_most("pulses_extra_attempts_percent", 100.0 * (stack.all().attempts_per_request() - 1.0), 5.0);
}
