use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use palisade::{ConfigError, HasDeadline, Instant, TimeoutScope, telemetry::Counter};
use pin_project_lite::pin_project;
use scylla::statement::{Consistency, SerialConsistency};
use tower::{Layer, Service};

use super::{HealthMonitor, evidence::Evidence, outlook::Question};
use crate::{
    error::{Error, ErrorKind, HasErrorKind},
    request::{Kind, Request},
};

/// What a [`HealthLayer`] does with a request that cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Refuses it.
    #[default]
    Refuse,
    /// Lets it pass, and counts it.
    ReportOnly,
}

impl Mode {
    /// The mode as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::ReportOnly => "report_only",
        }
    }
}

/// Refuses at once what the nodes that are up cannot serve, in place of a wait for a timeout. The [module](super#the-layer) says when.
///
/// Made by [`HealthMonitor::layer`]. Services of it and of its clones are counted together.
#[derive(Clone)]
pub struct HealthLayer {
    monitor: HealthMonitor,
    mode: Mode,
    min_share: f64,
    trial_every: Duration,
    refused: Arc<Counter>,
}

const TRIAL_EVERY: Duration = Duration::from_secs(1);

impl HealthLayer {
    pub(super) fn new(monitor: HealthMonitor) -> Self {
        Self {
            monitor,
            mode: Mode::Refuse,
            min_share: 0.0,
            trial_every: TRIAL_EVERY,
            refused: counter(Mode::Refuse),
        }
    }

    /// What is done with a request that cannot be served.
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, refused: counter(mode), ..self }
    }

    /// Refuses also requests to a keyspace of which less than this share can be served, though the request may be about what can be.
    ///
    /// # Errors
    ///
    /// When it is not from 0 to 1.
    pub fn min_share(self, share: f64) -> Result<Self, ConfigError> {
        if !(0.0..=1.0).contains(&share) {
            let problem = format!("is {share}, which is no share: it must be from 0 to 1");
            return Err(ConfigError::new("min_share", problem));
        }
        Ok(Self { min_share: share, ..self })
    }

    /// How often a request passes all the same, to find out whether it can be served. Zero lets all pass.
    #[must_use]
    pub const fn trial_every(mut self, every: Duration) -> Self {
        self.trial_every = every;
        self
    }

    /// Counts a request that cannot be served, and tells whether it is refused for that.
    fn refuses(&self, error: &Error) -> bool {
        self.refused.increment(1);
        tracing::debug!(%error, mode = self.mode.as_str(), "a request cannot be served");
        self.mode == Mode::Refuse
    }

    /// What is to become of a request while a node is down.
    #[cold]
    fn decide(&self, request: &Request) -> Decision {
        if !matches!(request.kind(), Kind::Read | Kind::Write | Kind::Transaction | Kind::Batch) {
            return Decision::Passes(None);
        }
        let shared = self.monitor.shared();
        let Some((keyspace, cassandra)) = request.keyspace().zip(shared.cassandra.upgrade()) else {
            return Decision::Passes(None);
        };
        let datacenter = request.datacenter().or(shared.datacenter.as_ref()).map(|name| &**name);
        let consistency = request.stated_consistency().unwrap_or_else(|| cassandra.consistency());
        // A conditional write is agreed on at one level, and then written at the other.
        let serial = (request.kind() == Kind::Transaction)
            .then(|| request.stated_serial_consistency().or_else(|| cassandra.serial_consistency()))
            .flatten()
            .map(|serial| match serial {
                SerialConsistency::Serial => Consistency::Serial,
                SerialConsistency::LocalSerial => Consistency::LocalSerial,
            });
        let now = shared.now();
        let question = |consistency| Question { keyspace, consistency, datacenter };
        let watch = Box::new(Watch {
            monitor: self.monitor.clone(),
            evidence: shared.outlook.evidence(question(consistency)),
            began: now,
            deadline: request.deadline(),
            has_ended: false,
        });
        for consistency in serial.into_iter().chain([consistency]) {
            let Some(judgement) = shared.outlook.judge(question(consistency)) else { continue };
            let Some(problem) = &judgement.problem else { continue };
            let is_refused = if judgement.share > 0.0 {
                judgement.share < self.min_share
            } else {
                // Whoever coordinates may see the nodes that are not seen from here.
                !watch.evidence.admits(now, self.trial_every)
            };
            if is_refused {
                return Decision::Refused(Error::unservable(problem), watch);
            }
        }
        Decision::Passes(Some(watch))
    }
}

/// What becomes of a request.
enum Decision {
    Passes(Option<Box<Watch>>),
    Refused(Error, Box<Watch>),
}

/// What the outcome of a request tells, and when that began.
struct Watch {
    monitor: HealthMonitor,
    evidence: Arc<Evidence>,
    began: u64,
    deadline: Option<Instant>,
    has_ended: bool,
}

impl Watch {
    fn end<T>(mut self, outcome: &Result<T, impl HasErrorKind>) {
        self.has_ended = true;
        match outcome {
            Ok(_) => self.evidence.served(self.monitor.shared().now()),
            Err(error) if speaks_against(error.error_kind()) => self.failed(),
            Err(_) => {}
        }
    }

