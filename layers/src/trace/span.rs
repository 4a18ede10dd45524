use std::{fmt, time::Duration};

use tracing::{Level, Span, field::Empty};

use crate::class::Class;

/// Makes the span of a call: [`Standard`], or the function that was given to
/// [`make_span`](super::TraceLayer::make_span). You will not need to name it.
#[diagnostic::on_unimplemented(
    message = "the function given to `make_span` does not take a `{Req}`",
    note = "name the type of the request in the function: `|request: &MyRequest| tracing::info_span!(...)`"
)]
pub trait MakeSpan<Req> {
    /// The span of this request's call.
    fn make_span(&self, request: &Req) -> Span;
}

/// The span that a layer makes unless it is given another.
#[derive(Clone, Copy, Debug)]
pub struct Standard {
    pub(super) kind: Kind,
    pub(super) level: Level,
    pub(super) name: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Call,
    Attempt,
}

/// A span's level and name are fixed where it stands in the code.
macro_rules! standard_span {
    ($level:expr, $name:literal, $layer:expr) => {
        tracing::span!(
            target: "palisade",
            $level,
            $name,
            layer = $layer,
            outcome = Empty,
            fault = Empty,
            elapsed_ms = Empty,
            error = Empty,
        )
    };
}

impl<Req> MakeSpan<Req> for Standard {
    #[inline]
    fn make_span(&self, _: &Req) -> Span {
        self.span()
    }
}

impl Standard {
    fn span(&self) -> Span {
        let layer = self.name;
        match (self.kind, self.level) {
            (Kind::Call, Level::ERROR) => standard_span!(Level::ERROR, "call", layer),
            (Kind::Call, Level::WARN) => standard_span!(Level::WARN, "call", layer),
            (Kind::Call, Level::INFO) => standard_span!(Level::INFO, "call", layer),
            (Kind::Call, Level::DEBUG) => standard_span!(Level::DEBUG, "call", layer),
            (Kind::Call, Level::TRACE) => standard_span!(Level::TRACE, "call", layer),
            (Kind::Attempt, Level::ERROR) => standard_span!(Level::ERROR, "attempt", layer),
            (Kind::Attempt, Level::WARN) => standard_span!(Level::WARN, "attempt", layer),
            (Kind::Attempt, Level::INFO) => standard_span!(Level::INFO, "attempt", layer),
            (Kind::Attempt, Level::DEBUG) => standard_span!(Level::DEBUG, "attempt", layer),
            (Kind::Attempt, Level::TRACE) => standard_span!(Level::TRACE, "attempt", layer),
        }
    }
}

/// A span that a function makes.
#[derive(Clone, Copy)]
pub struct SpanFn<F>(pub(super) F);

impl<F, Req> MakeSpan<Req> for SpanFn<F>
where
    F: Fn(&Req) -> Span,
{
    #[inline]
    fn make_span(&self, request: &Req) -> Span {
        (self.0)(request)
    }
}

impl<F> fmt::Debug for SpanFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpanFn")
    }
}

/// Fills in the fields of a call that has ended by itself.
pub(super) fn record_end(span: &Span, class: Class, error: Option<&dyn fmt::Display>, elapsed: Duration) {
    if class.is_failure() {
        span.record("fault", class.fault().as_str());
        record_outcome(span, "failure", elapsed);
    } else {
        record_outcome(span, "success", elapsed);
    }
    if let Some(error) = error {
        span.record("error", tracing::field::display(error));
    }
}

pub(super) fn record_outcome(span: &Span, outcome: &'static str, elapsed: Duration) {
    span.record("outcome", outcome);
    span.record("elapsed_ms", elapsed.as_secs_f64() * 1e3);
}
