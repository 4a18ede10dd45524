//! The bars of the scenarios, with the layers; and that each of them is missed without.

mod comparison;
mod model;
mod scenarios;
