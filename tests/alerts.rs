//! Alerts, chart, tests of the alerts and code agree. What an expression does is held by `alerts/check`, with promtool.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)]

mod promql;

use std::{collections::BTreeSet, fs, path::Path};

use ip_address_controller::{
    allocation::decide::state::{Reason, State},
    cloud::{ErrorKind, Provider},
    lifecycle::State as _,
    metrics::{Ended, Eviction, WriteFailure},
};
use serde_json::Value;

use promql::{labels, selectors};

const RULES: &str = "alerts/netipallocation.rules.yaml";
const CHART: &str = "charts/ip-address-controller";

#[test]
fn every_alert_has_its_numbers_in_the_chart_and_no_others_do() {
    let values = yaml(&format!("{CHART}/values.yaml"));
    let keys = |entries: &Value| entries.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let named: BTreeSet<String> = rules().iter().map(|rule| name(rule).to_owned()).collect();
    assert_eq!(keys(&values["prometheusRule"]["rules"]), named);
    assert_eq!(keys(&yaml("alerts/other-values/values.yaml")["prometheusRule"]["rules"]), named);
    let schema = yaml(&format!("{CHART}/values.schema.json"));
    assert_eq!(keys(&schema["properties"]["prometheusRule"]["properties"]["rules"]["properties"]), named);
}

#[test]
fn every_alert_says_what_it_is_and_where_to_read_on() {
    for rule in rules() {
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{}: {severity}", name(&rule));
        for text in ["summary", "description", "runbook_url"] {
            assert!(rule["annotations"][text].as_str().is_some_and(|text| !text.is_empty()), "{}: {text}", name(&rule));
        }
    }
}

/// One that fires and one that is silent, in two clusters, through a change of replicas; and with other numbers.
#[test]
fn every_alert_is_tested() {
    let other = read("alerts/other-values/test.yaml");
    for rule in rules() {
        let alert = name(&rule);
        let path = format!("alerts/tests/{alert}.yaml");
        let (text, groups) = (read(&path), yaml(&path));
        let groups = groups["tests"].as_array().unwrap();
        let expected: Vec<bool> = groups
            .iter()
            .flat_map(|group| group["alert_rule_test"].as_array().into_iter().flatten())
            .filter(|test| test["alertname"] == alert)
            .map(|test| test["exp_alerts"].as_array().unwrap().is_empty())
            .collect();
        assert!(expected.contains(&true) && expected.contains(&false), "{alert} is not tested firing and silent");
        for mark in ["cluster=\"a\"", "cluster=\"b\"", "pod=\"p\"", "pod=\"q\"", " stale'"] {
            assert!(text.contains(mark), "{path} has no {mark}");
        }
        let mut words = other.split(|c: char| !c.is_ascii_alphanumeric());
        assert!(words.any(|word| word == alert), "{alert} is not tested with other numbers");
    }
}

/// A reason, a state or a kind of error that is renamed in the code would leave an alert silent.
#[test]
fn every_label_and_word_that_an_alert_asks_for_is_one_of_the_code() {
    let mut seen = 0;
    for rule in rules() {
        let description = rule["annotations"]["description"].as_str().unwrap();
        for text in [rule["expr"].as_str().unwrap(), description] {
            for (metric, label, words) in selectors(text) {
                let Some(labels) = labels(&metric) else { continue };
                assert!(labels.contains(&&*label), "{}: {metric} has no label {label}", name(&rule));
                for word in words.iter().filter(|word| !word.contains(['%', '"'])) {
                    seen += 1;
                    let known = vocabulary(&metric, &label).contains(&&**word);
                    assert!(known, "{}: {metric} never has {label}=\"{word}\"", name(&rule));
                }
            }
        }
    }
    assert!(seen > 20, "only {seen} words were found");
}

#[test]
fn a_state_is_stuck_when_the_longest_patience_is_over() {
    let rules = rules();
    let rule = rules.iter().find(|rule| name(rule) == "NetIPAllocationStateStuck").unwrap();
    let expression = rule["expr"].as_str().unwrap();
    // The second phase of Draining shows as Draining, whose first one may last: a metric of its own tells it.
    let (shown, hidden): (Vec<State>, Vec<State>) = State::ALL
        .into_iter()
        .filter(|state| state.patience().is_some())
        .partition(|state| state.shown() == state.label());
    let asked: BTreeSet<String> = selectors(expression)
        .into_iter()
        .filter(|(_, label, _)| label == "state")
        .flat_map(|(_, _, words)| words)
        .collect();
    assert_eq!(asked, shown.iter().map(|state| state.shown().to_owned()).collect());
    assert_eq!(hidden, [State::Releasing]);
    assert!(expression.contains("netipallocation_ip_releasing[") && expression.contains("\"state\", \"Releasing\""));
    let longest = shown.iter().chain(&hidden).filter_map(|state| state.patience()).max().unwrap();
    assert_eq!(rule["for"], format!("{}m", longest.as_secs().div_ceil(60)));
}

/// The words that a label may have; what is not listed here is not asked for by a fixed word.
fn vocabulary(metric: &str, label: &str) -> Vec<&'static str> {
    match (metric, label) {
        (_, "state") => State::ALL.map(State::shown).to_vec(),
        ("netipallocation_address_state", "reason") => Reason::ALL.iter().map(|reason| reason.as_str()).collect(),
        ("netipallocation_status_write_errors_total", "reason") => WriteFailure::ALL.map(WriteFailure::label).to_vec(),
        (_, "error_type") => ErrorKind::ALL.map(ErrorKind::label).to_vec(),
        (_, "status") => Ended::ALL.map(Ended::label).to_vec(),
        (_, "outcome") => Eviction::ALL.map(Eviction::label).to_vec(),
        (_, "provider") => Provider::ALL.map(Provider::as_str).to_vec(),
        (_, "mode") => vec!["Enforce", "Hold", "Observe"],
        (_, "namespace") => vec!["kube-system"],
        (_, "job") => vec!["ip-address-controller"],
        _ => Vec::new(),
    }
}

fn rules() -> Vec<Value> {
    let groups = yaml(RULES);
    groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn name(rule: &Value) -> &str {
    rule["alert"].as_str().unwrap()
}

fn yaml(path: &str) -> Value {
    serde_yaml::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn read(path: &str) -> String {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(full).unwrap_or_else(|error| panic!("{path}: {error}"))
}
