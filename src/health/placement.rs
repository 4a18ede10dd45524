//! Where are the replicas, by what the driver knows of the cluster?

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use scylla::{
    cluster::{ClusterState, metadata::Strategy},
    frame::response::result::TableSpec,
    routing::Token,
};
use uuid::Uuid;

use super::servable::{Factors, Placement, Replica, ReplicaSet};

/// For how many strategies it is kept where they put the replicas. Most clusters have three or four.
const STRATEGIES: usize = 32;

/// The nodes and their places on the ring. Everything about replicas goes by indices into it.
#[derive(Debug)]
pub(super) struct Topology {
    fingerprint: u64,
    /// Ordered by host id.
    nodes: Vec<Place>,
    /// Ordered by name.
    datacenters: Vec<String>,
    /// The oldest first.
    placements: Mutex<VecDeque<Placed>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) host_id: Uuid,
    pub(super) address: SocketAddr,
    pub(super) datacenter: usize,
}

/// Keyspaces with the same strategy have their replicas in the same places.
#[derive(Debug)]
struct Placed {
    strategy: Strategy,
    has_tablets: bool,
    placement: Arc<Placement>,
}

impl Topology {
    /// Of no nodes at all.
    pub(super) fn empty() -> Self {
        Self { fingerprint: 0, nodes: Vec::new(), datacenters: Vec::new(), placements: Mutex::default() }
    }

    pub(super) fn of(cluster: &ClusterState) -> Self {
        let name = |datacenter: &Option<String>| datacenter.clone().unwrap_or_default();
        let mut datacenters: Vec<_> =
            cluster.get_nodes_info().iter().map(|node| name(&node.datacenter)).collect();
        datacenters.sort_unstable();
        datacenters.dedup();
        let mut nodes: Vec<_> = cluster
            .get_nodes_info()
            .iter()
            .map(|node| Place {
                host_id: node.host_id,
                address: SocketAddr::new(node.address.ip(), node.address.port()),
                datacenter: index(&datacenters, &name(&node.datacenter)).unwrap_or_default(),
            })
            .collect();
        nodes.sort_unstable_by_key(|node| node.host_id);

        let mut hasher = DefaultHasher::new();
        (&nodes, &datacenters).hash(&mut hasher);
        for (token, node) in cluster.replica_locator().ring().iter() {
            (token.value(), node.host_id).hash(&mut hasher);
        }
        Self { fingerprint: hasher.finish(), nodes, datacenters, placements: Mutex::default() }
    }

    /// That of this state of the cluster: the one from before, with what was worked out of it, where that still holds.
    pub(super) fn renewed(before: &Arc<Self>, cluster: &ClusterState) -> Arc<Self> {
        let topology = Self::of(cluster);
        if topology.is_same_as(before) { Arc::clone(before) } else { Arc::new(topology) }
    }

    /// Whether nodes and ring are the same, so that what was worked out still holds.
    fn is_same_as(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint && self.nodes == other.nodes
    }

    pub(super) fn nodes(&self) -> &[Place] {
        &self.nodes
    }

    pub(super) fn datacenter(&self, name: &str) -> Option<usize> {
        index(&self.datacenters, name)
    }

    pub(super) fn datacenter_name(&self, datacenter: usize) -> &str {
        self.datacenters.get(datacenter).map_or("that has no nodes", String::as_str)
    }

    /// Where the replicas of a keyspace are; `None` if there is no such keyspace.
    pub(super) fn placement(&self, cluster: &ClusterState, keyspace: &str) -> Option<Arc<Placement>> {
        let known = cluster.get_keyspace(keyspace)?;
        let (strategy, has_tablets) = (&known.strategy, known.tablet_based);
        let is_same = |placed: &&Placed| placed.strategy == *strategy && placed.has_tablets == has_tablets;
        if let Some(placed) = self.placements().iter().find(is_same) {
            return Some(Arc::clone(&placed.placement));
        }
        let placement = match self.factors(strategy) {
            None => Placement::Everywhere,
            Some(factors) => {
                // With tablets the driver knows replicas only of what was asked for.
                let sets = if has_tablets { Vec::new() } else { self.sets(cluster, keyspace, strategy) };
                // And without a ring none at all.
                if sets.is_empty() { Placement::Numbers(factors) } else { Placement::Ring(factors, sets) }
            }
        };
        let placement = Arc::new(placement);
        let placed = Placed { strategy: strategy.clone(), has_tablets, placement: Arc::clone(&placement) };
        let mut placements = self.placements();
        // Others may have done the same meanwhile, and copies would leave less room.
        if let Some(placed) = placements.iter().find(is_same) {
            return Some(Arc::clone(&placed.placement));
        }
        placements.push_back(placed);
        if placements.len() > STRATEGIES {
            placements.pop_front();
        }
        Some(placement)
    }

