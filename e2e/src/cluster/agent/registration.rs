//! The agent's Node: a plain one that no kwok manages. It says itself that it lives.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeSpec, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::AGENT_LABEL;
use crate::cluster::node::condition;

/// A third of the shortest grace period that anybody sets.
const BEAT: Duration = Duration::from_secs(2);

const LEASE_NAMESPACE: &str = "kube-node-lease";

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
    beat(client, name).await
}

/// Renews the Lease, and the Ready condition whenever somebody thought otherwise. Runs until it is aborted.
pub(super) async fn keep_alive(client: Client, name: String) {
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        match tokio::time::timeout(4 * BEAT, beat(&client, &name)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!("heartbeat of node {name}: {error:#}"),
            Err(_) => tracing::info!("heartbeat of node {name}: no answer"),
        }
    }
}

async fn beat(client: &Client, name: &str) -> anyhow::Result<()> {
    let lease = Lease {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(8),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        }),
    };
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASE_NAMESPACE);
    leases.patch(name, &PatchParams::apply("e2e-agent").force(), &Patch::Apply(&lease)).await?;

    let nodes: Api<Node> = Api::all(client.clone());
    let node = nodes.get(name).await?;
    if condition(&node, "Ready").is_some_and(|ready| ready.status == "True") {
        return Ok(());
    }
    let now = Timestamp::now().to_string();
    let says = |kind: &str, status: &str, reason: &str| json!({ "type": kind, "status": status, "reason": reason, "message": "", "lastHeartbeatTime": now, "lastTransitionTime": now });
    let resources = json!({ "cpu": "64", "memory": "256Gi", "pods": "250" });
    let status = json!({ "status": {
        "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }, { "type": "Hostname", "address": name }],
        "capacity": resources,
        "allocatable": resources,
        "conditions": [
            says("Ready", "True", "KubeletReady"),
            says("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            says("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            says("PIDPressure", "False", "KubeletHasSufficientPID"),
        ],
    } });
    nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await?;
    Ok(())
}
