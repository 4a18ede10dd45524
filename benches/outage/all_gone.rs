//! All nodes die at once, and are started again after twenty seconds.

use std::{sync::OnceLock, time::Duration};

use scylla::statement::Consistency;

use crate::{
    clients::{Kind, Operation},
    faults::at_once,
    ground::{Ground, key},
    harness::Bars,
    load::Load,
    report::{number, percentile, seconds},
};

/// One node is enough for an answer: the first that is back.
const CONSISTENCY: Consistency = Consistency::LocalOne;
const LOAD: Load = Load { per_second: 300, operation: |number| Operation::Read(key(number)) };
const DOWN: Duration = Duration::from_secs(20);
const AFTERWARDS: Duration = Duration::from_secs(20);
/// So long it may take to find out.
const FOUND_OUT: Duration = Duration::from_secs(2);

struct Outage {
    began: Duration,
    /// When a node first answered a new connection.
    ended: Duration,
}

pub(crate) fn run(ground: &Ground, bars: &mut Bars) {
    for kind in Kind::ALL {
        let (run, outage) = ground.through(kind, CONSISTENCY, LOAD, |clock| {
            clock.sleep_until_second(5);
            let nodes = 1..=ground.cluster.size();
            at_once(nodes.clone(), |node| ground.cluster.kill(node));
            let began = clock.now();
            clock.sleep_until(began + DOWN);
            let ended = OnceLock::new();
            at_once(nodes, |node| {
                let started = ground.cluster.start_node(node);
                // The first is it.
                let _ = ended.set(clock.now());
                started
            });
            clock.sleep_until(clock.now() + AFTERWARDS);
            Outage { began, ended: *ended.get().expect("one is back") }
        });
        let down = run.between(outage.began, outage.ended);
        let failed: Vec<_> = run.between(outage.began + FOUND_OUT, outage.ended).errors().collect();
        let took = percentile(failed.iter().map(|(sample, _)| sample.took).collect(), 990);
        let names: Vec<_> = ground.cluster.contact_points().iter().map(ToString::to_string).collect();
        let is_named = |text: &str| names.iter().any(|name| text.contains(name));
        let unnamed = failed.iter().filter(|(_, failure)| !is_named(&failure.text)).count();
        let since = |moment: Duration| moment.saturating_sub(outage.ended);
        let back = seconds(run.first_answer_since(outage.ended).map(since));
        let last = run.since(outage.ended).errors().map(|(sample, _)| since(sample.due + sample.took)).max();
        println!(
            "    {} calls failed while all were down, p99 {took:.1} ms, {unnamed} of them without a node in the error; since a node \
             answers: first answer after {back:.2} s, last error after {:.2} s",
            failed.len(),
            last.unwrap_or_default().as_secs_f64(),
        );
        if kind == Kind::Stack {
            bars.at_most("all_gone_failed_p99_ms", took, 100.0);
            bars.at_most("all_gone_errors_without_nodes", number(unnamed), 0.0);
            bars.at_most("all_gone_attempts_per_request", down.attempts_per_request(), 1.1);
            bars.at_most("all_gone_back_seconds", back, 2.0);
        }
    }
}
