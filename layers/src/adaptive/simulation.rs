//! The core before a simulated service: workers with one queue, seeded, and with the time of the events.
#![cfg(not(palisade_loom))]

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use super::{
    controller::Settings,
    state::{Closed, Core, Outcome},
};
use crate::clock::Instant;

const SETTINGS: Settings = Settings { initial: 20, min: 1, max: 1_000, tolerance: 1.5 };
const SECOND: u64 = 1_000_000_000;

/// How long calls take that wait for nothing, around their mean.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Fixed,
    Exponential,
    /// Log-normal of sigma 1: one in a hundred takes six times the mean.
    LongTailed,
}

/// Clients, each with a core and callers who wait in front of it, and the service that all of them call.
struct Simulation {
    clients: Vec<Client>,
    now: u64,
    start: Instant,
    random: fastrand::Rng,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    number: u64,
    // The service.
    workers: usize,
    mean: f64,
    shape: Shape,
    busy: usize,
    queue: VecDeque<(usize, u64)>,
    queue_limit: usize,
    fails: bool,
    // What was seen since the last reset.
    arrived: u64,
    answered: u64,
    refused: u64,
    latencies: f64,
    closed: Vec<Closed>,
}

struct Client {
    core: Core,
    rate: f64,
    waiting: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival { client: usize, calls: u64 },
    Answer { client: usize, began: u64 },
    Refusal { client: usize, began: u64 },
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers of a simulation"
)]
impl Simulation {
    /// `load` is the share of what the service can do.
    fn new(workers: usize, mean: f64, shape: Shape, load: f64, seed: u64) -> Self {
        Self::of_clients(1, SETTINGS, workers, mean, shape, load, seed)
    }

    fn of_clients(
        clients: usize,
        settings: Settings,
        workers: usize,
        mean: f64,
        shape: Shape,
        load: f64,
        seed: u64,
    ) -> Self {
        let start = Instant::now();
        let client = |number: usize| Client {
            core: Core::new(settings, seed + number as u64, start),
            rate: load * workers as f64 / mean / clients as f64,
            waiting: 0,
        };
        let mut simulation = Self {
            clients: (0..clients).map(client).collect(),
            now: 0,
            start,
            random: fastrand::Rng::with_seed(seed),
            events: BinaryHeap::new(),
            number: 0,
            workers,
            mean,
            shape,
            busy: 0,
            queue: VecDeque::new(),
            queue_limit: usize::MAX,
            fails: false,
            arrived: 0,
            answered: 0,
            refused: 0,
            latencies: 0.0,
            closed: Vec::new(),
        };
        (0..clients).for_each(|client| simulation.arrive_later(client));
        simulation
    }

    fn core(&self) -> &Core {
        &self.clients[0].core
    }

    fn limit(&self) -> u32 {
        self.core().figures().limit
    }

    /// The share of the calls that the service refused.
    fn refused(&self) -> f64 {
        self.refused as f64 / (self.refused + self.answered) as f64
    }

    /// The base latency beside the truth.
    fn base(&self) -> f64 {
        self.core().figures().base.unwrap() / self.mean
    }

    /// The share of what the service can do that was answered in so many seconds.
    fn utilisation(&self, seconds: f64) -> f64 {
        self.answered as f64 * self.mean / (self.workers as f64 * seconds)
    }

    /// The mean latency beside that of an idle service.
    fn latency(&self) -> f64 {
        self.latencies / self.answered as f64 / self.mean
    }

    fn at(&self, time: u64) -> Instant {
        self.start + Duration::from_nanos(time)
    }

    fn after(&mut self, seconds: f64, event: Event) {
        self.number += 1;
        let time = self.now + 1 + (seconds * SECOND as f64) as u64;
        self.events.push(Reverse((time, self.number, event)));
    }

    fn exponential(&mut self) -> f64 {
        -(1.0 - self.random.f64()).ln()
    }

