//! Which of several nodes is asked?

use std::cmp::Ordering;

use smallvec::SmallVec;

use crate::nodes::Standing;

/// A node that may be asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) standing: Standing,
    /// Whether this request was sent there already, and not answered well.
    pub(super) is_tried: bool,
    /// Whether this request is to find out whether the node is well again.
    pub(super) is_due: bool,
    /// Whether it is nearer than the others: in the preferred rack, where one is preferred.
    pub(super) is_near: bool,
    /// The share of its usual traffic that it may have.
    pub(super) weight: f64,
}

/// How much a node has to do, for those that are compared.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    /// How long an answer takes, in nanoseconds; zero if nobody knows.
    pub(super) latency: u64,
    pub(super) in_flight: u32,
}

/// What a node that is slower is reckoned with at most, in times of the faster one. An estimate may be wrong, or be of other statements;
/// so a node that seems slow gets its share as soon as the others are this much busier.
const SLOWEST: u64 = 16;

/// How much slower a node of the preferred rack may be than one of another before it is left.
const NEARNESS: f64 = 4.0;

/// The node to ask of several that serve equally well, and how many others would do: two of those that are usable and not tried are drawn,
/// and the better one is taken ([power of two choices]). `None` if there is none.
///
/// `draw(n)` draws a number below n.
///
/// [power of two choices]: https://www.eecs.harvard.edu/~michaelm/postscripts/mythesis.pdf
pub(super) fn choose<C: AsRef<Candidate>>(
    candidates: &[C],
    mut draw: impl FnMut(usize) -> usize,
    work: impl Fn(&C) -> Work,
) -> Option<(usize, usize)> {
    let candidate = |index: usize| candidates[index].as_ref();
    let mut usable = Indices::new();
    let (mut comes_back, mut is_near) = (false, false);
    for index in 0..candidates.len() {
        let candidate = candidate(index);
        if candidate.is_good() {
            usable.push(index);
            comes_back |= candidate.weight < 1.0;
            is_near |= candidate.is_near;
        }
    }
    let others = usable.len().checked_sub(1)?;
    // It would hardly be drawn, since it was slow at the end, and come back long after it is well.
    if let Some(due) = usable.iter().find(|index| candidate(**index).is_due) {
        return Some((*due, others));
    }
    if comes_back {
        let mut drawn = usable.clone();
        drawn.retain(|index| is_drawn(candidate(*index).weight, &mut draw));
        if !drawn.is_empty() {
            usable = drawn;
        }
    }
    let costs = |one: usize, other: usize| costs(work(&candidates[one]), work(&candidates[other]));
    let mut better_of_two = |of: &[usize]| match *of {
        [] => None,
        [only] => Some(only),
        _ => {
            let first = draw(of.len());
            // Any but the first.
            let second = first + 1 + draw(of.len() - 1);
            let second = if second < of.len() { second } else { second - of.len() };
            let (one, other) = costs(of[first], of[second]);
            Some(of[if other < one { second } else { first }])
        }
    };
    let best = if is_near {
        let (near, far): (Indices, Indices) = usable.into_iter().partition(|index| candidate(*index).is_near);
        match (better_of_two(&near), better_of_two(&far)) {
            (Some(near), Some(far)) => {
                let (near_cost, far_cost) = costs(near, far);
                if near_cost > NEARNESS * far_cost { far } else { near }
            }
            (near, far) => near.or(far)?,
        }
    } else {
        better_of_two(&usable)?
    };
    Some((best, others))
}

impl Candidate {
    /// Whether it may well be asked.
    pub(super) fn is_good(&self) -> bool {
        self.standing.is_good() && !self.is_tried
    }
}

type Indices = SmallVec<[usize; 8]>;

/// A node that comes back is a candidate for its share of the requests only.
fn is_drawn(weight: f64, draw: &mut impl FnMut(usize) -> usize) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "a share in thousandths")]
    let is_below = |weight: f64, draw: usize| (draw as f64) < weight * 1_000.0;
    weight >= 1.0 || is_below(weight, draw(1_000))
}

