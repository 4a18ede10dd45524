//! The open loop: requests at due times, whatever becomes of those before them.

use std::{
    net::SocketAddr,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use crate::{
    clients::{Operation, Target},
    faults::Clock,
    report::Run,
};

/// Longer than the longest limit of any client here.
const LOST_AFTER: Duration = Duration::from_secs(45);

/// What is asked, and how often.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) per_second: u32,
    pub(crate) operation: fn(u32) -> Operation,
}

/// One request, and what became of it.
pub(crate) struct Sample {
    /// When it was due, from the beginning of the run.
    pub(crate) due: Duration,
    /// How long it took from then on.
    pub(crate) took: Duration,
    /// How often a node was asked on its behalf.
    pub(crate) attempts: usize,
    /// The node that answered, or what went wrong.
    pub(crate) outcome: Result<SocketAddr, Failure>,
}

/// What the caller was told.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) text: String,
    pub(crate) may_have_been_applied: bool,
    /// Whether an attempt was sent and given up: the node may have done it.
    pub(crate) was_given_up: bool,
    /// The nodes that the error names.
    pub(crate) nodes: Vec<SocketAddr>,
}

impl Sample {
    /// The nodes that are known to have been asked.
    pub(crate) fn nodes(&self) -> &[SocketAddr] {
        self.outcome.as_ref().map_or_else(|failure| failure.nodes.as_slice(), std::slice::from_ref)
    }
}

impl Failure {
    /// Whether the caller is not told what may have happened.
    pub(crate) fn is_silent(&self) -> bool {
        self.was_given_up && !self.may_have_been_applied
    }
}

impl Load {
    /// Sends requests to the target until the faults are over, waits for their answers, and returns what the faults return.
    pub(crate) fn offer<T>(
        self,
        runtime: &Handle,
        target: &Target,
        faults: impl FnOnce(&Clock) -> T,
    ) -> (Run, T) {
        let clock = Clock::start();
        let (tell, told) = mpsc::channel();
        let is_over = AtomicBool::new(false);
        let (lateness, faults) = thread::scope(|scope| {
            let generator = scope.spawn(|| self.generate(runtime, target, &clock, &tell, &is_over));
            let faults = faults(&clock);
            is_over.store(true, Ordering::Relaxed);
            (generator.join().expect("no panic"), faults)
        });
        drop(tell);
        let mut samples = Vec::with_capacity(lateness.len());
        while let Ok(sample) = told.recv_timeout(LOST_AFTER) {
            samples.push(sample);
        }
        samples.sort_unstable_by_key(|sample: &Sample| sample.due);
        (Run::new(samples, lateness), faults)
    }

    /// Returns how late each request was sent.
    fn generate(
        self,
        runtime: &Handle,
        target: &Target,
        clock: &Clock,
        tell: &mpsc::Sender<Sample>,
        is_over: &AtomicBool,
    ) -> Vec<Duration> {
        let interval = Duration::from_secs(1) / self.per_second;
        let mut lateness = Vec::new();
        for number in 0.. {
            let due = interval * number;
            clock.sleep_until(due);
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            let moment = clock.moment(due);
            let (target, tell, operation) = (target.clone(), tell.clone(), (self.operation)(number));
            runtime.spawn(async move {
                let answer = target.call(operation).await;
                // Nobody listens any more to what took far too long.
                let _ = tell.send(Sample {
                    due,
                    took: Instant::now().saturating_duration_since(moment),
                    attempts: answer.attempts,
                    outcome: answer.outcome,
                });
            });
            lateness.push(Instant::now().saturating_duration_since(moment));
        }
        lateness
    }
}
