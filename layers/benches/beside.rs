//! Two services beside each other, and what several comparisons have in common.

use std::{future::Ready, num::NonZeroU32, sync::Arc, time::Duration};

use tower::{BoxError, Service, retry::Policy};

use crate::{
    harness::{Bars, allocations, is_quick, is_wanted, side_by_side},
    leaf::{Request, call},
};

/// Limits that are there and never reached.
pub(crate) const MANY: NonZeroU32 = NonZeroU32::new(1_000_000_000).expect("a number above zero");
pub(crate) const PLACES: NonZeroU32 = NonZeroU32::new(1_000).expect("a number above zero");

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// What a user of tower's retry has to write: three attempts out of a budget, of what may be repeated.
#[derive(Clone)]
pub(crate) struct TowerPolicy {
    left: u32,
    budget: Arc<tower::retry::budget::TpsBudget>,
}

impl TowerPolicy {
    pub(crate) fn new() -> Self {
        Self { left: 2, budget: Arc::default() }
    }
}

impl<E: Into<BoxError>> Policy<Request, u32, E> for TowerPolicy {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Request, result: &mut Result<u32, E>) -> Option<Ready<()>> {
        use tower::retry::budget::Budget;
        match result {
            Ok(_) => {
                self.budget.deposit();
                None
            }
            Err(_) if self.left > 0 && self.budget.withdraw() => {
                self.left -= 1;
                Some(std::future::ready(()))
            }
            Err(_) => None,
        }
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        Some(request.clone())
    }
}

/// Prints what came of two services, the ratio with its limit, and our allocations, of which there may be none.
pub(crate) fn compare<A, B>(bars: &mut Bars, name: &str, peer: &str, limit: f64, mut ours: A, mut theirs: B)
where
    A: Service<Request, Response = u32>,
    B: Service<Request, Response = u32>,
{
    if !is_wanted(name) {
        return;
    }
    let (rounds, iterations) = if is_quick() { (41, 5_000) } else { (201, 20_000) };
    let compared = side_by_side(rounds, iterations, &mut || call(&mut ours), &mut || call(&mut theirs));
    println!("{name}: {:.0} ns, {peer} {:.0} ns", compared.ours, compared.theirs);
    bars.at_most(&format!("{name}_to_{peer}"), compared.ratio, limit);
    #[expect(clippy::cast_precision_loss, reason = "a handful of allocations")]
    bars.at_most(&format!("{name}_allocations"), allocations(&mut || call(&mut ours)) as f64, 0.0);
}

/// Compares a layer with a peer's over both leaves.
macro_rules! beside {
    ($bars:expr, $name:literal, $ours:expr, $peer:literal, $theirs:expr, $ready:expr, $pending:expr) => {{
        let (ours, theirs) = (&$ours, &$theirs);
        compare(
            $bars,
            concat!($name, "_ready"),
            $peer,
            $ready,
            ours.layer(ReadyLeaf),
            theirs.layer(ReadyLeaf),
        );
        compare(
            $bars,
            concat!($name, "_pending_once"),
            $peer,
            $pending,
            ours.layer(PendingOnceLeaf),
            theirs.layer(PendingOnceLeaf),
        );
    }};
}
pub(crate) use beside;
