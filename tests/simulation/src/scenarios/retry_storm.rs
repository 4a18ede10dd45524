//! A short stall, and retries that keep the server down when it is long over.
//!
//! Bronson and others call it a metastable failure ([Metastable Failures in Distributed Systems], 2021): the trigger has gone, and the
//! load that it called up sustains itself.
//!
//! [Metastable Failures in Distributed Systems]: https://sigops.org/s/conferences/hotos/2021/papers/hotos21-s11-bronson.pdf

use crate::{
    engine::Settings,
    run::{Scenario, Variant},
    speed::Speed,
    stacks,
};

/// How soon after the stall calls are to be answered as before. What has piled up until then has to be worked off, or refused.
pub const BACK_WITHIN: f64 = 5.0;

/// Attempts per request while nothing is answered. The retry budget allows 8%, and a few more per second.
pub const ATTEMPTS: f64 = 1.1;

/// The server stands still for two seconds.
pub const SCENARIO: Scenario = Scenario {
    name: "retry_storm",
    about: "the server stands still for 2 s at 75% load",
    seconds: 45.0,
    trouble: (15.0, 17.0),
    load: |_| 0.75,
    hot: 0.0,
    servers: |size| {
        vec![Settings { speed: Speed::default().then(15.0, 0.0).then(17.0, 1.0), ..Settings::of(size.workers()) }]
    },
    with: Variant { name: "budget, limit", stacks: stacks::protected },
    without: Variant { name: "timeout, 3 attempts", stacks: stacks::usual },
};
