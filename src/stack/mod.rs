//! The recommended stack, from one configuration.
//!
//! All layers of this crate in the order that suits most services, with defaults that do, each of which can be changed, switched off or
//! replaced, by a file, by the environment, and in part while it runs.
//!
//! ```no_run
//! use tower_cassandra::stack::{StackConfig, StandardStack};
//!
//! # async fn example() -> Result<(), tower_cassandra::Error> {
//! let config = StackConfig::load(Some("service.toml".as_ref()), "CASSANDRA_")?;
//! let stack = StandardStack::connect(config).await?;
//!
//! let client = stack.client(); // clones are cheap
//! let users = client.execute("SELECT name FROM app.users WHERE id = ?", (7_i64,)).await?;
//! let (name,): (String,) = users.single_row()?;
//!
//! stack.handles().drain.start(); // SIGTERM, say
//! let report = stack.handles().drain.finish().await;
//! # let _ = (name, report);
//! # Ok(())
//! # }
//! ```
//!
//! ```toml
//! # service.toml
//! [connection]
//! contact_points = ["10.0.0.1", "10.0.0.2"]
//! datacenter = "dc1"
//! keyspace = "app"
//!
//! [deadline]
//! limit = "1s"
//!
//! [rate]
//! enabled = true
//! per_second = 5000
//! ```
//!
//! # The order
//!
//! A call passes the parts from the top to the bottom. Each is at its place for a reason:
//!
//! | part | default | why here |
//! | --- | --- | --- |
//! | *[outside](StackBuilder::outside)* | | sees each call once, with all that becomes of it |
//! | `telemetry` | on | measures what callers see, refusals included |
//! | `drain` | on | the wait of a call for anything counts as work that has to end |
//! | `deadline` | 2 s | everything below waits no longer than it says |
//! | `rate` | off | before anything is held |
//! | `concurrency` | off | a call holds one place, however many attempts it makes |
//! | `coalesce` | off | a flight with all its attempts is shared; each caller has passed the limits |
//! | *[around repeats](StackBuilder::around_repeats)* | | sees what is really asked of the cluster, once for all attempts |
//! | `failover` | off | chooses the datacenter for all attempts of a call; on as soon as `remotes` names one |
//! | `health` | on | refuses at once what the nodes cannot serve, once the cluster has said so, before it is tried and repeated |
//! | `retry` | 3 attempts | repeats what went wrong in any of the parts below |
//! | `hedge` | on | takes from the same budget; each of two attempts has all of the parts below |
//! | *[around attempts](StackBuilder::around_attempts)* | | sees each attempt, and what refused it |
//! | `breaker` | on | an open circuit costs no attempt; a timed-out attempt is a failure; what no node had a connection for is none |
//! | `throttle` | on | answers overload, which the breaker leaves to it |
//! | `shed` + `adaptive` | off | the latency of single attempts is what tells of the cluster; who waits for a repeat holds no place |
//! | `attempt_timeout` | 500 ms | around what may hang |
//! | the leaf | | one attempt, at the node that [`routing`](crate::routing) chooses |
//!
//! **`shed` and `adaptive` are off by default.** The limit goes by the latency and the losses of all nodes together: one node that hangs
//! looks like a cluster that can do less, and the limit would take it out on calls that other nodes can serve. A process that may ask more of
//! the cluster than that can do, a batch job for one, switches `adaptive` on, which brings `shed` with it.
//!
//! What each part does and costs, its metrics and its knobs, is said by its module in [`layers`](crate::layers). A part that is
//! left out costs a branch.
//!
//! # Parts of one's own
//!
//! To replace a part, switch it off and put a layer at its place, of which there are three. To get between the last part and the driver,
//! make the stack [over](StackBuilder::over) a service that wraps [`Cassandra`].
//!
//! ```no_run
//! use tower_cassandra::{
//!     Request,
//!     layers::{CircuitBreakerLayer, MetricsLayer},
//!     stack::{StackConfig, StandardStack},
//! };
//!
//! # async fn example() -> Result<(), tower_cassandra::Error> {
//! let mut config = StackConfig::default();
//! config.connection.contact_points = vec!["10.0.0.1".to_owned()];
//! config.breaker.enabled = false; // replaced below
//!
//! let by_kind = CircuitBreakerLayer::builder()
//!     .build_keyed(16, |request: &Request| request.kind())?;
//! let stack = StandardStack::builder(config)
//!     .outside(MetricsLayer::named("cassandra"))
//!     .around_attempts(by_kind)
//!     .connect()
//!     .await?;
//! # let _ = stack;
//! # Ok(())
//! # }
//! ```
//!
//! A layer of one's own costs an allocation for each call that passes it, since it does not know the types of the layers below. The stack
//! by itself allocates once for each call.
//!
//! # Changes at run time
//!
//! [`Handles`] leads to each part, and tells the figures of all at once. [`Handles::apply`] takes a whole configuration, as read again from
//! its file, and says which of the settings that differ are in force now and which need a restart.
//!
//! ```no_run
//! # use tower_cassandra::stack::{StackConfig, StandardStack};
//! # fn example(stack: &StandardStack) -> Result<(), Box<dyn std::error::Error>> {
//! let applied = stack.handles().apply(&StackConfig::load(Some("service.toml".as_ref()), "CASSANDRA_")?)?;
//! println!("in force: {:?}; after a restart: {:?}", applied.changed, applied.needs_restart);
//! # Ok(())
//! # }
//! ```
//!
//! # When to use something else
//!
//! With a `ServiceBuilder` and the layers by themselves nothing is boxed, and the order is yours: for a stack with few parts, or for two
//! stacks over one session.