    fn arrive_later(&mut self, client: usize) {
        let (rate, wait) = (self.clients[client].rate, self.exponential());
        // Many come together, or the arrivals would be most of the work.
        let calls = (rate / 2_000.0).ceil().max(1.0);
        self.after(wait * calls / rate, Event::Arrival { client, calls: calls as u64 });
    }

    fn work(&mut self, client: usize, began: u64) {
        let share = match self.shape {
            Shape::Fixed => 1.0,
            Shape::Exponential => self.exponential(),
            Shape::LongTailed => {
                let (one, other) = (self.exponential(), self.random.f64());
                ((2.0 * one).sqrt() * (other * std::f64::consts::TAU).cos() - 0.5).exp()
            }
        };
        self.busy += 1;
        self.after(share * self.mean, Event::Answer { client, began });
    }

    fn send(&mut self, client: usize) {
        while self.clients[client].waiting > 0 && self.clients[client].core.take() {
            self.clients[client].waiting -= 1;
            let began = self.now;
            if self.busy < self.workers {
                self.work(client, began);
            } else if self.queue.len() < self.queue_limit {
                self.queue.push_back((client, began));
            } else {
                self.after(0.000_1, Event::Refusal { client, began });
            }
        }
    }

    fn end(&mut self, client: usize, began: u64, outcome: Outcome) {
        let core = &self.clients[client].core;
        let closed = core.end(self.at(began), outcome, self.at(self.now));
        core.give_back();
        self.closed.extend(closed.filter(|_| client == 0));
    }

    /// Lets it go on, and counts anew.
    fn run(&mut self, seconds: f64) {
        (self.arrived, self.answered, self.refused, self.latencies) = (0, 0, 0, 0.0);
        self.closed.clear();
        let end = self.now + (seconds * SECOND as f64) as u64;
        while let Some(Reverse((time, _, event))) =
            self.events.peek().copied().filter(|event| event.0.0 <= end)
        {
            self.events.pop();
            self.now = time;
            let client = match event {
                Event::Arrival { client, calls } => {
                    self.arrived += calls;
                    let waiting = &mut self.clients[client].waiting;
                    *waiting = (*waiting + calls).min(1_000);
                    self.arrive_later(client);
                    client
                }
                Event::Answer { client, began } => {
                    self.busy -= 1;
                    if self.fails {
                        self.refused += 1;
                        self.end(client, began, Outcome::Dropped);
                    } else {
                        self.answered += 1;
                        self.latencies += (time - began) as f64 / SECOND as f64;
                        self.end(client, began, Outcome::Success);
                    }
                    if self.busy < self.workers
                        && let Some((next, began)) = self.queue.pop_front()
                    {
                        self.work(next, began);
                    }
                    client
                }
                Event::Refusal { client, began } => {
                    self.refused += 1;
                    self.end(client, began, Outcome::Dropped);
                    client
                }
            };
            self.send(client);
        }
        self.now = end;
    }
}

#[test]
fn a_service_that_is_offered_too_much_always_has_work_and_next_to_no_queue() {
    for shape in [Shape::Fixed, Shape::Exponential, Shape::LongTailed] {
        for (workers, mean, seconds) in [
            (2, 0.001, 20.0),
            (2, 0.02, 40.0),
            (10, 0.001, 12.0),
            (10, 0.02, 30.0),
            (100, 0.001, 3.0),
            (100, 0.02, 20.0),
        ] {
            for load in [2.0, 5.0] {
                let mut simulation = Simulation::new(workers, mean, shape, load, 7);
                simulation.run(if workers * 50 > 1_000 { 3.0 } else { 10.0 });
                simulation.run(seconds);
                let (utilisation, latency) = (simulation.utilisation(seconds), simulation.latency());
                let case = format!(
                    "{workers} workers of {mean} s {shape:?} at {load}: {utilisation:.3}, {latency:.2}"
                );
                assert!(utilisation >= 0.9 && latency <= 2.5, "{case}");
            }
        }
    }
}

