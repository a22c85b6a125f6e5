//! Code, README, dashboard and alerts agree on the metrics: their names, types, labels and words.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice)]

mod promql;

use std::{collections::BTreeSet, fs, path::Path};

use ip_address_controller::metrics::names::{CATALOGUE, Kind};
use serde_json::Value;

use promql::faults;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_table_in_the_readme_says_of_every_metric_what_the_code_says() {
    let readme = read("README.md");
    let (_, section) = readme.split_once("\n## Metrics\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let told: Vec<&str> = section.lines().filter(|line| line.starts_with("| `netipallocation_")).collect();
    let wanted: Vec<String> = CATALOGUE
        .iter()
        .map(|metric| {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            let labels = if metric.labels.is_empty() { "–".to_owned() } else { metric.labels.join(" ") };
            format!("| `{}` | {kind} | {labels} | {} |", metric.name, metric.help)
        })
        .collect();
    assert_eq!(told, wanted);
}

#[test]
fn every_alert_asks_for_series_and_labels_that_exist_and_shows_labels_that_it_keeps() {
    let rules: Value = serde_yaml::from_str(&read("alerts/netipallocation.rules.yaml")).unwrap();
    let rules = rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    let mut wrong = Vec::new();
    for rule in rules {
        let text = format!("{} {}", rule["annotations"]["summary"], rule["annotations"]["description"]);
        let found = faults(rule["expr"].as_str().unwrap(), &after(&text, "$labels."));
        wrong.extend(found.into_iter().map(|fault| format!("{}: {fault}", rule["alert"])));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_panel_asks_for_series_and_labels_that_exist() {
    let dashboard: Value = serde_json::from_str(&read("dashboards/ip-address-controller.json")).unwrap();
    let mut wrong = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
        let title = &panel["title"];
        for target in panel["targets"].as_array().into_iter().flatten() {
            let Some(expression) = target["expr"].as_str() else { continue };
            let legend = after(&target["legendFormat"].as_str().unwrap_or_default().replace(' ', ""), "{{");
            wrong.extend(faults(expression, &legend).into_iter().map(|fault| format!("{title}: {fault}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The checks see what they are for.
#[test]
fn what_is_wrong_with_an_expression_is_found() {
    let told = |expression: &str, shown: &[&str]| faults(expression, &shown.iter().map(|&x| x.to_owned()).collect());
    assert_eq!(told("sum by (provider) (rate(netipallocation_cloud_api_errors_total[5m]))", &["provider"]), [""; 0]);
    assert_eq!(told("netipallocation_crd_statos", &[]), ["there is no netipallocation_crd_statos"]);
    assert_eq!(told("netipallocation_crd_status{ip=\"x\"}", &[]), ["netipallocation_crd_status has no label ip"]);
    assert_eq!(
        told("rate(netipallocation_crd_status[5m])", &[]),
        ["netipallocation_crd_status is a gauge and has no rate"]
    );
    let no_label = |label: &str| vec![format!("no series in it has a label {label}")];
    assert_eq!(told("max by (verdict) (netipallocation_crd_status)", &[]), no_label("verdict"));
    assert_eq!(told("netipallocation_crd_status", &["ip"]), no_label("ip"));
    assert_eq!(told("rate(netipallocation_reconcile_duration_seconds_bucket{le=\"60\"}[5m])", &[]), [""; 0]);
    assert_eq!(
        told("netipallocation_reconcile_duration_seconds", &[]),
        ["there is no netipallocation_reconcile_duration_seconds"]
    );
}

/// The names that follow a mark.
fn after(text: &str, mark: &str) -> BTreeSet<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    text.split(mark).skip(1).map(name).filter(|name| !name.is_empty()).collect()
}
