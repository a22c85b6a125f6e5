//! What is true now: kept as it was last said of each subject, and written out when `/metrics` is asked for.
//!
//! Not in the exporter, which cannot delete a series: what is no longer true would be told on for a while, and a copy of
//! every series would be kept. Here it is silent at once, and Prometheus, which misses it in the next scrape, knows since when.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics_exporter_prometheus::formatting::{sanitize_label_value, write_help_line, write_type_line};

use super::names::*;
use crate::cloud::Provider;

/// What was last said of every subject. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    cluster: Option<String>,
    now: Arc<Mutex<Now>>,
}

#[derive(Debug, Default)]
struct Now {
    controller: Option<ControllerGauges>,
    nodes: Vec<NodeGauges>,
    effects: Vec<(Provider, usize)>,
    allocations: BTreeMap<String, AllocationGauges>,
}

impl Gauges {
    /// With label `cluster` on every series when a name is given.
    pub fn new(cluster: Option<&str>) -> Self {
        Self { cluster: cluster.map(str::to_owned), now: Arc::default() }
    }

    /// This replica, from now on.
    pub fn controller(&self, now: ControllerGauges) {
        self.with(|all| all.controller = Some(now));
    }

    /// The nodes that some allocation selects, and whether each is cordoned, from now on.
    pub fn nodes(&self, now: Vec<NodeGauges>) {
        self.with(|all| all.nodes = now);
    }

    /// Cloud operations under way, from now on; a provider that is not named has none.
    pub fn effects_in_flight(&self, now: Vec<(Provider, usize)>) {
        self.with(|all| all.effects = now);
    }

    /// An allocation, from now on.
    pub fn allocation(&self, crd_name: &str, now: AllocationGauges) {
        self.with(|all| all.allocations.insert(crd_name.to_owned(), now));
    }

    /// The allocation is gone.
    pub fn forget(&self, crd_name: &str) {
        self.with(|all| all.allocations.remove(crd_name));
    }

    /// Everything that is true now, in the text format of Prometheus
    /// (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
    pub fn render(&self) -> String {
        let mut sheet = Sheet { cluster: self.cluster.as_deref(), families: BTreeMap::new() };
        self.with(|all| {
            let Now { controller, nodes, effects, allocations } = all;
            controller.iter().for_each(|now| now.write(&mut sheet));
            for node in nodes {
                sheet.line(NODE_CORDONED, &[("node", &node.name)], flag(node.cordoned));
            }
            for (provider, count) in effects {
                sheet.line(EFFECTS_IN_FLIGHT, &[("provider", provider.as_str())], float(*count));
            }
            allocations.iter().for_each(|(crd_name, now)| now.write(crd_name, &mut sheet));
        });
        sheet.families.into_values().collect()
    }

    fn with<T>(&self, look: impl FnOnce(&mut Now) -> T) -> T {
        look(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The lines of each metric, by its name.
struct Sheet<'a> {
    cluster: Option<&'a str>,
    families: BTreeMap<&'static str, String>,
}

impl Sheet<'_> {
    fn line(&mut self, name: &'static str, labels: &[(&str, &str)], value: f64) {
        let family = self.families.entry(name).or_insert_with(|| heading(name));
        family.push_str(name);
        let all = self.cluster.map(|cluster| ("cluster", cluster)).into_iter().chain(labels.iter().copied());
        for (n, (key, text)) in all.enumerate() {
            let opening = if n == 0 { '{' } else { ',' };
            // Writing into a String cannot fail.
            let _ = write!(family, "{opening}{key}=\"{}\"", sanitize_label_value(text));
        }
        let _ = writeln!(family, "}} {value}");
    }
}

fn heading(name: &str) -> String {
    let mut heading = String::new();
    if let Some(metric) = CATALOGUE.iter().find(|metric| metric.name == name) {
        write_help_line(&mut heading, name, None, None, metric.help);
    }
    write_type_line(&mut heading, name, None, None, "gauge");
    heading
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerGauges {
    pub pod_name: String,
    pub version: String,
    pub leads: bool,
    pub ready: bool,
    pub healthy: bool,
    /// Tasks of the runtime that have not ended.
    pub tasks: usize,
}

impl ControllerGauges {
    fn write(&self, sheet: &mut Sheet<'_>) {
        let Self { pod_name, version, leads, ready, healthy, tasks } = self;
        let pod = ("pod_name", pod_name.as_str());
        sheet.line(CONTROLLER_IS_LEADER, &[pod], flag(*leads));
        sheet.line(CONTROLLER_READY, &[pod], flag(*ready));
        sheet.line(CONTROLLER_HEALTHY, &[pod], flag(*healthy));
        sheet.line(CONTROLLER_TASKS, &[pod], float(*tasks));
        sheet.line(CONTROLLER_INFO, &[("version", version), pod], 1.0);
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
    fn write(&self, crd: (&str, &str), sheet: &mut Sheet<'_>) {
        let Self { ip, node, state, reason, node_down_since, holding_pods, releasing } = self;
        let ip = ("ip", ip.as_str());
        let on = node.as_deref().unwrap_or("none");
        sheet.line(IP_ATTACHED, &[crd, ip, ("node", on)], flag(node.is_some()));
        sheet.line(ADDRESS_STATE, &[crd, ip, ("state", state), ("reason", reason)], 1.0);
        sheet.line(IP_NODE_DOWN, &[crd, ip], seconds(node_down_since.unwrap_or(0)));
        if *holding_pods > 0 {
            sheet.line(IP_HOLDING_PODS, &[crd, ip], float(*holding_pods));
        }
        if *releasing {
            sheet.line(IP_RELEASING, &[crd, ip], 1.0);
        }
    }
}

impl AllocationGauges {
    fn write(&self, crd_name: &str, sheet: &mut Sheet<'_>) {
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
        let crd = ("crd_name", crd_name);
        for (name, value) in [
            (CRD_STATUS, flag(*ready)),
            (RESERVED_IPS, float(*reserved)),
            (ATTACHED_IPS, float(*attached)),
            (UNATTACHED_IPS, float(*unattached)),
            (REQUIRED_IPS, float(*required)),
            (CONFLICTING_IPS, float(*conflicting)),
            (ELIGIBLE_NODES, float(*eligible_nodes)),
            (SPARE_NODES, float(*spare_nodes)),
            (WORKLOAD_FOUND, flag(*workload_found)),
            (FAILOVER_FROZEN, flag(*failover_frozen)),
            (FAILOVER_SECONDS, failover.as_secs_f64()),
            (RECONCILE_INTERVAL, reconcile_interval.as_secs_f64()),
            (DELETION, seconds(deletion.unwrap_or(0))),
        ] {
            sheet.line(name, &[crd], value);
        }
        let provider = provider.map_or("", Provider::as_str);
        sheet.line(INFO, &[crd, ("provider", provider), ("region", region), ("mode", mode)], 1.0);
        if let Some(at) = last_success {
            sheet.line(LAST_SUCCESS, &[crd], seconds(*at));
        }
        addresses.iter().for_each(|address| address.write(crd, sheet));
        for (verdict, count) in verdicts {
            sheet.line(NODES, &[crd, ("verdict", verdict)], float(*count));
        }
        for node in labelled_nodes {
            sheet.line(NODE_IP_READY, &[("node", node), crd], 1.0);
        }
    }
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