    fn failed(&self) {
        self.evidence.failed(self.began, self.monitor.shared().now());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Who gives up for other reasons than the deadline tells nothing.
        if !self.has_ended && self.deadline.is_some_and(|deadline| deadline.remaining().is_zero()) {
            self.failed();
        }
    }
}

/// Whether such an error is what becomes of a request that cannot be served.
const fn speaks_against(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unavailable
            | ErrorKind::Unreachable
            | ErrorKind::ConnectionFull
            | ErrorKind::ReadTimeout
            | ErrorKind::WriteTimeout
            | ErrorKind::Timeout(TimeoutScope::Attempt | TimeoutScope::Total)
    )
}

fn counter(mode: Mode) -> Arc<Counter> {
    Arc::new(Counter::new("cassandra_health_refused_total", "health", &[("mode", mode.as_str())]))
}

impl fmt::Debug for HealthLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthLayer")
            .field("mode", &self.mode)
            .field("min_share", &self.min_share)
            .field("trial_every", &self.trial_every)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for HealthLayer {
    type Service = HealthService<S>;

    fn layer(&self, inner: S) -> HealthService<S> {
        HealthService { inner, layer: self.clone() }
    }
}

/// A service that is only asked for what can be served. See [`HealthLayer`].
#[derive(Clone, Debug)]
pub struct HealthService<S> {
    inner: S,
    layer: HealthLayer,
}

impl<S> Service<Request> for HealthService<S>
where
    S: Service<Request> + Clone,
    S::Error: From<Error> + HasErrorKind,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = HealthFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request) -> Self::Future {
        if self.layer.monitor.shared().outlook.is_clear() {
            return HealthFuture::passes(self.inner.call(request), None);
        }
        match self.layer.decide(&request) {
            Decision::Refused(error, _) if self.layer.refuses(&error) => {
                // What it holds for this call is for others: who was refused may not call again for long.
                self.inner = self.inner.clone();
                HealthFuture { inner: None, refusal: Some(error), watch: None }
            }
            Decision::Refused(_, watch) | Decision::Passes(Some(watch)) => {
                HealthFuture::passes(self.inner.call(request), Some(watch))
            }
            Decision::Passes(None) => HealthFuture::passes(self.inner.call(request), None),
        }
    }
}

pin_project! {
    /// The future of a [`HealthService`].
    pub struct HealthFuture<F> {
        #[pin]
        inner: Option<F>,
        refusal: Option<Error>,
        watch: Option<Box<Watch>>,
    }
}

impl<F> HealthFuture<F> {
    #[inline]
    const fn passes(inner: F, watch: Option<Box<Watch>>) -> Self {
        Self { inner: Some(inner), refusal: None, watch }
    }
}

impl<F, Res, Err> Future for HealthFuture<F>
where
    F: Future<Output = Result<Res, Err>>,
    Err: From<Error> + HasErrorKind,
{
    type Output = Result<Res, Err>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match (this.inner.as_pin_mut(), this.refusal.take()) {
            (_, Some(error)) => Poll::Ready(Err(error.into())),
            (Some(inner), None) => {
                let outcome = ready!(inner.poll(cx));
                if let Some(watch) = this.watch.take() {
                    (*watch).end(&outcome);
                }
                Poll::Ready(outcome)
            }
            // Polled after its end.
            (None, None) => Poll::Pending,
        }
    }
}

impl<F> fmt::Debug for HealthFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthFuture").field("refused", &self.inner.is_none()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use tower::{BoxError, service_fn};

    use super::*;
    use crate::ErrorKind;

    #[test]
    fn while_no_node_is_down_a_request_passes_without_an_allocation() {
        let layer = HealthMonitor::detached().layer();
        let mut service = layer.layer(service_fn(|_: Request| ready(Ok::<_, Error>(()))));
        let mut requests = vec![Request::text("SELECT a FROM k.t WHERE b = 1"); 100];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let allocated = allocation_counter::measure(|| {
            while let Some(request) = requests.pop() {
                assert!(service.poll_ready(&mut cx).is_ready());
                let mut call = std::pin::pin!(service.call(request));
                assert!(call.as_mut().poll(&mut cx).is_ready());
            }
        });
        assert_eq!(allocated.count_total, 0);
    }

    #[test]
    fn a_refusal_is_the_same_in_a_box() {
        let refused = || Error::unservable("keyspace k cannot be served at ONE");
        assert_eq!(refused().kind(), ErrorKind::Unavailable);
        assert!(!refused().may_have_been_applied());
        let boxed: BoxError = refused().into();
        let unboxed = Error::from(boxed);
        assert_eq!((unboxed.kind(), unboxed.to_string()), (refused().kind(), refused().to_string()));
    }

    #[test]
    fn a_share_that_is_none_is_refused_with_what_to_do() {
        for share in [-0.1, 1.1, f64::NAN] {
            let error = HealthMonitor::detached().layer().min_share(share).unwrap_err();
            assert_eq!(error.setting(), "min_share");
        }
    }
}
