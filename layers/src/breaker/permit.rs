//! The leave to make one call, and what becomes of it: for the layer's calls, and for callers without a layer.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    Circuit,
    state::{Outcome, Ticket},
};
use crate::{
    Rejection,
    class::{Class, Fault},
    clock::Instant,
    handle::Handle,
    judged::Judge,
    superseded::is_superseded,
};

/// The leave to make one call to the target of a [`Circuit`], from [`Circuit::acquire`].
///
/// Dropped without [`end`](Self::end), it counts as a call that its caller gave up: as slow, if it is older than the threshold of
/// `slow_calls`, else not at all, and never if a [hedge](crate::hedge) dropped it because another attempt was faster. Either
/// way a probe makes room for the next.
#[must_use = "a permit that is dropped counts as a call that was given up: keep it until the call has ended, and `end` it"]
pub struct CircuitPermit(Watched<Arc<Circuit>>);

impl CircuitPermit {
    #[inline]
    pub(super) fn new(circuit: &Arc<Circuit>, ticket: Ticket) -> Self {
        Self(Watched::new(circuit, ticket))
    }

    /// The call has come to this, now. It is judged as a layer's call would be, and its time is that since
    /// [`acquire`](Circuit::acquire). If the circuit has changed its state meanwhile, it changes nothing more.
    #[inline]
    pub fn end(mut self, class: &Class) {
        self.0.judge(class);
    }
}

impl fmt::Debug for CircuitPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitPermit").field("ticket", &self.0.ticket).finish_non_exhaustive()
    }
}

/// What a call holds of its circuit: a layer's calls hold a handle, which threads count apart.
pub(super) trait Held: Clone {
    fn circuit(&self) -> &Circuit;
}

impl Held for Arc<Circuit> {
    #[inline]
    fn circuit(&self) -> &Circuit {
        self
    }
}

impl Held for Handle<Circuit> {
    #[inline]
    fn circuit(&self) -> &Circuit {
        self
    }
}

/// A call that was admitted. Dropped before its outcome is known, it counts as one that its caller gave up.
pub(super) struct Watched<H: Held> {
    circuit: Option<H>,
    ticket: Ticket,
}

impl<H: Held> Watched<H> {
    #[inline]
    pub(super) fn new(circuit: &H, ticket: Ticket) -> Self {
        Self { circuit: Some(circuit.clone()), ticket }
    }

    #[inline]
    fn end(&mut self, outcome: Outcome) {
        if let Some(held) = self.circuit.take() {
            held.circuit().record(self.ticket, outcome, Instant::now());
        }
    }
}

impl<H: Held> Judge for Watched<H> {
    #[inline]
    fn judge(&mut self, class: &Class) {
        self.end(match class.fault() {
            // A layer further in refused it: the service was not asked.
            _ if class.is_refused_here() => Outcome::Neutral,
            Fault::None => Outcome::Success,
            Fault::Caller => Outcome::Neutral,
            Fault::Overload => Outcome::Overload,
            Fault::Server | Fault::Unreachable => Outcome::Failure,
        });
    }

    fn refusal(retry_after: Option<Duration>) -> Rejection {
        Rejection::circuit_open(retry_after)
    }
}

impl<H: Held> Drop for Watched<H> {
    #[inline]
    fn drop(&mut self) {
        if self.circuit.is_some() {
            self.end(if is_superseded() { Outcome::Superseded } else { Outcome::Dropped });
        }
    }
}
