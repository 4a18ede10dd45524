//! What a drain tells of itself.

use std::time::Duration;

/// How far a drain has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It has not begun.
    Open,
    /// It has begun, and lets new calls in for a while.
    Grace,
    /// New calls are refused, old ones finish.
    Draining,
    /// Nothing is in flight any more, and nothing ever will be.
    Finished,
}

impl Phase {
    /// The phase as text: `open`, `grace`, `draining` or `finished`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Grace => "grace",
            Self::Draining => "draining",
            Self::Finished => "finished",
        }
    }
}

/// The figures of a [`Drain`](super::Drain) at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainSnapshot {
    /// How far it has got.
    pub phase: Phase,
    /// Calls and guards in flight.
    pub in_flight: u64,
    /// Calls and guards that were refused.
    pub refused: u64,
    /// How long ago it began.
    pub draining_for: Option<Duration>,
}

/// What became of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Nothing is in flight any more, and nothing ever will be.
    pub finished: bool,
    /// Calls and guards that are in flight still. They go on: their tasks are the runtime's.
    pub in_flight: u64,
    /// The time from the beginning of the drain until its end, or until now.
    pub took: Duration,
}
