//! What is known of each node: one record for all who need it, fed by every attempt.
//!
//! The driver knows of a node whether it has a connection. That a node takes requests and answers none, or answers ten times slower than
//! the others, it does not see; and when a caller drops a call, nobody tells it. Here each attempt is charged to the node that was
//! really asked, whether it was answered, failed, or was given up. [Routing](crate::routing) goes by that, and health reports it.
//!
//! | what is kept | tells |
//! | --- | --- |
//! | attempts under way | how busy it is with our work |
//! | a peak-sensitive average of latencies | how long the next answer may take |
//! | attempts since the last answer, and for how long | that it hangs, long before a timeout |
//! | attempts that were given up | how close its connection is to being torn down by the driver |
//! | a circuit breaker | whether it is to be left alone |
//! | when it came, or came back | how much of its traffic it may have |
//!
//! Only reads and writes of single partitions count for the latency and for what is unanswered: a scan or a lightweight
//! transaction takes as long as it takes. Everything counts as an answer.

mod abandoned;
mod latency;
mod node;
mod rules;
mod silence;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use arc_swap::{ArcSwap, Guard};
use palisade::Instant;
use scylla::cluster::{ClusterState, Node as DriverNode};
use tokio::sync::watch;
use uuid::Uuid;

pub use self::node::{Availability, Figures, Node};
use self::rules::Shared;
pub(crate) use self::{
    node::{Asked, Standing},
    rules::{Probing, Rules, SlowStart},
};

/// The nodes of a session's cluster.
pub struct Nodes {
    table: ArcSwap<Table>,
    shared: Arc<Shared>,
    // Held while the table or the set of ejected nodes changes.
    changing: Mutex<()>,
    version: watch::Sender<u64>,
    me: Weak<Self>,
    // The state of the cluster that was looked at last, by its place in memory, and in which second since the beginning.
    since: Instant,
    seen: AtomicUsize,
    seen_at: AtomicU64,
}

/// All nodes, ordered by host id.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Known>);

/// A node, as the driver knows it and as we do.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) driver: Arc<DriverNode>,
    pub(crate) node: Arc<Node>,
}

impl Known {
    /// Whether the driver has a connection to it.
    pub(crate) fn is_connected(&self) -> bool {
        self.driver.is_connected()
    }

    /// Whether the driver is to have connections to it, and is not only kept from it for a moment, to connect anew.
    pub(crate) fn is_enabled(&self) -> bool {
        self.driver.is_enabled() || self.node.is_withheld()
    }

    pub(crate) fn availability(&self) -> Availability {
        self.node.availability(self.is_connected())
    }
}

impl Table {
    #[inline]
    pub(crate) fn find(&self, host_id: Uuid) -> Option<&Known> {
        // A few are found faster one by one.
        if self.0.len() <= 8 {
            return self.0.iter().find(|known| known.node.host_id() == host_id);
        }
        let index = self.0.binary_search_by_key(&host_id, |known| known.node.host_id()).ok()?;
        self.0.get(index)
    }

