//! Lives through every scenario, with the layers and without: writes the table of figures and the plots into the folder
//! `layers/docs/overload`.
//!
//! ```text
//! cargo run --release -p overload-simulation                # all of them
//! cargo run --release -p overload-simulation -- hot_key     # those whose names hold this, and their plots only
//! ```
#![allow(clippy::print_stdout, reason = "it prints a table")]

use std::{fmt::Write as _, fs, io, path::Path};

use overload_simulation::{comparison, plot, run::Size, scenarios, table};

/// The seed of the published figures.
const SEED: u64 = 1;

/// Where the plots and the table are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../layers/docs/overload");

fn main() -> io::Result<()> {
    let chosen: Vec<_> = std::env::args().skip(1).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|part| name.contains(part));
    let mut figures = Figures { text: String::new() };
    figures.line(table::HEADER);
    for scenario in scenarios::ALL.iter().filter(|scenario| wanted(scenario.name)) {
        let without = scenario.run(scenario.without, Size::Full, SEED);
        figures.line(&table::row(scenario, scenario.without.name, &without));
        let with = scenario.run(scenario.with, Size::Full, SEED);
        figures.line(&table::row(scenario, scenario.with.name, &with));
        let plot = plot::draw(scenario, &without, &with);
        fs::create_dir_all(FOLDER)?;
        fs::write(Path::new(FOLDER).join(format!("{}.svg", scenario.name)), plot)?;
    }
    if wanted("comparison") {
        figures.line("");
        figures.line(table::HEADER);
        for scenario in comparison::SCENARIOS {
            for variant in comparison::VARIANTS {
                figures.line(&table::row(&scenario, variant.name, &scenario.run(variant, Size::Full, SEED)));
            }
        }
    }
    if chosen.is_empty() {
        fs::write(Path::new(FOLDER).join("figures.md"), figures.text)?;
    }
    Ok(())
}

/// What is printed as soon as it is known, and kept.
struct Figures {
    text: String,
}

impl Figures {
    fn line(&mut self, line: &str) {
        println!("{line}");
        // Nothing can go wrong in writing to a string.
        let _ = writeln!(self.text, "{line}");
    }
}
