//! The way out when nothing else is left: takes our finalizer and labels off, without any cloud call. Addresses stay
//! where they are.

use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    allocation::observe::nodes::SlimNode,
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
    let api: Api<NetIPAllocation> = Api::all(client.clone());
    let all = match which {
        Released::All => api.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items,
        Released::One(name) => vec![api.get(name).await.map_err(|error| error.to_string())?],
    };
    for object in &all {
        let name = object.name_any();
        unlabel(&client, &name).await?;
        finalizer::clear(&api, object, FINALIZER, Release::Done).await.map_err(|error| format!("{name}: {error}"))?;
        println!("released {name}: finalizer and labels are off, addresses stay where they are");
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
