//! What is true now, told again every 15 s so that what is no longer true falls silent.
//!
//! The exporter cannot delete a series; it forgets a gauge that nobody has set for [`GAUGE_IDLE`](super::GAUGE_IDLE).
//! So each subject (an allocation, the nodes, this replica) hands in a whole snapshot whenever it changes, [`Gauges`] keeps
//! the last one and sets it again. No `metrics::Gauge` is ever kept: after it was forgotten, a handle reaches nobody.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics::{Label, gauge};
use tokio::time::interval;

use super::names::*;
use crate::cloud::Provider;

/// How often everything that is true is set again.
pub const TICK: Duration = Duration::from_secs(15);

/// Name and labels of one series.
type Series = (&'static str, Vec<(&'static str, String)>);
type Snapshot = BTreeMap<Series, f64>;

/// The last snapshot of every subject. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Gauges(Arc<Mutex<BTreeMap<Subject, Snapshot>>>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Controller,
    Nodes,
    Effects,
    Allocation(String),
}

impl Gauges {
    pub fn new() -> Self {
        Self::default()
    }

    /// This replica, from now on.
    pub fn controller(&self, now: &ControllerGauges) {
        self.set(Subject::Controller, now.snapshot());
    }

    /// The nodes that some allocation selects, and whether each is cordoned, from now on.
    pub fn nodes(&self, cordoned: &[NodeGauges]) {
        let of = |node: &NodeGauges| one(NODE_CORDONED, [("node", node.name.clone())], flag(node.cordoned));
        self.set(Subject::Nodes, cordoned.iter().map(of).collect());
    }

    /// Cloud operations under way, from now on; a provider that is not named has none.
    pub fn effects_in_flight(&self, counts: &[(Provider, usize)]) {
        let of = |(provider, count): &(Provider, usize)| {
            one(EFFECTS_IN_FLIGHT, [("provider", provider.as_str().to_owned())], float(*count))
        };
        self.set(Subject::Effects, counts.iter().map(of).collect());
    }

    /// An allocation, from now on.
    pub fn allocation(&self, crd_name: &str, now: &AllocationGauges) {
        self.set(Subject::Allocation(crd_name.to_owned()), now.snapshot(crd_name));
    }

    /// The allocation is gone: its gauges fall silent within [`GAUGE_IDLE`](super::GAUGE_IDLE).
    pub fn forget(&self, crd_name: &str) {
        self.with(|all| all.remove(&Subject::Allocation(crd_name.to_owned())));
    }

    /// Sets everything again every [`TICK`], for ever.
    pub async fn tick(self) {
        let mut tick = interval(TICK);
        loop {
            tick.tick().await;
            self.tell();
        }
    }

    /// Sets everything that is true now.
    pub(super) fn tell(&self) {
        self.with(|all| all.values().for_each(tell));
    }

