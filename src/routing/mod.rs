//! Chooses the node for each attempt: token-aware as the driver does, and by how each node does at this moment.
//!
//! The driver's own policy draws a replica at random among those that it has a connection to. A node that hangs keeps its
//! connections, so that for as long as it hangs a third of the requests go there. [`Routing`] is a load balancing policy that
//! knows more: it is told of each attempt by the leaf service, also of those that were given up.
//!
//! It is installed by [`Cassandra::builder`](crate::Cassandra::builder); [`CassandraBuilder::routing`](crate::CassandraBuilder::routing)
//! changes its settings. In a session of your own, put it into the execution profile:
//!
//! ```no_run
//! use scylla::client::{execution_profile::ExecutionProfile, session_builder::SessionBuilder};
//! use tower_cassandra::{Cassandra, routing::Routing};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let routing = Routing::builder().datacenter("dc1").build()?;
//! let profile = ExecutionProfile::builder().load_balancing_policy(routing.clone()).build();
//! let session = SessionBuilder::new()
//!     .known_node("127.0.0.1:9042")
//!     .default_execution_profile_handle(profile.into_handle())
//!     .build()
//!     .await?;
//! let cassandra = Cassandra::builder().routed_by(routing).over_session(session)?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it does
//!
//! - **Replicas first**, in the preferred datacenter if there is one, as the driver's default. Two of them are drawn and the one with less
//!   latency times attempts under way is asked. The latency is a peak-sensitive average, or for how long the node has owed an answer,
//!   if that is longer: a node that stops answering is left after one or two requests, within milliseconds.
//! - **A repeat goes elsewhere.** Nodes that the request's [ledger](crate::ledger) says were tried are not tried again while there is
//!   another. A hedge is sent only if another replica is there to take it.
//! - **A node that hangs is ejected**: when `stalled_attempts` have had no answer for `stalled_after` (or eight times its usual
//!   latency), or when its circuit breaker opens by failures. It gets no more traffic until a probe was answered well; probes are
//!   further and further apart, and that is forgotten when it has been well for as long. Where nobody probes (see
//!   [`health`](crate::health)), single attempts of the traffic do, by the leave of its circuit: reads, and writes that are idempotent,
//!   go there first when its wait is over, others only if it is chosen. A probe that is given up, or that a hedge was faster than, has failed.
//! - **Nothing is excluded.** What is ejected, full or disconnected comes last; and at most `max_ejected` of a datacenter's nodes are
//!   ejected at a time, since with more of them sick the trouble is somewhere else. A replica that is no use leaves the work to
//!   another node of the datacenter as coordinator.
//! - **A node that comes back**, from an ejection or to new connections, begins with a tenth of its traffic and gets all of it
//!   after `slow_start`; and so does one that joins the cluster.
//! - **Abandoned attempts are counted.** The driver tears a connection down when 1,024 answers are overdue on it, and everything on
//!   it fails. From `max_abandoned` on, a node that has said nothing for `stalled_after` is asked once a second only, and others in its
//!   place; if it is so with all of them, attempts are refused at once ([`ErrorKind::ConnectionFull`](crate::ErrorKind::ConnectionFull)).
//!   What another attempt was only faster at does not count, as long as the node answers.
//! - **The preferred rack** is left for another one only for what answers four times as fast.
//! - **Lightweight transactions** that the driver routes to the replicas in one order (on `ScyllaDB`, and reads at a serial consistency)
//!   keep that order, but for nodes that were tried or are sick.
//! - Being overloaded is no sickness: that is for a [throttle](palisade::ThrottleLayer) to see to.
//!
//! # Knobs
//!
//! | knob | unit | default |
//! | --- | --- | --- |
//! | `datacenter` | name | none: all nodes are equally near |
//! | `rack` | name, in that datacenter | none |
//! | `max_ejected` | share of a datacenter's nodes; at least one unless 0 | 0.5 |
//! | `max_abandoned` | attempts per node, below 1,024 | 512 |
//! | `stalled_attempts`, `stalled_after` | attempts, duration | 3, 250 ms |
//! | `slow_start` | duration | 10 s |
//! | `circuit` | [`CircuitBreakerBuilder`](palisade::breaker::CircuitBreakerBuilder), one circuit for each node | 5 failures in a row or half of at least 20 calls in 10 s; 0.5 s doubling to 5 s; 2 probes |
//! | `around` | a load balancing policy of your own, whose order is kept but for what is sick or was tried | the driver's default |
//!
//! # Cost
//!
//! Choosing takes some hundred nanoseconds, without an allocation or a lock for up to eight replicas.
//!
//! # Sources
//!
//! The peak-sensitive average and its use in a choice of two are those of Finagle's balancer; the share of nodes that may be ejected and
//! the growing wait are those of Envoy's outlier detection and of [gRFC A50]; slow start is Envoy's. That an attempt which was
//! dropped is charged to its node is our own, and so is silence as a lower bound of the latency.
//!
//! [gRFC A50]: https://github.com/grpc/proposal/blob/master/A50-xds-outlier-detection.md

