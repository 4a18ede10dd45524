//! The record of a request's attempts: which nodes were asked, and how each attempt ended.
//!
//! An error that says only "timed out" makes somebody search three logs at night. So each request carries a
//! ledger, in which the leaf service notes every attempt, and which whoever made the request attaches to its
//! error:
//!
//! ```text
//! the deadline passed after 2s (127.0.0.2:9042 abandoned after 300ms; 127.0.0.3:9042 overloaded after 1.2ms)
//! ```
//!
//! [`Client`](crate::Client) does that by itself. In a stack that is called without a client, place a
//! [`LedgerLayer`] outermost.

mod layer;

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use palisade::{Idempotence, Instant};
use scylla::{
    errors::{RequestAttemptError, RequestError},
    observability::history::{AttemptId, HistoryListener, RequestId, SpeculativeId},
    policies::retry::RetryDecision,
};

use smallvec::SmallVec;
use uuid::Uuid;

pub use self::layer::{LedgerFuture, LedgerLayer, LedgerService};
use crate::{
    error::ErrorKind,
    nodes::Nodes,
    request::Kind,
    routing::current::{self, AttemptGuard},
};

/// How many attempts a ledger keeps. Of more it forgets the oldest that succeeded, or else the oldest but the first few.
const KEPT: usize = 32;

/// How many nodes without a connection an attempt names: a cluster may have hundreds.
const PASSED_OVER: usize = 8;

/// How many of the first attempts are not forgotten.
const FIRST: usize = 8;

/// The attempts of one logical request, shared by all its copies, its prepare and its pages.
#[derive(Debug)]
pub struct Ledger {
    deadline: OnceLock<Instant>,
    entries: Mutex<Entries>,
    // How many other nodes could have taken the last attempt.
    others: AtomicUsize,
}

/// Nobody has said how many other nodes there are.
const UNKNOWN: usize = usize::MAX;

#[derive(Debug, Default)]
struct Entries {
    // Each with its number. One attempt is the rule, and two are no exception: they need no allocation of their own.
    list: SmallVec<[(usize, Attempt); 2]>,
    // How many attempts there were.
    count: usize,
}

/// One attempt of a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// What was asked for. An operation can take several steps: a preparation, then each page.
    pub kind: Kind,
    /// The node that was asked. `None` while no connection to one had been found, and for a preparation, which all
    /// nodes are asked for.
    pub node: Option<SocketAddr>,
    /// The id of that node, where it is known.
    pub host_id: Option<Uuid>,
    /// The datacenter that was to answer, where that is not left to the session.
    pub datacenter: Option<Arc<str>>,
    /// The nodes that would have been asked before that one, but the driver had no connection to them; the first eight.
    pub passed_over: Vec<SocketAddr>,
    /// When the attempt began.
    pub started: Instant,
    /// How it ended.
    pub outcome: Outcome,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is still under way.
    Pending,
    /// It was answered, after this long.
    Succeeded(Duration),
    /// It failed, after this long.
    Failed(ErrorKind, Duration),
    /// Its future was dropped after this long: a timeout fired, or a faster answer made it superfluous.
    Abandoned(Duration),
}

impl Default for Ledger {
    fn default() -> Self {
        Self { deadline: OnceLock::new(), entries: Mutex::default(), others: AtomicUsize::new(UNKNOWN) }
    }
}

