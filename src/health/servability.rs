//! What can be served, by the nodes as they are known to all: for those who ask without a monitor.

use std::sync::{Arc, Mutex, PoisonError};

use scylla::{
    cluster::{ClusterState, Node as DriverNode},
    statement::Consistency,
};

use super::{
    placement::{Place, Topology},
    servable::{Member, Obstacle, judge},
};
use crate::nodes::{Known, Node, Nodes};

/// Keeps what is worked out of the ring, since that seldom changes.
#[derive(Debug, Default)]
pub(crate) struct Servability {
    known: Mutex<Option<(Arc<ClusterState>, Arc<Topology>)>>,
}

/// What can be served at a moment.
pub(crate) struct Look {
    cluster: Arc<ClusterState>,
    topology: Arc<Topology>,
    // Who is not known to be sick.
    members: Vec<Member>,
    // Who is known not to be.
    sound: Vec<Member>,
}

impl Servability {
    /// Looks at the nodes. One is up as long as the driver has a connection to it and, where somebody probes, it is not ejected; it is sound
    /// if its circuit is closed besides. Where nobody probes a circuit is closed by traffic only, and tells nothing where there is none. What
    /// a filter keeps the driver from is up, as far as anybody knows, and cannot coordinate.
    pub(crate) fn look(&self, cluster: Arc<ClusterState>, nodes: &Nodes) -> Look {
        let topology = self.topology(&cluster);
        let (is_probed, table) = (nodes.is_probed(), nodes.table());
        let members = |is_well: fn(&Node) -> bool| {
            let is_up = |driver: &DriverNode, known: Option<&Known>| {
                driver.is_connected() && known.is_none_or(|known| !is_probed || is_well(&known.node))
            };
            let member = |place: &Place| {
                let (datacenter, known) = (place.datacenter, table.find(place.host_id));
                let Some(driver) = cluster.get_node_by_host_id(place.host_id) else {
                    return Member { datacenter, up: false, coordinates: false };
                };
                if !driver.is_enabled() && !known.is_some_and(Known::is_enabled) {
                    return Member { datacenter, up: true, coordinates: false };
                }
                let up = is_up(driver, known);
                Member { datacenter, up, coordinates: up }
            };
            topology.nodes().iter().map(member).collect()
        };
        let (up, sound) = (
            members(|node| !node.is_ejected()),
            members(|node| !node.is_ejected() && node.circuit().is_closed()),
        );
        Look { cluster, topology, members: up, sound }
    }

    /// Forgets the cluster, which has connections, when its session is gone.
    pub(crate) fn forget(&self) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn topology(&self, cluster: &Arc<ClusterState>) -> Arc<Topology> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let topology = match known.take() {
            Some((of, topology)) if Arc::ptr_eq(&of, cluster) => topology,
            Some((_, before)) => Topology::renewed(&before, cluster),
            None => Arc::new(Topology::of(cluster)),
        };
        *known = Some((Arc::clone(cluster), Arc::clone(&topology)));
        topology
    }
}

impl Look {
    /// Which share of a keyspace a coordinator in this datacenter can serve at this level; with `surely` by nodes that are sound only. `None`
    /// if the keyspace is not known, or if the level counts replicas of that datacenter and there are none.
    pub(crate) fn share(
        &self,
        keyspace: &str,
        consistency: Consistency,
        datacenter: &str,
        surely: bool,
    ) -> Option<f64> {
        let placement = self.topology.placement(&self.cluster, keyspace)?;
        let near = self.topology.datacenter(datacenter).unwrap_or(usize::MAX);
        let verdict = judge(&placement, self.members(surely), consistency, Some(near));
        (!matches!(verdict.obstacle, Some(Obstacle::NoReplicas { .. }))).then_some(verdict.share)
    }

    /// Whether any node of this datacenter that can coordinate is up, or sound.
    pub(crate) fn is_up(&self, datacenter: &str, surely: bool) -> bool {
        let near = self.topology.datacenter(datacenter);
        self.members(surely).iter().any(|member| member.coordinates && Some(member.datacenter) == near)
    }

    fn members(&self, surely: bool) -> &[Member] {
        if surely { &self.sound } else { &self.members }
    }
}
