//! Reading the cluster with the user's own kubeconfig and rights. Knows nothing of what is done with it.

use std::{future::Future, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    coordination::v1::Lease,
    core::v1::Event,
};
use kube::{
    Api, Client, Config,
    api::{ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use kube_runtime::{WatchStreamExt, watcher};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    cli::Access,
    refusal::{self, EVENTS, Exit, Kind, LEASES, NETIPALLOCATIONS, NODES, Refusal},
};
use crate::{
    allocation::{observe::nodes::SlimNode, watch::Guarded},
    api::NetIPAllocation,
    run::connect,
};

/// For one answer, if the user does not say otherwise.
const CALL: Duration = Duration::from_secs(30);
/// A watch is begun anew after so many seconds at the latest: one whose connection is dead says nothing.
const WATCH: u32 = 30;

/// A cluster to talk to, as the user.
pub struct Session {
    pub client: Client,
    /// For one answer.
    limit: Duration,
}

/// The cluster that the user means, as the user.
///
/// # Errors
/// What is wrong with the kubeconfig.
pub async fn connect(access: &Access) -> Result<Session, Refusal> {
    let unusable = |error: &(dyn std::error::Error + 'static)| {
        let why = refusal::causes(error);
        let sentence = format!("no cluster to talk to: {why}; check --kubeconfig, $KUBECONFIG and --context");
        Refusal::new(Exit::Failed, sentence)
    };
    let Access { kubeconfig, context, cluster, user, .. } = access;
    let options = KubeConfigOptions { context: context.clone(), cluster: cluster.clone(), user: user.clone() };
    let is_chosen = context.is_some() || cluster.is_some() || user.is_some();
    let config = match kubeconfig {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file).map_err(|error| unusable(&error))?;
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| unusable(&error))
        }
        None if is_chosen => Config::from_kubeconfig(&options).await.map_err(|error| unusable(&error)),
        None => Config::infer().await.map_err(|error| unusable(&error)),
    };
    let mut config = config?;
    if access.impersonate.is_some() {
        config.auth_info.impersonate.clone_from(&access.impersonate);
        config.auth_info.impersonate_groups = Some(access.groups.clone()).filter(|groups| !groups.is_empty());
    }
    let client = connect::client(config).map_err(|error| unusable(&error))?;
    Ok(Session { client, limit: access.request_timeout.unwrap_or(CALL) })
}

/// What was listed.
#[derive(Debug, Default)]
pub struct Allocations {
    pub good: Vec<NetIPAllocation>,
    /// Those that this version cannot read.
    pub unread: Vec<Unread>,
}

/// An allocation that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    pub name: String,
    /// What is wrong with it.
    pub why: String,
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, why } = self;
        write!(f, "NetIPAllocation {name} is not shown, it cannot be read: {why}")
    }
}

/// The object, or what keeps it from being read.
///
/// # Errors
/// It does not have the form that this version knows.
pub fn readable(object: Guarded) -> Result<NetIPAllocation, Unread> {
    object.0.map_err(|invalid| {
        let name = invalid.metadata.name.unwrap_or_default();
        Unread { name, why: refusal::one_line(&invalid.error) }
    })
}

/// All allocations.
///
/// # Errors
/// The API server's, translated.
pub async fn allocations(session: &Session) -> Result<Allocations, Refusal> {
    let api: Api<Guarded> = Api::all(session.client.clone());
    let list = session.answered("list", &NETIPALLOCATIONS, api.list(&ListParams::default())).await?;
    let mut listed = Allocations::default();
    for item in list.items {
        match readable(item) {
            Ok(object) => listed.good.push(object),
            Err(unread) => listed.unread.push(unread),
        }
    }
    Ok(listed)
}

/// One allocation as it is and as it becomes; `None` while there is none of that name. Begins anew by itself where it fails,
/// and says so.
pub fn sights(session: &Session, name: &str) -> impl Stream<Item = watcher::Result<Option<Guarded>>> + Send + use<> {
    let api: Api<Guarded> = Api::all(session.client.clone());
    let config = watcher::Config::default().fields(&format!("metadata.name={name}")).timeout(WATCH);
    let mut found = false;
    watcher(api, config).default_backoff().filter_map(move |event| {
        let sight = match event {
            Ok(watcher::Event::Init) => {
                found = false;
                None
            }
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                found = true;
                Some(Ok(Some(object)))
            }
            Ok(watcher::Event::InitDone) if found => None,
            Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => Some(Ok(None)),
            Err(error) => Some(Err(error)),
        };
        std::future::ready(sight)
    })
}

