mod bench;
mod scenarios;

use std::{fmt, panic::catch_unwind, sync::Arc, time::Duration};

use tower::{BoxError, Service};

use super::{Gated, Leaf, Request, idempotent, run_paused};

/// The service that a [`Contract`] puts below the layer.
pub type Inner<Req = Request, Res = u32> = Gated<Leaf<Req, Res>>;

/// Checks that a layer keeps what tower asks of every service, and this crate of every layer: each [`Clause`].
///
/// It builds the layer's service anew for each of its scenarios, over an inner service that keeps account of
/// everything, and runs them on a paused clock: a wait of hours takes no time.
///
/// ```
/// use palisade::{RetryLayer, testkit::Contract};
/// use tower::Layer;
///
/// Contract::new(|inner| RetryLayer::default().layer(inner)).check();
/// ```
///
/// - Make the layer inside the closure, so that what one scenario did to it does not count in the next. Layers that need
///   a runtime have one there.
/// - Give it limits that let a handful of calls through, and none above 16 concurrent ones: only then does a permit that
///   is lost in each of 32 dropped calls show.
/// - A layer that takes requests of another type has them made for it: see [`Contract::over`].
/// - A layer that differs in a point on purpose says so: see [`skip`](Self::skip).
///
/// What the compiler can check, it does: the service has to be `Clone + Send + Sync + 'static`, its future
/// `Send + 'static`.
pub struct Contract<F, S, Req = Request, Res = u32>
where
    S: Service<Req>,
{
    build: F,
    request: Box<dyn Fn(u32) -> Req>,
    answer: Arc<dyn Fn(Req) -> Res + Send + Sync>,
    is_answer: Box<IsAnswer<S::Response>>,
    rest: Duration,
    skipped: Vec<Clause>,
}

/// Whether it is the answer to the request of that number.
type IsAnswer<Res> = dyn Fn(u32, &Res) -> bool;

impl<F, S> Contract<F, S>
where
    F: Fn(Inner) -> S,
    S: Service<Request, Response = u32>,
{
    /// The contract of what `build` makes, with numbers for requests and answers.
    pub fn new(build: F) -> Self {
        Self::over(build, idempotent, |request| *request, |number, answer| number == *answer)
    }
}

impl<F, S, Req, Res> Contract<F, S, Req, Res>
where
    F: Fn(Inner<Req, Res>) -> S,
    S: Service<Req>,
    Req: 'static,
    Res: 'static,
{
    /// The contract over requests and answers of any type.
    ///
    /// `request` makes the request of a number, `answer` is what the inner service answers to it, and `is_answer` tells
    /// whether what came out of the layer is the answer to the request of that number.
    ///
    /// ```
    /// use palisade::{box_errors, testkit::Contract};
    /// use tower::Layer;
    ///
    /// Contract::over(
    ///     |inner| box_errors().layer(inner),
    ///     |number| number.to_string(),
    ///     |request: String| request.into_bytes(),
    ///     |number, answer| *answer == number.to_string().into_bytes(),
    /// )
    /// .check();
    /// ```
    pub fn over(
        build: F,
        request: impl Fn(u32) -> Req + 'static,
        answer: impl Fn(Req) -> Res + Send + Sync + 'static,
        is_answer: impl Fn(u32, &S::Response) -> bool + 'static,
    ) -> Self {
        Self {
            build,
            request: Box::new(request),
            answer: Arc::new(answer),
            is_answer: Box::new(is_answer),
            rest: Duration::from_secs(60),
            skipped: Vec::new(),
        }
    }

    /// How long the layer may need to recover from failures, refusals and dropped calls: it gets this time ten times
    /// before and after four good calls. Default 60 s.
    pub fn rest(mut self, rest: Duration) -> Self {
        self.rest = rest;
        self
    }

    /// Leaves a clause out, for the reason `why`: a layer that answers errors does not pass them through, for example.
    ///
    /// # Panics
    ///
    /// If `why` is empty: the next reader wants to know.
    pub fn skip(mut self, clause: Clause, why: &str) -> Self {
        assert!(!why.is_empty(), "say why the layer need not keep {clause:?}");
        self.skipped.push(clause);
        self
    }
}

