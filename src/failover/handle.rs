use std::{fmt, sync::Arc};

use palisade::{ConfigError, Instant};

use super::{
    shared::Shared,
    state::{LOCAL, Standing},
};

/// Reads which datacenter serves, and lets an operator decide. Clones are handles to the same layer.
///
/// It does not keep the session. When that is gone, the datacenter that was active stays so.
#[derive(Clone)]
pub struct FailoverHandle(pub(super) Arc<Shared>);

impl FailoverHandle {
    /// The datacenter that serves now.
    pub fn active(&self) -> Arc<str> {
        self.name(self.0.active())
    }

    /// Sends everything that may be to this datacenter from now on, whatever its state, until [`release`](Self::release). Calls that
    /// fail there are not sent elsewhere.
    ///
    /// # Errors
    ///
    /// If the layer knows no such datacenter; nothing changes then.
    pub fn hold(&self, datacenter: &str) -> Result<(), ConfigError> {
        let known = &self.0.datacenters;
        let index = known.iter().position(|known| *known.name == *datacenter).ok_or_else(|| {
            let names: Vec<_> = known.iter().map(|known| &*known.name).collect();
            let problem =
                format!("is {datacenter:?}, which is none of this layer's: it has {}", names.join(", "));
            ConfigError::new("datacenter", problem)
        })?;
        tracing::info!(layer = self.0.name, datacenter, "the datacenter is held by an operator");
        self.0.update(|state, now| state.hold(Some(index), now));
        Ok(())
    }

    /// Leaves the choice to the layer again.
    pub fn release(&self) {
        tracing::info!(layer = self.0.name, "the datacenter is held no longer");
        self.0.update(|state, now| state.hold(None, now));
    }

    /// Switches the layer off: everything is served by the local datacenter, or by the one that is held, and nothing is sent
    /// elsewhere; or on again.
    pub fn set_enabled(&self, is_enabled: bool) {
        tracing::info!(layer = self.0.name, is_enabled, "failover is switched by an operator");
        self.0.update(|state, now| state.set_enabled(is_enabled, now));
    }

    /// All figures at this moment.
    pub fn snapshot(&self) -> FailoverSnapshot {
        let now = Instant::now();
        let state = self.0.state();
        let local_share = if state.active() == LOCAL { 1.0 } else { f64::from(state.trickle(now)) / 1_000.0 };
        let (active, held, is_enabled) = (state.active(), state.held(), state.is_enabled());
        let standings: Vec<_> =
            (0..self.0.datacenters.len()).map(|index| state.standing(index, now)).collect();
        drop(state);
        let figures = &self.0.figures;
        let datacenters = standings.into_iter().enumerate().map(|(index, standing)| DatacenterSnapshot {
            name: self.name(index),
            state: match standing {
                Standing::Well => DatacenterState::Well,
                Standing::Sick => DatacenterState::Failing,
                Standing::Down => DatacenterState::CannotServe,
            },
            requests: figures.requests(index),
            repeats: figures.repeats(index),
        });
        FailoverSnapshot {
            active: self.name(active),
            held: held.map(|held| self.name(held)),
            is_enabled,
            local_share,
            switches: figures.switches(),
            datacenters: datacenters.collect(),
        }
    }

    fn name(&self, index: usize) -> Arc<str> {
        Arc::clone(&self.0.datacenters[index].name)
    }
}

impl fmt::Debug for FailoverHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FailoverHandle").field(&self.snapshot()).finish()
    }
}

/// What a failover layer does at a moment.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FailoverSnapshot {
    /// The datacenter that serves.
    pub active: Arc<str>,
    /// The one that an operator holds, if one does.
    pub held: Option<Arc<str>>,
    /// Whether the layer is switched on.
    pub is_enabled: bool,
    /// The share of the traffic that the local datacenter gets, of what can be repeated: below 1 while another serves.
    pub local_share: f64,
    /// How often another datacenter became the active one so far.
    pub switches: u64,
    /// All datacenters, the local one first.
    pub datacenters: Vec<DatacenterSnapshot>,
}

/// A datacenter at a moment.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DatacenterSnapshot {
    /// Its name.
    pub name: Arc<str>,
    /// How it is.
    pub state: DatacenterState,
    /// The requests that were sent there so far, repeats included.
    pub requests: u64,
    /// Those of them that had failed in another datacenter before.
    pub repeats: u64,
}

/// How a datacenter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatacenterState {
    /// Nothing speaks against it.
    Well,
    /// Its nodes are up, but calls fail there, or did lately.
    Failing,
    /// Its nodes that are up cannot serve.
    CannotServe,
}
