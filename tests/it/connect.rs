//! How a session comes to be, and the clear errors where it does not.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use scylla::client::Compression;
use scylla_proxy::{RequestOpcode, get_exclusive_local_address};
use tokio::net::TcpListener;
use tower_cassandra::{Cassandra, Client, Error, ErrorKind, Tls};

use crate::{
    cluster::{locked, session, settings, shared},
    proxy::Proxied,
};

fn failed(outcome: Result<Cassandra, Error>) -> Error {
    match outcome {
        Err(error) => error,
        Ok(_) => panic!("connected"),
    }
}

async fn can_query(cassandra: Cassandra) {
    Client::new(cassandra)
        .query("SELECT key FROM system.local")
        .await
        .unwrap()
        .single_row::<(String,)>()
        .unwrap();
}

#[tokio::test]
async fn a_contact_point_where_nothing_listens_is_told_at_once() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let began = Instant::now();
    let error =
        failed(Cassandra::builder().contact_point(free.to_string()).connect_attempts(1).connect().await);
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert_eq!(
        error.to_string(),
        format!("nothing listens at {free}: check the address and port, and that the node is up")
    );
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(!error.may_have_been_applied());
}

#[tokio::test]
async fn a_name_without_an_address_is_told() {
    let error =
        failed(Cassandra::builder().contact_point("nowhere.invalid").connect_attempts(1).connect().await);
    assert_eq!(error.to_string(), "no contact point has an address: check the name of nowhere.invalid");
}

/// A port on which something accepts and never speaks would hold the bare driver up.
#[tokio::test]
async fn a_server_that_accepts_and_never_answers_is_given_up_after_the_timeout() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = silent.local_addr().unwrap();
    let mute = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            held.push(stream);
        }
    });
    let limit = Duration::from_millis(300);
    let builder = Cassandra::builder().contact_point(address.to_string()).connect_timeout(limit);
    let began = Instant::now();
    let error = failed(builder.clone().connect_attempts(1).connect().await);
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(began.elapsed() < limit * 2, "{:?}", began.elapsed());
    assert!(error.to_string().contains(&address.to_string()), "{error}");

    // Each try is bounded, and so are all of them.
    let began = Instant::now();
    failed(builder.connect_attempts(3).connect().await);
    assert!(
        (limit * 3..limit * 3 + Duration::from_secs(2)).contains(&began.elapsed()),
        "{:?}",
        began.elapsed()
    );
    mute.abort();
}

#[tokio::test]
async fn a_handshake_that_hangs_is_bounded() {
    let Some(mut proxied) = Proxied::start().await else { return };
    for opcode in [RequestOpcode::Options, RequestOpcode::Startup, RequestOpcode::Query] {
        let _lost = proxied.swallow(opcode);
        let began = Instant::now();
        let limit = Duration::from_millis(500);
        let outcome = proxied.settings().connect_timeout(limit).connect_attempts(1).connect().await;
        let error = failed(outcome);
        assert_eq!(error.kind(), ErrorKind::Connect, "{opcode:?}: {error}");
        assert!(began.elapsed() < limit * 2, "{opcode:?}: {:?}", began.elapsed());
    }
    proxied.clear();
    can_query(proxied.settings().connect().await.unwrap()).await;
}

/// The node is not up yet when the service starts.
#[tokio::test]
async fn a_cluster_that_comes_up_late_is_reached_at_a_later_try() {
    let Some(points) = shared() else { return };
    let real = points[0].clone();
    // The driver expects all nodes at the port of the contact point.
    let port = real.rsplit_once(':').map_or(9042, |(_, port)| port.parse().unwrap());
    let free = SocketAddr::new(get_exclusive_local_address(), port);
    let late = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let listener = TcpListener::bind(free).await.unwrap();
        while let Ok((mut inbound, _)) = listener.accept().await {
            let real = real.clone();
            tokio::spawn(async move {
                let mut outbound = tokio::net::TcpStream::connect(real).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut inbound, &mut outbound).await;
            });
        }
    });
    let cassandra = Cassandra::builder().contact_point(free.to_string()).connect_attempts(20).connect().await;
    can_query(cassandra.unwrap()).await;
    late.abort();
}

