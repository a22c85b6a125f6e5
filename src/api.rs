//! The resource `NetIPAllocation`, as stored by the API server: types and constants, no logic.
//!
//! These types are the one source of the CRD: [`crd`] turns them into the definition that `crds/` and the chart carry.
//! The doc comment of a field is its description there, so it is one line, written for the users of `kubectl explain`.
//!
//! Reading is more lenient than the schema, because an object may have been stored under an older one: bounds, list rules
//! and CEL are not repeated here, what version 1 did not ask for is optional, unknown fields are skipped, and the words in
//! status (states, reasons, operation types) are plain text, so that a newer version's words survive an older reader.
//! Only a word that is not in an enum of the spec makes an object unreadable; watches go through `DeserializeGuard`.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// API group of the resource.
pub const GROUP: &str = "netinfra.darkbrains.com";

/// Finalizer that keeps an allocation until its addresses are let go; set before the first cloud call.
pub const FINALIZER: &str = "netinfra.darkbrains.com/detach";

/// Node label, value [`READY_VALUE`]: a reserved address is verified on this node.
pub const READY_LABEL: &str = "ip.ready";

/// The only value of [`READY_LABEL`].
pub const READY_VALUE: &str = "true";

/// Node label that names the allocation whose address is on the node; set and removed together with [`READY_LABEL`].
pub const ALLOCATION_LABEL: &str = "netinfra.darkbrains.com/allocation";

/// Node label that holds the address on the node; set and removed together with [`READY_LABEL`].
pub const ADDRESS_LABEL: &str = "netinfra.darkbrains.com/address";

/// Pod annotation, value `"true"`: the pod holds its node's address as a running call would.
pub const HOLD_ANNOTATION: &str = "netinfra.darkbrains.com/hold";

/// Allocation annotation, value `IP` or `IP=NODE`: move this address now, once; the operator removes it.
pub const MOVE_ANNOTATION: &str = "netinfra.darkbrains.com/move";

/// Allocation annotation, value `"true"`: admission refuses to delete the allocation.
pub const PROTECT_ANNOTATION: &str = "netinfra.darkbrains.com/protect";

/// What a user asks for: which addresses, on which nodes, for which workload, and how they may move.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "netinfra.darkbrains.com",
    version = "v1alpha1",
    kind = "NetIPAllocation",
    plural = "netipallocations",
    shortname = "nia",
    category = "netinfra",
    status = "NetIPAllocationStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "NetIPAllocation keeps a set of reserved external addresses on healthy nodes of one pool.",
    selectable = ".spec.cloud.provider",
    selectable = ".spec.cloud.region",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(
        name = "Reserved",
        type_ = "integer",
        json_path = ".status.reservedCount",
        description = "Addresses that this allocation names or selects"
    ),
    printcolumn(
        name = "Attached",
        type_ = "integer",
        json_path = ".status.attachedCount",
        description = "Addresses verified on a machine (Attached and Draining)"
    ),
    printcolumn(
        name = "Moving",
        type_ = "integer",
        json_path = ".status.movingCount",
        description = "Addresses that are Draining, Detached or Attaching"
    ),
    printcolumn(
        name = "Spare",
        type_ = "integer",
        json_path = ".status.spareNodeCount",
        description = "Eligible nodes without an address; 0 = the next drain has nowhere to go"
    ),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Since",
        type_ = "date",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Ready")].lastTransitionTime"#
    ),
    printcolumn(name = "Provider", type_ = "string", priority = 1, json_path = ".spec.cloud.provider"),
    printcolumn(name = "Region", type_ = "string", priority = 1, json_path = ".spec.cloud.region"),
    printcolumn(name = "Workload", type_ = "string", priority = 1, json_path = ".status.workload"),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#
    ),
    validation = Rule::new("size(self.metadata.name) <= 63")
        .message("metadata.name must be at most 63 characters, it becomes a node label value"),
    validation = Rule::new("!has(oldSelf.spec.cloud.provider) || (has(self.spec.cloud.provider) && self.spec.cloud.provider == oldSelf.spec.cloud.provider) || !has(self.status) || !has(self.status.addresses) || self.status.addresses.all(a, a.state == 'Unassigned')")
        .message("spec.cloud.provider can change only while no address is attached or moving; remove the addresses first, or make a second allocation"),
    validation = Rule::new("!has(oldSelf.spec.cloud.region) || (has(self.spec.cloud.region) && self.spec.cloud.region == oldSelf.spec.cloud.region) || !has(self.status) || !has(self.status.addresses) || self.status.addresses.all(a, a.state == 'Unassigned')")
        .message("spec.cloud.region can change only while no address is attached or moving; remove the addresses first, or make a second allocation")
)]
#[x_kube(
    validation = Rule::new("(has(self.reservedIPs) && size(self.reservedIPs) > 0) || has(self.addressSelector)")
        .message("spec needs reservedIPs with at least one address, or addressSelector"),
    validation = Rule::new("!(has(self.workloadRef) && has(self.deploymentRef))")
        .message("give workloadRef or deploymentRef, not both; deploymentRef is the deprecated form")
)]
#[serde(rename_all = "camelCase")]
pub struct NetIPAllocationSpec {
    /// Reserved external addresses, in canonical text form. The operator never reserves or releases one.
    // Plain text: an old object may hold anything here, and gets a reason for it instead of an error.
    #[serde(default, rename = "reservedIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<ReservedAddress>", length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub reserved_ips: Vec<String>,

