//! When is which node probed?
//!
//! A plain core: it is told the time, and draws its jitter from what it is given.

use std::{collections::HashMap, hash::Hash, time::Duration};

use palisade::Instant;

/// What the schedule goes by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Timing {
    /// From the begin of a node's probe to that of its next.
    pub(crate) interval: Duration,
    /// From the end of a probe that leaves a doubt to the next.
    pub(crate) confirm_after: Duration,
    /// How much of a wait is left to chance, from 0 to 1: it is longer or shorter by up to this part.
    pub(crate) jitter: f64,
    /// How many probes may be under way.
    pub(crate) concurrency: usize,
}

/// When a node's next probe is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// After the interval.
    Usual,
    /// Soon: the last one left a doubt.
    Soon,
}

/// The probes of all nodes.
#[derive(Debug)]
pub(crate) struct Schedule<K> {
    timing: Timing,
    entries: HashMap<K, Entry>,
    under_way: usize,
}

#[derive(Debug)]
struct Entry {
    due: Instant,
    /// When the probe that is under way began.
    began: Option<Instant>,
    /// It is not to be probed any more, and is kept only until its probe has ended.
    is_gone: bool,
}

impl<K: Eq + Hash + Copy> Schedule<K> {
    pub(crate) fn new(timing: Timing) -> Self {
        Self { timing, entries: HashMap::new(), under_way: 0 }
    }

    /// Takes over which nodes there are. Those that are new are due at once.
    pub(crate) fn set_nodes(&mut self, nodes: impl IntoIterator<Item = K>, now: Instant) {
        for entry in self.entries.values_mut() {
            entry.is_gone = true;
        }
        for node in nodes {
            self.entries.entry(node).and_modify(|entry| entry.is_gone = false).or_insert(Entry {
                due: now,
                began: None,
                is_gone: false,
            });
        }
        self.entries.retain(|_, entry| !entry.is_gone || entry.began.is_some());
    }

    /// Begins the probe that is due for longest, if there is one and room for it.
    pub(crate) fn begin(&mut self, now: Instant) -> Option<K> {
        if self.under_way >= self.timing.concurrency {
            return None;
        }
        let (node, entry) = self
            .entries
            .iter_mut()
            .filter(|(_, entry)| entry.began.is_none() && entry.due <= now)
            .min_by_key(|(_, entry)| entry.due)?;
        entry.began = Some(now);
        self.under_way += 1;
        Some(*node)
    }

    /// Ends a probe. `chance` is from 0 to 1.
    pub(crate) fn end(&mut self, node: &K, next: Next, now: Instant, chance: f64) {
        let Some(entry) = self.entries.get_mut(node) else { return };
        let Some(began) = entry.began.take() else { return };
        self.under_way -= 1;
        if entry.is_gone {
            self.entries.remove(node);
            return;
        }
        let Timing { interval, confirm_after, jitter, .. } = self.timing;
        let factor = 1.0 + jitter * (2.0 * chance - 1.0);
        entry.due = match next {
            // What was missed is not made up for: after a long sleep, each node is probed once.
            Next::Usual => (began + interval.mul_f64(factor)).max(now),
            Next::Soon => now + confirm_after.mul_f64(factor),
        };
    }

    /// Ends a probe that was not made, since it is not wanted before.
    pub(crate) fn put_off(&mut self, node: &K, until: Instant) {
        let Some(entry) = self.entries.get_mut(node) else { return };
        if entry.began.take().is_some() {
            self.under_way -= 1;
            entry.due = until;
        }
    }

    /// Brings a node's next probe forward.
    pub(crate) fn bring_forward(&mut self, node: &K, at: Instant) {
        if let Some(entry) = self.entries.get_mut(node) {
            entry.due = entry.due.min(at);
        }
    }

