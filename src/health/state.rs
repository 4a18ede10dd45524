//! What state is a node in?
//!
//! A plain core: it is told what happens to a node and when. Bad news counts at once, good news when it has lasted:
//!
//! ```text
//!               an answer
//!   Starting ─────────────────► Up ◄──────────────────────────────┐
//!      │                        │ ▲                               │
//!      │        a failed probe, │ │ `up_after` good answers       │ `up_after` answers
//!      │      slow answers, an  │ │ in a row and nothing else     │ in a row
//!      │     open circuit, many ▼ │ against it                    │
//!      │      failed requests  Degraded                           │
//!      │                        │                                 │
//!      └────────────────────────┴──────────► Down ────────────────┘
//!          `down_after` failed probes in a row, or no connection left
//! ```
//!
//! A node that leaves `Down` while something else is against it becomes `Degraded`. A change for the better also has to wait until
//! the node has been `minimum_stay` in its state, so that one which comes and goes is told of a few times and not for ever.

use std::{fmt, time::Duration};

use palisade::Instant;

/// The state of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum NodeState {
    /// It has not answered a probe yet.
    Starting,
    /// It answers.
    Up,
    /// It answers, though not as it should, or a first probe has failed.
    Degraded,
    /// It does not answer, or has no connection.
    Down,
}

impl NodeState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Up, Self::Degraded, Self::Down];

    /// The state as a metric label or span field.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }

    const fn is_better_than(self, other: Self) -> bool {
        self.rank() < other.rank()
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Up => 0,
            Self::Degraded => 1,
            // Whatever comes after it is news.
            Self::Starting | Self::Down => 2,
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a node is in its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Cause {
    /// It is not known yet: no probe has ended.
    NotAsked,
    /// It answers probes well.
    Answers,
    /// A probe failed.
    ProbeFailed,
    /// It answers probes much later than the other nodes of its datacenter do.
    Slow,
    /// Its circuit is open, because requests fail there.
    CircuitOpen,
    /// Many requests to it fail.
    Errors,
    /// No connection to it is left.
    Disconnected,
}

impl Cause {
    /// The cause as a metric label or span field.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::Answers => "answers",
            Self::ProbeFailed => "probe_failed",
            Self::Slow => "slow",
            Self::CircuitOpen => "circuit_open",
            Self::Errors => "errors",
            Self::Disconnected => "disconnected",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAsked => "it has not been asked yet",
            Self::Answers => "it answers",
            Self::ProbeFailed => "a probe failed",
            Self::Slow => "it answers much later than its peers",
            Self::CircuitOpen => "its circuit is open",
            Self::Errors => "many requests to it fail",
            Self::Disconnected => "no connection to it is left",
        })
    }
}

/// When a node's state changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rules {
    /// Failed probes in a row that make a node `Down`, and slow ones that make it `Degraded`.
    pub(crate) down_after: u32,
    /// Good ones in a row that make it better.
    pub(crate) up_after: u32,
    /// An answer is slow that takes so many times as long as is typical for the others,
    pub(crate) slow_factor: f64,
    /// and longer than this.
    pub(crate) slow_floor: Duration,
    /// The share of requests that fail from which on a node is `Degraded`,
    pub(crate) error_rate: f64,
    /// where there were as many as this.
    pub(crate) error_floor: u64,
    /// How long a node stays in a state before a better one.
    pub(crate) minimum_stay: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            down_after: 2,
            up_after: 2,
            slow_factor: 5.0,
            slow_floor: Duration::from_millis(50),
            error_rate: 0.5,
            error_floor: 20,
            minimum_stay: Duration::from_secs(5),
        }
    }
}

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Event {
    /// A probe was answered; others of its datacenter usually take `typical`.
    Answered { latency: Duration, typical: Option<Duration> },
    /// A probe failed.
    Failed,
    /// Whether the driver has a connection.
    Connected(bool),
    /// Whether its circuit is open or half open.
    CircuitOpen(bool),
    /// How many requests were sent to it since this was told last, and how many of them failed.
    Traffic { requests: u64, failed: u64 },
}

/// A change of a node's state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) from: NodeState,
    pub(crate) to: NodeState,
    pub(crate) cause: Cause,
    /// How long the state before has lasted.
    pub(crate) lasted: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Never,
    Open,
    Lost,
}

/// The state of one node.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    state: NodeState,
    cause: Cause,
    since: Instant,
    // In a row: probes that failed, that were answered, that were answered in time, that were answered late.
    failures: u32,
    answers: u32,
    good: u32,
    slow: u32,
    connection: Connection,
    is_circuit_open: bool,
    is_failing: bool,
}

