//! What is read of Nodes: a slim type (images and the like are never parsed), and this process's own writes on top.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use kube::{ResourceExt, api::ObjectMeta};
use kube_runtime::reflector::{ObjectRef, Store};
use serde::{Deserialize, Serialize};

use crate::{
    allocation::decide::facts::Labels,
    api::{ADDRESS_LABEL, ALLOCATION_LABEL, READY_LABEL, READY_VALUE},
    cloud::{Place, ProviderId},
};

/// A Node, as far as we read it.
#[derive(kube::Resource, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[resource(inherit = "Node")]
pub struct SlimNode {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: SlimSpec,
    #[serde(default)]
    pub status: SlimStatus,
}

/// See [`SlimNode`].
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SlimSpec {
    #[serde(rename = "providerID", default)]
    pub provider_id: Option<ProviderId>,
    #[serde(default)]
    pub unschedulable: Option<bool>,
    #[serde(default)]
    pub taints: Option<Vec<Taint>>,
}

/// See [`SlimNode`].
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct SlimStatus {
    #[serde(default)]
    pub conditions: Option<Vec<NodeCondition>>,
}

/// GKE writes the instance's own number here; a node that has it can be told from a replacement of the same name.
const GCE_INSTANCE_ID: &str = "container.googleapis.com/instance_id";
const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";
/// EKS writes here how the node came to be: `ec2`, `fargate`, `hybrid`, or `auto` for Auto Mode.
const EKS_COMPUTE_TYPE: &str = "eks.amazonaws.com/compute-type";
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
const READY: &str = "Ready";
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
/// Guesses: the node may go, or not. They make it the last choice and nothing more.
const GUESSES: [&str; 2] =
    ["DeletionCandidateOfClusterAutoscaler", "aws-node-termination-handler/rebalance-recommendation"];

impl SlimNode {
    /// Lets go of what no pass reads: a cluster of thousands keeps each of its nodes in memory. What is left changes only when
    /// something changes that matters, but for the version.
    pub fn slim(&mut self) {
        self.metadata.managed_fields = None;
        self.metadata.owner_references = None;
        if let Some(annotations) = &mut self.metadata.annotations {
            annotations.retain(|key, _| key == GCE_INSTANCE_ID);
        }
        // An empty map keeps what it was built in.
        self.metadata.annotations.take_if(|annotations| annotations.is_empty());
        if let Some(conditions) = &mut self.status.conditions {
            conditions.retain(|condition| condition.type_ == READY);
            conditions.shrink_to_fit();
            conditions.iter_mut().for_each(|condition| condition.last_heartbeat_time = None);
        }
    }

    /// Whether it says the same as `other`, whatever the version.
    pub fn is_like(&self, other: &Self) -> bool {
        let resource_version = other.metadata.resource_version.clone();
        let metadata = ObjectMeta { resource_version, ..self.metadata.clone() };
        metadata == other.metadata && self.spec == other.spec && self.status == other.status
    }

    pub fn place(&self) -> Option<ProviderId> {
        self.spec.provider_id.clone().filter(|id| !id.as_str().is_empty())
    }

