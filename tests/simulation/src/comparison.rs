//! Which layer does what: the same troubles, lived through with one layer alone, and with several.

use crate::{
    engine::Settings,
    run::{Scenario, Variant},
    scenarios::{five_times, retry_storm, slow_degradation},
    stacks,
};

/// The troubles.
pub const SCENARIOS: [Scenario; 4] =
    [five_times::SCENARIO, SHORT_QUEUE, retry_storm::SCENARIO, slow_degradation::SCENARIO];

/// A server that refuses early: its queue holds a twentieth of a second of work. What it refuses costs it a twentieth of an answer each.
pub const SHORT_QUEUE: Scenario = Scenario {
    name: "five_times, short queue",
    servers: |size| vec![Settings { queue: size.workers() as usize * 5 / 2, ..Settings::of(size.workers()) }],
    ..five_times::SCENARIO
};

/// What they are lived through with. All have a deadline, retries within a budget and a timeout for each attempt besides.
pub const VARIANTS: [Variant; 7] = [
    Variant { name: "none", stacks: stacks::budget_alone },
    Variant { name: "throttle", stacks: stacks::throttle_alone },
    Variant { name: "adaptive limit", stacks: stacks::adaptive_alone },
    Variant { name: "shed over the right limit", stacks: stacks::shed_over_the_right_limit },
    Variant { name: "shed over 4 times that", stacks: stacks::shed_over_a_high_limit },
    Variant { name: "shed over adaptive limit", stacks: stacks::protected },
    Variant { name: "throttle, shed, adaptive limit", stacks: stacks::throttled },
];
