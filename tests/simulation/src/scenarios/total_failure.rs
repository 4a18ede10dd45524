//! Nothing is answered: how often is it asked for?

use super::evenly;
use crate::{
    engine::{Mode, Settings},
    run::{Scenario, Variant},
    stacks,
};

/// Attempts per request while nothing is answered: a budget of 8% of the requests, and one per second. What it has saved up is spent in
/// the first seconds.
pub const ATTEMPTS: f64 = 1.1;

/// The time for which [`ATTEMPTS`] holds, in seconds: all of the failure, from its first second on.
pub const FAILURE: (f64, f64) = (15.0, 45.0);

/// How soon after the failure calls are to be answered as before, in seconds.
pub const BACK_WITHIN: f64 = 5.0;

const WITH: Variant = Variant { name: "shed, adaptive limit, budget", stacks: stacks::protected };
const WITHOUT: Variant = Variant { name: "timeout, 3 attempts", stacks: stacks::usual };

/// The server works on requests, and fails.
pub const FAILING: Scenario = Scenario {
    name: "total_failure_failing",
    about: "every request fails for 30 s, at 60% load",
    seconds: 60.0,
    trouble: FAILURE,
    load: |_| 0.6,
    hot: evenly,
    servers: |size| vec![Settings { modes: failure(Mode::Failing), ..Settings::of(size.workers()) }],
    with: WITH,
    without: WITHOUT,
};

/// The server says that it is overloaded.
pub const REFUSING: Scenario = Scenario {
    name: "total_failure_refusing",
    about: "every request is refused for 30 s, at 60% load",
    servers: |size| vec![Settings { modes: failure(Mode::Refusing), ..Settings::of(size.workers()) }],
    ..FAILING
};

/// The server says nothing.
pub const HANGING: Scenario = Scenario {
    name: "total_failure_hanging",
    about: "no request is answered for 30 s, at 60% load",
    servers: |size| vec![Settings { modes: failure(Mode::Hanging), ..Settings::of(size.workers()) }],
    ..FAILING
};

fn failure(mode: Mode) -> Vec<(f64, Mode)> {
    vec![(0.0, Mode::Serving), (FAILURE.0, mode), (FAILURE.1, Mode::Serving)]
}
