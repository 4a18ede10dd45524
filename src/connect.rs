//! How a session comes to be: settings, tries, and the check that it can really serve.

use std::{sync::Arc, time::Duration};

use palisade::{Backoff, ConfigError};
use scylla::{
    client::{
        Compression, PoolSize, execution_profile::ExecutionProfile, session::Session,
        session_builder::SessionBuilder,
    },
    policies::{load_balancing::LoadBalancingPolicy, retry::FallthroughRetryPolicy},
    statement::{Consistency, SerialConsistency},
};
use tokio::time::{sleep, timeout};

#[cfg(feature = "rustls")]
use crate::tls::Tls;
use crate::{
    error::Error,
    limits::Limits,
    revive::Hooks,
    routing::{Routing, RoutingBuilder},
    service::Cassandra,
};

/// Settings for a new session.
///
/// | setting | unit | default |
/// | --- | --- | --- |
/// | `contact_points` | `host` or `host:port`, port 9042 if left out | none: at least one is needed |
/// | `datacenter` | name; requests stay in it | any |
/// | `keyspace` | name that unqualified tables belong to | none |
/// | `credentials` | user and password | none |
/// | `tls` | `Tls` (feature `rustls`) | none |
/// | `connections_per_node` | connections | 1 per shard, which is 1 per node on Cassandra |
/// | `compression` | algorithm | none |
/// | `consistency` | level | `LOCAL_QUORUM` |
/// | `serial_consistency` | level | `LOCAL_SERIAL` |
/// | `connect_timeout` | duration of one try | 10 s |
/// | `connect_attempts` | tries, with a growing wait between them | 3 |
/// | `reconnect_promptly` | whether a node that answers again is connected to at once | yes |
/// | `request_timeout` | duration of one attempt without other limit | 30 s |
/// | `schema_timeout` | the same for schema changes and TRUNCATE, the nodes' agreement included | 60 s |
/// | `prepare_timeout` | duration of a preparation on all nodes, in the background | 30 s |
/// | `schema_agreement` | whether a schema change waits for the nodes' agreement | yes |
/// | `prepared_statements` | statements kept | 1,024 |
/// | `routing` | [`RoutingBuilder`]: how nodes are chosen, and when one is taken for sick | see [`routing`](crate::routing) |
/// | `driver` | any other setting of the driver | the driver's |
#[derive(Clone, Debug)]
pub struct CassandraBuilder {
    contact_points: Vec<String>,
    datacenter: Option<String>,
    keyspace: Option<String>,
    credentials: Option<Credentials>,
    #[cfg(feature = "rustls")]
    tls: Option<Tls>,
    connections_per_node: Option<usize>,
    compression: Option<Compression>,
    consistency: Consistency,
    serial_consistency: SerialConsistency,
    connect_timeout: Duration,
    connect_attempts: u32,
    reconnect_promptly: bool,
    limits: Limits,
    routing: RoutingBuilder,
    routed_by: Option<Arc<Routing>>,
    driver: Option<DriverSettings>,
}

/// What the caller changes at the driver's own settings.
#[derive(Clone)]
struct DriverSettings(Arc<dyn Fn(SessionBuilder) -> SessionBuilder + Send + Sync>);

impl std::fmt::Debug for DriverSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DriverSettings")
    }
}

#[derive(Clone)]
struct Credentials {
    user: String,
    password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// More connections than this to one node help nobody.
const MAX_CONNECTIONS: usize = 1_024;

impl CassandraBuilder {
    pub(crate) fn new() -> Self {
        Self {
            contact_points: Vec::new(),
            datacenter: None,
            keyspace: None,
            credentials: None,
            #[cfg(feature = "rustls")]
            tls: None,
            connections_per_node: None,
            compression: None,
            consistency: Consistency::LocalQuorum,
            serial_consistency: SerialConsistency::LocalSerial,
            connect_timeout: Duration::from_secs(10),
            connect_attempts: 3,
            reconnect_promptly: true,
            limits: Limits::default(),
            routing: RoutingBuilder::default(),
            routed_by: None,
            driver: None,
        }
    }

