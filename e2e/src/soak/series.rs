//! The series of `/metrics`: how many there are, and how many there may be at most. The bound of a metric follows from its labels:
//! allocations, addresses, nodes and closed lists of words. How often something happened is in none of them.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use ip_address_controller::{
    allocation::decide::{
        placement::Verdict,
        state::{Reason, State},
    },
    cloud::ErrorKind,
    lifecycle::State as _,
    metrics::{CATALOGUE, Kind, Metric, WriteFailure},
};

/// Calls of the trait `Cloud`, and `connect`.
const OPERATIONS: usize = 8;
/// What every Prometheus client tells of its process.
const OF_THE_PROCESS: usize = 16;

/// How much there is of what series are about.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub allocations: usize,
    pub addresses: usize,
    pub nodes: usize,
}

/// How many series each metric has.
pub fn count(text: &str) -> BTreeMap<String, usize> {
    let kinds: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let mut counts = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let series = line.split(['{', ' ']).next().unwrap_or_default();
        let ends = ["_bucket", "_sum", "_count"].iter().find_map(|end| series.strip_suffix(end));
        let name = ends.filter(|name| kinds.contains_key(name)).unwrap_or(series);
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    counts
}

/// The value of the first series of that name.
pub fn value(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// Metrics that have more series than they may, in sentences.
///
/// # Errors
/// When a label has no bound here.
pub fn excess(counts: &BTreeMap<String, usize>, size: Size) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for metric in CATALOGUE {
        let (has, may) = (counts.get(metric.name).copied().unwrap_or_default(), most(metric, size)?);
        if has > may {
            wrong.push(format!("{} has {has} series, of {may} at most", metric.name));
        }
    }
    let known = |name: &str| CATALOGUE.iter().any(|metric| metric.name == name);
    let others: Vec<(&String, &usize)> = counts.iter().filter(|(name, _)| !known(name)).collect();
    wrong.extend(
        others
            .iter()
            .filter(|(name, _)| !name.starts_with("process_"))
            .map(|(name, _)| format!("{name} is told, and not in the catalogue")),
    );
    let of_the_process: usize = others.iter().map(|(_, count)| **count).sum();
    if of_the_process > OF_THE_PROCESS {
        wrong.push(format!("{of_the_process} series are about the process, of {OF_THE_PROCESS} at most"));
    }
    Ok(wrong)
}

/// Series of all metrics at most.
///
/// # Errors
/// As [`excess`].
pub fn bound(size: Size) -> Result<usize> {
    CATALOGUE.iter().try_fold(OF_THE_PROCESS, |sum, metric| Ok(sum + most(metric, size)?))
}

/// Series of this metric at most.
fn most(metric: &Metric, size: Size) -> Result<usize> {
    let has = |label: &str| metric.labels.contains(&label);
    let gauge = metric.kind == Kind::Gauge;
    let mut most = match metric.kind {
        Kind::Counter | Kind::Gauge => 1,
        // The buckets, the one for everything, sum and count.
        Kind::Histogram(buckets) => buckets.len() + 3,
    };
    for label in metric.labels {
        most *= match *label {
            "ip" => size.addresses,
            // An address is in one allocation and on one node, which one allocation selects.
            "node" if has("ip") => 1,
            "node" => size.nodes,
            "crd_name" if has("ip") || has("node") => 1,
            // Evictions on a node that is no allocation's have the empty name.
            "crd_name" => size.allocations + 1,
            // An address is in one state for one reason.
            "state" | "reason" if gauge => 1,
            "state" => State::ALL.len(),
            "from" => State::EDGES.len() + State::FORGETTABLE.len(),
            "to" => 1,
            "reason" if has("from") => Reason::ALL.len(),
            "reason" => WriteFailure::ALL.len(),
            "verdict" => Verdict::ALL.len(),
            "operation" => OPERATIONS,
            "error_type" => ErrorKind::ALL.len(),
            "status" => 2,
            "outcome" => 3,
            // One of each here.
            "provider" | "region" | "mode" | "version" | "pod_name" => 1,
            other => bail!("label {other} of {} has no bound here: give it one", metric.name),
        };
    }
    Ok(most)
}
