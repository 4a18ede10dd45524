//! A thousand clients that know nothing of each other, and one server.

use super::evenly;
use crate::{
    engine::Settings,
    run::{Scenario, Variant},
    speed::Speed,
    stacks,
};

/// How soon after the trouble the fleet as a whole is to be served as before, in seconds.
pub const BACK_WITHIN: f64 = 5.0;

/// Goodput during the flood as a share of what the server can do at best: some of it goes into refusing.
pub const GOODPUT: f64 = 0.85;

/// The share of critical calls that are answered in time, from the second second of the flood on: in the first, the throttles hear
/// what is refused, and the limit finds its place.
pub const CRITICAL: f64 = 0.99;

/// What is left of the goodput without the layers.
pub const COLLAPSED: f64 = 0.5;

const WITH: Variant = Variant {
    name: "throttle and budget in each client, shed and limit at the server",
    stacks: stacks::fleet,
};
const WITHOUT: Variant = Variant { name: "timeout, 3 attempts in each client", stacks: stacks::usual_fleet };

/// Five times the capacity is offered.
pub const FLOOD: Scenario = Scenario {
    name: "thousand_clients_flood",
    about: "1,000 clients offer 5 times the capacity for 20 s",
    seconds: 55.0,
    trouble: (15.0, 35.0),
    load: |time| if (15.0..35.0).contains(&time) { 5.0 } else { 0.65 },
    hot: evenly,
    servers: |size| vec![Settings::of(size.workers())],
    with: WITH,
    without: WITHOUT,
};

/// The server stands still for two seconds.
pub const STALL: Scenario = Scenario {
    name: "thousand_clients_stall",
    about: "the server of 1,000 clients stands still for 2 s, at 75% load",
    seconds: 45.0,
    trouble: (15.0, 17.0),
    load: |_| 0.75,
    hot: evenly,
    servers: |size| {
        let speed = Speed::default().then(15.0, 0.0).then(17.0, 1.0);
        vec![Settings { speed, ..Settings::of(size.workers()) }]
    },
    with: WITH,
    without: WITHOUT,
};
