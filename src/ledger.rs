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
    cell::Cell,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use palisade::Instant;
use scylla::{
    errors::{RequestAttemptError, RequestError},
    observability::history::{AttemptId, HistoryListener, RequestId, SpeculativeId},
    policies::retry::RetryDecision,
};

use smallvec::SmallVec;

pub use self::layer::{LedgerFuture, LedgerLayer, LedgerService};
use crate::{
    error::{Error, ErrorKind},
    request::Kind,
};

/// How many attempts a ledger keeps. Of more it forgets the oldest that succeeded, or else the oldest but the first few.
const KEPT: usize = 32;

/// How many of the first attempts are not forgotten.
const FIRST: usize = 8;

/// The attempts of one logical request, shared by all its copies, its prepare and its pages.
#[derive(Debug, Default)]
pub struct Ledger {
    deadline: OnceLock<Instant>,
    entries: Mutex<Entries>,
}

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

    /// Opens an entry for an attempt that begins now.
    pub(crate) fn begin(self: &Arc<Self>, kind: Kind) -> AttemptGuard {
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
        entries.list.push((number, Attempt { kind, node: None, started, outcome: Outcome::Pending }));
        drop(entries);
        AttemptGuard { ledger: Arc::clone(self), number, started, ended: false }
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
        match self.node {
            Some(node) => write!(f, "{node} ")?,
            None if self.kind == Kind::Prepare => f.write_str("every node ")?,
            None => f.write_str("no node ")?,
        }
        if self.kind == Kind::Prepare {
            f.write_str("(prepare) ")?;
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

/// An attempt that is under way. If it is dropped before it has ended, the attempt was abandoned.
#[derive(Debug)]
pub(crate) struct AttemptGuard {
    ledger: Arc<Ledger>,
    number: usize,
    started: Instant,
    ended: bool,
}

impl AttemptGuard {
    /// Does a piece of the attempt's work, such as a poll of it. A request that the driver begins meanwhile belongs to
    /// this attempt.
    pub(crate) fn work<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = CURRENT.replace(self.number);
        let done = work();
        CURRENT.set(before);
        done
    }

    /// The node that the driver asks, once it has chosen one.
    pub(crate) fn node(&self) -> Option<SocketAddr> {
        let entries = self.ledger.lock();
        entries.list.iter().rev().find(|entry| entry.0 == self.number)?.1.node
    }

    /// Closes the entry.
    pub(crate) fn end<T>(&mut self, outcome: &Result<T, Error>) {
        let after = self.started.elapsed();
        let outcome = match outcome {
            Ok(_) => Outcome::Succeeded(after),
            Err(error) => Outcome::Failed(error.kind(), after),
        };
        self.ended = true;
        self.ledger.update(self.number, |attempt| attempt.outcome = outcome);
    }
}

impl Drop for AttemptGuard {
    fn drop(&mut self) {
        if !self.ended {
            let outcome = Outcome::Abandoned(self.started.elapsed());
            self.ledger.update(self.number, |attempt| attempt.outcome = outcome);
        }
    }
}

/// No attempt of a ledger has this number.
const NONE: usize = usize::MAX;

thread_local! {
    /// The attempt whose work this thread does. Attempts of one request share its ledger, and may overlap: this tells
    /// them apart when the driver begins one.
    static CURRENT: Cell<usize> = const { Cell::new(NONE) };
}

/// The driver walks on to another node when it has no connection to the one that it picked; what counts is the
/// node that an attempt is really sent to.
impl HistoryListener for Ledger {
    fn log_request_start(&self) -> RequestId {
        RequestId(CURRENT.get())
    }

    fn log_request_success(&self, _: RequestId) {}

    fn log_request_error(&self, _: RequestId, _: &RequestError) {}

    fn log_new_speculative_fiber(&self, _: RequestId) -> SpeculativeId {
        SpeculativeId(0)
    }

    fn log_attempt_start(&self, attempt: RequestId, _: Option<SpeculativeId>, node: SocketAddr) -> AttemptId {
        self.update(attempt.0, |attempt| attempt.node = Some(node));
        AttemptId(0)
    }

    fn log_attempt_success(&self, _: AttemptId) {}

    fn log_attempt_error(&self, _: AttemptId, _: &RequestAttemptError, _: &RetryDecision) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], 9042))
    }

    #[test]
    fn a_ledger_reads_as_the_story_of_a_request() {
        let ledger = Arc::new(Ledger::default());
        let asks = |attempt: &AttemptGuard, last| {
            let request = attempt.work(|| ledger.log_request_start());
            ledger.log_attempt_start(request, None, node(last));
        };
        ledger.begin(Kind::Prepare).end(&Ok(()));
        // Two that overlap, as those of a hedge do.
        let (dropped, mut failed) = (ledger.begin(Kind::Read), ledger.begin(Kind::Read));
        asks(&failed, 3);
        asks(&dropped, 2);
        drop(dropped);
        failed.end::<()>(&Err(Error::caller(ErrorKind::Syntax, "")));
        drop(failed);
        let open = ledger.begin(Kind::Read);
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
            ledger.begin(Kind::Read).end(&Ok(()));
        }
        assert_eq!(ledger.len(), 100);
        assert_eq!(ledger.attempts().len(), KEPT);
        assert!(ledger.to_string().ends_with("; and 68 more"));

        // What failed is kept, however much succeeded before and after.
        for round in 0..100 {
            let mut attempt = ledger.begin(Kind::Read);
            match round {
                50 => attempt.end::<()>(&Err(Error::caller(ErrorKind::Syntax, ""))),
                _ => attempt.end(&Ok(())),
            }
        }
        assert!(ledger.to_string().contains(" syntax after "), "{ledger}");
        for _ in 0..100 {
            drop(ledger.begin(Kind::Read));
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