    /// A series that its subject no longer has is set to 0 once: until it falls silent it must not say what was.
    fn set(&self, subject: Subject, now: Snapshot) {
        self.with(|all| {
            let before = all.insert(subject, now.clone()).unwrap_or_default();
            let left = before.into_keys().filter(|series| !now.contains_key(series));
            tell(&left.map(|series| (series, 0.0)).collect());
            tell(&now);
        });
    }

    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<Subject, Snapshot>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn tell(snapshot: &Snapshot) {
    for ((name, labels), value) in snapshot {
        let labels: Vec<Label> = labels.iter().map(|(key, text)| Label::new(*key, text.clone())).collect();
        gauge!(*name, labels).set(*value);
    }
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerGauges {
    pub pod_name: String,
    pub version: String,
    pub leads: bool,
    pub ready: bool,
    pub healthy: bool,
}

impl ControllerGauges {
    fn snapshot(&self) -> Snapshot {
        let Self { pod_name, version, leads, ready, healthy } = self;
        let pod = || [("pod_name", pod_name.clone())];
        let [pod_label] = pod();
        Snapshot::from([
            one(CONTROLLER_IS_LEADER, pod(), flag(*leads)),
            one(CONTROLLER_READY, pod(), flag(*ready)),
            one(CONTROLLER_HEALTHY, pod(), flag(*healthy)),
            one(CONTROLLER_INFO, [("version", version.clone()), pod_label], 1.0),
        ])
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeGauges {
    pub name: String,
    pub cordoned: bool,
}

/// One allocation.
#[derive(Clone, Debug, PartialEq)]
pub struct AllocationGauges {
    /// Condition Ready is True.
    pub ready: bool,
    pub reserved: usize,
    pub attached: usize,
    pub unattached: usize,
    pub required: usize,
    pub conflicting: usize,
    pub eligible_nodes: usize,
    pub spare_nodes: usize,
    /// Condition WorkloadFound is not False.
    pub workload_found: bool,
    pub failover_frozen: bool,
    /// How long a node must be NotReady before its address leaves.
    pub failover: Duration,
    pub reconcile_interval: Duration,
    /// Unix seconds; `None` before the first.
    pub last_success: Option<i64>,
    /// Unix seconds; `None` while nobody asked.
    pub deletion: Option<i64>,
    /// `None` while it is not known.
    pub provider: Option<Provider>,
    /// Empty while it is not known.
    pub region: String,
    pub mode: &'static str,
    pub addresses: Vec<AddressGauges>,
    /// Selected nodes by verdict; a verdict that is not named has none.
    pub verdicts: Vec<(&'static str, usize)>,
    /// Nodes that carry `ip.ready=true` for this allocation.
    pub labelled_nodes: Vec<String>,
}

/// One address of an allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressGauges {
    /// As status spells it.
    pub ip: String,
    /// Where it is verified; `None` for nowhere.
    pub node: Option<String>,
    pub state: String,
    pub reason: String,
    /// Unix seconds since when its node has been NotReady or gone; `None` while it is well, and without one.
    pub node_down_since: Option<i64>,
    /// Pods that hold it by annotation, where it is to leave.
    pub holding_pods: usize,
    /// It is being taken off: what the state does not tell.
    pub releasing: bool,
}

impl AddressGauges {
    fn snapshot(&self, crd_name: &str) -> Vec<(Series, f64)> {
        let Self { ip, node, state, reason, node_down_since, holding_pods, releasing } = self;
        let labels = || [("crd_name", crd_name.to_owned()), ("ip", ip.clone())];
        let [crd, ip] = labels();
        let on = node.as_deref().unwrap_or("none").to_owned();
        let state = [crd.clone(), ip.clone(), ("state", state.clone()), ("reason", reason.clone())];
        let mut all = vec![
            one(IP_ATTACHED, [crd, ip, ("node", on)], flag(node.is_some())),
            one(ADDRESS_STATE, state, 1.0),
            one(IP_NODE_DOWN, labels(), seconds(node_down_since.unwrap_or(0))),
        ];
        all.extend((*holding_pods > 0).then(|| one(IP_HOLDING_PODS, labels(), float(*holding_pods))));
        all.extend(releasing.then(|| one(IP_RELEASING, labels(), 1.0)));
        all
    }
}

impl AllocationGauges {
    fn snapshot(&self, crd_name: &str) -> Snapshot {
        let Self {
            ready,
            reserved,
            attached,
            unattached,
            required,
            conflicting,
            eligible_nodes,
            spare_nodes,
            workload_found,
            failover_frozen,
            failover,
            reconcile_interval,
            last_success,
            deletion,
            provider,
            region,
            mode,
            addresses,
            verdicts,
            labelled_nodes,
        } = self;
        let crd = || ("crd_name", crd_name.to_owned());
        let mut all = Snapshot::from([
            one(CRD_STATUS, [crd()], flag(*ready)),
            one(RESERVED_IPS, [crd()], float(*reserved)),
            one(ATTACHED_IPS, [crd()], float(*attached)),
            one(UNATTACHED_IPS, [crd()], float(*unattached)),
            one(REQUIRED_IPS, [crd()], float(*required)),
            one(CONFLICTING_IPS, [crd()], float(*conflicting)),
            one(ELIGIBLE_NODES, [crd()], float(*eligible_nodes)),
            one(SPARE_NODES, [crd()], float(*spare_nodes)),
            one(WORKLOAD_FOUND, [crd()], flag(*workload_found)),
            one(FAILOVER_FROZEN, [crd()], flag(*failover_frozen)),
            one(FAILOVER_SECONDS, [crd()], failover.as_secs_f64()),
            one(RECONCILE_INTERVAL, [crd()], reconcile_interval.as_secs_f64()),
            one(DELETION, [crd()], seconds(deletion.unwrap_or(0))),
            one(
                INFO,
                [
                    crd(),
                    ("provider", provider.map_or("", Provider::as_str).to_owned()),
                    ("region", region.clone()),
                    ("mode", (*mode).to_owned()),
                ],
                1.0,
            ),
        ]);
        all.extend(last_success.map(|at| one(LAST_SUCCESS, [crd()], seconds(at))));
        all.extend(addresses.iter().flat_map(|address| address.snapshot(crd_name)));
        all.extend(
            verdicts
                .iter()
                .map(|(verdict, count)| one(NODES, [crd(), ("verdict", (*verdict).to_owned())], float(*count))),
        );
        all.extend(labelled_nodes.iter().map(|node| one(NODE_IP_READY, [("node", node.clone()), crd()], 1.0)));
        all
    }
}

fn one<const N: usize>(name: &'static str, labels: [(&'static str, String); N], value: f64) -> (Series, f64) {
    ((name, labels.to_vec()), value)
}

fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}

/// Counts here are far below 2^32.
fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Unix seconds fit a double exactly for some 285 million years.
fn seconds(at: i64) -> f64 {
    at as f64
}
