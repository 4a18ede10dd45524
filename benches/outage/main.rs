//! What callers notice of a node, a datacenter or a whole cluster that fails: the recommended stack, the driver as it comes, and
//! the driver with speculative execution, one after the other through the same faults on the same real cluster.
//!
//! `cargo bench --bench outage`; with `-- --quick` only the first scenario, shortened, in under three minutes once it is built; with
//! `-- NAME` the scenarios that have NAME in their names. The load is an open loop: each request has a moment at which it is due,
//! whatever became of those before it, and its latency counts from there. The nodes share the machine with the load, so that a
//! figure is worth something only where the `generator` line beside it says that requests were sent in time.

#![allow(clippy::print_stdout, reason = "that is what a bench is for")]

#[path = "../../layers/benches/harness.rs"]
mod harness;

mod all_gone;
mod clients;
mod datacenter;
mod faults;
mod ground;
mod load;
mod paused;
mod pulses;
mod report;
mod restarts;
mod stack;

use crate::{
    ground::Ground,
    harness::{Bars, is_quick, is_wanted},
};

type Scenario = fn(&Ground, &mut Bars);

/// Those that break one cluster of three nodes, one after the other. The first is the quick one.
const THREE_NODES: [(&str, Scenario); 7] = [
    ("paused_reads", paused::reads),
    ("paused_writes", paused::writes),
    ("paused_appends", paused::appends),
    ("pulses", pulses::run),
    ("killed", restarts::killed),
    ("rolling_restart", restarts::rolling),
    ("all_gone", all_gone::run),
];

const DATACENTER_LOST: &str = "datacenter_lost";

fn main() {
    if cassandra_cluster::external().is_some() {
        eprintln!("nodes of a cluster of our own are broken here: unset CASSANDRA_CONTACT_POINTS");
        std::process::exit(1);
    }
    let mut bars = Bars::new();
    let wanted: Vec<_> = if is_quick() {
        THREE_NODES[..1].to_vec()
    } else {
        THREE_NODES.into_iter().filter(|(name, _)| is_wanted(name)).collect()
    };
    if !wanted.is_empty() {
        let ground = Ground::three_nodes();
        for (name, scenario) in wanted {
            println!("{name}");
            scenario(&ground, &mut bars);
        }
    }
    if !is_quick() && is_wanted(DATACENTER_LOST) {
        println!("{DATACENTER_LOST}");
        datacenter::run(&Ground::two_datacenters(), &mut bars);
    }
    bars.end();
}
