//! The catalogue: one row a metric. Dashboards, alerts and documents are held against it.
//!
//! Version 1's names are kept, three gauges named `_total` among them.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets, in seconds.
    Histogram(&'static [f64]),
}

/// One metric as it is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// Beside `cluster`, which every series has when CLUSTER_NAME is set.
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// Of a pass; 120 and 300 because a quantile never exceeds the top bucket, and an alert asks for more than 60.
const PASS: &[f64] = &[0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// Of a call to a cloud.
const CALL: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Of a state: an attach takes seconds, a drain an hour, rest may be months.
const STATE: &[f64] = &[1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0, 604800.0];
/// Of an address on no node: below 10 s nobody noticed, after 10 minutes somebody was paged.
const GAP: &[f64] = &[1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
/// Of an allocation that waits for its pass.
const WAIT: &[f64] = &[0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0];

macro_rules! catalogue {
    ($($ident:ident = $name:literal, $kind:expr, [$($label:literal)*], $help:literal;)+) => {
        $(#[doc = $help] pub const $ident: &str = $name;)+

        /// Every metric of this program.
        pub const CATALOGUE: &[Metric] = &[$(
            Metric { name: $name, kind: $kind, labels: &[$($label),*], help: $help },
        )+];
    };
}

use Kind::{Counter, Gauge, Histogram};

catalogue! {
    CRD_STATUS = "netipallocation_crd_status", Gauge, ["crd_name"], "1 while condition Ready of the allocation is True";
    RESERVED_IPS = "netipallocation_reserved_ips_total", Gauge, ["crd_name"], "Addresses that the allocation wants attached";
    ATTACHED_IPS = "netipallocation_attached_ips_total", Gauge, ["crd_name"], "Addresses of the allocation that are verified on a node";
    UNATTACHED_IPS = "netipallocation_unattached_ips_total", Gauge, ["crd_name"], "Addresses of the allocation that are on no node";
    IP_ATTACHED = "netipallocation_ip_attached", Gauge, ["crd_name" "ip" "node"], "1 for an address on a node; 0 with node=\"none\" for an address on none";
    NODE_CORDONED = "netipallocation_node_cordoned", Gauge, ["node"], "1 while a node that some allocation selects is cordoned";
    NODE_IP_READY = "netipallocation_node_ip_ready", Gauge, ["node" "crd_name"], "1 while the node carries the label ip.ready=true for the allocation";
    CONTROLLER_IS_LEADER = "netipallocation_controller_is_leader", Gauge, ["pod_name"], "1 while this replica leads";
    CONTROLLER_READY = "netipallocation_controller_ready", Gauge, ["pod_name"], "1 while this replica is ready";
    CONTROLLER_HEALTHY = "netipallocation_controller_healthy", Gauge, ["pod_name"], "1 while this replica's event loop beats";
    CONTROLLER_TASKS = "netipallocation_controller_tasks", Gauge, ["pod_name"], "Async tasks of this replica that have not ended";
    CONTROLLER_INFO = "netipallocation_controller_info", Gauge, ["version" "pod_name"], "1, with the version of this replica";
    RECONCILE = "netipallocation_reconcile_total", Counter, ["crd_name" "status"], "Passes over the allocation by how they ended: success or error";
    IP_ATTACH = "netipallocation_ip_attach_total", Counter, ["crd_name" "status"], "Attachments that ended, by status: success or error";
    IP_DETACH = "netipallocation_ip_detach_total", Counter, ["crd_name" "status"], "Detachments that ended, by status: success or error";
    GCP_API_ERRORS = "netipallocation_gcp_api_errors_total", Counter, ["operation" "error_type"], "Failed calls to Google Cloud";
    RECONCILE_DURATION = "netipallocation_reconcile_duration_seconds", Histogram(PASS), ["crd_name"], "Time that a pass over the allocation took";
    GCP_API_DURATION = "netipallocation_gcp_api_duration_seconds", Histogram(CALL), ["operation"], "Time that a call to Google Cloud took";
    CLOUD_API_ERRORS = "netipallocation_cloud_api_errors_total", Counter, ["provider" "operation" "error_type"], "Failed calls to a cloud";
    CLOUD_API_REQUESTS = "netipallocation_cloud_api_requests_total", Counter, ["provider" "operation" "outcome"], "Calls to a cloud by outcome: success, error or abandoned (dropped before its end)";
    CLOUD_API_DURATION = "netipallocation_cloud_api_duration_seconds", Histogram(CALL), ["provider" "operation"], "Time that a call to a cloud took";
    ELIGIBLE_NODES = "netipallocation_eligible_nodes", Gauge, ["crd_name"], "Nodes that could hold an address of the allocation";
    CONFLICTING_IPS = "netipallocation_conflicting_ips", Gauge, ["crd_name"], "Addresses of the allocation that are another allocation's";
    RECONCILE_INTERVAL = "netipallocation_reconcile_interval_seconds", Gauge, ["crd_name"], "Longest time between two passes over the allocation";
    LAST_SUCCESS = "netipallocation_last_success_timestamp_seconds", Gauge, ["crd_name"], "Unix time of the last good read of the cloud that a pass has ended well on";
    DELETION = "netipallocation_deletion_timestamp_seconds", Gauge, ["crd_name"], "Unix time at which deletion was asked for; 0 while it was not";
    REQUIRED_IPS = "netipallocation_required_ips", Gauge, ["crd_name"], "Addresses that must be attached for the allocation to be Ready";
    SPARE_NODES = "netipallocation_spare_nodes", Gauge, ["crd_name"], "Eligible nodes without an address";
    WORKLOAD_FOUND = "netipallocation_workload_found", Gauge, ["crd_name"], "0 while the workload that the allocation names does not exist";
    FAILOVER_FROZEN = "netipallocation_failover_frozen", Gauge, ["crd_name"], "1 while too many nodes are NotReady for any failover to begin";
    FAILOVER_SECONDS = "netipallocation_failover_not_ready_seconds", Gauge, ["crd_name"], "How long a node must be NotReady, or gone, before its address leaves it";
    IP_NODE_DOWN = "netipallocation_ip_node_not_ready_timestamp_seconds", Gauge, ["crd_name" "ip"], "Unix time since which the node of the address is NotReady, or gone; 0 while it is well";
    IP_HOLDING_PODS = "netipallocation_ip_holding_pods", Gauge, ["crd_name" "ip"], "Pods whose hold annotation keeps the address on the node that it is to leave; only while there are any";
    IP_RELEASING = "netipallocation_ip_releasing", Gauge, ["crd_name" "ip"], "1 while the address is taken off its node, which is the second phase of Draining";
    ADDRESS_STATE = "netipallocation_address_state", Gauge, ["crd_name" "ip" "state" "reason"], "1 for the state that the address is in";
    NODES = "netipallocation_nodes", Gauge, ["crd_name" "verdict"], "Selected nodes by what speaks for or against them";
    INFO = "netipallocation_info", Gauge, ["crd_name" "provider" "region" "mode"], "1, with what the allocation says of itself";
    STATUS_WRITE_ERRORS = "netipallocation_status_write_errors_total", Counter, ["crd_name" "reason"], "Status writes that failed";
    IP_TRANSITIONS = "netipallocation_ip_transitions_total", Counter, ["crd_name" "provider" "from" "to" "reason"], "Transitions of addresses, counted after their status write";
    IP_STATE_SECONDS = "netipallocation_ip_state_seconds", Histogram(STATE), ["provider" "state"], "Time that an address spent in the state that it left";
    IP_GAP_SECONDS = "netipallocation_ip_gap_seconds", Histogram(GAP), ["provider"], "Time that a moved address was on no node";
    EFFECTS_IN_FLIGHT = "netipallocation_effects_in_flight", Gauge, ["provider"], "Effects under way: cloud operations, labels of nodes, requests to pods";
    QUEUE_WAIT = "netipallocation_queue_wait_seconds", Histogram(WAIT), [], "Time that an allocation waited for its pass";
    LEADER_TRANSITIONS = "netipallocation_leader_transitions_total", Counter, [], "How often the Lease has changed hands, as it says itself";
    POD_EVICTIONS = "netipallocation_pod_evictions_total", Counter, ["crd_name" "outcome"], "Evictions that were asked for, by outcome: evicted, blocked or error; crd_name is empty for pods on a node that is no allocation's";
    NODE_PATCH_ERRORS = "netipallocation_node_patch_errors_total", Counter, ["crd_name"], "Changes of a node's labels or taints that failed; crd_name is empty for those that are no single allocation's";
}
