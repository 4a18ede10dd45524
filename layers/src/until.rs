//! Until when a request can wait in line.

use crate::{clock::Instant, request::HasDeadline};

/// Tells a layer with a line until when a request can wait there: [`NoDeadline`] or [`ByDeadline`].
///
/// Layers work over any request with the first, and are told to use the second by `deadline_aware()`.
#[diagnostic::on_unimplemented(
    message = "a layer that is `deadline_aware()` cannot tell the deadline of a `{Req}`",
    note = "implement `palisade::HasDeadline` for it, send `palisade::Envelope::new(request)`, or leave `deadline_aware()` out"
)]
pub trait Until<Req> {
    /// The moment after which nobody waits for this request any more, if there is one.
    fn until(&self, request: &Req) -> Option<Instant>;

    /// Takes that moment off the request, for a layer that watches it from here on.
    fn lift(&self, request: &mut Req) {
        let _ = request;
    }
}

/// Requests wait as long as the layer lets them, whatever they know of a deadline.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDeadline;

impl<Req> Until<Req> for NoDeadline {
    #[inline]
    fn until(&self, _: &Req) -> Option<Instant> {
        None
    }
}

/// Requests wait until their deadline at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByDeadline;

impl<Req: HasDeadline> Until<Req> for ByDeadline {
    #[inline]
    fn until(&self, request: &Req) -> Option<Instant> {
        request.deadline()
    }

    #[inline]
    fn lift(&self, request: &mut Req) {
        request.lift_deadline();
    }
}