    /// Also every reserved address of the region that carries all of these tags (AWS, Azure) or labels (GCP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_selector: Option<AddressSelector>,

    /// The workload that uses the addresses; its pods hold an address on its node while it drains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_ref: Option<WorkloadRef>,

    /// Deprecated: use workloadRef with kind Deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment_ref: Option<DeploymentRef>,

    /// Labels of the nodes that may hold an address. Absent or empty selects every node except control-plane ones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, LabelValue>", extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,

    /// Where the addresses are reserved.
    // Must be given, and is read as empty where an older schema let it be left out.
    #[serde(default)]
    pub cloud: CloudSpec,

    /// Seconds between full observations of the cloud. Watched changes act at once.
    #[serde(default = "default_reconcile_interval")]
    #[schemars(range(min = 5, max = 3600))]
    pub reconcile_interval: i32,

    /// Ready is True while at least so many addresses are attached (count, or percent of reserved rounded up). Lower it when the pool has spare addresses.
    #[serde(default = "default_min_attached")]
    #[x_kube(validation = Rule::new("type(self) == int ? self >= 0 : self.matches('^(100|[0-9]{1,2})%$')")
        .message("minAttached must be a count of 0 or more, or a percentage from 0% to 100%"))]
    pub min_attached: IntOrPercent,

    /// Pace of moves that are made by choice. Failover is not limited by it.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub strategy: Strategy,

    /// How an address leaves a node that works.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub drain: Drain,

    /// How an address leaves a node that does not work.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub failover: Failover,

    /// Taint that keeps pods off selected nodes until an address is verified there; put back before the address leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_taint: Option<NodeTaint>,

    /// What deletion does. Detach: addresses leave as in a drain, then the object goes. Retain: addresses and labels stay, the object goes at once. May be changed while the object is Terminating.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// Enforce: act. Hold: no move by choice; failover and half-done moves go on. Observe: change nothing, report the plan.
    #[serde(default)]
    pub mode: Mode,
}

fn default_reconcile_interval() -> i32 {
    30
}

fn default_min_attached() -> IntOrPercent {
    IntOrPercent::Text("100%".to_owned())
}

impl Default for NetIPAllocationSpec {
    /// What the API server makes of a spec with an empty `cloud` and nothing else.
    fn default() -> Self {
        Self {
            reserved_ips: Vec::new(),
            address_selector: None,
            workload_ref: None,
            deployment_ref: None,
            node_selector: BTreeMap::new(),
            cloud: CloudSpec::default(),
            reconcile_interval: default_reconcile_interval(),
            min_attached: default_min_attached(),
            strategy: Strategy::default(),
            drain: Drain::default(),
            failover: Failover::default(),
            node_taint: None,
            deletion_policy: DeletionPolicy::default(),
            mode: Mode::default(),
        }
    }
}

