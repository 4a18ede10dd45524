//! What can be served at this moment, for those who have to know it fast.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use quick_cache::{Equivalent, sync::Cache};
use scylla::{cluster::ClusterState, statement::Consistency};
use uuid::Uuid;

use super::{
    evidence::Evidence,
    placement::{Place, Topology},
    servable::{Member, Obstacle, Shortage, Verdict, judge},
    state::NodeState,
};

/// For how many combinations of keyspace, level and datacenter it is kept what can be served.
const VERDICTS: usize = 1_024;

/// How many nodes a message names.
const NAMED: usize = 8;

/// The current [`View`], and whether it need be looked at.
#[derive(Debug)]
pub(super) struct Outlook {
    view: ArcSwap<View>,
    is_clear: AtomicBool,
    /// What the cluster has said since a node is down.
    evidence: Cache<Key, Arc<Evidence>>,
}

/// What is known of the cluster between two changes.
pub(super) struct View {
    cluster: Option<Arc<ClusterState>>,
    topology: Arc<Topology>,
    /// As the topology's nodes. A node that was not heard of yet is up, as nothing speaks against it, and so is one that begins to answer,
    members: Vec<Member>,
    /// or is not, until it has answered for a while.
    proven: Vec<Member>,
    judgements: Cache<Key, Arc<Judgement>>,
}

/// What can be served of a keyspace at a level, in words as well.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judgement {
    pub(super) share: f64,
    /// The datacenters that could serve all of it, by name.
    pub(super) datacenters: Vec<String>,
    /// What is in the way, and what to do.
    pub(super) problem: Option<String>,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) keyspace: &'a str,
    pub(super) consistency: Consistency,
    /// Where it is to be coordinated.
    pub(super) datacenter: Option<&'a str>,
}

impl<'a> Question<'a> {
    fn key_ref(&self) -> KeyRef<'a> {
        let Self { keyspace, consistency, datacenter } = *self;
        KeyRef { keyspace, consistency: consistency as u16, datacenter }
    }

    fn key(&self) -> Key {
        let KeyRef { keyspace, consistency, datacenter } = self.key_ref();
        Key { keyspace: keyspace.into(), consistency, datacenter: datacenter.map(Into::into) }
    }
}

/// How a node is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) state: NodeState,
    /// Whether it does not answer at this moment, whatever it did before and its state says of that.
    pub(super) is_gone: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    keyspace: Box<str>,
    consistency: u16,
    datacenter: Option<Box<str>>,
}

#[derive(Hash)]
struct KeyRef<'a> {
    keyspace: &'a str,
    consistency: u16,
    datacenter: Option<&'a str>,
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.consistency == key.consistency
            && self.keyspace == &*key.keyspace
            && self.datacenter == key.datacenter.as_deref()
    }
}

impl Outlook {
    pub(super) fn new() -> Self {
        Self {
            view: ArcSwap::from_pointee(View::empty()),
            is_clear: AtomicBool::new(true),
            evidence: Cache::new(VERDICTS),
        }
    }

    /// Whether nothing is known to be down. One read of an atomic.
    #[inline]
    pub(super) fn is_clear(&self) -> bool {
        self.is_clear.load(Relaxed)
    }

    pub(super) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// What can be served, as far as it is known: a node that was not heard of yet may well be up. `None` if nothing is known of such a keyspace.
    pub(super) fn judge(&self, question: Question<'_>) -> Option<Arc<Judgement>> {
        self.view.load().judge(question)
    }

    /// What the cluster has said of it since a node is down.
    pub(super) fn evidence(&self, question: Question<'_>) -> Arc<Evidence> {
        if let Some(known) = self.evidence.get(&question.key_ref()) {
            return known;
        }
        let evidence = Arc::new(Evidence::default());
        self.evidence.insert(question.key(), Arc::clone(&evidence));
        evidence
    }

    /// Takes over how the nodes are. `look` is asked for each node of the cluster; a node that the driver may not ask has none.
    pub(super) fn set(&self, cluster: &Arc<ClusterState>, look: impl Fn(Uuid) -> Option<Look>) {
        let before = self.view.load();
        let same_cluster = before.cluster.as_ref().is_some_and(|before| Arc::ptr_eq(before, cluster));
        let topology = if same_cluster {
            Arc::clone(&before.topology)
        } else {
            Topology::renewed(&before.topology, cluster)
        };
        let member = |up_if: fn(Look) -> bool| {
            let member = |place: &Place| {
                let look = look(place.host_id);
                let up = look.is_none_or(up_if);
                Member { datacenter: place.datacenter, up, coordinates: look.is_some() && up }
            };
            topology.nodes().iter().map(member).collect::<Vec<_>>()
        };
        let members = member(|look| !look.is_gone);
        let proven = member(|look| matches!(look.state, NodeState::Up | NodeState::Degraded));
        if same_cluster && members == before.members && proven == before.proven {
            return;
        }
        let is_clear = members.iter().all(|member| member.up);
        let judgements = Cache::new(VERDICTS);
        let view = View { cluster: Some(Arc::clone(cluster)), topology, members, proven, judgements };
        self.view.store(Arc::new(view));
        self.is_clear.store(is_clear, Relaxed);
        if is_clear {
            self.evidence.clear();
        }
    }

