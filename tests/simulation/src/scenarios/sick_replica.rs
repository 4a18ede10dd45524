//! One of three replicas is twenty times as slow as the others.

use super::evenly;
use crate::{
    engine::Settings,
    run::{Scenario, Variant},
    speed::Speed,
    stacks,
};

/// The share of all calls that are answered in time while one replica is sick.
pub const SUCCESS: f64 = 0.99;

/// The 99th percentile while one replica is sick, as a multiple of that before: hardly anybody meets it.
pub const SLOWER: f64 = 2.0;

/// A replica that answers, but very late, is worse than one that is down: nothing takes it out.
pub const SCENARIO: Scenario = Scenario {
    name: "sick_replica",
    about: "one of 3 replicas takes 20 times as long for 30 s, at 50% load",
    seconds: 65.0,
    trouble: (15.0, 45.0),
    load: |_| 0.5,
    hot: evenly,
    servers: |size| {
        let sound = Settings::of(size.workers());
        let speed = Speed::default().then(15.0, 0.05).then(45.0, 1.0);
        vec![sound.clone(), Settings { speed, ..sound.clone() }, sound]
    },
    with: Variant { name: "p2c over adaptive limits, hedge, budget", stacks: stacks::balanced },
    without: Variant { name: "round robin, timeout, 3 attempts", stacks: stacks::round_robin },
};
