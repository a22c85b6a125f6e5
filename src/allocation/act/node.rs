//! The labels that say that a node has an address, and whose it is, and the taint that is their mirror: always in one
//! patch, which carries the Node's uid (F8).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::timeout;

use super::{Actor, Deed, Done, Noted};
use crate::{
    allocation::{observe::nodes::SlimNode, taints::NodeTaints},
    api::{ADDRESS_LABEL, ALLOCATION_LABEL, READY_LABEL, READY_VALUE},
    cloud::{Gate, ProviderId},
};

/// A Node's taints are one list, which others write too: a patch that changes it is made anew so often, each time from
/// what the other writer left there. Then the deed has failed, and is tried again later like any other.
const TRIES: u32 = 5;

/// Labels as they shall be; `None` takes one off.
type Labels = BTreeMap<&'static str, Option<String>>;

/// What shall be done to a node, seen as it is now.
enum Wish {
    Change(Labels),
    /// It is as it shall be, or not ours to change.
    Leave,
    Refuse(String),
}

impl Actor {
    /// `ip.ready=true`, and whose address it is; the taint goes.
    pub(super) async fn label(&self, name: &str, deed: &Deed, noted: &mut Vec<Noted>) -> Done {
        let labels = Labels::from([
            (READY_LABEL, Some(READY_VALUE.to_owned())),
            (ALLOCATION_LABEL, Some(deed.allocation.clone())),
            (ADDRESS_LABEL, Some(deed.ip.to_string())),
        ]);
        self.change(name, &deed.taints, noted, |node| match node.metadata.uid == deed.node_uid {
            true => Wish::Change(labels.clone()),
            false => Wish::Refuse(format!("node {name} was created anew since; looks again")),
        })
        .await
    }

    /// Takes the labels off, unless another allocation has earned them or the Node is another machine's by now, and puts
    /// the taint on. `left_by`: an allocation whose labels are nobody's any more.
    pub async fn unlabel(
        &self,
        name: &str,
        machine: &ProviderId,
        allocation: &str,
        left_by: Option<&str>,
        taints: &NodeTaints,
        noted: &mut Vec<Noted>,
    ) -> Done {
        self.change(name, taints, noted, |node| {
            let earned = |whose: &str| whose != allocation && Some(whose) != left_by;
            let is_another = node.place().is_some_and(|place| place != *machine);
            if is_another || node.label(ALLOCATION_LABEL).is_some_and(earned) {
                return Wish::Leave;
            }
            let ours = [READY_LABEL, ALLOCATION_LABEL, ADDRESS_LABEL];
            Wish::Change(ours.into_iter().filter(|key| node.label(key).is_some()).map(|key| (key, None)).collect())
        })
        .await
    }

    /// The taints alone: put on where no address is verified, taken off where one is or nobody wants them.
    pub async fn taint(&self, name: &str, taints: &NodeTaints) -> Done {
        // No label is touched, so there is nothing to note.
        self.change(name, taints, &mut Vec::new(), |_| Wish::Change(Labels::new())).await
    }

    async fn change(
        &self,
        name: &str,
        taints: &NodeTaints,
        noted: &mut Vec<Noted>,
        wish: impl Fn(&SlimNode) -> Wish + Send,
    ) -> Done {
        for _ in 0..TRIES {
            let node = match self.live_node(name).await {
                Ok(Some(node)) => node,
                Ok(None) => return Done::Node(None),
                Err(why) => return Done::NodeFailed(why),
            };
            let labels = match wish(&node) {
                Wish::Change(labels) => labels,
                Wish::Leave => return Done::Node(Some(Box::new(node))),
                Wish::Refuse(why) => return Done::NodeFailed(why),
            };
            let list = taints.on(&with(&node, &labels));
            if labels.is_empty() && list.is_none() {
                return Done::Node(Some(Box::new(node)));
            }
            if let Some(done) = self.patch(&node, &labels, list).await {
                if let Done::Node(Some(written)) = &done {
                    noted.extend(relabelled(name, &node, written));
                }
                return done;
            }
        }
        Done::NodeFailed(format!("node {name} was changed by others each time; looks again"))
    }

    /// The node as it is now: a deed is never done on the word of the cache (F3).
    async fn live_node(&self, name: &str) -> Result<Option<SlimNode>, String> {
        let api: Api<SlimNode> = Api::all(self.client.clone());
        match timeout(self.timeout, api.get_opt(name)).await {
            Ok(Ok(node)) => Ok(node),
            Ok(Err(error)) => Err(format!("reading node {name} failed: {error}")),
            Err(_) => Err(format!("reading node {name} had no answer in time")),
        }
    }

    /// One merge patch. A node replaced under the same name has another uid, which the API server refuses with 422. A merge
    /// patch replaces lists whole, so one with taints is for the very version that was read: `None` when somebody has
    /// written meanwhile, whose taint it would have lost. Labels alone are nobody else's, and need no version.
    async fn patch(&self, node: &SlimNode, labels: &Labels, taints: Option<Vec<Taint>>) -> Option<Done> {
        let name = node.name_any();
        let patch = match taints {
            Some(taints) => json!({
                "metadata": {
                    "uid": node.metadata.uid,
                    "resourceVersion": node.metadata.resource_version,
                    "labels": labels,
                },
                "spec": {"taints": taints},
            }),
            None => json!({"metadata": {"uid": node.metadata.uid, "labels": labels}}),
        };
        if let Err(closed) = self.gate().open_for(self.timeout) {
            return Some(Done::NodeFailed(closed.to_string()));
        }
        let api: Api<SlimNode> = Api::all(self.client.clone());
        match timeout(self.timeout, api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))).await {
            Ok(Ok(written)) => Some(Done::Node(Some(Box::new(written)))),
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => Some(Done::Node(None)),
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() => None,
            Ok(Err(error)) => Some(Done::NodeFailed(format!("patching node {name} failed: {error}"))),
            Err(_) => Some(Done::NodeFailed(format!("patching node {name} had no answer in time"))),
        }
    }
}

/// What a patch has made of `ip.ready`.
fn relabelled(name: &str, before: &SlimNode, after: &SlimNode) -> Option<Noted> {
    match [before, after].map(|node| node.label(READY_LABEL).is_some()) {
        [false, true] => Some(Noted::Labeled(name.to_owned())),
        [true, false] => Some(Noted::Unlabeled(name.to_owned())),
        [true, true] | [false, false] => None,
    }
}

/// The node as it will be with these labels.
fn with(node: &SlimNode, labels: &Labels) -> SlimNode {
    let mut node = node.clone();
    let all = node.metadata.labels.get_or_insert_default();
    for (key, value) in labels {
        match value {
            Some(value) => all.insert((*key).to_owned(), value.clone()),
            None => all.remove(*key),
        };
    }
    node
}

#[cfg(test)]
mod tests;