    /// Where its machine stands: what the provider ID says, and what the cloud controller's labels say where that is
    /// silent (an Azure provider ID names neither region nor zone).
    pub fn location(&self) -> Option<Cow<'_, Place>> {
        let mut place = Cow::Borrowed(self.spec.provider_id.as_ref()?.place()?);
        if place.region.is_empty() {
            place.to_mut().region = self.label(REGION).unwrap_or_default().to_lowercase();
        }
        if place.zone.is_empty() {
            place.to_mut().zone = self.zone().to_owned();
        }
        Some(place)
    }

    /// Why its machine can never take an address, and what to use instead.
    pub fn unsupported(&self) -> Option<&'static str> {
        match self.label(EKS_COMPUTE_TYPE) {
            Some("auto") => Some(
                "the machines of EKS Auto Mode are Amazon's and take no address of yours; use a managed node group, Karpenter or instances of your own",
            ),
            Some(_) | None => self.place()?.unsupported(),
        }
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    pub fn zone(&self) -> &str {
        self.label(ZONE).unwrap_or_default()
    }

    pub fn cordoned(&self) -> bool {
        self.spec.unschedulable.unwrap_or_default()
    }

    pub fn deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    pub fn control_plane(&self) -> bool {
        self.label(CONTROL_PLANE).is_some()
    }

    /// Every key and value of `selector` is among the labels. An empty one selects all but the control plane.
    pub fn matches(&self, selector: &Selector) -> bool {
        if selector.is_empty() {
            return !self.control_plane();
        }
        selector.iter().all(|(key, value)| self.label(key) == Some(value))
    }

    /// The cloud's own id of the machine, where the Node says it.
    pub fn instance(&self) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(GCE_INSTANCE_ID).map(String::as_str)
    }

    /// The allocation of which the labels say that the node carries an address.
    pub fn labelled_for(&self) -> Option<&str> {
        self.label(ALLOCATION_LABEL).filter(|_| self.label(READY_LABEL) == Some(READY_VALUE))
    }

    fn taints(&self) -> impl Iterator<Item = &Taint> {
        self.spec.taints.iter().flatten()
    }

    /// What says that it is about to go: one of `taints`, or that the object is being deleted.
    pub fn disrupted(&self, taints: &[String]) -> Option<String> {
        if self.deleting() {
            return Some("the Node object is being deleted".to_owned());
        }
        self.taints().find(|taint| taints.contains(&taint.key)).map(|taint| format!("taint {}", taint.key))
    }

    pub fn out_of_service(&self) -> bool {
        self.taints().any(|taint| taint.key == OUT_OF_SERVICE)
    }

    pub fn may_end_soon(&self) -> bool {
        self.taints().any(|taint| GUESSES.contains(&taint.key.as_str()))
    }

    /// Since when its Ready condition is not True; `None` while it is. A node without one has just registered.
    pub fn not_ready_since(&self) -> Option<Timestamp> {
        let ready = self.status.conditions.iter().flatten().find(|condition| condition.type_ == READY);
        match ready {
            Some(condition) if condition.status == "True" => None,
            Some(condition) => Some(condition.last_transition_time.as_ref().map_or(self.created(), |time| time.0)),
            None => Some(self.created()),
        }
    }

    fn created(&self) -> Timestamp {
        self.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
    }

    /// Whether the labels say that the node has this address of this allocation.
    pub fn labels_for(&self, allocation: &str, address: &str) -> Labels {
        let ready = self.label(READY_LABEL);
        let (whose, which) = (self.label(ALLOCATION_LABEL), self.label(ADDRESS_LABEL));
        match (ready, whose, which) {
            (None, None, None) => Labels::Off,
            (Some(READY_VALUE), Some(w), Some(a)) if w == allocation && a == address => Labels::On,
            _ => Labels::Partly,
        }
    }

    fn version(&self) -> u64 {
        self.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default()
    }
}

/// The labels that select nodes.
type Selector = BTreeMap<String, String>;

/// The Nodes as passes see them until one changes. What each pass asks of all of them is looked up once.
#[derive(Debug, Default)]
pub struct Roster {
    nodes: Vec<Arc<SlimNode>>,
    /// Where the first Node on each machine stands among them.
    on: HashMap<ProviderId, usize>,
    unready: Vec<Arc<SlimNode>>,
    /// Those that are labelled as carrying an address, by the allocation that their labels name.
    labelled: HashMap<String, Vec<Arc<SlimNode>>>,
    /// Those of each selector that was asked for.
    selected: Mutex<HashMap<Selector, Arc<[Arc<SlimNode>]>>>,
}

impl Roster {
    /// Of these, in any order.
    pub fn of(mut nodes: Vec<Arc<SlimNode>>) -> Self {
        nodes.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let (mut unready, mut labelled) = (Vec::new(), HashMap::<String, Vec<Arc<SlimNode>>>::new());
        let mut on = HashMap::with_capacity(nodes.len());
        for (position, node) in nodes.iter().enumerate() {
            if let Some(place) = node.place() {
                on.entry(place).or_insert(position);
            }
            if node.not_ready_since().is_some() {
                unready.push(node.clone());
            }
            if let Some(allocation) = node.labelled_for() {
                labelled.entry(allocation.to_owned()).or_default().push(node.clone());
            }
        }
        Self { nodes, on, unready, labelled, selected: Mutex::default() }
    }

