//! The example `service`, as a process that is asked over HTTP while a node hangs, and told to end.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tower_cassandra::Client;

use crate::{
    cluster::{self, Ring},
    process::{Example, until},
};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

struct Service(Example);

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Service {
    fn start(ring: &Ring) -> Self {
        let points: Vec<_> = ring.cluster.contact_points().iter().map(ToString::to_string).collect();
        Self(Example::start("service", |command| {
            command
                .args(["-", "127.0.0.1:0"])
                .env("REPLICAS", "3")
                .env("CASSANDRA_CONNECTION__CONTACT_POINTS", points.join(","))
                .env("CASSANDRA_CONNECTION__KEYSPACE", "service_it")
                // Whatever this machine does besides. A node that is late twice is taken for one that hangs, and with two of those
                // nothing can be served.
                .env("CASSANDRA_HEALTH__INTERVAL", "3s")
                .env("CASSANDRA_HEALTH__TIMEOUT", "2s")
                .env("CASSANDRA_DEADLINE__LIMIT", "15s")
                .env("CASSANDRA_ATTEMPT_TIMEOUT__LIMIT", "2s");
        }))
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        ask(self.0.address, method, path, headers, body)
            .unwrap_or_else(|| panic!("no answer: {method} {path}"))
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "")
    }

    /// A connection on which this was sent.
    fn sends(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.0.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }

    /// What a user is asked for in all the ways that there are; each has to be answered well.
    fn serves(&self, id: i64) {
        let json = "content-type: application/json\r\n";
        let path = format!("/users/{id}");
        let profile = format!(r#"{{"name": "user {id}", "email": "{id}@example.com"}}"#);
        let told = |step: &str, answer: Answer, status: u16| {
            assert_eq!(answer.status, status, "{step} {id}: {}", answer.body);
            answer
        };
        told("replace", self.ask("PUT", &path, json, &profile), 200);
        let read = told("read", self.ask("GET", &path, "x-priority: critical\r\n", ""), 200);
        assert_eq!(read.json()["name"], format!("user {id}"));
        let created = told("create", self.ask("POST", "/users", json, &profile), 201).json();
        let listed = told("list", self.ask("GET", "/users", "x-priority: low\r\n", ""), 200).json();
        assert!(listed["users"].as_array().unwrap().len() >= 2);
        for path in [path, format!("/users/{}", created["id"])] {
            told("remove", self.ask("DELETE", &path, "", ""), 204);
            told("read what is gone", self.get(&path), 404);
        }
    }

    /// The nodes that are not well.
    fn unwell(&self) -> BTreeSet<String> {
        let report = self.get("/nodes").json();
        let nodes = report["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), 3);
        let unwell = nodes.iter().filter(|node| node["state"] != "up");
        unwell.map(|node| node["address"].as_str().unwrap().to_owned()).collect()
    }
}

/// The answer to a request; `None` if there is none.
fn ask(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(LONG)).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_serves_while_a_node_hangs_tells_which_and_ends_in_order() {
    let Some(ring) = cluster::ring().await else { return };
    // What follows waits for another process, and blocks.
    tokio::task::block_in_place(|| serves_and_ends(&ring));
}

fn serves_and_ends(ring: &Ring) {
    let mut service = Service::start(ring);
    until("all nodes are up", LONG, || service.unwell().is_empty().then_some(()));
    assert_eq!((service.get("/health").status, service.get("/ready").status), (200, 200));
    // How long a coordinator waits before it asks a third replica must not go by how slow the first reads were.
    let soon = "ALTER TABLE service_it.users WITH speculative_retry = '20ms'";
    let altered = async { Client::new(ring.settings().connect().await?).query(soon).await };
    tokio::runtime::Handle::current().block_on(altered).unwrap();
    // For a table that is new it waits for half its timeout, until it has looked: it does every `read_request_timeout`, 10 s here.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(11) {
        service.serves(1);
    }

    // One node hangs: nobody notices but those who ask for it.
    let hangs = ring.cluster.paused(3).unwrap();
    (2..12).for_each(|id| service.serves(id));
    let paused = BTreeSet::from([ring.cluster.contact_points()[2].to_string()]);
    until("the node that hangs is found", LONG, || (service.unwell() == paused).then_some(()));
    assert_eq!((service.get("/health").status, service.get("/ready").status), (200, 200));
    (12..22).for_each(|id| service.serves(id));
    drop(hangs);

    // What a dashboard asks for.
    let metrics = service.get("/metrics").body;
    for name in
        ["db_client_operation_duration_bucket", "cassandra_health_nodes", "db_operation_name=\"SELECT\""]
    {
        assert!(metrics.contains(name), "{name} is not in {metrics}");
    }
    let figures = service.get("/admin/stack").json();
    assert_eq!(figures["breaker"]["state"], "closed");

    // What callers and operators do wrong is told, and what operators do right is in force at once.
    assert_eq!(service.ask("GET", "/users/1", "x-priority: urgent\r\n", "").status, 400);
    let set =
        |setting: &str, value: &str| service.ask("PUT", &format!("/admin/settings/{setting}"), "", value);
    assert_eq!(set("breaker.mode", "ajar").status, 400);
    assert_eq!(set("retry.max_attempts", "2").json()["needs_restart"][0], "retry.max_attempts");
    assert_eq!(set("breaker.mode", "forced_open").json()["changed"][0], "breaker.mode");
    assert_eq!(service.get("/users/1").status, 503);
    assert_eq!(set("breaker.mode", "normal").status, 200);
    assert_eq!(service.get("/users/1").status, 404);

    // Where it is ready goes by the session that it has, and not by one that it may have after a restart.
    assert_eq!(set("connection.keyspace", "elsewhere").json()["needs_restart"][0], "connection.keyspace");
    assert_eq!(service.get("/ready").status, 200);

    // What a caller makes up is told so, and opens no circuit.
    for page in ["xyz", "", "0f0", "0x00", "99999999999999999999", &"ab".repeat(10_000)] {
        let answer = service.get(&format!("/users?page={page}"));
        assert_eq!(answer.status, 400, "{page:.20}: {}", answer.body);
    }
    for page in ["00000000", "-1", "9223372036854775807"] {
        let answer = service.get(&format!("/users?page={page}"));
        assert_eq!(answer.status, 200, "{page}: {}", answer.body);
    }
    let json = "content-type: application/json\r\n";
    let huge = format!(r#"{{"name": "{}", "email": ""}}"#, "x".repeat(100_000));
    assert_eq!(service.ask("PUT", "/users/1", json, &huge).status, 413);
    let half_a_body = format!(
        "PUT /users/1 HTTP/1.1\r\nHost: test\r\n{json}Connection: close\r\nContent-Length: 100\r\n\r\n{{"
    );
    let mut waits = service.sends(&half_a_body);
    let mut answer = String::new();
    waits.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    // Nobody is waited for who has sent half a request.
    let _half_a_head = service.sends("GET /users/1 HTTP/1.1\r\nHost:");

    // A request that is under way at the end is answered, as soon as the cluster does.
    let hang: Vec<_> = (1..=3).map(|node| ring.cluster.paused(node).unwrap()).collect();
    let address = service.0.address;
    let slow = thread::spawn(move || ask(address, "GET", "/users/1", "", ""));
    until("it is under way", LONG, || {
        (service.get("/admin/stack").json()["drain"]["in_flight"].as_u64()? > 0).then_some(())
    });
    service.0.terminate();
    let unready =
        until("it is not ready", LONG, || Some(service.get("/ready")).filter(|ready| ready.status != 200));
    assert_eq!(unready.status, 503, "{}", unready.head);
    drop(hang);
    assert_eq!(slow.join().unwrap().map(|answer| answer.status), Some(404));
    let (status, said) = service.0.ended(LONG);
    assert_eq!(status.code(), Some(0), "{said}");
}
