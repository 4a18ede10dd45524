//! What the layers cost: the recommended stack beside the bare driver on a real cluster, and each layer beside tower's
//! own layer of its kind.
//!
//! `cargo bench --bench overhead`, or with `-- --quick` in under 50 s once it is built.

#![allow(clippy::print_stdout, reason = "that is what a bench is for")]

#[path = "overhead/cluster.rs"]
mod cluster;
#[path = "../layers/benches/harness.rs"]
mod harness;
#[path = "overhead/layers.rs"]
mod layers;

fn main() {
    let mut bars = harness::Bars::new();
    layers::run(&mut bars);
    cluster::run(&mut bars);
    bars.end();
}
