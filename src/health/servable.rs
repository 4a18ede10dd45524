//! Can a consistency level be served by the replicas that are up?
//!
//! A plain core: it is told where the replicas are and who is up. It counts as a coordinator does, so that its "no" is what the
//! cluster would answer with `Unavailable`.

use scylla::statement::Consistency;

/// One replica of a range: its node, and the datacenter which that is in. Both are indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Replica {
    pub(crate) node: usize,
    pub(crate) datacenter: usize,
}

/// All ranges that have the same replicas.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReplicaSet {
    pub(crate) replicas: Box<[Replica]>,
    /// How much of the ring that is, in a unit which all sets of a keyspace share.
    pub(crate) width: f64,
}

/// How many replicas a keyspace has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Factors {
    /// So many, wherever the ring puts them.
    Anywhere(usize),
    /// So many in each of these datacenters.
    ByDatacenter(Vec<(usize, usize)>),
}

impl Factors {
    fn total(&self) -> usize {
        match self {
            Self::Anywhere(factor) => *factor,
            Self::ByDatacenter(factors) => factors.iter().map(|(_, factor)| factor).sum(),
        }
    }

    /// What a coordinator goes by for a quorum in its datacenter. Without factors by datacenter that is the quorum of all, of
    /// which it then counts those near it.
    fn near(&self, datacenter: usize) -> usize {
        match self {
            Self::Anywhere(factor) => *factor,
            Self::ByDatacenter(factors) => {
                factors.iter().find(|(of, _)| *of == datacenter).map_or(0, |(_, factor)| *factor)
            }
        }
    }
}

/// Where the replicas of a keyspace are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Placement {
    /// By the ring: each range has its replicas.
    Ring(Factors, Vec<ReplicaSet>),
    /// The numbers are known and the places are not, as with tablets: any nodes of a datacenter are as likely as others.
    Numbers(Factors),
    /// Nobody can say, or each node has all of it: whoever coordinates is taken to serve.
    Everywhere,
}

/// A node at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) datacenter: usize,
    /// Whether it counts as a replica.
    pub(crate) up: bool,
    /// Whether a request can be sent to it.
    pub(crate) coordinates: bool,
}

/// What can be served.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// The share of the ring, from 0 to 1. Exactly 1 if all of it, exactly 0 if nothing of it.
    pub(crate) share: f64,
    /// The datacenters of which a coordinator could serve all of it.
    pub(crate) datacenters: Vec<usize>,
    /// What is in the way where it is most.
    pub(crate) obstacle: Option<Obstacle>,
}

/// What is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// No node is up that could coordinate: in this datacenter, or anywhere.
    NoCoordinator { datacenter: Option<usize> },
    /// The keyspace has no replicas in the datacenter that is to serve.
    NoReplicas { datacenter: usize },
    /// A range has too few replicas that are up.
    TooFew(Shortage),
}

/// What a range lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shortage {
    /// Where they are counted, if not everywhere.
    pub(crate) datacenter: Option<usize>,
    pub(crate) required: usize,
    pub(crate) up: usize,
    pub(crate) replicas: usize,
    /// The nodes of those that are not up.
    pub(crate) down: Vec<usize>,
}

impl Shortage {
    fn missing(&self) -> usize {
        self.required - self.up
    }
}

impl Verdict {
    fn nothing(obstacle: Obstacle) -> Self {
        Self { share: 0.0, datacenters: Vec::new(), obstacle: Some(obstacle) }
    }
}

