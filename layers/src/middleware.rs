//! A layer made of an async function.
//!
//! For what a stack needs once: a check before the call, a note after it, an answer from somewhere else. The function
//! gets the request and [`Next`], the rest of the stack, and decides whether, when and with what to run it.
//!
//! ```
//! use palisade::{Envelope, Rejection, middleware::{Next, from_fn}};
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let only_even = from_fn(|request: Envelope<u32>, next: Next<_, u32>| async move {
//!     if *request % 2 == 1 {
//!         return Err(Rejection::Draining.into());
//!     }
//!     let answer = next.run(request).await?;
//!     Ok(answer + 1)
//! });
//! let service = ServiceBuilder::new()
//!     .layer(only_even)
//!     .service(service_fn(|request: Envelope<u32>| async move { Ok::<_, BoxError>(*request) }));
//!
//! assert_eq!(service.clone().oneshot(Envelope::new(6)).await.unwrap(), 7);
//! assert!(service.oneshot(Envelope::new(7)).await.is_err());
//! # }
//! ```
//!
//! # What it does
//!
//! - Readiness: always ready. [`Next::run`] waits for the inner service, so that none of its places is taken while the
//!   function waits for something else.
//! - Dropping the response future drops the function's, and all that it holds.
//! - `Next` is a clone of the inner service in a box, and so is the future of its call: two or three allocations a call.
//!
//! # When to use something else
//!
//! To change only the request, the response or the error, tower's `map_request`, `map_response` and `map_err` cost
//! nothing. For a layer with settings, state and metrics, or on a hot path, write one: see the [guide](crate::guide).

use std::{
    fmt,
    future::poll_fn,
    task::{Context, Poll},
};

use tower::{BoxError, Layer, Service, util::BoxCloneSyncService};

/// Makes a layer of an async function. See the [module](self) for more.
pub const fn from_fn<F, Fut, Req, Res, Err>(function: F) -> FromFnLayer<F>
where
    F: Fn(Req, Next<Req, Res, Err>) -> Fut,
    Fut: Future,
{
    FromFnLayer { function }
}

/// A layer made of an async function. See [`from_fn`].
#[derive(Clone, Copy)]
pub struct FromFnLayer<F> {
    function: F,
}

impl<S, F: Clone> Layer<S> for FromFnLayer<F> {
    type Service = FromFn<S, F>;

    fn layer(&self, inner: S) -> FromFn<S, F> {
        FromFn { inner, function: self.function.clone() }
    }
}

impl<F> fmt::Debug for FromFnLayer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromFnLayer")
    }
}

/// A service with an async function around it. See [`from_fn`].
#[derive(Clone, Copy)]
pub struct FromFn<S, F> {
    inner: S,
    function: F,
}

impl<S, F, Fut, Req, Res> Service<Req> for FromFn<S, F>
where
    F: Fn(Req, Next<Req, S::Response, S::Error>) -> Fut,
    Fut: Future<Output = Result<Res, S::Error>>,
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    type Response = Res;
    type Error = S::Error;
    type Future = Fut;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Fut {
        (self.function)(request, Next { service: BoxCloneSyncService::new(self.inner.clone()) })
    }
}

impl<S: fmt::Debug, F> fmt::Debug for FromFn<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFn").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// The rest of the stack, for a function given to [`from_fn`] to run.
///
/// A function that wants to run it again clones it before.
pub struct Next<Req, Res, Err = BoxError> {
    service: BoxCloneSyncService<Req, Res, Err>,
}

impl<Req, Res, Err> Next<Req, Res, Err> {
    /// Waits until the rest of the stack is ready, and runs it.
    ///
    /// # Errors
    ///
    /// What it fails with, as it is.
    pub async fn run(mut self, request: Req) -> Result<Res, Err> {
        poll_fn(|cx| self.service.poll_ready(cx)).await?;
        let call = self.service.call(request);
        // What is left of the service is not kept for as long as the call takes.
        drop(self);
        call.await
    }
}

impl<Req, Res, Err> Clone for Next<Req, Res, Err> {
    fn clone(&self) -> Self {
        Self { service: self.service.clone() }
    }
}

impl<Req, Res, Err> fmt::Debug for Next<Req, Res, Err> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Next")
    }
}
