//! Each layer over a leaf that does nothing, beside tower's own layer of that kind.

use std::{
    future::{Ready, ready},
    hint::black_box,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use palisade::{DeadlineLayer, Idempotence, Rejection, RetryLayer, TimeoutLayer};
use tower::{BoxError, Layer, Service, retry::Policy};

use crate::harness::{Bars, allocations, finish, is_quick, side_by_side};

type Request = palisade::Envelope<u32>;

const LIMIT: Duration = Duration::from_secs(30);

/// Answers at the first poll.
#[derive(Clone)]
struct ReadyLeaf;

impl Service<Request> for ReadyLeaf {
    type Response = u32;
    type Error = BoxError;
    type Future = Ready<Result<u32, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        ready(Ok(*request))
    }
}

/// Answers at the second poll, as whatever waits for the network does.
#[derive(Clone)]
struct PendingOnceLeaf;

struct PendingOnce {
    request: Request,
    polled: bool,
}

impl Future for PendingOnce {
    type Output = Result<u32, BoxError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::replace(&mut self.polled, true) { Poll::Ready(Ok(*self.request)) } else { Poll::Pending }
    }
}

impl Service<Request> for PendingOnceLeaf {
    type Response = u32;
    type Error = BoxError;
    type Future = PendingOnce;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> PendingOnce {
        PendingOnce { request, polled: false }
    }
}

/// What a user of tower's retry has to write: three attempts out of a budget, of what may be repeated.
#[derive(Clone)]
struct TowerPolicy {
    left: u32,
    budget: std::sync::Arc<tower::retry::budget::TpsBudget>,
}

impl Policy<Request, u32, BoxError> for TowerPolicy {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Request, result: &mut Result<u32, BoxError>) -> Option<Ready<()>> {
        use tower::retry::budget::Budget;
        match result {
            Ok(_) => {
                self.budget.deposit();
                None
            }
            Err(error) if Rejection::find(&**error).is_none() && self.left > 0 && self.budget.withdraw() => {
                self.left -= 1;
                Some(ready(()))
            }
            Err(_) => None,
        }
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        Some(request.clone())
    }
}

fn call<S>(service: &mut S)
where
    S: Service<Request, Response = u32, Error = BoxError>,
{
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))), "the leaf is always ready");
    let request = black_box(Request::new(7).idempotence(Idempotence::Yes));
    assert!(matches!(finish(pin!(service.call(request))), Ok(7)));
}

pub(crate) fn run(bars: &mut Bars) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _context = runtime.enter();

    let timeout = TimeoutLayer::new(LIMIT);
    let deadline = DeadlineLayer::new(LIMIT);
    let retry = RetryLayer::default();
    let tower_timeout = tower::timeout::TimeoutLayer::new(LIMIT);
    let tower_retry =
        tower::retry::RetryLayer::new(TowerPolicy { left: 2, budget: std::sync::Arc::default() });

    let mut both = |name: &str, limit: f64, ours: &mut dyn FnMut(), theirs: &mut dyn FnMut()| {
        let (rounds, iterations) = if is_quick() { (61, 10_000) } else { (301, 50_000) };
        let compared = side_by_side(rounds, iterations, ours, theirs);
        println!("{name}: {:.0} ns, tower {:.0} ns", compared.ours, compared.theirs);
        bars.at_most(&format!("{name}_ratio"), compared.ratio, limit);
        #[expect(clippy::cast_precision_loss, reason = "a handful of allocations")]
        bars.at_most(&format!("{name}_allocations"), allocations(ours) as f64, 0.0);
    };

    let (mut ours, mut theirs) = (timeout.layer(ReadyLeaf), tower_timeout.layer(ReadyLeaf));
    both("timeout_ready", 1.0, &mut || call(&mut ours), &mut || call(&mut theirs));
    let (mut ours, mut theirs) = (timeout.layer(PendingOnceLeaf), tower_timeout.layer(PendingOnceLeaf));
    both("timeout_pending_once", 1.0, &mut || call(&mut ours), &mut || call(&mut theirs));

    let (mut ours, mut theirs) = (deadline.layer(ReadyLeaf), tower_timeout.layer(ReadyLeaf));
    both("deadline_ready", 1.0, &mut || call(&mut ours), &mut || call(&mut theirs));
    let (mut ours, mut theirs) = (deadline.layer(PendingOnceLeaf), tower_timeout.layer(PendingOnceLeaf));
    both("deadline_pending_once", 1.2, &mut || call(&mut ours), &mut || call(&mut theirs));

    let (mut ours, mut theirs) = (retry.layer(ReadyLeaf), tower_retry.layer(ReadyLeaf));
    both("retry_ready", 1.0, &mut || call(&mut ours), &mut || call(&mut theirs));
    let (mut ours, mut theirs) = (retry.layer(PendingOnceLeaf), tower_retry.layer(PendingOnceLeaf));
    both("retry_pending_once", 1.0, &mut || call(&mut ours), &mut || call(&mut theirs));

    let mut ours = deadline.layer(retry.layer(timeout.layer(ReadyLeaf)));
    let mut theirs = tower_timeout.layer(tower_retry.layer(tower_timeout.layer(ReadyLeaf)));
    both("three_layers_ready", 1.0, &mut || call(&mut ours), &mut || call(&mut theirs));
    let mut ours = deadline.layer(retry.layer(timeout.layer(PendingOnceLeaf)));
    let mut theirs = tower_timeout.layer(tower_retry.layer(tower_timeout.layer(PendingOnceLeaf)));
    both("three_layers_pending_once", 1.0, &mut || call(&mut ours), &mut || call(&mut theirs));
}