    pub fn named(&self, name: &str) -> Option<&Arc<SlimNode>> {
        let position = self.nodes.binary_search_by(|node| node.metadata.name.as_deref().cmp(&Some(name))).ok()?;
        self.nodes.get(position)
    }

    /// The first of those that say they are that machine.
    pub fn on(&self, machine: &ProviderId) -> Option<&Arc<SlimNode>> {
        self.nodes.get(*self.on.get(machine)?)
    }

    /// Those whose Ready condition is not True.
    pub fn unready(&self) -> &[Arc<SlimNode>] {
        &self.unready
    }

    /// Those whose labels say that they carry an address of that allocation.
    pub fn labelled_for(&self, allocation: &str) -> &[Arc<SlimNode>] {
        self.labelled.get(allocation).map_or(&[], Vec::as_slice)
    }

    /// Those that [match](SlimNode::matches) the selector, by name.
    pub fn selected(&self, selector: &Selector) -> Arc<[Arc<SlimNode>]> {
        let mut selected = self.selected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = selected.get(selector) {
            return known.clone();
        }
        let matching: Arc<[_]> = self.nodes.iter().filter(|node| node.matches(selector)).cloned().collect();
        selected.insert(selector.clone(), matching.clone());
        matching
    }
}

/// By name.
impl Deref for Roster {
    type Target = [Arc<SlimNode>];

    fn deref(&self) -> &Self::Target {
        &self.nodes
    }
}

/// All Nodes: the watch cache, and what this process wrote and read back since.
#[derive(Clone)]
pub struct Nodes {
    cache: Store<SlimNode>,
    own: Arc<Mutex<HashMap<String, SlimNode>>>,
    /// Uids that the API server did not find: the cache may still show them.
    gone: Arc<Mutex<HashSet<String>>>,
    /// As the last pass saw them, until something changes: passes are many, and changes few.
    seen: Arc<Mutex<Option<Arc<Roster>>>>,
}

impl Nodes {
    pub fn new(cache: Store<SlimNode>) -> Self {
        Self { cache, own: Arc::default(), gone: Arc::default(), seen: Arc::default() }
    }

    /// The newest version known.
    pub fn get(&self, name: &str) -> Option<Arc<SlimNode>> {
        let cached = self.cache.get(&ObjectRef::new(name))?;
        (!self.is_gone(&cached)).then(|| self.newer(cached))
    }

    /// All of them.
    pub fn all(&self) -> Arc<Roster> {
        let mut seen = self.seen();
        // Made under the lock: what changes meanwhile is told afterwards, and then it is made anew.
        let nodes = || {
            let cached = self.cache.state().into_iter().filter(|node| !self.is_gone(node));
            Arc::new(Roster::of(cached.map(|node| self.newer(node)).collect()))
        };
        seen.get_or_insert_with(nodes).clone()
    }

    /// The watch cache shows something new.
    pub fn changed(&self) {
        *self.seen() = None;
    }

    /// What a write of ours returned.
    pub fn wrote(&self, mut node: SlimNode) {
        node.slim();
        self.lock().insert(node.name_any(), node);
        self.changed();
    }

