//! Plots of runs, as SVG: small, readable in light and dark, and without blank lines, so that they can stand in documentation.

use std::fmt::Write as _;

use palisade::Priority;

use crate::{
    report::{Bin, Report},
    run::Scenario,
};

// In pixels.
const PANEL_WIDTH: f64 = 400.0;
const PANEL_HEIGHT: f64 = 120.0;
const COLUMN: f64 = PANEL_WIDTH + 62.0;
const ROW: f64 = PANEL_HEIGHT + 50.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 74.0;

/// The most points of a line.
const POINTS: usize = 160;

const GREY: &str = "#8a8f98";
const BLUE: &str = "#1f6feb";
const ORANGE: &str = "#d9730d";
const RED: &str = "#c93c37";
const GREEN: &str = "#2f8f46";

/// How values become heights.
#[derive(Clone, Copy)]
enum Scale {
    /// From zero to this.
    Linear(f64),
    /// From the first to the second, by decades.
    Log(f64, f64),
}

impl Scale {
    /// From 0 at the bottom to 1 at the top.
    fn height(self, value: f64) -> f64 {
        match self {
            Self::Linear(most) => (value / most).clamp(0.0, 1.0),
            Self::Log(least, most) => ((value / least).ln() / (most / least).ln()).clamp(0.0, 1.0),
        }
    }

    fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear(most) => [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| share * most).to_vec(),
            Self::Log(least, most) => (0..4)
                .flat_map(|decade| [1.0, 3.0].map(|tick| tick * least * 10_f64.powi(decade)))
                .filter(|tick| *tick <= most * 1.01)
                .collect(),
        }
    }
}

struct Line {
    name: &'static str,
    color: &'static str,
    // None where there is nothing to show.
    values: Vec<Option<f64>>,
}

struct Panel {
    title: &'static str,
    scale: Scale,
    lines: Vec<Line>,
}

