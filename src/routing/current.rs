//! The attempt that this thread works at, for those whom the driver calls and tells nothing of it.
//!
//! A load balancing policy and a history listener are the driver's, and learn neither which request it is that they are called for nor
//! that it was given up. So the leaf lays the attempt down here while its future is polled.

use std::{cell::RefCell, net::SocketAddr, sync::Arc};

use palisade::{Idempotence, Instant, breaker::CircuitPermit};
use smallvec::SmallVec;
use uuid::Uuid;

use crate::{
    error::Error,
    ledger::{Ledger, Outcome},
    nodes::{Asked, Node, Nodes},
    request::Kind,
};

/// An attempt that is under way. If it is dropped before it has ended, the attempt was abandoned.
#[derive(Debug)]
pub(crate) struct AttemptGuard {
    // Always there, but while its work is done.
    current: Option<Box<Current>>,
}

/// An attempt. Boxed, since it goes to the thread and comes back with every poll.
#[derive(Debug)]
struct Current {
    ledger: Arc<Ledger>,
    number: usize,
    started: Instant,
    has_ended: bool,
    kind: Kind,
    idempotence: Idempotence,
    datacenter: Option<Arc<str>>,
    nodes: Arc<Nodes>,
    // A single partition's read or write, whose latency can be compared.
    is_quick: bool,
    // What routing has offered to the driver, and the driver has not asked yet.
    offered: Option<Offer>,
    // What was offered so far, so that nothing is offered twice.
    seen: SmallVec<[Uuid; 4]>,
    asked: Option<Asked>,
}

/// A node that the driver may ask.
#[derive(Debug)]
struct Offer {
    node: Arc<Node>,
    // The leave to find out whether it is well again, if it is offered for that.
    probe: Option<CircuitPermit>,
}

/// What a choice has to know of the attempt that it is for.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    /// The nodes that the request was sent to without success.
    pub(crate) tried: SmallVec<[Uuid; 4]>,
    /// The datacenter that the request is to be served by, in place of the usual one.
    pub(crate) datacenter: Option<Arc<str>>,
    /// What is asked for; `None` where no attempt is under way: the driver asks for itself.
    pub(crate) kind: Option<Kind>,
    /// Whether the request may go first to a node that may be well again, to find out whether it is.
    pub(crate) finds_out: bool,
}