impl NetIPAllocationSpec {
    /// The workload that uses the addresses, whichever of the two forms names it; `None` when neither does.
    ///
    /// `workloadRef` wins where a stored object has both (admission refuses that now).
    pub fn workload(&self) -> Option<WorkloadRef> {
        self.workload_ref.clone().or_else(|| {
            self.deployment_ref.as_ref().map(|old| WorkloadRef {
                kind: WorkloadKind::Deployment,
                name: old.name.clone(),
                namespace: old.namespace.clone(),
            })
        })
    }
}

// One item of `spec.reservedIPs`, for the schema only: the Rust field is plain text. A doc comment would end up there.
#[derive(JsonSchema)]
#[schemars(extend(
    "maxLength" = 45,
    "x-kubernetes-validations" = [
        {"rule": "isIP(self)", "messageExpression": "'\"' + self + '\" is not an IP address'"},
        {"rule": "!isIP(self) || ip.isCanonical(self)", "message": "write the address in canonical form (lower case, zeros compressed)"},
        {"rule": "!isIP(self) || ip(self).isGlobalUnicast()", "message": "the address must be a unicast address that can be routed"},
        {"rule": "!isIP(self) || ip(self).family() == 4", "message": "IPv6 is not supported: an address is kept on nodes as IPv4 only; list IPv4 addresses"},
    ]
))]
struct ReservedAddress(#[allow(dead_code)] String);

// A node label's value, for the schema only.
#[derive(JsonSchema)]
#[schemars(extend("maxLength" = 63))]
struct LabelValue(#[allow(dead_code)] String);

// A tag's value, for the schema only.
#[derive(JsonSchema)]
#[schemars(extend("maxLength" = 256))]
struct TagValue(#[allow(dead_code)] String);

/// Selects reserved addresses by their tags or labels.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AddressSelector {
    /// Exact key and value; all must match.
    #[schemars(with = "BTreeMap<String, TagValue>", extend("minProperties" = 1, "maxProperties" = 16))]
    pub match_tags: BTreeMap<String, String>,
}

/// Kinds of workload whose pods may use the addresses.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadKind {
    Deployment,
    StatefulSet,
    DaemonSet,
}

impl WorkloadKind {
    /// The kind as Kubernetes spells it, for example `StatefulSet`.
    pub fn as_str(self) -> &'static str {
        match self {
            WorkloadKind::Deployment => "Deployment",
            WorkloadKind::StatefulSet => "StatefulSet",
            WorkloadKind::DaemonSet => "DaemonSet",
        }
    }
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names a workload. Shown as `KIND NAMESPACE/NAME`, the form of `status.workload`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadRef {
    /// Kind in API group apps.
    pub kind: WorkloadKind,

    /// Name of the workload.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Namespace of the workload.
    #[serde(default = "default_namespace")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
}

impl fmt::Display for WorkloadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Names a Deployment: version 1's form of [`WorkloadRef`].
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentRef {
    /// Name of the Deployment.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Namespace of the Deployment.
    #[serde(default = "default_namespace")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
}

fn default_namespace() -> String {
    "default".to_owned()
}

/// Clouds that addresses can be reserved at.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "lowercase")]
pub enum ProviderName {
    Gcp,
    Aws,
    Azure,
}

/// Where the addresses are reserved.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new("has(self.provider)").message("cloud.provider is required; one of gcp, aws, azure"),
    validation = Rule::new("!has(self.project) || (has(self.provider) && self.provider == 'gcp')")
        .message("cloud.project is for provider gcp"),
    validation = Rule::new("!has(self.subscriptionID) && !has(self.resourceGroup) || (has(self.provider) && self.provider == 'azure')")
        .message("cloud.subscriptionID and cloud.resourceGroup are for provider azure")
)]
#[serde(rename_all = "camelCase")]
pub struct CloudSpec {
    /// Cloud provider.
    // Optional although a rule asks for it: version 1 dropped the field before storing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderName>,

    /// Region of the addresses; default is the region of the selected nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub region: Option<String>,