/// Draws a scenario's two runs side by side.
pub fn draw(scenario: &Scenario, without: &Report, protected: &Report) -> String {
    let reports = [thinned(without), thinned(protected)];
    let names = [scenario.without.name, scenario.with.name];
    let columns: Vec<Vec<Panel>> = reports.iter().map(panels).collect();
    let rows = columns.iter().map(Vec::len).max().unwrap_or(0);
    #[allow(clippy::cast_precision_loss, reason = "a handful")]
    let (width, height) = (LEFT + 2.0 * COLUMN, TOP + rows as f64 * ROW);

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         font-family=\"sans-serif\" font-size=\"11\" fill=\"#24292f\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#fbfbfa\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"15\">{}: {}</text>\n",
        scenario.name, scenario.about,
    );
    for ((column, name), panels) in [0.0, COLUMN].into_iter().zip(names).zip(&columns) {
        let heading = if column == 0.0 { "without" } else { "with" };
        line(
            &mut svg,
            format_args!(
                "<text x=\"{:.0}\" y=\"48\" font-weight=\"bold\">{heading}: {name}</text>",
                LEFT + column
            ),
        );
        for (panel, row) in panels.iter().zip(0..) {
            draw_panel(&mut svg, panel, (LEFT + column, TOP + f64::from(row) * ROW), scenario);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// The same report with fewer, longer bins.
fn thinned(report: &Report) -> Report {
    let by = report.bins.len().div_ceil(POINTS);
    let bins = report.bins.chunks(by).map(|bins| {
        let mut sum = Bin::default();
        for bin in bins {
            sum.add(bin);
        }
        sum.gauges = bins.last().map(|bin| bin.gauges.clone()).unwrap_or_default();
        sum
    });
    #[allow(clippy::cast_precision_loss, reason = "a handful")]
    let bin = report.bin * by as f64;
    Report { bins: bins.collect(), bin, ..report.clone() }
}

fn panels(report: &Report) -> Vec<Panel> {
    let capacity = report.capacity * report.bin;
    let line = |name, color, value: &dyn Fn(&Bin) -> Option<f64>| Line {
        name,
        color,
        values: report.bins.iter().map(value).collect(),
    };
    let share = |good: f64, offered: f64| (offered > 0.0).then_some(100.0 * good / offered);
    let served = |priority: Priority| {
        move |bin: &Bin| share(bin.served(priority), 1.0).filter(|_| bin.offered[priority as usize] > 0)
    };

    let mut panels = vec![
        Panel {
            title: "calls per second by capacity",
            scale: Scale::Log(0.1, 30.0),
            lines: vec![
                line("offered", GREY, &|bin| Some(bin.offered() / capacity)),
                line("sent to the servers", ORANGE, &|bin| Some(bin.sent() / capacity)),
                line("answered in time", BLUE, &|bin| Some(bin.good() / capacity)),
            ],
        },
        Panel {
            title: "latency of what was answered, ms",
            scale: Scale::Log(10.0, 1_000.0),
            lines: vec![
                line("p50", GREEN, &|bin| bin.latencies.percentile(0.5).map(|latency| latency * 1e3)),
                line("p99", RED, &|bin| bin.latencies.percentile(0.99).map(|latency| latency * 1e3)),
            ],
        },
        Panel {
            title: "answered in time by priority, %",
            scale: Scale::Linear(100.0),
            lines: vec![
                line("background and low", GREY, &|bin| {
                    let sum = |of: [u64; 4]| f64::from(u32::try_from(of[0] + of[1]).unwrap_or(u32::MAX));
                    share(sum(bin.good), sum(bin.offered))
                }),
                line("normal", BLUE, &served(Priority::Normal)),
                line("critical", RED, &served(Priority::Critical)),
            ],
        },
    ];
    let gauges: Vec<_> = report.gauges.iter().zip([ORANGE, BLUE, GREEN, RED]).enumerate().collect();
    let most = report.bins.iter().flat_map(|bin| bin.gauges.iter().copied()).fold(1.0, f64::max);
    panels.push(Panel {
        title: "requests",
        scale: Scale::Linear(round_up(most)),
        lines: gauges
            .into_iter()
            .map(|(index, (name, color))| line(name, color, &|bin| bin.gauges.get(index).copied()))
            .collect(),
    });
    panels
}

/// The next number above that is pleasant on an axis with four parts.
fn round_up(most: f64) -> f64 {
    let step = 10_f64.powf(most.log10().floor());
    [1.0, 1.2, 1.6, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0]
        .map(|factor| factor * step)
        .into_iter()
        .find(|end| *end >= most)
        .unwrap_or(most)
}

fn draw_panel(svg: &mut String, panel: &Panel, (left, top): (f64, f64), scenario: &Scenario) {
    let x = |time: f64| left + PANEL_WIDTH * time / scenario.seconds;
    let y = |value: f64| top + PANEL_HEIGHT * (1.0 - panel.scale.height(value));
    let bottom = top + PANEL_HEIGHT;

    let (from, to) = scenario.trouble;
    line(
        svg,
        format_args!(
            "<rect x=\"{:.0}\" y=\"{top:.0}\" width=\"{:.0}\" height=\"{PANEL_HEIGHT}\" fill=\"#f3e3d8\"/>",
            x(from),
            x(to) - x(from)
        ),
    );
    for tick in panel.scale.ticks() {
        let height = y(tick);
        line(
            svg,
            format_args!(
                "<path d=\"M{left:.0} {height:.0}h{PANEL_WIDTH}\" stroke=\"#dcdcda\"/>\n\
                 <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>",
                left - 5.0,
                height + 4.0,
                (tick * 100.0).round() / 100.0
            ),
        );
    }
    let mut time = 0.0;
    while time <= scenario.seconds {
        line(
            svg,
            format_args!(
                "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{time} s</text>",
                x(time),
                bottom + 14.0
            ),
        );
        time += 15.0;
    }
    line(svg, format_args!("<text x=\"{left:.0}\" y=\"{:.0}\">{}", top - 6.0, panel.title));
    svg.pop();
    for entry in &panel.lines {
        let _ = write!(svg, "<tspan dx=\"10\" fill=\"{}\">{}</tspan>", entry.color, entry.name);
    }
    svg.push_str("</text>\n");
    for entry in &panel.lines {
        draw_line(svg, entry, x, y, scenario.seconds);
    }
}

fn draw_line(svg: &mut String, entry: &Line, x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64, seconds: f64) {
    #[allow(clippy::cast_precision_loss, reason = "some hundreds")]
    let step = seconds / entry.values.len().max(1) as f64;
    let mut path = String::new();
    let mut pen = 'M';
    for (value, time) in entry.values.iter().zip((0..).map(|index| (f64::from(index) + 0.5) * step)) {
        if let Some(value) = value {
            let _ = write!(path, "{pen}{:.0} {:.0}", x(time), y(*value));
            pen = 'L';
        } else {
            pen = 'M';
        }
    }
    line(
        svg,
        format_args!("<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.4\"/>", entry.color),
    );
}

fn line(svg: &mut String, text: std::fmt::Arguments<'_>) {
    // Nothing can go wrong in writing to a string.
    let _ = svg.write_fmt(text);
    svg.push('\n');
}