impl Ledger {
    /// All attempts so far, the oldest first; at most 32 are kept.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.lock().list.iter().map(|(_, attempt)| attempt.clone()).collect()
    }

    /// How many attempts were made so far.
    pub fn len(&self) -> usize {
        self.lock().count
    }

    /// Whether no attempt was made yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The nodes that were asked so far and did not answer well, in the order of the attempts.
    pub fn failed_nodes(&self) -> Vec<SocketAddr> {
        let entries = self.lock();
        let attempts = entries.list.iter().map(|(_, attempt)| attempt);
        let failed = attempts.filter(|attempt| !matches!(attempt.outcome, Outcome::Succeeded(_)));
        failed.filter_map(|attempt| attempt.node).collect()
    }

    /// The deadline that the request got when it entered its stack, the same for its prepare and its pages.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline.get().copied()
    }

    /// Fixes the deadline, unless it is fixed already.
    pub(crate) fn fix_deadline(&self, at: Instant) {
        let _ = self.deadline.set(at);
    }

    /// Whether another node could take a second attempt; `None` where nobody knows.
    pub(crate) fn has_another_node(&self) -> Option<bool> {
        let others = self.others.load(Relaxed);
        (others != UNKNOWN).then_some(others > 0)
    }

    pub(crate) fn could_go_elsewhere(&self, others: usize) {
        self.others.store(others, Relaxed);
    }

    /// The nodes that were asked without success, so far, by other attempts than this one.
    pub(crate) fn tried(&self, number: usize) -> SmallVec<[Uuid; 4]> {
        let entries = self.lock();
        if entries.list.len() < 2 {
            return SmallVec::new();
        }
        let others = entries.list.iter().filter(|entry| entry.0 != number).map(|(_, attempt)| attempt);
        let failed = others.filter(|attempt| !matches!(attempt.outcome, Outcome::Succeeded(_)));
        failed.filter_map(|attempt| attempt.host_id).collect()
    }

    /// The driver sends the attempt to this node.
    pub(crate) fn asks(&self, number: usize, node: SocketAddr, host_id: Option<Uuid>) {
        self.update(number, |attempt| {
            attempt.node = Some(node);
            attempt.host_id = host_id;
        });
    }

    /// The driver has no connection to this node.
    pub(crate) fn passes_over(&self, number: usize, node: SocketAddr) {
        self.update(number, |attempt| {
            if attempt.passed_over.len() < PASSED_OVER {
                attempt.passed_over.push(node);
            }
        });
    }

    /// Opens an entry for an attempt that begins now, in the datacenter that is named.
    pub(crate) fn begin(
        self: &Arc<Self>,
        (kind, idempotence): (Kind, Idempotence),
        datacenter: Option<Arc<str>>,
        nodes: &Arc<Nodes>,
    ) -> AttemptGuard {
        let started = Instant::now();
        let mut entries = self.lock();
        let number = entries.count;
        entries.count += 1;
        if entries.list.len() == KEPT {
            let succeeded =
                |(_, attempt): &(usize, Attempt)| matches!(attempt.outcome, Outcome::Succeeded(_));
            let forgotten = entries.list.iter().position(succeeded).unwrap_or(FIRST);
            entries.list.remove(forgotten);
        }
        let attempt = Attempt {
            kind,
            node: None,
            host_id: None,
            datacenter: datacenter.clone(),
            passed_over: Vec::new(),
            started,
            outcome: Outcome::Pending,
        };
        entries.list.push((number, attempt));
        drop(entries);
        let what = (kind, idempotence);
        AttemptGuard::new(Arc::clone(self), number, started, what, datacenter, Arc::clone(nodes))
    }

    /// How an attempt has ended.
    pub(crate) fn ends(&self, number: usize, outcome: Outcome) {
        self.update(number, |attempt| attempt.outcome = outcome);
    }

    /// The node that an attempt was sent to.
    pub(crate) fn node(&self, number: usize) -> Option<SocketAddr> {
        self.lock().list.iter().rev().find(|entry| entry.0 == number)?.1.node
    }

    fn update(&self, number: usize, change: impl FnOnce(&mut Attempt)) {
        let mut entries = self.lock();
        if let Some((_, attempt)) = entries.list.iter_mut().rev().find(|entry| entry.0 == number) {
            change(attempt);
        }
    }

    // A panic while the lock is held leaves a list that is whole: every change is one call of the list's own.
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.lock();
        for (index, (_, attempt)) in entries.list.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            attempt.fmt(f)?;
        }
        match entries.count - entries.list.len() {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for node in &self.passed_over {
            write!(f, "{node} has no connection; ")?;
        }
        match self.node {
            Some(node) => write!(f, "{node} ")?,
            None if self.kind == Kind::Prepare => f.write_str("every node ")?,
            None => f.write_str("no node ")?,
        }
        match &self.datacenter {
            _ if self.kind == Kind::Prepare => f.write_str("(prepare) ")?,
            Some(datacenter) => write!(f, "in {datacenter} ")?,
            None => {}
        }
        match self.outcome {
            Outcome::Pending => write!(f, "has not answered yet"),
            Outcome::Succeeded(after) => write!(f, "answered after {}", Rounded(after)),
            Outcome::Failed(kind, after) => write!(f, "{kind} after {}", Rounded(after)),
            Outcome::Abandoned(after) => write!(f, "abandoned after {}", Rounded(after)),
        }
    }
}