/// What is hurt by a node that is not well can be sent again only if it may be applied twice. A lightweight transaction never may: what
/// became of it is not known then, whatever is said of it.
fn finds_out(kind: Kind, idempotence: Idempotence) -> bool {
    match kind {
        Kind::Read => true,
        Kind::Write | Kind::Batch => idempotence == Idempotence::Yes,
        _ => false,
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Box<Current>>> = const { RefCell::new(None) };
}

/// Gives the attempt that this thread works at to `then`, which calls nobody else: not a listener, not a subscriber.
fn with_current<T>(then: impl FnOnce(&mut Current) -> T) -> Option<T> {
    CURRENT.with_borrow_mut(|current| current.as_deref_mut().map(then))
}

/// Which of its ledger's attempts this thread works at.
pub(crate) fn number() -> Option<usize> {
    with_current(|current| current.number)
}

/// What the attempt that this thread works at wishes.
pub(crate) fn wishes() -> Wishes {
    let wishes = with_current(|current| Wishes {
        tried: current.ledger.tried(current.number),
        datacenter: current.datacenter.clone(),
        kind: Some(current.kind),
        finds_out: finds_out(current.kind, current.idempotence),
    });
    wishes.unwrap_or_default()
}

/// Whether this node was offered to the driver for the attempt that this thread works at.
pub(crate) fn has_seen(host_id: Uuid) -> bool {
    with_current(|current| current.seen.contains(&host_id)).unwrap_or(false)
}

/// Routing offers a node to the driver. If the driver comes back for another without having asked it, it had no connection.
///
/// The node is `None` where nothing is known of it, and so many `others` could take the request as well, if anybody has counted them.
pub(crate) fn offer(
    host_id: Uuid,
    node: Option<&Arc<Node>>,
    probe: Option<CircuitPermit>,
    has_token: bool,
    others: Option<usize>,
) {
    let passed_over = with_current(|current| {
        current.is_quick = has_token && matches!(current.kind, Kind::Read | Kind::Write);
        current.seen.push(host_id);
        if let Some(others) = others {
            current.ledger.could_go_elsewhere(others);
        }
        let offer = node.map(|node| Offer { node: Arc::clone(node), probe });
        std::mem::replace(&mut current.offered, offer).map(|offer| current.passed_over(offer))
    });
    unreachable(passed_over.flatten());
}

/// The driver sends this attempt to the node with this address.
pub(crate) fn asks(number: usize, address: SocketAddr) {
    let asks = with_current(|current| (current.number == number).then(|| current.asks(address)));
    // The circuit may tell somebody that it is probed.
    if let Some(Some((Offer { node, probe }, is_quick))) = asks.flatten() {
        let asked = Asked::begin(node, probe, is_quick, Instant::now());
        // Just one, since the driver tries again nothing by itself.
        let before = with_current(|current| current.asked.replace(asked));
        drop(before);
    }
}

fn unreachable(offer: Option<Offer>) {
    if let Some(Offer { node, probe }) = offer {
        node.unreachable(probe);
    }
}

impl Current {
    fn asks(&mut self, address: SocketAddr) -> Option<(Offer, bool)> {
        let unoffered = || Some(Offer { node: self.nodes.by_address(address)?, probe: None });
        let offer = self.offered.take().or_else(unoffered);
        self.ledger.asks(self.number, address, offer.as_ref().map(|offer| offer.node.host_id()));
        offer.map(|offer| (offer, self.is_quick))
    }

    fn passed_over(&self, offer: Offer) -> Offer {
        self.ledger.passes_over(self.number, offer.node.address());
        offer
    }

    /// The attempt has ended.
    fn end<T>(&mut self, outcome: &Result<T, Error>) {
        let now = Instant::now();
        match &mut self.asked {
            Some(asked) => asked.end(outcome, now),
            // An error, and the last node that was offered was never asked.
            None if outcome.is_err() => {
                let offer = self.offered.take().map(|offer| self.passed_over(offer));
                unreachable(offer);
            }
            None => {}
        }
        let after = now.saturating_duration_since(self.started);
        let outcome = match outcome {
            Ok(_) => Outcome::Succeeded(after),
            Err(error) => Outcome::Failed(error.kind(), after),
        };
        self.has_ended = true;
        self.ledger.ends(self.number, outcome);
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        if !self.has_ended {
            self.ledger.ends(self.number, Outcome::Abandoned(self.started.elapsed()));
        }
    }
}

impl AttemptGuard {
    /// An attempt that has this number in its ledger, where it began.
    pub(crate) fn new(
        ledger: Arc<Ledger>,
        number: usize,
        started: Instant,
        (kind, idempotence): (Kind, Idempotence),
        datacenter: Option<Arc<str>>,
        nodes: Arc<Nodes>,
    ) -> Self {
        let current = Current {
            ledger,
            number,
            started,
            has_ended: false,
            kind,
            idempotence,
            datacenter,
            nodes,
            is_quick: false,
            offered: None,
            seen: SmallVec::new(),
            asked: None,
        };
        Self { current: Some(Box::new(current)) }
    }

    /// Does a piece of the attempt's work, such as a poll of it, and comes back. A request that the driver begins meanwhile belongs
    /// to this attempt.
    pub(crate) fn work<T>(&mut self, work: impl FnOnce() -> T) -> T {
        // An attempt may be made while another is polled: in what it calls.
        let before = CURRENT.replace(self.current.take());
        let restore = Restore { slot: &mut self.current, before };
        let done = work();
        drop(restore);
        done
    }

    /// Closes the entry.
    pub(crate) fn end<T>(&mut self, outcome: &Result<T, Error>) {
        if let Some(current) = &mut self.current {
            current.end(outcome);
        }
    }

    /// The address that the driver asks, once it has chosen one.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        let current = self.current.as_ref()?;
        current.ledger.node(current.number)
    }

    /// The node that the driver asks, where it is known.
    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.current.as_ref()?.asked.as_ref().map(Asked::node)
    }
}

