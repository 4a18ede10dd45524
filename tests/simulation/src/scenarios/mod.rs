//! The scenarios, each with the bars that it sets.

pub mod retry_storm;

use crate::run::Scenario;

/// All of them, in the order of the table.
pub const ALL: [Scenario; 1] = [retry_storm::SCENARIO];