/// A duration in tenths of a millisecond, which is as much as a reader wants.
struct Rounded(Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}ms", self.0.as_secs_f64() * 1e3)
    }
}

/// No attempt of a ledger has this number.
const NONE: usize = usize::MAX;

/// The driver walks on to another node when it has no connection to the one that it picked; what counts is the
/// node that an attempt is really sent to.
impl HistoryListener for Ledger {
    fn log_request_start(&self) -> RequestId {
        RequestId(current::number().unwrap_or(NONE))
    }

    fn log_request_success(&self, _: RequestId) {}

    fn log_request_error(&self, _: RequestId, _: &RequestError) {}

    fn log_new_speculative_fiber(&self, _: RequestId) -> SpeculativeId {
        SpeculativeId(0)
    }

    fn log_attempt_start(&self, attempt: RequestId, _: Option<SpeculativeId>, node: SocketAddr) -> AttemptId {
        current::asks(attempt.0, node);
        AttemptId(0)
    }

    fn log_attempt_success(&self, _: AttemptId) {}

    fn log_attempt_error(&self, _: AttemptId, _: &RequestAttemptError, _: &RetryDecision) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::Error, nodes::Rules};

    fn node(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], 9042))
    }

    fn begin(ledger: &Arc<Ledger>, kind: Kind) -> AttemptGuard {
        ledger.begin((kind, Idempotence::Yes), None, &Nodes::new(Rules::default()))
    }

    #[test]
    fn a_ledger_reads_as_the_story_of_a_request() {
        let ledger = Arc::new(Ledger::default());
        let asks = |attempt: &mut AttemptGuard, last| {
            attempt.work(|| ledger.log_attempt_start(ledger.log_request_start(), None, node(last)));
        };
        begin(&ledger, Kind::Prepare).end(&Ok(()));
        // Two that overlap, as those of a hedge do.
        let (mut dropped, mut failed) = (begin(&ledger, Kind::Read), begin(&ledger, Kind::Read));
        asks(&mut failed, 3);
        asks(&mut dropped, 2);
        drop(dropped);
        failed.end::<()>(&Err(Error::caller(ErrorKind::Syntax, "")));
        drop(failed);
        let open = begin(&ledger, Kind::Read);
        // What the driver does outside of an attempt changes nothing.
        ledger.log_attempt_start(ledger.log_request_start(), None, node(9));

        let text = ledger.to_string();
        assert!(text.starts_with("every node (prepare) answered after "), "{text}");
        assert!(text.contains("; 127.0.0.2:9042 abandoned after "), "{text}");
        assert!(text.contains("127.0.0.3:9042 syntax after "), "{text}");
        assert!(text.ends_with("no node has not answered yet"), "{text}");
        assert_eq!(ledger.failed_nodes(), [node(2), node(3)]);
        drop(open);
    }

    #[test]
    fn a_ledger_is_bounded() {
        let ledger = Arc::new(Ledger::default());
        for _ in 0..100 {
            begin(&ledger, Kind::Read).end(&Ok(()));
        }
        assert_eq!(ledger.len(), 100);
        assert_eq!(ledger.attempts().len(), KEPT);
        assert!(ledger.to_string().ends_with("; and 68 more"));

        // What failed is kept, however much succeeded before and after.
        for round in 0..100 {
            let mut attempt = begin(&ledger, Kind::Read);
            match round {
                50 => attempt.end::<()>(&Err(Error::caller(ErrorKind::Syntax, ""))),
                _ => attempt.end(&Ok(())),
            }
        }
        assert!(ledger.to_string().contains(" syntax after "), "{ledger}");
        for _ in 0..100 {
            drop(begin(&ledger, Kind::Read));
        }
        assert_eq!((ledger.len(), ledger.attempts().len()), (300, KEPT));
        assert!(matches!(ledger.attempts()[KEPT - 1].outcome, Outcome::Abandoned(_)));
    }

    #[test]
    fn the_deadline_is_fixed_once() {
        let ledger = Ledger::default();
        let now = Instant::now();
        ledger.fix_deadline(now);
        ledger.fix_deadline(now + Duration::from_secs(1));
        assert_eq!(ledger.deadline(), Some(now));
    }
}
