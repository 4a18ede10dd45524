//! Five times what the server can do, for 25 seconds.

use super::evenly;
use crate::{
    engine::Settings,
    run::{Scenario, Variant},
    stacks,
};

/// Goodput during the flood as a share of what the server can do at best. Whatever is refused, it should not be useful work.
pub const GOODPUT: f64 = 0.9;

/// The share of critical calls that are answered in time. They are half of what the server can do.
pub const CRITICAL: f64 = 0.99;

/// The 99th percentile during the flood, as a multiple of that before: what is let in finds a server that is busy, not a queue.
pub const SLOWER: f64 = 5.0;

/// How soon after the flood calls are to be answered as before, in seconds.
pub const BACK_WITHIN: f64 = 5.0;

/// The goodput per second of the last two thirds varies by this much at most: nothing swings.
pub const UNEVEN: f64 = 0.12;

/// What is left of the goodput without the layers.
pub const COLLAPSED: f64 = 0.5;

/// Five times the capacity is offered.
pub const SCENARIO: Scenario = Scenario {
    name: "five_times",
    about: "5 times the capacity is offered for 25 s",
    seconds: 60.0,
    trouble: (15.0, 40.0),
    load: |time| if (15.0..40.0).contains(&time) { 5.0 } else { 0.65 },
    hot: evenly,
    servers: |size| vec![Settings::of(size.workers())],
    with: Variant { name: "shed, adaptive limit, budget", stacks: stacks::protected },
    without: Variant { name: "timeout, 3 attempts", stacks: stacks::usual },
};
