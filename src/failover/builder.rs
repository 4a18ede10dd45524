use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use palisade::{Budget, ConfigError};
use scylla::statement::Consistency;

use super::{
    FailoverLayer,
    datacenters::{Cluster, Datacenter, Mapping},
    eligible::local_levels,
    shared::{MOST, Shared, watch},
    state::{Rules, State},
};
use crate::{health::Servability, service::Cassandra};

/// Settings for a [`FailoverLayer`]. The [module](super) has the table of them.
#[derive(Clone)]
pub struct FailoverBuilder {
    local: Option<Arc<str>>,
    remotes: Vec<(Arc<str>, Mapping)>,
    keyspaces: Vec<String>,
    consistency: Option<Consistency>,
    min_servable: f64,
    rules: Rules,
    look_every: Duration,
    allow_serial: bool,
    budget: Option<Budget>,
    name: &'static str,
}

impl Default for FailoverBuilder {
    fn default() -> Self {
        Self {
            local: None,
            remotes: Vec::new(),
            keyspaces: Vec::new(),
            consistency: None,
            min_servable: 1.0,
            rules: Rules {
                failures: 5,
                back_after: Duration::from_secs(10),
                ramp: Duration::from_secs(5),
                hold: Duration::from_secs(2),
            },
            look_every: Duration::from_millis(200),
            allow_serial: false,
            budget: None,
            name: "failover",
        }
    }
}

/// The least time between two looks at the cluster.
const LEAST_LOOK: Duration = Duration::from_millis(10);

/// No wait is longer, so that doubling it is no trouble.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

impl FailoverBuilder {
    /// The datacenter that serves as long as it can. Default: the session's.
    pub fn local(mut self, datacenter: impl Into<Arc<str>>) -> Self {
        self.local = Some(datacenter.into());
        self
    }

    /// Adds a datacenter that serves when those before it cannot, what is asked at a local level: see [`local_levels`].
    pub fn remote(self, datacenter: impl Into<Arc<str>>) -> Self {
        self.remote_with(datacenter, local_levels)
    }

    /// Adds a datacenter that serves when those before it cannot. It serves what `mapping` knows a level for, at that level.
    ///
    /// ```
    /// use tower_cassandra::{failover::{FailoverLayer, local_levels}, scylla::statement::Consistency};
    ///
    /// let builder = FailoverLayer::builder().local("dc1").remote_with("dc2", |level| match level {
    ///     // For as long as dc1 is gone, a quorum of dc2 has to do.
    ///     Consistency::Quorum => Some(Consistency::LocalQuorum),
    ///     other => local_levels(other),
    /// });
    /// # let _ = builder;
    /// ```
    pub fn remote_with(
        mut self,
        datacenter: impl Into<Arc<str>>,
        mapping: impl Fn(Consistency) -> Option<Consistency> + Send + Sync + 'static,
    ) -> Self {
        self.remotes.push((datacenter.into(), Arc::new(mapping)));
        self
    }

    /// Adds a keyspace by which it is decided whether a datacenter can serve. Default: all that have replicas in several of the
    /// datacenters by `NetworkTopologyStrategy`.
    ///
    /// It has to be there when the layer is built. If it is dropped later, that is warned of and decided without.
    pub fn keyspace(mut self, keyspace: impl Into<String>) -> Self {
        self.keyspaces.push(keyspace.into());
        self
    }

    /// The level at which a datacenter has to be able to serve. Default: the session's if that is a local one, else `LOCAL_QUORUM`.
    pub fn consistency(mut self, level: Consistency) -> Self {
        self.consistency = Some(level);
        self
    }

    /// Which share of a keyspace's token ranges a datacenter has to be able to serve, above 0 and up to 1.
    pub fn min_servable(mut self, share: f64) -> Self {
        self.min_servable = share;
        self
    }

    /// How many failures in a row take a datacenter for sick, whatever is known of its nodes.
    pub fn failures(mut self, failures: u32) -> Self {
        self.rules.failures = failures;
        self
    }

    /// For how long the local datacenter has to be well, without interruption, before it gets any traffic back.
    pub fn back_after(mut self, well_for: Duration) -> Self {
        self.rules.back_after = well_for;
        self
    }

    /// In which time it then gets all of its traffic back. Zero: at once.
    pub fn ramp(mut self, lasts: Duration) -> Self {
        self.rules.ramp = lasts;
        self
    }

    /// The least time between two switches.
    pub fn hold(mut self, at_least: Duration) -> Self {
        self.rules.hold = at_least;
        self
    }

    /// How often the cluster is looked at, besides at each change of a node that is noticed.
    pub fn look_every(mut self, interval: Duration) -> Self {
        self.look_every = interval;
        self
    }

    /// Sets whether lightweight transactions and reads at a serial level are served elsewhere too. Default `false`.
    ///
    /// **It gives up what they are for.** `LOCAL_SERIAL` in two datacenters are two Paxos groups that know nothing of each other: a
    /// condition may hold in both at the same time, two owners may get the same lock, and what one has decided the other may
    /// not see. Allow it only where that does no harm.
    pub fn allow_serial(mut self, is_allowed: bool) -> Self {
        self.allow_serial = is_allowed;
        self
    }

