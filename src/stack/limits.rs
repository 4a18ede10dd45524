//! Time limits that change at run time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use palisade::{Limit, clock::nanos};

use crate::{request::Request, timeouts::Timeouts};

/// [`Timeouts`] of which an operator changes the limits while they are in use. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct LiveTimeouts(Arc<Limits>);

#[derive(Debug)]
struct Limits {
    // Nanoseconds. Each holds by itself, so that no order among them is needed.
    usual: AtomicU64,
    prepare: AtomicU64,
    schema: AtomicU64,
    scope: Scope,
}

/// Of what the limits are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope {
    Call,
    Attempt,
}

/// The limits at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    pub(super) usual: Duration,
    pub(super) prepare: Duration,
    pub(super) schema: Duration,
}

impl LiveTimeouts {
    pub(super) fn new(scope: Scope, lengths: Lengths) -> Self {
        let zero = || AtomicU64::new(0);
        let live = Self(Arc::new(Limits { usual: zero(), prepare: zero(), schema: zero(), scope }));
        live.set(lengths);
        live
    }

    pub(super) fn set(&self, Lengths { usual, prepare, schema }: Lengths) {
        self.0.usual.store(nanos(usual), Relaxed);
        self.0.prepare.store(nanos(prepare), Relaxed);
        self.0.schema.store(nanos(schema), Relaxed);
    }

    pub(super) fn usual(&self) -> Duration {
        Duration::from_nanos(self.0.usual.load(Relaxed))
    }
}

impl Limit<Request> for LiveTimeouts {
    fn limit(&self, request: &Request) -> Duration {
        let of = |limit: &AtomicU64| Duration::from_nanos(limit.load(Relaxed));
        let usual = of(&self.0.usual);
        let timeouts = match self.0.scope {
            Scope::Call => Timeouts::total(usual),
            Scope::Attempt => Timeouts::attempt(usual),
        };
        timeouts.prepare(of(&self.0.prepare)).schema(of(&self.0.schema)).limit(request)
    }
}
