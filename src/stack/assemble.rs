//! The order of the parts.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower::{Layer, Service, ServiceBuilder, layer::util::Stack};

use super::{
    optional::OptionalLayer,
    parts::{CoalesceReads, ConcurrencyLayer, Parts, RateLayer},
};
use crate::{
    client::{BoxStack, BoxStackFuture},
    error::Error,
    request::Request,
    response::Response,
};

/// A layer of the user's, made to fit.
pub(super) type Plug = Box<dyn Fn(BoxStack) -> BoxStack + Send + Sync>;

/// The user's layers, by place, the outermost first.
#[derive(Default)]
pub(super) struct Plugs {
    pub(super) outside: Vec<Plug>,
    pub(super) around_repeats: Vec<Plug>,
    pub(super) around_attempts: Vec<Plug>,
}

/// All parts around `leaf`.
pub(super) fn assemble<S>(leaf: S, parts: &Parts, plugs: Plugs) -> BoxStack
where
    S: Service<Request, Response = Response, Error = Error> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let attempt = ServiceBuilder::new()
        .layer(optional(&parts.breaker))
        .layer(optional(&parts.breakers))
        .layer(optional(&parts.throttle))
        // Neighbours: the first learns from the readiness of the second.
        .layer(OptionalLayer(parts.shed.clone().zip(parts.adaptive.clone()).map(both)))
        .layer(optional(&parts.attempt_timeout))
        .service(leaf);
    let repeats = ServiceBuilder::new()
        .layer(optional(&parts.failover))
        .layer(optional(&parts.health))
        .layer(optional(&parts.retry))
        .layer(optional(&parts.hedge))
        .service(Plugged::new(attempt, plugs.around_attempts));
    let call = ServiceBuilder::new()
        .layer(optional(&parts.telemetry))
        .layer(optional(&parts.drain_layer))
        .layer(optional(&parts.deadline))
        .layer(OptionalLayer(limits(parts)))
        .service(Plugged::new(repeats, plugs.around_repeats));
    within(BoxStack::new(call), plugs.outside)
}

/// Two layers as one, the first outside.
fn both<Outer, Inner>((outer, inner): (Outer, Inner)) -> Stack<Inner, Outer> {
    Stack::new(inner, outer)
}

type Limits =
    Stack<OptionalLayer<CoalesceReads>, Stack<OptionalLayer<ConcurrencyLayer>, OptionalLayer<RateLayer>>>;

/// What stands between deadline and retry, all of it off by default: in one, so that it costs one branch while there is none.
fn limits(parts: &Parts) -> Option<Limits> {
    let (rate, concurrency, coalesce) = (&parts.rate, &parts.concurrency, &parts.coalesce);
    let is_any = rate.is_some() || concurrency.is_some() || coalesce.is_some();
    is_any.then(|| both((both((optional(rate), optional(concurrency))), optional(coalesce))))
}

#[expect(clippy::ref_option, reason = "it is kept as such")]
fn optional<L: Clone>(layer: &Option<L>) -> OptionalLayer<L> {
    OptionalLayer(layer.clone())
}

fn within(stack: BoxStack, plugs: Vec<Plug>) -> BoxStack {
    plugs.into_iter().rev().fold(stack, |inner, plug| plug(inner))
}

/// A place for layers of the user's, which costs nothing while there are none.
#[derive(Clone)]
enum Plugged<S> {
    Empty { service: S },
    Filled { service: BoxStack },
}

impl<S> Plugged<S>
where
    S: Service<Request, Response = Response, Error = Error> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    fn new(service: S, plugs: Vec<Plug>) -> Self {
        if plugs.is_empty() {
            return Self::Empty { service };
        }
        Self::Filled { service: within(BoxStack::new(service), plugs) }
    }
}

impl<S> Service<Request> for Plugged<S>
where
    S: Service<Request, Response = Response, Error = Error>,
{
    type Response = Response;
    type Error = Error;
    type Future = PluggedFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self {
            Self::Empty { service } => service.poll_ready(cx),
            Self::Filled { service } => service.poll_ready(cx),
        }
    }

    #[inline]
    fn call(&mut self, request: Request) -> Self::Future {
        match self {
            Self::Empty { service } => PluggedFuture::Empty { future: service.call(request) },
            Self::Filled { service } => PluggedFuture::Filled { future: service.call(request) },
        }
    }
}

pin_project! {
    #[project = PluggedProjection]
    enum PluggedFuture<F> {
        Empty { #[pin] future: F },
        Filled { #[pin] future: BoxStackFuture },
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for PluggedFuture<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            PluggedProjection::Empty { future } => future.poll(cx),
            PluggedProjection::Filled { future } => future.poll(cx),
        }
    }
}

/// Makes a layer fit its place.
pub(super) fn plug<L>(layer: L) -> Plug
where
    L: Layer<BoxStack> + Send + Sync + 'static,
    L::Service: Service<Request, Response = Response> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request>>::Error: Into<Error>,
    <L::Service as Service<Request>>::Future: Send + 'static,
{
    Box::new(move |inner| BoxStack::new(layer.layer(inner)))
}
