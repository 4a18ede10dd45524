//! Against real Cassandra processes, one after another: two cores do not carry more.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cassandra_cluster::{Cluster, Error, State, Tls};

const LIMIT: Duration = Duration::from_secs(90);

/// One test at a time; none when a test cannot run here, which CI does not accept.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    match cassandra_cluster::requirements() {
        Ok(()) => Some(TURN.lock().unwrap_or_else(PoisonError::into_inner)),
        Err(error) if std::env::var_os("CI").is_some() => panic!("{error}"),
        Err(error) => {
            eprintln!("not run: {error}");
            None
        }
    }
}

/// Whether a node answers an OPTIONS frame of CQL within a second.
fn answers(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { return false };
    let mut header = [0; 9];
    stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
        && stream.write_all(&[4, 0, 0, 0, 5, 0, 0, 0, 0]).is_ok()
        && stream.read_exact(&mut header).is_ok()
        && header[4] == 6
}

fn is_alive(pid: i32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nodes_of_two_datacenters_fail_and_come_back_one_by_one() {
    let Some(_turn) = turn() else { return };
    let start = Instant::now();
    let cluster = Cluster::builder().datacenter("dc1", 2).datacenter("dc2", 1).start().unwrap();
    eprintln!("3 nodes start in {:?}", start.elapsed());
    assert_eq!(cluster.contact_points().len(), 3);
    assert!(cluster.contact_points().into_iter().all(answers));

    let status = cluster.nodetool(2, &["status"]).unwrap();
    for n in 1..=3 {
        assert!(status.contains(&format!("UN  {} ", cluster.address(n).ip())), "{status}");
    }
    assert!(status.contains("Datacenter: dc2"), "{status}");

    // Both at once, since the peers take 20 s to miss a node.
    let paused = cluster.paused(2).unwrap();
    assert!(cluster.is_paused(2));
    assert!(!answers(cluster.address(2)));
    cluster.kill(3).unwrap();
    assert!(!cluster.is_running(3));
    assert!(matches!(cluster.kill(3), Err(Error::Request(_))));
    cluster.wait_for(3, State::Down, LIMIT).unwrap();
    cluster.wait_for(2, State::Down, LIMIT).unwrap();

    drop(paused);
    assert!(!cluster.is_paused(2));
    wait_until("a resumed node answers", || answers(cluster.address(2)));
    cluster.wait_for(2, State::Up, LIMIT).unwrap();

    let restart = Instant::now();
    cluster.start_node(3).unwrap();
    eprintln!("a killed node starts again in {:?}", restart.elapsed());
    cluster.wait_for(3, State::Up, LIMIT).unwrap();
    cluster.restart(3).unwrap();
    assert!(answers(cluster.address(3)));
    assert!(cluster.logs(3).contains("Starting listening for CQL clients"), "{}", cluster.logs(3));
}

#[test]
fn a_dropped_cluster_leaves_no_process_and_no_file_not_even_of_a_paused_node() {
    let Some(_turn) = turn() else { return };
    let start = Instant::now();
    let cluster = Cluster::builder().start().unwrap();
    eprintln!("1 node starts in {:?}", start.elapsed());
    let other = Cluster::builder().start().unwrap();
    assert_ne!(cluster.address(1), other.address(1));
    assert!(answers(cluster.address(1)) && answers(other.address(1)));

    // It runs, and it is the first.
    assert!(matches!(cluster.start_anew(1), Err(Error::Request(_))));
    let pid = cluster.pid(1).unwrap();
    let directory = cluster.directory().to_owned();
    cluster.pause(1).unwrap();
    drop(cluster);
    assert!(!is_alive(pid));
    assert!(!directory.exists());
    assert!(answers(other.address(1)), "another cluster is left alone");
}

#[test]
fn no_node_outlives_an_owner_that_is_killed_not_even_a_paused_one() {
    let Some(_turn) = turn() else { return };
    let runtime = std::env::temp_dir().join(format!("cassandra-cluster-test-{}", std::process::id()));
    std::fs::create_dir_all(&runtime).unwrap();
    let command = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cassandra-cluster"));
        command.args(words).env("XDG_RUNTIME_DIR", &runtime).stdout(Stdio::piped());
        command
    };
    let ask = |words: &[&str]| {
        let output = command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };

    let mut owner = command(&["up", "--dc", "dc1:2"]).spawn().unwrap();
    let mut points = String::new();
    BufReader::new(owner.stdout.take().unwrap()).read_line(&mut points).unwrap();
    assert_eq!(points.split(',').count(), 2, "{points}");
    ask(&["pause", "2"]);
    let status = ask(&["status"]);
    assert!(status.contains("paused, pid"), "{status}");
    assert!(ask(&["env"]).contains(points.trim()));
    assert!(ask(&["nodetool", "1", "info"]).contains("Native Transport active"));
    let pids: Vec<i32> =
        status.lines().filter_map(|line| line.split("pid ").nth(1)?.trim().parse().ok()).collect();
    assert_eq!(pids.len(), 2, "{status}");
    let directory = status.lines().next().and_then(|line| line.split(" in ").nth(1)).unwrap().to_owned();

    owner.kill().unwrap();
    owner.wait().unwrap();
    for pid in pids {
        wait_until("the nodes end", || !is_alive(pid));
    }
    wait_until("their files go", || !Path::new(&directory).exists());
    let refused = command(&["status"]).stderr(Stdio::piped()).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no cluster runs"));
    std::fs::remove_dir_all(&runtime).unwrap();
}

#[test]
fn logins_and_encryption_can_be_asked_for() {
    let Some(_turn) = turn() else { return };
    let cluster = Cluster::builder().datacenter("dc1", 1).datacenter("dc2", 1).auth(true).start().unwrap();
    assert!(cluster.ca_pem().is_none());
    drop(cluster);

    let cluster = Cluster::builder().auth(true).tls(Tls::Required).start().unwrap();
    assert!(std::fs::read_to_string(cluster.ca_pem().unwrap()).unwrap().contains("BEGIN CERTIFICATE"));
    assert!(!answers(cluster.address(1)), "it takes no plain text");
    drop(cluster);

    let cluster = Cluster::builder().tls(Tls::Optional).start().unwrap();
    assert!(cluster.ca_pem().is_some());
    assert!(answers(cluster.address(1)));
}

#[test]
fn a_node_that_does_not_come_up_says_why() {
    let Some(_turn) = turn() else { return };
    let error = Cluster::builder().yaml("no_such_key: 1").start().unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::Node { node: 1, .. }), "{message}");
    assert!(message.contains("no_such_key"), "{message}");
    assert!(message.contains("logs are in"), "{message}");
}

#[test]
fn impossible_clusters_are_refused_before_anything_starts() {
    for builder in [
        Cluster::builder().datacenter("dc1", 7),
        Cluster::builder().datacenter("dc1", 0),
        Cluster::builder().datacenter("dc1", 1).datacenter("dc1", 1),
        Cluster::builder().datacenter("it's", 1),
    ] {
        assert!(matches!(builder.start(), Err(Error::Request(_))));
    }
}