    /// Forgets everything: nobody watches any more.
    pub(super) fn clear(&self) {
        self.is_clear.store(true, Relaxed);
        self.view.store(Arc::new(View::empty()));
        self.evidence.clear();
    }
}

impl View {
    fn empty() -> Self {
        Self {
            cluster: None,
            topology: Arc::new(Topology::empty()),
            members: Vec::new(),
            proven: Vec::new(),
            judgements: Cache::new(1),
        }
    }

    fn judge(&self, question: Question<'_>) -> Option<Arc<Judgement>> {
        if let Some(known) = self.judgements.get(&question.key_ref()) {
            return Some(known);
        }
        let judgement = Arc::new(self.consider(question, &self.members)?);
        self.judgements.insert(question.key(), Arc::clone(&judgement));
        Some(judgement)
    }

    /// What can be served for sure: by nodes that have answered.
    pub(super) fn prove(&self, question: Question<'_>) -> Option<Judgement> {
        self.consider(question, &self.proven)
    }

    fn consider(&self, question: Question<'_>, members: &[Member]) -> Option<Judgement> {
        let cluster = self.cluster.as_ref()?;
        let placement = self.topology.placement(cluster, question.keyspace)?;
        // A datacenter that does not exist has no nodes.
        let near = question.datacenter.map(|name| self.topology.datacenter(name).unwrap_or(usize::MAX));
        let verdict = judge(&placement, members, question.consistency, near);
        let name = |datacenter: &usize| self.topology.datacenter_name(*datacenter).to_owned();
        Some(Judgement {
            share: verdict.share,
            datacenters: verdict.datacenters.iter().map(name).collect(),
            problem: self.problem(question, &verdict),
        })
    }

    fn problem(&self, question: Question<'_>, verdict: &Verdict) -> Option<String> {
        let Question { keyspace, consistency, datacenter } = question;
        let level = level_name(consistency);
        let name = |index: usize| datacenter.unwrap_or_else(|| self.topology.datacenter_name(index));
        let mut text = format!("keyspace {keyspace} cannot be served at {level}: ");
        // Writing to a string does not fail.
        let _ = match verdict.obstacle.as_ref()? {
            Obstacle::NoCoordinator { datacenter } => self.no_coordinator(&mut text, *datacenter, name),
            Obstacle::NoReplicas { datacenter } => write!(
                text,
                "it has no replicas in datacenter {}; use another datacenter, or alter the keyspace",
                name(*datacenter)
            ),
            Obstacle::TooFew(shortage) => self.too_few(&mut text, shortage),
        };
        if verdict.share > 0.0 {
            let _ = write!(text, " ({:.1}% of it can be)", (verdict.share * 1_000.0).floor() / 10.0);
        }
        Some(text)
    }

    fn no_coordinator<'a>(
        &'a self,
        text: &mut String,
        datacenter: Option<usize>,
        name: impl Fn(usize) -> &'a str,
    ) -> std::fmt::Result {
        let advice = match datacenter {
            None => {
                text.push_str("no node is up");
                "check the nodes and the network"
            }
            Some(index) => {
                write!(text, "no node of datacenter {} is up", name(index))?;
                "check it, or use another one"
            }
        };
        let is_there = |place: &&Place| datacenter.is_none_or(|index| index == place.datacenter);
        let nodes = || self.topology.nodes().iter().filter(is_there);
        for (i, place) in nodes().take(NAMED).enumerate() {
            write!(text, "{}{}", if i == 0 { ": " } else { ", " }, place.address)?;
        }
        match nodes().skip(NAMED).count() {
            0 => {}
            more => write!(text, " and {more} more")?,
        }
        write!(text, "; {advice}")
    }

    fn too_few(&self, text: &mut String, shortage: &Shortage) -> std::fmt::Result {
        let Shortage { datacenter, required, up, replicas, down } = shortage;
        write!(text, "{up} of {replicas} replicas are up")?;
        if let Some(datacenter) = datacenter {
            write!(text, " in datacenter {}", self.topology.datacenter_name(*datacenter))?;
        }
        write!(text, ", and it takes {required}")?;
        for (i, node) in down.iter().enumerate() {
            text.push_str(if i == 0 { "; down: " } else { ", " });
            if let Some(place) = self.topology.nodes().get(*node) {
                write!(text, "{}", place.address)?;
            }
        }
        text.push_str(if down.is_empty() {
            "; add nodes or use a lower level"
        } else {
            "; wait for them or use a lower level"
        });
        Ok(())
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("members", &self.members).finish_non_exhaustive()
    }
}

/// As it is written in CQL.
pub(super) const fn level_name(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Any => "ANY",
        Consistency::One => "ONE",
        Consistency::Two => "TWO",
        Consistency::Three => "THREE",
        Consistency::Quorum => "QUORUM",
        Consistency::All => "ALL",
        Consistency::LocalQuorum => "LOCAL_QUORUM",
        Consistency::EachQuorum => "EACH_QUORUM",
        Consistency::LocalOne => "LOCAL_ONE",
        Consistency::Serial => "SERIAL",
        Consistency::LocalSerial => "LOCAL_SERIAL",
    }
}
