//! The datacenters that there are to choose from, and what the cluster tells of them.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use scylla::{cluster::metadata::Strategy, statement::Consistency};

use crate::{health::Servability, service};

/// Maps a consistency level to the one at which another datacenter serves instead.
pub(super) type Mapping = Arc<dyn Fn(Consistency) -> Option<Consistency> + Send + Sync>;

/// A datacenter. The local one serves everything as it is.
#[derive(Clone)]
pub(super) struct Datacenter {
    pub(super) name: Arc<str>,
    pub(super) mapping: Option<Mapping>,
}

impl Datacenter {
    /// The level at which it serves what was to be served at `level`.
    pub(super) fn level(&self, level: Consistency) -> Option<Consistency> {
        match &self.mapping {
            Some(mapping) => mapping(level),
            None => Some(level),
        }
    }
}

impl fmt::Debug for Datacenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Datacenter").field(&self.name).finish()
    }
}

/// What the cluster tells.
pub(super) trait Source: Send + Sync {
    /// The session's consistency level.
    fn consistency(&self) -> Consistency;
    /// The session's keyspace.
    fn keyspace(&self) -> Option<String>;
    /// Whether a keyspace has replicas in a datacenter. It has if nobody knows.
    fn has_replicas(&self, keyspace: &str, datacenter: &str) -> bool;
    /// Whether each of the datacenters can serve now. In doubt the one that is active can, and the others cannot.
    fn can_serve(&self, active: usize) -> Vec<bool>;
}

/// The cluster of a session, which is not kept for it: handles may outlive that.
pub(super) struct Cluster {
    pub(super) session: Weak<service::Shared>,
    pub(super) servability: Servability,
    /// Each with the level at which it has to be able to serve.
    pub(super) datacenters: Vec<(Arc<str>, Consistency)>,
    /// Those that decide, or none for all that could be served by several datacenters.
    pub(super) keyspaces: Vec<String>,
    pub(super) min_servable: f64,
    /// Whether it was told that one of them is gone.
    pub(super) is_told: AtomicBool,
}

impl Source for Cluster {
    fn consistency(&self) -> Consistency {
        self.session.upgrade().map_or(Consistency::LocalQuorum, |shared| shared.consistency())
    }

    fn keyspace(&self) -> Option<String> {
        self.session.upgrade()?.session.get_keyspace().map(|name| String::clone(&name))
    }

    fn has_replicas(&self, keyspace: &str, datacenter: &str) -> bool {
        let Some(shared) = self.session.upgrade() else { return true };
        let cluster = shared.session.get_cluster_state();
        cluster.get_keyspace(keyspace).is_none_or(|known| has_replicas(&known.strategy, datacenter))
    }

    fn can_serve(&self, active: usize) -> Vec<bool> {
        let Some(shared) = self.session.upgrade() else {
            self.servability.forget();
            return (0..self.datacenters.len()).map(|index| index == active).collect();
        };
        let cluster = shared.session.get_cluster_state();
        self.tell_missing(|keyspace| cluster.get_keyspace(keyspace).is_some());
        let mut keyspaces: Vec<&str> = if self.keyspaces.is_empty() {
            let is_shared = |strategy| {
                self.datacenters.iter().filter(|(name, _)| is_placed_in(strategy, name)).take(2).count() == 2
            };
            let known = cluster
                .keyspaces_iter()
                .filter(|(name, known)| !is_system(name) && is_shared(&known.strategy));
            known.map(|(name, _)| name).collect()
        } else {
            self.keyspaces.iter().map(String::as_str).collect()
        };
        // Those with the same replicas are served alike, and there may be hundreds of them.
        let mut placed = Vec::new();
        keyspaces.retain(|keyspace| {
            let known = cluster.get_keyspace(keyspace).map(|known| (&known.strategy, known.tablet_based));
            let is_new = known.is_some_and(|known| !placed.contains(&known));
            placed.extend(known.filter(|_| is_new));
            is_new
        });
        let look = self.servability.look(Arc::clone(&cluster), &shared.nodes);
        let can_serve = |(index, (name, level)): (usize, &(Arc<str>, Consistency))| {
            let surely = index != active;
            let mut of_here = keyspaces
                .iter()
                .filter(|keyspace| {
                    cluster.get_keyspace(keyspace).is_some_and(|known| has_replicas(&known.strategy, name))
                })
                .filter_map(|keyspace| look.share(keyspace, *level, name, surely))
                .peekable();
            // What it has no part of says nothing of it, unless it has part of nothing that was named and is there.
            let has_part = of_here.peek().is_some() || self.keyspaces.is_empty() || keyspaces.is_empty();
            has_part && look.is_up(name, surely) && of_here.all(|share| share >= self.min_servable)
        };
        self.datacenters.iter().enumerate().map(can_serve).collect()
    }
}

