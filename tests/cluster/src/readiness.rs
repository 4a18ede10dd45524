//! When is a node ready, and what do its peers think of it?

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::START_LIMIT;
use crate::cql::{self, Connection, Consistency, Row};
use crate::node::Node;
use crate::process::POLL;
use crate::slot::STORAGE_PORT;
use crate::{Cluster, Error, Tls};

/// What a node's peers think of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// `nodetool status` shows it as `UN`.
    Up,
    /// `nodetool status` shows it as `DN`.
    Down,
}

impl Cluster {
    /// Waits until another live node's `nodetool status` shows node `n` in `state`. A killed or paused node is found out after
    /// some 20 s.
    ///
    /// # Errors
    /// When there is no such node, when no other node is live, or when `limit` is over.
    pub fn wait_for(&self, n: usize, state: State, limit: Duration) -> Result<(), Error> {
        let node = self.node(n)?;
        let wanted = match state {
            State::Up => "UN",
            State::Down => "DN",
        };
        poll(limit, || {
            let observer = self
                .nodes
                .iter()
                .find(|other| other.number != n && other.is_running() && !other.is_paused())
                .ok_or_else(|| format!("no other node is live to tell of node {n}"))?;
            let status =
                observer.nodetool(&self.launch, &["status"], limit).map_err(|error| error.to_string())?;
            match state_in(&status, node.address.ip()) {
                Some(seen) if seen == wanted => Ok(()),
                seen => Err(format!("node {} sees node {n} as {seen:?}, not {wanted:?}", observer.number)),
            }
        })
    }

    /// Waits until node `n` answers CQL; with [`Tls::Required`], until its port is open, which it is only then.
    ///
    /// # Errors
    /// When there is no such node, when its process ends, or when `limit` is over.
    pub fn wait_cql(&self, n: usize, limit: Duration) -> Result<(), Error> {
        let node = self.node(n)?;
        wait_open(node, "serves no CQL", limit, || match self.settings.tls {
            Tls::Required => listens(node.address),
            Tls::Off | Tls::Optional => cql::answers(node.address),
        })
    }

    /// Starts all nodes for the first time.
    pub(crate) fn boot(&self) -> Result<(), Error> {
        let first = self.node(1)?;
        for node in &self.nodes {
            self.settings.write(node, first, false)?;
        }
        first.start(&self.launch, &self.leash)?;
        if self.size() > 1 {
            // The others ask it for the ring's state, and give up if it does not answer.
            let storage = SocketAddr::new(first.address.ip(), STORAGE_PORT);
            wait_open(first, "opens no storage port", START_LIMIT, || listens(storage))?;
        }
        for node in &self.nodes[1..] {
            node.start(&self.launch, &self.leash)?;
        }
        for node in &self.nodes {
            self.wait_cql(node.number, START_LIMIT)?;
        }
        poll(START_LIMIT, || self.settled())?;
        if self.settings.auth && self.settings.tls != Tls::Required && self.size() > 1 {
            poll(START_LIMIT, || self.spread_auth())?;
            poll(START_LIMIT, || self.settled())?;
        }
        Ok(())
    }

    /// Whether all nodes know each other and agree; if not, what is missing.
    fn settled(&self) -> Result<(), String> {
        if self.settings.tls != Tls::Required {
            return self.settled_by_cql();
        }
        // Encrypted CQL is not spoken here.
        for node in &self.nodes {
            let status =
                node.nodetool(&self.launch, &["status"], START_LIMIT).map_err(|error| error.to_string())?;
            let up = self.nodes.iter().filter(|peer| state_in(&status, peer.address.ip()) == Some("UN"));
            let count = up.count();
            if count != self.size() {
                return Err(format!("node {} sees {count} nodes up", node.number));
            }
        }
        if self.settings.auth && !self.nodes.iter().any(|node| node.has_logged("Created default superuser")) {
            return Err("the superuser is not created yet".to_owned());
        }
        Ok(())
    }

    fn settled_by_cql(&self) -> Result<(), String> {
        let mut schemas = BTreeSet::new();
        for node in &self.nodes {
            let told = |error| format!("node {}: {error}", node.number);
            let mut connection = Connection::open(node.address).map_err(told)?;
            let mut ask = |query, consistency| connection.query(query, consistency).map_err(told);
            let own = "SELECT schema_version FROM system.local WHERE key = 'local'";
            schemas.extend(ask(own, Consistency::One)?.into_iter().map(|mut row| row.remove(0)));
            let peers = ask(
                "SELECT rpc_address, schema_version, data_center, rack, host_id, release_version, tokens FROM system.peers",
                Consistency::One,
            )?;
            self.check_peers(node, &peers)?;
            schemas.extend(peers.into_iter().map(|mut row| row.remove(1)));
            // Every node has a replica of this table: all must be seen as up, and answer. It also opens their connections.
            let everywhere = "SELECT view_name FROM system_distributed.view_build_status WHERE keyspace_name = '' AND view_name = ''";
            ask(everywhere, Consistency::All)?;
        }
        if schemas.len() == 1 { Ok(()) } else { Err(format!("{} versions of the schema", schemas.len())) }
    }

    fn check_peers(&self, node: &Node, peers: &[Row]) -> Result<(), String> {
        let complete = peers.iter().filter(|row| row.iter().all(Option::is_some));
        let seen: BTreeSet<IpAddr> = complete.filter_map(|row| address(row[0].as_deref()?)).collect();
        let others = self.nodes.iter().filter(|other| other.number != node.number);
        if seen == others.map(|other| other.address.ip()).collect() {
            Ok(())
        } else {
            Err(format!("node {} knows {seen:?} only", node.number))
        }
    }

    /// Puts the roles on every node. Logins read them at a quorum of the data centre, which the keyspace's own `SimpleStrategy`
    /// does not have where a data centre has one node.
    fn spread_auth(&self) -> Result<(), String> {
        let replication = self.settings.full_replication();
        Connection::open(self.nodes[0].address)
            .and_then(|mut connection| {
                connection.query(
                    &format!("ALTER KEYSPACE system_auth WITH replication = {replication}"),
                    Consistency::One,
                )
            })
            .map(drop)
            .map_err(|error| format!("spreading system_auth: {error}"))
    }
}

fn wait_open(node: &Node, lack: &str, limit: Duration, is_open: impl Fn() -> bool) -> Result<(), Error> {
    let end = Instant::now() + limit;
    while !is_open() {
        if !node.is_running() {
            return Err(node.failure("ended"));
        }
        if Instant::now() > end {
            return Err(node.failure(&format!("{lack} after {} s", limit.as_secs())));
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Tries `condition`, which says what is missing, until it holds.
pub(crate) fn poll(limit: Duration, condition: impl Fn() -> Result<(), String>) -> Result<(), Error> {
    let end = Instant::now() + limit;
    while let Err(what) = condition() {
        if Instant::now() > end {
            return Err(Error::Timeout { what, after: limit });
        }
        thread::sleep(POLL);
    }
    Ok(())
}

fn listens(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok()
}

/// The `UN` or `DN` before `address` in what `nodetool status` prints.
fn state_in(status: &str, address: IpAddr) -> Option<&str> {
    let address = address.to_string();
    status.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let state = words.next()?;
        (words.next()? == address).then_some(state)
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).ok().map(|octets| Ipv4Addr::from(octets).into())
}
