//! The stacks that are compared: the one place where each is put together.

mod fleet;
mod hot;
mod one_server;
mod replicas;
mod usual;

pub use self::{
    fleet::{fleet, usual_fleet},
    hot::coalesced,
    one_server::protected,
    replicas::{balanced, round_robin},
    usual::{UsualRetry, usual},
};

/// How many clients a fleet has.
pub const CLIENTS: usize = 1_000;
