//! The sweep: what concerns all nodes and all allocations, and no single address.
//!
//! Stray labels (§3.5): `ip.ready` on a node that has no address of ours is taken off, and the pods that it brought are
//! asked to go, as are those on nodes that somebody else took an address off (`evicting`). The taints of nodes without an address
//! are kept (`taints`). Beside that, what is over is forgotten, and the gauges over all nodes are told.

mod evicting;
mod evidence;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kube::ResourceExt;
use kube_runtime::reflector::ObjectRef;

use self::evicting::Evicting;
use super::{
    Controller,
    act::{Done, Noted, pods::Asked},
    decide::{
        facts::User,
        users::{self, Workload},
    },
    moment::Moment,
    observe::nodes::SlimNode,
    record::{audience, events::Event, tell::Word},
    tables::Key,
    tainting::Failing,
};
use crate::{
    api::{ALLOCATION_LABEL, Mode, READY_LABEL},
    cloud::{Place, ProviderId},
    metrics::{self, Eviction, NodeGauges},
};

/// Between two looks; each costs nothing but memory unless a stray is found.
const EVERY: Duration = Duration::from_secs(2);
/// Between two times at which what is over is forgotten: it is in nobody's way.
const TIDY_EVERY: Duration = Duration::from_secs(60);

impl Controller {
    /// Sweeps until the term ends.
    pub async fn sweep(self: Arc<Self>) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tidying = tokio::time::interval(TIDY_EVERY);
        let mut evicting = Evicting::default();
        let mut failing = Failing::default();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = tidying.tick() => {
                    self.tidy();
                    continue;
                }
                _ = tick.tick() => {}
            }
            self.forget_the_gone().await;
            self.return_stale_permits();
            self.gauge_nodes();
            if !self.config.observe_only && !self.stop.is_cancelled() {
                // Among the effects: the Lease is not released while a request of the sweep is under way (F6).
                let deeds = async {
                    self.take_strays_off(&mut evicting, &mut failing).await;
                    self.ask_those_left_behind(&mut evicting).await;
                    self.keep_taints(&mut failing).await;
                };
                self.effects.track_future(deeds).await;
            }
        }
    }

    /// Allocations that went without a pass of ours: their claims and seats must not outlive them.
    async fn forget_the_gone(&self) {
        for object in self.ledger.all() {
            let name = object.name_any();
            let cached = self.allocations.get(&ObjectRef::new(&name));
            let same = cached.is_some_and(|cached| cached.uid() == object.uid());
            if same {
                continue;
            }
            // Not to be told now: looked at again with the next tick.
            let Ok(live) = self.ledger.reread(&name).await else { continue };
            match live {
                None => self.forget(&name),
                Some(live) if live.uid() == object.uid() => {}
                Some(_) => {
                    if let Some(uid) = object.uid() {
                        self.forget_uid(&uid);
                    }
                }
            }
        }
    }

    /// Forgets what is over, so that nothing grows with the cluster's history.
    fn tidy(&self) {
        let nodes = self.nodes.all();
        let names = nodes.iter().map(|node| node.name_any()).collect();
        let machines = nodes.iter().filter_map(|node| node.place()).collect();
        self.tables().prune(&Moment::here(), &names, &machines);
        self.view.answers().prune(&Moment::here());
        self.nodes.prune();
        let is_there = |name: &String| self.allocations.get(&ObjectRef::new(name)).is_some();
        self.failures().retain(|name, _| is_there(name));
        self.undecodable().retain(|name, _| is_there(name));
        self.cadences().retain(|name, _| is_there(name));
        self.resting().retain(is_there);
    }

    fn gauge_nodes(&self) {
        let all = self.ledger.all();
        let selected = |node: &SlimNode| all.iter().any(|object| node.matches(&object.spec.node_selector));
        let nodes = self.nodes.all();
        let cordoned = nodes
            .iter()
            .filter(|node| selected(node))
            .map(|node| NodeGauges { name: node.name_any(), cordoned: node.cordoned() })
            .collect();
        self.gauges.nodes(cordoned);
        self.gauges.effects_in_flight(self.in_flight());
    }

    async fn take_strays_off(&self, evicting: &mut Evicting, failing: &mut Failing) {
        let nodes = self.nodes.all();
        let claims = self.claims(&nodes);
        let labelled = nodes.iter().filter(|node| node.label(READY_LABEL).is_some());
        let unclaimed = labelled.filter(|node| node.metadata.name.as_ref().is_some_and(|name| !claims.names(name)));
        for node in unclaimed {
            if self.stop.is_cancelled() {
                return;
            }
            let name = node.name_any();
            if !failing.waits(&name) && self.is_stray(node).await && self.take_off(node, failing).await {
                evicting.left(name, Moment::here().now);
            }
        }
    }

    /// Asks the pods to go that stay where no address is any more.
    async fn ask_those_left_behind(&self, evicting: &mut Evicting) {
        let now = Moment::here().now;
        for (node, since) in evicting::drifted(self.ledger.all().iter().map(AsRef::as_ref), now) {
            evicting.left(node, since);
        }
        if evicting.is_empty() {
            return;
        }
        let claims = self.claims(&self.nodes.all());
        // One that is gone has no pods to ask, and one that is labelled has an address, or is found to be a stray.
        let unlabelled = |node: &str| self.nodes.get(node).is_some_and(|node| node.label(READY_LABEL).is_none());
        evicting.forget(|node| claims.names(node) || !unlabelled(node), now);
        for node in evicting.due(Instant::now()) {
            if self.stop.is_cancelled() {
                return;
            }
            let stays = self.ask_gated_pods(&node).await;
            evicting.asked(&node, Instant::now(), stays);
        }
    }

    /// Its machine has no address of ours for sure, and its label names no allocation of another release.
    async fn is_stray(&self, node: &SlimNode) -> bool {
        if self.is_observed(node) {
            return false;
        }
        let Some(place) = node.place() else { return false };
        let Some(home) = node.location().as_deref().map(Place::scope) else { return false };
        let is_empty = {
            let tables = self.tables();
            evidence::is_empty(&place, &home, &self.view.answers(), &tables, &Moment::here())
        };
        if !is_empty {
            return false;
        }
        match node.label(ALLOCATION_LABEL) {
            Some(whose) if !self.ledger.knows(whose) => !self.ledger.exists(whose).await,
            Some(_) | None => true,
        }
    }

    /// The label is that of an allocation which is only observed, or on a node that one selects and nobody's: somebody
    /// else puts it there, such as an operator that is about to be replaced.
    fn is_observed(&self, node: &SlimNode) -> bool {
        let all = self.ledger.all();
        let mut observed = all.iter().filter(|object| object.spec.mode == Mode::Observe);
        observed.any(|object| match node.label(ALLOCATION_LABEL) {
            Some(whose) => whose == object.name_any(),
            None => node.matches(&object.spec.node_selector),
        })
    }

    /// Whether the labels are off.
    async fn take_off(&self, node: &SlimNode, failing: &mut Failing) -> bool {
        let Some(place) = node.place() else { return false };
        // What began since is about to give the node its address.
        let begun = {
            let mut tables = self.tables();
            if tables.seats.is_taken(&place) { None } else { tables.flights.begin([Key::Machine(place.clone())]) }
        };
        let Some(ticket) = begun else { return false };
        let off = self.unlabel_stray(node, &place, failing).await;
        self.tables().flights.end(ticket);
        self.wake.node(&node.name_any());
        off
    }

    async fn unlabel_stray(&self, node: &SlimNode, place: &ProviderId, failing: &mut Failing) -> bool {
        let name = node.name_any();
        tracing::warn!(node = name, "ip.ready is on a node without an address of ours; taken off");
        let whose = node.label(ALLOCATION_LABEL).unwrap_or_default().to_owned();
        let claims = self.claims(&self.nodes.all());
        let mut noted = Vec::new();
        let done = self.actor.unlabel(&name, place, &whose, None, claims.taints(), &mut noted).await;
        if noted.iter().any(|noted| matches!(noted, Noted::Unlabeled(_))) {
            let note = format!("node {name} has no address of ours, so ip.ready was taken off");
            self.teller.say_of_node(node, Word::new(Event::NodeUnlabeled, "", note));
        }
        match done {
            Done::Node(Some(written)) => {
                failing.forget(&name);
                // Somebody may have labelled it for another allocation meanwhile: then it is no stray.
                let off = written.label(READY_LABEL).is_none();
                self.nodes.wrote(*written);
                off
            }
            Done::Node(None) => {
                self.nodes.gone(node.metadata.uid.clone());
                false
            }
            other => {
                self.tell_node_not_patched(node, "the labels", &other);
                failing.failed(name);
                false
            }
        }
    }

    /// The labels or taints of a node, which are no single allocation's business, could not be changed.
    pub(super) fn tell_node_not_patched(&self, node: &SlimNode, what: &str, done: &Done) {
        let name = node.name_any();
        let why = match done {
            Done::NodeFailed(why) => why.clone(),
            other => format!("{other:?}"),
        };
        tracing::warn!(node = name, error = why, "changing {what} of a node failed");
        metrics::node_patch_failed("");
        let note = format!("{what} of node {name} could not be changed: {why}");
        self.teller.say_of_node(node, Word::new(Event::NodePatchFailed, what, note));
    }

    /// Asks the pods that came because of the labels to go, those that hold apart; whether any may still be there.
    async fn ask_gated_pods(&self, node: &str) -> bool {
        let pods = match self.pods.live(node).await {
            Ok(pods) => pods,
            Err(error) => {
                tracing::warn!(node, error, "pods on a node that has no address any more stay for now");
                return true;
            }
        };
        let gated: Vec<_> = pods.into_iter().filter(|pod| pod.gated).collect();
        let users: Vec<User> = users::users(&gated, &Workload::Unnamed);
        let staying: Vec<User> = users.into_iter().filter(|user| user.terminating_until.is_none()).collect();
        let asked: Vec<User> = staying.iter().filter(|user| !user.hold).cloned().collect();
        for (user, answer) in self.actor.ask_all(&asked).await {
            self.tell_asked_beside(node, &user, &answer);
        }
        !staying.is_empty()
    }

    fn tell_asked_beside(&self, node: &str, user: &User, asked: &Asked) {
        tracing::info!(node, pod = user.name, outcome = ?asked, "asked a pod on a node without an address to go");
        let pod = &format!("{}/{}", user.namespace, user.name);
        let (outcome, word) = match asked {
            Asked::Accepted => {
                let note = format!("pod {pod} was asked to leave node {node}, and goes");
                (Eviction::Evicted, Some((Event::PodEvicted, note)))
            }
            Asked::Blocked(why) => {
                let note = format!("pod {pod} may not leave node {node} yet: {why}");
                (Eviction::Blocked, Some((Event::EvictionBlocked, note)))
            }
            Asked::Failed(_) => (Eviction::Error, None),
        };
        metrics::evicted("", outcome);
        if let (Some((event, note)), Some(node)) = (word, self.nodes.get(node)) {
            let workload = audience::controller(&user.namespace, user.controller.as_ref());
            self.teller.say_of_node(&node, Word::new(event, pod, note).of(workload));
        }
    }
}
