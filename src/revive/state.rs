//! Which node is knocked at, which is reconnected, and when?
//!
//! A plain core: it is told the time, and draws its jitter from what it is given.

use std::{collections::HashMap, hash::Hash, time::Duration};

use palisade::Instant;

/// How long a node has to be without a connection before anybody knocks: the driver's first tries are as fast.
const MISSING_FOR: Duration = Duration::from_millis(500);
/// The pauses between knocks, and which part they are of the time that the node has been away.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE_ALONE: Duration = Duration::from_millis(500);
const PART: u32 = 40;
/// How long the driver has time to connect to a node that answers, and how much longer at most, by chance.
const GRACE: Duration = Duration::from_millis(300);
const GRACE_JITTER: f64 = 0.5;
/// The waits from one try at reconnecting to the next.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The wait after a try that came to nothing before the node was touched.
const SHORT_WAIT: Duration = Duration::from_millis(500);
/// After how long a knock that has not ended is taken for lost.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// How much longer or shorter a pause or a wait is by chance.
const JITTER: f64 = 0.2;

/// The nodes without a connection.
#[derive(Debug)]
pub(super) struct Missing<K> {
    nodes: HashMap<K, Node>,
    is_alone: bool,
}

#[derive(Debug)]
struct Node {
    since: Instant,
    step: Step,
    // How often it was reconnected in vain.
    tries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    KnockAt(Instant),
    /// It is lost if it has not ended by then.
    Knocking(Instant),
    /// It has answered, and is reconnected then unless the driver has connected before.
    ReconnectAt(Instant),
}

/// What came of a try at reconnecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// The driver has tried to connect.
    Done,
    /// The driver could not read the topology.
    Nothing,
}

impl<K: Eq + Hash + Copy> Missing<K> {
    pub(super) fn new() -> Self {
        Self { nodes: HashMap::new(), is_alone: false }
    }

    /// Takes over which nodes there are, and whether the driver has a connection to each.
    pub(super) fn look(&mut self, nodes: impl IntoIterator<Item = (K, bool)>, now: Instant) {
        let mut before = std::mem::take(&mut self.nodes);
        self.is_alone = true;
        for (node, is_connected) in nodes {
            if is_connected {
                self.is_alone = false;
                continue;
            }
            let known = before.remove(&node);
            self.nodes.insert(
                node,
                known.unwrap_or(Node { since: now, step: Step::KnockAt(now + MISSING_FOR), tries: 0 }),
            );
        }
    }

    /// Whether every node has a connection.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Begins the knock that has been due for longest, if there is one.
    pub(super) fn knock(&mut self, now: Instant) -> Option<K> {
        let due = |node: &Node| match node.step {
            Step::KnockAt(at) | Step::Knocking(at) if at <= now => Some(at),
            _ => None,
        };
        let known = self.nodes.iter_mut();
        let (_, key, node) =
            known.filter_map(|(key, node)| Some((due(node)?, *key, node))).min_by_key(|(at, ..)| *at)?;
        node.step = Step::Knocking(now + LOST_AFTER);
        Some(key)
    }

    /// A knock has ended. `chance` is from 0 to 1.
    pub(super) fn knocked(&mut self, node: K, has_answered: bool, now: Instant, chance: f64) {
        let longest = if self.is_alone { LONGEST_PAUSE_ALONE } else { LONGEST_PAUSE };
        let is_knocking = |node: &&mut Node| matches!(node.step, Step::Knocking(_));
        let Some(node) = self.nodes.get_mut(&node).filter(is_knocking) else { return };
        node.step = if has_answered {
            Step::ReconnectAt(now + GRACE.mul_f64(1.0 + GRACE_JITTER * chance))
        } else {
            let pause = now.saturating_duration_since(node.since) / PART;
            Step::KnockAt(now + jittered(pause.clamp(SHORTEST_PAUSE, longest), chance))
        };
    }

    /// The nodes to reconnect now.
    pub(super) fn due(&self, now: Instant) -> Vec<K> {
        let is_due = |node: &Node| matches!(node.step, Step::ReconnectAt(at) if at <= now);
        self.nodes.iter().filter(|(_, node)| is_due(node)).map(|(key, _)| *key).collect()
    }

