//! One node of three hangs: its connections stay open, and nothing answers on them.

use std::{net::SocketAddr, time::Duration};

use scylla::statement::Consistency;

use crate::{
    clients::{Kind, Operation, Target},
    ground::{Ground, key},
    harness::{Bars, is_quick},
    load::Load,
    report::{Run, number, seconds},
};

const PER_SECOND: u32 = 300;
const PAUSED: usize = 2;
/// A fifth of its fair third.
const BACK: f64 = 0.2 / 3.0;

/// The seconds of a run: the node is paused, goes on, and the run is over.
struct Plan {
    paused: u64,
    resumed: u64,
    over: u64,
}

impl Plan {
    fn get() -> Self {
        if is_quick() {
            Self { paused: 5, resumed: 15, over: 31 }
        } else {
            Self { paused: 10, resumed: 25, over: 41 }
        }
    }
}

/// When it really happened.
struct Pause {
    began: Duration,
    ended: Duration,
}

pub(crate) fn reads(ground: &Ground, bars: &mut Bars) {
    idempotent(ground, bars, "paused_reads", |number| Operation::Read(key(number)));
}

pub(crate) fn writes(ground: &Ground, bars: &mut Bars) {
    idempotent(ground, bars, "paused_writes", |number| Operation::Write(key(number)));
}

fn idempotent(ground: &Ground, bars: &mut Bars, name: &str, operation: fn(u32) -> Operation) {
    let load = Load { per_second: PER_SECOND, operation };
    for kind in Kind::ALL {
        let target = ground.ready(kind, Consistency::LocalQuorum, None, load);
        let (run, pause) = paused(ground, kind, &target, load);
        let node = ground.cluster.address(PAUSED);
        let back = seconds_until_back(&run, node, &pause);
        let afterwards = run.since(pause.ended);
        println!(
            "    back: a fifth of its share after {back:.0} s; since it goes on {:.2} % above 100 ms",
            100.0 * afterwards.slow_share()
        );
        if kind == Kind::Stack {
            bars.at_most(&format!("{name}_errors"), number(run.all().errors().count() + run.lost()), 0.0);
            bars.at_most(&format!("{name}_above_100ms_percent"), 100.0 * run.all().slow_share(), 0.2);
            let extra = 100.0 * (run.all().attempts_per_request() - 1.0);
            bars.at_most(&format!("{name}_extra_attempts_percent"), extra, 5.0);
            bars.at_most(&format!("{name}_back_seconds"), back, 15.0);
            bars.at_most(&format!("{name}_back_above_100ms_percent"), 100.0 * afterwards.slow_share(), 0.2);
        }
    }
}

fn paused(ground: &Ground, kind: Kind, target: &Target, load: Load) -> (Run, Pause) {
    let plan = Plan::get();
    ground.offer(kind, target, load, |clock| {
        clock.sleep_until_second(plan.paused);
        let began = clock.now();
        let paused = ground.cluster.paused(PAUSED).expect("a node that can be paused");
        clock.sleep_until_second(plan.resumed);
        drop(paused);
        let ended = clock.now();
        clock.sleep_until_second(plan.over);
        Pause { began, ended }
    })
}

/// How long after its pause the node has a fifth of its share of the traffic again, in whole seconds.
fn seconds_until_back(run: &Run, node: SocketAddr, pause: &Pause) -> f64 {
    let mut windows = run.windows(pause.ended, Duration::from_secs(1));
    seconds(windows.find(|(_, window)| window.share_of(&[node]) >= BACK).map(|(after, _)| after))
}

/// Of each failure it is known whether it may have been applied, and nothing was applied twice. Not with counters: their coordinators
/// hang with a replica of their choice, which no client has a say in.
pub(crate) fn appends(ground: &Ground, bars: &mut Bars) {
    let load = Load { per_second: PER_SECOND, operation: |number| Operation::Append(key(number)) };
    for kind in Kind::ALL {
        let target = ground.ready(kind, Consistency::LocalQuorum, None, load);
        let before = ground.counted();
        let (run, pause) = paused(ground, kind, &target, load);
        let counted = ground.counted() - before;
        let node = ground.cluster.address(PAUSED);
        let under_way = run.under_way(pause.began, node);
        let acknowledged = run.all().answered().count();
        let unknown =
            run.all().errors().filter(|(_, failure)| failure.may_have_been_applied).count() + run.lost();
        println!(
            "    {under_way} were under way at the node when it was paused; {acknowledged} acknowledged, {unknown} unknown, \
             {counted} applied"
        );
        if kind == Kind::Stack {
            let ambiguous = run.all().errors().filter(|(_, failure)| failure.may_have_been_applied);
            let repeated = ambiguous.filter(|(sample, _)| sample.attempts > 1).count();
            let not_told = run.all().errors().filter(|(_, failure)| failure.is_silent()).count();
            let errors = run.all().errors().count() + run.lost();
            bars.at_most("paused_appends_repeated", number(repeated), 0.0);
            bars.at_most("paused_appends_not_told", number(not_told), 0.0);
            bars.at_most("paused_appends_errors", number(errors), number(under_way + 10));
            bars.at_least("paused_appends_applied_at_least", counted, number(acknowledged));
            bars.at_most("paused_appends_applied_at_most", counted, number(acknowledged + unknown));
        }
    }
}
