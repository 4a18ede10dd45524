//! A proxy between a session and the functional tests' node, to watch frames, swallow them and forge answers.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use scylla_proxy::{
    Condition, Node, Proxy, Reaction, RequestFrame, RequestOpcode, RequestReaction, RequestRule,
    RunningProxy, ShardAwareness, TargetShard, get_exclusive_local_address,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tower_cassandra::{Cassandra, CassandraBuilder, Client};

use crate::cluster::{self, KEYSPACE};

/// The proxy ends when this is dropped.
pub(crate) struct Proxied {
    running: RunningProxy,
    real: SocketAddr,
    address: SocketAddr,
}

/// Frames that passed a rule.
pub(crate) struct Seen(UnboundedReceiver<(RequestFrame, Option<TargetShard>)>);

impl Seen {
    /// The bodies of the frames since the last call.
    pub(crate) fn bodies(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.0.try_recv().ok()).map(|(frame, _)| frame.body.to_vec()).collect()
    }

    /// How many frames with this text in them came since the last call.
    pub(crate) fn with_text(&mut self, text: &str) -> usize {
        let holds = |body: &Vec<u8>| body.windows(text.len()).any(|window| window == text.as_bytes());
        self.bodies().iter().filter(|body| holds(body)).count()
    }
}

impl Proxied {
    /// A proxy before the node, or `None` where there is no node to be had.
    pub(crate) async fn start() -> Option<Self> {
        // The keyspace is made by then.
        drop(cluster::session().await?);
        let point = cluster::shared()?.remove(0);
        let Ok(real) = point.parse::<SocketAddr>() else {
            return cluster::skip(format!("a proxy needs an address and a port, and {point} is none"));
        };
        let address = SocketAddr::new(get_exclusive_local_address(), real.port());
        let node = Node::builder()
            .real_address(real)
            .proxy_address(address)
            .shard_awareness(ShardAwareness::Unaware)
            .build();
        let running = Proxy::new([node]).run().await.unwrap();
        Some(Self { running, real, address })
    }

    pub(crate) fn settings(&self) -> CassandraBuilder {
        let translation = self.translation();
        Cassandra::builder()
            .contact_point(self.address.to_string())
            .keyspace(KEYSPACE)
            .driver(move |session| session.address_translator(Arc::new(translation.clone())))
    }

    /// The node tells its own address; who wants to pass the proxy has to translate it.
    pub(crate) fn translation(&self) -> HashMap<SocketAddr, SocketAddr> {
        HashMap::from([(self.real, self.address)])
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn client_with_table(&self, table: &str) -> Client<Cassandra> {
        let client = Client::new(self.settings().connect().await.unwrap());
        cluster::create_table(&client, table, "k int PRIMARY KEY, v int").await;
        client
    }

    pub(crate) fn clear(&mut self) {
        self.rules(Vec::new());
    }

    /// Lets frames of this kind pass, and shows them.
    pub(crate) fn watch(&mut self, opcode: RequestOpcode) -> Seen {
        self.react(Condition::RequestOpcode(opcode), RequestReaction::noop())
    }

    /// Swallows frames of this kind: they are never answered.
    pub(crate) fn swallow(&mut self, opcode: RequestOpcode) -> Seen {
        self.react(Condition::RequestOpcode(opcode), RequestReaction::drop_frame())
    }

    /// Does this with such frames, and shows them.
    pub(crate) fn react(&mut self, to: Condition, reaction: RequestReaction) -> Seen {
        let (sender, seen) = unbounded_channel();
        self.rules(vec![RequestRule(to, reaction.with_feedback_when_performed(sender))]);
        Seen(seen)
    }

    pub(crate) fn rules(&mut self, rules: Vec<RequestRule>) {
        self.running.running_nodes[0].change_request_rules(Some(rules));
    }
}