    /// A try at reconnecting a node has ended. `chance` is from 0 to 1.
    pub(super) fn tried(&mut self, node: K, tried: Tried, now: Instant, chance: f64) {
        let Some(node) = self.nodes.get_mut(&node) else { return };
        let wait = match tried {
            Tried::Done => {
                node.tries = node.tries.saturating_add(1);
                FIRST_WAIT.saturating_mul(1 << (node.tries - 1).min(8)).min(LONGEST_WAIT)
            }
            Tried::Nothing => SHORT_WAIT,
        };
        node.step = Step::KnockAt(now + jittered(wait, chance));
    }

    /// When something is due next, told whether a knock may begin; `None` if nothing is, or a knock has to end first.
    pub(super) fn next(&self, may_knock: bool) -> Option<Instant> {
        let due = self.nodes.values().filter_map(|node| match node.step {
            Step::KnockAt(at) if may_knock => Some(at),
            Step::ReconnectAt(at) => Some(at),
            Step::KnockAt(_) | Step::Knocking(_) => None,
        });
        due.min()
    }

    /// For how long a node has been missing.
    pub(super) fn missing_for(&self, node: K, now: Instant) -> Duration {
        self.nodes.get(&node).map_or(Duration::ZERO, |node| now.saturating_duration_since(node.since))
    }
}

