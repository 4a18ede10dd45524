//! A scenario for each clause.

use std::time::Duration;

use tokio::time::advance;
use tower::{BoxError, Service};

use super::{
    Clause, Contract, Inner, Violation,
    bench::{Bench, Stuck, Watched, both, finish, ready, watch},
};
use crate::{
    Rejection,
    rejection::chain,
    testkit::{AMBIGUOUS, CALLER, Error, Gate, NOT_APPLIED, Step, Wakes, poll_once, settle},
};

const SHORT: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_secs(3_600);
/// Places of the inner service, where they are limited.
const PLACES: usize = 16;
/// How often a call is dropped at the same point: twice as often as anything can be taken.
const DROPS: u32 = 32;

type Checked = Result<(), Violation>;

impl<F, S, Req, Res> Contract<F, S, Req, Res>
where
    F: Fn(Inner<Req, Res>) -> S,
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    Req: Send + 'static,
    Res: Send + 'static,
{
    pub(super) async fn is_polled_ready_before_each_call(&self) -> Checked {
        let script = [Step::Fail(AMBIGUOUS), Step::PendingOnce, Step::AnswerAfter(SHORT), Step::Hang];
        for step in 0..script.len() {
            let gate = Gate::open();
            let bench = self.bench(&gate, &script[step..]);
            call_in_every_way(&bench).await;
            // The inner service is not ready when the call comes.
            gate.set(false);
            let waiting = bench.call(1);
            let opened = async {
                tokio::time::sleep(SHORT).await;
                gate.set(true);
            };
            let _ = finish(both(waiting, opened), LONG).await;

            // There is one place, and two want it.
            let one = self.bench(&Gate::with_places(1), &script[step..]);
            let _ = finish(both(one.call(1), one.call(2)), LONG).await;

            let unready = gate.calls_unready() + one.gate.calls_unready();
            if unready > 0 {
                return Err(Violation::new(
                    Clause::ReadyBeforeCall,
                    format!("the inner service was called {unready} times without having been polled ready"),
                ));
            }
        }
        Ok(())
    }

    pub(super) async fn gives_back_what_a_readied_service_took(&self) -> Checked {
        let bench = self.bench(&Gate::with_places(PLACES), &[]);
        let broken = |found: String| Violation::new(Clause::ReadinessGivenBack, found);
        let concurrency = self.at_first().await;
        for dropped in 0..1_000 {
            let mut readied = bench.service.clone();
            match finish(ready(&mut readied), LONG).await {
                Ok(_) => {}
                Err(Stuck::Panicked(text)) => return Err(broken(format!("`poll_ready` panicked: {text}"))),
                Err(_) => {
                    return Err(broken(format!(
                        "after {dropped} readied services had been dropped, none became ready any more"
                    )));
                }
            }
        }
        settle().await;
        self.is_as_before(&bench, Clause::ReadinessGivenBack, concurrency, "1,000 dropped readied services")
            .await
    }

    pub(super) async fn leaves_nothing_behind_when_dropped(&self) -> Checked {
        let scripts: [&[Step]; 5] = [
            &[Step::AnswerAfter(SHORT * 3)],
            &[Step::PendingOnce],
            &[Step::Fail(AMBIGUOUS), Step::AnswerAfter(SHORT * 2)],
            &[Step::Fail(NOT_APPLIED), Step::Fail(AMBIGUOUS), Step::Hang],
            &[Step::Hang],
        ];
        for script in scripts {
            for (open, polls) in
                [true, false].into_iter().flat_map(|open| (0..8).map(move |polls| (open, polls)))
            {
                self.can_be_dropped(script, open, polls).await?;
            }
        }
        Ok(())
    }

    /// Drops calls after so many polls. A gate that is not open yet opens after the second.
    async fn can_be_dropped(&self, script: &[Step], open: bool, polls: u32) -> Checked {
        let gate = Gate::with_places(PLACES);
        let bench = self.bench(&gate, script);
        let concurrency = self.at_first().await;
        for number in 0..DROPS {
            bench.leaf.follow(script.to_vec());
            gate.set(open);
            {
                let mut call = bench.call(number);
                for poll in 0..polls {
                    if poll == 2 {
                        gate.set(true);
                    }
                    if poll_once(call.as_mut()).is_ready() {
                        break;
                    }
                    settle().await;
                    advance(SHORT).await;
                }
            }
            settle().await;
            let (in_flight, taken) = (bench.leaf.in_flight(), gate.taken());
            if in_flight + taken > 0 {
                return Err(Violation::new(
                    Clause::DroppedCalls,
                    format!(
                        "a call was dropped after {polls} polls, and left {in_flight} inner calls in flight and \
                         {taken} places of the inner service taken (the inner service was to do {script:?})"
                    ),
                ));
            }
        }
        gate.set(true);
        let what = format!("{DROPS} calls that were dropped after {polls} polls");
        self.is_as_before(&bench, Clause::DroppedCalls, concurrency, &what).await
    }

    /// How many calls get through at once in a service that is new.
    async fn at_first(&self) -> usize {
        self.bench(&Gate::with_places(PLACES), &[]).concurrency().await
    }

    async fn is_as_before(
        &self,
        bench: &Bench<'_, F, S, Req, Res>,
        clause: Clause,
        concurrency: usize,
        what: &str,
    ) -> Checked {
        bench.serves(concurrency).await.map_err(|left| {
            Violation::new(
                clause,
                format!("{concurrency} calls got through at once before, and only {left} after {what}"),
            )
        })
    }

    pub(super) async fn passes_answers_through(&self) -> Checked {
        let bench = self.bench(&Gate::open(), &[]);
        for number in 1..=20 {
            let found = match finish(bench.call(number), LONG).await {
                Ok(Ok(answer)) if (self.is_answer)(number, &answer) => continue,
                Ok(Ok(_)) => format!("the answer to request {number} is another than the inner service's"),
                Ok(Err(error)) => format!("an answer became the error `{error}`"),
                Err(stuck) => no_end("a call that the inner service answered", &stuck),
            };
            return Err(Violation::new(Clause::Answers, found));
        }
        Ok(())
    }

    pub(super) async fn passes_errors_through(&self) -> Checked {
        for class in [CALLER, AMBIGUOUS, NOT_APPLIED] {
            let bench = self.bench(&Gate::open(), &[Step::Fail(class)]);
            let outcome = finish(bench.call(1), LONG).await;
            let calls = u32::try_from(bench.leaf.call_count()).unwrap_or(u32::MAX);
            let fault = class.fault().as_str();
            let found = match outcome {
                Ok(Err(error)) => match find(&error) {
                    Some(Error::Failed(kept, call)) if *kept == class && (1..=calls).contains(call) => {
                        continue;
                    }
                    _ => format!("an error of fault `{fault}` became another one, `{error}`"),
                },
                Ok(Ok(_)) => format!("an error of fault `{fault}` became an answer"),
                Err(stuck) => no_end("a call that failed", &stuck),
            };
            return Err(Violation::new(Clause::Errors, found));
        }
        Ok(())
    }

    pub(super) async fn tells_that_the_inner_service_is_broken(&self) -> Checked {
        let bench = self.bench(&Gate::open(), &[]);
        bench.leaf.break_down();
        let found = match finish(bench.call(1), LONG).await {
            Ok(Err(error)) if matches!(find(&error), Some(Error::Broken)) => return Ok(()),
            Ok(Err(error)) => format!("the error of the inner `poll_ready` became another one, `{error}`"),
            Ok(Ok(_)) => "the inner service failed to become ready, and the call was answered".to_owned(),
            Err(stuck) => no_end("a call of a service that failed to become ready", &stuck),
        };
        Err(Violation::new(Clause::BrokenInner, found))
    }

    pub(super) async fn refuses_in_calls_only(&self) -> Checked {
        let broken = |found: String| Violation::new(Clause::NoRefusalInPollReady, found);
        let bench = self.bench(&Gate::with_places(PLACES), &[]);
        let mut service = bench.service.clone();
        for step in [Step::Fail(AMBIGUOUS), Step::Fail(NOT_APPLIED), Step::Hang] {
            bench.leaf.follow([step.clone()]);
            let mut held = Vec::new();
            for number in 0..64 {
                match finish(ready(&mut service), SHORT).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(broken(poll_ready_failed(&error))),
                    Err(Stuck::Panicked(text)) => {
                        return Err(broken(format!("`poll_ready` panicked: {text}")));
                    }
                    // Full: it may well say so by not being ready.
                    Err(_) => break,
                }
                let mut call = Box::pin(service.call(bench.request(number)));
                if finish(call.as_mut(), SHORT).await.is_err() {
                    held.push(call);
                }
            }
        }
        settle().await;
        bench.leaf.follow([]);
        let mut last = "it is never ready".to_owned();
        for _ in 0..10 {
            match finish(ready(&mut service), self.rest).await {
                Ok(Ok(())) => match finish(service.call(bench.request(1)), self.rest).await {
                    Ok(Ok(_)) => return Ok(()),
                    Ok(Err(error)) => last = error.into().to_string(),
                    Err(stuck) => last = no_end("a call", &stuck),
                },
                Ok(Err(error)) => return Err(broken(poll_ready_failed(&error))),
                Err(_) => {}
            }
            advance(self.rest).await;
        }
        Err(broken(format!("after failures and full load it served no more: {last}")))
    }

    /// `asked`: the same scenario serves two clauses, and one of them may have been left out.
    pub(super) async fn is_woken(&self, asked: Clause) -> Checked {
        let only =
            |violation: Violation| (violation.clause() == asked).then_some(violation).map_or(Ok(()), Err);

        let gate = Gate::default();
        let bench = self.bench(&gate, &[]);
        wait_and_go_on(&bench, "the inner service was not ready", || gate.set(true)).await.or_else(only)?;

        let answer = Gate::default();
        let bench = self.bench(&Gate::open(), &[Step::Hold(answer.clone())]);
        wait_and_go_on(&bench, "the inner call was under way", || answer.set(true)).await.or_else(only)?;

        // A call holds the one place that there is.
        let bench = self.bench(&Gate::with_places(1), &[Step::Hang, Step::Answer]);
        let mut first = bench.call(1);
        watch(&mut first, &Wakes::new()).await;
        if bench.leaf.in_flight() == 0 {
            return Ok(());
        }
        wait_and_go_on(&bench, "the inner service was taken", || drop(first)).await.or_else(only)
    }

    pub(super) async fn survives_a_panic(&self) -> Checked {
        let broken = |found: String| Violation::new(Clause::Panics, found);
        let bench = self.bench(&Gate::with_places(PLACES), &[]);
        let concurrency = self.at_first().await;
        bench.leaf.follow([Step::Panic]);
        for number in 0..DROPS {
            let _ = finish(bench.call(number), LONG).await;
        }
        settle().await;
        let (in_flight, taken) = (bench.leaf.in_flight(), bench.gate.taken());
        if in_flight + taken > 0 {
            return Err(broken(format!(
                "a panic of the inner call left {in_flight} inner calls in flight and {taken} places taken"
            )));
        }
        self.is_as_before(&bench, Clause::Panics, concurrency, &format!("{DROPS} panics of the inner call"))
            .await
    }
}

