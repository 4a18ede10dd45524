//! What a run was like: shares, percentiles, who served.

use std::{net::SocketAddr, time::Duration};

use crate::load::{Failure, Sample};

/// What callers would call slow.
pub(crate) const SLOW: Duration = Duration::from_millis(100);

/// What a generator may lag behind without being noticed in what is measured here.
const IN_TIME: Duration = Duration::from_millis(5);

/// All requests of a run, by the moment at which they were due.
pub(crate) struct Run {
    samples: Vec<Sample>,
    lateness: Vec<Duration>,
}

impl Run {
    pub(crate) const fn new(samples: Vec<Sample>, lateness: Vec<Duration>) -> Self {
        Self { samples, lateness }
    }

    /// Whether the requests were sent when they were due, so that latencies are those of the client and its cluster.
    pub(crate) fn is_in_time(&self) -> bool {
        percentile(self.lateness.clone(), 990) <= millis(IN_TIME)
    }

    /// How many requests never ended.
    pub(crate) fn lost(&self) -> usize {
        self.lateness.len() - self.samples.len()
    }

    pub(crate) fn all(&self) -> View<'_> {
        View { samples: &self.samples }
    }

    /// The requests that were due in this time.
    pub(crate) fn between(&self, from: Duration, to: Duration) -> View<'_> {
        let at = |moment| self.samples.partition_point(|sample| sample.due < moment);
        View { samples: &self.samples[at(from)..at(to).max(at(from))] }
    }

    /// The requests since this moment, in pieces of this length, each with how long after the moment it ended.
    pub(crate) fn windows(
        &self,
        from: Duration,
        length: Duration,
    ) -> impl Iterator<Item = (Duration, View<'_>)> {
        let end = self.samples.last().map_or(Duration::ZERO, |sample| sample.due);
        let ends =
            (1..=u32::MAX).map(move |count| length * count).take_while(move |after| from + *after <= end);
        ends.map(move |after| (after, self.between(from + after.saturating_sub(length), from + after)))
    }

    pub(crate) fn since(&self, from: Duration) -> View<'_> {
        self.between(from, Duration::MAX)
    }

    /// How long the longest time was in which no request was answered well.
    pub(crate) fn longest_without_service(&self, from: Duration, to: Duration) -> Duration {
        let mut ends: Vec<_> = self.all().answered().map(|(sample, _)| sample.due + sample.took).collect();
        ends.retain(|end| (from..to).contains(end));
        ends.sort_unstable();
        let starts = std::iter::once(from).chain(ends.iter().copied());
        let gaps = starts.zip(ends.iter().copied().chain([to])).map(|(start, end)| end.saturating_sub(start));
        gaps.max().unwrap_or_default()
    }

    /// How many requests were under way at this node at this moment.
    pub(crate) fn under_way(&self, at: Duration, node: SocketAddr) -> usize {
        let under_way = self.all().iter().filter(|sample| sample.due <= at && sample.due + sample.took > at);
        under_way.filter(|sample| sample.nodes().contains(&node)).count()
    }

    /// When the first request was answered well that was due at this moment or later.
    pub(crate) fn first_answer_since(&self, from: Duration) -> Option<Duration> {
        self.since(from).answered().map(|(sample, _)| sample.due + sample.took).min()
    }

    /// Prints what everybody wants to know, and whether the requests were sent in time.
    pub(crate) fn print(&self, client: &str) {
        let all = self.all();
        println!(
            "  {client}: {} requests, p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, {} errors, {} lost, {} above 100 ms ({:.2} %), \
             {:.3} attempts a request",
            all.len(),
            all.percentile(500),
            all.percentile(990),
            all.percentile(999),
            all.errors().count(),
            self.lost(),
            all.slow(),
            100.0 * all.slow_share(),
            all.attempts_per_request(),
        );
        let late = |permille| percentile(self.lateness.clone(), permille);
        let verdict =
            if self.is_in_time() { "" } else { ": too late, the machine is too busy to tell anything" };
        println!(
            "    generator: requests sent late by p99 {:.2} ms, p99.9 {:.2} ms{verdict}",
            late(990),
            late(999)
        );
        let mut texts: Vec<_> = all.errors().map(|(_, failure)| failure.text.as_str()).collect();
        texts.dedup_by_key(|text| text.split_once(['(', ':']).map_or(*text, |(kind, _)| kind));
        for text in texts.iter().take(2) {
            println!("    error: {text}");
        }
    }
}

/// Some requests of a run.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    samples: &'a [Sample],
}

impl<'a> View<'a> {
    pub(crate) fn len(&self) -> usize {
        self.samples.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a Sample> + use<'a> {
        self.samples.iter()
    }

    pub(crate) fn answered(&self) -> impl Iterator<Item = (&'a Sample, SocketAddr)> + use<'a> {
        self.iter().filter_map(|sample| sample.outcome.as_ref().ok().map(|node| (sample, *node)))
    }

    pub(crate) fn errors(&self) -> impl Iterator<Item = (&'a Sample, &'a Failure)> + use<'a> {
        self.iter().filter_map(|sample| sample.outcome.as_ref().err().map(|failure| (sample, failure)))
    }

    /// How many took long. One that failed is not slow for that: it is counted as an error.
    pub(crate) fn slow(&self) -> usize {
        self.iter().filter(|sample| sample.took > SLOW).count()
    }

    pub(crate) fn slow_share(&self) -> f64 {
        share(self.slow(), self.len())
    }

    /// In milliseconds.
    pub(crate) fn percentile(&self, permille: usize) -> f64 {
        percentile(self.iter().map(|sample| sample.took).collect(), permille)
    }

    pub(crate) fn attempts_per_request(&self) -> f64 {
        share(self.iter().map(|sample| sample.attempts).sum(), self.len())
    }

    /// Which part of the answers came from these nodes.
    pub(crate) fn share_of(&self, nodes: &[SocketAddr]) -> f64 {
        share(self.answered().filter(|(_, node)| nodes.contains(node)).count(), self.answered().count())
    }
}

/// In milliseconds; of none it is zero.
pub(crate) fn percentile(mut times: Vec<Duration>, permille: usize) -> f64 {
    times.sort_unstable();
    times
        .get((times.len() * permille / 1_000).min(times.len().saturating_sub(1)))
        .copied()
        .map_or(0.0, millis)
}

/// Infinite for what has not come to pass.
pub(crate) fn seconds(duration: Option<Duration>) -> f64 {
    duration.map_or(f64::INFINITY, |duration| duration.as_secs_f64())
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Of nothing it is zero.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn number(count: usize) -> f64 {
    count as f64
}
