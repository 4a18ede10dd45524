//! What the layers cost: the recommended stack beside the bare driver on a real node, and each layer beside tower's
//! own layer of its kind.
//!
//! `cargo bench --bench overhead`, or with `-- --quick` in under 50 s once it is built.

#[path = "../layers/benches/harness.rs"]
mod harness;
#[path = "overhead/layers.rs"]
mod layers;
#[path = "overhead/node.rs"]
mod node;

fn main() {
    // The build has a clock that tests can stop; here it is the real one.
    palisade::clock::use_real_time();
    let mut bars = harness::Bars::new();
    layers::run(&mut bars);
    node::run(&mut bars);
    bars.end();
}
