//! The callers: they come when they come, however the server is doing.

use std::sync::{Arc, Mutex, PoisonError};

use palisade::{Classified, Priority};
use tokio::time::sleep_until;
use tower::{Service, ServiceExt, util::BoxCloneService};

use crate::{
    call::{Call, Error, PATIENCE},
    clock::Clock,
    report::Bin,
    speed::{Nanos, nanos, seconds},
};

/// What a client sends its calls through.
pub type Stack = BoxCloneService<Call, (), Error>;

/// An open loop: calls by a Poisson process.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Calls per second, by the time in seconds, as a share of `capacity`.
    pub rate: fn(f64) -> f64,
    /// What the servers can do per second.
    pub capacity: f64,
    /// The share of the calls that read key 0, by the time in seconds.
    pub hot: fn(f64) -> f64,
    /// For how many seconds.
    pub seconds: f64,
}

/// Where the outcomes of calls are written down.
#[derive(Clone, Debug)]
pub struct Record {
    length: Nanos,
    bins: Arc<Mutex<Vec<Bin>>>,
}

impl Record {
    /// A record of so many bins, each of so many seconds.
    pub fn new(bins: usize, length: f64) -> Self {
        Self { length: nanos(length), bins: Arc::new(Mutex::new(vec![Bin::default(); bins])) }
    }

    /// Writes into the bin of a time.
    pub fn at(&self, time: Nanos, write: impl FnOnce(&mut Bin)) {
        let mut bins = self.bins.lock().unwrap_or_else(PoisonError::into_inner);
        let last = bins.len() - 1;
        let index = usize::try_from(time / self.length).unwrap_or(last).min(last);
        write(&mut bins[index]);
    }

    /// What was written so far.
    pub fn bins(&self) -> Vec<Bin> {
        self.bins.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How many different keys are read besides the hot one.
const KEYS: u32 = 100_000;

/// Makes calls, each through one of the stacks at random.
pub async fn run(load: Load, stacks: Vec<Stack>, record: Record, clock: Clock, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut due = 0.0;
    loop {
        let rate = ((load.rate)(due) * load.capacity).max(1.0);
        due += -(1.0 - random.f64()).ln() / rate;
        if due >= load.seconds {
            return;
        }
        let at = nanos(due);
        if at > clock.nanos() {
            sleep_until(clock.at(at)).await;
        }
        let key = if random.f64() < (load.hot)(due) { 0 } else { random.u32(1..=KEYS) };
        let call = Call::new(key, priority(random.f64()));
        let stack = stacks[random.usize(0..stacks.len())].clone();
        tokio::spawn(make(call, stack, record.clone(), clock, at));
    }
}

/// A tenth is critical and six tenths are normal, as they say it is.
fn priority(random: f64) -> Priority {
    match random {
        ..0.1 => Priority::Background,
        0.1..0.3 => Priority::Low,
        0.3..0.9 => Priority::Normal,
        _ => Priority::Critical,
    }
}

async fn make(call: Call, mut stack: Stack, record: Record, clock: Clock, due: Nanos) {
    let index = call.priority as usize;
    record.at(due, |bin| bin.offered[index] += 1);
    let outcome = match stack.ready().await {
        Ok(stack) => stack.call(call).await,
        Err(error) => Err(error),
    };
    let took = clock.nanos().saturating_sub(due);
    let in_time = seconds(took) <= PATIENCE.as_secs_f64();
    record.at(due, |bin| match outcome {
        Ok(()) if in_time => {
            bin.good[index] += 1;
            bin.latencies.add(took);
        }
        Err(error) if error.class().is_refused_here() => bin.refused[index] += 1,
        _ => {}
    });
}
