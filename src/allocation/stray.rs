//! Stray labels (§3.5): `ip.ready` on a node that has no address of ours. Looked for over all nodes, not per address.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::ResourceExt;
use kube_runtime::reflector::ObjectRef;

use super::{
    Controller,
    act::Done,
    decide::{
        facts::User,
        users::{self, Workload},
    },
    memory::{self, Stored},
    observe::{cloud_view::holder, nodes::SlimNode},
    tables::Key,
};
use crate::{
    api::{ALLOCATION_LABEL, READY_LABEL},
    cloud::Scope,
    metrics::NodeGauges,
};

/// Between two looks; each costs nothing but memory unless a stray is found.
const EVERY: Duration = Duration::from_secs(2);

impl Controller {
    /// Looks for stray labels until the term ends.
    pub async fn sweep(self: Arc<Self>) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            self.forget_the_gone().await;
            self.gauge_nodes();
            if self.config.observe_only {
                continue;
            }
            for node in self.nodes.all() {
                if node.label(READY_LABEL).is_some() && self.is_stray(&node).await {
                    self.take_off(&node).await;
                }
            }
        }
    }

    /// Allocations that went without a pass of ours: their claims and seats must not outlive them.
    async fn forget_the_gone(&self) {
        for object in self.ledger.all() {
            let name = object.name_any();
            let cached = self.allocations.get(&ObjectRef::new(&name));
            if cached.is_none() && matches!(self.ledger.reread(&name).await, Ok(None)) {
                self.forget(&name);
            }
        }
        let nodes: BTreeSet<String> = self.nodes.all().iter().map(|node| node.name_any()).collect();
        self.tables().prune(Timestamp::now(), &nodes);
    }

    fn gauge_nodes(&self) {
        let all = self.ledger.all();
        let selected = |node: &SlimNode| all.iter().any(|object| node.matches(&object.spec.node_selector));
        let nodes = self.nodes.all();
        let cordoned: Vec<_> = nodes
            .iter()
            .filter(|node| selected(node))
            .map(|node| NodeGauges { name: node.name_any(), cordoned: node.cordoned() })
            .collect();
        self.gauges.nodes(&cordoned);
        self.gauges.effects_in_flight(&self.in_flight());
    }

    /// No allocation claims the node in its status, and a complete survey that counts shows no address on its machine.
    async fn is_stray(&self, node: &SlimNode) -> bool {
        let name = node.name_any();
        if self.claimed().contains(&name) {
            return false;
        }
        let Some(place) = node.place() else { return false };
        let Some(parsed) = place.place() else { return false };
        let scope =
            Scope { provider: parsed.provider, account: parsed.account, region: parsed.region, resource_group: None };
        let (Some(survey), None) = self.view.survey(&scope) else { return false };
        {
            let tables = self.tables();
            let key = Key::Machine(place.clone());
            if tables.flights.is_busy(&key)
                || tables.seats.is_taken(&place)
                || !tables.reads.counts([&key], survey.began)
            {
                return false;
            }
        }
        if survey.addresses.values().any(|reservation| holder(reservation) == Some(&place)) {
            return false;
        }
        // A label that names an allocation of another release is that one's business.
        match node.label(ALLOCATION_LABEL) {
            Some(whose) if !self.ledger.all().iter().any(|object| object.name_any() == whose) => {
                !self.ledger.exists(whose).await
            }
            Some(_) | None => true,
        }
    }

    /// Nodes that some allocation's status names.
    fn claimed(&self) -> BTreeSet<String> {
        let all = self.ledger.all();
        let stored = all.iter().filter_map(|object| object.status.as_ref()).flat_map(|status| &status.addresses);
        stored
            .filter_map(|stored| match memory::read(stored) {
                Stored::Known(entry) => entry.node,
                Stored::Foreign(status) => status.node,
            })
            .collect()
    }

    /// Labels off, then the pods that came because of them are asked to go.
    async fn take_off(&self, node: &SlimNode) {
        let name = node.name_any();
        tracing::warn!(node = name, "ip.ready is on a node without an address of ours; taken off");
        let whose = node.label(ALLOCATION_LABEL).unwrap_or_default().to_owned();
        match self.actor.unlabel(&name, &whose).await {
            Done::Node(Some(written)) => self.nodes.wrote(*written),
            Done::Node(None) => return,
            other => {
                tracing::warn!(node = name, outcome = ?other, "taking a stray label off failed");
                return;
            }
        }
        match self.pods.live(&name).await {
            Ok(pods) => {
                let gated: Vec<_> = pods.into_iter().filter(|pod| pod.gated).collect();
                let users: Vec<User> = users::users(&gated, &Workload::Unnamed);
                let going: Vec<User> = users.into_iter().filter(|user| user.terminating_until.is_none()).collect();
                for (user, asked) in self.actor.ask_all(&going).await {
                    tracing::info!(node = name, pod = user.name, outcome = ?asked, "asked a pod on a stray node to go");
                }
            }
            Err(error) => tracing::warn!(node = name, error, "pods on a stray node stay"),
        }
    }
}
