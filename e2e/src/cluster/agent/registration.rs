//! The agent's Node: a plain one that no kwok manages. It says itself that it lives.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeSpec, Taint};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use super::AGENT_LABEL;
use crate::kubelet;

/// A third of the shortest grace period that anybody sets.
const BEAT: Duration = Duration::from_secs(2);

/// Creates the Node and says for the first time that it is ready.
pub(super) async fn register(
    client: &Client,
    name: &str,
    mut labels: BTreeMap<String, String>,
    taints: Vec<Taint>,
) -> anyhow::Result<()> {
    labels.insert(AGENT_LABEL.to_owned(), "true".to_owned());
    labels.insert("kubernetes.io/hostname".to_owned(), name.to_owned());
    labels.insert("kubernetes.io/os".to_owned(), "linux".to_owned());
    let node = Node {
        metadata: ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() },
        spec: Some(NodeSpec { taints: (!taints.is_empty()).then_some(taints), ..NodeSpec::default() }),
        status: None,
    };
    Api::<Node>::all(client.clone()).create(&PostParams::default(), &node).await?;
    kubelet::beat(client, name, BEAT).await
}

/// Renews the Lease, and the Ready condition whenever somebody thought otherwise. Runs until it is aborted.
pub(super) async fn keep_alive(client: Client, name: String) {
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        match tokio::time::timeout(4 * BEAT, kubelet::beat(&client, &name, BEAT)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!("heartbeat of node {name}: {error:#}"),
            Err(_) => tracing::info!("heartbeat of node {name}: no answer"),
        }
    }
}