    /// Zones whose nodes may hold an address, as in the node label topology.kubernetes.io/zone; absent means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub zones: Vec<String>,

    /// Google Cloud project of the addresses; default is the project of the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub project: Option<String>,

    /// Azure subscription of the addresses; default is that of the nodes.
    #[serde(default, rename = "subscriptionID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 36, max = 36))]
    pub subscription_id: Option<String>,

    /// Azure resource group of the addresses (not of the nodes); default is the whole subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 90))]
    pub resource_group: Option<String>,
}

/// A count, or a share of a whole as text from `"0%"` to `"100%"`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(untagged)]
pub enum IntOrPercent {
    // 64 bits: the schema of an int-or-string has no upper bound, and a large count must not make an object unreadable.
    Count(i64),
    Text(String),
}

impl IntOrPercent {
    /// The count that this means for a whole of `of` things.
    ///
    /// A percentage is rounded up, so that only `0%` of something is nothing; it cannot exceed `of`. A count stands as it
    /// is, even above `of`. Negative counts and text that is no percentage, which admission refuses, are 0.
    pub fn resolve(&self, of: usize) -> usize {
        match self {
            IntOrPercent::Count(count) if *count < 0 => 0,
            IntOrPercent::Count(count) => usize::try_from(*count).unwrap_or(usize::MAX),
            IntOrPercent::Text(text) => {
                let percent = text.strip_suffix('%').and_then(|number| number.parse::<u8>().ok());
                of.saturating_mul(usize::from(percent.unwrap_or(0).min(100))).div_ceil(100)
            }
        }
    }
}

impl From<i64> for IntOrPercent {
    fn from(count: i64) -> Self {
        IntOrPercent::Count(count)
    }
}

impl From<&str> for IntOrPercent {
    fn from(text: &str) -> Self {
        IntOrPercent::Text(text.to_owned())
    }
}

impl fmt::Display for IntOrPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IntOrPercent::Count(count) => write!(f, "{count}"),
            IntOrPercent::Text(text) => f.write_str(text),
        }
    }
}

impl JsonSchema for IntOrPercent {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IntOrPercent".into()
    }

    // No bound on the count: the rules on the fields carry it, with a sentence. The length bounds the rules' cost.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 8})
    }
}

/// Pace of moves that are made by choice.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Strategy {
    /// Addresses that may be between nodes by choice at one time (count, or percent of reserved rounded up). 0 counts as 1, an address cannot be on two nodes.
    #[serde(default = "default_max_unavailable")]
    #[x_kube(validation = Rule::new("type(self) == int ? self >= 0 : self.matches('^(100|[0-9]{1,2})%$')")
        .message("strategy.maxUnavailable must be a count of 0 or more, or a percentage from 0% to 100%"))]
    pub max_unavailable: IntOrPercent,

    /// Deprecated: accepted for old manifests, no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "IntOrPercent")]
    #[x_kube(validation = Rule::new("type(self) == int ? self >= 0 : self.matches('^(100|[0-9]{1,2})%$')")
        .message("strategy.maxSurge must be a count of 0 or more, or a percentage"))]
    pub max_surge: Option<IntOrPercent>,
}

fn default_max_unavailable() -> IntOrPercent {
    IntOrPercent::Count(1)
}

impl Default for Strategy {
    fn default() -> Self {
        Self { max_unavailable: default_max_unavailable(), max_surge: None }
    }
}

/// Whether pods are asked to go when the address under them should leave.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DrainPolicy {
    #[default]
    Wait,
    Evict,
}

/// How an address leaves a node that works.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Wait: until the pods that use the address are gone by themselves. Evict: ask them to go through the Eviction API.
    #[serde(default)]
    pub policy: DrainPolicy,

    /// The address leaves this long after the drain began although pods still run. Absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 604_800))]
    pub timeout_seconds: Option<i32>,
}

