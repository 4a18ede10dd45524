//! When does what break?

use std::{
    thread,
    time::{Duration, Instant},
};

use cassandra_cluster::{Cluster, Error};
use rustix::process::{Pid, Signal, kill_process};

/// A sleep ends this much later than asked for, or more; the rest is spun away.
const COARSENESS: Duration = Duration::from_micros(80);

/// The time of a run, from its beginning.
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> Duration {
        self.0.elapsed()
    }

    pub(crate) fn moment(&self, at: Duration) -> Instant {
        self.0 + at
    }

    pub(crate) fn sleep_until(&self, at: Duration) {
        let end = self.moment(at);
        let left = end.saturating_duration_since(Instant::now());
        if left > COARSENESS {
            thread::sleep(left.saturating_sub(COARSENESS));
        }
        while Instant::now() < end {
            std::hint::spin_loop();
        }
    }

    pub(crate) fn sleep_until_second(&self, second: u64) {
        self.sleep_until(Duration::from_secs(second));
    }
}

/// Does something to several nodes at once, and returns when that is done to all.
pub(crate) fn at_once(
    nodes: impl IntoIterator<Item = usize>,
    action: impl Fn(usize) -> Result<(), Error> + Sync,
) {
    thread::scope(|scope| {
        let action = &action;
        let threads: Vec<_> = nodes
            .into_iter()
            .map(|node| scope.spawn(move || action(node).expect("the node obeys")))
            .collect();
        for thread in threads {
            thread.join().expect("no panic");
        }
    });
}

/// Stops a node and lets it go on again, each for so long, until the time has come.
pub(crate) fn pulse(cluster: &Cluster, node: usize, each: Duration, clock: &Clock, until: Duration) {
    let pid = cluster.pid(node).and_then(Pid::from_raw).expect("a running node");
    // Whatever happens, it goes on in the end.
    let _resumed = Resumed(pid);
    let mut next = clock.now();
    while next < until {
        kill_process(pid, Signal::STOP).expect("it can be stopped");
        next += each;
        clock.sleep_until(next);
        kill_process(pid, Signal::CONT).expect("it can go on");
        next += each;
        clock.sleep_until(next);
    }
}

struct Resumed(Pid);

impl Drop for Resumed {
    fn drop(&mut self) {
        // It may be gone.
        let _ = kill_process(self.0, Signal::CONT);
    }
}
