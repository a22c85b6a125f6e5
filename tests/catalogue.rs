//! Code, dashboard and alerts agree on the names of metrics.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fs, path::Path};

use ip_address_controller::metrics::names::{CATALOGUE, Kind};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Every word of a text that is the name of a metric of ours, or ought to be.
fn used(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("netipallocation_"))
        .map(str::to_owned)
        .collect()
}

/// The series that the catalogue yields: histograms as their buckets.
fn known() -> BTreeSet<String> {
    CATALOGUE
        .iter()
        .map(|metric| match metric.kind {
            Kind::Histogram(_) => format!("{}_bucket", metric.name),
            Kind::Counter | Kind::Gauge => metric.name.to_owned(),
        })
        .collect()
}

#[test]
fn every_alert_asks_for_metrics_that_exist() {
    let unknown: Vec<String> = used(&read("alerts/netipallocation.rules.yaml")).difference(&known()).cloned().collect();
    assert!(unknown.is_empty(), "alerts ask for series that the operator does not have: {unknown:?}");
}

#[test]
fn every_panel_asks_for_metrics_that_exist() {
    let text = read("dashboards/ip-address-controller.json");
    let unknown: Vec<String> = used(&text).difference(&known()).cloned().collect();
    assert!(unknown.is_empty(), "panels ask for series that the operator does not have: {unknown:?}");
}
