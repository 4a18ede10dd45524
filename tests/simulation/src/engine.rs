//! The model of a server: workers, a queue, and what they do when there is too much.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    fmt,
};

use crate::{
    call::Error,
    speed::{Nanos, Speed, nanos},
};

/// What a server does with the requests that arrive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Answers.
    Serving,
    /// Takes them and never answers.
    Hanging,
    /// Works on them and fails.
    Failing,
    /// Says at once that it is overloaded.
    Refusing,
    /// Does not listen.
    Unreachable,
}

/// What a server is like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many requests it works on at once.
    pub workers: u32,
    /// How long a request takes a worker, in seconds, on average.
    pub service: f64,
    /// How far that is spread: the sigma of a lognormal distribution.
    pub spread: f64,
    /// The most that wait for a worker. Beyond that it refuses.
    pub queue: usize,
    /// What it costs a worker to refuse a request, as a share of what it costs to serve one: nobody refuses for nothing.
    pub refusal: f64,
    /// How fast the workers are over time.
    pub speed: Speed,
    /// What it does from when on, in seconds, in ascending order.
    pub modes: Vec<(f64, Mode)>,
    /// Whether requests for the same key are served one after the other, each with a worker that waits.
    pub serial_keys: bool,
    /// Whether a worker leaves out a request whose deadline has passed, where the request tells it.
    pub skips_expired: bool,
}

impl Settings {
    /// A sound server of so many workers.
    ///
    /// Its queue holds two seconds of work. That is short: thread pools and listen queues are often unbounded, and are
    /// bounded by memory at best.
    pub fn of(workers: u32) -> Self {
        let service = 0.02;
        Self {
            workers,
            service,
            spread: 0.5,
            queue: workers as usize * 100,
            refusal: 0.05,
            speed: Speed::default(),
            modes: vec![(0.0, Mode::Serving)],
            serial_keys: false,
            skips_expired: false,
        }
    }

    /// The most that it can answer per second at normal speed.
    pub fn capacity(&self) -> f64 {
        f64::from(self.workers) / self.service
    }
}

/// A request in the server: `R` is what is needed to answer it.
#[derive(Debug)]
pub struct Job<R> {
    /// What is asked for.
    pub key: u32,
    /// When the answer is of no use any more.
    pub deadline: Option<Nanos>,
    /// To whom the answer goes.
    pub reply: R,
}

struct Running<R> {
    outcome: Result<(), Error>,
    reply: R,
}

/// The server's state. It is told the time.
pub struct Engine<R> {
    settings: Settings,
    random: fastrand::Rng,
    waiting: VecDeque<Job<R>>,
    // What ends when, and in which slot it is.
    ends: BinaryHeap<Reverse<(Nanos, usize)>>,
    slots: Vec<Option<Running<R>>>,
    free: Vec<usize>,
    // What will never be answered.
    hanging: Vec<R>,
    // Until when keys are busy.
    keys: HashMap<u32, Nanos>,
    // Work on refusals that no worker has done yet.
    debt: Nanos,
    arrived: u64,
}

impl<R> fmt::Debug for Engine<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("arrived", &self.arrived)
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl<R> Engine<R> {
    /// A server with nothing to do.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let workers = settings.workers as usize;
        Self {
            settings,
            random: fastrand::Rng::with_seed(seed),
            waiting: VecDeque::new(),
            ends: BinaryHeap::new(),
            slots: (0..workers).map(|_| None).collect(),
            free: (0..workers).rev().collect(),
            hanging: Vec::new(),
            keys: HashMap::new(),
            debt: 0,
            arrived: 0,
        }
    }

    /// Takes a request in. Gives back the reply of one that it answers at once, with what it answers.
    pub fn arrive(&mut self, now: Nanos, job: Job<R>, answer: &mut impl FnMut(R, Result<(), Error>)) {
        self.run_until(now, answer);
        self.arrived += 1;
        match self.mode(now) {
            Mode::Unreachable => answer(job.reply, Err(Error::Unreachable)),
            Mode::Refusing => answer(job.reply, Err(Error::Overloaded)),
            Mode::Hanging => self.hanging.push(job.reply),
            Mode::Serving | Mode::Failing => {
                if self.free.is_empty() && self.waiting.len() >= self.settings.queue {
                    self.charge_refusal();
                    answer(job.reply, Err(Error::Overloaded));
                } else {
                    self.waiting.push_back(job);
                    self.start(now);
                }
            }
        }
    }

    /// Does everything that is to be done until now.
    pub fn run_until(&mut self, now: Nanos, answer: &mut impl FnMut(R, Result<(), Error>)) {
        while let Some(&Reverse((end, slot))) = self.ends.peek() {
            if end > now {
                break;
            }
            self.ends.pop();
            self.free.push(slot);
            if let Some(done) = self.slots[slot].take() {
                answer(done.reply, done.outcome);
            }
            // At the moment that the worker was free, which lies before now.
            self.start(end);
        }
    }

    /// When the next answer will be there.
    pub fn next_end(&self) -> Option<Nanos> {
        self.ends.peek().map(|next| next.0.0)
    }

    /// Lets the workers pay for a refusal that somebody in front of them made on the same machine.
    pub fn charge_refusal(&mut self) {
        self.debt += nanos(self.settings.service * self.settings.refusal);
    }

    /// Requests that wait for a worker.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests that have arrived so far.
    pub fn arrived(&self) -> u64 {
        self.arrived
    }

    fn start(&mut self, now: Nanos) {
        while let Some(slot) = self.free.pop() {
            let Some(job) = self.next_job(now) else {
                self.free.push(slot);
                return;
            };
            let mut begin = now;
            if self.settings.serial_keys {
                begin = begin.max(self.keys.get(&job.key).copied().unwrap_or(0));
            }
            let work = self.work() + std::mem::take(&mut self.debt);
            let end = self.settings.speed.done(begin, work);
            if self.settings.serial_keys {
                self.keys.insert(job.key, end);
            }
            let outcome = if self.mode(now) == Mode::Failing { Err(Error::Failed) } else { Ok(()) };
            self.slots[slot] = Some(Running { outcome, reply: job.reply });
            self.ends.push(Reverse((end, slot)));
        }
    }

    fn next_job(&mut self, now: Nanos) -> Option<Job<R>> {
        loop {
            let job = self.waiting.pop_front()?;
            if !(self.settings.skips_expired && job.deadline.is_some_and(|deadline| deadline <= now)) {
                return Some(job);
            }
            self.charge_refusal();
        }
    }

    fn mode(&self, now: Nanos) -> Mode {
        let modes = &self.settings.modes;
        modes.iter().rev().find(|(from, _)| nanos(*from) <= now).map_or(Mode::Serving, |(_, mode)| *mode)
    }

    /// How long the next request takes: lognormal about the mean, by Box and Muller.
    fn work(&mut self) -> Nanos {
        let (u, v) = (1.0 - self.random.f64(), self.random.f64());
        let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        let sigma = self.settings.spread;
        nanos(self.settings.service * (sigma * normal - sigma * sigma / 2.0).exp())
    }
}