/// Why a watch cannot go on; `None` where it may succeed in a moment.
pub fn lost(error: &watcher::Error) -> Option<Refusal> {
    match error {
        watcher::Error::InitialListFailed(error) if !refusal::is_transient(error) => {
            Some(Refusal::of("list", &NETIPALLOCATIONS, error))
        }
        watcher::Error::WatchStartFailed(error) if !refusal::is_transient(error) => {
            Some(Refusal::of("watch", &NETIPALLOCATIONS, error))
        }
        _ => None,
    }
}

/// One allocation; `None` when it is gone.
///
/// # Errors
/// The API server's, translated.
pub async fn allocation(session: &Session, name: &str) -> Result<Option<NetIPAllocation>, Refusal> {
    let api: Api<NetIPAllocation> = Api::all(session.client.clone());
    session.answered("get", &NETIPALLOCATIONS, api.get_opt(name)).await
}

/// All nodes.
///
/// # Errors
/// The API server's, translated.
pub async fn nodes(session: &Session) -> Result<Vec<Arc<SlimNode>>, Refusal> {
    let api: Api<SlimNode> = Api::all(session.client.clone());
    let list = session.answered("list", &NODES, api.list(&ListParams::default())).await?;
    Ok(list.items.into_iter().map(Arc::new).collect())
}

/// What was said of allocations and is not forgotten by the API server yet.
///
/// # Errors
/// The API server's, translated.
pub async fn events(session: &Session) -> Result<Vec<Event>, Refusal> {
    let api: Api<Event> = Api::namespaced(session.client.clone(), EVENTS.namespace.unwrap_or_default());
    let params = ListParams::default().fields("involvedObject.kind=NetIPAllocation");
    Ok(session.answered("list", &EVENTS, api.list(&params)).await?.items)
}

/// The Leases of this name, in every namespace.
///
/// # Errors
/// The API server's, translated.
pub async fn leases(session: &Session, name: &str) -> Result<Vec<Lease>, Refusal> {
    let api: Api<Lease> = Api::all(session.client.clone());
    let params = ListParams::default().fields(&format!("metadata.name={name}"));
    Ok(session.answered("list", &LEASES, api.list(&params)).await?.items)
}

/// Changes one allocation.
///
/// # Errors
/// The API server's, translated; nothing is changed then.
pub async fn patch(session: &Session, name: &str, patch: &Value) -> Result<NetIPAllocation, Refusal> {
    let api: Api<NetIPAllocation> = Api::all(session.client.clone());
    let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
    session.answered("patch", &NETIPALLOCATIONS, api.patch(name, &params, &patch)).await
}

/// Asks beforehand, where several things are done one after another. `name`: a right to that one is enough.
///
/// # Errors
/// The right that is missing.
pub async fn may(session: &Session, verb: &str, kind: &Kind<'_>, name: Option<&str>) -> Result<(), Refusal> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                group: Some(kind.group.to_owned()),
                resource: Some(kind.plural.to_owned()),
                namespace: kind.namespace.map(str::to_owned),
                name: name.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(session.client.clone());
    let answer = session.answered(verb, kind, api.create(&PostParams::default(), &review)).await?;
    let allowed = answer.status.is_some_and(|status| status.allowed);
    allowed.then_some(()).ok_or_else(|| Refusal::forbidden(verb, kind))
}

impl Session {
    /// Of a server of a unit test.
    #[cfg(test)]
    pub fn with(client: Client) -> Self {
        Self { client, limit: CALL }
    }

    async fn answered<T>(
        &self,
        verb: &str,
        kind: &Kind<'_>,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Refusal> {
        match timeout(self.limit, call).await {
            Ok(result) => result.map_err(|error| Refusal::of(verb, kind, &error)),
            Err(_) => Err(Refusal::new(
                Exit::Failed,
                format!(
                    "the cluster did not answer in {} s when asked to {verb} {kind}; check that it can be reached",
                    self.limit.as_secs()
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_watch_is_lost_when_it_is_denied_or_there_is_nothing_to_watch_and_not_for_a_blip() {
        let answer = |code: u16| kube::Error::Api(Box::new(Status { code, ..Status::default() }));
        for code in [401, 403, 404] {
            assert!(lost(&watcher::Error::InitialListFailed(answer(code))).is_some(), "{code}");
            assert!(lost(&watcher::Error::WatchStartFailed(answer(code))).is_some(), "{code}");
        }
        for code in [429, 500, 503] {
            assert!(lost(&watcher::Error::InitialListFailed(answer(code))).is_none(), "{code}");
        }
        let gone = Status { code: 410, ..Status::default() };
        assert!(lost(&watcher::Error::WatchError(Box::new(gone))).is_none(), "it is begun anew");
    }
}