    /// Adds a node to begin with, `host` or `host:port`. The rest of the cluster is found by itself.
    pub fn contact_point(mut self, address: impl Into<String>) -> Self {
        self.contact_points.push(address.into());
        self
    }

    /// Adds several nodes to begin with.
    pub fn contact_points<T: Into<String>>(mut self, addresses: impl IntoIterator<Item = T>) -> Self {
        self.contact_points.extend(addresses.into_iter().map(Into::into));
        self
    }

    /// The datacenter that requests stay in.
    pub fn datacenter(mut self, name: impl Into<String>) -> Self {
        self.datacenter = Some(name.into());
        self
    }

    /// The keyspace that unqualified table names belong to. Its name is taken as it is, case included.
    pub fn keyspace(mut self, name: impl Into<String>) -> Self {
        self.keyspace = Some(name.into());
        self
    }

    /// User and password, for `PasswordAuthenticator`.
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some(Credentials { user: user.into(), password: password.into() });
        self
    }

    /// Encrypts all connections.
    #[cfg(feature = "rustls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Connections to each node, in place of one for each of its shards.
    pub fn connections_per_node(mut self, connections: usize) -> Self {
        self.connections_per_node = Some(connections);
        self
    }

    /// Compresses frames.
    pub fn compression(mut self, algorithm: Compression) -> Self {
        self.compression = Some(algorithm);
        self
    }

    /// The consistency level of requests that do not set their own.
    pub fn consistency(mut self, level: Consistency) -> Self {
        self.consistency = level;
        self
    }

    /// The serial consistency level of lightweight transactions that do not set their own.
    pub fn serial_consistency(mut self, level: SerialConsistency) -> Self {
        self.serial_consistency = level;
        self
    }

    /// How long one try at connecting may take, until a node has answered a query.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How many tries at connecting there are. A wrong password, or another mistake of the caller's, is not tried
    /// again.
    pub fn connect_attempts(mut self, attempts: u32) -> Self {
        self.connect_attempts = attempts;
        self
    }

    /// Whether a node that answers again is connected to at once, and not when the driver's wait is over: that grows to 10 s while nodes
    /// are away, so that a session may see nobody for as long although all nodes are back.
    ///
    /// A task looks once a second whether all nodes are connected. At one that has been missing for 0.5 s it knocks, with a connection
    /// of its own, up to four times a second. When the node has answered and the driver has not connected within another 0.3 s to
    /// 0.45 s, the driver is made to: by a host filter around yours that rejects the node for some 0.1 s, so that what the driver has of it
    /// is made anew. Only a node without any connection is ever rejected. The driver reads the topology and the schema twice for it.
    ///
    /// Switch it off where clients may not open connections besides the driver's, or where a node is better left alone after a start.
    pub fn reconnect_promptly(mut self, is_on: bool) -> Self {
        self.reconnect_promptly = is_on;
        self
    }

