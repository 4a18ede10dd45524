use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::monitor::Shared;
use crate::{error::Error, ledger::Ledger};

/// What [`HealthMonitor::warm_up_by`](super::HealthMonitor::warm_up_by) waits for.
#[derive(Clone, Debug)]
pub struct WarmUp {
    is_quorum: bool,
    statements: Vec<Arc<str>>,
}

impl WarmUp {
    /// All nodes of the session's datacenter, or of the cluster where none is named.
    pub fn all() -> Self {
        Self { is_quorum: false, statements: Vec::new() }
    }

    /// More than half of them.
    pub fn quorum() -> Self {
        Self { is_quorum: true, ..Self::all() }
    }

    /// Prepares a statement as well, so that the first call of it need not.
    pub fn prepare(mut self, statement: impl Into<Arc<str>>) -> Self {
        self.statements.push(statement.into());
        self
    }

    /// How many of so many nodes are enough. There has to be one.
    fn enough(&self, nodes: usize) -> usize {
        if self.is_quorum { nodes / 2 + 1 } else { nodes.max(1) }
    }
}

pub(super) async fn warm_up(shared: &Shared, how: &WarmUp, limit: Duration) -> Result<(), Error> {
    // What is beyond the clock's range is for ever.
    let deadline = Instant::now().checked_add(limit).unwrap_or_else(|| Instant::now() + YEARS);
    let mut changes = shared.version.subscribe();
    loop {
        changes.mark_unchanged();
        let Missing { nodes, missing } = missing(shared);
        let needed = how.enough(nodes);
        let cold = |why: &str| {
            let list = if missing.is_empty() { "none that is known".to_owned() } else { missing.join(", ") };
            Error::unconnected(format!("{why}: {needed} of {nodes} nodes have to answer; missing: {list}"))
        };
        if !shared.is_running() {
            return Err(cold("the health monitor has ended"));
        }
        if nodes - missing.len() >= needed {
            break;
        }
        if timeout_at(deadline, changes.changed()).await.is_err() {
            return Err(cold(&format!("the session was not warm after {limit:?}")));
        }
    }
    for text in &how.statements {
        let cassandra =
            shared.cassandra.upgrade().ok_or_else(|| Error::unconnected("the session was dropped"))?;
        let ledger = Arc::new(Ledger::default());
        let prepared = timeout_at(deadline, cassandra.statements.prepare(text, &ledger)).await;
        prepared.unwrap_or_else(|_| {
            let message =
                format!("the session was not warm after {limit:?}: this was not prepared yet: {text}");
            Err(Error::unconnected(message))
        })?;
    }
    Ok(())
}

const YEARS: Duration = Duration::from_secs(86_400 * 365 * 30);

struct Missing {
    nodes: usize,
    /// Those that have not answered, and why.
    missing: Vec<String>,
}

fn missing(shared: &Shared) -> Missing {
    let records = shared.records();
    let is_near =
        |datacenter: &Option<Arc<str>>| shared.datacenter.is_none() || *datacenter == shared.datacenter;
    let near: Vec<_> = records.values().filter(|record| is_near(&record.datacenter)).collect();
    let missing = near
        .iter()
        .filter(|record| !(record.is_connected() && record.has_answered()))
        .map(|record| {
            let why = if record.is_connected() { "no answer" } else { "no connection" };
            format!("{} ({why})", record.node.address())
        })
        .collect();
    Missing { nodes: near.len(), missing }
}