/// What it costs to wait for either: the latency, for this request and for those before it.
fn costs(one: Work, other: Work) -> (f64, f64) {
    // Where nothing is known of one, the two are taken for equally fast.
    let (one_latency, other_latency) = match (one.latency, other.latency) {
        (0, _) | (_, 0) => (1, 1),
        (one, other) => (one.min(other.saturating_mul(SLOWEST)), other.min(one.saturating_mul(SLOWEST))),
    };
    #[expect(clippy::cast_precision_loss, reason = "costs are only compared")]
    let cost = |latency: u64, in_flight: u32| latency as f64 * (f64::from(in_flight) + 1.0);
    (cost(one_latency, one.in_flight), cost(other_latency, other.in_flight))
}

/// How much a node is to be avoided when there is no better one, the least first: none is left out.
pub(super) fn by_merit(one: &Candidate, other: &Candidate) -> Ordering {
    let merit = |candidate: &Candidate| match (candidate.standing, candidate.is_tried) {
        (Standing::Usable | Standing::Due, false) => 0,
        (Standing::Usable | Standing::Due, true) => 1,
        (Standing::Full, false) => 2,
        (Standing::Ejected, false) => 3,
        (Standing::Full | Standing::Ejected, true) => 4,
        (Standing::Down, _) => 5,
    };
    merit(one).cmp(&merit(other))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    #[derive(Clone, Copy, Debug)]
    struct Given {
        of: Candidate,
        work: Work,
    }

    impl AsRef<Candidate> for Given {
        fn as_ref(&self) -> &Candidate {
            &self.of
        }
    }

    fn node(latency: u64, in_flight: u32) -> Given {
        Given {
            of: Candidate {
                standing: Standing::Usable,
                is_tried: false,
                is_due: false,
                is_near: false,
                weight: 1.0,
            },
            work: Work { latency: latency * MS, in_flight },
        }
    }

    fn choose(nodes: &[Given], draw: impl FnMut(usize) -> usize) -> Option<(usize, usize)> {
        super::choose(nodes, draw, |node| node.work)
    }

    /// Draws these numbers one after the other.
    fn drawn(numbers: &[usize]) -> impl FnMut(usize) -> usize {
        let mut numbers = numbers.iter().copied();
        move |below| {
            let number = numbers.next().expect("another draw");
            assert!(number < below, "{number} of {below}");
            number
        }
    }

    #[test]
    fn of_two_that_are_drawn_the_one_with_less_latency_times_work_is_asked() {
        let nodes = [node(2, 3), node(4, 0), node(1, 9)];
        // 2 x 4 against 4 x 1, and 4 x 1 against 1 x 10, and 1 x 10 against 2 x 4.
        assert_eq!(choose(&nodes, drawn(&[0, 0])), Some((1, 2)));
        assert_eq!(choose(&nodes, drawn(&[1, 0])), Some((1, 2)));
        assert_eq!(choose(&nodes, drawn(&[2, 0])), Some((0, 2)));
    }

    #[test]
    fn what_is_ejected_full_down_or_tried_is_not_drawn() {
        let mut nodes = [node(1, 0); 5];
        nodes[0].of.standing = Standing::Ejected;
        nodes[1].of.standing = Standing::Full;
        nodes[2].of.standing = Standing::Down;
        nodes[3].of.is_tried = true;
        assert_eq!(choose(&nodes, drawn(&[])), Some((4, 0)));
        nodes[4].of.is_tried = true;
        assert_eq!(choose(&nodes, drawn(&[])), None);
        assert_eq!(choose(&[], drawn(&[])), None);
    }

    #[test]
    fn a_node_that_may_be_well_again_is_asked_once_however_slow_it_was() {
        let mut nodes = [node(1, 0), node(5_000, 9), node(1, 0)];
        (nodes[1].of.standing, nodes[1].of.is_due) = (Standing::Due, true);
        assert_eq!(choose(&nodes, drawn(&[])), Some((1, 2)));
        nodes[1].of.is_tried = true;
        assert_eq!(choose(&nodes, drawn(&[0, 0])), Some((0, 1)));
    }

    #[test]
    fn where_nothing_is_known_of_a_node_the_one_with_less_work_is_asked() {
        assert_eq!(choose(&[node(0, 1), node(50, 0)], drawn(&[0, 0])), Some((1, 1)));
        assert_eq!(choose(&[node(0, 0), node(1, 1)], drawn(&[1, 0])), Some((0, 1)));
    }

    #[test]
    fn a_slow_node_gets_its_share_when_the_others_are_sixteen_times_as_busy() {
        assert_eq!(choose(&[node(1_000, 0), node(1, 14)], drawn(&[0, 0])), Some((1, 1)));
        assert_eq!(choose(&[node(1_000, 0), node(1, 16)], drawn(&[0, 0])), Some((0, 1)));
    }

    #[test]
    fn a_node_that_has_come_back_gets_its_share_of_the_draws() {
        let mut nodes = [node(1, 9), node(1, 0)];
        nodes[1].of.weight = 0.25;
        assert_eq!(choose(&nodes, drawn(&[250])), Some((0, 1)));
        assert_eq!(choose(&nodes, drawn(&[249, 0, 0])), Some((1, 1)));
        // Where there is no other it is asked in any case.
        assert_eq!(choose(&nodes[1..], drawn(&[999])), Some((0, 0)));
    }

    #[test]
    fn the_preferred_rack_is_left_only_for_what_is_much_faster() {
        let mut nodes = [node(3, 0), node(1, 0), node(1, 0)];
        nodes[0].of.is_near = true;
        assert_eq!(choose(&nodes, drawn(&[0, 0])), Some((0, 2)));
        nodes[0].work.latency = 5 * MS;
        assert_eq!(choose(&nodes, drawn(&[0, 0])), Some((1, 2)));
        nodes[0].of.standing = Standing::Ejected;
        assert_eq!(choose(&nodes, drawn(&[1, 0])), Some((2, 1)));
    }

    #[test]
    fn what_is_to_be_avoided_comes_last_and_is_not_left_out() {
        let of = |standing, is_tried| Candidate { standing, is_tried, ..node(1, 0).of };
        let mut nodes = [
            of(Standing::Down, false),
            of(Standing::Ejected, true),
            of(Standing::Ejected, false),
            of(Standing::Full, false),
            of(Standing::Usable, true),
            of(Standing::Usable, false),
        ];
        nodes.sort_by(by_merit);
        let order = nodes.map(|node| (node.standing, node.is_tried));
        assert_eq!(
            order,
            [
                (Standing::Usable, false),
                (Standing::Usable, true),
                (Standing::Full, false),
                (Standing::Ejected, false),
                (Standing::Ejected, true),
                (Standing::Down, false),
            ]
        );
    }

    fn given() -> impl Strategy<Value = Given> {
        let standing =
            prop::sample::select(&[Standing::Usable, Standing::Full, Standing::Ejected, Standing::Down][..]);
        (standing, any::<bool>(), any::<bool>(), any::<u64>(), any::<u32>(), 0.0..=1.0).prop_map(
            |(standing, is_tried, is_near, latency, in_flight, weight)| Given {
                of: Candidate { standing, is_tried, is_due: false, is_near, weight },
                work: Work { latency, in_flight },
            },
        )
    }

    proptest! {
        #[test]
        fn only_usable_nodes_that_were_not_tried_are_chosen_and_one_of_them_if_there_is_one(
            nodes in prop::collection::vec(given(), 0..8),
            seed in any::<u64>(),
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let good = |node: &Given| node.of.standing == Standing::Usable && !node.of.is_tried;
            let expected = nodes.iter().filter(|node| good(node)).count();
            let Some((index, others)) = choose(&nodes, |below| random.usize(..below)) else {
                prop_assert_eq!(expected, 0);
                return Ok(());
            };
            prop_assert!(good(&nodes[index]));
            prop_assert_eq!(others + 1, expected);
        }
    }

    /// The better node gets all but what is drawn from the others alone: of three, the slowest gets nothing.
    #[test]
    fn of_three_nodes_the_slowest_gets_next_to_nothing() {
        let nodes = [node(2, 0), node(2, 0), node(40, 0)];
        let mut random = fastrand::Rng::with_seed(7);
        let mut asked = [0; 3];
        for _ in 0..3_000 {
            asked[choose(&nodes, |below| random.usize(..below)).unwrap().0] += 1;
        }
        assert_eq!(asked[2], 0, "{asked:?}");
        assert!(asked[0] > 1_200 && asked[1] > 1_200, "{asked:?}");
    }
}
