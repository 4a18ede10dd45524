//! An attempt, charged to its node.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use palisade::{Class, Fault, Instant, breaker::CircuitPermit, clock::nanos};

use super::{
    Node,
    verdict::{Said, UNREACHABLE, class_for_node, said},
};
use crate::error::{Error, ErrorKind};

/// An attempt at a node, under way. Dropped before it has ended, it was given up.
#[derive(Debug)]
pub(crate) struct Asked {
    node: Arc<Node>,
    began: Instant,
    // Whether its latency tells of the node: a statement that usually takes as long as others.
    is_quick: bool,
    permit: Option<CircuitPermit>,
    // Whether it finds out whether the node is well again.
    is_probe: bool,
    has_ended: bool,
}

impl Asked {
    /// `probe` is the leave to find out whether the node is well again, if that is what the attempt is made for.
    #[inline]
    pub(crate) fn begin(node: Arc<Node>, probe: Option<CircuitPermit>, is_quick: bool, now: Instant) -> Self {
        let hot = &node.hot;
        hot.attempts.fetch_add(1, Relaxed);
        hot.in_flight.fetch_add(1, Relaxed);
        node.metrics.in_flight(1);
        if is_quick {
            hot.silence.asked(node.nanos(now));
        }
        if hot.abandoned.is_full() {
            hot.asked_full.store(node.nanos(now) + 1, Relaxed);
        }
        let is_closed = probe.is_none() && node.circuit.is_closed();
        let permit = probe.or_else(|| node.circuit.acquire().ok());
        let is_probe = permit.is_some() && !is_closed;
        Self { node, began: now, is_quick, permit, is_probe, has_ended: false }
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The attempt has ended, in one way or another.
    pub(crate) fn end<T>(&mut self, outcome: &Result<T, Error>, now: Instant) {
        self.has_ended = true;
        self.node.hot.in_flight.fetch_sub(1, Relaxed);
        let latency = now.saturating_duration_since(self.began);
        self.node.metrics.in_flight(-1);
        match outcome {
            Ok(_) => self.node.metrics.answered(latency),
            Err(error) => self.node.metrics.failed(error.kind(), latency),
        }
        let (class, said) = match outcome {
            Ok(_) => (Class::SUCCESS, Said::Something),
            Err(error) => (class_for_node(error.kind()), said(error.kind())),
        };
        if self.is_quick {
            match said {
                Said::Nothing => self.node.hot.silence.given_up(self.node.nanos(now)),
                Said::Something | Said::NotAsked => self.node.hot.silence.ended(),
            }
        }
        if said == Said::Something {
            // A failure that comes fast does not make a node a fast one.
            let tells = self.is_quick && outcome.is_ok();
            self.node.answered(tells.then_some(latency), now);
        }
        if self.is_quick && outcome.is_err() {
            self.node.hot.at_least.at_least(nanos(latency), self.node.nanos(now));
        }
        if matches!(outcome, Err(error) if matches!(error.kind(), ErrorKind::Timeout(_))) {
            self.node.abandoned(now);
        }
        self.judge(&class);
    }

    fn judge(&mut self, class: &Class) {
        if matches!(class.fault(), Fault::Server | Fault::Unreachable) {
            self.node.hot.failures.fetch_add(1, Relaxed);
        }
        if let Some(permit) = self.permit.take() {
            permit.end(class);
        }
    }

    /// A caller has given it up, after this long.
    fn give_up(&mut self, now: Instant) {
        let (node, is_superseded) = (&self.node, palisade::is_superseded());
        let hot = &node.hot;
        hot.in_flight.fetch_sub(1, Relaxed);
        node.metrics.in_flight(-1);
        node.metrics.abandoned(now.saturating_duration_since(self.began));
        let (began, at) = (node.nanos(self.began), node.nanos(now));
        let waited = nanos(now.saturating_duration_since(self.began));
        if self.is_quick {
            hot.silence.given_up(at);
            hot.at_least.at_least(waited, at);
        }
        // A node that answers will soon have answered what another was only faster at.
        if !is_superseded || node.is_silent(now) {
            node.abandoned(now);
        }
        if self.tells(waited, began, at, is_superseded) {
            self.judge(&UNREACHABLE);
        }
        if self.node.is_stalled(now) {
            self.node.circuit.trip();
        }
    }

    /// Whether it is the node's fault that it was given up.
    fn tells(&self, waited: u64, began: u64, now: u64, is_superseded: bool) -> bool {
        // Others were fast enough meanwhile, and as long as it is on trial it gets no more of anybody's time.
        if self.is_probe {
            return true;
        }
        // Whoever is impatient, or was answered by another node, tells nothing of this one. Who waited long does; but a scan may
        // take long at a node that answers others.
        !is_superseded
            && waited >= self.node.patience(now)
            && (self.is_quick || self.node.hot.silence.answered_at() <= began)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.has_ended {
            self.give_up(Instant::now());
        }
    }
}
