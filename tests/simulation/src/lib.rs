//! Servers under overload, simulated: what happens to them with palisade's layers, and without.
//!
//! A run is a seeded, discrete simulation on tokio's paused clock, with the real layers in it: minutes pass in a second, and the same
//! seed gives the same figures. [`engine`] models the server, [`load`] its callers; [`scenarios`] are the stories and the
//! bars that they set; [`stacks`] are what is compared; [`report`] is what was measured.

pub mod call;
pub mod clock;
pub mod comparison;
pub mod engine;
pub mod latencies;
pub mod load;
pub mod plot;
pub mod report;
pub mod run;
pub mod scenarios;
pub mod server;
pub mod speed;
pub mod stacks;
pub mod table;
