//! The labels that say that a node has an address, and whose it is: always in one patch, which carries the Node's uid (F8).

use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Actor, Deed, Done};
use crate::{
    allocation::observe::nodes::SlimNode,
    api::{ADDRESS_LABEL, ALLOCATION_LABEL, READY_LABEL, READY_VALUE},
    cloud::Gate,
};

impl Actor {
    /// `ip.ready=true`, and whose address it is.
    pub(super) async fn label(&self, name: &str, deed: &Deed) -> Done {
        let (allocation, address) = (&deed.allocation, deed.ip.to_string());
        let labels = json!({READY_LABEL: READY_VALUE, ALLOCATION_LABEL: allocation, ADDRESS_LABEL: address});
        match self.live_node(name).await {
            Ok(Some(node)) if node.metadata.uid != deed.node_uid => {
                Done::NodeFailed(format!("node {name} was created anew since; looks again"))
            }
            Ok(Some(node)) => self.patch_labels(&node, labels).await,
            Ok(None) => Done::Node(None),
            Err(why) => Done::NodeFailed(why),
        }
    }

    /// Takes the labels off, unless another allocation has earned them. `left_by`: one whose labels are nobody's any more.
    pub async fn unlabel(&self, name: &str, allocation: &str, left_by: Option<&str>) -> Done {
        let node = match self.live_node(name).await {
            Ok(Some(node)) => node,
            Ok(None) => return Done::Node(None),
            Err(why) => return Done::NodeFailed(why),
        };
        let others = node.label(ALLOCATION_LABEL).is_some_and(|whose| whose != allocation && Some(whose) != left_by);
        let none = [READY_LABEL, ALLOCATION_LABEL, ADDRESS_LABEL].iter().all(|key| node.label(key).is_none());
        if others || none {
            return Done::Node(Some(Box::new(node)));
        }
        self.patch_labels(&node, json!({READY_LABEL: null, ALLOCATION_LABEL: null, ADDRESS_LABEL: null})).await
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

    /// One merge patch. A node replaced under the same name has another uid, which the API server refuses with 422.
    async fn patch_labels(&self, node: &SlimNode, labels: Value) -> Done {
        let name = node.name_any();
        let patch = json!({"metadata": {"uid": node.metadata.uid, "labels": labels}});
        if let Err(closed) = self.gate().open_for(self.timeout) {
            return Done::NodeFailed(closed.to_string());
        }
        let api: Api<SlimNode> = Api::all(self.client.clone());
        match timeout(self.timeout, api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))).await {
            Ok(Ok(written)) => Done::Node(Some(Box::new(written))),
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => Done::Node(None),
            Ok(Err(error)) => Done::NodeFailed(format!("labelling node {name} failed: {error}")),
            Err(_) => Done::NodeFailed(format!("labelling node {name} had no answer in time")),
        }
    }
}
