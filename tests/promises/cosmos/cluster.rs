//! The API server as plain data: what is stored, how it answers, and what people, kubelets and the scheduler do to it.
//!
//! Answers mirror those that `src/allocation/record.rs` (status), `src/lifecycle/finalizer.rs`, `src/allocation/act/node.rs`
//! (labels), `src/allocation/act/pods.rs` (evictions) and `src/leader/calls.rs` (Lease) tell apart. Versions come from one
//! counter, as from etcd: a write that changes nothing leaves the version as it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use ip_address_controller::{
    allocation::{
        decide::users::{self, Pod},
        observe::nodes::SlimNode,
    },
    api::{MOVE_ANNOTATION, NetIPAllocation, NetIPAllocationSpec, NetIPAllocationStatus, READY_LABEL, READY_VALUE},
    cloud::ProviderId,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{NodeCondition, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::api::ObjectMeta;
use uuid::Uuid;

use crate::canon::Canon;

/// What the API server says no with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// 409: another version.
    Conflict,
    /// 404.
    NotFound,
    /// 422: another object of that name; a finalizer put on what is being deleted.
    Invalid,
}

/// The answer to an eviction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evicted {
    /// It terminates, or is gone.
    Accepted,
    /// A PodDisruptionBudget allows none now.
    Blocked(String),
    /// No pod has that uid.
    NotFound,
}

/// Who leads, as stored. Each process has a belief of its own beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    pub holder: Option<u8>,
    pub resource_version: Option<String>,
}

type Allocations = BTreeMap<String, Arc<NetIPAllocation>>;
type NodesByName = BTreeMap<String, Arc<SlimNode>>;
type PodsByNode = BTreeMap<String, Vec<Arc<Pod>>>;

/// What a process's watches have brought it: the cluster as it was at some moment.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    pub allocations: Arc<Allocations>,
    pub nodes: Arc<NodesByName>,
    pub pods: Arc<PodsByNode>,
}

/// See the module.
#[derive(Clone)]
pub struct Cluster {
    stored: Cache,
    /// `Deployment voip/kamailio`.
    pub workloads: BTreeSet<String>,
    /// Uids of pods whose PodDisruptionBudget allows no eviction now.
    pub guarded: BTreeSet<String>,
    pub lease: Lease,
    /// How long a pod that was asked to go takes at most.
    pub grace: SignedDuration,
    versions: u64,
    lives: u64,
}

/// Without the counters: what they make is compared, and never counted.
impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("stored", &self.stored)
            .field("workloads", &self.workloads)
            .field("guarded", &self.guarded)
            .field("lease", &self.lease)
            .finish()
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            stored: Cache::default(),
            workloads: BTreeSet::new(),
            guarded: BTreeSet::new(),
            lease: Lease::default(),
            grace: SignedDuration::from_secs(30),
            versions: 0,
            lives: 0,
        }
    }
}

impl Cluster {
    /// What a watch that has caught up shows.
    pub fn snapshot(&self) -> Cache {
        self.stored.clone()
    }

    /// Whether somebody with this cache has news to come.
    pub fn is_ahead_of(&self, cache: &Cache) -> bool {
        !(Arc::ptr_eq(&self.stored.allocations, &cache.allocations)
            && Arc::ptr_eq(&self.stored.nodes, &cache.nodes)
            && Arc::ptr_eq(&self.stored.pods, &cache.pods))
    }

    fn version(&mut self) -> Option<String> {
        self.versions += 1;
        Some(self.versions.to_string())
    }

    fn uid(&mut self) -> String {
        self.lives += 1;
        Uuid::from_u128((0x0B1E_u128 << 112) | u128::from(self.lives)).to_string()
    }

    /// For the fingerprint of a state.
    pub fn canon(&self, canon: &mut Canon) {
        self.stored.canon(canon);
        canon.debug(&(&self.workloads, &self.guarded, &self.lease));
    }

    // Allocations.

    pub fn allocations(&self) -> &BTreeMap<String, Arc<NetIPAllocation>> {
        &self.stored.allocations
    }

    pub fn allocation(&self, name: &str) -> Option<&Arc<NetIPAllocation>> {
        self.stored.allocations.get(name)
    }

