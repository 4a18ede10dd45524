//! What is recommended where many read the same.

use crate::{load::Stack, run::World};

/// As for any server, with reads that share their answers.
pub fn coalesced(world: &mut World) -> Vec<Stack> {
    super::protected(world)
}
