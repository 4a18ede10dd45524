//! The stacks that are compared: the one place where each is put together.

mod fleet;
mod hot;
mod one_server;
mod replicas;
mod usual;

pub use self::{
    fleet::{fleet, usual_fleet},
    hot::coalesced,
    one_server::{
        adaptive_alone, budget_alone, protected, shed_over_a_high_limit, shed_over_the_right_limit,
        throttle_alone, throttled,
    },
    replicas::{balanced, round_robin},
    usual::{UsualRetry, usual},
};

/// How many clients a fleet has.
pub const CLIENTS: usize = 1_000;