async fn call_in_every_way<F, S, Req, Res>(bench: &Bench<'_, F, S, Req, Res>)
where
    S: Service<Req> + Clone + 'static,
    S::Future: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    let mut service = bench.service.clone();
    let _ = finish(bench.call(1), LONG).await;
    // Twice by the same service.
    for number in 2..4 {
        let _ = finish(
            async {
                ready(&mut service).await?;
                service.call(bench.request(number)).await.map_err(Into::into)
            },
            LONG,
        )
        .await;
    }
    // By a clone of a service that has been polled ready, which starts afresh; then by that service itself.
    if !matches!(finish(ready(&mut service), LONG).await, Ok(Ok(()))) {
        return;
    }
    let mut clone = service.clone();
    if matches!(finish(ready(&mut clone), LONG).await, Ok(Ok(()))) {
        let _ = finish(clone.call(bench.request(4)), LONG).await;
    }
    let _ = finish(service.call(bench.request(5)), LONG).await;
}

/// Lets a call wait, looks how it waits, and has it go on.
async fn wait_and_go_on<F, S, Req, Res>(
    bench: &Bench<'_, F, S, Req, Res>,
    when: &str,
    go_on: impl FnOnce(),
) -> Checked
where
    S: Service<Req> + Clone + 'static,
    S::Future: 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
{
    let spins =
        || Violation::new(Clause::NoSpinning, format!("while {when}, a call woke itself at each poll"));
    let (stale, latest) = (Wakes::new(), Wakes::new());
    let mut call = bench.call(2);
    for wakes in [&stale, &latest] {
        match watch(&mut call, wakes).await {
            Watched::Waits => {}
            Watched::Spins => return Err(spins()),
            // It need not wait: it may have been refused.
            Watched::Ended(_) => return Ok(()),
        }
    }
    let before = latest.count();
    go_on();
    settle().await;
    let lost =
        |found: &str| Err(Violation::new(Clause::Wakes, format!("a call waited while {when}; {found}")));
    if latest.count() == before {
        return lost(if stale.count() > 0 {
            "when it could go on, the waker of an earlier poll was woken and not that of the latest"
        } else {
            "when it could go on, nobody woke it"
        });
    }
    match watch(&mut call, &latest).await {
        Watched::Ended(_) => Ok(()),
        Watched::Spins => Err(spins()),
        Watched::Waits => lost("it was woken when it could go on, and went on waiting"),
    }
}

fn find<'a>(error: &'a BoxError) -> Option<&'a Error> {
    chain(&**error).find_map(|error: &'a (dyn std::error::Error + 'static)| error.downcast_ref::<Error>())
}

fn no_end(what: &str, stuck: &Stuck) -> String {
    match stuck {
        Stuck::Waits => format!("{what} never ended"),
        Stuck::Spins => format!("{what} woke itself again and again, and did not end"),
        Stuck::Panicked(text) => format!("{what} panicked: {text}"),
    }
}

fn poll_ready_failed(error: &BoxError) -> String {
    match Rejection::find(&**error) {
        Some(rejection) => format!("`poll_ready` failed with a refusal: {rejection}"),
        None => format!("`poll_ready` failed, with an inner service that is not broken: {error}"),
    }
}
