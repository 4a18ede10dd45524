//! One probe: the cheapest question to one node.

use std::{sync::Arc, time::Duration};

use palisade::{Class, Classified, Fault, Instant, breaker::CircuitPermit};
use scylla::{
    client::session::Session,
    cluster::Node as DriverNode,
    policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy},
    statement::Consistency,
};

use crate::{error::Error, leaf, nodes::Node};

/// What has come of a probe.
#[derive(Debug)]
pub(super) enum Probed {
    /// An answer, or none in time, after so long.
    Told(Result<(), Error>, Duration),
    /// Its time was up long before anybody could see: this process has slept, or its threads were busy. That tells nothing of the node.
    Overslept,
}

/// Whether a node may be probed now.
pub(super) enum Leave {
    /// It may. What comes of it is told to its circuit.
    Given(CircuitPermit),
    /// It may, and its circuit does not care.
    Free,
    /// Its circuit is open, and wants it to be left alone for so long.
    NotYet(Duration),
}

pub(super) fn ask_leave(node: &Node) -> Leave {
    match node.circuit().acquire() {
        Ok(permit) => Leave::Given(permit),
        Err(refused) => match refused.retry_after() {
            Some(wait) if !wait.is_zero() => Leave::NotYet(wait),
            // Others probe it already, or an operator has forced it open: that it answers is news all the same.
            _ => Leave::Free,
        },
    }
}

/// Asks the node, and no other.
pub(super) async fn probe(
    session: Arc<Session>,
    driver: Arc<DriverNode>,
    node: Arc<Node>,
    permit: Option<CircuitPermit>,
    limit: Duration,
) -> Probed {
    let was_closed = node.circuit().is_closed();
    let mut statement = leaf::once("SELECT key FROM system.local", Some(limit));
    statement.set_consistency(Consistency::One);
    let target = SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(driver), None);
    statement.set_load_balancing_policy(Some(target));
    let began = Instant::now();
    let asked = session.query_unpaged(statement, ()).await;
    let latency = began.elapsed();
    let outcome = match asked.map(drop).map_err(Error::from) {
        // It refuses what we ask, and that is an answer.
        Err(error) if error.class().fault() == Fault::Caller => Ok(()),
        Err(_) if latency > limit * 2 => return Probed::Overslept,
        outcome => outcome,
    };
    node.probed(&outcome, latency);
    if let Some(permit) = permit {
        match &outcome {
            // That it answers probes is no excuse for failing requests.
            Ok(()) if was_closed => drop(permit),
            Ok(()) => permit.end(&Class::SUCCESS),
            Err(error) => permit.end(&error.class()),
        }
    }
    Probed::Told(outcome, latency)
}
