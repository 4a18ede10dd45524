//! The scenarios, each with the bars that it sets.

pub mod five_times;
pub mod hot_key;
pub mod retry_storm;
pub mod sick_replica;
pub mod slow_degradation;
pub mod thousand_clients;
pub mod thundering_herd;
pub mod total_failure;

use crate::run::Scenario;

/// All of them, in the order of the table.
pub const ALL: [Scenario; 11] = [
    five_times::SCENARIO,
    retry_storm::SCENARIO,
    thundering_herd::SCENARIO,
    slow_degradation::SCENARIO,
    hot_key::SCENARIO,
    sick_replica::SCENARIO,
    thousand_clients::FLOOD,
    thousand_clients::STALL,
    total_failure::FAILING,
    total_failure::REFUSING,
    total_failure::HANGING,
];

/// No key is read more than others.
const fn evenly(_: f64) -> f64 {
    0.0
}
