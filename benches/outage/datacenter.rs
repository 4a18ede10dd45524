//! The nearer of two datacenters is lost, and comes back.

use std::{net::SocketAddr, time::Duration};

use scylla::statement::Consistency;

use crate::{
    clients::{Kind, Operation, Site},
    faults::at_once,
    ground::{Ground, key},
    harness::Bars,
    load::Load,
    report::{Run, number, seconds},
};

const LOAD: Load = Load { per_second: 300, operation: |number| Operation::Read(key(number)) };
const SITE: Site = Site { local: "dc1", remote: "dc2" };
const DOWN: Duration = Duration::from_secs(20);
const AFTERWARDS: Duration = Duration::from_secs(40);
/// So long its return may take to be believed.
const BACK: Duration = Duration::from_secs(30);
/// Which datacenter serves is told by most answers of such a time.
const WINDOW: Duration = Duration::from_millis(500);

struct Outage {
    began: Duration,
    /// When the datacenter serves again.
    ended: Duration,
}

pub(crate) fn run(ground: &Ground, bars: &mut Bars) {
    let cluster = &ground.cluster;
    let local: Vec<_> = (1..=cluster.size()).filter(|node| cluster.datacenter(*node) == SITE.local).collect();
    let addresses: Vec<_> = local.iter().map(|node| cluster.address(*node)).collect();
    for kind in Kind::ALL {
        let target = ground.ready(kind, Consistency::LocalQuorum, Some(SITE), LOAD);
        let (run, outage) = ground.offer(kind, &target, LOAD, |clock| {
            clock.sleep_until_second(5);
            let began = clock.now();
            at_once(local.iter().copied(), |node| cluster.kill(node));
            clock.sleep_until(began + DOWN);
            at_once(local.iter().copied(), |node| cluster.start_node(node));
            ground.await_whole();
            let ended = clock.now();
            clock.sleep_until(ended + AFTERWARDS);
            Outage { began, ended }
        });
        let without = run.longest_without_service(outage.began, outage.ended).as_secs_f64();
        let switches = switches(&run, &addresses);
        let back = seconds(until_back(&run, &addresses, outage.ended));
        println!("    {without:.2} s without an answer, {switches} switches, back after {back:.1} s");
        if kind == Kind::Stack {
            bars.at_most("datacenter_lost_without_service_seconds", without, 2.0);
            bars.at_most("datacenter_lost_switches_at_most", number(switches), 2.0);
            bars.at_least("datacenter_lost_switches_at_least", number(switches), 2.0);
            bars.at_most("datacenter_lost_back_seconds", back, BACK.as_secs_f64());
        }
    }
}

/// How often the datacenter that gives most of the answers changes.
fn switches(run: &Run, local: &[SocketAddr]) -> usize {
    let windows = run.windows(Duration::ZERO, WINDOW).map(|(_, window)| window);
    let served = windows.filter(|window| window.answered().count() > 0);
    let is_local: Vec<_> = served.map(|window| window.share_of(local) > 0.5).collect();
    is_local.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

/// How long after its return the datacenter gives nine of ten answers, and goes on to.
fn until_back(run: &Run, local: &[SocketAddr], ended: Duration) -> Option<Duration> {
    let mut back = None;
    for (after, window) in run.windows(ended, WINDOW) {
        if window.share_of(local) < 0.9 {
            back = None;
        } else {
            back = back.or(Some(after));
        }
    }
    back
}
