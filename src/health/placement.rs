//! Where are the replicas, by what the driver knows of the cluster?

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
};

use quick_cache::sync::Cache;
use scylla::{
    cluster::{ClusterState, metadata::Strategy},
    frame::response::result::TableSpec,
};
use std::sync::Arc;
use uuid::Uuid;

use super::servable::{Factors, Placement, Replica, ReplicaSet};

/// Of how many keyspaces it is kept where their replicas are.
const KEYSPACES: usize = 256;

/// The nodes and their places on the ring. Everything about replicas goes by indices into it.
#[derive(Debug)]
pub(super) struct Topology {
    fingerprint: u64,
    /// Ordered by host id.
    nodes: Vec<Place>,
    /// Ordered by name.
    datacenters: Vec<String>,
    placements: Cache<String, Arc<Placed>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) host_id: Uuid,
    pub(super) address: SocketAddr,
    pub(super) datacenter: usize,
}

#[derive(Debug)]
struct Placed {
    strategy: Strategy,
    placement: Placement,
}

impl Topology {
    /// Of no nodes at all.
    pub(super) fn empty() -> Self {
        Self { fingerprint: 0, nodes: Vec::new(), datacenters: Vec::new(), placements: Cache::new(1) }
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
        Self { fingerprint: hasher.finish(), nodes, datacenters, placements: Cache::new(KEYSPACES) }
    }

    /// Whether nodes and ring are the same, so that what was worked out still holds.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
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
    pub(super) fn placement(
        &self,
        cluster: &ClusterState,
        keyspace: &str,
    ) -> Option<Arc<impl AsRef<Placement> + use<>>> {
        let known = cluster.get_keyspace(keyspace)?;
        if let Some(placed) = self.placements.get(keyspace)
            && placed.strategy == known.strategy
        {
            return Some(placed);
        }
        let placement = match self.factors(&known.strategy) {
            None => Placement::Everywhere,
            Some(factors) => {
                let sets = if known.tablet_based {
                    Vec::new()
                } else {
                    self.sets(cluster, keyspace, &known.strategy)
                };
                // With tablets the driver knows replicas only of what was asked for, and without a ring none at all.
                if sets.is_empty() { Placement::Numbers(factors) } else { Placement::Ring(factors, sets) }
            }
        };
        let placed = Arc::new(Placed { strategy: known.strategy.clone(), placement });
        self.placements.insert(keyspace.to_owned(), Arc::clone(&placed));
        Some(placed)
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
        let Some(mut before) = tokens.last().map(|token| token.value()) else { return Vec::new() };
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

impl AsRef<Placement> for Placed {
    fn as_ref(&self) -> &Placement {
        &self.placement
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
