//! Who hears of an event beside the allocation: the node and the workload, where their teams look.

use std::time::Duration;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{DaemonSet, Deployment, StatefulSet},
        core::v1::{Node, ObjectReference},
    },
};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::{
    allocation::{decide::users::Owner, observe::nodes::SlimNode},
    api::{WorkloadKind, WorkloadRef},
};

/// For single calls to the API server.
const CALL: Duration = Duration::from_secs(10);

/// A Node as events name it. Its uid tells it from another one of that name, and `kubectl describe node` asks for it.
pub fn node(node: &SlimNode) -> ObjectReference {
    ObjectReference {
        api_version: Some(Node::api_version(&()).into_owned()),
        kind: Some(Node::kind(&()).into_owned()),
        name: node.metadata.name.clone(),
        uid: node.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// What a pod belongs to, if that is one of the kinds whose teams are told.
pub fn controller(namespace: &str, owner: Option<&Owner>) -> Option<WorkloadRef> {
    let Owner { kind, name } = owner?;
    let kinds = [WorkloadKind::Deployment, WorkloadKind::StatefulSet, WorkloadKind::DaemonSet];
    let kind = kinds.into_iter().find(|known| known.as_str() == kind)?;
    Some(WorkloadRef { kind, name: name.clone(), namespace: namespace.to_owned() })
}

/// The workload as events name it; `None` when there is none, or it cannot be read now: then nobody would look there.
pub async fn workload(client: &Client, workload: &WorkloadRef) -> Option<ObjectReference> {
    let WorkloadRef { kind, name, namespace } = workload;
    let client = client.clone();
    match kind {
        WorkloadKind::Deployment => reference::<Deployment>(client, namespace, name).await,
        WorkloadKind::StatefulSet => reference::<StatefulSet>(client, namespace, name).await,
        WorkloadKind::DaemonSet => reference::<DaemonSet>(client, namespace, name).await,
    }
}

async fn reference<K>(client: Client, namespace: &str, name: &str) -> Option<ObjectReference>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client, namespace);
    let found = timeout(CALL, api.get_metadata_opt(name)).await.ok()?.ok()??;
    Some(found.object_ref(&()))
}
