//! Nodes that kwok pretends to be, and the ways in which a node goes away.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSpec as Spec, Taint};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::wait::Seen;

/// The label by which kwok knows a node that it plays the kubelet of.
pub const KWOK_LABEL: &str = "kwok";
/// Its value.
pub const KWOK_VALUE: &str = "yes";

/// A node that somebody plays the kubelet of.
#[derive(Clone, Debug, Default)]
pub struct NodeSpec {
    /// The node's name; also its `kubernetes.io/hostname`.
    pub name: String,
    /// Further labels (zone, region, pool).
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// `gce://PROJECT/ZONE/NAME`, `aws:///ZONE/ID`, `azure:///subscriptions/…`; none for a node that no cloud knows.
    pub provider_id: Option<String>,
    /// Taints it is born with.
    pub taints: Vec<Taint>,
}

impl NodeSpec {
    /// A node with a name and nothing else.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Adds an annotation.
    #[must_use]
    pub fn annotation(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    /// Says which machine it is.
    #[must_use]
    pub fn provider_id(mut self, id: impl Into<String>) -> Self {
        self.provider_id = Some(id.into());
        self
    }

    /// Adds a taint.
    #[must_use]
    pub fn taint(mut self, key: impl Into<String>, value: impl Into<String>, effect: impl Into<String>) -> Self {
        self.taints.push(Taint {
            key: key.into(),
            value: Some(value.into()),
            effect: effect.into(),
            ..Taint::default()
        });
        self
    }

    /// The object to create.
    #[must_use]
    pub fn into_node(self) -> Node {
        let mut labels = self.labels;
        labels.insert("kubernetes.io/hostname".to_owned(), self.name.clone());
        labels.insert("kubernetes.io/os".to_owned(), "linux".to_owned());
        Node {
            metadata: ObjectMeta {
                name: Some(self.name),
                labels: Some(labels),
                annotations: Some(self.annotations),
                ..ObjectMeta::default()
            },
            spec: Some(Spec {
                provider_id: self.provider_id,
                taints: (!self.taints.is_empty()).then_some(self.taints),
                ..Spec::default()
            }),
            status: None,
        }
    }
}

pub(super) async fn create(client: Client, spec: NodeSpec) -> kube::Result<Node> {
    let node = spec.label(KWOK_LABEL, KWOK_VALUE).into_node();
    Api::<Node>::all(client).create(&PostParams::default(), &node).await
}

/// With the label off kwok renews neither Lease nor status: to the cluster the kubelet has stopped answering.
pub(super) async fn heartbeat(client: Client, name: &str, beating: bool) -> kube::Result<()> {
    let patch = json!({ "metadata": { "labels": { KWOK_LABEL: beating.then_some(KWOK_VALUE) } } });
    Api::<Node>::all(client).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// The condition of that type, if the node has it.
#[must_use]
pub fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Ready, and rid of the taint that every node is born with.
pub(super) fn usable(node: &Node) -> Seen<()> {
    let ready = condition(node, "Ready").map_or("no condition", |condition| condition.status.as_str());
    let born = |taint: &&Taint| taint.key == "node.kubernetes.io/not-ready";
    let tainted = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_ref())
        .is_some_and(|taints| taints.iter().any(|taint| born(&taint)));
    Seen::when(ready == "True" && !tainted, format!("Ready: {ready}, tainted: {tainted}"))
}
