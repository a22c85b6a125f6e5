//! Keeping the taints of all nodes as they should be: part of the sweep, because a node without an address has no machine
//! of an address that could do it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use kube::{Api, ResourceExt, api::ListParams};
use tokio::time::timeout;

use super::{
    Controller,
    act::Done,
    claims::Claims,
    decide::facts::Mode,
    observe::{Subject, nodes::SlimNode},
    tables::Key,
    taints::{self, NodeTaints},
};
use crate::{
    api::{AppliedTaint, NetIPAllocation},
    lifecycle::backoff::Backoff,
};

/// For single calls to the API server.
const CALL: Duration = Duration::from_secs(10);

/// Nodes that could not be changed: how often in a row, and when that is tried again (P11).
#[derive(Default)]
pub(super) struct Failing(BTreeMap<String, (u32, Instant)>);

impl Failing {
    /// Not tried again yet.
    pub(super) fn waits(&self, node: &str) -> bool {
        self.0.get(node).is_some_and(|(_, again)| Instant::now() < *again)
    }

    /// One writer does one node after another, so none of them return together.
    pub(super) fn failed(&mut self, node: String) {
        let attempts = self.0.get(&node).map_or(1, |(attempts, _)| attempts.saturating_add(1));
        self.0.insert(node, (attempts, Instant::now() + Backoff::TRANSIENT.delay(attempts, 0.0)));
    }

    /// It was changed, or is as it shall be.
    pub(super) fn forget(&mut self, node: &str) {
        self.0.remove(node);
    }
}

impl Controller {
    /// Puts taints on and takes them off, wherever they are not as they should be.
    pub(super) async fn keep_taints(&self, failing: &mut Failing) {
        let taints = self.taints().await;
        if taints.is_empty() {
            return;
        }
        for node in self.nodes.all().iter() {
            let name = node.name_any();
            if self.stop.is_cancelled() {
                return;
            }
            if failing.waits(&name) || self.is_busy(node) || taints.on(node).is_none() {
                continue;
            }
            match self.actor.taint(&name, &taints).await {
                Done::Node(written) => {
                    failing.forget(&name);
                    match written {
                        Some(written) => self.nodes.wrote(*written),
                        None => self.nodes.gone(node.metadata.uid.clone()),
                    }
                }
                other => {
                    self.tell_node_not_patched(node, "the taints", &other);
                    failing.failed(name);
                }
            }
        }
    }

    /// The taints of all allocations but those that are let go with everything left as it is.
    async fn taints(&self) -> NodeTaints {
        let mut heard: Vec<Arc<NetIPAllocation>> = Vec::new();
        for object in self.ledger.all() {
            let tainted = object.status.as_ref().is_some_and(|status| status.node_taint.is_some());
            let terminating = object.metadata.deletion_timestamp.is_some();
            // While it cannot be told whether the CRD goes, nothing of it is touched (P3).
            if tainted && !(terminating && self.retains(&object).await.unwrap_or(true)) {
                heard.push(object);
            }
        }
        NodeTaints::of(heard.iter().map(AsRef::as_ref))
    }

    /// An effect holds the node's machine: it minds the taint itself.
    fn is_busy(&self, node: &SlimNode) -> bool {
        node.place().is_some_and(|place| self.tables().flights.is_busy(&Key::Machine(place)))
    }

    /// Whether the recorded taint, wanted nowhere any more, is on no node: then status may forget it.
    pub(super) async fn no_taint_left(&self, subject: &Subject, claims: &Claims) -> bool {
        match taints::over(&subject.object) {
            Some(taint) if subject.mode != Mode::Observe => {
                self.is_off_every_node(taint, subject, claims.taints()).await
            }
            Some(_) | None => false,
        }
    }

    /// By a live list: once it is forgotten, nobody takes it off any more.
    async fn is_off_every_node(&self, taint: &AppliedTaint, subject: &Subject, taints: &NodeTaints) -> bool {
        if self.nodes.all().iter().any(|node| taints.is_left_on(node, taint) || self.is_busy(node)) {
            return false;
        }
        let nodes: Api<SlimNode> = Api::all(self.client.clone());
        match timeout(CALL, nodes.list(&ListParams::default())).await {
            Ok(Ok(nodes)) => !nodes.items.iter().any(|node| taints.is_left_on(node, taint)),
            Ok(Err(error)) => {
                tracing::warn!(crd = subject.name, %error, "whether its taint is off every node cannot be read");
                false
            }
            Err(_) => false,
        }
    }
}
