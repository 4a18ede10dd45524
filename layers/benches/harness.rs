//! Measures things beside each other: interleaved in one run, medians, ratios. Absolute times mean little on a shared
//! machine; a ratio that was taken at the same moment does.

use std::{
    hint::black_box,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// Whether the run is to be short (`-- --quick`).
pub(crate) fn is_quick() -> bool {
    std::env::args().any(|argument| argument == "--quick")
}

/// Whether a part of the run is wanted: the arguments that are no flags name the parts, by a piece of their names.
#[allow(dead_code, reason = "not every bench has parts")]
pub(crate) fn is_wanted(part: &str) -> bool {
    let mut wanted = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    wanted.peek().is_none() || wanted.any(|piece| part.contains(&piece))
}

/// Prints a figure beside its limit: `bar NAME VALUE LIMIT ok|short`.
pub(crate) struct Bars {
    short: usize,
}

impl Bars {
    pub(crate) const fn new() -> Self {
        Self { short: 0 }
    }

    pub(crate) fn at_most(&mut self, name: &str, value: f64, limit: f64) {
        self.print(name, value, limit, value <= limit);
    }

    #[allow(dead_code, reason = "not every bench has such a bar")]
    pub(crate) fn at_least(&mut self, name: &str, value: f64, limit: f64) {
        self.print(name, value, limit, value >= limit);
    }

    fn print(&mut self, name: &str, value: f64, limit: f64, ok: bool) {
        self.short += usize::from(!ok);
        println!("bar {name} {value:.3} {limit:.3} {}", if ok { "ok" } else { "short" });
    }

    /// A last line, for whoever looks only there.
    pub(crate) fn end(self) {
        match self.short {
            0 => println!("all bars reached"),
            short => println!("{short} bars short"),
        }
    }
}

/// What came of two pieces of work: the median time of one iteration of each, in nanoseconds, and the median of their
/// ratios in each round, on which what slows a machine down for a while has no influence.
#[allow(dead_code, reason = "not every bench compares two services")]
pub(crate) struct Compared {
    pub(crate) ours: f64,
    pub(crate) theirs: f64,
    pub(crate) ratio: f64,
}

/// Times two pieces of work in turns.
#[allow(dead_code, reason = "not every bench compares two services")]
pub(crate) fn side_by_side(
    rounds: usize,
    iterations: u32,
    ours: &mut dyn FnMut(),
    theirs: &mut dyn FnMut(),
) -> Compared {
    let time = |work: &mut dyn FnMut()| {
        let began = Instant::now();
        for _ in 0..iterations {
            work();
        }
        nanos(began.elapsed()) / f64::from(iterations)
    };
    // Warm caches and branch predictors.
    time(ours);
    time(theirs);
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // Whoever goes second finds another machine: they take turns at that too.
        if round % 2 == 0 {
            our_times.push(time(ours));
            their_times.push(time(theirs));
        } else {
            their_times.push(time(theirs));
            our_times.push(time(ours));
        }
    }
    let ratios = our_times.iter().zip(&their_times).map(|(ours, theirs)| ours / theirs).collect();
    Compared { ours: median(our_times), theirs: median(their_times), ratio: median(ratios) }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[allow(dead_code, reason = "not every bench compares two services")]
fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// Polls a future until it is ready. It must be woken, or ready, at the next poll.
#[allow(dead_code, reason = "not every bench compares two services")]
pub(crate) fn finish<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = black_box(future.as_mut()).poll(&mut cx) {
            return output;
        }
    }
}

/// How many allocations one run of the work makes, once it is warm.
#[allow(dead_code, reason = "not every bench compares two services")]
pub(crate) fn allocations(work: &mut dyn FnMut()) -> u64 {
    work();
    let runs = 100;
    let counted = allocation_counter::measure(|| (0..runs).for_each(|_| work()));
    counted.count_total / runs
}
