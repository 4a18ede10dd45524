use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tower::{Layer, Service};

use super::{FailoverBuilder, FailoverFuture, FailoverHandle, shared::Shared};
use crate::{error::Error, request::Request};

/// Sends requests to another datacenter when the local one cannot serve them. See the [module](super) for more.
///
/// All services that it makes, and their clones, decide together.
#[derive(Clone, Debug)]
pub struct FailoverLayer {
    shared: Arc<Shared>,
}

impl FailoverLayer {
    /// Settings for a layer.
    pub fn builder() -> FailoverBuilder {
        FailoverBuilder::default()
    }

    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Reads which datacenter serves, and lets an operator decide.
    pub fn handle(&self) -> FailoverHandle {
        FailoverHandle(Arc::clone(&self.shared))
    }
}

impl<S: Clone> Layer<S> for FailoverLayer {
    type Service = Failover<S>;

    fn layer(&self, inner: S) -> Failover<S> {
        let kept = Kept { shared: Arc::clone(&self.shared), spare: Mutex::new(inner.clone()) };
        Failover { inner, kept: Arc::new(kept) }
    }
}

/// A service that sends requests to another datacenter when the local one cannot serve them. See the [module](super) for more.
pub struct Failover<S> {
    inner: S,
    kept: Arc<Kept<S>>,
}

/// What a service keeps for the repeats of all its calls.
pub(super) struct Kept<S> {
    pub(super) shared: Arc<Shared>,
    // A clone for each call in case it is needed would clone all layers below each time.
    spare: Mutex<S>,
}

impl<S: Clone> Kept<S> {
    /// A service for a repeat, which has its own readiness to win.
    pub(super) fn fresh(&self) -> S {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<S> Service<Request> for Failover<S>
where
    S: Service<Request> + Clone,
    S::Error: Into<Error>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = FailoverFuture<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> FailoverFuture<S> {
        // The caller has chosen.
        if request.datacenter().is_some() {
            return FailoverFuture::unwatched(self.inner.call(request));
        }
        let shared = &self.kept.shared;
        let choice = shared.choose(&request);
        shared.figures.sent(choice.datacenter);
        let spare = request.clone();
        let future = self.inner.call(shared.addressed(request, choice));
        FailoverFuture::new(future, Arc::clone(&self.kept), spare, choice.datacenter)
    }
}

impl<S: Clone> Clone for Failover<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), kept: Arc::clone(&self.kept) }
    }
}

impl<S: fmt::Debug> fmt::Debug for Failover<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failover")
            .field("inner", &self.inner)
            .field("shared", &self.kept.shared)
            .finish_non_exhaustive()
    }
}
