//! The words for what a circuit does, and why.

use std::time::Duration;

/// What a circuit does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CircuitState {
    /// Calls pass, and their outcomes are watched.
    Closed,
    /// Calls are refused until a wait is over.
    Open,
    /// A few calls pass as probes. Their outcomes decide.
    HalfOpen,
}

impl CircuitState {
    /// The state as a metric label: `closed`, `open` or `half_open`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What an operator makes of a circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// It opens and closes by itself. The default.
    #[default]
    Normal,
    /// It refuses nothing, and reports when it would have opened: at most as often as it would.
    MetricsOnly,
    /// It refuses every call.
    ForcedOpen,
    /// It lets every call pass and watches nothing.
    ForcedClosed,
}

/// Why a circuit changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The share of failures in the window reached its limit.
    FailureRatio,
    /// The share of slow calls in the window reached its limit.
    SlowRatio,
    /// So many calls in a row have failed.
    ConsecutiveFailures,
    /// The wait of an open circuit is over.
    WaitOver,
    /// Enough probes went well.
    ProbesSucceeded,
    /// Too many probes failed or were slow.
    ProbesFailed,
    /// The probes did not end in time.
    ProbesTimedOut,
    /// Somebody who knew better than the outcomes opened it, by [`Circuit::trip`](super::Circuit::trip).
    Tripped,
    /// Somebody set its mode, or reset it.
    Operator,
}

impl Cause {
    /// The cause as text: `failure_ratio` and so on.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FailureRatio => "failure_ratio",
            Self::SlowRatio => "slow_ratio",
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::WaitOver => "wait_over",
            Self::ProbesSucceeded => "probes_succeeded",
            Self::ProbesFailed => "probes_failed",
            Self::ProbesTimedOut => "probes_timed_out",
            Self::Tripped => "tripped",
            Self::Operator => "operator",
        }
    }
}

/// A change of state, for those who want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) from: CircuitState,
    pub(super) to: CircuitState,
    pub(super) cause: Cause,
    pub(super) generation: u64,
    pub(super) wait: Option<Duration>,
    /// It was only noted, because the mode is [`Mode::MetricsOnly`].
    pub(super) suppressed: bool,
}
