use std::{sync::Arc, time::Duration};

use palisade::{ConfigError, breaker::CircuitBreakerBuilder};
use scylla::policies::load_balancing::{DefaultPolicy, LoadBalancingPolicy};

use super::Routing;
use crate::nodes::{Nodes, Rules, SlowStart};

/// Settings for [`Routing`]. Its module has the table of them.
#[derive(Clone, Debug, Default)]
pub struct RoutingBuilder {
    datacenter: Option<String>,
    rack: Option<String>,
    around: Option<Arc<dyn LoadBalancingPolicy>>,
    rules: Rules,
}

impl RoutingBuilder {
    /// The datacenter that requests stay in.
    pub fn datacenter(mut self, name: impl Into<String>) -> Self {
        self.datacenter = Some(name.into());
        self
    }

    /// The rack of that datacenter that is preferred.
    pub fn rack(mut self, name: impl Into<String>) -> Self {
        self.rack = Some(name.into());
        self
    }

    /// The share of a datacenter's nodes that may be ejected at a time, from 0 to 1. Above 0 it is one node at least.
    pub fn max_ejected(mut self, share: f64) -> Self {
        self.rules.max_ejected = share;
        self
    }

    /// How many attempts at a node may have been given up unanswered before others are asked. Below 1,024.
    pub fn max_abandoned(mut self, attempts: u32) -> Self {
        self.rules.max_abandoned = attempts;
        self
    }

    /// How many attempts without an answer make a node suspect.
    pub fn stalled_attempts(mut self, attempts: u32) -> Self {
        self.rules.stall.attempts = attempts;
        self
    }

    /// After how long without an answer to so many attempts a node is ejected.
    pub fn stalled_after(mut self, silence: Duration) -> Self {
        self.rules.stall.after = silence;
        self
    }

    /// In which time a node that comes back, or joins the cluster, gets all of its traffic. Zero: at once.
    pub fn slow_start(mut self, lasts: Duration) -> Self {
        self.rules.slow_start = SlowStart { lasts };
        self
    }

    /// The circuit breaker of each node. A listener that is set here is replaced: read the nodes'
    /// [circuits](crate::nodes::Node::circuit), or the transitions of [`health`](crate::health).
    pub fn circuit(mut self, circuit: CircuitBreakerBuilder) -> Self {
        self.rules.circuit = circuit;
        self
    }

    /// Goes around a policy other than the driver's default. Its order is kept, but for nodes that are sick or were tried; there is
    /// no choice of two then.
    pub fn around(mut self, policy: Arc<dyn LoadBalancingPolicy>) -> Self {
        self.around = Some(policy);
        self
    }

    /// The policy, to put into an execution profile.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense.
    pub fn build(self) -> Result<Arc<Routing>, ConfigError> {
        let blank = |name: &Option<String>| name.as_ref().is_some_and(String::is_empty);
        if blank(&self.datacenter) {
            return Err(ConfigError::new("datacenter", "is empty: name one, or leave the setting out"));
        }
        if blank(&self.rack) {
            return Err(ConfigError::new("rack", "is empty: name one, or leave the setting out"));
        }
        if self.rack.is_some() && self.datacenter.is_none() {
            return Err(ConfigError::new("rack", "is of no use without a datacenter: name that as well"));
        }
        self.rules.check()?;
        let is_foreign = self.around.is_some();
        let around = self.around.clone().unwrap_or_else(|| self.default_policy());
        let nodes = Nodes::new(self.rules);
        Ok(Arc::new(Routing { nodes, datacenter: self.datacenter, rack: self.rack, around, is_foreign }))
    }

    fn default_policy(&self) -> Arc<dyn LoadBalancingPolicy> {
        let policy = DefaultPolicy::builder();
        match (&self.datacenter, &self.rack) {
            (Some(datacenter), Some(rack)) => {
                policy.prefer_datacenter_and_rack(datacenter.clone(), rack.clone())
            }
            (Some(datacenter), None) => policy.prefer_datacenter(datacenter.clone()),
            _ => policy,
        }
        .build()
    }
}