    /// The API server says that there is no such Node.
    pub fn gone(&self, uid: Option<String>) {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).extend(uid);
        self.changed();
    }

    /// Forgets what the cache knows by now as well.
    pub fn prune(&self) {
        self.lock().retain(|name, _| self.cache.get(&ObjectRef::new(name)).is_some());
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        if !gone.is_empty() {
            let cached: HashSet<String> = self.cache.state().iter().filter_map(|node| node.uid()).collect();
            gone.retain(|uid| cached.contains(uid));
        }
    }

    fn is_gone(&self, node: &SlimNode) -> bool {
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        node.metadata.uid.as_ref().is_some_and(|uid| gone.contains(uid))
    }

    fn newer(&self, cached: Arc<SlimNode>) -> Arc<SlimNode> {
        let mut own = self.lock();
        let Some(name) = cached.metadata.name.as_deref() else { return cached };
        match own.get(name) {
            Some(written)
                if written.uid() == cached.uid()
                    && written.version() > cached.version()
                    && !written.is_like(&cached) =>
            {
                Arc::new(written.clone())
            }
            Some(_) => {
                own.remove(name);
                cached
            }
            None => cached,
        }
    }

    fn seen(&self) -> MutexGuard<'_, Option<Arc<Roster>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, SlimNode>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(provider_id: &str, labels: &[(&str, &str)]) -> SlimNode {
        SlimNode {
            metadata: ObjectMeta {
                labels: Some(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()),
                ..ObjectMeta::default()
            },
            spec: SlimSpec { provider_id: Some(ProviderId::new(provider_id)), ..SlimSpec::default() },
            ..SlimNode::default()
        }
    }

    #[test]
    fn labels_say_where_a_machine_stands_only_where_its_provider_id_does_not() {
        let labels = [(REGION, "WestEurope"), (ZONE, "westeurope-2")];
        let vm = "azure:///subscriptions/0A1B/resourceGroups/mc/providers/Microsoft.Compute/virtualMachines/vm-1";
        let at = |node: &SlimNode| node.location().map(|place| (place.region.clone(), place.zone.clone()));
        assert_eq!(at(&node(vm, &labels)), Some(("westeurope".to_owned(), "westeurope-2".to_owned())));
        let told = at(&node("aws:///us-west-2a/i-0abc", &labels));
        assert_eq!(told, Some(("us-west-2".to_owned(), "us-west-2a".to_owned())));
    }

    #[test]
    fn a_roster_finds_nodes_by_selector_by_label_and_those_that_are_not_ready() {
        let named = |name: &str, labels: &[(&str, &str)]| {
            let mut node = node("gce://p/us-west1-a/a", labels);
            node.metadata.name = Some(name.to_owned());
            Arc::new(node)
        };
        let ready = |node: Arc<SlimNode>| {
            let mut node = Arc::unwrap_or_clone(node);
            let condition = NodeCondition { type_: READY.into(), status: "True".into(), ..NodeCondition::default() };
            node.status.conditions = Some(vec![condition]);
            Arc::new(node)
        };
        let carries = [("role", "sip"), (READY_LABEL, READY_VALUE), (ALLOCATION_LABEL, "trunks")];
        let roster = Roster::of(vec![
            ready(named("d", &[("role", "sip")])),
            named("c", &[("role", "sip"), (ALLOCATION_LABEL, "trunks")]),
            ready(named("b", &carries)),
            ready(named("a", &[(CONTROL_PLANE, "")])),
        ]);
        let names = |nodes: &[Arc<SlimNode>]| nodes.iter().map(|node| node.name_any()).collect::<Vec<_>>();
        let by = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        for _ in ["looked up", "known"] {
            assert_eq!(names(&roster.selected(&by("role", "sip"))), ["b", "c", "d"]);
            assert!(roster.selected(&by("role", "game")).is_empty());
            assert_eq!(names(&roster.selected(&BTreeMap::new())), ["b", "c", "d"], "all but the control plane");
        }
        assert_eq!(names(roster.labelled_for("trunks")), ["b"], "c is not ip.ready");
        assert!(roster.labelled_for("lobby").is_empty());
        assert_eq!(names(roster.unready()), ["c"]);
    }

    #[test]
    fn what_says_that_a_node_is_about_to_go_can_be_set() {
        let mut node = node("aws:///us-west-2a/i-0abc", &[]);
        let taint = |key: &str| Taint { key: key.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        node.spec.taints = Some(vec![taint("gpu"), taint("example.com/leaving")]);
        assert_eq!(node.disrupted(&["karpenter.sh/disrupted".to_owned()]), None);
        let said = node.disrupted(&["example.com/leaving".to_owned()]);
        assert_eq!(said.as_deref(), Some("taint example.com/leaving"), "and the message says which it was");
    }

    #[test]
    fn a_machine_of_eks_auto_mode_is_told_by_its_label() {
        let id = "aws:///us-west-2a/i-0abc";
        assert!(node(id, &[(EKS_COMPUTE_TYPE, "auto")]).unsupported().is_some_and(|why| why.contains("Auto Mode")));
        assert_eq!(node(id, &[(EKS_COMPUTE_TYPE, "ec2")]).unsupported(), None);
    }
}
