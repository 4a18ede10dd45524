//! The health monitor, while nodes hang, die and come back.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use palisade::{Classified, Fault, box_errors};
use scylla::{client::execution_profile::ExecutionProfile, statement::Consistency};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_cassandra::{
    Cassandra, Client, Error, ErrorKind, Request, Statement,
    health::{
        Cause, HealthMonitor, HealthMonitorBuilder, Mode, NodeReport, NodeState, Transition, Transitions,
        WarmUp,
    },
};

use crate::cluster::{Ring, create_keyspace, ring, session};

/// Fast, and still patient with a machine that has much to do.
pub(crate) fn settings() -> HealthMonitorBuilder {
    HealthMonitor::builder()
        .interval(Duration::from_millis(1_200))
        .timeout(Duration::from_secs(1))
        .confirm_after(Duration::from_millis(200))
        .minimum_stay(Duration::from_secs(1))
        .slow(f64::INFINITY, Duration::ZERO)
}

/// A session whose nodes have all answered its monitor.
async fn watched(ring: &Ring, settings: HealthMonitorBuilder) -> (Cassandra, HealthMonitor) {
    let cassandra = ring.session().await;
    let monitor = settings.start(&cassandra).unwrap();
    monitor.warm_up(Duration::from_secs(20)).await.unwrap();
    (cassandra, monitor)
}

fn address(ring: &Ring, node: usize) -> SocketAddr {
    ring.cluster.contact_points()[node - 1]
}

fn state(monitor: &HealthMonitor, node: SocketAddr) -> NodeState {
    let report = monitor.report();
    report.nodes.iter().find(|known| known.address == node).unwrap().state
}

/// Polls until it is so.
pub(crate) async fn until(what: &str, within: Duration, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < within, "not {what} after {within:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_state(monitor: &HealthMonitor, node: SocketAddr, wanted: NodeState, within: Duration) {
    until(wanted.as_str(), within, || state(monitor, node) == wanted).await;
}

/// Everything that the stream has told until the monitor was stopped.
pub(crate) async fn told(monitor: &HealthMonitor, mut transitions: Transitions) -> Vec<Transition> {
    monitor.stop();
    let mut told = Vec::new();
    while let Some(transition) = transitions.next().await {
        told.push(transition.unwrap());
    }
    told
}

fn of(node: SocketAddr, told: &[Transition]) -> Vec<(NodeState, NodeState, Cause)> {
    let of_node = told.iter().filter(|transition| transition.node == node);
    of_node.map(|transition| (transition.from, transition.to, transition.cause)).collect()
}