    /// Pays for calls that are sent to another datacenter after they have failed. Share it with the retries further in, which pay in;
    /// by itself it has its reserve only.
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Sets the label `layer` of its metrics and events, to tell several apart. Default `failover`.
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// The layer, for this session. It looks at the cluster now, and in the background from now on, until the layer, its services and its
    /// handles are gone. It does not keep the session.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense, if the cluster has no datacenter (the error says which it has) or keyspace of such a name, if the session does
    /// not let a request choose its datacenter, or outside of a tokio runtime.
    pub fn build(self, cassandra: &Cassandra) -> Result<FailoverLayer, ConfigError> {
        let local = self.check(cassandra.datacenter())?;
        if !cassandra.is_routed() {
            let problem = "has a load balancing policy of its own, by which no request can choose its datacenter: \
                           connect with `Cassandra::builder`, or use `Routing` and say so with `routed_by`";
            return Err(ConfigError::new("session", problem));
        }
        let state = cassandra.session().get_cluster_state();
        let known: Vec<_> =
            state.get_nodes_info().iter().filter_map(|node| node.datacenter.as_deref()).collect();
        self.check_names(&local, known)?;
        self.check_keyspaces(|keyspace| state.get_keyspace(keyspace).is_some())?;
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| {
            ConfigError::new("runtime", "is missing: build the layer inside of a tokio runtime")
        })?;

        let level = self.consistency.unwrap_or_else(|| {
            let level = cassandra.consistency();
            local_levels(level).unwrap_or(Consistency::LocalQuorum)
        });
        let datacenters = self.datacenters(&local);
        let cluster = Cluster {
            session: Arc::downgrade(cassandra.shared()),
            servability: Servability::default(),
            datacenters: datacenters
                .iter()
                .map(|datacenter| (Arc::clone(&datacenter.name), datacenter.level(level).unwrap_or(level)))
                .collect(),
            keyspaces: self.keyspaces,
            min_servable: self.min_servable,
            is_told: AtomicBool::new(false),
        };
        let shared = Arc::new(Shared::new(
            self.name,
            datacenters.clone(),
            Box::new(cluster),
            State::new(self.rules, datacenters.len()),
            self.allow_serial,
            cassandra.datacenter().is_none(),
            self.budget,
        ));
        shared.look();
        runtime.spawn(watch(Arc::downgrade(&shared), self.look_every, cassandra.nodes().changes()));
        Ok(FailoverLayer::new(shared))
    }

    /// All datacenters, the local one first.
    fn datacenters(&self, local: &Arc<str>) -> Vec<Datacenter> {
        let local = Datacenter { name: Arc::clone(local), mapping: None };
        let remotes = self
            .remotes
            .iter()
            .map(|(name, mapping)| Datacenter { name: Arc::clone(name), mapping: Some(Arc::clone(mapping)) });
        std::iter::once(local).chain(remotes).collect()
    }

    /// The same settings, found to make sense as far as can be told without a cluster, for a session in this datacenter.
    #[cfg(feature = "stack")]
    pub(crate) fn checked(self, of_session: Option<&str>) -> Result<Self, ConfigError> {
        self.check(of_session).map(|_| self)
    }

    /// Checks all that can be without a cluster, and returns the local datacenter.
    fn check(&self, of_session: Option<&str>) -> Result<Arc<str>, ConfigError> {
        let local = match (&self.local, of_session) {
            (None, None) => {
                return Err(ConfigError::new(
                    "local",
                    "is not set, and the session stays in no datacenter: name it",
                ));
            }
            (Some(local), Some(session)) if **local != *session => {
                let problem = format!(
                    "is {local:?}, but the session stays in {session:?}: name the same, or leave one out"
                );
                return Err(ConfigError::new("local", problem));
            }
            (Some(local), _) => Arc::clone(local),
            (None, Some(session)) => session.into(),
        };
        if self.remotes.is_empty() {
            return Err(ConfigError::new(
                "remote",
                "is not set: name the datacenters to go to, the best first",
            ));
        }
        if self.remotes.len() >= MOST {
            return Err(ConfigError::new("remote", format!("is set for more than {} datacenters", MOST - 1)));
        }
        for (index, (remote, _)) in self.remotes.iter().enumerate() {
            if *remote == local {
                return Err(ConfigError::new(
                    "remote",
                    format!("is {remote:?}, which is the local datacenter"),
                ));
            }
            if self.remotes[..index].iter().any(|(before, _)| before == remote) {
                return Err(ConfigError::new("remote", format!("is {remote:?} twice: name it once")));
            }
        }
        self.check_rules()?;
        Ok(local)
    }

    fn check_rules(&self) -> Result<(), ConfigError> {
        if !(self.min_servable > 0.0 && self.min_servable <= 1.0) {
            let problem = format!("is {}, but must be above 0 and at most 1", self.min_servable);
            return Err(ConfigError::new("min_servable", problem));
        }
        if self.rules.failures == 0 {
            return Err(ConfigError::new("failures", "must be at least 1: no failure is no reason to go"));
        }
        if self.rules.back_after.is_zero() {
            let problem = "must be above zero: it would be switched back and forth";
            return Err(ConfigError::new("back_after", problem));
        }
        for (setting, duration) in [
            ("back_after", self.rules.back_after),
            ("ramp", self.rules.ramp),
            ("hold", self.rules.hold),
            ("look_every", self.look_every),
        ] {
            if duration > LONGEST {
                return Err(ConfigError::new(setting, format!("is {duration:?}: let it be a day at most")));
            }
        }
        if self.look_every < LEAST_LOOK {
            let problem = format!("is {:?}, but must be {LEAST_LOOK:?} at least", self.look_every);
            return Err(ConfigError::new("look_every", problem));
        }
        Ok(())
    }

    /// Whether the cluster has all these datacenters.
    fn check_names(&self, local: &str, mut known: Vec<&str>) -> Result<(), ConfigError> {
        known.sort_unstable();
        known.dedup();
        let remotes = self.remotes.iter().map(|(name, _)| ("remote", &**name));
        for (setting, name) in std::iter::once(("local", local)).chain(remotes) {
            if !known.contains(&name) {
                let problem =
                    format!("is {name:?}, which the cluster does not have: it has {}", known.join(", "));
                return Err(ConfigError::new(setting, problem));
            }
        }
        Ok(())
    }

    /// Whether there are all keyspaces that decide.
    fn check_keyspaces(&self, is_known: impl Fn(&str) -> bool) -> Result<(), ConfigError> {
        let Some(missing) = self.keyspaces.iter().find(|keyspace| !is_known(keyspace)) else { return Ok(()) };
        let problem = format!(
            "is {missing:?}, which the session finds nowhere in the schema: create it first, mend the name (case counts), \
             or let the session fetch the schema of it"
        );
        Err(ConfigError::new("keyspace", problem))
    }
}