#[test]
fn what_the_service_can_do_is_not_held_back() {
    for (workers, mean) in [(2, 0.02), (10, 0.001), (10, 0.02), (100, 0.02)] {
        let mut simulation = Simulation::new(workers, mean, Shape::Exponential, 0.7, 3);
        simulation.run(10.0);
        simulation.run(20.0);
        let (arrived, answered) = (simulation.arrived, simulation.answered);
        assert!(answered.abs_diff(arrived) <= 60, "{workers} workers of {mean} s: {answered} of {arrived}");
    }
}

#[test]
fn the_limit_follows_the_load_up_and_down() {
    let mut simulation = Simulation::new(50, 0.01, Shape::Exponential, 0.3, 5);
    simulation.run(10.0);
    simulation.clients[0].rate *= 10.0;
    simulation.run(2.0);
    simulation.run(5.0);
    assert!(simulation.utilisation(5.0) > 0.95, "{}", simulation.utilisation(5.0));
    assert!(simulation.latency() < 2.0, "{}", simulation.latency());
    simulation.clients[0].rate /= 10.0;
    simulation.run(2.0);
    simulation.run(5.0);
    assert!(simulation.latency() < 1.1, "{}", simulation.latency());
}

/// concurrency-limits#165: under an overload that goes on, what is taken for an idle service drifts up, and the limit with it.
#[test]
fn the_base_stays_right_under_an_overload_of_minutes() {
    for (workers, shape) in [(10, Shape::Exponential), (10, Shape::LongTailed), (100, Shape::Exponential)] {
        let mut simulation = Simulation::new(workers, 0.02, shape, 5.0, 11);
        simulation.run(10.0);
        let mut probes = 0;
        for second in 10..150 {
            simulation.run(1.0);
            probes += simulation.closed.iter().filter(|closed| closed.verdict.probe).count();
            let (base, limit) = (simulation.base(), simulation.limit());
            let case = format!("{workers} workers, {shape:?}, after {second} s");
            assert!((0.5..1.5).contains(&base), "{case}: a base of {base:.2}");
            assert!((limit as usize) < 3 * workers, "{case}: a limit of {limit}");
        }
        assert!((5..60).contains(&probes), "{probes} probes");
    }
}

#[test]
fn a_flood_costs_next_to_nothing_of_what_the_service_can_do() {
    for (workers, mean, most) in [(50, 0.02, 0.8), (20, 0.02, 1.5), (100, 0.005, 0.5)] {
        let mut lost = 0.0;
        for shape in [Shape::Fixed, Shape::Exponential, Shape::LongTailed] {
            for seed in 1..6 {
                let mut simulation = Simulation::new(workers, mean, shape, 0.65, seed);
                simulation.run(15.0);
                simulation.clients[0].rate *= 5.0 / 0.65;
                for _ in 0..20 {
                    simulation.run(0.1);
                    lost += (1.0 - simulation.utilisation(0.1)).max(0.0) / 15.0;
                }
            }
        }
        // In the first two seconds, a probe included; and chance, which is most of it where there are few workers.
        assert!(lost < most, "{workers} workers of {mean} s: {lost:.2} tenths of a second");
    }
}

#[test]
fn a_service_that_becomes_slower_for_good_is_used_fully_again() {
    // At first half of the workers are idle; then the service takes twice as long, and all are needed.
    for (workers, mean, load) in [(10, 0.001, 0.45), (10, 0.02, 0.45), (100, 0.02, 0.45), (100, 0.02, 2.0)] {
        let mut simulation = Simulation::new(workers, mean, Shape::Exponential, load, 2);
        simulation.run(8.0);
        simulation.mean *= 2.0;
        simulation.run(15.0);
        simulation.run(10.0);
        let possible = (2.0 * load).min(1.0);
        let share = simulation.utilisation(10.0) / possible;
        assert!(share > 0.9, "{workers} workers of {mean} s at {load}: {share:.3} of what is possible");
    }
}

