//! What is counted, for operators and for metrics.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crossbeam_utils::CachePadded;

/// The counts of a layer.
pub(super) struct Figures {
    layer: &'static str,
    datacenters: Box<[CachePadded<OfDatacenter>]>,
    switches: AtomicU64,
}

struct OfDatacenter {
    name: Arc<str>,
    requests: AtomicU64,
    repeats: AtomicU64,
    counter: OnceLock<metrics::Counter>,
}

impl Figures {
    pub(super) fn new(layer: &'static str, names: impl Iterator<Item = Arc<str>>) -> Self {
        let of = |name| OfDatacenter {
            name,
            requests: AtomicU64::new(0),
            repeats: AtomicU64::new(0),
            counter: OnceLock::new(),
        };
        Self {
            layer,
            datacenters: names.map(|name| CachePadded::new(of(name))).collect(),
            switches: AtomicU64::new(0),
        }
    }

    /// A request goes to this datacenter.
    #[inline]
    pub(super) fn sent(&self, datacenter: usize) {
        let of = &self.datacenters[datacenter];
        of.requests.fetch_add(1, Relaxed);
        let counter = of.counter.get_or_init(|| {
            metrics::counter!(
                "tower_cassandra_failover_requests_total",
                "layer" => self.layer,
                "datacenter" => of.name.to_string()
            )
        });
        counter.increment(1);
    }

    /// A request that failed in one is sent to another.
    pub(super) fn repeated(&self, from: usize, to: usize) {
        self.datacenters[to].repeats.fetch_add(1, Relaxed);
        self.count("tower_cassandra_failover_repeats_total", from, to);
    }

    pub(super) fn switched(&self, from: usize, to: usize) {
        self.switches.fetch_add(1, Relaxed);
        self.count("tower_cassandra_failovers_total", from, to);
        self.show(to);
    }

    /// Looked up each time, as these are rare, and a handle that is made before there is a recorder would never tell.
    fn count(&self, metric: &'static str, from: usize, to: usize) {
        let name = |index: usize| self.datacenters[index].name.to_string();
        metrics::counter!(metric, "layer" => self.layer, "from" => name(from), "to" => name(to)).increment(1);
    }

    /// Shows which one is active.
    pub(super) fn show(&self, active: usize) {
        for (index, of) in self.datacenters.iter().enumerate() {
            let gauge = metrics::gauge!(
                "tower_cassandra_failover_active",
                "layer" => self.layer,
                "datacenter" => of.name.to_string()
            );
            gauge.set(if index == active { 1.0 } else { 0.0 });
        }
    }

    pub(super) fn requests(&self, datacenter: usize) -> u64 {
        self.datacenters[datacenter].requests.load(Relaxed)
    }

    pub(super) fn repeats(&self, datacenter: usize) -> u64 {
        self.datacenters[datacenter].repeats.load(Relaxed)
    }

    pub(super) fn switches(&self) -> u64 {
        self.switches.load(Relaxed)
    }
}