#[tokio::test]
async fn an_unknown_keyspace_or_datacenter_is_told_when_connecting() {
    let Some(settings) = settings() else { return };
    let began = Instant::now();
    let error = failed(settings.clone().keyspace("nowhere").connect().await);
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(
        error.to_string().contains("nowhere") && error.to_string().ends_with("create it first"),
        "{error}"
    );

    let error = failed(settings.datacenter("dc9").connect().await);
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("\"dc9\", which the cluster does not have: it has "), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "a mistake is not tried again: {:?}", began.elapsed());
}

#[tokio::test]
async fn settings_reach_the_session() {
    let Some(settings) = settings() else { return };
    drop(session().await);
    let datacenter = {
        let cassandra = settings.clone().connect().await.unwrap();
        let state = cassandra.session().get_cluster_state();
        state.get_nodes_info()[0].datacenter.clone().unwrap()
    };
    for compression in [Compression::Lz4, Compression::Snappy] {
        let cassandra = settings
            .clone()
            .datacenter(&datacenter)
            .keyspace("it")
            .compression(compression)
            .connections_per_node(2)
            .connect()
            .await
            .unwrap();
        assert_eq!(cassandra.session().get_keyspace().unwrap().as_str(), "it");
        can_query(cassandra).await;
    }
}

#[tokio::test]
async fn several_sessions_live_beside_each_other() {
    let Some(settings) = settings() else { return };
    let (one, two) = (settings.clone().connect().await.unwrap(), settings.connect().await.unwrap());
    drop(one);
    can_query(two).await;
}

#[tokio::test]
async fn credentials_and_encryption_are_needed_where_the_cluster_says_so() {
    let Some(cluster) = locked() else { return };
    let ca = cluster.ca_pem().unwrap();
    let settings = || Cassandra::builder().contact_point(cluster.address(1).to_string()).connect_attempts(3);
    let encrypted = || settings().tls(Tls::trusting(ca).unwrap());

    can_query(encrypted().credentials("cassandra", "cassandra").connect().await.unwrap()).await;

    let began = Instant::now();
    let error = failed(encrypted().credentials("cassandra", "wrong").connect().await);
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    assert!(error.to_string().contains("refused the user or password"), "{error}");
    assert!(!error.to_string().contains("wrong"), "a password is never told");

    let error = failed(encrypted().connect().await);
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    assert!(error.to_string().contains("set `credentials(user, password)`"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "a mistake is not tried again: {:?}", began.elapsed());

    let plain = settings().credentials("cassandra", "cassandra").connect_attempts(1);
    let error = failed(plain.connect_timeout(Duration::from_secs(2)).connect().await);
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    assert!(error.to_string().contains("if the node requires TLS, set `tls`"), "{error}");
}

#[tokio::test]
async fn encryption_that_the_cluster_does_not_speak_is_told() {
    let (Some(settings), Some(cluster)) = (settings(), locked()) else { return };
    let tls = Tls::trusting(cluster.ca_pem().unwrap()).unwrap();
    let outcome =
        settings.tls(tls).connect_attempts(1).connect_timeout(Duration::from_secs(2)).connect().await;
    let error = failed(outcome);
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    assert!(error.to_string().contains("speaks TLS"), "{error}");
}

#[test]
fn a_certificate_file_that_cannot_be_used_is_named() {
    let missing = Tls::trusting("/nowhere/ca.pem").unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Config);
    assert!(missing.to_string().contains("/nowhere/ca.pem"), "{missing}");
    let no_certificate = Tls::trusting(file!()).unwrap_err();
    assert!(no_certificate.to_string().contains("holds no certificate in PEM form"), "{no_certificate}");
}