mod assemble;
pub mod config;
mod connection;
mod handles;
mod limits;
mod optional;
mod parts;
pub mod snapshot;

use std::fmt;

use palisade::{ConfigError, Drain};
use tower::{Layer, Service};

use self::{
    assemble::{Plugs, assemble, plug},
    parts::{Given, Parts},
};
pub use self::{
    config::{Preset, StackConfig},
    handles::{Applied, Handles},
    snapshot::StackSnapshot,
};
use crate::{
    client::{BoxClient, BoxStack, Client},
    error::Error,
    health::HealthMonitor,
    request::Request,
    response::Response,
    service::Cassandra,
};

/// The recommended stack, made. See the [module](self) for more. Clones lead to the same stack.
#[derive(Clone)]
pub struct StandardStack {
    client: BoxClient,
    handles: Handles,
    cassandra: Option<Cassandra>,
}

impl StandardStack {
    /// Connects to the cluster of the configuration, and puts all parts around the session.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a setting makes no sense; nothing was connected to then. Else as
    /// [`CassandraBuilder::connect`](crate::CassandraBuilder::connect).
    pub async fn connect(config: StackConfig) -> Result<Self, Error> {
        Self::builder(config).connect().await
    }

    /// Puts all parts around a service that makes single attempts: one for tests, or one of your own around a [`Cassandra`].
    ///
    /// The sections `connection` and `routing` are of no use then, but for `client_timestamps`; and nobody knows the nodes, so that `health` is
    /// left out. For a session as it is, see [`StackBuilder::over_session`].
    ///
    /// # Errors
    ///
    /// If a setting makes no sense.
    pub fn over<S>(leaf: S, config: StackConfig) -> Result<Self, ConfigError>
    where
        S: Service<Request, Response = Response, Error = Error> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        Self::builder(config).over(leaf)
    }

    /// A stack with layers of one's own.
    pub fn builder(config: StackConfig) -> StackBuilder {
        StackBuilder { config, plugs: Plugs::default(), drain: None, health: None }
    }

    /// What people call. Clones are cheap.
    pub fn client(&self) -> BoxClient {
        self.client.clone()
    }

    /// What operators read and change.
    pub fn handles(&self) -> &Handles {
        &self.handles
    }

    /// The leaf, where the stack made it.
    pub fn cassandra(&self) -> Option<&Cassandra> {
        self.cassandra.as_ref()
    }
}

impl fmt::Debug for StandardStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandardStack")
            .field("cassandra", &self.cassandra)
            .field("handles", &self.handles)
            .finish_non_exhaustive()
    }
}