    /// What bounds an attempt that has no deadline, whatever a `TimeoutLayer` says.
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.limits.request = limit;
        self
    }

    /// The same for schema changes and TRUNCATE.
    pub fn schema_timeout(mut self, limit: Duration) -> Self {
        self.limits.schema = limit;
        self
    }

    /// How long the preparation of a statement on all nodes may take. Nobody waits for it that long.
    pub fn prepare_timeout(mut self, limit: Duration) -> Self {
        self.limits.prepare = limit;
        self
    }

    /// Whether a schema change waits until all nodes agree on the new schema.
    pub fn schema_agreement(mut self, wait: bool) -> Self {
        self.limits.await_agreement = wait;
        self
    }

    /// How many prepared statements are kept.
    pub fn prepared_statements(mut self, statements: usize) -> Self {
        self.limits.statements = statements;
        self
    }

    /// Sets how nodes are chosen, and when one is taken for sick. A datacenter that is set here and by
    /// [`datacenter`](Self::datacenter) is that of the latter.
    pub fn routing(mut self, routing: RoutingBuilder) -> Self {
        self.routing = routing;
        self
    }

    /// Tells that a session of yours is routed by this policy, for [`over_session`](Self::over_session): its profile has to name it.
    pub fn routed_by(mut self, routing: Arc<Routing>) -> Self {
        self.routed_by = Some(routing);
        self
    }

    /// Changes settings of the driver that have no method here: address translation, keepalive, a host filter.
    ///
    /// It is applied last. A host filter and an address translator stay in force. What it does to retries, speculative execution or the request timeout has no effect,
    /// since all attempts belong to the layers.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_cassandra::Cassandra;
    ///
    /// let builder = Cassandra::builder()
    ///     .contact_point("10.0.0.1")
    ///     .driver(|session| session.keepalive_interval(Duration::from_secs(10)));
    /// # let _ = builder;
    /// ```
    pub fn driver(
        mut self,
        change: impl Fn(SessionBuilder) -> SessionBuilder + Send + Sync + 'static,
    ) -> Self {
        self.driver = Some(DriverSettings(Arc::new(change)));
        self
    }

    /// Uses a session that exists already, with these limits (`request_timeout`, `schema_timeout`, `prepare_timeout`,
    /// `schema_agreement`, `prepared_statements`). The other settings are of no use then: the session has its own.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a limit makes no sense, or the datacenter of the routing does not exist.
    pub fn over_session(self, session: impl Into<Arc<Session>>) -> Result<Cassandra, Error> {
        self.check_limits()?;
        let session = session.into();
        if let Some(datacenter) = self.routed_by.as_deref().and_then(Routing::datacenter) {
            check_datacenter(datacenter, &session)?;
        }
        Ok(Cassandra::new(session, self.limits, self.routed_by.as_deref()))
    }

    /// Connects, and checks that the cluster can be used: its topology is known, the datacenter and the keyspace
    /// exist, and a node answers a query.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Config`](crate::ErrorKind::Config): a setting makes no sense.
    /// - [`ErrorKind::Authentication`](crate::ErrorKind::Authentication): user or password is wrong or missing.
    /// - [`ErrorKind::Invalid`](crate::ErrorKind::Invalid): there is no such keyspace.
    /// - [`ErrorKind::Connect`](crate::ErrorKind::Connect): anything else, after all tries. It takes at most
    ///   `connect_attempts` x `connect_timeout` and the waits between, which are below 1 s each.
    pub async fn connect(self) -> Result<Cassandra, Error> {
        self.check()?;
        let routing = match &self.datacenter {
            Some(name) => self.routing.clone().datacenter(name),
            None => self.routing.clone(),
        };
        let backoff = Backoff::default();
        let mut attempt = 1;
        loop {
            // What is known of the nodes of a session that failed is of no use to the next.
            let routing = routing.clone().build()?;
            match self.try_connect(&routing).await {
                Ok((session, hooks)) => {
                    // The profile is ours and has no limit, unless the caller has changed the driver's settings.
                    let driver = self.limits.driver.filter(|_| self.driver.is_some());
                    let limits = Limits { driver, ..self.limits };
                    let cassandra = Cassandra::new(Arc::new(session), limits, Some(&routing));
                    if let Some(hooks) = hooks {
                        hooks.watch(Arc::downgrade(cassandra.session()), Arc::clone(cassandra.nodes()));
                    }
                    return Ok(cassandra);
                }
                Err(error) if attempt < self.connect_attempts && error.is_worth_another_try() => {
                    tracing::warn!(attempt, %error, "could not connect, trying again");
                    sleep(backoff.wait(attempt, Duration::ZERO, fastrand::f64())).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.contact_points.is_empty() {
            return Err(ConfigError::new(
                "contact_points",
                "is empty: name at least one node, as host or host:port",
            ));
        }
        if let Some(blank) = self.contact_points.iter().find(|point| point.trim().is_empty()) {
            return Err(ConfigError::new(
                "contact_points",
                format!("has a blank entry, {blank:?}: remove it"),
            ));
        }
        if self.keyspace.as_ref().is_some_and(String::is_empty) {
            return Err(ConfigError::new("keyspace", "is empty: name one, or leave the setting out"));
        }
        if self.datacenter.as_ref().is_some_and(String::is_empty) {
            return Err(ConfigError::new("datacenter", "is empty: name one, or leave the setting out"));
        }
        if self.connections_per_node.is_some_and(|count| !(1..=MAX_CONNECTIONS).contains(&count)) {
            let problem =
                format!("must be from 1 to {MAX_CONNECTIONS}: one connection carries 32,768 requests");
            return Err(ConfigError::new("connections_per_node", problem));
        }
        if self.connect_attempts == 0 {
            return Err(ConfigError::new("connect_attempts", "must be at least 1: 1 means no second try"));
        }
        above_zero("connect_timeout", self.connect_timeout)?;
        self.check_limits()
    }

    fn check_limits(&self) -> Result<(), ConfigError> {
        if self.limits.statements == 0 {
            return Err(ConfigError::new(
                "prepared_statements",
                "must be at least 1: no statement could be kept",
            ));
        }
        above_zero("request_timeout", self.limits.request)?;
        above_zero("schema_timeout", self.limits.schema)?;
        above_zero("prepare_timeout", self.limits.prepare)
    }

    async fn try_connect(&self, routing: &Arc<Routing>) -> Result<(Session, Option<Hooks>), Error> {
        let connecting = async {
            let (builder, hooks) = match self.session_builder(routing) {
                builder if self.reconnect_promptly => {
                    let (builder, hooks) = Hooks::install(builder);
                    (builder, Some(hooks))
                }
                builder => (builder, None),
            };
            let session = builder
                .build()
                .await
                .map_err(|error| Error::connecting(error, &self.contact_points, self.is_tls()))?;
            self.check_topology(routing, &session)?;
            check_answer(&session, self.connect_timeout).await?;
            Ok((session, hooks))
        };
        match timeout(self.connect_timeout, connecting).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::unconnected(format!(
                "no session with {} within {:?}: check that the address is right and that the node answers",
                self.contact_points.join(", "),
                self.connect_timeout
            ))),
        }
    }

    fn session_builder(&self, routing: &Arc<Routing>) -> SessionBuilder {
        let mut builder = SessionBuilder::new()
            .known_nodes(&self.contact_points)
            .default_execution_profile_handle(self.profile(routing).into_handle())
            .compression(self.compression)
            .connection_timeout(self.connection_timeout())
            .auto_await_schema_agreement(false)
            .schema_agreement_timeout(self.limits.schema);
        if let Some(keyspace) = &self.keyspace {
            builder = builder.use_keyspace(keyspace, true);
        }
        if let Some(Credentials { user, password }) = &self.credentials {
            builder = builder.user(user, password);
        }
        if let Some(size) = self.connections_per_node.and_then(std::num::NonZeroUsize::new) {
            builder = builder.pool_size(PoolSize::PerHost(size));
        }
        #[cfg(feature = "rustls")]
        if let Some(tls) = &self.tls {
            builder = builder.tls_context(Some(tls.context()));
        }
        match &self.driver {
            Some(DriverSettings(change)) => change(builder),
            None => builder,
        }
    }

    /// The driver tries one contact point after the other: one that swallows everything must leave time for the rest.
    fn connection_timeout(&self) -> Duration {
        let points = u32::try_from(self.contact_points.len()).unwrap_or(u32::MAX);
        (self.connect_timeout / points.saturating_add(1)).min(Duration::from_secs(5))
    }

    /// The layers own every attempt: no retries, no speculative execution, no time limit in the driver.
    fn profile(&self, routing: &Arc<Routing>) -> ExecutionProfile {
        ExecutionProfile::builder()
            .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
            .speculative_execution_policy(None)
            .request_timeout(None)
            .consistency(self.consistency)
            .serial_consistency(Some(self.serial_consistency))
            .load_balancing_policy(Arc::clone(routing) as Arc<dyn LoadBalancingPolicy>)
            .build()
    }

    #[cfg(feature = "rustls")]
    const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    #[cfg(not(feature = "rustls"))]
    #[expect(clippy::unused_self, reason = "with the feature it is used")]
    const fn is_tls(&self) -> bool {
        false
    }

    /// The driver builds a session even where it could not read the cluster's topology, from the contact points
    /// alone. It then knows no datacenter.
    fn check_topology(&self, routing: &Routing, session: &Session) -> Result<(), Error> {
        if session.get_cluster_state().get_nodes_info().iter().all(|node| node.datacenter.is_none()) {
            let points = self.contact_points.join(", ");
            return Err(Error::unconnected(format!(
                "{points} accepts connections, but does not tell its topology"
            )));
        }
        routing.datacenter().map_or(Ok(()), |wanted| Ok(check_datacenter(wanted, session)?))
    }
}