mod builder;
pub(crate) mod current;
mod order;

use std::{sync::Arc, time::Duration};

use palisade::Instant;
use scylla::{
    cluster::{ClusterState, Node as DriverNode, NodeRef},
    errors::RequestAttemptError,
    policies::load_balancing::{FallbackPlan, LoadBalancingPolicy, RoutingInfo},
    routing::Shard,
};
use smallvec::SmallVec;
use uuid::Uuid;

pub use self::builder::RoutingBuilder;
use self::{
    current::Wishes,
    order::{Candidate, Work, by_merit, choose},
};
use crate::nodes::{Known, Node, Nodes, Standing, Table};

/// A load balancing policy that knows how each node does. See the [module](self) for more.
///
/// It belongs to one session. Its [`nodes`](Self::nodes) are known once that has sent a request.
#[derive(Debug)]
pub struct Routing {
    nodes: Arc<Nodes>,
    datacenter: Option<String>,
    rack: Option<String>,
    // The driver's default with the same preferences, or a policy of the user's.
    around: Arc<dyn LoadBalancingPolicy>,
    // Whether it is the user's.
    is_foreign: bool,
}

type Target<'a> = (NodeRef<'a>, Option<Shard>);
type Weighed<'a, 'of> = SmallVec<[Weigh<'a, 'of>; 8]>;

/// What may be asked, and what is known of it.
struct Weigh<'a, 'of> {
    target: Target<'a>,
    // `None` if it came to the cluster just now.
    node: Option<&'of Arc<Node>>,
    candidate: Candidate,
}

impl<'a, 'of> Weigh<'a, 'of> {
    fn chosen(&self, others: usize) -> Choice<'a, 'of> {
        Choice { target: self.target, node: self.node, standing: self.candidate.standing, others }
    }
}

impl AsRef<Candidate> for Weigh<'_, '_> {
    #[inline]
    fn as_ref(&self) -> &Candidate {
        &self.candidate
    }
}

/// What was chosen, and how many others could be asked instead.
#[derive(Clone, Copy)]
struct Choice<'a, 'of> {
    target: Target<'a>,
    node: Option<&'of Arc<Node>>,
    standing: Standing,
    others: usize,
}

/// Of many nodes that serve equally well, so many are looked at.
const SAMPLE: usize = 8;

impl Routing {
    /// Settings for a policy.
    pub fn builder() -> RoutingBuilder {
        RoutingBuilder::default()
    }

    /// What is known of each node.
    pub fn nodes(&self) -> &Arc<Nodes> {
        &self.nodes
    }

    /// The datacenter that requests stay in.
    pub fn datacenter(&self) -> Option<&str> {
        self.datacenter.as_deref()
    }

    /// The replicas, as far as anybody knows them.
    fn replicas<'a, 'of>(
        info: &'a RoutingInfo<'_>,
        cluster: &'a ClusterState,
        view: &View<'a, 'of>,
        targets: &mut Weighed<'a, 'of>,
    ) -> Option<()> {
        let (token, table) = (info.token?, info.table?);
        let strategy = &cluster.get_keyspace(table.ks_name())?.strategy;
        let replicas = cluster.replica_locator().replicas_for_token(token, strategy, view.datacenter, table);
        targets.extend(replicas.into_iter().map(|(node, shard)| view.weigh((node, Some(shard)), view.rack)));
        Some(())
    }

    /// A node to ask that need not be a replica.
    fn coordinator<'a, 'of>(cluster: &'a ClusterState, view: &View<'a, 'of>) -> Option<Choice<'a, 'of>> {
        let locator = cluster.replica_locator();
        let nodes = match view.datacenter {
            Some(datacenter) => locator.unique_nodes_in_datacenter_ring(datacenter)?,
            None => locator.unique_nodes_in_global_ring(),
        };
        let mut targets = Weighed::new();
        let mut good = 0;
        let (end, begin) =
            nodes.split_at(if nodes.len() > SAMPLE { fastrand::usize(..nodes.len()) } else { 0 });
        for node in begin.iter().chain(end) {
            let weigh = view.weigh((node, None), view.rack);
            good += usize::from(weigh.candidate.is_good());
            targets.push(weigh);
            // Those of a rack may be few.
            if good == SAMPLE && view.rack.is_none() {
                break;
            }
        }
        view.pick(&targets)
    }

