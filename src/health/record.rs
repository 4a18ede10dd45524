//! What the monitor knows of one node.

use std::{sync::Arc, time::Duration};

use palisade::{Instant, breaker::CircuitState};

use super::{
    NodeReport, NodeState, Transition,
    outlook::Look,
    schedule::Next,
    state::{Change, Event, Machine, Rules},
};
use crate::{
    error::Error,
    nodes::{Known, Node},
};

pub(super) struct Record {
    pub(super) node: Arc<Node>,
    pub(super) datacenter: Option<Arc<str>>,
    rack: Option<Arc<str>>,
    machine: Machine,
    is_connected: bool,
    probe_latency: Option<Duration>,
    failure: Option<String>,
    // When its attempts and failures were counted last, and how many there were.
    counted: (Instant, u64, u64),
    error_rate: Option<f64>,
}

impl Record {
    pub(super) fn new(node: Arc<Node>, now: Instant) -> Self {
        let figures = node.figures();
        Self {
            datacenter: node.datacenter().map(Into::into),
            rack: node.rack().map(Into::into),
            machine: Machine::new(now),
            is_connected: false,
            probe_latency: None,
            failure: None,
            counted: (now, figures.attempts, figures.failures),
            error_rate: None,
            node,
        }
    }

    pub(super) fn state(&self) -> NodeState {
        self.machine.state()
    }

    /// How it is, for what can be served.
    pub(super) fn outlook(&self, rules: &Rules) -> Look {
        Look { state: self.state(), is_gone: self.machine.is_gone(rules) }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Whether probes have found it `Down` while it has connections.
    pub(super) fn is_hung(&self, rules: &Rules) -> bool {
        self.machine.is_hung(rules)
    }

    /// Whether it has answered, and nothing has failed since.
    pub(super) fn has_answered(&self) -> bool {
        matches!(self.state(), NodeState::Up | NodeState::Degraded) && self.failure.is_none()
    }

    /// How long its last answer took, if it still answers.
    pub(super) fn answers_in(&self) -> Option<Duration> {
        self.probe_latency.filter(|_| self.has_answered())
    }

    /// Looks at what can be seen of it without a probe.
    pub(super) fn look(
        &mut self,
        known: &Known,
        window: Duration,
        now: Instant,
        rules: &Rules,
    ) -> Option<Transition> {
        self.is_connected = known.is_connected();
        let traffic = self.traffic(window, now);
        let seen = [Event::Connected(self.is_connected), self.circuit()];
        self.on(seen.into_iter().chain(traffic), now, rules)
    }

    /// What has become of its requests since they were counted last, once a window.
    fn traffic(&mut self, window: Duration, now: Instant) -> Option<Event> {
        let (counted, attempts, failures) = self.counted;
        if now.saturating_duration_since(counted) < window {
            return None;
        }
        let figures = self.node.figures();
        let requests = figures.attempts.saturating_sub(attempts);
        let failed = figures.failures.saturating_sub(failures).min(requests);
        self.counted = (now, figures.attempts, figures.failures);
        if requests > 0 {
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let rate = failed as f64 / requests as f64;
            self.error_rate = Some(rate);
        }
        Some(Event::Traffic { requests, failed })
    }

    fn circuit(&self) -> Event {
        Event::CircuitOpen(!self.node.circuit().is_closed())
    }

    /// Takes the outcome of a probe into account.
    pub(super) fn probed(
        &mut self,
        outcome: &Result<(), Error>,
        latency: Duration,
        typical: Option<Duration>,
        now: Instant,
        rules: &Rules,
    ) -> (Option<Transition>, Next) {
        let probe = match outcome {
            Ok(()) => {
                (self.probe_latency, self.failure) = (Some(latency), None);
                self.is_connected = true;
                Event::Answered { latency, typical }
            }
            Err(error) => {
                self.failure = Some(error.to_string());
                Event::Failed
            }
        };
        // By the probe the circuit may just have closed.
        let transition = self.on([probe, self.circuit()], now, rules);
        let is_in_doubt = match self.node.circuit().state() {
            // It wants to be told once more.
            CircuitState::HalfOpen => true,
            _ => self.machine.is_in_doubt(rules),
        };
        (transition, if is_in_doubt { Next::Soon } else { Next::Usual })
    }

    fn on(
        &mut self,
        events: impl IntoIterator<Item = Event>,
        now: Instant,
        rules: &Rules,
    ) -> Option<Transition> {
        let Change { from, to, cause, lasted } = self.machine.on(events, now, rules)?;
        Some(Transition {
            node: self.node.address(),
            host_id: self.node.host_id(),
            datacenter: self.datacenter.clone(),
            from,
            to,
            cause,
            lasted,
        })
    }

    /// When a change is due that nothing but time is missing for.
    pub(super) fn due(&self, rules: &Rules) -> Option<Instant> {
        self.machine.due(rules)
    }

    pub(super) fn report(&self, now: Instant) -> NodeReport {
        let figures = self.node.figures();
        NodeReport {
            address: self.node.address(),
            host_id: self.node.host_id(),
            datacenter: self.datacenter.clone(),
            rack: self.rack.clone(),
            state: self.machine.state(),
            cause: self.machine.cause(),
            lasts: now.saturating_duration_since(self.machine.since()),
            probe_latency: self.probe_latency,
            failure: self.failure.clone(),
            latency: figures.latency,
            in_flight: figures.in_flight,
            attempts: figures.attempts,
            error_rate: self.error_rate,
            abandoned: figures.abandoned,
            circuit: self.node.circuit().state(),
            is_ejected: self.node.is_ejected(),
            is_connected: self.is_connected,
        }
    }
}
