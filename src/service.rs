//! The leaf service: where a stack ends and the driver begins.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use scylla::{
    client::{execution_profile::ExecutionProfile, session::Session},
    statement::{Consistency, SerialConsistency},
};
use tower::Service;
use tracing::Span;

use crate::{
    connect::CassandraBuilder,
    error::Error,
    leaf::{self, Work},
    limits::Limits,
    nodes::{Nodes, Rules},
    prepared::Statements,
    request::Request,
    response::Response,
    routing::{Routing, current::AttemptGuard},
    telemetry,
};

/// A session with a cluster, as a [`tower::Service`].
///
/// It makes one attempt for each request, at a node of the driver's choice, and leaves everything else to layers.
/// It is always ready. Clones are cheap and share the session.
///
/// Even without any layer, each call is bounded: by the request's deadline, and by the limits that
/// [`CassandraBuilder`] documents. Dropping the future abandons the attempt; what was sent may still take effect.
#[derive(Clone)]
pub struct Cassandra {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) session: Arc<Session>,
    pub(crate) statements: Arc<Statements>,
    pub(crate) limits: Limits,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) datacenter: Option<Arc<str>>,
    /// Whether a policy of ours chooses the nodes, so that a request can name its datacenter.
    pub(crate) is_routed: bool,
}

impl Shared {
    pub(crate) fn consistency(&self) -> Consistency {
        self.profile().get_consistency()
    }

    pub(crate) fn serial_consistency(&self) -> Option<SerialConsistency> {
        self.profile().get_serial_consistency()
    }

    fn profile(&self) -> ExecutionProfile {
        self.session.get_default_execution_profile_handle().to_profile()
    }
}

impl Cassandra {
    /// Connects to the cluster that has a node at `contact_point` (`host` or `host:port`), with default settings.
    ///
    /// # Errors
    ///
    /// See [`CassandraBuilder::connect`].
    pub async fn connect(contact_point: impl Into<String>) -> Result<Self, Error> {
        Self::builder().contact_point(contact_point).connect().await
    }

    /// Settings for a new session.
    pub fn builder() -> CassandraBuilder {
        CassandraBuilder::new()
    }

    /// Uses a session that exists already.
    ///
    /// Its retry policy, speculative execution and request timeout are set aside for requests that come this way,
    /// since all attempts belong to the layers. Its load balancing and its consistency levels stay. For other limits
    /// than the default ones, see [`CassandraBuilder::over_session`].
    pub fn from_session(session: impl Into<Arc<Session>>) -> Self {
        Self::new(session.into(), Limits::default(), None)
    }

    /// `routing` is the session's load balancing policy, if it is one of ours.
    pub(crate) fn new(session: Arc<Session>, limits: Limits, routing: Option<&Routing>) -> Self {
        let statements = Arc::new(Statements::new(Arc::clone(&session), limits));
        // Where another policy chooses, the nodes are known all the same.
        let nodes =
            routing.map_or_else(|| Nodes::new(Rules::default()), |routing| Arc::clone(routing.nodes()));
        nodes.sync(&session.get_cluster_state());
        let datacenter = routing.and_then(Routing::datacenter).map(Arc::from);
        let is_routed = routing.is_some();
        Self { shared: Arc::new(Shared { session, statements, limits, nodes, datacenter, is_routed }) }
    }

    /// What is known of each node of the cluster.
    pub fn nodes(&self) -> &Arc<Nodes> {
        &self.shared.nodes
    }

    /// The datacenter that requests stay in, if one is named.
    pub fn datacenter(&self) -> Option<&str> {
        self.shared.datacenter.as_deref()
    }

    /// The consistency level of requests that do not set their own.
    pub fn consistency(&self) -> Consistency {
        self.shared.consistency()
    }

    pub(crate) fn is_routed(&self) -> bool {
        self.shared.is_routed
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The driver's session, for what this crate does not cover.
    pub fn session(&self) -> &Arc<Session> {
        &self.shared.session
    }
}

impl Service<Request> for Cassandra {
    type Response = Response;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> ResponseFuture {
        let span = telemetry::attempt_span(&request);
        let what = (request.kind(), request.idempotence());
        let attempt = request.ledger().begin(what, request.datacenter().cloned(), &self.shared.nodes);
        ResponseFuture { work: leaf::work(&self.shared, request), attempt, span }
    }
}

impl fmt::Debug for Cassandra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cassandra")
            .field("session", &self.shared.session.session_id())
            .field("limits", &self.shared.limits)
            .finish_non_exhaustive()
    }
}

/// The future of a [`Cassandra`] call.
pub struct ResponseFuture {
    work: Work,
    attempt: AttemptGuard,
    span: Span,
}

impl Future for ResponseFuture {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let span = this.span.enter();
        let outcome = ready!(this.attempt.work(|| this.work.poll(cx)));
        if !this.span.is_disabled() {
            telemetry::record_attempt(&this.span, this.attempt.address(), this.attempt.node(), &outcome);
        }
        drop(span);
        this.attempt.end(&outcome);
        Poll::Ready(outcome)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("attempt", &self.attempt).finish_non_exhaustive()
    }
}