/// Whether there is such a datacenter.
pub(crate) fn check_datacenter(wanted: &str, session: &Session) -> Result<(), ConfigError> {
    let state = session.get_cluster_state();
    let mut known: Vec<_> =
        state.get_nodes_info().iter().filter_map(|node| node.datacenter.as_deref()).collect();
    known.sort_unstable();
    known.dedup();
    if known.contains(&wanted) {
        return Ok(());
    }
    let problem = format!("is {wanted:?}, which the cluster does not have: it has {}", known.join(", "));
    Err(ConfigError::new("datacenter", problem))
}

fn above_zero(setting: &'static str, duration: Duration) -> Result<(), ConfigError> {
    if duration.is_zero() {
        return Err(ConfigError::new(setting, "must be above zero: nothing could end in time"));
    }
    Ok(())
}

/// A session is ready when a node has answered.
async fn check_answer(session: &Session, limit: Duration) -> Result<(), Error> {
    let mut statement = crate::leaf::once("SELECT key FROM system.local", Some(limit));
    statement.set_consistency(Consistency::One);
    session.query_unpaged(statement, ()).await.map(drop).map_err(Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(change: impl FnOnce(CassandraBuilder) -> CassandraBuilder) -> String {
        change(CassandraBuilder::new().contact_point("127.0.0.1")).check().unwrap_err().to_string()
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_with_what_to_do() {
        assert_eq!(
            CassandraBuilder::new().check().unwrap_err().to_string(),
            "`contact_points` is empty: name at least one node, as host or host:port"
        );
        let cases: [(&str, String); 11] = [
            ("contact_points", problem(|builder| builder.contact_point(" "))),
            ("keyspace", problem(|builder| builder.keyspace(""))),
            ("datacenter", problem(|builder| builder.datacenter(""))),
            ("connections_per_node", problem(|builder| builder.connections_per_node(0))),
            ("connections_per_node", problem(|builder| builder.connections_per_node(100_000))),
            ("connect_attempts", problem(|builder| builder.connect_attempts(0))),
            ("prepared_statements", problem(|builder| builder.prepared_statements(0))),
            ("connect_timeout", problem(|builder| builder.connect_timeout(Duration::ZERO))),
            ("request_timeout", problem(|builder| builder.request_timeout(Duration::ZERO))),
            ("prepare_timeout", problem(|builder| builder.prepare_timeout(Duration::ZERO))),
            ("schema_timeout", problem(|builder| builder.schema_timeout(Duration::ZERO))),
        ];
        for (setting, problem) in cases {
            assert!(problem.starts_with(&format!("`{setting}` ")), "{problem}");
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let builder = CassandraBuilder::new().credentials("ada", "hunter2");
        assert!(!format!("{builder:?}").contains("hunter2"));
    }
}