    /// When the next probe is due; `None` as long as one has to end first.
    pub(crate) fn next(&self) -> Option<Instant> {
        if self.under_way >= self.timing.concurrency {
            return None;
        }
        self.entries.values().filter(|entry| entry.began.is_none()).map(|entry| entry.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    fn schedule(jitter: f64, concurrency: usize) -> (Schedule<char>, Instant) {
        let confirm_after = Duration::from_secs(1);
        (Schedule::new(Timing { interval: INTERVAL, confirm_after, jitter, concurrency }), Instant::now())
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn new_nodes_are_due_at_once_and_then_every_interval() {
        let (mut schedule, begin) = schedule(0.0, 8);
        schedule.set_nodes(['a'], begin);
        assert_eq!(schedule.next(), Some(begin));
        assert_eq!(schedule.begin(begin), Some('a'));
        assert_eq!((schedule.begin(begin), schedule.next()), (None, None), "it is under way");
        schedule.end(&'a', Next::Usual, begin + seconds(1), 0.3);
        assert_eq!(schedule.next(), Some(begin + INTERVAL), "counted from when it began");
        assert_eq!(schedule.begin(begin + seconds(4)), None);
        assert_eq!(schedule.begin(begin + seconds(5)), Some('a'));
    }

    #[test]
    fn a_doubt_is_asked_about_soon() {
        let (mut schedule, begin) = schedule(0.0, 8);
        schedule.set_nodes(['a'], begin);
        schedule.begin(begin);
        schedule.end(&'a', Next::Soon, begin + seconds(2), 0.5);
        assert_eq!(schedule.next(), Some(begin + seconds(3)));
    }

    #[test]
    fn jitter_makes_a_wait_longer_or_shorter() {
        for (chance, wait) in [(0.0, 4_000), (0.5, 5_000), (0.75, 5_500), (1.0, 6_000)] {
            let (mut schedule, begin) = schedule(0.2, 8);
            schedule.set_nodes(['a'], begin);
            schedule.begin(begin);
            schedule.end(&'a', Next::Usual, begin, chance);
            assert_eq!(schedule.next(), Some(begin + Duration::from_millis(wait)));
        }
    }

    #[test]
    fn no_more_are_under_way_than_allowed_and_whoever_waits_longest_is_next() {
        let (mut schedule, begin) = schedule(0.0, 2);
        schedule.set_nodes(['a'], begin);
        schedule.set_nodes(['a', 'b'], begin + seconds(1));
        schedule.set_nodes(['a', 'b', 'c'], begin + seconds(2));
        let now = begin + seconds(3);
        assert_eq!(
            [schedule.begin(now), schedule.begin(now), schedule.begin(now)],
            [Some('a'), Some('b'), None]
        );
        assert_eq!(schedule.next(), None, "the end of a probe wakes");
        schedule.end(&'b', Next::Usual, now, 0.5);
        assert_eq!(schedule.next(), Some(begin + seconds(2)));
        assert_eq!(schedule.begin(now), Some('c'));
    }

    #[test]
    fn a_node_that_goes_gives_its_place_back() {
        let (mut schedule, begin) = schedule(0.0, 1);
        schedule.set_nodes(['a', 'b'], begin);
        let first = schedule.begin(begin).unwrap();
        schedule.set_nodes([], begin);
        assert_eq!(schedule.next(), None);
        schedule.set_nodes(['z'], begin);
        assert_eq!(schedule.begin(begin), None, "the old one still runs");
        schedule.end(&first, Next::Usual, begin, 0.5);
        assert_eq!(schedule.begin(begin), Some('z'));
        schedule.end(&first, Next::Usual, begin, 0.5);
        assert_eq!(schedule.begin(begin), None, "what has ended ends once");
    }

    #[test]
    fn a_node_that_comes_back_while_its_probe_runs_is_probed_on() {
        let (mut schedule, begin) = schedule(0.0, 8);
        schedule.set_nodes(['a'], begin);
        schedule.begin(begin);
        schedule.set_nodes([], begin);
        schedule.set_nodes(['a'], begin);
        assert_eq!(schedule.begin(begin), None, "not twice at once");
        schedule.end(&'a', Next::Usual, begin, 0.5);
        assert_eq!(schedule.next(), Some(begin + INTERVAL));
    }

    #[test]
    fn after_a_long_sleep_each_node_is_probed_once() {
        let (mut schedule, begin) = schedule(0.0, 8);
        schedule.set_nodes(['a'], begin);
        schedule.begin(begin);
        let woken = begin + seconds(3_600);
        schedule.end(&'a', Next::Usual, woken, 0.5);
        assert_eq!(schedule.begin(woken), Some('a'));
        schedule.end(&'a', Next::Usual, woken, 0.5);
        assert_eq!(schedule.begin(woken), None);
        assert_eq!(schedule.next(), Some(woken + INTERVAL));
    }

    #[test]
    fn a_probe_can_be_brought_forward_and_not_put_off() {
        let (mut schedule, begin) = schedule(0.0, 8);
        schedule.set_nodes(['a'], begin);
        schedule.begin(begin);
        schedule.end(&'a', Next::Usual, begin, 0.5);
        schedule.bring_forward(&'a', begin + seconds(9));
        assert_eq!(schedule.next(), Some(begin + INTERVAL));
        schedule.bring_forward(&'a', begin + seconds(2));
        assert_eq!(schedule.next(), Some(begin + seconds(2)));
        schedule.bring_forward(&'?', begin);
    }

    #[test]
    fn a_probe_that_is_not_made_yet_gives_its_place_back() {
        let (mut schedule, begin) = schedule(0.0, 1);
        schedule.set_nodes(['a'], begin);
        schedule.begin(begin);
        schedule.put_off(&'a', begin + seconds(3));
        schedule.put_off(&'a', begin + seconds(4));
        assert_eq!(schedule.next(), Some(begin + seconds(3)));
        assert_eq!(schedule.begin(begin + seconds(2)), None);
        assert_eq!(schedule.begin(begin + seconds(3)), Some('a'));
    }
}
