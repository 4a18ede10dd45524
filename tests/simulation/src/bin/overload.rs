//! Prints what happens in every scenario.
#![allow(clippy::print_stdout, reason = "it prints a table")]

use overload_simulation::{run::Size, scenarios};

fn main() {
    for scenario in scenarios::ALL {
        for variant in [scenario.without, scenario.with] {
            let began = std::time::Instant::now();
            let report = scenario.run(variant, Size::Full, 1);
            let (from, to) = scenario.trouble;
            let (before, trouble) = (report.between(2.0, from), report.between(from, to));
            println!("{} {} before {:.3} p99 {} trouble {:.3} att {:.2} p99 {} back {:?} end {:.3} took {:?}", scenario.name, variant.name,
                before.success(), before.latency(0.99), trouble.success(), trouble.attempts(), trouble.latency(0.99),
                report.recovered(to, 0.95), report.between(report.seconds()-5.0, report.seconds()).success(), began.elapsed());
        }
    }
}
