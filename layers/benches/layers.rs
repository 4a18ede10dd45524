//! What the layers cost: `cargo bench -p palisade --bench layers` (`-- --quick` for a short run, `-- breaker two_threads` for
//! parts of it).
//!
//! Each layer, and a stack of eight, over a leaf that does nothing, beside tower's own layers and those of
//! tower-resilience, in turns, in one run. Every figure that has a limit is printed as `bar NAME VALUE LIMIT ok|short`.
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark is for its output")]

mod beside;
mod harness;
mod leaf;
mod overload;
mod singles;
mod stacks;
mod threads;

use harness::Bars;

fn main() {
    palisade::clock::use_real_time();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _context = runtime.enter();
    let mut bars = Bars::new();
    singles::run(&mut bars);
    overload::run(&mut bars);
    stacks::run(&mut bars);
    threads::run(&mut bars);
    bars.end();
}