/// How an address leaves a node that does not work.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    /// How long a node whose machine still runs must be NotReady before its address leaves. A machine that is proven gone or stopped is not waited for.
    #[serde(default = "default_not_ready_seconds")]
    #[schemars(range(min = 10, max = 2_592_000))]
    pub not_ready_seconds: i32,

    /// When more selected nodes than this are NotReady with a running machine, failover freezes (count, or percent rounded up; never below 2).
    #[serde(default = "default_max_unhealthy")]
    #[x_kube(validation = Rule::new("type(self) == int ? self >= 0 : self.matches('^(100|[0-9]{1,2})%$')")
        .message("failover.maxUnhealthy must be a count of 0 or more, or a percentage from 0% to 100%"))]
    pub max_unhealthy: IntOrPercent,
}

fn default_not_ready_seconds() -> i32 {
    300
}

fn default_max_unhealthy() -> IntOrPercent {
    IntOrPercent::Text("50%".to_owned())
}

impl Default for Failover {
    fn default() -> Self {
        Self { not_ready_seconds: default_not_ready_seconds(), max_unhealthy: default_max_unhealthy() }
    }
}

/// Effects that the taint may have.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaintEffect {
    #[default]
    NoSchedule,
    PreferNoSchedule,
}

impl TaintEffect {
    /// The effect as Kubernetes spells it, for example `NoSchedule`.
    pub fn as_str(self) -> &'static str {
        match self {
            TaintEffect::NoSchedule => "NoSchedule",
            TaintEffect::PreferNoSchedule => "PreferNoSchedule",
        }
    }
}

/// Taint on selected nodes without a verified address.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(validation = Rule::new("self.key == oldSelf.key && self.effect == oldSelf.effect")
    .message("nodeTaint.key and effect cannot be changed in place; remove nodeTaint, wait for Ready, then set the new one"))]
#[serde(rename_all = "camelCase")]
pub struct NodeTaint {
    /// Taint key of your own, or one with the prefix startup-taint.cluster-autoscaler.kubernetes.io/.
    #[schemars(length(min = 1, max = 316))]
    #[x_kube(validation = Rule::new("self.startsWith('startup-taint.cluster-autoscaler.kubernetes.io/') || !self.matches('^([a-z0-9.-]*[.])?(kubernetes[.]io|k8s[.]io|karpenter[.]sh)/')")
        .message("nodeTaint.key must not be in kubernetes.io, k8s.io or karpenter.sh; startup-taint.cluster-autoscaler.kubernetes.io/ is allowed"))]
    pub key: String,

    /// Taint value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,

    /// NoExecute is refused: it would delete pods past their PodDisruptionBudget.
    #[serde(default)]
    pub effect: TaintEffect,
}

/// What deletion of the allocation does with its addresses.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    #[default]
    Detach,
    Retain,
}

/// How much the operator may do for the allocation.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Enforce,
    Hold,
    Observe,
}

/// What the operator last saw and intends; written by it alone.
// Counts are written always, 0 too, so that columns and queries never show a gap once there is a status.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NetIPAllocationStatus {
    /// Generation of the spec that this status describes; -1 before the first pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready, AddressesValid, CredentialsValid and WorkloadFound; while True also FailoverFrozen, Reconciling and Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The workload as resolved, KIND NAMESPACE/NAME; for the printer column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 400))]
    pub workload: Option<String>,

    /// Addresses named or selected.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub reserved_count: i32,

    /// minAttached resolved to a count.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub required_count: i32,

    /// Verified on a machine: states Attached and Draining.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub attached_count: i32,

    /// reservedCount minus attachedCount.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub unattached_count: i32,

    /// States Draining, Detached and Attaching.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub moving_count: i32,

    /// Nodes that nodeSelector selects.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub selected_node_count: i32,

    /// Eligible nodes without an address.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub spare_node_count: i32,

    /// The taint as last put on nodes, so that it can be taken off after spec.nodeTaint is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_taint: Option<AppliedTaint>,

    /// Machines that had an external address of their own before us and have not got one back yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2048))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub owed: Vec<OwedStatus>,

    /// Every address of the allocation, and those that it has yet to let go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2048))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub addresses: Vec<AddressStatus>,
}

