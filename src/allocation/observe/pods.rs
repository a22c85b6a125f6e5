//! Pods, of draining nodes only: watched while some address drains there, never otherwise. And whose they are.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        core::v1::{self, NodeSelectorTerm},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Api, Client, ResourceExt, api::ListParams};
use kube_runtime::{WatchStreamExt, reflector, watcher};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    allocation::{
        decide::users::{Owner, Pod, Workload},
        tables::Uid,
        watch::{Cause, Retries, Wake},
    },
    api::{ADDRESS_LABEL, ALLOCATION_LABEL, HOLD_ANNOTATION, READY_LABEL, WorkloadKind, WorkloadRef},
};

/// For single calls to the API server.
const CALL: Duration = Duration::from_secs(10);
/// A workload that was found is looked for again after so long; it seldom goes.
const FOUND_FOR: Duration = Duration::from_secs(300);
/// One that was missing is looked for sooner.
const MISSING_FOR: Duration = Duration::from_secs(10);
/// While an address leaves, what is known of the workload decides whose pods are waited for and asked to go: then it is
/// not older than this.
const LEAVING_FOR: Duration = Duration::from_secs(1);

/// The taint of a cordoned node.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// How long an answer about a workload is believed.
fn lately(sight: Sight, leaving: bool) -> Duration {
    match (sight, leaving) {
        (_, true) => LEAVING_FOR,
        (Sight::Found { .. }, false) => FOUND_FOR,
        (Sight::Missing, false) => MISSING_FOR,
    }
}

/// A workload, as the API server has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    Missing,
    /// `gated`: its pods ask for a node with an address.
    Found {
        gated: bool,
    },
}

impl Sight {
    /// By the template of its pods.
    fn of(found: Option<Option<v1::PodTemplateSpec>>) -> Self {
        match found {
            None => Sight::Missing,
            Some(template) => {
                let spec = template.and_then(|template| template.spec);
                Sight::Found { gated: spec.as_ref().is_some_and(is_gated) }
            }
        }
    }
}

/// The pods of some nodes, and the workloads that they belong to.
#[derive(Clone)]
pub struct Pods {
    client: Client,
    wake: Wake,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    watches: HashMap<String, Watch>,
    wanted: HashMap<Uid, Wanted>,
    /// ReplicaSet uid → what controls it. A ReplicaSet keeps its controller while that lives.
    owners: HashMap<String, Option<Owner>>,
    workloads: HashMap<String, (Instant, Sight)>,
}

/// The nodes that an allocation of that name looks at.
struct Wanted {
    name: String,
    nodes: BTreeSet<String>,
}

impl Inner {
    /// Wakes those who look at this node.
    fn wake(&self, node: &str, wake: &Wake) {
        let looking = self.wanted.values().filter(|wanted| wanted.nodes.contains(node));
        looking.for_each(|wanted| wake.one(&wanted.name, Cause::Pods));
    }
}

struct Watch {
    store: reflector::Store<v1::Pod>,
    complete: Arc<AtomicBool>,
    _ends_with_me: DropGuard,
}

impl Pods {
    pub fn new(client: Client, wake: Wake) -> Self {
        Self { client, wake, inner: Arc::default() }
    }

    /// Watches the pods of exactly these nodes for this allocation.
    pub fn want(&self, uid: &Uid, name: &str, nodes: BTreeSet<String>) {
        let mut inner = self.lock();
        if nodes.is_empty() {
            inner.wanted.remove(uid);
        } else {
            inner.wanted.insert(uid.clone(), Wanted { name: name.to_owned(), nodes });
        }
        self.watch_what_is_wanted(&mut inner);
    }

    /// Forgets an allocation that is gone.
    pub fn forget(&self, uid: &Uid) {
        let mut inner = self.lock();
        inner.wanted.remove(uid);
        self.watch_what_is_wanted(&mut inner);
    }

    fn watch_what_is_wanted(&self, inner: &mut Inner) {
        let needed: BTreeSet<String> = inner.wanted.values().flat_map(|wanted| &wanted.nodes).cloned().collect();
        inner.watches.retain(|node, _| needed.contains(node));
        if needed.is_empty() {
            // Nothing drains: whose ReplicaSets were is asked anew when something does.
            inner.owners.clear();
        }
        for node in needed {
            inner.watches.entry(node.clone()).or_insert_with(|| self.watch(&node));
        }
    }

