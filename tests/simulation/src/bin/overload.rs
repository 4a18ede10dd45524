//! Prints what happens in every scenario, with the layers and without, and draws it.
//!
//! ```text
//! cargo run --release -p overload-simulation -- [scenario...]
//! ```
#![allow(clippy::print_stdout, reason = "it prints a table")]

use std::{fs, io, path::Path};

use overload_simulation::{comparison, plot, run::Size, scenarios, table};

/// The seed of the published figures.
const SEED: u64 = 1;

fn main() -> io::Result<()> {
    let chosen: Vec<_> = std::env::args().skip(1).collect();
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../layers/docs/overload"));
    fs::create_dir_all(&folder)?;
    println!("{}", table::HEADER);
    for scenario in scenarios::ALL {
        if !chosen.is_empty() && !chosen.iter().any(|part| scenario.name.contains(part)) {
            continue;
        }
        let without = scenario.run(scenario.without, Size::Full, SEED);
        println!("{}", table::row(&scenario, scenario.without.name, &without));
        let with = scenario.run(scenario.with, Size::Full, SEED);
        println!("{}", table::row(&scenario, scenario.with.name, &with));
        fs::write(folder.join(format!("{}.svg", scenario.name)), plot::draw(&scenario, &without, &with))?;
    }
    println!("\n{}", table::HEADER);
    for scenario in comparison::SCENARIOS {
        for variant in comparison::VARIANTS {
            if chosen.is_empty() || chosen.iter().any(|part| part == "comparison") {
                println!("{}", table::row(&scenario, variant.name, &scenario.run(variant, Size::Full, SEED)));
            }
        }
    }
    Ok(())
}