/// Puts things back where they were, also when the work panics.
struct Restore<'a> {
    slot: &'a mut Option<Box<Current>>,
    before: Option<Box<Current>>,
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        *self.slot = CURRENT.replace(self.before.take());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        thread,
    };

    use palisade::breaker::CircuitState;
    use tracing::{Event, Metadata, Subscriber, span};

    use super::*;
    use crate::{
        error::ErrorKind,
        nodes::{Rules, tests::node},
    };

    fn begin(ledger: &Arc<Ledger>) -> AttemptGuard {
        ledger.begin((Kind::Read, Idempotence::Yes), None, &Nodes::new(Rules::default()))
    }

    fn known(last: u8) -> Arc<Node> {
        node(last, Rules::default())
    }

    fn offered(node: &Arc<Node>) {
        offer(node.host_id(), Some(node), None, true, Some(2));
    }

    fn asked(node: &Arc<Node>) {
        asks(number().unwrap(), node.address());
    }

    fn under_way(node: &Node) -> (u64, u32, u32) {
        let figures = node.figures();
        (figures.attempts, figures.in_flight, figures.unanswered)
    }

    #[test]
    fn what_may_be_applied_twice_finds_out_whether_a_node_is_well_again_and_nothing_else_does() {
        let ledger: Arc<Ledger> = Arc::default();
        let finds_out = |kind, idempotence| {
            let nodes = Nodes::new(Rules::default());
            ledger.begin((kind, idempotence), None, &nodes).work(|| wishes().finds_out)
        };
        for kind in [Kind::Read, Kind::Write, Kind::Batch] {
            assert!(finds_out(kind, Idempotence::Yes), "{kind}");
        }
        for unsafe_to_repeat in [Idempotence::No, Idempotence::Unknown] {
            assert!(!finds_out(Kind::Write, unsafe_to_repeat));
            assert!(!finds_out(Kind::Batch, unsafe_to_repeat));
        }
        for kind in [Kind::Transaction, Kind::Schema, Kind::Truncate, Kind::Prepare, Kind::Other] {
            assert!(!finds_out(kind, Idempotence::Yes), "{kind}");
        }
        assert!(!wishes().finds_out, "the driver asks for itself");
    }

    #[test]
    fn an_attempt_is_charged_to_the_node_that_was_asked_after_those_without_a_connection() {
        let (ledger, gone, there) = (Arc::default(), known(1), known(2));
        let mut attempt = begin(&ledger);
        attempt.work(|| {
            offered(&gone);
            assert!(has_seen(gone.host_id()) && !has_seen(there.host_id()));
            offered(&there);
            asked(&there);
        });
        assert_eq!((under_way(&gone), under_way(&there)), ((0, 0, 0), (1, 1, 1)));
        assert_eq!(gone.figures().failures, 1);
        attempt.end(&Ok(()));
        drop(attempt);
        assert_eq!((under_way(&gone), under_way(&there)), ((0, 0, 0), (1, 0, 0)));
        let text = ledger.to_string();
        assert!(
            text.starts_with("127.0.0.1:9042 has no connection; 127.0.0.2:9042 answered after "),
            "{text}"
        );
    }

    /// A node that came to the cluster just now, after one that has no connection.
    #[test]
    fn what_is_not_known_is_charged_to_nobody() {
        let (ledger, gone) = (Arc::default(), known(1));
        let mut attempt = begin(&ledger);
        attempt.work(|| {
            offered(&gone);
            offer(Uuid::from_u128(9), None, None, true, None);
            asks(0, ([127, 0, 0, 9], 9042).into());
        });
        assert_eq!((under_way(&gone), gone.figures().failures), ((0, 0, 0), 1));
        assert_eq!(ledger.failed_nodes(), [SocketAddr::from(([127, 0, 0, 9], 9042))]);
    }

    #[test]
    fn an_attempt_for_which_no_node_had_a_connection_names_them_all() {
        let (ledger, nodes) = (Arc::default(), [known(1), known(2)]);
        let mut attempt = begin(&ledger);
        attempt.work(|| nodes.iter().for_each(offered));
        attempt.end::<()>(&Err(Error::caller(ErrorKind::Unreachable, "")));
        assert_eq!(nodes.each_ref().map(|node| node.figures().failures), [1, 1]);
        assert_eq!(nodes.each_ref().map(|node| under_way(node)), [(0, 0, 0); 2]);
        let text = ledger.to_string();
        assert!(
            text.contains("127.0.0.1:9042 has no connection; 127.0.0.2:9042 has no connection; no node ")
        );
    }

    #[test]
    fn however_the_future_of_an_attempt_ends_the_node_has_it_back() {
        let node = known(1);
        let ledger = Arc::default();
        // Before it was polled, and before a node was chosen.
        drop(begin(&ledger));
        begin(&ledger).end::<()>(&Err(Error::caller(ErrorKind::Syntax, "")));
        let mut unasked = begin(&ledger);
        unasked.work(|| offered(&node));
        drop(unasked);
        assert_eq!((under_way(&node), node.figures().failures), ((0, 0, 0), 0));
        // Between two polls, on different threads.
        let mut dropped = begin(&ledger);
        dropped.work(|| offered(&node));
        let mut dropped = thread::scope(|scope| {
            let other = scope.spawn(|| {
                dropped.work(|| asked(&node));
                dropped
            });
            other.join().unwrap()
        });
        dropped.work(|| assert_eq!(number(), Some(dropped_number(&ledger))));
        assert_eq!(under_way(&node), (1, 1, 1));
        thread::spawn(move || drop(dropped)).join().unwrap();
        assert_eq!(under_way(&node), (1, 0, 1));
        // By a panic in the middle of a poll.
        let mut panics = begin(&ledger);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            panics.work(|| {
                offered(&node);
                asked(&node);
                panic!("in the driver");
            })
        }));
        assert!(panicked.is_err() && number().is_none());
        assert_eq!(under_way(&node), (2, 1, 2));
        drop(panics);
        assert_eq!((under_way(&node), node.figures().abandoned), ((2, 0, 2), 2));
    }

    fn dropped_number(ledger: &Ledger) -> usize {
        ledger.len() - 1
    }

    #[test]
    fn an_attempt_within_the_work_of_another_is_its_own() {
        let (ledger, other, outer_node, inner_node) = (Arc::default(), Arc::default(), known(1), known(2));
        let mut outer = begin(&ledger);
        drop(begin(&other));
        outer.work(|| {
            offered(&outer_node);
            let mut inner = begin(&other);
            inner.work(|| {
                assert_eq!(number(), Some(1));
                offered(&inner_node);
                asked(&inner_node);
            });
            inner.end(&Ok(()));
            assert_eq!(number(), Some(0));
            // What belongs to another attempt is not this one's.
            asks(1, outer_node.address());
            asked(&outer_node);
        });
        outer.end(&Ok(()));
        assert_eq!((under_way(&outer_node), under_way(&inner_node)), ((1, 0, 0), (1, 0, 0)));
        assert_eq!(number(), None);
    }

    #[test]
    fn what_the_driver_does_by_itself_belongs_to_no_attempt() {
        let node = known(1);
        offered(&node);
        asks(0, node.address());
        assert!(number().is_none() && !has_seen(node.host_id()) && wishes().kind.is_none());
        assert_eq!(under_way(&node), (0, 0, 0));
    }

    /// Makes an attempt of its own whenever something is reported, as one that keeps its log in the cluster might.
    struct Reporter(Arc<Node>);

    impl Subscriber for Reporter {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, _: &Event<'_>) {
            let mut attempt = begin(&Arc::default());
            attempt.work(|| {
                offered(&self.0);
                asked(&self.0);
            });
            attempt.end(&Ok(()));
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn out02_whoever_is_told_of_a_node_may_send_a_request() {
        let (gone, there, log) = (known(1), known(2), known(3));
        let reported = || log.figures().attempts;
        tracing::subscriber::with_default(Reporter(Arc::clone(&log)), || {
            for _ in 0..5 {
                let mut attempt = begin(&Arc::default());
                attempt.work(|| {
                    offered(&gone);
                    offered(&there);
                    asked(&there);
                });
                attempt.end(&Ok(()));
            }
        });
        assert_eq!(gone.circuit().state(), CircuitState::Open);
        assert!(reported() > 0);
        assert_eq!((under_way(&there), log.figures().in_flight), ((5, 0, 0), 0));
    }
}
