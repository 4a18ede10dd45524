//! An outage, at whose end everybody who was waiting comes back at once.

use super::evenly;
use crate::{
    engine::{Mode, Settings},
    run::{Scenario, Variant},
    stacks,
};

/// How soon after the outage calls are to be answered as before, in seconds: one of them is the herd's, at eight times the capacity.
pub const BACK_WITHIN: f64 = 5.0;

/// What goes on 20 seconds after the outage without the layers: less than half of it all.
pub const METASTABLE: f64 = 0.5;

/// The server takes requests for ten seconds without answering one. In the second after that, all whose calls failed call again.
pub const SCENARIO: Scenario = Scenario {
    name: "thundering_herd",
    about: "10 s of outage, then everybody calls again at once",
    seconds: 60.0,
    trouble: (15.0, 25.0),
    load: |time| if (25.0..26.0).contains(&time) { 0.7 + 7.0 } else { 0.7 },
    hot: evenly,
    servers: |size| {
        let modes = vec![(0.0, Mode::Serving), (15.0, Mode::Hanging), (25.0, Mode::Serving)];
        vec![Settings { modes, ..Settings::of(size.workers()) }]
    },
    with: Variant { name: "shed, adaptive limit, budget", stacks: stacks::protected },
    without: Variant { name: "timeout, 3 attempts", stacks: stacks::usual },
};