    fn placements(&self) -> MutexGuard<'_, VecDeque<Placed>> {
        self.placements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many replicas there are; `None` where that depends on the node, or cannot be known.
    fn factors(&self, strategy: &Strategy) -> Option<Factors> {
        match strategy {
            Strategy::SimpleStrategy { replication_factor } => Some(Factors::Anywhere(*replication_factor)),
            Strategy::NetworkTopologyStrategy { datacenter_repfactors } => {
                let mut unknown = self.datacenters.len();
                let mut factors: Vec<_> = datacenter_repfactors
                    .iter()
                    .filter(|(_, factor)| **factor > 0)
                    .map(|(name, factor)| {
                        let datacenter = self.datacenter(name).unwrap_or_else(|| {
                            unknown += 1;
                            unknown
                        });
                        (datacenter, *factor)
                    })
                    .collect();
                factors.sort_unstable();
                Some(Factors::ByDatacenter(factors))
            }
            _ => None,
        }
    }

    /// All ranges of the ring, those with the same replicas as one.
    fn sets(&self, cluster: &ClusterState, keyspace: &str, strategy: &Strategy) -> Vec<ReplicaSet> {
        let locator = cluster.replica_locator();
        // Only with tablets does it depend on the table.
        let table = TableSpec::borrowed(keyspace, "");
        let tokens: Vec<_> = locator.ring().iter().map(|(token, _)| *token).collect();
        let Some(mut before) = tokens.last().map(Token::value) else { return Vec::new() };
        let mut widths: HashMap<Box<[Replica]>, f64> = HashMap::new();
        for token in tokens {
            let replicas = locator.replicas_for_token(token, strategy, None, &table);
            let mut replicas: Vec<_> =
                replicas.into_iter().filter_map(|(node, _)| self.replica(node.host_id)).collect();
            replicas.sort_unstable();
            *widths.entry(replicas.into()).or_default() += width(before, token.value());
            before = token.value();
        }
        let mut sets: Vec<_> =
            widths.into_iter().map(|(replicas, width)| ReplicaSet { replicas, width }).collect();
        sets.sort_unstable_by(|one, other| one.replicas.cmp(&other.replicas));
        sets
    }

    fn replica(&self, host_id: Uuid) -> Option<Replica> {
        let node = self.nodes.binary_search_by_key(&host_id, |place| place.host_id).ok()?;
        Some(Replica { node, datacenter: self.nodes[node].datacenter })
    }
}

fn index(datacenters: &[String], name: &str) -> Option<usize> {
    datacenters.binary_search_by(|known| known.as_str().cmp(name)).ok()
}

/// How many tokens there are from one, exclusive, to the next; all of them if it is the same.
#[expect(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "a share is wanted, around the ring")]
fn width(after: i64, to: i64) -> f64 {
    let tokens = to.wrapping_sub(after) as u64;
    if tokens == 0 { 2_f64.powi(64) } else { tokens as f64 }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "what is expected is exact")]
mod tests {
    use super::*;

    #[test]
    fn a_range_goes_from_one_token_to_the_next_around_the_ring() {
        assert_eq!(width(-10, 30), 40.0);
        assert_eq!(width(i64::MAX - 1, i64::MIN + 2), 4.0);
        assert_eq!(width(i64::MIN, i64::MAX), 2_f64.powi(64), "to the nearest");
        assert_eq!(width(7, 7), 2_f64.powi(64), "a single token has all of it");
    }
}
