//! One run: a scenario with one of its stacks, from a seed.

use std::{fmt, time::Duration};

use tokio::time::sleep_until;

use crate::{
    clock::Clock,
    engine::Settings,
    load::{self, Load, Record, Stack},
    report::Report,
    server::Server,
    speed::nanos,
};

/// How large the simulated servers are: the same scenario, with more or fewer calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// 10 workers: 500 calls per second. For tests.
    Small,
    /// 50 workers: 2,500 calls per second. For plots.
    Full,
}

impl Size {
    /// The workers of a server.
    pub const fn workers(self) -> u32 {
        match self {
            Self::Small => 10,
            Self::Full => 50,
        }
    }
}

/// A story of load and trouble, that can be lived through with different stacks.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name, also that of its plot.
    pub name: &'static str,
    /// What happens, in a sentence.
    pub about: &'static str,
    /// How long it lasts, in seconds.
    pub seconds: f64,
    /// When trouble begins and when it ends, in seconds.
    pub trouble: (f64, f64),
    /// Calls per second by the time, as a share of what the servers can do.
    pub load: fn(f64) -> f64,
    /// The share of the calls that read one and the same key, by the time.
    pub hot: fn(f64) -> f64,
    /// The servers.
    pub servers: fn(Size) -> Vec<Settings>,
    /// The stack that is recommended.
    pub with: Variant,
    /// What people do without these layers.
    pub without: Variant,
}

/// A stack to live through a [`Scenario`] with.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Its name.
    pub name: &'static str,
    /// Puts it together. Each client has one of the stacks.
    pub stacks: fn(&mut World) -> Vec<Stack>,
}

/// What there is to put a stack together for.
pub struct World {
    /// The servers.
    pub servers: Vec<Server>,
    /// Their size.
    pub size: Size,
    /// The seed of the run.
    pub seed: u64,
    gauges: Vec<Gauge>,
}

struct Gauge {
    name: &'static str,
    read: Box<dyn Fn() -> f64 + Send>,
}

impl World {
    /// The only server.
    pub fn server(&self) -> Server {
        self.servers[0].clone()
    }

    /// Plots a figure that a stack has.
    pub fn gauge(&mut self, name: &'static str, read: impl Fn() -> f64 + Send + 'static) {
        self.gauges.push(Gauge { name, read: Box::new(read) });
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("servers", &self.servers).finish_non_exhaustive()
    }
}

/// The length of a bin in seconds.
pub const BIN: f64 = 0.25;

impl Scenario {
    /// When the first second of trouble is over, if there are more. What comes then is not due to how things were before.
    pub const fn settled(&self) -> f64 {
        (self.trouble.0 + 1.0).min(self.trouble.1 - 1.0)
    }

    /// Lives through it. The same seed gives the same report.
    ///
    /// # Panics
    ///
    /// If the machine gives no runtime.
    pub fn run(&self, variant: Variant, size: Size, seed: u64) -> Report {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        fastrand::seed(seed);
        runtime.block_on(self.live(variant, size, seed))
    }

    async fn live(&self, variant: Variant, size: Size, seed: u64) -> Report {
        let clock = Clock::begin();
        let settings = (self.servers)(size);
        let capacity = settings.iter().map(Settings::capacity).sum();
        let servers: Vec<_> = settings
            .into_iter()
            .zip(1..)
            .map(|(settings, number)| {
                Server::start(settings, clock, seed.wrapping_mul(31).wrapping_add(number))
            })
            .collect();
        let mut world = World { servers: servers.clone(), size, seed, gauges: Vec::new() };
        let queues = servers.clone();
        world.gauge("queue in the servers", move || {
            queues.iter().map(|server| f64::from(u32::try_from(server.waiting()).unwrap_or(u32::MAX))).sum()
        });
        let stacks = (variant.stacks)(&mut world);

        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "minutes, from zero on")]
        let bins = (self.seconds / BIN).round() as usize;
        let record = Record::new(bins, BIN);
        let load = Load { rate: self.load, capacity, hot: self.hot, seconds: self.seconds };
        tokio::spawn(load::run(load, stacks, record.clone(), clock, seed));

        let gauges = world.gauges.iter().map(|gauge| gauge.name).collect();
        watch(&servers, &world, &record, clock, bins).await;
        // Those that came last are answered, or give up.
        sleep_until(clock.at(nanos(self.seconds)) + Duration::from_secs(5)).await;
        Report { capacity, bin: BIN, bins: record.bins(), gauges }
    }
}

/// Writes down what can be seen from outside, once a bin.
async fn watch(servers: &[Server], world: &World, record: &Record, clock: Clock, bins: usize) {
    let mut before = 0;
    let length = nanos(BIN);
    for bin in (0..bins as u64).map(|bin| bin * length) {
        sleep_until(clock.at(bin + length)).await;
        let arrived = servers.iter().map(Server::arrived).sum();
        let gauges = world.gauges.iter().map(|gauge| (gauge.read)()).collect();
        record.at(bin, |bin| {
            bin.sent = arrived - before;
            bin.gauges = gauges;
        });
        before = arrived;
    }
}