    /// The object as read, if it is still of that version.
    fn of_version(&self, name: &str, version: Option<&str>) -> Result<Arc<NetIPAllocation>, Refused> {
        let stored = self.allocation(name).ok_or(Refused::NotFound)?;
        match version {
            Some(version) if stored.metadata.resource_version.as_deref() != Some(version) => Err(Refused::Conflict),
            Some(_) | None => Ok(stored.clone()),
        }
    }

    /// Stores what has changed; an object that is being deleted goes with its last finalizer.
    fn store(&mut self, before: &Arc<NetIPAllocation>, mut after: NetIPAllocation) -> Arc<NetIPAllocation> {
        if after == **before {
            return before.clone();
        }
        let name = after.metadata.name.clone().unwrap_or_default();
        after.metadata.resource_version = self.version();
        if after.spec != before.spec || after.metadata.deletion_timestamp != before.metadata.deletion_timestamp {
            after.metadata.generation = after.metadata.generation.map(|generation| generation + 1);
        }
        let held = after.metadata.finalizers.as_ref().is_some_and(|all| !all.is_empty());
        let after = Arc::new(after);
        let all = Arc::make_mut(&mut self.stored.allocations);
        if after.metadata.deletion_timestamp.is_some() && !held {
            all.remove(&name);
        } else {
            all.insert(name, after.clone());
        }
        after
    }

    /// `PUT …/status` with the version that was decided on.
    ///
    /// # Errors
    /// Another version, or none.
    pub fn replace_status(
        &mut self,
        name: &str,
        version: &str,
        status: NetIPAllocationStatus,
    ) -> Result<Arc<NetIPAllocation>, Refused> {
        let before = self.of_version(name, Some(version))?;
        let after = NetIPAllocation { status: Some(status), ..(*before).clone() };
        Ok(self.store(&before, after))
    }

    /// `lifecycle::finalizer::set`.
    ///
    /// # Errors
    /// Another version, none, or one that is being deleted.
    pub fn set_finalizer(
        &mut self,
        name: &str,
        version: &str,
        finalizer: &str,
    ) -> Result<Arc<NetIPAllocation>, Refused> {
        let before = self.of_version(name, Some(version))?;
        if before.metadata.deletion_timestamp.is_some() {
            return Err(Refused::Invalid);
        }
        let mut after = (*before).clone();
        let all = after.metadata.finalizers.get_or_insert_default();
        if !all.iter().any(|one| one == finalizer) {
            all.push(finalizer.to_owned());
        }
        Ok(self.store(&before, after))
    }

    /// `lifecycle::finalizer::clear`.
    ///
    /// # Errors
    /// Another version, or none.
    pub fn clear_finalizer(
        &mut self,
        name: &str,
        version: &str,
        finalizer: &str,
    ) -> Result<Arc<NetIPAllocation>, Refused> {
        let before = self.of_version(name, Some(version))?;
        Ok(self.without_finalizer(&before, finalizer))
    }

    fn without_finalizer(&mut self, before: &Arc<NetIPAllocation>, finalizer: &str) -> Arc<NetIPAllocation> {
        let mut after = (**before).clone();
        if let Some(all) = &mut after.metadata.finalizers {
            all.retain(|one| one != finalizer);
        }
        after.metadata.finalizers = after.metadata.finalizers.filter(|all| !all.is_empty());
        self.store(before, after)
    }

    /// The operator has taken the request to move; the annotation goes.
    ///
    /// # Errors
    /// Another version, or none.
    pub fn clear_move(&mut self, name: &str, version: &str) -> Result<Arc<NetIPAllocation>, Refused> {
        self.of_version(name, Some(version))?;
        self.annotate(name, MOVE_ANNOTATION, None)
    }

    // What a person does with allocations.

    /// `kubectl apply`: makes it, or edits its spec.
    pub fn apply(&mut self, name: &str, spec: NetIPAllocationSpec, now: Timestamp) -> Arc<NetIPAllocation> {
        if let Some(before) = self.allocation(name).cloned() {
            let after = NetIPAllocation { spec, ..(*before).clone() };
            return self.store(&before, after);
        }
        let mut made = NetIPAllocation::new(name, spec);
        self.lives += 1;
        // Not a uuid: of two allocations the smaller uid may decide (S2), so its order is part of the state.
        made.metadata.uid = Some(format!("uid-{}-{name}", self.lives));
        made.metadata.generation = Some(1);
        made.metadata.creation_timestamp = Some(Time(now));
        made.metadata.resource_version = self.version();
        let made = Arc::new(made);
        Arc::make_mut(&mut self.stored.allocations).insert(name.to_owned(), made.clone());
        made
    }

