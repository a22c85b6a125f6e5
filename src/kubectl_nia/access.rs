//! Reading the cluster with the user's own kubeconfig and rights. Knows nothing of what is done with it.

use std::{future::Future, sync::Arc, time::Duration};

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    core::v1::Event,
};
use kube::{
    Api, Client, Config,
    api::{ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    cli::Access,
    refusal::{EVENTS, Exit, Kind, NETIPALLOCATIONS, NODES, Refusal},
};
use crate::{
    allocation::{observe::nodes::SlimNode, watch::Guarded},
    api::NetIPAllocation,
};

/// For one answer.
const CALL: Duration = Duration::from_secs(30);

/// A client for the cluster that the user means, as the user.
///
/// # Errors
/// What is wrong with the kubeconfig.
pub async fn connect(access: &Access) -> Result<Client, Refusal> {
    let unusable = |error: &dyn std::fmt::Display| {
        let sentence = format!("no cluster to talk to: {error}; check --kubeconfig, $KUBECONFIG and --context");
        Refusal::new(Exit::Failed, sentence)
    };
    let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
    let config = match (&access.kubeconfig, &access.context) {
        (Some(file), _) => {
            let kubeconfig = Kubeconfig::read_from(file).map_err(|error| unusable(&error))?;
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| unusable(&error))
        }
        (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|error| unusable(&error)),
        (None, None) => Config::infer().await.map_err(|error| unusable(&error)),
    };
    let mut config = config?;
    config.default_retry = false;
    if access.user.is_some() {
        config.auth_info.impersonate.clone_from(&access.user);
        config.auth_info.impersonate_groups = Some(access.groups.clone()).filter(|groups| !groups.is_empty());
    }
    Client::try_from(config).map_err(|error| unusable(&error))
}

/// All allocations, and one sentence for each that this version cannot read.
///
/// # Errors
/// The API server's, translated.
pub async fn allocations(client: &Client) -> Result<(Vec<NetIPAllocation>, Vec<String>), Refusal> {
    let api: Api<Guarded> = Api::all(client.clone());
    let list = answered("list", &NETIPALLOCATIONS, api.list(&ListParams::default())).await?;
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for item in list.items {
        match item.0 {
            Ok(object) => good.push(object),
            Err(invalid) => {
                let name = invalid.metadata.name.unwrap_or_default();
                bad.push(format!("NetIPAllocation {name} is not shown, it cannot be read: {}", invalid.error));
            }
        }
    }
    Ok((good, bad))
}

/// One allocation; `None` when it is gone.
///
/// # Errors
/// The API server's, translated.
pub async fn allocation(client: &Client, name: &str) -> Result<Option<NetIPAllocation>, Refusal> {
    let api: Api<NetIPAllocation> = Api::all(client.clone());
    answered("get", &NETIPALLOCATIONS, api.get_opt(name)).await
}

/// All nodes.
///
/// # Errors
/// The API server's, translated.
pub async fn nodes(client: &Client) -> Result<Vec<Arc<SlimNode>>, Refusal> {
    let api: Api<SlimNode> = Api::all(client.clone());
    let list = answered("list", &NODES, api.list(&ListParams::default())).await?;
    Ok(list.items.into_iter().map(Arc::new).collect())
}

/// What was said of allocations and is not forgotten by the API server yet.
///
/// # Errors
/// The API server's, translated.
pub async fn events(client: &Client) -> Result<Vec<Event>, Refusal> {
    let api: Api<Event> = Api::namespaced(client.clone(), EVENTS.namespace.unwrap_or_default());
    let params = ListParams::default().fields("involvedObject.kind=NetIPAllocation");
    Ok(answered("list", &EVENTS, api.list(&params)).await?.items)
}

/// Changes one allocation.
///
/// # Errors
/// The API server's, translated; nothing is changed then.
pub async fn patch(client: &Client, name: &str, patch: &Value) -> Result<NetIPAllocation, Refusal> {
    let api: Api<NetIPAllocation> = Api::all(client.clone());
    let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
    answered("patch", &NETIPALLOCATIONS, api.patch(name, &params, &patch)).await
}

/// Asks beforehand, where several things are changed one after another.
///
/// # Errors
/// The right that is missing.
pub async fn may(client: &Client, verb: &str, kind: &Kind) -> Result<(), Refusal> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                group: Some(kind.group.to_owned()),
                resource: Some(kind.plural.to_owned()),
                namespace: kind.namespace.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = answered(verb, kind, api.create(&PostParams::default(), &review)).await?;
    let allowed = answer.status.is_some_and(|status| status.allowed);
    allowed.then_some(()).ok_or_else(|| Refusal::forbidden(verb, kind))
}

async fn answered<T>(
    verb: &str,
    kind: &Kind,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Refusal> {
    match timeout(CALL, call).await {
        Ok(result) => result.map_err(|error| Refusal::of(verb, kind, &error)),
        Err(_) => Err(Refusal::new(
            Exit::Failed,
            format!(
                "the cluster did not answer in {} s when asked to {verb} {kind}; check that it can be reached",
                CALL.as_secs()
            ),
        )),
    }
}
