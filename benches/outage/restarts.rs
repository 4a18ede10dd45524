//! Nodes die and come back, one at a time, under a mix of reads and writes.

use std::time::Duration;

use scylla::statement::Consistency;

use crate::{
    clients::{Kind, Operation},
    faults::Clock,
    ground::{Ground, key},
    harness::Bars,
    load::Load,
    report::number,
};

const LOAD: Load = Load {
    per_second: 300,
    operation: |number| match number % 2 {
        0 => Operation::Read(key(number)),
        _ => Operation::Write(key(number)),
    },
};
const AFTERWARDS: Duration = Duration::from_secs(10);

/// One node is killed, and started again after ten seconds.
pub(crate) fn killed(ground: &Ground, bars: &mut Bars) {
    without_errors(ground, bars, "killed", |clock| {
        clock.sleep_until_second(5);
        ground.cluster.kill(2).expect("a node that can be killed");
        clock.sleep_until_second(15);
        ground.cluster.start_node(2).expect("a node that starts");
        clock.sleep_until(clock.now() + AFTERWARDS);
    });
}

/// Each node is stopped as an operator would, and started again; the next one when the others know that it is back.
pub(crate) fn rolling(ground: &Ground, bars: &mut Bars) {
    without_errors(ground, bars, "rolling_restart", |clock| {
        clock.sleep_until_second(3);
        for node in 1..=ground.cluster.size() {
            ground.cluster.restart(node).expect("a node that stops and starts");
            ground.await_whole();
        }
        clock.sleep_until(clock.now() + AFTERWARDS);
    });
}

fn without_errors(ground: &Ground, bars: &mut Bars, name: &str, faults: impl Fn(&Clock)) {
    for kind in Kind::ALL {
        let (run, ()) = ground.through(kind, Consistency::LocalQuorum, LOAD, &faults);
        if kind == Kind::Stack {
            bars.at_most(&format!("{name}_errors"), number(run.all().errors().count() + run.lost()), 0.0);
        }
    }
}