/// Judges what of a keyspace can be served at a consistency level, by a coordinator of the datacenter `near`, or of any.
pub(crate) fn judge(
    placement: &Placement,
    members: &[Member],
    consistency: Consistency,
    near: Option<usize>,
) -> Verdict {
    let mut coordinators: Vec<_> =
        members.iter().filter(|member| member.coordinates).map(|member| member.datacenter).collect();
    coordinators.sort_unstable();
    coordinators.dedup();
    let chosen: Vec<_> = coordinators
        .iter()
        .copied()
        .filter(|datacenter| near.is_none_or(|near| near == *datacenter))
        .collect();

    let counted;
    let (factors, sets) = match placement {
        Placement::Everywhere if chosen.is_empty() => {
            return Verdict::nothing(Obstacle::NoCoordinator { datacenter: near });
        }
        Placement::Everywhere => {
            return Verdict { share: 1.0, datacenters: coordinators, obstacle: None };
        }
        Placement::Ring(factors, sets) => (factors, sets.as_slice()),
        Placement::Numbers(factors) => {
            counted = likely_sets(factors, members, near);
            (factors, counted.as_slice())
        }
    };
    let judge = Judge { factors, sets, members, consistency };
    let datacenters = coordinators.into_iter().filter(|near| judge.serves_all(*near)).collect();
    if let Some(near) = near.filter(|near| is_local(consistency) && !judge.has_replicas(*near)) {
        return Verdict { datacenters, ..Verdict::nothing(Obstacle::NoReplicas { datacenter: near }) };
    }
    if chosen.is_empty() {
        return Verdict { datacenters, ..Verdict::nothing(Obstacle::NoCoordinator { datacenter: near }) };
    }
    let (share, worst) = judge.share(&chosen);
    Verdict { share, datacenters, obstacle: worst.map(Obstacle::TooFew) }
}

/// Whether the level counts the replicas of the coordinator's datacenter only.
const fn is_local(consistency: Consistency) -> bool {
    matches!(consistency, Consistency::LocalOne | Consistency::LocalQuorum | Consistency::LocalSerial)
}

struct Judge<'a> {
    factors: &'a Factors,
    sets: &'a [ReplicaSet],
    members: &'a [Member],
    consistency: Consistency,
}

impl Judge<'_> {
    fn serves_all(&self, near: usize) -> bool {
        self.sets.iter().all(|set| self.shortage(set, near).is_none())
    }

    fn has_replicas(&self, datacenter: usize) -> bool {
        self.sets.iter().any(|set| set.replicas.iter().any(|replica| replica.datacenter == datacenter))
    }

    /// The share that a coordinator of one of these datacenters can serve, and the worst of what it cannot.
    fn share(&self, coordinators: &[usize]) -> (f64, Option<Shortage>) {
        let (mut served, mut all) = (0.0, 0.0);
        let mut worst: Option<Shortage> = None;
        for set in self.sets {
            all += set.width;
            let mut least: Option<Shortage> = None;
            let is_served = coordinators.iter().any(|near| match self.shortage(set, *near) {
                None => true,
                Some(shortage) => {
                    if least.as_ref().is_none_or(|least| shortage.missing() < least.missing()) {
                        least = Some(shortage);
                    }
                    false
                }
            });
            if is_served {
                served += set.width;
            } else if let Some(shortage) = least
                && worst.as_ref().is_none_or(|worst| shortage.missing() > worst.missing())
            {
                worst = Some(shortage);
            }
        }
        // Sums of floating point need not add up.
        let share = if worst.is_none() { 1.0 } else { served / all };
        (share, worst)
    }

    /// What a set lacks for the level, with a coordinator of the datacenter `near`.
    fn shortage(&self, set: &ReplicaSet, near: usize) -> Option<Shortage> {
        let everywhere = |required| self.count(set, None, required);
        let here = |required| self.count(set, Some(near), required);
        match self.consistency {
            // A coordinator that is up writes a hint.
            Consistency::Any => None,
            Consistency::One => everywhere(1),
            Consistency::Two => everywhere(2),
            Consistency::Three => everywhere(3),
            Consistency::Quorum => everywhere(quorum(self.factors.total())),
            Consistency::All => everywhere(self.factors.total().max(1)),
            Consistency::LocalOne => here(1),
            Consistency::LocalQuorum => here(quorum(self.factors.near(near))),
            Consistency::EachQuorum => match self.factors {
                Factors::Anywhere(factor) => everywhere(quorum(*factor)),
                Factors::ByDatacenter(factors) => factors
                    .iter()
                    .filter_map(|(datacenter, factor)| self.count(set, Some(*datacenter), quorum(*factor)))
                    .max_by_key(Shortage::missing),
            },
            // Paxos counts the replicas that there are, whatever their number should be.
            Consistency::Serial => everywhere(quorum(set.replicas.len())),
            Consistency::LocalSerial => {
                here(quorum(set.replicas.iter().filter(|replica| replica.datacenter == near).count()))
            }
        }
    }

    fn count(&self, set: &ReplicaSet, datacenter: Option<usize>, required: usize) -> Option<Shortage> {
        let counted =
            || set.replicas.iter().filter(|replica| datacenter.is_none_or(|only| only == replica.datacenter));
        let is_up = |replica: &&Replica| self.members.get(replica.node).is_some_and(|member| member.up);
        let up = counted().filter(is_up).count();
        (up < required).then(|| Shortage {
            datacenter,
            required,
            up,
            replicas: counted().count(),
            down: counted().filter(|replica| !is_up(replica)).map(|replica| replica.node).collect(),
        })
    }
}