/// Makes a [`StandardStack`] with layers of one's own.
///
/// Of several layers at one place the first is the outermost.
pub struct StackBuilder {
    config: StackConfig,
    plugs: Plugs,
    drain: Option<Drain>,
    health: Option<HealthMonitor>,
}

impl StackBuilder {
    /// Adds a layer outside of everything else.
    pub fn outside<L>(mut self, layer: L) -> Self
    where
        L: Layer<BoxStack> + Send + Sync + 'static,
        L::Service: Service<Request, Response = Response> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Error: Into<Error>,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        self.plugs.outside.push(plug(layer));
        self
    }

    /// Adds a layer between the limits on calls and the retry.
    pub fn around_repeats<L>(mut self, layer: L) -> Self
    where
        L: Layer<BoxStack> + Send + Sync + 'static,
        L::Service: Service<Request, Response = Response> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Error: Into<Error>,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        self.plugs.around_repeats.push(plug(layer));
        self
    }

    /// Adds a layer between the hedge and the breaker.
    pub fn around_attempts<L>(mut self, layer: L) -> Self
    where
        L: Layer<BoxStack> + Send + Sync + 'static,
        L::Service: Service<Request, Response = Response> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Error: Into<Error>,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        self.plugs.around_attempts.push(plug(layer));
        self
    }

    /// Uses the drain of the whole process, in place of one of the stack's own: the times in the section `drain` are its own business
    /// then.
    pub fn drain(mut self, drain: Drain) -> Self {
        self.drain = Some(drain);
        self
    }

    /// Uses a health monitor of the session that runs already, in place of one of the stack's own: the times in the section `health`
    /// are its own business then.
    pub fn health(mut self, monitor: HealthMonitor) -> Self {
        self.health = Some(monitor);
        self
    }

    /// Connects, and makes the stack: see [`StandardStack::connect`].
    ///
    /// # Errors
    ///
    /// As [`StandardStack::connect`].
    pub async fn connect(self) -> Result<StandardStack, Error> {
        self.config.check()?;
        let cassandra = connection::builder(&self.config)?.connect().await?;
        Ok(self.over_session(cassandra)?)
    }

    /// Makes the stack over a session that exists already. The section `connection` is of no use then, but for `client_timestamps`.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense, or outside of a tokio runtime.
    pub fn over_session(self, cassandra: Cassandra) -> Result<StandardStack, ConfigError> {
        let mut stack = self.make(cassandra.clone(), Some(&cassandra))?;
        stack.cassandra = Some(cassandra);
        Ok(stack)
    }

    /// Makes the stack over a leaf: see [`StandardStack::over`].
    ///
    /// # Errors
    ///
    /// As [`StandardStack::over`].
    pub fn over<S>(self, leaf: S) -> Result<StandardStack, ConfigError>
    where
        S: Service<Request, Response = Response, Error = Error> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        self.make(leaf, None)
    }

    fn make<S>(self, leaf: S, cassandra: Option<&Cassandra>) -> Result<StandardStack, ConfigError>
    where
        S: Service<Request, Response = Response, Error = Error> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        let Self { config, plugs, drain, health } = self;
        connection::check(&config)?;
        let parts = Parts::new(&config, Given { drain, health, cassandra })?;
        let handles = Handles::of(&parts, &config)?;
        let client = Client::new(assemble(leaf, &parts, plugs))
            .client_timestamps(config.connection.client_timestamps)
            .read_keys(config.coalesce.enabled);
        Ok(StandardStack { client, handles, cassandra: None })
    }
}

impl fmt::Debug for StackBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StackBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl StackConfig {
    /// Finds settings that are out of range, or do not go together, also those of parts that are left out. A stack does it when it is
    /// made.
    ///
    /// # Errors
    ///
    /// The first such setting, as `section.setting`, with what is allowed.
    pub fn check(&self) -> Result<(), ConfigError> {
        connection::check(self)?;
        Parts::new(self, Given::default()).map(drop)
    }
}

#[cfg(test)]
mod tests;
