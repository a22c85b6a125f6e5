//! The way out when nothing else is left: takes our finalizer, labels and taints off, without any cloud call. Addresses stay
//! where they are.

use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    allocation::{observe::nodes::SlimNode, taints::NodeTaints},
    api::{ADDRESS_LABEL, ALLOCATION_LABEL, FINALIZER, NetIPAllocation, READY_LABEL},
    lifecycle::finalizer::{self, Release},
    run,
    settings::{Released, Settings},
};

/// Releases one allocation or all of them. Repeating it is harmless.
///
/// # Errors
/// The first call that failed, in words.
pub async fn release(_settings: &Settings, which: &Released) -> Result<(), String> {
    let (client, _) = run::client().await.map_err(|error| format!("no cluster to talk to: {error}"))?;
    with(&client, which).await
}

/// The same, as whom the client speaks for.
///
/// # Errors
/// As [`release`].
pub async fn with(client: &Client, which: &Released) -> Result<(), String> {
    let api: Api<NetIPAllocation> = Api::all(client.clone());
    let all = match which {
        Released::All => api.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items,
        Released::One(name) => vec![api.get(name).await.map_err(|error| error.to_string())?],
    };
    let others = match which {
        Released::All => Vec::new(),
        Released::One(_) => api.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items,
    };
    let others: Vec<&NetIPAllocation> =
        others.iter().filter(|other| all.iter().all(|o| o.uid() != other.uid())).collect();
    untaint(client, &NodeTaints::without(&all, others)).await?;
    for object in &all {
        let name = object.name_any();
        unlabel(client, &name).await?;
        finalizer::clear(&api, object, FINALIZER, Release::Done).await.map_err(|error| format!("{name}: {error}"))?;
        println!("released {name}: finalizer, labels and taints are off, addresses stay where they are");
    }
    Ok(())
}

async fn unlabel(client: &Client, allocation: &str) -> Result<(), String> {
    let api: Api<SlimNode> = Api::all(client.clone());
    let params = ListParams::default().labels(&format!("{ALLOCATION_LABEL}={allocation}"));
    let nodes = api.list(&params).await.map_err(|error| error.to_string())?;
    for node in &nodes.items {
        let labels = json!({READY_LABEL: null, ALLOCATION_LABEL: null, ADDRESS_LABEL: null});
        let patch = Patch::Merge(json!({"metadata": {"uid": node.metadata.uid, "labels": labels}}));
        let name = node.name_any();
        api.patch(&name, &PatchParams::default(), &patch).await.map_err(|error| format!("node {name}: {error}"))?;
    }
    Ok(())
}

/// A merge patch replaces the list of taints whole, so it is for the very version that was read: another writer's taint
/// is not lost, and what it wrote is read again.
async fn untaint(client: &Client, taints: &NodeTaints) -> Result<(), String> {
    let api: Api<SlimNode> = Api::all(client.clone());
    let nodes = if taints.is_empty() {
        Vec::new()
    } else {
        api.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items
    };
    for node in nodes {
        let name = node.name_any();
        let mut node = Some(node);
        while let Some(list) = node.as_ref().and_then(|node| taints.on(node)) {
            let meta = node.map(|node| node.metadata).unwrap_or_default();
            let patch = Patch::Merge(json!({
                "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
                "spec": {"taints": list},
            }));
            match api.patch(&name, &PatchParams::default(), &patch).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => break,
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                Err(error) => return Err(format!("node {name}: {error}")),
                Ok(_) => break,
            }
            node = api.get_opt(&name).await.map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}