#[test]
fn a_service_that_becomes_slower_is_used_fully_again_where_the_limit_may_not_fall_far() {
    for min in [50, 60, 80] {
        let settings = Settings { min, initial: min, ..SETTINGS };
        let mut simulation = Simulation::of_clients(1, settings, 100, 0.02, Shape::Exponential, 0.45, 2);
        simulation.run(8.0);
        simulation.mean *= 2.0;
        simulation.run(15.0);
        simulation.run(10.0);
        let share = simulation.utilisation(10.0) / 0.9;
        assert!(share > 0.95, "not below {min}: {share:.3} of what is possible");
    }
}

#[test]
fn a_service_that_becomes_faster_or_smaller_is_followed() {
    let mut simulation = Simulation::new(20, 0.02, Shape::Exponential, 4.0, 4);
    simulation.run(10.0);
    simulation.mean /= 2.0;
    simulation.run(25.0);
    simulation.run(10.0);
    let faster = (simulation.utilisation(10.0), simulation.latency());
    assert!(faster.0 > 0.9 && faster.1 < 2.5, "{faster:?}");
    simulation.workers = 5;
    simulation.run(15.0);
    simulation.run(10.0);
    let smaller = (simulation.utilisation(10.0), simulation.latency());
    assert!(smaller.0 > 0.9 && smaller.1 < 2.5, "{smaller:?}");
}

#[test]
fn an_initial_limit_that_is_far_too_high_comes_down() {
    for (initial, workers) in [(1_000, 20), (200, 2)] {
        let settings = Settings { initial, ..SETTINGS };
        let mut simulation = Simulation::of_clients(1, settings, workers, 0.01, Shape::Exponential, 3.0, 6);
        simulation.run(20.0);
        simulation.run(10.0);
        assert!(simulation.latency() < 2.5, "from {initial}: {}", simulation.latency());
        assert!(simulation.utilisation(10.0) > 0.9, "from {initial}: {}", simulation.utilisation(10.0));
    }
}

/// tower-resilience's Vegas stays at 1 once it is there.
#[test]
fn ada01_a_limit_of_1_is_a_hundred_again_in_three_seconds() {
    for (mean, seed) in [(0.001, 1), (0.01, 2), (0.05, 3), (0.05, 4)] {
        let mut simulation = Simulation::new(200, mean, Shape::Exponential, 2.0, seed);
        simulation.run(5.0);
        simulation.fails = true;
        simulation.run(5.0);
        assert_eq!(simulation.limit(), 1, "everything was dropped for five seconds");
        simulation.fails = false;
        let mut tenths = 0;
        while simulation.limit() < 100 {
            simulation.run(0.1);
            tenths += 1;
            assert!(
                tenths <= 30,
                "calls of {mean} s: at {} after {tenths} tenths of a second",
                simulation.limit()
            );
        }
    }
}

/// Each of many clients sees the queue of all, and takes it for the service's own latency. What the service refuses is what bounds them.
#[test]
fn many_clients_of_one_service_are_bounded_by_what_it_refuses() {
    for clients in [5, 50] {
        let mut simulation = Simulation::of_clients(clients, SETTINGS, 50, 0.01, Shape::Exponential, 2.0, 8);
        simulation.queue_limit = 500;
        simulation.run(20.0);
        simulation.run(20.0);
        assert!(simulation.utilisation(20.0) > 0.9);
        let refused = simulation.refused();
        assert!(refused < 0.4, "{clients} clients: {refused:.3} were refused");
        let limits: u32 = simulation.clients.iter().map(|client| client.core.figures().limit).sum();
        assert!(limits < 1_100, "{clients} clients: {limits} in all");
    }
}
