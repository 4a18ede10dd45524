//! A server that becomes slower and slower, until it can do half of what is asked, and heals.

use super::evenly;
use crate::{
    engine::Settings,
    run::{Scenario, Variant},
    speed::Speed,
    stacks,
};

/// Goodput while the server is at its slowest, as a share of what it can do then.
pub const GOODPUT: f64 = 0.85;

/// The share of critical calls that are answered in time throughout. They are a fifth of what the slow server can do.
pub const CRITICAL: f64 = 0.99;

/// How soon after it has healed calls are to be answered as before, in seconds.
pub const BACK_WITHIN: f64 = 5.0;

/// What is left of the goodput without the layers.
pub const COLLAPSED: f64 = 0.5;

/// The time during which the server is at its slowest, in seconds.
pub const SLOWEST: (f64, f64) = (48.0, 65.0);

/// How fast the server is at its slowest.
pub const SPEED: f64 = 1.0 / 3.0;

/// The time that a request takes grows threefold within 30 seconds.
pub const SCENARIO: Scenario = Scenario {
    name: "slow_degradation",
    about: "requests take longer and longer, threefold after 30 s, at 70% load",
    seconds: 90.0,
    trouble: (15.0, 65.0),
    load: |_| 0.7,
    hot: evenly,
    servers: |size| {
        let slower = |speed: Speed, step: u32| {
            let grown = f64::from(step) / 60.0;
            speed.then(15.0 + 30.0 * grown, 1.0 / (1.0 + 2.0 * grown))
        };
        let speed = (0..=60).fold(Speed::default(), slower).then(65.0, 1.0);
        vec![Settings { speed, ..Settings::of(size.workers()) }]
    },
    with: Variant { name: "shed, adaptive limit, budget", stacks: stacks::protected },
    without: Variant { name: "timeout, 3 attempts", stacks: stacks::usual },
};
