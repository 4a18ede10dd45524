//! Connects to a node at once when it is back.
//!
//! The driver tries a node that it has lost again after 50 ms, 100 ms and so on, up to 10 s. After an outage of the whole cluster that
//! lasted for 20 s, a session may see nobody for another 10 s although all nodes are back. Nothing public resets that wait, but a node's
//! connections, and the wait with them, are dropped when a host filter rejects it, and made anew when the filter accepts it again.
//!
//! Every session of [`CassandraBuilder::connect`](crate::CassandraBuilder::connect) has a task that does so, unless
//! [`reconnect_promptly(false)`](crate::CassandraBuilder::reconnect_promptly) is set. It ends with the session.
//!
//! # What it does
//!
//! - It **looks** once a second whether the driver has a connection to each node, and four times a second while one is missing.
//! - When one has been missing for 0.5 s it **knocks**: a connection of its own, and on a port without encryption a question that every
//!   node answers. A node that accepts connections and says nothing, since it hangs or is not done with starting, would hold up what
//!   the driver learns of all nodes for as long as a connection may take. Where connections are encrypted it is not found out before, so
//!   that this may happen. A knock takes at most 0.5 s. The pause between two is a fortieth of the time
//!   that the node has been away: at least 0.25 s, and at most 2 s while others are connected, 0.5 s if none is. So 1,000 clients
//!   knock 500 times a second at a node that is gone for good.
//! - When the node has answered and the driver has no connection after another 0.3 s to 0.45 s, it is **reconnected**: our filter rejects
//!   it, the driver reads the topology, our filter accepts it, the driver reads the topology once more. That takes some 0.1 s, in which
//!   nothing changes for other nodes. Only what has no connection is ever rejected.
//! - If that does not help, it is tried again after 2 s, 4 s, 8 s and then each 10 s.
//!
//! A host filter and an address translator of the user's, set by [`CassandraBuilder::driver`](crate::CassandraBuilder::driver), stay in
//! force: ours are put around them. The address that is knocked at is the one that the driver connects to.
//!
//! A session that was not made here, as in [`CassandraBuilder::over_session`](crate::CassandraBuilder::over_session), has filters of its
//! own, and waits as long as the driver does.

mod addresses;
mod filter;
mod knock;
mod state;
mod task;

use std::sync::{Arc, Weak};

use scylla::client::{session::Session, session_builder::SessionBuilder};

use self::{addresses::Addresses, filter::Filter, task::Task};
use crate::nodes::Nodes;

/// What the task has its hands in: parts of a session that is still to be made.
#[derive(Debug)]
pub(crate) struct Hooks {
    filter: Arc<Filter>,
    // None where addresses are not translated.
    addresses: Option<Arc<Addresses>>,
    is_encrypted: bool,
}

impl Hooks {
    /// Puts them around what the session would have.
    pub(crate) fn install(mut builder: SessionBuilder) -> (SessionBuilder, Self) {
        let config = &mut builder.config;
        let filter = Arc::new(Filter::new(config.host_filter.take()));
        config.host_filter = Some(Arc::clone(&filter) as _);
        let addresses = config.address_translator.take().map(|theirs| Arc::new(Addresses::new(theirs)));
        config.address_translator = addresses.as_ref().map(|addresses| Arc::clone(addresses) as _);
        let is_encrypted = config.tls_context.is_some();
        (builder, Self { filter, addresses, is_encrypted })
    }

    /// Begins to watch over the session that was made with them.
    pub(crate) fn watch(self, session: Weak<Session>, nodes: Arc<Nodes>) {
        tokio::spawn(Task::new(self, session, nodes).run());
    }
}
