//! The figures of a run in one row.

use palisade::Priority;

use crate::{report::Report, run::Scenario};

/// What the columns of [`row`] are.
pub const HEADER: &str = "\
| scenario | stack | before | during: of capacity | critical | normal | low | attempts | p99 ms (before) | back after | at the end |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

/// The figures of one run, as a row of a Markdown table. Before trouble, while it lasts (without its first second), and after.
pub fn row(scenario: &Scenario, variant: &str, report: &Report) -> String {
    let (from, to) = scenario.trouble;
    let before = report.between(2.0, from);
    let during = report.between((from + 1.0).min(to - 1.0), to);
    let end = report.between(report.seconds() - 5.0, report.seconds());
    let back = report.recovered(to, 0.95).map_or("never".to_owned(), |seconds| format!("{seconds:.1} s"));
    format!(
        "| {} | {variant} | {:.1}% | {:.1}% | {:.1}% | {:.1}% | {:.1}% | {:.2} | {:.0} ({:.0}) | {back} | {:.1}% |",
        scenario.name,
        100.0 * before.success(),
        100.0 * report.goodput((from + 1.0).min(to - 1.0), to),
        100.0 * during.served(Priority::Critical),
        100.0 * during.served(Priority::Normal),
        100.0 * during.served(Priority::Low),
        during.attempts(),
        during.latency(0.99),
        before.latency(0.99),
        100.0 * end.success(),
    )
}
