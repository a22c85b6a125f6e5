//! What a kubelet says of its node and of the pods there, for nodes that are only pretended.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use futures::TryStreamExt;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, Preconditions},
};
use kube_runtime::{
    WatchStreamExt,
    watcher::{self, Config},
};
use serde_json::json;

use crate::cluster::condition;

const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Leads nowhere (RFC 5737). Not loopback: an EndpointSlice refuses such addresses.
const NOWHERE: &str = "192.0.2.1";

/// Renews the node's Lease, which counts for four beats; says Ready whenever somebody thought otherwise.
///
/// # Errors
/// The API server's.
pub async fn beat(client: &Client, name: &str, every: Duration) -> Result<()> {
    let lease = Lease {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(i32::try_from(4 * every.as_secs())?),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        }),
    };
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASE_NAMESPACE);
    leases.patch(name, &PatchParams::apply("pretended-kubelet").force(), &Patch::Apply(&lease)).await?;

    let nodes: Api<Node> = Api::all(client.clone());
    let node = nodes.get(name).await?;
    if condition(&node, "Ready").is_some_and(|ready| ready.status == "True") {
        return Ok(());
    }
    let now = Timestamp::now().to_string();
    let says = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": "",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    let resources = json!({"cpu": "64", "memory": "256Gi", "pods": "250"});
    let status = json!({"status": {
        // No InternalIP: a cluster's network would make a route to it.
        "addresses": [{"type": "Hostname", "address": name}],
        "capacity": resources,
        "allocatable": resources,
        "conditions": [
            says("Ready", "True", "KubeletReady"),
            says("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            says("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            says("PIDPressure", "False", "KubeletHasSufficientPID"),
        ],
    }});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await?;
    Ok(())
}

/// Says of every pod on the node that it runs, and lets it go when its grace period is over. Ends with the watch's first
/// error that it cannot recover from.
///
/// # Errors
/// The API server's.
pub async fn pretend_pods(client: Client, node: String) -> Result<()> {
    let pods: Api<Pod> = Api::all(client.clone());
    let watch = watcher::watcher(pods, Config::default().fields(&format!("spec.nodeName={node}")));
    let mut events = std::pin::pin!(watch.default_backoff().applied_objects());
    // Uids of pods whose end is waited for.
    let mut ending = BTreeSet::new();
    while let Some(pod) = events.try_next().await? {
        let Some(namespace) = pod.namespace() else { continue };
        let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        if pod.metadata.deletion_timestamp.is_some() {
            if ending.insert(pod.uid()) {
                tokio::spawn(end(api, pod));
            }
        } else if pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Pending") {
            // Whoever changed it meanwhile has sent the next event.
            if let Err(error) = start(&api, &pod).await {
                tracing::debug!("pod {namespace}/{} is not started: {error}", pod.name_any());
            }
        }
    }
    Ok(())
}

async fn start(api: &Api<Pod>, pod: &Pod) -> kube::Result<()> {
    let now = Timestamp::now().to_string();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let containers: Vec<_> = containers
        .map(|container| {
            json!({
                "name": container.name, "image": container.image, "imageID": "", "ready": true, "started": true,
                "restartCount": 0, "state": {"running": {"startedAt": now}},
            })
        })
        .collect();
    let conditions = ["Initialized", "ContainersReady", "Ready"].map(condition);
    let status = json!({"metadata": {"uid": pod.uid()}, "status": {
        "phase": "Running",
        "startTime": now,
        "hostIP": NOWHERE,
        "podIP": NOWHERE,
        "podIPs": [{"ip": NOWHERE}],
        "conditions": conditions,
        "containerStatuses": containers,
    }});
    api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(status)).await.map(drop)
}

/// The time of deletion is when the grace period is over.
async fn end(api: Api<Pod>, pod: Pod) {
    let Some(at) = &pod.metadata.deletion_timestamp else { return };
    let left = Duration::try_from(at.0.duration_since(Timestamp::now())).unwrap_or_default();
    tokio::time::sleep(left).await;
    let this = Preconditions { uid: pod.uid(), ..Preconditions::default() };
    let now = DeleteParams { grace_period_seconds: Some(0), preconditions: Some(this), ..DeleteParams::default() };
    if let Err(error) = api.delete(&pod.name_any(), &now).await {
        tracing::debug!("pod {} is not ended: {error}", pod.name_any());
    }
}
