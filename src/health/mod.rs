//! Health of the nodes.
#![allow(dead_code, reason = "to come")]

mod placement;
mod schedule;
mod servability;
mod servable;
mod state;

pub(crate) use self::servability::Servability;
pub use self::state::{Cause, NodeState};