    fn by_hand(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut NetIPAllocation),
    ) -> Result<Arc<NetIPAllocation>, Refused> {
        let before = self.of_version(name, None)?;
        let mut after = (*before).clone();
        change(&mut after);
        Ok(self.store(&before, after))
    }

    /// # Errors
    /// There is none of that name.
    pub fn edit(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut NetIPAllocationSpec),
    ) -> Result<Arc<NetIPAllocation>, Refused> {
        self.by_hand(name, |object| change(&mut object.spec))
    }

    /// # Errors
    /// There is none of that name.
    pub fn annotate(&mut self, name: &str, key: &str, value: Option<&str>) -> Result<Arc<NetIPAllocation>, Refused> {
        self.by_hand(name, |object| {
            let all = object.metadata.annotations.get_or_insert_default();
            match value {
                Some(value) => all.insert(key.to_owned(), value.to_owned()),
                None => all.remove(key),
            };
            object.metadata.annotations = object.metadata.annotations.take().filter(|all| !all.is_empty());
        })
    }

    /// `kubectl delete --wait=false`.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn delete(&mut self, name: &str, now: Timestamp) -> Result<(), Refused> {
        self.by_hand(name, |object| {
            object.metadata.deletion_timestamp.get_or_insert(Time(now));
        })?;
        Ok(())
    }

    /// Status removed by hand, as a restore from backup does.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn remove_status(&mut self, name: &str) -> Result<Arc<NetIPAllocation>, Refused> {
        self.by_hand(name, |object| object.status = None)
    }

    /// # Errors
    /// There is none of that name.
    pub fn edit_status(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut NetIPAllocationStatus),
    ) -> Result<Arc<NetIPAllocation>, Refused> {
        self.by_hand(name, |object| change(object.status.get_or_insert_default()))
    }

    /// Finalizer taken off by hand.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn force_finalizer_off(&mut self, name: &str, finalizer: &str) -> Result<(), Refused> {
        let before = self.of_version(name, None)?;
        self.without_finalizer(&before, finalizer);
        Ok(())
    }

    // Nodes.

    pub fn nodes(&self) -> &BTreeMap<String, Arc<SlimNode>> {
        &self.stored.nodes
    }

    pub fn node(&self, name: &str) -> Option<&Arc<SlimNode>> {
        self.stored.nodes.get(name)
    }

    /// One merge patch of labels that carries the Node's uid (F8).
    ///
    /// # Errors
    /// There is no such node, or another one has its name.
    pub fn patch_labels(
        &mut self,
        name: &str,
        uid: Option<&str>,
        labels: &BTreeMap<String, Option<String>>,
    ) -> Result<Arc<SlimNode>, Refused> {
        let node = self.node(name).ok_or(Refused::NotFound)?;
        if uid.is_some() && node.metadata.uid.as_deref() != uid {
            return Err(Refused::Invalid);
        }
        let node = self.change_node(name, |node| {
            let all = node.metadata.labels.get_or_insert_default();
            for (key, value) in labels {
                match value {
                    Some(value) => all.insert(key.clone(), value.clone()),
                    None => all.remove(key),
                };
            }
        })?;
        if node.label(READY_LABEL) != Some(READY_VALUE) {
            self.end_daemons(name);
        }
        Ok(node)
    }

    /// The DaemonSet controller takes its pod off a node that it does not select any more.
    fn end_daemons(&mut self, node: &str) {
        let chosen = |pod: &Pod| pod.gated && users::is_daemon(pod);
        let ended = self.pods_of(node).into_iter().filter(chosen).map(|pod| pod.uid);
        for uid in ended.collect::<Vec<_>>() {
            self.end_pod(&uid);
        }
    }

    fn change_node(&mut self, name: &str, change: impl FnOnce(&mut SlimNode)) -> Result<Arc<SlimNode>, Refused> {
        let before = self.node(name).ok_or(Refused::NotFound)?.clone();
        let mut after = (*before).clone();
        change(&mut after);
        if after == *before {
            return Ok(before);
        }
        after.metadata.resource_version = self.version();
        let after = Arc::new(after);
        Arc::make_mut(&mut self.stored.nodes).insert(name.to_owned(), after.clone());
        Ok(after)
    }

    /// A node joins, Ready. One that has its name goes first, and its pods with it.
    pub fn add_node(
        &mut self,
        name: &str,
        place: &ProviderId,
        labels: &BTreeMap<String, String>,
        now: Timestamp,
    ) -> Arc<SlimNode> {
        self.delete_node(name);
        let mut node = SlimNode {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                uid: Some(self.uid()),
                resource_version: self.version(),
                creation_timestamp: Some(Time(now)),
                labels: Some(labels.clone()),
                ..ObjectMeta::default()
            },
            ..SlimNode::default()
        };
        node.spec.provider_id = Some(place.clone());
        node.status.conditions = Some(vec![ready(true, now)]);
        let node = Arc::new(node);
        Arc::make_mut(&mut self.stored.nodes).insert(name.to_owned(), node.clone());
        node
    }

    /// The Node object goes, and its pods with it.
    pub fn delete_node(&mut self, name: &str) {
        if self.node(name).is_some() {
            Arc::make_mut(&mut self.stored.nodes).remove(name);
        }
        if self.stored.pods.contains_key(name) {
            Arc::make_mut(&mut self.stored.pods).remove(name);
        }
    }

    /// # Errors
    /// There is no such node.
    pub fn cordon(&mut self, name: &str, cordoned: bool) -> Result<(), Refused> {
        self.change_node(name, |node| node.spec.unschedulable = cordoned.then_some(true)).map(|_| ())
    }

    /// # Errors
    /// There is no such node.
    pub fn taint(&mut self, name: &str, key: &str, effect: &str) -> Result<(), Refused> {
        let taint = Taint { key: key.to_owned(), effect: effect.to_owned(), ..Taint::default() };
        self.change_node(name, |node| {
            let all = node.spec.taints.get_or_insert_default();
            all.retain(|other| other.key != key);
            all.push(taint);
        })
        .map(|_| ())
    }

    /// # Errors
    /// There is no such node.
    pub fn untaint(&mut self, name: &str, key: &str) -> Result<(), Refused> {
        self.change_node(name, |node| {
            let left = node.spec.taints.take().unwrap_or_default();
            let left: Vec<Taint> = left.into_iter().filter(|taint| taint.key != key).collect();
            node.spec.taints = (!left.is_empty()).then_some(left);
        })
        .map(|_| ())
    }

    /// By hand; `None` takes it off.
    ///
    /// # Errors
    /// There is no such node.
    pub fn label(&mut self, name: &str, key: &str, value: Option<&str>) -> Result<(), Refused> {
        let labels = BTreeMap::from([(key.to_owned(), value.map(str::to_owned))]);
        self.patch_labels(name, None, &labels).map(|_| ())
    }

    /// # Errors
    /// There is no such node.
    pub fn set_ready(&mut self, name: &str, is_ready: bool, now: Timestamp) -> Result<(), Refused> {
        self.change_node(name, |node| {
            // The time is that of the last change, not of the last beat.
            if node.not_ready_since().is_none() != is_ready {
                node.status.conditions = Some(vec![ready(is_ready, now)]);
            }
        })
        .map(|_| ())
    }

    // Pods.

    pub fn pods(&self) -> &BTreeMap<String, Vec<Arc<Pod>>> {
        &self.stored.pods
    }

    /// The pods of a node, as a live list shows them.
    pub fn pods_of(&self, node: &str) -> Vec<Pod> {
        self.stored.pods.get(node).into_iter().flatten().map(|pod| (**pod).clone()).collect()
    }

    fn pod(&self, uid: &str) -> Option<(&str, &Arc<Pod>)> {
        self.stored
            .pods
            .iter()
            .find_map(|(node, pods)| pods.iter().find(|pod| pod.uid == uid).map(|pod| (node.as_str(), pod)))
    }

    fn change_pod(&mut self, uid: &str, change: impl FnOnce(&mut Pod)) -> Result<(), Refused> {
        let (node, pod) = self.pod(uid).ok_or(Refused::NotFound)?;
        let (node, mut pod) = (node.to_owned(), (**pod).clone());
        change(&mut pod);
        let all = Arc::make_mut(&mut self.stored.pods).entry(node).or_default();
        if let Some(place) = all.iter_mut().find(|other| other.uid == uid) {
            *place = Arc::new(pod);
        }
        Ok(())
    }

    /// The scheduler binds a pod to a node, if that is allowed; it gets a uid of its own.
    ///
    /// # Errors
    /// Why the node is none for it.
    pub fn start_pod(&mut self, node: &str, pod: Pod) -> Result<Arc<Pod>, &'static str> {
        let on = self.node(node).ok_or("there is no such node")?;
        if on.cordoned() && !pod.returns {
            return Err("the node is cordoned");
        }
        if pod.gated && on.label(READY_LABEL) != Some(READY_VALUE) {
            return Err("the node has not the label that the pod asks for");
        }
        if on.not_ready_since().is_some() || on.deleting() {
            return Err("the node is not Ready");
        }
        if on.spec.taints.iter().flatten().any(|taint| taint.effect != "PreferNoSchedule") {
            return Err("the node has a taint that the pod does not tolerate");
        }
        let key = |pod: &Pod| (pod.namespace.clone(), pod.name.clone());
        if self.stored.pods.values().flatten().any(|other| key(other) == key(&pod)) {
            return Err("there is a pod of that name");
        }
        let pod = Arc::new(Pod { uid: self.uid(), ..pod });
        let all = Arc::make_mut(&mut self.stored.pods).entry(node.to_owned()).or_default();
        all.push(pod.clone());
        all.sort_by_key(|pod| key(pod));
        Ok(pod)
    }

    /// It is gone.
    pub fn end_pod(&mut self, uid: &str) {
        let Some((node, _)) = self.pod(uid) else { return };
        let node = node.to_owned();
        self.guarded.remove(uid);
        let all = Arc::make_mut(&mut self.stored.pods);
        if let Some(pods) = all.get_mut(&node) {
            pods.retain(|pod| pod.uid != uid);
        }
        all.retain(|_, pods| !pods.is_empty());
    }

    /// The hold annotation.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn hold(&mut self, uid: &str, hold: bool) -> Result<(), Refused> {
        self.change_pod(uid, |pod| pod.hold = hold)
    }

    /// # Errors
    /// There is no such pod.
    pub fn set_pod_ready(&mut self, uid: &str, ready: bool) -> Result<(), Refused> {
        self.change_pod(uid, |pod| pod.ready = ready)
    }

    /// Its containers have ended; the object stays.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn finish_pod(&mut self, uid: &str) -> Result<(), Refused> {
        self.change_pod(uid, |pod| (pod.finished, pod.ready) = (true, false))
    }

    /// `POST …/eviction` with the uid as precondition.
    pub fn evict(&mut self, uid: &str, now: Timestamp) -> Evicted {
        let Some((_, pod)) = self.pod(uid) else { return Evicted::NotFound };
        if pod.terminating_until.is_some() {
            return Evicted::Accepted;
        }
        if pod.finished {
            self.end_pod(uid);
            return Evicted::Accepted;
        }
        if self.guarded.contains(uid) {
            return Evicted::Blocked("PodDisruptionBudget allows 0 now".to_owned());
        }
        let until = now + self.grace;
        let gone = self.change_pod(uid, |pod| pod.terminating_until = Some(until)).is_err();
        if gone { Evicted::NotFound } else { Evicted::Accepted }
    }

    // The Lease.

    /// `PUT` of the Lease with the version that was read.
    ///
    /// # Errors
    /// Somebody else was quicker.
    pub fn write_lease(&mut self, version: Option<&str>, holder: Option<u8>) -> Result<Lease, Refused> {
        if self.lease.resource_version.as_deref() != version {
            return Err(Refused::Conflict);
        }
        self.lease = Lease { holder, resource_version: self.version() };
        Ok(self.lease.clone())
    }

    /// Somebody steals it.
    pub fn steal_lease(&mut self, holder: Option<u8>) -> Lease {
        self.lease = Lease { holder, resource_version: self.version() };
        self.lease.clone()
    }
}

fn ready(is_ready: bool, now: Timestamp) -> NodeCondition {
    NodeCondition {
        type_: "Ready".to_owned(),
        status: if is_ready { "True" } else { "Unknown" }.to_owned(),
        last_transition_time: Some(Time(now)),
        ..NodeCondition::default()
    }
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