impl Machine {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            state: NodeState::Starting,
            cause: Cause::NotAsked,
            since: now,
            failures: 0,
            answers: 0,
            good: 0,
            slow: 0,
            connection: Connection::Never,
            is_circuit_open: false,
            is_failing: false,
        }
    }

    pub(crate) const fn state(&self) -> NodeState {
        self.state
    }

    pub(crate) const fn cause(&self) -> Cause {
        self.cause
    }

    pub(crate) const fn since(&self) -> Instant {
        self.since
    }

    /// Whether it does not answer at this moment. One that begins to is no longer gone, though it is `Down` for a while yet.
    pub(crate) fn is_gone(&self, rules: &Rules) -> bool {
        self.connection == Connection::Lost || self.failures >= rules.down_after
    }

    /// Whether it does not answer though it has a connection: one that still looks well to whoever sends requests. The state may have been
    /// `Down` before for another reason, so that no change tells of it.
    pub(crate) fn is_hung(&self, rules: &Rules) -> bool {
        self.state == NodeState::Down
            && self.connection == Connection::Open
            && self.failures >= rules.down_after
    }

    /// Whether the last probe has not said the same as the state does. Another one soon tells which of them is right.
    pub(crate) fn is_in_doubt(&self, rules: &Rules) -> bool {
        match self.state {
            NodeState::Starting => self.failures > 0,
            NodeState::Up => self.slow > 0,
            NodeState::Degraded => {
                self.failures > 0 || (self.good > 0 && self.target(rules).0 == NodeState::Degraded)
            }
            NodeState::Down => self.answers > 0,
        }
    }

    /// When a change for the better is due that has only to wait.
    pub(crate) fn due(&self, rules: &Rules) -> Option<Instant> {
        self.target(rules).0.is_better_than(self.state).then(|| self.since + rules.minimum_stay)
    }

    /// Takes into account what has happened. What is told at once makes one change at most.
    pub(crate) fn on(
        &mut self,
        events: impl IntoIterator<Item = Event>,
        now: Instant,
        rules: &Rules,
    ) -> Option<Change> {
        events.into_iter().for_each(|event| self.note(event, rules));
        let (to, cause) = self.target(rules);
        if to == self.state {
            self.cause = cause;
            return None;
        }
        let lasted = now.saturating_duration_since(self.since);
        let is_early = lasted < rules.minimum_stay && self.state != NodeState::Starting;
        if is_early && to.is_better_than(self.state) {
            return None;
        }
        let change = Change { from: self.state, to, cause, lasted };
        (self.state, self.cause, self.since) = (to, cause, now);
        Some(change)
    }

    fn note(&mut self, event: Event, rules: &Rules) {
        match event {
            Event::Answered { latency, typical } => {
                self.failures = 0;
                self.answers = self.answers.saturating_add(1);
                if is_slow(latency, typical, rules) {
                    (self.good, self.slow) = (0, self.slow.saturating_add(1));
                } else {
                    (self.good, self.slow) = (self.good.saturating_add(1), 0);
                }
                // Whatever the driver says of its pool: the answer came by some connection.
                self.connection = Connection::Open;
            }
            Event::Failed => {
                self.failures = self.failures.saturating_add(1);
                (self.answers, self.good, self.slow) = (0, 0, 0);
            }
            Event::Connected(true) => {
                if self.connection == Connection::Lost {
                    // It has answered a handshake.
                    self.failures = 0;
                }
                self.connection = Connection::Open;
            }
            // It may still be on its way.
            Event::Connected(false) if self.connection == Connection::Never => {}
            Event::Connected(false) => {
                self.connection = Connection::Lost;
                (self.answers, self.good, self.slow) = (0, 0, 0);
            }
            Event::CircuitOpen(open) => self.is_circuit_open = open,
            Event::Traffic { requests, failed } => self.is_failing = self.is_failing(requests, failed, rules),
        }
    }

    /// With too few requests to tell it is given the benefit of the doubt: routing may send it no others until it is better.
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    fn is_failing(&self, requests: u64, failed: u64, rules: &Rules) -> bool {
        if requests < rules.error_floor.max(1) {
            return false;
        }
        // One that hovers around the limit does not come and go.
        let limit = if self.is_failing { rules.error_rate / 2.0 } else { rules.error_rate };
        failed as f64 / requests as f64 >= limit
    }

    /// The state that the node would be in if it need not stay in this one, and why.
    fn target(&self, rules: &Rules) -> (NodeState, Cause) {
        if self.connection == Connection::Lost {
            return (NodeState::Down, Cause::Disconnected);
        }
        if self.failures >= rules.down_after {
            return (NodeState::Down, Cause::ProbeFailed);
        }
        match self.state {
            NodeState::Starting if self.answers == 0 => return (NodeState::Starting, self.cause),
            NodeState::Down if self.answers < rules.up_after => return (NodeState::Down, self.cause),
            _ => {}
        }
        let against = if self.failures > 0 {
            Some(Cause::ProbeFailed)
        } else if self.slow >= rules.down_after {
            Some(Cause::Slow)
        } else if self.is_circuit_open {
            Some(Cause::CircuitOpen)
        } else if self.is_failing {
            Some(Cause::Errors)
        } else if self.state == NodeState::Degraded && self.good < rules.up_after {
            Some(self.cause)
        } else {
            None
        };
        match against {
            Some(cause) => (NodeState::Degraded, cause),
            None => (NodeState::Up, Cause::Answers),
        }
    }
}

fn is_slow(latency: Duration, typical: Option<Duration>, rules: &Rules) -> bool {
    typical.is_some_and(|typical| {
        latency > rules.slow_floor && latency.as_secs_f64() > typical.as_secs_f64() * rules.slow_factor
    })
}

#[cfg(test)]
mod tests;
