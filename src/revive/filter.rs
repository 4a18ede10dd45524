//! The host filter by which the driver drops a node's connections and makes new ones.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use scylla::{cluster::Node as DriverNode, cluster::metadata::Peer, policies::host_filter::HostFilter};
use tokio::task;
use uuid::Uuid;

/// Accepts what the user's filter accepts, but for nodes that are withheld for a moment.
pub(super) struct Filter {
    theirs: Option<Arc<dyn HostFilter>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    // The nodes to withhold, as long as they have no connection.
    wanted: Vec<Arc<DriverNode>>,
    // The task of the driver's that asked first since then.
    first: Option<task::Id>,
    // The nodes that were withheld, and not given back for certain.
    withheld: Vec<Uuid>,
}

impl Filter {
    pub(super) fn new(theirs: Option<Arc<dyn HostFilter>>) -> Self {
        Self { theirs, state: Mutex::default() }
    }

    /// Withholds nodes that have no connection, until what is returned is dropped.
    pub(super) fn withhold(&self, nodes: Vec<Arc<DriverNode>>) -> Withholding<'_> {
        let mut state = self.lock();
        state.wanted = nodes;
        state.first = None;
        Withholding(self)
    }

    /// The nodes that the driver may still take for rejected.
    pub(super) fn withheld(&self) -> Vec<Uuid> {
        self.lock().withheld.clone()
    }

    /// The driver has read the topology since nothing is withheld any more.
    pub(super) fn given_back(&self) {
        self.lock().withheld.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether to withhold a node from the task that asks.
    fn withholds(&mut self, host_id: Uuid, asking: Option<task::Id>) -> bool {
        if self.wanted.is_empty() || !self.makes_connections(asking) {
            return false;
        }
        let is_wanted = self.wanted.iter().any(|node| node.host_id == host_id && !node.is_connected());
        if is_wanted && !self.withheld.contains(&host_id) {
            self.withheld.push(host_id);
        }
        is_wanted
    }

    /// Whether it is the task that makes the connections for requests.
    ///
    /// Two tasks of the driver's ask for every node each time the topology was read. The one that has read it asks first: it keeps a
    /// connection for itself, and has to know whom else to try when that is lost. It would do without a node that may be the
    /// only one that is up, and say so at the level of errors.
    fn makes_connections(&mut self, asking: Option<task::Id>) -> bool {
        asking.is_some_and(|asking| *self.first.get_or_insert(asking) != asking)
    }
}

impl HostFilter for Filter {
    fn accept(&self, peer: &Peer) -> bool {
        let is_theirs = self.theirs.as_ref().is_none_or(|theirs| theirs.accept(peer));
        is_theirs && !self.lock().withholds(peer.host_id, task::try_id())
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter").field("state", &self.state).finish_non_exhaustive()
    }
}

/// As long as it lives, nodes are withheld.
#[derive(Debug)]
pub(super) struct Withholding<'a>(&'a Filter);

impl Drop for Withholding<'_> {
    fn drop(&mut self) {
        self.0.lock().wanted.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_the_drivers_tasks_the_one_that_asks_first_is_told_of_every_node() {
        let (reads, connects) = (tokio::spawn(async {}).id(), tokio::spawn(async {}).id());
        let mut state = State::default();
        assert!(!state.makes_connections(None), "nobody knows who asks");
        let mut makes_connections = |asking| state.makes_connections(Some(asking));
        assert!(!makes_connections(reads) && !makes_connections(reads));
        assert!(makes_connections(connects) && !makes_connections(reads) && makes_connections(connects));
    }

    #[tokio::test]
    async fn where_nothing_is_wanted_nothing_is_withheld() {
        let filter = Filter::new(None);
        drop(filter.withhold(Vec::new()));
        let mut state = filter.lock();
        let first = tokio::spawn(async {}).id();
        for asking in [None, Some(first), Some(tokio::spawn(async {}).id())] {
            assert!(!state.withholds(Uuid::from_u128(1), asking));
        }
        assert!(state.withheld.is_empty() && state.first.is_none());
    }
}