impl std::fmt::Debug for FailoverBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FailoverBuilder")
            .field("local", &self.local)
            .field("remotes", &self.remotes.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder() -> FailoverBuilder {
        FailoverLayer::builder().local("dc1").remote("dc2")
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_with_what_to_do() {
        let problem = |builder: FailoverBuilder, session| builder.check(session).unwrap_err().to_string();
        assert_eq!(&*builder().check(None).unwrap(), "dc1");
        assert_eq!(&*FailoverLayer::builder().remote("dc2").check(Some("dc1")).unwrap(), "dc1");
        let cases = [
            ("`local` is not set", problem(FailoverLayer::builder().remote("dc2"), None)),
            ("`local` is \"dc1\", but the session stays in \"dc3\"", problem(builder(), Some("dc3"))),
            ("`remote` is not set", problem(FailoverLayer::builder().local("dc1"), None)),
            ("`remote` is \"dc1\", which is the local", problem(builder().remote("dc1"), None)),
            ("`remote` is \"dc2\" twice", problem(builder().remote("dc2"), None)),
            ("`min_servable` is 0", problem(builder().min_servable(0.0), None)),
            ("`min_servable` is NaN", problem(builder().min_servable(f64::NAN), None)),
            ("`failures` must be", problem(builder().failures(0), None)),
            ("`back_after` must be", problem(builder().back_after(Duration::ZERO), None)),
            ("`ramp` is ", problem(builder().ramp(Duration::MAX), None)),
            ("`look_every` is 1ms", problem(builder().look_every(Duration::from_millis(1)), None)),
        ];
        for (expected, problem) in cases {
            assert!(problem.starts_with(expected), "{problem}");
        }
        let many = (0..MOST).fold(FailoverLayer::builder(), |builder, n| builder.remote(format!("dc{n}")));
        assert!(problem(many.local("dc"), None).starts_with("`remote` is set for more than 15"));
    }

    #[test]
    fn a_datacenter_that_the_cluster_does_not_have_is_refused_and_those_that_exist_are_listed() {
        let known = || vec!["eu", "us", "eu"];
        let problem = builder().check_names("eu", known()).unwrap_err().to_string();
        assert_eq!(problem, "`remote` is \"dc2\", which the cluster does not have: it has eu, us");
        let problem = builder().check_names("dc1", known()).unwrap_err().to_string();
        assert!(problem.starts_with("`local` is \"dc1\""), "{problem}");
    }

    #[test]
    fn a_keyspace_that_the_cluster_does_not_have_is_refused_with_what_to_do() {
        let builder = builder().keyspace("app").keyspace("App");
        assert!(builder.check_keyspaces(|_| true).is_ok());
        let problem = builder.check_keyspaces(|keyspace| keyspace == "app").unwrap_err().to_string();
        assert!(problem.starts_with("`keyspace` is \"App\", which the session finds nowhere"), "{problem}");
    }
}