pub(crate) const MET: (NodeState, NodeState, Cause) = (NodeState::Starting, NodeState::Up, Cause::Answers);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_is_found_and_no_other_and_is_up_again_when_it_goes_on() {
    let Some(ring) = ring().await else { return };
    let cassandra = ring.session().await;
    let monitor = settings().start(&cassandra).unwrap();
    let transitions = monitor.transitions();
    monitor.warm_up(Duration::from_secs(20)).await.unwrap();
    let sick = address(&ring, 2);
    {
        let _paused = ring.cluster.paused(2).unwrap();
        until_state(&monitor, sick, NodeState::Down, Duration::from_secs(10)).await;
        let report = monitor.report();
        for node in report.nodes.iter().filter(|node| node.address != sick) {
            assert_eq!(node.state, NodeState::Up, "{node:?}");
        }
        let node = report.in_state(NodeState::Down).next().unwrap();
        assert_eq!((node.address, node.cause), (sick, Cause::ProbeFailed));
        assert!(node.is_connected, "it hangs with its connections");
        assert!(node.failure.is_some() && node.lasts < Duration::from_secs(10), "{node:?}");
        assert_eq!(report.status.as_str(), "degraded");
        assert_eq!((report.datacenters[0].up, report.datacenters[0].down), (2, 1));
        // So that traffic keeps away from it, though nobody has sent any.
        until("ejected", Duration::from_secs(1), || {
            monitor.report().nodes.iter().any(|node| node.address == sick && node.is_ejected)
        })
        .await;
    }
    until_state(&monitor, sick, NodeState::Up, Duration::from_secs(20)).await;
    assert!(monitor.report().nodes.iter().all(|node| !node.is_ejected), "probes have closed its circuit");
    assert_eq!(monitor.report().status.as_str(), "healthy");

    let told = told(&monitor, transitions).await;
    assert_eq!(
        of(sick, &told),
        [
            MET,
            (NodeState::Up, NodeState::Degraded, Cause::ProbeFailed),
            (NodeState::Degraded, NodeState::Down, Cause::ProbeFailed),
            (NodeState::Down, NodeState::Up, Cause::Answers),
        ]
    );
    assert_eq!(of(address(&ring, 1), &told), [MET]);
    assert_eq!(of(address(&ring, 3), &told), [MET]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_is_down_at_once_and_up_after_it_was_started_again() {
    let Some(ring) = ring().await else { return };
    let cassandra = ring.session().await;
    let monitor = settings().start(&cassandra).unwrap();
    let transitions = monitor.transitions();
    monitor.warm_up(Duration::from_secs(20)).await.unwrap();
    let dead = address(&ring, 3);
    ring.cluster.kill(3).unwrap();
    until_state(&monitor, dead, NodeState::Down, Duration::from_secs(3)).await;
    assert_eq!(monitor.report().in_state(NodeState::Down).next().unwrap().cause, Cause::Disconnected);
    ring.cluster.start_node(3).unwrap();
    until_state(&monitor, dead, NodeState::Up, Duration::from_secs(60)).await;

    let told = told(&monitor, transitions).await;
    let mut of_dead = of(dead, &told);
    // A probe that was under way may tell before the driver has lost the connection.
    if let Some(first) = of_dead.iter().position(|(_, to, _)| *to == NodeState::Degraded) {
        assert_eq!(of_dead.remove(first), (NodeState::Up, NodeState::Degraded, Cause::ProbeFailed));
        of_dead[first].0 = NodeState::Up;
    }
    assert_eq!(
        of_dead,
        [
            MET,
            (NodeState::Up, NodeState::Down, Cause::Disconnected),
            (NodeState::Down, NodeState::Up, Cause::Answers),
        ]
    );
    assert_eq!(of(address(&ring, 1), &told), [MET]);
    assert_eq!(of(address(&ring, 2), &told), [MET]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_after_it_was_connected_again_is_ejected_though_it_was_down_before() {
    let Some(ring) = ring().await else { return };
    // It stays down for as long as this test looks.
    let (_cassandra, monitor) = watched(&ring, settings().minimum_stay(Duration::from_secs(3_600))).await;
    let sick = address(&ring, 3);
    ring.cluster.kill(3).unwrap();
    until_state(&monitor, sick, NodeState::Down, Duration::from_secs(3)).await;
    ring.cluster.start_node(3).unwrap();
    let of_sick = |is_so: fn(&NodeReport) -> bool| {
        monitor.report().nodes.iter().any(|node| node.address == sick && is_so(node))
    };
    let answers = || of_sick(|node| node.is_connected && node.failure.is_none() && !node.is_ejected);
    until("answering", Duration::from_secs(60), answers).await;
    let _paused = ring.cluster.paused(3).unwrap();
    // Two probes find it, and five failures in a row would open its circuit by themselves.
    until("ejected", Duration::from_secs(5), || of_sick(|node| node.is_ejected)).await;
    assert!(of_sick(|node| node.is_connected && node.state == NodeState::Down), "{:#?}", monitor.report());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_connected_again_is_probed_at_once() {
    let Some(ring) = ring().await else { return };
    let (_cassandra, monitor) = watched(&ring, settings().interval(Duration::from_secs(60))).await;
    let dead = address(&ring, 3);
    ring.cluster.kill(3).unwrap();
    until_state(&monitor, dead, NodeState::Down, Duration::from_secs(3)).await;
    ring.cluster.start_node(3).unwrap();
    let is_connected = || monitor.report().nodes.iter().any(|node| node.address == dead && node.is_connected);
    until("connected", Duration::from_secs(60), is_connected).await;
    until_state(&monitor, dead, NodeState::Up, Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_be_served_is_known_by_keyspace_and_level() {
    let Some(ring) = ring().await else { return };
    let cassandra = ring.session().await;
    let bare = Client::new(cassandra.clone());
    create_keyspace(&bare, "alone", 1).await;
    bare.query("CREATE TABLE IF NOT EXISTS alone.t (k int PRIMARY KEY)").await.unwrap();
    let pair = "CREATE KEYSPACE IF NOT EXISTS pair WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 2}";
    bare.query(pair).await.unwrap();
    let monitor = settings().start(&cassandra).unwrap();
    monitor.warm_up(Duration::from_secs(20)).await.unwrap();
    let ready = |keyspace, level| monitor.readiness(keyspace, level);
    for (keyspace, level) in
        [("faults", Consistency::All), ("alone", Consistency::Quorum), ("pair", Consistency::EachQuorum)]
    {
        assert!(ready(keyspace, level).ready, "{:?}", ready(keyspace, level));
    }
    let unknown = ready("Faults", Consistency::One);
    assert!(unknown.reason.as_ref().unwrap().contains("there is no keyspace Faults"), "{unknown:?}");
    let elsewhere = monitor.readiness_in("dc9", "faults", Consistency::LocalOne);
    assert!(elsewhere.reason.as_ref().unwrap().contains("no replicas in datacenter dc9"), "{elsewhere:?}");
    assert_eq!(elsewhere.datacenters, ["dc1"]);

    let first = address(&ring, 2);
    {
        let _paused = ring.cluster.paused(2).unwrap();
        until_state(&monitor, first, NodeState::Down, Duration::from_secs(10)).await;
        assert!(ready("faults", Consistency::Quorum).ready);
        assert!(!ready("faults", Consistency::All).ready);
        let alone = ready("alone", Consistency::One);
        assert!(!alone.ready && alone.share > 0.1 && alone.share < 0.9, "{alone:?}");
        assert!(alone.reason.as_ref().unwrap().contains(&first.to_string()), "{alone:?}");
        assert!(ready("pair", Consistency::LocalOne).ready);
        let pair = ready("pair", Consistency::LocalQuorum);
        assert!(!pair.ready && pair.share > 0.1 && pair.share < 0.9, "{pair:?}");
        assert!(
            pair.reason.as_ref().unwrap().contains("1 of 2 replicas are up in datacenter dc1"),
            "{pair:?}"
        );
        assert!(ready("system", Consistency::All).ready, "each node has its own");
        assert_eq!(monitor.share(None, "alone", Consistency::One), Some(alone.share));
        assert_eq!(monitor.share(Some("dc1"), "faults", Consistency::LocalQuorum), Some(1.0));
    }
    until("ready again", Duration::from_secs(20), || ready("faults", Consistency::All).ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_served_is_refused_at_once_when_it_has_failed() {
    let Some(ring) = ring().await else { return };
    let (cassandra, monitor) = watched(&ring, settings()).await;
    let request = cassandra.session().prepare("SELECT v FROM faults.t WHERE k = ?").await.unwrap();
    let mut with_profile = request.clone();
    let request = Request::bound(request.bind(&(1,)).unwrap()).with_consistency(Consistency::Quorum);
    let profile = ExecutionProfile::builder().consistency(Consistency::One).build();
    with_profile.set_execution_profile_handle(Some(profile.into_handle()));
    let with_profile = Request::bound(with_profile.bind(&(1,)).unwrap());
    let layer = || monitor.layer().trial_every(Duration::from_secs(3_600));
    let guarded = |layer| Client::new(ServiceBuilder::new().layer(layer).service(cassandra.clone())).boxed();
    let (refusing, reporting) = (guarded(layer()), guarded(layer().mode(Mode::ReportOnly)));
    let quorum = || Statement::new("SELECT v FROM faults.t WHERE k = ?").consistency(Consistency::Quorum);
    let one = || Statement::new("SELECT v FROM faults.t WHERE k = ?").consistency(Consistency::One);
    refusing.execute(quorum(), (1,)).await.unwrap();
    reporting.execute(quorum(), (1,)).await.unwrap();
    let ready = |keyspace, level| monitor.readiness(keyspace, level);

    let (first, second) = (address(&ring, 2), address(&ring, 3));
    {
        let _paused = ring.cluster.paused(2).unwrap();
        until_state(&monitor, first, NodeState::Down, Duration::from_secs(10)).await;
        // It may be about what can be served.
        refusing.execute(quorum(), (1,)).await.unwrap();

        let _paused_too = ring.cluster.paused(3).unwrap();
        until_state(&monitor, second, NodeState::Down, Duration::from_secs(10)).await;
        let readiness = ready("faults", Consistency::Quorum);
        assert!(!readiness.ready && readiness.share < 1e-9, "{readiness:?}");
        assert!(ready("faults", Consistency::One).ready);

        // The others may well see what is not seen from here, so that they are asked first.
        for _ in 0..3 {
            let asked =
                refusing.execute(quorum().timeout(Duration::from_millis(300)), (1,)).await.unwrap_err();
            assert!(!asked.class().is_refused_here() && asked.attempts().unwrap().len() == 1, "{asked}");
        }
        let began = Instant::now();
        let error = refusing.execute(quorum(), (1,)).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(!error.may_have_been_applied() && error.class().is_refused_here(), "{error:?}");
        assert_eq!(error.class().fault(), Fault::Server);
        assert_eq!(error.attempts().unwrap().len(), 0, "no node was asked");
        let mut down = [first.to_string(), second.to_string()];
        down.sort_unstable();
        let text = error.to_string();
        assert!(
            text.starts_with(
                "keyspace faults cannot be served at QUORUM: 1 of 3 replicas are up, and it takes 2; down: "
            ),
            "{text}"
        );
        assert!(down.iter().all(|node| text.contains(node)), "{text}");
        assert_eq!(readiness.reason, Some(text));
        refusing.execute(one().timeout(Duration::from_secs(5)), (1,)).await.unwrap();
        // So is the level that a statement has by a profile of its own, wherever that leads it. The session's is refused.
        let of_session = || Statement::new("SELECT v FROM faults.t WHERE k = ?");
        for _ in 0..3 {
            refusing.execute(of_session().timeout(Duration::from_millis(300)), (1,)).await.unwrap_err();
        }
        let refused = refusing.execute(of_session(), (1,)).await.unwrap_err();
        assert!(refused.class().is_refused_here(), "{refused}");
        let passing = ServiceBuilder::new().layer(layer()).service(cassandra.clone());
        if let Err(error) = passing.oneshot(with_profile.with_timeout(Duration::from_secs(1))).await {
            assert!(!error.class().is_refused_here(), "{error}");
        }
        // Whoever is refused holds no place of those below, and a boxed error is the same one.
        let limited = ServiceBuilder::new()
            .layer(layer())
            .layer(box_errors())
            .concurrency_limit(1)
            .service(cassandra.clone());
        let (mut refused, mut other) = (limited.clone(), limited);
        let boxed = refused.ready().await.unwrap().call(request.clone()).await.unwrap_err();
        assert_eq!(Error::from(boxed).to_string(), readiness.reason.clone().unwrap());
        let free = tokio::time::timeout(Duration::from_secs(1), other.ready()).await;
        free.expect("a place that is given back").unwrap();
        let passed = reporting.execute(quorum().timeout(Duration::from_millis(300)), (1,)).await.unwrap_err();
        assert!(!passed.class().is_refused_here(), "{passed}");
    }
    until("ready again", Duration::from_secs(20), || ready("faults", Consistency::All).ready).await;
    refusing.execute(quorum().timeout(Duration::from_secs(5)), (1,)).await.unwrap();
}

/// The nodes go on, and nobody has noticed yet.
#[tokio::test]
async fn what_is_taken_for_down_is_asked_all_the_same_and_served() {
    let Some(ring) = ring().await else { return };
    let (cassandra, monitor) = watched(&ring, settings()).await;
    let client = Client::new(ServiceBuilder::new().layer(monitor.layer()).service(cassandra));
    let read = || {
        let read = Statement::new("SELECT v FROM faults.t WHERE k = ?").consistency(Consistency::Quorum);
        client.execute(read.timeout(Duration::from_secs(5)), (1,))
    };
    read().await.unwrap();
    let paused = [2, 3].map(|node| ring.cluster.paused(node).unwrap());
    for node in [2, 3] {
        until_state(&monitor, address(&ring, node), NodeState::Down, Duration::from_secs(10)).await;
    }
    assert_eq!(monitor.share(None, "faults", Consistency::Quorum), Some(0.0));
    drop(paused);
    for _ in 0..20 {
        read().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_warm_when_its_nodes_have_answered_and_the_error_names_those_that_have_not() {
    let Some(ring) = ring().await else { return };
    let cassandra = ring.session().await;
    let paused = ring.cluster.paused(1).unwrap();
    let monitor = settings().start(&cassandra).unwrap();
    let quorum = WarmUp::quorum();
    monitor.warm_up_by(&quorum, Duration::from_secs(10)).await.unwrap();
    let error = monitor.warm_up(Duration::from_secs(3)).await.unwrap_err();
    let expected = format!(
        "the session was not warm after 3s: 3 of 3 nodes have to answer; missing: {} (no answer)",
        address(&ring, 1)
    );
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Connect, expected));
    drop(paused);
    monitor.warm_up(Duration::from_secs(20)).await.unwrap();
}

/// A monitor of the cluster that is shared with other tests.
async fn started(settings: HealthMonitorBuilder) -> Option<(Cassandra, HealthMonitor)> {
    let cassandra = session().await?;
    let monitor = settings.start(&cassandra).unwrap();
    Some((cassandra, monitor))
}

#[tokio::test]
async fn statements_are_prepared_before_the_first_traffic() {
    let Some((cassandra, monitor)) = started(settings()).await else { return };
    let text = "SELECT key FROM system.local WHERE key = ? /* warm */";
    monitor.warm_up_by(&WarmUp::all().prepare(text), Duration::from_secs(20)).await.unwrap();
    let client = Client::new(cassandra);
    let response = client.execute(text, ("local",)).await.unwrap();
    assert!(response.single_row::<(String,)>().is_ok());
    let error =
        monitor.warm_up_by(&WarmUp::all().prepare("SELEKT"), Duration::from_secs(20)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Syntax);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callbacks_that_panic_or_block_hold_up_neither_the_monitor_nor_each_other() {
    let (told, count) = (Arc::new(AtomicUsize::new(0)), |told: &Arc<AtomicUsize>| told.load(Relaxed));
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let settings = settings()
        .on_transition(|_| panic!("on purpose"))
        .on_transition(move |_| {
            let _ = wait.lock().unwrap().recv();
        })
        .on_transition({
            let told = Arc::clone(&told);
            move |_| {
                told.fetch_add(1, Relaxed);
            }
        });
    let Some((cassandra, monitor)) = started(settings).await else { return };
    monitor.warm_up(Duration::from_secs(20)).await.unwrap();
    until("told", Duration::from_secs(5), || count(&told) == 1).await;
    // Opened by hand, the circuit is a reason to be told again, and once more when probes have closed it.
    cassandra.nodes().all()[0].circuit().trip();
    until("told again", Duration::from_secs(20), || count(&told) == 3).await;
    assert!(monitor.liveness().alive);
    assert_eq!(monitor.dropped(), 0);
    drop(go_on);
}

#[tokio::test]
async fn probes_close_an_open_circuit_without_a_single_request() {
    let Some((cassandra, monitor)) = started(settings()).await else { return };
    monitor.warm_up(Duration::from_secs(20)).await.unwrap();
    let node = Arc::clone(&cassandra.nodes().all()[0]);
    let (mut transitions, attempts) = (monitor.transitions(), node.figures().attempts);
    node.circuit().trip();
    let mut next = async || {
        let transition =
            tokio::time::timeout(Duration::from_secs(20), transitions.next()).await.expect("news");
        transition.unwrap().map(|transition| (transition.to, transition.cause)).unwrap()
    };
    assert_eq!(next().await, (NodeState::Degraded, Cause::CircuitOpen));
    assert_eq!(next().await, (NodeState::Up, Cause::Answers));
    assert!(node.circuit().is_closed());
    assert_eq!(node.figures().attempts, attempts);
}

#[tokio::test]
async fn a_monitor_ends_with_its_session_and_keeps_it_no_longer() {
    let Some((cassandra, monitor)) = started(settings()).await else { return };
    monitor.warm_up(Duration::from_secs(20)).await.unwrap();
    let client = Client::new(ServiceBuilder::new().layer(monitor.layer()).service(cassandra.clone()));
    let (session, mut transitions) = (Arc::downgrade(cassandra.session()), monitor.transitions());
    drop((cassandra, client));
    let ended = tokio::time::timeout(Duration::from_secs(5), transitions.next()).await;
    assert_eq!(ended, Ok(None));
    assert!(session.upgrade().is_none(), "somebody still holds the session");
    let liveness = monitor.liveness();
    assert!(
        !liveness.alive && liveness.reason.as_ref().unwrap().contains("its session was dropped"),
        "{liveness:?}"
    );
    let readiness = monitor.readiness("system", Consistency::One);
    assert!(!readiness.ready && readiness.reason == liveness.reason, "{readiness:?}");
    assert_eq!(monitor.report().nodes.len(), 1, "as it was");
    let error = monitor.warm_up(Duration::from_secs(5)).await.unwrap_err();
    assert!(error.to_string().starts_with("the health monitor has ended"), "{error}");
    assert_eq!(monitor.transitions().next().await, None);
}

#[tokio::test]
async fn a_monitor_that_was_stopped_lets_everything_pass_and_another_can_be_started() {
    let Some((cassandra, monitor)) = started(settings()).await else { return };
    let client = Client::new(ServiceBuilder::new().layer(monitor.layer()).service(cassandra.clone()));
    monitor.stop();
    until("ended", Duration::from_secs(5), || !monitor.liveness().alive).await;
    assert!(monitor.liveness().reason.unwrap().contains("it was stopped"));
    client.execute("SELECT key FROM system.local WHERE key = ?", ("local",)).await.unwrap();
    let other = settings().start(&cassandra).unwrap();
    other.warm_up(Duration::from_secs(20)).await.unwrap();
    assert!(other.readiness("system", Consistency::LocalQuorum).ready);
}

#[tokio::test]
async fn settings_are_checked_against_the_cluster() {
    let Some(cassandra) = session().await else { return };
    let error = HealthMonitor::builder().datacenter("nowhere").start(&cassandra).unwrap_err();
    assert_eq!(error.setting(), "datacenter");
    let error = settings().jitter(2.0).start(&cassandra).unwrap_err();
    assert_eq!(error.setting(), "jitter");
    assert!(settings().start(&cassandra).unwrap().layer().min_share(1.5).is_err());
}

#[test]
fn a_monitor_wants_a_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(cassandra) = runtime.block_on(session()) else { return };
    let error = settings().start(&cassandra).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`start` was called outside of a tokio runtime: call it in an async function"
    );
}
