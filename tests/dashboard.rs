//! The dashboard keeps the rules of Grafana's dashboard-linter (github.com/grafana/dashboard-linter, docs/rules), and the
//! titles that version 1 had. Whether its queries yield something is a matter of `e2e/tests/dashboard.rs`.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)]

mod promql;

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

/// Every row, and the panels in it.
const ROWS: &[(&str, &[&str])] = &[
    (
        "Controller Overview",
        &[
            "Leader Status",
            "Ready Pods",
            "Healthy Pods",
            "Total CRDs",
            "Total Reserved IPs",
            "Unattached IPs",
            "Firing Alerts",
            "Version",
            "Leader Election History",
            "Controller Pods Status",
            "Leader Transitions",
            "Last Success Age",
        ],
    ),
    ("CRD Status", &["CRD Status Overview", "Allocations", "Conflicts"]),
    ("IP Allocation", &["IP Allocation Over Time", "IP Attachment Rate", "IP to Node Mapping"]),
    ("Address journeys", JOURNEYS),
    ("Node Status", &["Node Status", "Cordoned Nodes Over Time", "Eligible Nodes", "Spare Nodes"]),
    (
        "Operations & Errors",
        &[
            "Reconciliation Rate",
            "Reconciliation Duration",
            "Queue Wait",
            "IP Operations Rate",
            "GCP API Errors",
            "Cloud API Errors",
            "Cloud API Duration",
            "Throttling",
            "Evictions",
            "Status Write Errors",
        ],
    ),
    ("Resources", &["CPU", "Memory", "Restarts"]),
];
/// The panels that lead to traces.
const JOURNEYS: &[&str] = &["Transitions", "Time in State", "Gap", "Effects in Flight"];

fn dashboard() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/ip-address-controller.json");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(dashboard, "/panels").iter().filter(|panel| panel["type"] != "row")
}

/// Every expression, with the title of what asks for it.
fn expressions(dashboard: &Value) -> Vec<(&str, &str)> {
    let panels = panels(dashboard)
        .flat_map(|panel| list(panel, "/targets").iter().map(|target| (text(panel, "title"), text(target, "expr"))));
    let notes = list(dashboard, "/annotations/list").iter().map(|note| (text(note, "name"), text(note, "expr")));
    panels.chain(notes).collect()
}

#[test]
fn it_is_known_by_what_version_1_called_it() {
    let dashboard = dashboard();
    assert_eq!(text(&dashboard, "uid"), "ip-address-controller");
    assert_eq!(text(&dashboard, "title"), "IP Address Controller");
    assert_eq!(list(&dashboard, "/tags"), ["ip-address-controller", "kubernetes", "networking"]);
    assert_eq!(dashboard["id"], Value::Null);
    let titles: BTreeSet<&str> = list(&dashboard, "/panels").iter().map(|panel| text(panel, "title")).collect();
    let kept = [
        "Controller Overview",
        "Leader Status",
        "Ready Pods",
        "Healthy Pods",
        "Total CRDs",
        "Total Reserved IPs",
        "Unattached IPs",
        "Leader Election History",
        "Controller Pods Status",
        "CRD Status",
        "CRD Status Overview",
        "IP Allocation",
        "IP Allocation Over Time",
        "IP Attachment Rate",
        "IP to Node Mapping",
        "Node Status",
        "Cordoned Nodes Over Time",
        "Operations & Errors",
        "Reconciliation Rate",
        "Reconciliation Duration",
        "IP Operations Rate",
        "GCP API Errors",
    ];
    let missing: Vec<&str> = kept.into_iter().filter(|title| !titles.contains(title)).collect();
    assert!(missing.is_empty(), "gone: {missing:?}");
}

