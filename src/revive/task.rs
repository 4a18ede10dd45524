//! The task that looks, knocks and reconnects.

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use palisade::Instant;
use scylla::{
    client::session::Session,
    cluster::{ClusterState, Node as DriverNode, NodeAddr},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use uuid::Uuid;

use super::{
    Hooks, knock,
    state::{Missing, Tried},
};
use crate::nodes::Nodes;

/// How often it is looked whether all nodes are connected.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same while one is not.
const LOOK_CLOSELY_EVERY: Duration = Duration::from_millis(250);
/// How many knocks may be under way.
const KNOCKS: usize = 32;
/// How long the driver may take to read the topology. It may wait for a node that hangs.
const REFRESH_LIMIT: Duration = Duration::from_secs(2);
/// The wait until nodes are given back that could not be, since the driver could not read the topology.
const GIVE_BACK_AFTER: Duration = Duration::from_millis(500);
/// How often it is looked whether anybody else has the session, while we have it.
const ANYBODY_EVERY: Duration = Duration::from_millis(100);

pub(super) struct Task {
    hooks: Hooks,
    session: Weak<Session>,
    nodes: Arc<Nodes>,
    missing: Missing<Uuid>,
    knocks: JoinSet<(Uuid, bool)>,
}

impl Task {
    pub(super) fn new(hooks: Hooks, session: Weak<Session>, nodes: Arc<Nodes>) -> Self {
        Self { hooks, session, nodes, missing: Missing::new(), knocks: JoinSet::new() }
    }

    pub(super) async fn run(mut self) {
        loop {
            // While it waits, it keeps nobody's session.
            let Some(session) = self.session.upgrade() else { return };
            let now = Instant::now();
            let cluster = session.get_cluster_state();
            self.look(&cluster, now);
            self.begin_knocks(&cluster, now);
            let due = self.missing.due(now);
            let is_owing = !self.hooks.filter.withheld().is_empty();
            if !due.is_empty() || is_owing {
                let tried = tokio::select! {
                    tried = self.reconnect(&session, &cluster, &due) => tried,
                    // Then nobody misses the node either.
                    () = nobody_else_has(&session) => continue,
                };
                self.tried(&due, &tried);
            }
            drop((session, cluster));
            if self.hooks.filter.withheld().is_empty() {
                self.wait().await;
            } else {
                sleep(GIVE_BACK_AFTER).await;
            }
        }
    }

    fn look(&mut self, cluster: &ClusterState, now: Instant) {
        let withheld = self.hooks.filter.withheld();
        let is_enabled = |node: &&Arc<DriverNode>| node.is_enabled() || withheld.contains(&node.host_id);
        let enabled = cluster.get_nodes_info().iter().filter(is_enabled);
        self.missing.look(enabled.map(|node| (node.host_id, node.is_connected())), now);
    }

    fn begin_knocks(&mut self, cluster: &ClusterState, now: Instant) {
        while self.knocks.len() < KNOCKS
            && let Some(host_id) = self.missing.knock(now)
        {
            let node = cluster.get_nodes_info().iter().find(|node| node.host_id == host_id);
            match node.and_then(|node| self.address(node)) {
                Some(address) => {
                    let is_encrypted = self.hooks.is_encrypted;
                    self.knocks.spawn(async move { (host_id, knock::answers(address, is_encrypted).await) });
                }
                None => self.missing.knocked(host_id, false, now, fastrand::f64()),
            }
        }
    }

    /// The address that the driver connects to.
    fn address(&self, node: &DriverNode) -> Option<SocketAddr> {
        match (node.address, &self.hooks.addresses) {
            (NodeAddr::Translatable(_), Some(translated)) => translated.of(node.host_id),
            (NodeAddr::Translatable(address) | NodeAddr::Untranslatable(address), _) => Some(address),
            _ => None,
        }
    }

    async fn wait(&mut self) {
        // While as many are under way as may be, one of them has to end before a further one begins.
        let wait = match self.missing.next(self.knocks.len() < KNOCKS) {
            _ if self.missing.is_empty() => LOOK_EVERY,
            Some(next) => next.remaining().min(LOOK_CLOSELY_EVERY),
            None => LOOK_CLOSELY_EVERY,
        };
        tokio::select! {
            Some(knocked) = self.knocks.join_next() => {
                if let Ok((host_id, has_answered)) = knocked {
                    self.missing.knocked(host_id, has_answered, Instant::now(), fastrand::f64());
                }
            }
            () = sleep(wait) => {}
        }
    }

    /// Has the driver drop what it has of these nodes, and connect anew. Tells which of them it has dropped.
    async fn reconnect(&self, session: &Session, cluster: &ClusterState, due: &[Uuid]) -> Vec<Uuid> {
        let filter = &self.hooks.filter;
        if !due.is_empty() {
            let is_due = |node: &&Arc<DriverNode>| due.contains(&node.host_id);
            let nodes = cluster.get_nodes_info().iter().filter(is_due).cloned().collect();
            // Those that could not be given back the last time are withheld still.
            self.nodes.withhold(&[due, &filter.withheld()].concat());
            let withholding = filter.withhold(nodes);
            refresh(session).await;
            drop(withholding);
        }
        let withheld = filter.withheld();
        // Where that fails, they are rejected all the same if the driver was only slow. The next round tries again.
        if withheld.is_empty() || refresh(session).await {
            filter.given_back();
            self.nodes.sync(&session.get_cluster_state());
            self.nodes.withhold(&[]);
        }
        withheld
    }

    fn tried(&mut self, due: &[Uuid], dropped: &[Uuid]) {
        let now = Instant::now();
        let table = self.nodes.table();
        for host_id in due {
            let tried = if dropped.contains(host_id) { Tried::Done } else { Tried::Nothing };
            if let Some(known) = table.find(*host_id).filter(|_| tried == Tried::Done) {
                let (node, missing_for) = (known.node.address(), self.missing.missing_for(*host_id, now));
                if known.is_connected() {
                    tracing::info!(%node, ?missing_for, "the node answers again: the driver was made to connect at once");
                } else {
                    tracing::debug!(%node, ?missing_for, "the node answers, but the driver could not connect");
                }
            }
            self.missing.tried(*host_id, tried, now, fastrand::f64());
        }
    }
}

/// Has the driver read the topology, and ask the filter for each node. Whether it has done so in time.
async fn refresh(session: &Session) -> bool {
    match timeout(REFRESH_LIMIT, session.refresh_metadata()).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::debug!(%error, "the topology could not be read, to reconnect a node");
            false
        }
        Err(_) => false,
    }
}

/// Ends when nobody but the caller has the session.
async fn nobody_else_has(session: &Arc<Session>) {
    while Arc::strong_count(session) > 1 {
        sleep(ANYBODY_EVERY).await;
    }
}