    /// All nodes that the policy inside would ask, in its order but for what is to be avoided.
    fn plan<'a, 'of>(
        &'a self,
        info: &'a RoutingInfo<'_>,
        cluster: &'a ClusterState,
        view: &View<'a, 'of>,
    ) -> Vec<Weigh<'a, 'of>> {
        let weigh = |target| view.weigh(target, None);
        let usual = self.around.pick(info, cluster).into_iter().chain(self.around.fallback(info, cluster));
        let mut plan: Vec<_> =
            view.withheld(cluster).map(|node| (node, None)).chain(usual).map(weigh).collect();
        if let Some(wanted) = &view.wishes.datacenter {
            // The policy inside may never leave its own datacenter.
            plan.extend(cluster.get_nodes_info().iter().map(|node| weigh((node, None))));
            plan.retain(|weigh| weigh.target.0.datacenter.as_deref() == Some(&**wanted));
        }
        let mut seen: SmallVec<[Uuid; 8]> = SmallVec::new();
        plan.retain(|weigh| {
            let host_id = weigh.target.0.host_id;
            let is_new = !seen.contains(&host_id);
            if is_new {
                seen.push(host_id);
            }
            is_new
        });
        plan.sort_by(|one, other| by_merit(&one.candidate, &other.candidate));
        plan
    }
}

/// What one choice is made by.
struct View<'a, 'of> {
    table: &'of Table,
    wishes: &'of Wishes,
    // The datacenter to look for nodes in, and the rack there that is preferred.
    datacenter: Option<&'a str>,
    rack: Option<&'a str>,
    // The nodes whose circuits gave no leave.
    refused: SmallVec<[Uuid; 4]>,
    now: Instant,
}

impl<'a, 'of> View<'a, 'of> {
    fn new(
        routing: &'a Routing,
        info: &'a RoutingInfo<'_>,
        cluster: &'a ClusterState,
        (table, wishes): (&'of Table, &'of Wishes),
        now: Instant,
    ) -> Self {
        let (datacenter, rack) = match (&wishes.datacenter, &routing.datacenter) {
            (Some(wanted), usual) if usual.as_deref() != Some(wanted) => {
                // What is asked for has to live as long as the cluster's state. One that does not exist has no nodes either.
                let names = cluster.replica_locator().datacenter_names();
                let name = names.iter().find(|name| ***name == **wanted).map_or("", String::as_str);
                // A rack of the usual one's name is as good as any there.
                (Some(name), None)
            }
            (_, Some(usual)) => (Some(&**usual), routing.rack.as_deref()),
            // The session may have a preference of its own.
            _ => (info.node_location_preference.datacenter(), info.node_location_preference.rack()),
        };
        Self { table, wishes, datacenter, rack, refused: SmallVec::new(), now }
    }

    fn standing(&self, node: &Node, is_connected: bool) -> Standing {
        match node.standing(is_connected, self.now) {
            // What the driver asks for itself is no attempt that anybody would hear the end of.
            Standing::Due if self.wishes.kind.is_none() || self.refused.contains(&node.host_id()) => {
                Standing::Ejected
            }
            standing => standing,
        }
    }

