//! A part of the stack that may be left out.
//!
//! tower's `option_layer` would do, but names the service below twice in its type: fifteen of them have a name of megabytes.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower::{Layer, Service};

/// A layer that is there, or is not.
#[derive(Clone, Debug)]
pub(super) struct OptionalLayer<L>(pub(super) Option<L>);

impl<L: Layer<S>, S> Layer<S> for OptionalLayer<L> {
    type Service = Optional<L, S>;

    fn layer(&self, inner: S) -> Optional<L, S> {
        match &self.0 {
            Some(layer) => Optional::On { service: layer.layer(inner) },
            None => Optional::Off { service: inner },
        }
    }
}

/// A service with a layer around it, or without.
pub(super) enum Optional<L: Layer<S>, S> {
    On { service: L::Service },
    Off { service: S },
}

impl<L: Layer<S>, S: Clone> Clone for Optional<L, S>
where
    L::Service: Clone,
{
    fn clone(&self) -> Self {
        match self {
            Self::On { service } => Self::On { service: service.clone() },
            Self::Off { service } => Self::Off { service: service.clone() },
        }
    }
}

impl<L, S, Req> Service<Req> for Optional<L, S>
where
    S: Service<Req>,
    L: Layer<S>,
    L::Service: Service<Req, Response = S::Response, Error = S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = OptionalFuture<<L::Service as Service<Req>>::Future, S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        match self {
            Self::On { service } => service.poll_ready(cx),
            Self::Off { service } => service.poll_ready(cx),
        }
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        match self {
            Self::On { service } => OptionalFuture::On { future: service.call(request) },
            Self::Off { service } => OptionalFuture::Off { future: service.call(request) },
        }
    }
}

pin_project! {
    /// The future of an [`Optional`].
    #[project = OptionalProjection]
    pub(super) enum OptionalFuture<A, B> {
        On { #[pin] future: A },
        Off { #[pin] future: B },
    }
}

impl<A, B> Future for OptionalFuture<A, B>
where
    A: Future,
    B: Future<Output = A::Output>,
{
    type Output = A::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<A::Output> {
        match self.project() {
            OptionalProjection::On { future } => future.poll(cx),
            OptionalProjection::Off { future } => future.poll(cx),
        }
    }
}
