//! The agent's Node: a plain one that no kwok manages. It says itself that it lives.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::PostParams;
use kube::{Api, Client};

use super::AGENT_LABEL;
use crate::cluster::node::NodeSpec;
use crate::kubelet;

/// A third of the shortest grace period that anybody sets.
const BEAT: Duration = Duration::from_secs(2);

/// Creates the Node and says for the first time that it is ready.
pub(super) async fn register(client: &Client, spec: NodeSpec) -> anyhow::Result<()> {
    let name = spec.name.clone();
    let node = spec.label(AGENT_LABEL, "true").into_node();
    Api::<Node>::all(client.clone()).create(&PostParams::default(), &node).await?;
    kubelet::beat(client, &name, BEAT).await
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