/// One aspect of the allocation, by the Kubernetes convention for conditions.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Aspect, CamelCase.
    #[serde(rename = "type")]
    #[schemars(length(max = 316))]
    pub type_: String,

    /// True, False or Unknown.
    #[schemars(extend("enum" = ["True", "False", "Unknown"]))]
    pub status: String,

    /// Generation of the spec that this condition was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,

    /// When status last changed.
    pub last_transition_time: Time,

    /// Why, CamelCase of the closed list in the docs.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,

    /// One sentence for people.
    #[schemars(length(max = 32768))]
    pub message: String,
}

/// A taint that the operator has put on nodes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AppliedTaint {
    /// Taint key.
    #[schemars(length(max = 316))]
    pub key: String,

    /// Taint value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,

    /// Taint effect.
    #[schemars(length(max = 32))]
    pub effect: String,
}

/// A debt: a machine that should get an ephemeral address of its own again.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OwedStatus {
    /// The cloud's own id of the machine.
    #[serde(rename = "machineID")]
    #[schemars(length(max = 512))]
    pub machine_id: String,

    /// Node that the machine was when the debt was made.
    #[schemars(length(max = 253))]
    pub node: String,

    /// GCP tier of the address that it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub network_tier: Option<String>,

    /// GCP PTR name of the address that it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub public_ptr_domain_name: Option<String>,

    /// Request id given to the cloud for the attempt under way.
    #[serde(default, rename = "operationID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub operation_id: Option<String>,

    /// No request of the attempt leaves after this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_before_time: Option<Time>,

    /// Not tried again before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_time: Option<Time>,
}

/// One address: where it is, why, and what happens to it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AddressStatus {
    /// The address.
    #[schemars(length(max = 45))]
    pub ip: String,

    /// Unassigned, Attaching, Attached, Draining or Detached; more may come.
    #[schemars(length(max = 32))]
    pub state: String,

    /// Why it is in this state; CamelCase of the closed list in the docs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,

    /// One sentence with names and absolute times, changed only when facts change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,

    /// Node that holds the address, or that is being attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,

    /// The cloud's own id of the machine, to tell a replacement of the same name.
    // At Azure it names subscription, resource group (90 characters), scale set (64) and instance: 300 and more.
    #[serde(default, rename = "machineID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub machine_id: Option<String>,

    /// When state last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,

    /// Where it goes next; in mode Observe where it would go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub planned_node: Option<String>,

    /// When it leaves although pods still run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_time: Option<Time>,

    /// What the node had before us, to be put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreStatus>,

    /// The cloud operation that is intended or runs; absent at rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationStatus>,

    /// The last completed journey, kept until the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_move: Option<LastMove>,
}

/// What the node had before us, to be put back.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RestoreStatus {
    /// The node had an external address of its own.
    #[serde(default, rename = "externalIP")]
    pub external_ip: bool,

    /// GCP tier of that address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub network_tier: Option<String>,

    /// GCP PTR name of that address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub public_ptr_domain_name: Option<String>,
}

/// The cloud operation that is intended or runs.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OperationStatus {
    /// Request id given to the cloud.
    #[schemars(length(max = 64))]
    pub id: String,

    /// Attach, Detach or Restore.
    #[serde(rename = "type")]
    #[schemars(length(max = 32))]
    pub type_: String,

    /// When the operation was intended.
    pub start_time: Time,

    /// No request of this operation leaves after this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_before_time: Option<Time>,

    /// Failed attempts of this operation so far.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub attempts: i32,

    /// Not tried again before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_time: Option<Time>,

    /// W3C trace context of this journey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub traceparent: Option<String>,
}

/// A completed journey of an address.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LastMove {
    /// Node that it left; absent when it was on none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub from_node: Option<String>,

    /// Node that it reached; absent when it was let go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub to_node: Option<String>,

    /// Why it moved.
    #[schemars(length(max = 64))]
    pub reason: String,

    /// When it was decided.
    pub start_time: Time,

    /// When it was completed.
    pub finish_time: Time,

    /// Seconds during which the address was on no machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub gap_seconds: Option<i32>,

    /// W3C trace id of the journey, 32 hex digits.
    #[serde(default, rename = "traceID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub trace_id: Option<String>,
}