    fn holds(&self, node: &Arc<Node>) -> bool {
        self.find(node.host_id()).is_some_and(|known| Arc::ptr_eq(&known.node, node))
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Known> {
        self.0.iter()
    }
}

impl Nodes {
    pub(crate) fn new(rules: Rules) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            table: ArcSwap::default(),
            shared: Arc::new(Shared::new(rules)),
            changing: Mutex::default(),
            version: watch::Sender::new(0),
            me: me.clone(),
            since: Instant::now(),
            seen: AtomicUsize::new(0),
            seen_at: AtomicU64::new(0),
        })
    }

    /// All nodes that are known at this moment. What the driver learns of nodes that come and go is taken over with the next request, and
    /// within a quarter of a second where a [monitor](crate::health) runs.
    pub fn all(&self) -> Vec<Arc<Node>> {
        self.table.load().iter().map(|known| Arc::clone(&known.node)).collect()
    }

    /// The node with this id.
    pub fn get(&self, host_id: Uuid) -> Option<Arc<Node>> {
        self.table.load().find(host_id).map(|known| Arc::clone(&known.node))
    }

    /// Whether a node can be counted on at this moment; `None` if there is no such node.
    pub fn availability(&self, host_id: Uuid) -> Option<Availability> {
        self.table.load().find(host_id).map(Known::availability)
    }

    #[inline]
    pub(crate) fn table(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    pub(crate) fn by_address(&self, address: SocketAddr) -> Option<Arc<Node>> {
        let table = self.table.load();
        table.iter().find(|known| known.node.address() == address).map(|known| Arc::clone(&known.node))
    }

    /// Tells of every change of the nodes or of what they can be counted on for, as far as it is seen here: the driver does not tell
    /// when a connection is lost.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Says that somebody probes nodes whose circuit is open, until what is returned is dropped. Where nobody does, traffic does.
    pub(crate) fn probing(&self) -> Probing {
        Probing::begin(&self.shared)
    }

    /// Sets which nodes the driver is kept from for a moment, to connect anew.
    pub(crate) fn withhold(&self, host_ids: &[Uuid]) {
        for known in self.table.load().iter() {
            known.node.set_withheld(host_ids.contains(&known.node.host_id()));
        }
    }

    /// Whether somebody probes nodes whose circuit is open.
    pub(crate) fn is_probed(&self) -> bool {
        self.shared.is_probed()
    }

    /// Whether so many attempts at each node were given up unanswered that one more may cost a connection, and no node says anything. Where
    /// a datacenter is named, each node there.
    #[inline]
    pub(crate) fn all_are_full(&self, datacenter: Option<&str>) -> bool {
        self.shared.any_is_full() && self.see_whether_all_are_full(datacenter)
    }

    #[cold]
    fn see_whether_all_are_full(&self, datacenter: Option<&str>) -> bool {
        let (table, now) = (self.table.load(), Instant::now());
        let mut connected = table
            .iter()
            .filter(|known| datacenter.is_none_or(|name| known.node.datacenter() == Some(name)))
            .filter(|known| known.is_connected())
            .peekable();
        connected.peek().is_some() && connected.all(|known| known.node.is_out(now))
    }

    /// Whether there is such a datacenter, as far as it is known here.
    pub(crate) fn has_datacenter(&self, name: &str) -> bool {
        self.table.load().iter().any(|known| known.node.datacenter() == Some(name))
    }

    /// Sees to it that the nodes of this state of the cluster are known.
    #[inline]
    pub(crate) fn keep_up(&self, cluster: &ClusterState, now: Instant) {
        // To compare each node is too much to do for each request. Another state may have come to the same place, but not for long.
        let place = std::ptr::from_ref(cluster).addr();
        let age = now.saturating_duration_since(self.since).as_secs() + 1;
        if self.seen.load(Relaxed) != place || self.seen_at.load(Relaxed) != age {
            self.look(cluster);
            self.seen.store(place, Relaxed);
            self.seen_at.store(age, Relaxed);
        }
    }

    #[cold]
    fn look(&self, cluster: &ClusterState) {
        let nodes = cluster.get_nodes_info();
        let table = self.table.load();
        let is_known = |node: &Arc<DriverNode>| {
            table.find(node.host_id).is_some_and(|known| Arc::ptr_eq(&known.driver, node))
        };
        if table.iter().len() != nodes.len() || !nodes.iter().all(is_known) {
            drop(table);
            self.sync(cluster);
        }
    }

    /// Takes over what the driver knows of the cluster: nodes that came and went.
    #[cold]
    pub(crate) fn sync(&self, cluster: &ClusterState) {
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.table.load_full();
        // A node that joins others has everything to warm up. Where all are new, none is to stand back.
        let joins = before.iter().next().map(|_| Instant::now());
        let meet = |driver: &DriverNode| {
            let node = self.meet(driver)?;
            if let Some(now) = joins {
                node.begin_slowly(now);
            }
            Some(node)
        };
        let mut known: Vec<_> = cluster
            .get_nodes_info()
            .iter()
            .filter_map(|driver| {
                let node = match before.find(driver.host_id) {
                    Some(Known { node, .. }) if is_same(node, driver) => Arc::clone(node),
                    _ => meet(driver)?,
                };
                Some(Known { driver: Arc::clone(driver), node })
            })
            .collect();
        known.sort_unstable_by_key(|known| known.node.host_id());
        let now = Arc::new(Table(known));
        self.table.store(Arc::clone(&now));
        drop(changing);
        // Whoever listens to these may well send a request, and look at the nodes himself. A new node may have the address of one that
        // is gone, so that those come first.
        for gone in before.iter().filter(|known| !now.holds(&known.node)) {
            gone.node.left();
            if now.find(gone.node.host_id()).is_none() {
                tracing::info!(node = %gone.node.address(), "a node has left the cluster");
            }
        }
        for known in now.iter().filter(|known| !before.holds(&known.node)) {
            let node = &known.node;
            node.tell(known.availability());
            let (address, datacenter, rack) = (node.address(), node.datacenter(), node.rack());
            tracing::debug!(node = %address, datacenter, rack, "a node is known");
        }
        self.review();
    }

    fn meet(&self, driver: &DriverNode) -> Option<Arc<Node>> {
        let address = SocketAddr::new(driver.address.ip(), driver.address.port());
        let me = self.me.clone();
        let circuit = self.shared.rules.circuit.clone().on_transition(move |_| {
            if let Some(nodes) = me.upgrade() {
                nodes.review();
            }
        });
        // It was built once before, when it was checked.
        let circuit = circuit.build_circuit(format_args!("{address}")).ok()?;
        let shared_text = |text: &Option<String>| text.as_deref().map(Arc::from);
        Some(Arc::new(Node::new(
            driver.host_id,
            address,
            shared_text(&driver.datacenter),
            shared_text(&driver.rack),
            circuit,
            Arc::clone(&self.shared),
        )))
    }

    /// Decides which of the nodes with an open circuit are ejected: in each datacenter at most a share, those first that have been open
    /// for longest.
    #[cold]
    fn review(&self) {
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (table, now) = (self.table.load(), Instant::now());
        let mut changed = Vec::new();
        let mut of_datacenter: Vec<&Known> = table.iter().collect();
        of_datacenter.sort_by_key(|known| known.node.datacenter());
        for nodes in of_datacenter.chunk_by(|one, other| one.node.datacenter() == other.node.datacenter()) {
            let open_for: Vec<_> = nodes.iter().map(|known| known.node.open_for(now)).collect();
            for (known, is_ejected) in nodes.iter().zip(self.shared.rules.ejected(&open_for)) {
                if known.node.eject(is_ejected) {
                    changed.push((*known, is_ejected));
                }
            }
        }
        drop(changing);
        for (known, is_ejected) in changed {
            known.node.tell(known.availability());
            let (node, datacenter) = (known.node.address(), known.node.datacenter());
            if is_ejected {
                tracing::warn!(%node, datacenter, "the node is ejected: other nodes are asked until it is well");
            } else {
                tracing::info!(%node, datacenter, "the node is taken back, slowly");
            }
        }
        self.version.send_modify(|version| *version += 1);
    }
}

/// Whether it is the same node as before, in the same place.
fn is_same(node: &Node, driver: &DriverNode) -> bool {
    node.address() == SocketAddr::new(driver.address.ip(), driver.address.port())
        && node.datacenter() == driver.datacenter.as_deref()
        && node.rack() == driver.rack.as_deref()
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.table.load().iter().map(|known| &known.node)).finish()
    }
}