    fn watch(&self, node: &str) -> Watch {
        let (store, writer) = reflector::store();
        let complete = Arc::new(AtomicBool::new(false));
        let stop = CancellationToken::new();
        let config = watcher::Config::default().fields(&format!("spec.nodeName={node}")).timeout(60);
        let events = watcher(Api::<v1::Pod>::all(self.client.clone()), config);
        let (wake, inner, done, node) = (self.wake.clone(), self.inner.clone(), complete.clone(), node.to_owned());
        let stream = events
            .modify(|pod| {
                pod.managed_fields_mut().clear();
                pod.spec.iter_mut().for_each(|spec| {
                    spec.containers.clear();
                    spec.volumes = None;
                });
            })
            .backoff(Retries::default())
            .reflect(writer);
        let task = async move {
            let mut stream = std::pin::pin!(stream);
            loop {
                match stream.try_next().await {
                    Ok(Some(event)) => {
                        // `Init` is said before the list is asked for: only `InitDone` says that it is whole.
                        match event {
                            watcher::Event::InitDone => done.store(true, Ordering::Release),
                            watcher::Event::Init | watcher::Event::InitApply(_) => continue,
                            watcher::Event::Apply(_) | watcher::Event::Delete(_) => {}
                        }
                        inner.lock().unwrap_or_else(PoisonError::into_inner).wake(&node, &wake);
                    }
                    Ok(None) => return,
                    Err(error) => tracing::warn!(node, %error, "watching the node's pods failed, trying again"),
                }
            }
        };
        let token = stop.clone();
        tokio::spawn(async move { token.run_until_cancelled(task).await });
        Watch { store, complete, _ends_with_me: stop.drop_guard() }
    }

    /// The pods of a watched node; `None` until its first list is whole.
    pub async fn of(&self, node: &str) -> Option<Vec<Pod>> {
        let pods = {
            let inner = self.lock();
            let watch = inner.watches.get(node)?;
            if !watch.complete.load(Ordering::Acquire) {
                return None;
            }
            watch.store.state()
        };
        let mut read = Vec::with_capacity(pods.len());
        for pod in pods {
            read.push(self.read(&pod).await?);
        }
        read.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Some(read)
    }

    /// The pods of a node, listed live.
    ///
    /// # Errors
    /// The API server's; also when it does not answer in time.
    pub async fn live(&self, node: &str) -> Result<Vec<Pod>, String> {
        let api = Api::<v1::Pod>::all(self.client.clone());
        let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let list = match timeout(CALL, api.list(&params)).await {
            Ok(Ok(list)) => list,
            Ok(Err(error)) => return Err(format!("listing the pods of node {node} failed: {error}")),
            Err(_) => return Err(format!("listing the pods of node {node} had no answer in time")),
        };
        let mut read = Vec::with_capacity(list.items.len());
        for pod in &list.items {
            read.push(self.read(pod).await.ok_or_else(|| format!("whose pod {} is cannot be read", pod.name_any()))?);
        }
        Ok(read)
    }

