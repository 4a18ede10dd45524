//! The attempt that this thread works at, for those whom the driver calls and tells nothing of it.
//!
//! A load balancing policy and a history listener are the driver's, and learn neither which request it is that they are called for nor
//! that it was given up. So the leaf lays the attempt down here while its future is polled.

use std::{cell::RefCell, net::SocketAddr, sync::Arc};

use palisade::Instant;
use smallvec::SmallVec;
use uuid::Uuid;

use crate::{
    error::Error,
    ledger::Ledger,
    nodes::{Asked, Node, Nodes},
    request::Kind,
};

/// An attempt.
#[derive(Debug)]
pub(crate) struct Current {
    ledger: Arc<Ledger>,
    number: usize,
    kind: Kind,
    datacenter: Option<Arc<str>>,
    nodes: Arc<Nodes>,
    // A single partition's read or write, whose latency can be compared.
    is_quick: bool,
    // What routing has offered to the driver, and the driver has not asked yet.
    offered: Option<Arc<Node>>,
    // What was offered so far, so that nothing is offered twice.
    seen: SmallVec<[Uuid; 4]>,
    asked: Option<Asked>,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// Gives the attempt that this thread works at to `then`, if there is one.
pub(crate) fn with_current<T>(then: impl FnOnce(Option<&mut Current>) -> T) -> T {
    CURRENT.with_borrow_mut(|current| then(current.as_mut()))
}

impl Current {
    pub(crate) fn new(
        ledger: Arc<Ledger>,
        number: usize,
        kind: Kind,
        datacenter: Option<Arc<str>>,
        nodes: Arc<Nodes>,
    ) -> Self {
        Self {
            ledger,
            number,
            kind,
            datacenter,
            nodes,
            is_quick: false,
            offered: None,
            seen: SmallVec::new(),
            asked: None,
        }
    }

    /// Does a piece of the attempt's work, such as a poll of it, and comes back.
    pub(crate) fn work<T>(slot: &mut Option<Self>, work: impl FnOnce() -> T) -> T {
        // An attempt may be made while another is polled: in what it calls.
        let before = CURRENT.replace(slot.take());
        let restore = Restore { slot, before };
        let done = work();
        drop(restore);
        done
    }

    /// Which of its ledger's attempts it is.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// The datacenter that the request is to be served by, in place of the usual one.
    pub(crate) fn datacenter(&self) -> Option<&str> {
        self.datacenter.as_deref()
    }

    /// The nodes that the request was sent to without success.
    pub(crate) fn tried(&self) -> SmallVec<[Uuid; 4]> {
        self.ledger.tried(self.number)
    }

    /// Whether this node was offered to the driver for this attempt.
    pub(crate) fn has_seen(&self, host_id: Uuid) -> bool {
        self.seen.contains(&host_id)
    }

    /// Routing offers a node to the driver. If the driver comes back for another without having asked it, it had no connection.
    pub(crate) fn offer(&mut self, node: &Arc<Node>, has_token: bool) {
        self.pass_over();
        self.is_quick = has_token && matches!(self.kind, Kind::Read | Kind::Write);
        self.seen.push(node.host_id());
        self.offered = Some(Arc::clone(node));
    }

    /// So many other nodes could take this request as well.
    pub(crate) fn could_go_elsewhere(&self, others: usize) {
        self.ledger.could_go_elsewhere(others);
    }

    /// The driver sends the attempt to the node with this address.
    pub(crate) fn asks(&mut self, address: SocketAddr) {
        let offered = self.offered.take();
        let node = offered.or_else(|| self.nodes.by_address(address));
        self.ledger.asks(self.number, address, node.as_ref().map(|node| node.host_id()));
        // Just one, since the driver tries again nothing by itself.
        self.asked = node.map(|node| Asked::begin(node, self.is_quick, Instant::now()));
    }

    /// The attempt has ended.
    pub(crate) fn end<T>(&mut self, outcome: &Result<T, Error>, now: Instant) {
        match &mut self.asked {
            Some(asked) => asked.end(outcome, now),
            // An error, and the last node that was offered was never asked.
            None if outcome.is_err() => self.pass_over(),
            None => {}
        }
    }

    /// The node that is asked.
    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.asked.as_ref().map(Asked::node)
    }

    fn pass_over(&mut self) {
        if let Some(node) = self.offered.take() {
            node.unreachable();
            self.ledger.passes_over(self.number, node.address());
        }
    }
}

/// Puts things back where they were, also when the work panics.
struct Restore<'a> {
    slot: &'a mut Option<Current>,
    before: Option<Current>,
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        *self.slot = CURRENT.replace(self.before.take());
    }
}
