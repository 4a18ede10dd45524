use std::sync::Arc;

use tower::Layer;
use tracing::{Level, Span};

use super::{SpanFn, Standard, Trace, span::Kind};
use crate::ByError;

/// Makes a span for each call. See the [module](super) for more.
#[derive(Clone, Debug)]
pub struct TraceLayer<C = ByError, M = Standard> {
    classifier: C,
    make: M,
}

impl TraceLayer {
    /// A span `call` of level `INFO` for each call: for the outside of a stack.
    pub const fn call() -> Self {
        Self { classifier: ByError, make: Standard { kind: Kind::Call, level: Level::INFO, name: "call" } }
    }

    /// A span `attempt` of level `DEBUG` for each attempt: for the inside of a stack, below what repeats.
    pub const fn attempt() -> Self {
        Self {
            classifier: ByError,
            make: Standard { kind: Kind::Attempt, level: Level::DEBUG, name: "attempt" },
        }
    }
}

impl<C> TraceLayer<C> {
    /// Sets the field `layer` of its spans, to tell several apart. Default `call`, or `attempt`.
    pub const fn named(mut self, name: &'static str) -> Self {
        self.make.name = name;
        self
    }

    /// Sets the level of its spans.
    pub const fn level(mut self, level: Level) -> Self {
        self.make.level = level;
        self
    }

    /// Uses spans that `make` makes. Of the fields that a call ends with they get those that they declare.
    pub fn make_span<Req, F>(self, make: F) -> TraceLayer<C, SpanFn<F>>
    where
        F: Fn(&Req) -> Span,
    {
        TraceLayer { classifier: self.classifier, make: SpanFn(make) }
    }
}

impl<C, M> TraceLayer<C, M> {
    /// What tells the meaning of an outcome. Default [`ByError`].
    pub fn classifier<D>(self, classifier: D) -> TraceLayer<D, M> {
        TraceLayer { classifier, make: self.make }
    }
}

impl<S, C: Clone, M: Clone> Layer<S> for TraceLayer<C, M> {
    type Service = Trace<S, C, M>;

    fn layer(&self, inner: S) -> Trace<S, C, M> {
        Trace::new(inner, Arc::new(self.classifier.clone()), self.make.clone())
    }
}