impl<F, S, Req, Res> Contract<F, S, Req, Res>
where
    F: Fn(Inner<Req, Res>) -> S,
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    Req: Send + 'static,
    Res: Send + 'static,
{
    /// Checks all clauses. Call it in a plain `#[test]`: it brings a runtime of its own.
    ///
    /// # Panics
    ///
    /// If the layer breaks a clause. The message says which, how, and what to do about it.
    pub fn check(&self) {
        let broken: Vec<_> = self.violations().iter().map(ToString::to_string).collect();
        assert!(broken.is_empty(), "the layer breaks its contract:\n- {}\n", broken.join("\n- "));
    }

    /// What the layer breaks, one violation a clause.
    pub fn violations(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut note = |violation: Violation| {
            let known = violations.iter().any(|known: &Violation| known.clause == violation.clause);
            if !known && !self.skipped.contains(&violation.clause) {
                violations.push(violation);
            }
        };
        for clause in Clause::ALL.into_iter().filter(|clause| !self.skipped.contains(clause)) {
            // A layer may panic where nobody told it to; that breaks the clause that was being checked.
            let checked = catch_unwind(std::panic::AssertUnwindSafe(|| run_paused(self.scenario(clause))));
            match checked {
                Ok(Ok(())) => {}
                Ok(Err(violation)) => note(violation),
                Err(panic) => {
                    let text = bench::panic_text(&*panic);
                    note(Violation::new(clause, format!("it panicked: {text}")));
                }
            }
        }
        violations
    }

    async fn scenario(&self, clause: Clause) -> Result<(), Violation> {
        match clause {
            Clause::ReadyBeforeCall => self.is_polled_ready_before_each_call().await,
            Clause::ReadinessGivenBack => self.gives_back_what_a_readied_service_took().await,
            Clause::DroppedCalls => self.leaves_nothing_behind_when_dropped().await,
            Clause::Answers => self.passes_answers_through().await,
            Clause::Errors => self.passes_errors_through().await,
            Clause::BrokenInner => self.tells_that_the_inner_service_is_broken().await,
            Clause::NoRefusalInPollReady => self.refuses_in_calls_only().await,
            Clause::Wakes | Clause::NoSpinning => self.is_woken(clause).await,
            Clause::Panics => self.survives_a_panic().await,
        }
    }
}

impl<F, S, Req, Res> fmt::Debug for Contract<F, S, Req, Res>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contract")
            .field("rest", &self.rest)
            .field("skipped", &self.skipped)
            .finish_non_exhaustive()
    }
}

/// One thing that every layer keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clause {
    /// The inner service is polled ready before each call, and a clone of it starts afresh.
    ReadyBeforeCall,
    /// A service that is polled ready and then dropped gives back what it took.
    ReadinessGivenBack,
    /// A call that is dropped, at whatever point, leaves nothing behind: no call in flight, no permit taken.
    DroppedCalls,
    /// The inner service's answers pass through unchanged.
    Answers,
    /// The inner service's errors pass through unchanged, or as a source of the layer's error.
    Errors,
    /// When the inner service fails to become ready, the caller gets its error: from `poll_ready`, or from the call.
    BrokenInner,
    /// `poll_ready` never fails with a refusal, and after refusals the service serves again.
    NoRefusalInPollReady,
    /// Whoever waits is woken when the wait is over, by the latest waker that it was polled with.
    Wakes,
    /// Whoever waits is not polled again and again meanwhile.
    NoSpinning,
    /// After a panic of an inner call the service and its clones serve on, with nothing taken.
    Panics,
}

impl Clause {
    const ALL: [Self; 10] = [
        Self::ReadyBeforeCall,
        Self::ReadinessGivenBack,
        Self::DroppedCalls,
        Self::Answers,
        Self::Errors,
        Self::BrokenInner,
        Self::NoRefusalInPollReady,
        Self::Wakes,
        Self::NoSpinning,
        Self::Panics,
    ];

    /// What to do about a layer that breaks it.
    const fn advice(self) -> &'static str {
        match self {
            Self::ReadyBeforeCall => {
                "Call the very service that was polled ready: \
                 `let clone = self.inner.clone(); let mut ready = std::mem::replace(&mut self.inner, clone);`. \
                 Poll any other clone ready before you call it, for a second attempt too."
            }
            Self::ReadinessGivenBack => {
                "Keep what `poll_ready` took in the service itself, in a guard that gives it back when it is dropped, \
                 and do not clone the guard."
            }
            Self::DroppedCalls => {
                "Keep what a call holds (permit, place in a queue, inner future) in its future, in a guard that gives \
                 it back when it is dropped; give nothing back by code after an `.await` only, and leave nothing to a \
                 spawned task."
            }
            Self::Answers => "Return the inner service's answer as it is.",
            Self::Errors => "Return the inner service's error as it is, or as the `source()` of your own.",
            Self::BrokenInner => {
                "Return the inner service's error from `poll_ready`, or from the call if you ready it there; \
                 do not `unwrap` it, and do not wait on."
            }
            Self::NoRefusalInPollReady => {
                "Refuse in the call's future: after an error from `poll_ready` tower takes the service for dead. \
                 Return `Poll::Ready(Ok(()))` and let `call` return a future that is refused already. And let it \
                 serve again when the reason has gone."
            }
            Self::Wakes => {
                "Each poll that returns `Pending` has to leave the waker of its own context with whatever will go on, \
                 not that of an earlier poll; poll the inner service or future with `cx`, and do not drop the clone \
                 that waits."
            }
            Self::NoSpinning => {
                "Do not wake yourself in order to look again: return `Pending` and let the inner service, the \
                 semaphore or the timer wake the task."
            }
            Self::Panics => {
                "Give back what a call holds in `Drop`, which runs on a panic too, and go on with a poisoned `Mutex`: \
                 `lock().unwrap_or_else(PoisonError::into_inner)`."
            }
        }
    }
}

/// A clause that a layer breaks. Its text says what was seen, and what to do about it.
#[derive(Clone, Debug)]
pub struct Violation {
    clause: Clause,
    found: String,
}

impl Violation {
    fn new(clause: Clause, found: impl Into<String>) -> Self {
        Self { clause, found: found.into() }
    }

    /// The clause that is broken.
    pub const fn clause(&self) -> Clause {
        self.clause
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}. {}", self.clause, self.found, self.clause.advice())
    }
}