const fn quorum(replicas: usize) -> usize {
    replicas / 2 + 1
}

/// The sets of replicas that there may be where only numbers are known, each as wide as it is likely.
///
/// Nodes of a datacenter differ in nothing but whether they are up, so that a set is told by how many of its replicas are down in
/// each datacenter. Those of several datacenters multiply, up to [`MOST_SETS`]: see [`extremes`]. The datacenter `near` comes last, so that
/// what counts its replicas only is exact all the same.
fn likely_sets(factors: &Factors, members: &[Member], near: Option<usize>) -> Vec<ReplicaSet> {
    let all: Vec<_> = (0..members.len()).collect();
    match factors {
        Factors::Anywhere(factor) => draws(*factor, &all, members),
        Factors::ByDatacenter(factors) => {
            let empty = ReplicaSet { replicas: Box::default(), width: 1.0 };
            let is_near = |(datacenter, _): &&(usize, usize)| Some(*datacenter) == near;
            let others = factors.iter().filter(|of| !is_near(of));
            others.chain(factors.iter().filter(is_near)).fold(vec![empty], |sets, (datacenter, factor)| {
                let mut nodes = all.clone();
                nodes.retain(|node| members[*node].datacenter == *datacenter);
                let draws = draws(*factor, &nodes, members);
                let sets = if sets.len() * draws.len() > MOST_SETS { extremes(sets) } else { sets };
                let pairs = sets.iter().flat_map(|set| draws.iter().map(move |draw| (set, draw)));
                pairs
                    .map(|(set, draw)| ReplicaSet {
                        replicas: set.replicas.iter().chain(&draw.replicas).copied().collect(),
                        width: set.width * draw.width,
                    })
                    .collect()
            })
        }
    }
}

/// With three replicas in each, so many sets are enough for five datacenters that all have nodes down.
const MOST_SETS: usize = 1_024;

/// Of many sets the first, which has the fewest replicas down in each datacenter, and in place of all others the last, which has the most.
/// So what can be served is still told from what cannot, be it all or nothing of it, and a share in between is at most what it is.
fn extremes(mut sets: Vec<ReplicaSet>) -> Vec<ReplicaSet> {
    if sets.len() > 2 {
        let others = sets[1..].iter().map(|set| set.width).sum();
        sets.drain(1..sets.len() - 1);
        sets[1].width = others;
    }
    sets
}

/// The ways to draw so many of these nodes, by how many of them are down, the fewest first: the hypergeometric distribution.
fn draws(factor: usize, nodes: &[usize], members: &[Member]) -> Vec<ReplicaSet> {
    let (up, down): (Vec<usize>, Vec<usize>) = nodes.iter().partition(|node| members[**node].up);
    let factor = factor.min(nodes.len());
    let fewest = factor.saturating_sub(up.len());
    let most = factor.min(down.len());
    (fewest..=most)
        .map(|of_down| {
            let of_up = factor - of_down;
            let drawn = down[..of_down].iter().chain(&up[..of_up]);
            ReplicaSet {
                replicas: drawn
                    .map(|node| Replica { node: *node, datacenter: members[*node].datacenter })
                    .collect(),
                width: ways(down.len(), of_down) * ways(up.len(), of_up),
            }
        })
        .collect()
}

/// In how many ways so many can be chosen of them.
#[expect(clippy::cast_precision_loss, reason = "numbers of nodes")]
fn ways(of: usize, chosen: usize) -> f64 {
    (0..chosen).fold(1.0, |ways, i| ways * (of - i) as f64 / (i + 1) as f64)
}

#[cfg(test)]
mod tests;
