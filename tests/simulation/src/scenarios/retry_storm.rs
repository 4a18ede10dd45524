//! A short stall, and retries that keep the server down when it is long over.
//!
//! A metastable failure, as Bronson and others call it in [Metastable Failures in Distributed Systems] (2021): the trigger has gone,
//! and the load that it called up sustains itself.
//!
//! [Metastable Failures in Distributed Systems]: https://sigops.org/s/conferences/hotos/2021/papers/hotos21-s11-bronson.pdf

use super::evenly;
use crate::{
    engine::Settings,
    run::{Scenario, Variant},
    speed::Speed,
    stacks,
};

/// How soon after the stall calls are to be answered as before, in seconds. What has piled up until then has to be worked off,
/// or refused.
pub const BACK_WITHIN: f64 = 5.0;

/// What goes on 20 seconds after the stall without the layers: less than half of it all.
pub const METASTABLE: f64 = 0.5;

/// The server stands still for two seconds.
pub const SCENARIO: Scenario = Scenario {
    name: "retry_storm",
    about: "the server stands still for 2 s, at 75% load",
    seconds: 45.0,
    trouble: (15.0, 17.0),
    load: |_| 0.75,
    hot: evenly,
    servers: |size| {
        let speed = Speed::default().then(15.0, 0.0).then(17.0, 1.0);
        vec![Settings { speed, ..Settings::of(size.workers()) }]
    },
    with: Variant { name: "shed, adaptive limit, budget", stacks: stacks::protected },
    without: Variant { name: "timeout, 3 attempts", stacks: stacks::usual },
};