/// What was there is there: a panel, a link or a mark that is lost is lost in this test, too.
#[test]
fn no_panel_vanishes_unnoticed() {
    let dashboard = dashboard();
    let mut rows: Vec<(&str, Vec<&str>)> = Vec::new();
    for panel in list(&dashboard, "/panels") {
        match rows.last_mut() {
            Some((_, panels)) if panel["type"] != "row" => panels.push(text(panel, "title")),
            _ => rows.push((text(panel, "title"), Vec::new())),
        }
    }
    let wanted: Vec<(&str, Vec<&str>)> = ROWS.iter().map(|(row, panels)| (*row, panels.to_vec())).collect();
    assert_eq!(rows, wanted);
}

#[test]
fn it_links_to_repository_runbooks_and_traces_and_marks_changes_of_the_leader() {
    let dashboard = dashboard();
    let repository = "https://github.com/darkbrains/ip-address-controller";
    let runbooks = format!("{repository}/blob/main/docs/failure-modes.md");
    let begins = [("Repository", repository), ("Runbooks", runbooks.as_str()), ("Traces", "/explore?")];
    let links = list(&dashboard, "/links");
    assert_eq!(links.len(), begins.len());
    for (link, (title, begin)) in links.iter().zip(begins) {
        assert_eq!(text(link, "title"), title);
        assert!(text(link, "url").starts_with(begin), "{title} leads to {}", text(link, "url"));
    }
    let notes = list(&dashboard, "/annotations/list");
    assert_eq!(notes.iter().map(|note| text(note, "name")).collect::<Vec<_>>(), ["Leader changes"]);
    assert_eq!(notes[0]["enable"], true);
    assert!(text(&notes[0], "expr").contains("netipallocation_leader_transitions_total"), "{}", notes[0]);
}

#[test]
fn it_is_not_edited_in_place_and_refreshes() {
    let dashboard = dashboard();
    assert_eq!(dashboard["editable"], false);
    assert_eq!(text(&dashboard, "refresh"), "30s");
    assert!(dashboard["schemaVersion"].as_u64() >= Some(39));
}

#[test]
fn its_variables_are_chosen_anew_whenever_the_time_range_changes() {
    let dashboard = dashboard();
    let variables = list(&dashboard, "/templating/list");
    let names: Vec<&str> = variables.iter().map(|variable| text(variable, "name")).collect();
    assert_eq!(names, ["datasource", "cluster", "namespace", "job", "crd_name", "traces"]);
    for variable in variables {
        let name = text(variable, "name");
        assert!(!text(variable, "label").is_empty(), "{name} has no label");
        assert_eq!(variable["refresh"], 2, "{name}");
        if variable["type"] == "query" {
            assert_eq!(text(&variable["datasource"], "uid"), "$datasource", "{name}");
            // A label that may be absent matches only what may be empty.
            assert_eq!(text(variable, "allValue"), if name == "cluster" { ".*" } else { ".+" }, "{name}");
            assert_eq!(
                (&variable["multi"], &variable["includeAll"]),
                (&Value::Bool(true), &Value::Bool(true)),
                "{name}"
            );
        }
    }
}

#[test]
fn every_panel_says_what_it_shows_in_what_unit_and_what_is_good() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    for panel in list(&dashboard, "/panels") {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "the id of {} is taken", text(panel, "title"));
    }
    for panel in panels(&dashboard) {
        let title = text(panel, "title");
        assert!(!title.is_empty(), "a panel without title");
        assert!(!text(panel, "description").is_empty(), "{title} has no description");
        assert_eq!(text(&panel["datasource"], "uid"), "$datasource", "{title}");
        let defaults = &panel["fieldConfig"]["defaults"];
        assert!(!text(defaults, "unit").is_empty(), "{title} has no unit");
        assert!(!text(defaults, "noValue").is_empty(), "{title} does not say that there is nothing");
        assert!(!list(defaults, "/thresholds/steps").is_empty(), "{title} has no thresholds");
        assert!(!list(panel, "/targets").is_empty(), "{title} asks for nothing");
        for target in list(panel, "/targets") {
            assert_eq!(text(&target["datasource"], "uid"), "$datasource", "{title}");
        }
    }
}