    /// The nodes that the driver is kept from for a moment, and would not name if there is no connection to any.
    fn withheld(&self, cluster: &'a ClusterState) -> impl Iterator<Item = NodeRef<'a>> {
        let is_withheld = |node: &Arc<DriverNode>| {
            !node.is_enabled() && self.table.find(node.host_id).is_some_and(Known::is_enabled)
        };
        let is_near = |node: &Arc<DriverNode>| {
            self.datacenter.is_none_or(|name| node.datacenter.as_deref() == Some(name))
        };
        cluster.get_nodes_info().iter().filter(move |node| is_withheld(node) && is_near(node))
    }

    #[inline]
    fn weigh(&self, target: Target<'a>, rack: Option<&str>) -> Weigh<'a, 'of> {
        let driver = target.0;
        let is_connected = driver.is_connected();
        let is_tried = self.wishes.tried.contains(&driver.host_id);
        let is_near = rack.is_some() && driver.rack.as_deref() == rack;
        let node = self.table.find(driver.host_id).map(|known| &known.node);
        let (standing, weight) = match node {
            Some(node) => (self.standing(node, is_connected), node.weight(self.now)),
            None => (if is_connected { Standing::Usable } else { Standing::Down }, 1.0),
        };
        let is_due = standing == Standing::Due && self.wishes.finds_out;
        Weigh { target, node, candidate: Candidate { standing, is_tried, is_due, is_near, weight } }
    }

    fn pick(&self, targets: &[Weigh<'a, 'of>]) -> Option<Choice<'a, 'of>> {
        let work = |of: &Weigh<'_, '_>| {
            let work =
                |node: &Arc<Node>| Work { latency: node.latency(self.now), in_flight: node.in_flight() };
            of.node.map(work).unwrap_or_default()
        };
        let (index, others) = choose(targets, |below| fastrand::usize(..below), work)?;
        Some(targets[index].chosen(others))
    }
}

impl Routing {
    fn choose<'a, 'of>(
        &'a self,
        info: &'a RoutingInfo<'_>,
        cluster: &'a ClusterState,
        view: &View<'a, 'of>,
    ) -> Option<Choice<'a, 'of>> {
        let in_order = info.should_route_as_lwt();
        if !self.is_foreign && !in_order {
            let mut replicas = Weighed::new();
            Self::replicas(info, cluster, view, &mut replicas);
            if let Some(choice) = view.pick(&replicas) {
                return Some(choice);
            }
            if let Some(choice) = Self::coordinator(cluster, view) {
                // Another coordinator would have to ask the same replicas.
                let others = if replicas.is_empty() { choice.others } else { 0 };
                return Some(Choice { others, ..choice });
            }
        }
        let plan = self.plan(info, cluster, view);
        let good = plan.iter().filter(|weigh| weigh.candidate.is_good()).count();
        // Two copies of a lightweight transaction would contend with each other.
        let others = if in_order { 0 } else { good.saturating_sub(1) };
        plan.first().map(|weigh| weigh.chosen(others))
    }
}

impl LoadBalancingPolicy for Routing {
    fn pick<'a>(&'a self, info: &'a RoutingInfo<'_>, cluster: &'a ClusterState) -> Option<Target<'a>> {
        let now = Instant::now();
        self.nodes.keep_up(cluster, now);
        let (table, wishes) = (self.nodes.table(), current::wishes());
        let mut view = View::new(self, info, cluster, (&table, &wishes), now);
        loop {
            let Choice { target, node, standing, others } = self.choose(info, cluster, &view)?;
            let host_id = target.0.host_id;
            let probe = match (standing, node) {
                (Standing::Due, Some(node)) => {
                    let Some(probe) = node.probe() else {
                        // It is no candidate any more: the next choice is another one.
                        view.refused.push(host_id);
                        continue;
                    };
                    Some(probe)
                }
                _ => None,
            };
            current::offer(host_id, node, probe, info.token.is_some(), Some(others));
            return Some(target);
        }
    }

    fn fallback<'a>(&'a self, info: &'a RoutingInfo<'_>, cluster: &'a ClusterState) -> FallbackPlan<'a> {
        let (table, wishes) = (self.nodes.table(), current::wishes());
        let view = View::new(self, info, cluster, (&table, &wishes), Instant::now());
        let plan: Vec<_> = self.plan(info, cluster, &view).into_iter().map(|weigh| weigh.target).collect();
        let has_token = info.token.is_some();
        // The driver asks for the next one when it has no connection to the one before.
        Box::new(plan.into_iter().filter(move |(node, _)| {
            let is_new = !current::has_seen(node.host_id);
            if is_new {
                let table = self.nodes.table();
                let known = table.find(node.host_id).map(|known| &known.node);
                current::offer(node.host_id, known, None, has_token, None);
            }
            is_new
        }))
    }

    fn on_request_success(&self, info: &RoutingInfo<'_>, latency: Duration, node: NodeRef<'_>) {
        self.around.on_request_success(info, latency, node);
    }

    fn on_request_failure(
        &self,
        info: &RoutingInfo<'_>,
        latency: Duration,
        node: NodeRef<'_>,
        error: &RequestAttemptError,
    ) {
        self.around.on_request_failure(info, latency, node, error);
    }

    fn name(&self) -> String {
        format!("Routing around {}", self.around.name())
    }
}