    /// `None` when it cannot be told whose the pod is: unknown is not absent (P3).
    async fn read(&self, pod: &v1::Pod) -> Option<Pod> {
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let ready = status
            .and_then(|status| status.conditions.as_ref())
            .is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
        let annotation = |key: &str| pod.annotations().get(key).map(String::as_str);
        Some(Pod {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            finished: matches!(phase, "Succeeded" | "Failed"),
            ready,
            // The deletion timestamp already has the grace period in it.
            terminating_until: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0),
            hold: annotation(HOLD_ANNOTATION) == Some("true"),
            returns: pod.spec.as_ref().is_some_and(tolerates_cordon),
            owner: self.owner(pod).await?,
            gated: pod.spec.as_ref().is_some_and(is_gated),
            mirror: annotation("kubernetes.io/config.mirror").is_some(),
        })
    }

    /// `Some(None)`: nobody's. `None`: not known now.
    async fn owner(&self, pod: &v1::Pod) -> Option<Option<Owner>> {
        let Some(reference) = controller(pod.owner_references()) else { return Some(None) };
        if reference.kind != "ReplicaSet" {
            return Some(Some(Owner { kind: reference.kind.clone(), name: reference.name.clone() }));
        }
        if let Some(known) = self.lock().owners.get(&reference.uid) {
            return Some(known.clone());
        }
        let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let owner = match timeout(CALL, api.get_opt(&reference.name)).await {
            Ok(Ok(Some(set))) => match controller(set.owner_references()) {
                Some(above) => Some(Owner { kind: above.kind.clone(), name: above.name.clone() }),
                None => Some(Owner { kind: reference.kind.clone(), name: reference.name.clone() }),
            },
            // Orphaned by a rollout that cleaned up: the pod outlives its ReplicaSet only while it terminates. Its name
            // still tells the Deployment: NAME-HASH.
            Ok(Ok(None)) => reference
                .name
                .rsplit_once('-')
                .map(|(name, _)| Owner { kind: "Deployment".to_owned(), name: name.to_owned() }),
            Ok(Err(error)) => {
                tracing::warn!(replicaset = reference.name, %error, "reading a ReplicaSet failed");
                return None;
            }
            Err(_) => return None,
        };
        self.lock().owners.insert(reference.uid.clone(), owner.clone());
        Some(owner)
    }

    /// The workload that the allocation names, looked for if it has not been lately. `leaving`: one of the allocation's
    /// addresses is, so lately means just now, and what cannot be told now is unknown.
    pub async fn workload(&self, reference: Option<&WorkloadRef>, leaving: bool) -> Workload {
        let Some(reference) = reference else { return Workload::Unnamed };
        let key = reference.to_string();
        let known = self.lock().workloads.get(&key).copied();
        let sight = match known {
            Some((when, sight)) if when.elapsed() < lately(sight, leaving) => sight,
            _ => match self.look_for(reference).await {
                Some(sight) => {
                    self.lock().workloads.insert(key, (Instant::now(), sight));
                    sight
                }
                // Not to be told now: as it was, while nothing depends on it.
                None => match known {
                    Some((_, sight)) if !leaving => sight,
                    Some(_) | None => return Workload::Unknown,
                },
            },
        };
        match sight {
            Sight::Missing => Workload::Missing,
            Sight::Found { gated } => Workload::Named {
                kind: reference.kind.as_str().to_owned(),
                namespace: reference.namespace.clone(),
                name: reference.name.clone(),
                gated,
            },
        }
    }

    /// `None`: not to be told now.
    async fn look_for(&self, reference: &WorkloadRef) -> Option<Sight> {
        let (client, namespace, name) = (self.client.clone(), &reference.namespace, &reference.name);
        let get = async {
            match reference.kind {
                WorkloadKind::Deployment => {
                    let found = Api::<Deployment>::namespaced(client, namespace).get_opt(name).await;
                    found.map(|found| found.map(|found| found.spec.map(|spec| spec.template)))
                }
                WorkloadKind::StatefulSet => {
                    let found = Api::<StatefulSet>::namespaced(client, namespace).get_opt(name).await;
                    found.map(|found| found.map(|found| found.spec.map(|spec| spec.template)))
                }
                WorkloadKind::DaemonSet => {
                    let found = Api::<DaemonSet>::namespaced(client, namespace).get_opt(name).await;
                    found.map(|found| found.map(|found| found.spec.map(|spec| spec.template)))
                }
            }
        };
        match timeout(CALL, get).await {
            Ok(Ok(found)) => Some(Sight::of(found)),
            Ok(Err(error)) => {
                tracing::warn!(workload = %reference, %error, "looking for the workload failed");
                None
            }
            Err(_) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn controller(references: &[OwnerReference]) -> Option<&OwnerReference> {
    references.iter().find(|reference| reference.controller == Some(true))
}

/// Its nodeSelector or required node affinity names `ip.ready` or one of our labels.
fn is_gated(spec: &v1::PodSpec) -> bool {
    let ours = |key: &str| [READY_LABEL, ALLOCATION_LABEL, ADDRESS_LABEL].contains(&key);
    let selected =
        spec.node_selector.as_ref().is_some_and(|selector: &BTreeMap<_, _>| selector.keys().any(|key| ours(key)));
    let names = |term: &NodeSelectorTerm| term.match_expressions.iter().flatten().any(|wanted| ours(&wanted.key));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref())
        .is_some_and(|required| required.node_selector_terms.iter().any(names));
    selected || required
}

/// Whether a cordon does not keep it away: `operator: Exists` without key tolerates everything.
fn tolerates_cordon(spec: &v1::PodSpec) -> bool {
    spec.tolerations.iter().flatten().any(|toleration| {
        let effect = matches!(toleration.effect.as_deref(), None | Some("" | "NoSchedule"));
        let valueless = toleration.operator.as_deref() == Some("Exists")
            || toleration.value.as_deref().unwrap_or_default().is_empty();
        match toleration.key.as_deref() {
            None | Some("") => effect && toleration.operator.as_deref() == Some("Exists"),
            Some(key) => effect && valueless && key == UNSCHEDULABLE,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_tolerates_everything_or_the_cordon_itself_comes_back_to_a_cordoned_node() {
        let tolerates = |toleration: &str| {
            let spec = format!("{{containers: [], tolerations: [{toleration}]}}");
            tolerates_cordon(&serde_yaml::from_str(&spec).unwrap())
        };
        assert!(tolerates("{operator: Exists}"));
        assert!(tolerates("{operator: Exists, effect: NoSchedule}"));
        assert!(tolerates("{key: node.kubernetes.io/unschedulable, operator: Exists}"));
        assert!(tolerates("{key: node.kubernetes.io/unschedulable, effect: NoSchedule}"));
        assert!(!tolerates("{operator: Exists, effect: NoExecute}"));
        assert!(!tolerates("{key: node.kubernetes.io/not-ready, operator: Exists}"));
        assert!(!tolerates(""));
    }
}