impl Cluster {
    /// Warns of keyspaces that were dropped since they were named, once until all are there again.
    fn tell_missing(&self, is_known: impl Fn(&str) -> bool) {
        let missing: Vec<_> = self.keyspaces.iter().filter(|keyspace| !is_known(keyspace)).collect();
        let was_told = self.is_told.swap(!missing.is_empty(), Relaxed);
        if !missing.is_empty() && !was_told {
            tracing::warn!(
                ?missing,
                "failover is decided without keyspaces that are no longer there: create them again, or name others"
            );
        }
    }
}

fn has_replicas(strategy: &Strategy, datacenter: &str) -> bool {
    match strategy {
        Strategy::NetworkTopologyStrategy { datacenter_repfactors } => {
            datacenter_repfactors.get(datacenter).is_some_and(|factor| *factor > 0)
        }
        _ => true,
    }
}

/// Whether it is said to have replicas there, and not left to the ring.
fn is_placed_in(strategy: &Strategy, datacenter: &str) -> bool {
    matches!(strategy, Strategy::NetworkTopologyStrategy { .. }) && has_replicas(strategy, datacenter)
}

fn is_system(keyspace: &str) -> bool {
    keyspace == "system" || keyspace.starts_with("system_")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn cluster(keyspaces: &[&str]) -> Cluster {
        Cluster {
            session: Weak::new(),
            servability: Servability::default(),
            datacenters: ["dc1", "dc2"].map(|name| (name.into(), Consistency::LocalQuorum)).into(),
            keyspaces: keyspaces.iter().map(ToString::to_string).collect(),
            min_servable: 1.0,
            is_told: AtomicBool::new(false),
        }
    }

    #[test]
    fn when_the_session_is_gone_the_active_datacenter_stays_so() {
        let cluster = cluster(&["app"]);
        assert_eq!(cluster.can_serve(0), [true, false]);
        assert_eq!(cluster.can_serve(1), [false, true]);
        assert!(cluster.has_replicas("app", "dc2"));
        assert_eq!((cluster.consistency(), cluster.keyspace()), (Consistency::LocalQuorum, None));
    }

    #[test]
    fn keyspaces_that_are_dropped_are_told_of_once_until_they_are_back() {
        let cluster = cluster(&["app", "other"]);
        let (told, subscriber) = events();
        tracing::subscriber::with_default(subscriber, || {
            let told = |is_known: fn(&str) -> bool| {
                cluster.tell_missing(is_known);
                told.load(Relaxed)
            };
            assert_eq!(told(|_| true), 0);
            assert_eq!(told(|keyspace| keyspace == "app"), 1);
            assert_eq!(told(|_| false), 1, "as often as it is looked at");
            assert_eq!(told(|_| true), 1);
            assert_eq!(told(|keyspace| keyspace == "other"), 2);
        });
    }

    /// Counts warnings.
    fn events() -> (Arc<AtomicUsize>, impl tracing::Subscriber) {
        let told = Arc::new(AtomicUsize::new(0));
        (Arc::clone(&told), tracing_subscriber::registry().with(Counts(told)))
    }

    struct Counts(Arc<AtomicUsize>);

    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Counts {
        fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            assert_eq!(*event.metadata().level(), tracing::Level::WARN);
            self.0.fetch_add(1, Relaxed);
        }
    }
}