/// The definition of the resource, as it is applied to a cluster.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = NetIPAllocation::crd();
    crd.spec.names.list_kind = Some("NetIPAllocationList".to_owned());
    for version in &mut crd.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
            continue;
        };
        root.title = None;
        each_schema(root, &mut plain);
        let properties = root.properties.get_or_insert_default();
        for (name, type_) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
            properties.insert(
                name.to_owned(),
                JSONSchemaProps { type_: Some(type_.to_owned()), ..JSONSchemaProps::default() },
            );
        }
        if let Some(spec) = properties.get_mut("spec") {
            // Optional only for reading, see the field.
            spec.required = Some(vec!["cloud".to_owned()]);
            if let Some(cloud) = spec.properties.as_mut().and_then(|fields| fields.get_mut("cloud")) {
                cloud.default = None;
            }
        }
        if let Some(status) = properties.get_mut("status") {
            // What Rust fills in when a field is missing must not be filled in by the API server as if we had written it.
            each_schema(status, &mut |schema| schema.default = None);
            status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})));
        }
    }
    crd
}

/// Says what the derive cannot, or says it differently from what is meant.
fn plain(schema: &mut JSONSchemaProps) {
    // Optional means that it may be left out, not that it may be null.
    schema.nullable = None;
    if let Some(words) = &mut schema.enum_ {
        words.retain(|word| !word.0.is_null());
    }
    // For readers of OpenAPI that do not know the extension. kube's rewriting of schemas drops it from the type's own.
    if schema.x_kubernetes_int_or_string == Some(true) {
        schema.any_of = Some(
            ["integer", "string"]
                .map(|type_| JSONSchemaProps { type_: Some(type_.to_owned()), ..JSONSchemaProps::default() })
                .to_vec(),
        );
    }
}

/// Calls `change` for a schema and every schema within it.
fn each_schema(schema: &mut JSONSchemaProps, change: &mut impl FnMut(&mut JSONSchemaProps)) {
    change(schema);
    for property in schema.properties.iter_mut().flat_map(BTreeMap::values_mut) {
        each_schema(property, change);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => each_schema(items, change),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(|item| each_schema(item, change)),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        each_schema(values, change);
    }
}

/// [`crd`] as a YAML document for `kubectl apply` and the chart, the same bytes on every run.
///
/// # Errors
/// Only if the definition cannot be written as YAML, which the tests rule out.
pub fn crd_yaml() -> Result<String, serde_yaml::Error> {
    let mut document = serde_yaml::to_value(crd())?;
    integers(&mut document);
    Ok(format!("# Generated by `make generate` from src/api.rs; do not edit.\n{}", serde_yaml::to_string(&document)?))
}