fn jittered(wait: Duration, chance: f64) -> Duration {
    wait.mul_f64(1.0 + JITTER * (2.0 * chance - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: f64 = 0.5;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Two nodes, of which `b` is connected if it is said so, and `a` never.
    fn missing(is_b_connected: bool) -> (Missing<char>, Instant) {
        let (mut missing, now) = (Missing::new(), Instant::now());
        missing.look([('a', false), ('b', is_b_connected)], now);
        (missing, now)
    }

    /// `a` is missing, and `b` ten milliseconds later.
    fn one_after_the_other() -> (Missing<char>, Instant) {
        let (mut missing, begin) = (Missing::new(), Instant::now());
        missing.look([('a', false)], begin);
        missing.look([('a', false), ('b', false)], begin + ms(10));
        (missing, begin)
    }

    /// Brings `a` to where it has answered a knock at this moment.
    fn answers(missing: &mut Missing<char>, now: Instant) {
        assert_eq!(missing.knock(now), Some('a'));
        missing.knocked('a', true, now, 0.0);
    }

    #[test]
    fn nothing_is_due_while_every_node_is_connected() {
        let (mut missing, now) = (Missing::new(), Instant::now());
        missing.look([('a', true), ('b', true)], now);
        assert!(missing.is_empty());
        assert_eq!((missing.next(true), missing.knock(now + ms(60_000))), (None, None));
    }

    #[test]
    fn a_node_is_knocked_at_when_it_has_been_missing_for_half_a_second() {
        let (mut missing, now) = missing(true);
        assert_eq!((missing.next(true), missing.knock(now + ms(499))), (Some(now + ms(500)), None));
        assert_eq!(missing.knock(now + ms(500)), Some('a'));
        assert_eq!((missing.next(true), missing.knock(now + ms(900))), (None, None), "not twice at once");
        missing.knocked('a', false, now + ms(510), MIDDLE);
        assert_eq!(missing.next(true), Some(now + ms(760)));
        assert_eq!(missing.missing_for('a', now + ms(760)), ms(760));
    }

    #[test]
    fn a_connection_of_the_drivers_own_ends_it() {
        let (mut missing, now) = missing(true);
        answers(&mut missing, now + ms(500));
        missing.look([('a', true), ('b', true)], now + ms(600));
        assert!(missing.is_empty() && missing.due(now + ms(60_000)).is_empty());
        // What is lost once more begins anew.
        missing.look([('a', false), ('b', true)], now + ms(700));
        assert_eq!(missing.next(true), Some(now + ms(1_200)));
    }

    #[test]
    fn a_node_that_left_the_cluster_is_forgotten_with_its_knock() {
        let (mut missing, now) = missing(true);
        assert_eq!(missing.knock(now + ms(500)), Some('a'));
        missing.look([('b', true)], now + ms(510));
        missing.knocked('a', true, now + ms(520), MIDDLE);
        missing.tried('a', Tried::Done, now + ms(520), MIDDLE);
        assert!(missing.is_empty());
        // Or it comes back before the knock has ended.
        missing.look([('a', false), ('b', true)], now + ms(530));
        missing.knocked('a', true, now + ms(540), MIDDLE);
        assert_eq!(missing.next(true), Some(now + ms(1_030)));
    }

    #[test]
    fn pauses_grow_with_the_absence_and_less_if_no_node_is_left() {
        // After so many seconds, the pause in milliseconds with another node connected, and with none.
        for (seconds, pause, alone) in [
            (1, 250, 250),
            (10, 250, 250),
            (16, 400, 400),
            (40, 1_000, 500),
            (80, 2_000, 500),
            (9_999, 2_000, 500),
        ] {
            for (is_b_connected, expected) in [(true, pause), (false, alone)] {
                let (mut missing, begin) = missing(is_b_connected);
                let now = begin + Duration::from_secs(seconds);
                while let Some(node) = missing.knock(now) {
                    missing.knocked(node, false, now, MIDDLE);
                }
                assert_eq!(missing.next(true), Some(now + ms(expected)), "{seconds} s, {is_b_connected}");
            }
        }
    }

    #[test]
    fn jitter_makes_pauses_longer_or_shorter_and_the_grace_longer() {
        for (chance, pause, grace) in [(0.0, 200, 300), (0.5, 250, 375), (1.0, 300, 450)] {
            let (mut missing, begin) = missing(true);
            let now = begin + ms(500);
            missing.knock(now);
            missing.knocked('a', false, now, chance);
            assert_eq!(missing.next(true), Some(now + ms(pause)));
            let now = now + ms(pause);
            missing.knock(now);
            missing.knocked('a', true, now, chance);
            assert_eq!(missing.next(true), Some(now + ms(grace)));
        }
    }

    #[test]
    fn a_node_that_answers_is_reconnected_when_the_driver_has_had_its_time() {
        let (mut missing, begin) = missing(true);
        let now = begin + ms(500);
        answers(&mut missing, now);
        assert_eq!((missing.due(now + ms(299)), missing.due(now + ms(300))), (vec![], vec!['a']));
        assert_eq!(missing.knock(now + ms(60_000)), None, "it has answered");
    }

    #[test]
    fn it_is_tried_again_less_and_less_often_and_knocked_at_before() {
        let (mut missing, begin) = missing(true);
        let mut now = begin + ms(500);
        for wait in [2_000, 4_000, 8_000, 10_000, 10_000] {
            answers(&mut missing, now);
            now = now + ms(300);
            assert_eq!(missing.due(now), ['a']);
            missing.tried('a', Tried::Done, now, MIDDLE);
            assert!(missing.due(now).is_empty());
            assert_eq!((missing.knock(now + ms(wait - 1)), missing.next(true)), (None, Some(now + ms(wait))));
            now = now + ms(wait);
        }
        // After many years, too.
        for _ in 0..40 {
            missing.tried('a', Tried::Done, now, MIDDLE);
        }
        assert_eq!(missing.next(true), Some(now + ms(10_000)));
    }

    #[test]
    fn what_the_driver_could_not_even_begin_is_tried_again_soon() {
        let (mut missing, begin) = missing(true);
        answers(&mut missing, begin + ms(500));
        let now = begin + ms(800);
        missing.tried('a', Tried::Nothing, now, MIDDLE);
        assert_eq!(missing.next(true), Some(now + ms(500)));
        answers(&mut missing, now + ms(500));
        missing.tried('a', Tried::Done, now + ms(800), MIDDLE);
        assert_eq!(missing.next(true), Some(now + ms(2_800)), "it does not count as a try");
    }

    #[test]
    fn while_no_knock_may_begin_nothing_but_a_reconnection_is_waited_for() {
        let (mut missing, begin) = one_after_the_other();
        let now = begin + ms(500);
        answers(&mut missing, now);
        assert_eq!((missing.next(true), missing.next(false)), (Some(now + ms(10)), Some(now + ms(300))));
        missing.tried('a', Tried::Done, now + ms(300), MIDDLE);
        assert_eq!(missing.next(false), None);
    }

    #[test]
    fn a_knock_that_never_ends_is_made_again() {
        let (mut missing, begin) = missing(true);
        let now = begin + ms(500);
        assert_eq!(missing.knock(now), Some('a'));
        assert_eq!((missing.knock(now + ms(4_999)), missing.knock(now + ms(5_000))), (None, Some('a')));
    }

    #[test]
    fn whoever_has_waited_longest_is_knocked_at_first() {
        let (mut missing, begin) = one_after_the_other();
        let now = begin + ms(600);
        assert_eq!(
            [missing.knock(now), missing.knock(now), missing.knock(now)],
            [Some('a'), Some('b'), None]
        );
    }
}
