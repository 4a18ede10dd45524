//! Everybody reads the same thing, which the server reads for one after the other.

use super::evenly;
use crate::{
    engine::Settings,
    run::{Scenario, Variant},
    stacks,
};

/// The share of all calls that are answered in time while the key is hot: one read answers all who wait for it.
pub const SUCCESS: f64 = 0.99;

/// The 99th percentile while the key is hot, as a multiple of that before: a call waits for the end of a read at most.
pub const SLOWER: f64 = 1.5;

/// What is left of the goodput without the layers.
pub const COLLAPSED: f64 = 0.5;

/// Six of ten calls read one key, for 20 seconds. A lock lets its readers in one by one, each of which holds a worker.
pub const SCENARIO: Scenario = Scenario {
    name: "hot_key",
    about: "60% of the calls read one key, whose readers wait for each other, at 60% load",
    seconds: 50.0,
    trouble: (15.0, 35.0),
    load: |_| 0.6,
    hot: |time| if (15.0..35.0).contains(&time) { 0.6 } else { evenly(time) },
    servers: |size| vec![Settings { serial_keys: true, ..Settings::of(size.workers()) }],
    with: Variant { name: "coalesced reads", stacks: stacks::coalesced },
    without: Variant { name: "timeout, 3 attempts", stacks: stacks::usual },
};