/// Writes whole numbers without a fraction: bounds are floating-point in the Rust types, integers to every reader.
fn integers(value: &mut serde_yaml::Value) {
    match value {
        serde_yaml::Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0) {
                *value = serde_yaml::Value::from(float as i64);
            }
        }
        serde_yaml::Value::Sequence(items) => items.iter_mut().for_each(integers),
        serde_yaml::Value::Mapping(entries) => entries.values_mut().for_each(integers),
        serde_yaml::Value::Tagged(tagged) => integers(&mut tagged.value),
        serde_yaml::Value::Null | serde_yaml::Value::Bool(_) | serde_yaml::Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_stands_as_it_is() {
        assert_eq!(IntOrPercent::Count(0).resolve(10), 0);
        assert_eq!(IntOrPercent::Count(3).resolve(10), 3);
        assert_eq!(IntOrPercent::Count(30).resolve(10), 30);
        assert_eq!(IntOrPercent::Count(i64::MAX).resolve(0), usize::try_from(i64::MAX).unwrap());
    }

    #[test]
    fn a_percentage_is_rounded_up() {
        let percent = |text: &str, of| IntOrPercent::from(text).resolve(of);
        assert_eq!(percent("0%", 10), 0);
        assert_eq!(percent("1%", 10), 1);
        assert_eq!(percent("50%", 3), 2);
        assert_eq!(percent("33%", 3), 1);
        assert_eq!(percent("34%", 3), 2);
        assert_eq!(percent("100%", 7), 7);
        assert_eq!(percent("100%", 0), 0);
    }

    #[test]
    fn what_admission_refuses_resolves_to_nothing_and_never_to_too_much() {
        for text in ["", "%", "ten", "10", "-5%", "1.5%", "300%"] {
            assert_eq!(IntOrPercent::from(text).resolve(10), 0, "{text}");
        }
        assert_eq!(IntOrPercent::from("101%").resolve(10), 10);
        assert_eq!(IntOrPercent::Count(-1).resolve(10), 0);
    }

    #[test]
    fn both_forms_read_and_write_as_they_are_stored() {
        for stored in [serde_json::json!(2), serde_json::json!("25%"), serde_json::json!(5_000_000_000_i64)] {
            let value: IntOrPercent = serde_json::from_value(stored.clone()).unwrap();
            assert_eq!(serde_json::to_value(&value).unwrap(), stored);
        }
    }

    #[test]
    fn either_reference_names_the_workload() {
        let mut spec = NetIPAllocationSpec::default();
        assert_eq!(spec.workload(), None);

        spec.deployment_ref = Some(DeploymentRef { name: "temp-pool".to_owned(), namespace: "test".to_owned() });
        assert_eq!(spec.workload().unwrap().to_string(), "Deployment test/temp-pool");

        let named = WorkloadRef { kind: WorkloadKind::DaemonSet, name: "sip".to_owned(), namespace: "voip".to_owned() };
        spec.workload_ref = Some(named.clone());
        assert_eq!(spec.workload(), Some(named));
    }

    /// Read with what the API server would fill in left out: an object in a cache may predate a default.
    fn spec(yaml: &str) -> NetIPAllocationSpec {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn defaults_are_those_of_the_schema() {
        assert_eq!(spec("cloud: {}"), NetIPAllocationSpec::default());
        let default = NetIPAllocationSpec::default();
        assert_eq!(default.reconcile_interval, 30);
        assert_eq!(default.min_attached, "100%".into());
        assert_eq!(default.strategy.max_unavailable, 1.into());
        assert_eq!(default.failover.not_ready_seconds, 300);
        assert_eq!(default.failover.max_unhealthy, "50%".into());
    }

    #[test]
    fn objects_stored_by_version_1_are_readable() {
        // No provider: version 1 dropped it. Nothing bounded the list's texts or the interval.
        let old = spec(
            "{reservedIPs: [not-an-ip, 1.2.3.4, 1.2.3.4], nodeSelector: {role: temp-pool},
              cloud: {region: us-east1, zones: [us-east1-d], credentials: {secret: x}}, reconcileInterval: 1}",
        );
        assert_eq!(old.reserved_ips, ["not-an-ip", "1.2.3.4", "1.2.3.4"]);
        assert_eq!(old.cloud.provider, None);
        assert_eq!(old.reconcile_interval, 1);
        assert_eq!(spec("reservedIPs: [1.2.3.4]").cloud, CloudSpec::default());
    }

    #[test]
    fn words_of_a_newer_version_in_status_are_kept() {
        let stored = serde_json::json!({
            "observedGeneration": 3,
            "reservedCount": 1, "requiredCount": 1, "attachedCount": 0, "unattachedCount": 1,
            "movingCount": 0, "selectedNodeCount": 2, "spareNodeCount": 2,
            "addresses": [{
                "ip": "203.0.113.7", "state": "Parked", "reason": "SomethingNew",
                "operation": {"id": "a", "type": "Teleport", "startTime": "2026-01-02T03:04:05Z", "attempts": 0},
            }],
        });
        let status: NetIPAllocationStatus = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(status.addresses[0].state, "Parked");
        assert_eq!(serde_json::to_value(&status).unwrap(), stored);
    }

    #[test]
    fn a_status_says_every_count_even_zero() {
        let written = serde_json::to_value(NetIPAllocationStatus::default()).unwrap();
        let counts = ["reserved", "required", "attached", "unattached", "moving", "selectedNode", "spareNode"];
        assert_eq!(written.as_object().unwrap().len(), counts.len());
        for count in counts {
            assert_eq!(written[format!("{count}Count")], 0, "{count}");
        }
    }
}