#[test]
fn panels_fill_their_rows_and_none_lies_on_another() {
    let dashboard = dashboard();
    let mut taken = BTreeSet::new();
    let mut rows = BTreeSet::new();
    for panel in list(&dashboard, "/panels") {
        let at = |field: &str| panel["gridPos"][field].as_u64().unwrap();
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(x < 24 && taken.insert((x, y)), "{} lies on another or beside the grid", text(panel, "title"));
                rows.insert(y);
            }
        }
    }
    assert_eq!(taken.len(), 24 * rows.len(), "there is a hole between panels");
}

#[test]
fn every_expression_asks_for_what_was_chosen_and_for_rates_over_the_right_time() {
    for (title, expression) in expressions(&dashboard()) {
        let chosen = ["cluster", "namespace", "job"];
        for selector in expression.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(inside, _)| inside))
        {
            for label in chosen {
                assert!(
                    selector.contains(&format!("{label}=~\"${label}\"")),
                    "{title}: {{{selector}}} knows no ${label}"
                );
            }
        }
        assert!(expression.contains('{'), "{title} selects nothing");
        for function in ["rate(", "increase("] {
            for inside in expression.split(function).skip(1) {
                let range = inside.split_once('[').and_then(|(_, rest)| rest.split_once(']')).unwrap().0;
                assert_eq!(range, "$__rate_interval", "{title}: {expression}");
            }
        }
        if expression.contains("histogram_quantile") {
            assert!(expression.contains("sum by (le"), "{title} does not add buckets up over replicas");
        }
    }
}

/// A series of an allocation that does not ask for `$crd_name` would show all, whatever is chosen.
#[test]
fn every_series_of_an_allocation_is_of_those_that_were_chosen() {
    let mut seen = 0;
    for (title, expression) in expressions(&dashboard()) {
        for (at, _) in expression.match_indices('{') {
            let (before, inside) = (&expression[..at], expression[at + 1..].split('}').next().unwrap());
            let begin = before.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(0, |end| end + 1);
            let series = &before[begin..];
            let has = promql::labels(series).is_some_and(|labels| labels.contains(&"crd_name"));
            assert_eq!(inside.contains("crd_name=~\"$crd_name\""), has, "{title}: {series}{{{inside}}}");
            seen += usize::from(has);
        }
    }
    assert!(seen > 20, "only {seen} series of allocations were found");
}

#[test]
fn what_is_well_at_zero_shows_zero() {
    let dashboard = dashboard();
    let zero = |expression: &str| expression.ends_with("or vector(0)");
    for (title, expression) in expressions(&dashboard) {
        if expression.contains("_errors_total") || expression.contains("ALERTS") {
            assert!(zero(expression), "{title} shows nothing where nothing is wrong: {expression}");
        }
    }
    // What is counted: one line of the panel at least.
    let counted = |expression: &str| expression.contains("rate(netipallocation_") && expression.contains("_total{");
    for panel in panels(&dashboard) {
        let asked: Vec<&str> = list(panel, "/targets").iter().map(|target| text(target, "expr")).collect();
        if asked.iter().any(|expression| counted(expression)) {
            let shown = asked.iter().any(|expression| zero(expression));
            assert!(shown, "{} shows nothing where nothing happens", text(panel, "title"));
        }
    }
}

#[test]
fn a_journey_leads_to_its_traces() {
    let dashboard = dashboard();
    for title in JOURNEYS {
        let panel = panels(&dashboard).find(|panel| text(panel, "title") == *title);
        let links = list(panel.unwrap_or_else(|| panic!("there is no panel {title}")), "/links");
        assert!(!links.is_empty(), "{title} leads to no traces");
        for link in links {
            assert!(text(link, "url").starts_with("/explore?") && text(link, "url").contains("${traces}"), "{link}");
        }
    }
}
