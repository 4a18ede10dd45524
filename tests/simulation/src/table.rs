//! The figures of a run in one row.

use palisade::Priority;

use crate::{
    report::{Bin, Report},
    run::Scenario,
};

/// What the columns of [`row`] are. Shares are of what was offered, unless it says otherwise.
pub const HEADER: &str = "\
| scenario | stack | answered before | goodput in trouble, of capacity | critical answered | normal | low | attempts per call | p99 (before) | normal again after | answered at the end |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

/// What counts as normal: this share of the calls is answered in time, in every second from then on.
pub const NORMAL: f64 = 0.95;

/// The figures of one run, as a row of a Markdown table. The first second of trouble is left out where there are more.
pub fn row(scenario: &Scenario, variant: &str, report: &Report) -> String {
    let (from, to) = (scenario.settled(), scenario.trouble.1);
    let before = report.between(2.0, scenario.trouble.0);
    let during = report.between(from, to);
    let end = report.between(report.seconds() - 5.0, report.seconds());
    let back = report.recovered(to, NORMAL).map_or("never".to_owned(), |seconds| format!("{seconds:.1} s"));
    let latency = |bin: &Bin| {
        bin.latencies.percentile(0.99).map_or("-".to_owned(), |p99| format!("{:.0} ms", p99 * 1e3))
    };
    format!(
        "| {} | {variant} | {:.1}% | {:.1}% | {:.1}% | {:.1}% | {:.1}% | {:.2} | {} ({}) | {back} | {:.1}% |",
        scenario.name,
        100.0 * before.success(),
        100.0 * report.goodput(from, to),
        100.0 * during.served(Priority::Critical),
        100.0 * during.served(Priority::Normal),
        100.0 * during.served(Priority::Low),
        during.attempts(),
        latency(&during),
        latency(&before),
        100.0 * end.success(),
    )
}
