//! Health of the nodes.
#![allow(dead_code, reason = "to come")]

mod schedule;
mod servable;
mod state;

pub use self::state::{Cause, NodeState};
