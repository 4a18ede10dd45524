//! What happened in a run, in bins of time.

use palisade::Priority;

use crate::latencies::Latencies;

/// The priorities, the least important first, as in the arrays of a [`Bin`].
pub const PRIORITIES: [Priority; 4] =
    [Priority::Background, Priority::Low, Priority::Normal, Priority::Critical];

/// What became of the requests that were due in a stretch of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bin {
    /// Requests that were due, by priority.
    pub offered: [u64; 4],
    /// Those that were answered while somebody waited.
    pub good: [u64; 4],
    /// Those that a layer refused without asking the server for them.
    pub refused: [u64; 4],
    /// How long the good ones took, from when they were due.
    pub latencies: Latencies,
    /// Attempts that arrived at the servers in this time.
    pub sent: u64,
    /// The gauges, at the end of the bin.
    pub gauges: Vec<f64>,
}

impl Bin {
    /// Adds what happened in another stretch of time. The gauges stay.
    pub fn add(&mut self, other: &Self) {
        for priority in 0..4 {
            self.offered[priority] += other.offered[priority];
            self.good[priority] += other.good[priority];
            self.refused[priority] += other.refused[priority];
        }
        self.latencies.merge(&other.latencies);
        self.sent += other.sent;
    }

    /// Requests that were due.
    pub fn offered(&self) -> f64 {
        float(self.offered.iter().sum())
    }

    /// Requests that were answered in time.
    pub fn good(&self) -> f64 {
        float(self.good.iter().sum())
    }

    /// Attempts that arrived at the servers.
    pub fn sent(&self) -> f64 {
        float(self.sent)
    }

    /// Requests that a layer refused.
    pub fn refused(&self) -> f64 {
        float(self.refused.iter().sum())
    }

    /// The share of the requests of this priority that were answered in time.
    pub fn served(&self, priority: Priority) -> f64 {
        let index = priority as usize;
        float(self.good[index]) / float(self.offered[index]).max(1.0)
    }

    /// The share of all requests that were answered in time.
    pub fn success(&self) -> f64 {
        self.good() / self.offered().max(1.0)
    }

    /// Attempts that arrived at the servers for each request.
    pub fn attempts(&self) -> f64 {
        self.sent() / self.offered().max(1.0)
    }

    /// A percentile of the latencies of what was good, in milliseconds; 0 if nothing was.
    pub fn latency(&self, share: f64) -> f64 {
        self.latencies.percentile(share).unwrap_or(0.0) * 1e3
    }
}

#[allow(clippy::cast_precision_loss, reason = "simulations have millions of calls, not more")]
const fn float(count: u64) -> f64 {
    count as f64
}

/// What happened in one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What the servers can do per second at best.
    pub capacity: f64,
    /// The length of a bin in seconds.
    pub bin: f64,
    /// The bins, from the beginning on.
    pub bins: Vec<Bin>,
    /// The names of the gauges.
    pub gauges: Vec<&'static str>,
}

impl Report {
    /// Everything between two times, in seconds.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "times begin at zero")]
    pub fn between(&self, from: f64, to: f64) -> Bin {
        let index = |time: f64| ((time / self.bin).round() as usize).min(self.bins.len());
        let mut sum = Bin::default();
        for bin in &self.bins[index(from)..index(to)] {
            sum.add(bin);
        }
        sum
    }

    /// Answers in time per second between two times, as a share of the capacity.
    pub fn goodput(&self, from: f64, to: f64) -> f64 {
        self.between(from, to).good() / (to - from) / self.capacity
    }

    /// How long after `end` it took until at least this share of the requests was answered in time in every second that followed.
    /// `None` if that did not come about.
    pub fn recovered(&self, end: f64, share: f64) -> Option<f64> {
        let last = self.seconds();
        let healthy = |from: f64| self.between(from, from + 1.0).success() >= share;
        let mut since = None;
        let mut from = end;
        while from + 1.0 <= last + 1e-9 {
            since = if healthy(from) { since.or(Some(from - end)) } else { None };
            from += self.bin;
        }
        since
    }

    /// How uneven the goodput per second was between two times: the standard deviation as a share of the mean.
    pub fn unevenness(&self, from: f64, to: f64) -> f64 {
        let mut rates = Vec::new();
        let mut start = from;
        while start + 1.0 <= to + 1e-9 {
            rates.push(self.between(start, start + 1.0).good());
            start += 1.0;
        }
        let count = float(rates.len() as u64).max(1.0);
        let mean = rates.iter().sum::<f64>() / count;
        let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
        variance.sqrt() / mean.max(1.0)
    }

    /// How long the run was, in seconds.
    pub fn seconds(&self) -> f64 {
        self.bin * float(self.bins.len() as u64)
    }
}
