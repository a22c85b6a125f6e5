//! The tables in the README name exactly what the code has.

// clippy's leave for tests covers `#[test]` functions, not what they share.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::BTreeSet, fs, path::Path};

use ip_address_controller::{api, metrics::names::CATALOGUE, settings::VARIABLES};

#[test]
fn the_settings_are_those_of_the_code() {
    assert_same(&section("## Settings"), VARIABLES.iter().copied());
}

#[test]
fn the_metrics_are_those_of_the_code() {
    assert_same(&section("## Metrics"), CATALOGUE.iter().map(|metric| metric.name));
}

#[test]
fn the_columns_are_those_of_the_resource() {
    let crd = api::crd();
    let columns = crd.spec.versions.iter().flat_map(|version| version.additional_printer_columns.iter().flatten());
    let wanted: BTreeSet<String> = columns.map(|column| column.name.to_uppercase()).collect();
    let told = first_cells(&section("### Columns of `kubectl get nia`"));
    let told = told.iter().flat_map(|cell| cell.split("(`").next().unwrap_or_default().split(','));
    let told: BTreeSet<String> = told.map(|name| name.trim().to_owned()).filter(|name| name != "NAME").collect();
    assert_eq!(told, wanted);
}

#[test]
fn the_first_allocation_is_the_one_that_the_demo_applies() {
    let manifest = read("examples/first-allocation.yaml");
    assert!(read("README.md").contains(&format!("```yaml\n{manifest}```\n")));
}

#[test]
fn what_argo_cd_is_told_is_the_file_that_was_run() {
    let script = read("examples/argocd-health.lua");
    let shown: String = script.lines().map(|line| format!("    {line}\n")).collect();
    assert!(read("docs/gitops.md").contains(&shown), "docs/gitops.md shows another script");
}

#[test]
fn the_lines_that_learn_the_address_are_those_of_the_example() {
    let (page, example) = (read("docs/advertised-address.md"), read("examples/sip-server.yaml"));
    let shown: Vec<&str> = page.split("```yaml\n").skip(1).filter_map(|block| block.split("```").next()).collect();
    assert_eq!(shown.len(), 2, "docs/advertised-address.md shows other blocks");
    for block in shown {
        assert!(example.contains(block), "examples/sip-server.yaml does not say so:\n{block}");
    }
}

#[test]
fn the_pods_of_the_examples_run_one_to_a_node_and_are_replaced_one_after_another() {
    let page = read("docs/capacity.md");
    for (file, app) in [("examples/my-app.yaml", "my-app"), ("examples/sip-server.yaml", "sip")] {
        let example = read(file);
        let affinity = format!(
            "      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            - topologyKey: kubernetes.io/hostname
              labelSelector: {{matchLabels: {{app: {app}}}}}
"
        );
        let strategy = "  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}\n";
        assert!(example.contains(&affinity), "{file}: two pods may land on one node");
        assert!(example.contains(strategy), "{file}: a rollout stops all, or waits for a node more");
        assert!(page.contains(&format!("[{file}](../{file})")), "docs/capacity.md does not argue from {file}");
    }
}

#[test]
fn the_server_of_the_example_is_told_both_addresses_that_the_page_names() {
    let (page, example) = (read("docs/advertised-address.md"), read("examples/sip-server.yaml"));
    let internal = "{name: INTERNAL_ADDRESS, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}";
    assert!(example.contains(internal) && example.contains("export ADVERTISED_ADDRESS="), "examples/sip-server.yaml");
    for said in ["`ADVERTISED_ADDRESS`", "`INTERNAL_ADDRESS`", "`status.hostIP`"] {
        assert!(page.contains(said), "docs/advertised-address.md does not say {said}");
    }
}

#[test]
fn calls_are_counted_alike_by_the_hook_and_the_sidecar_and_as_the_page_says() {
    let example = read("examples/sip-server.yaml");
    let counts: Vec<&str> = example.lines().filter(|line| line.contains("name: COUNT_CALLS")).collect();
    assert!(matches!(counts.as_slice(), [one, other] if one == other), "{counts:?}");
    let shown = "kamcmd -s unix:/run/sip/ctl dlg.stats_active \\| awk '$1 == \"all:\" {print $2}'";
    assert!(read("docs/replacing-a-node.md").contains(shown), "docs/replacing-a-node.md counts otherwise");
    let counted = shown.replace("\\|", "|").replace('"', "\\\"");
    assert!(counts.iter().all(|line| line.contains(&counted)), "{counts:?} has not {counted}");
}

#[test]
fn the_tests_that_prove_the_promises_are_there() {
    let page = read("docs/promises.md");
    let named: BTreeSet<&str> = page.split('`').skip(1).step_by(2).filter(|name| is_a_test(name)).collect();
    let sources = sources();
    let is_there = |name: &str| ["(", "<"].iter().any(|end| sources.contains(&format!("fn {name}{end}")));
    let missing: Vec<&&str> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "docs/promises.md names tests that are not there: {missing:?}");
    for promise in 1..=12 {
        let of_it = |name: &&&str| name.split('_').any(|part| part == format!("p{promise}"));
        assert!(named.iter().any(|name| of_it(&name)), "docs/promises.md names no test of P{promise}");
    }
}

/// `a_name_of_several_words`.
fn is_a_test(name: &str) -> bool {
    name.matches('_').count() > 2 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Every source file, one after another.
fn sources() -> String {
    fn of(folder: &Path, text: &mut String) {
        for file in fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
            if file.is_dir() {
                of(&file, text);
            } else if file.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(&file).unwrap());
            }
        }
    }
    let mut text = String::new();
    for folder in ["src", "tests", "e2e/src", "e2e/tests"] {
        of(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut text);
    }
    text
}

/// The names in backquotes that begin the rows of a section's table.
fn assert_same<'a>(section: &str, wanted: impl Iterator<Item = &'a str>) {
    let cells = first_cells(section);
    let told: Vec<&str> = cells.iter().map(|cell| cell.trim_matches('`')).collect();
    let once: BTreeSet<&str> = told.iter().copied().collect();
    assert_eq!(once.len(), told.len(), "a row is there twice");
    assert_eq!(once, wanted.collect());
}

fn first_cells(section: &str) -> Vec<String> {
    let rows = section.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| Some(row.split('|').nth(1)?.trim().to_owned()));
    // The first two are the head and the line under it.
    cells.skip(2).collect()
}

/// From the heading to the next one.
fn section(heading: &str) -> String {
    let readme = read("README.md");
    let (_, rest) = readme.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("README.md: no {heading}"));
    let end = ["\n## ", "\n### "].iter().filter_map(|next| rest.find(next)).min().unwrap_or(rest.len());
    rest.get(..end).unwrap().to_owned()
}

fn read(path: &str) -> String {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&full).unwrap_or_else(|error| panic!("{path}: {error}"))
}
