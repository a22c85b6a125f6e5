//! Each file of `ci/`, with both majors of Helm: what must hold of every object, whatever the values.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::stage::{NAMESPACE, chart};
use serde_json::{Value, json};

use super::helm::{self, BOTH, Major, called, text_of};

/// Those without a namespace, of all that the chart makes.
const CLUSTER_SCOPED: [&str; 6] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "PriorityClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

const LABELS: [&str; 7] = [
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/component",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
];

#[test]
fn every_way_to_install_it_has_its_values() {
    let names: Vec<_> = helm::shapes().into_iter().map(|(name, _)| name).collect();
    let wanted =
        ["aws-irsa", "aws-pod-identity", "azure", "default", "gcp", "minimal", "monitoring", "openshift", "simulator"];
    assert_eq!(names, wanted);
}

#[test]
fn both_helms_lint_every_shape_and_make_the_same_of_it() -> Result<()> {
    let chart = chart();
    let chart = chart.to_string_lossy();
    for (name, file) in helm::shapes() {
        for major in BOTH {
            let ended = helm::run(major, &["lint", "--strict", &chart, "--values", &file])?;
            ensure!(ended.success, "{name}, {major:?}: {}{}", ended.out, ended.err);
        }
        let [three, four] = BOTH.map(|major| helm::template(major, &["--values", &file]));
        let [three, four] = [three.with_context(|| name.clone())?, four.with_context(|| name.clone())?].map(sorted);
        ensure!(three == four, "{name}: they differ");
    }
    Ok(())
}

/// Within a kind the two have an order of their own.
fn sorted(mut objects: Vec<Value>) -> Vec<Value> {
    objects.sort_by_key(called);
    objects
}

#[test]
fn every_object_of_every_shape_is_named_labelled_and_selected_alike() -> Result<()> {
    for (name, file) in helm::shapes() {
        let objects = helm::template(Major::Four, &["--values", &file])?;
        let mut seen = BTreeSet::new();
        for object in &objects {
            let called = called(object);
            let at = || format!("{name}: {called}");
            let metadata = &object["metadata"];
            let namespace = text_of(&metadata["namespace"]);
            ensure!(seen.insert((called.clone(), namespace.to_owned())), "{}: there twice", at());
            let cluster_scoped = CLUSTER_SCOPED.contains(&text_of(&object["kind"]));
            ensure!(cluster_scoped == namespace.is_empty(), "{}: namespace {namespace:?}", at());
            // The Leases of the nodes that are played are where those of all nodes are.
            let of_nodes = helm::of_simulator(object) && namespace == "kube-node-lease";
            ensure!(cluster_scoped || of_nodes || namespace == NAMESPACE, "{}: namespace {namespace:?}", at());
            for label in LABELS {
                ensure!(!text_of(&metadata["labels"][label]).is_empty(), "{}: no label {label}", at());
            }
            for selector in selectors(object) {
                let keys: BTreeSet<&str> = selector.as_object().into_iter().flatten().map(|(key, _)| &**key).collect();
                let allowed = BTreeSet::from(["app.kubernetes.io/name", "app.kubernetes.io/instance"]);
                ensure!(keys.is_subset(&allowed), "{}: selects by {keys:?}", at());
            }
        }
        let deployment = helm::only(&objects, "Deployment")?;
        let selected = &deployment["spec"]["selector"]["matchLabels"];
        let wanted = json!({"app.kubernetes.io/name": "ip-address-controller", "app.kubernetes.io/instance": "ip-address-controller"});
        ensure!(*selected == wanted, "{name}: {selected}");
        let names: Vec<_> = helm::environment(&objects)?.into_iter().map(|(name, _)| name).collect();
        let once: BTreeSet<_> = names.iter().collect();
        ensure!(once.len() == names.len(), "{name}: a variable is set twice: {names:?}");
    }
    Ok(())
}

/// Every map of labels that this object selects others by.
fn selectors(object: &Value) -> Vec<&Value> {
    let mut found = Vec::new();
    if object["kind"] == "Service" {
        found.push(&object["spec"]["selector"]);
    }
    collect(object, &mut found);
    found
}

fn collect<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("matchLabels"));
            map.values().for_each(|value| collect(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

#[test]
fn the_versions_of_vendors_are_let_in_and_older_ones_are_not() -> Result<()> {
    for major in BOTH {
        for version in ["v1.31.0", "v1.31.1-gke.1589018", "v1.33.4-eks-1-33-10"] {
            helm::text(major, &["--kube-version", version]).with_context(|| format!("{major:?}: {version}"))?;
        }
        let refused = helm::text(major, &["--kube-version", "v1.30.9"]).expect_err("Kubernetes 1.30 is let in");
        ensure!(refused.to_string().contains("1.31.0"), "{major:?}: {refused}");
    }
    Ok(())
}

#[test]
fn the_package_holds_what_is_needed_and_no_more() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let chart = chart();
    let chart = chart.to_string_lossy();
    for major in BOTH {
        let to = folder.path().join(format!("{major:?}"));
        std::fs::create_dir(&to)?;
        let to = to.to_string_lossy().into_owned();
        let ended = helm::run(major, &["package", &chart, "--destination", &to])?;
        ensure!(ended.success, "{major:?}: {}", ended.err);
        let package = format!("{to}/ip-address-controller-2.0.0.tgz");
        let listed = std::process::Command::new("tar").args(["-tzf", &package]).output()?;
        let files = String::from_utf8_lossy(&listed.stdout).into_owned();
        for wanted in
            ["README.md", "values.schema.json", "files/dashboards/ip-address-controller.json", "files/alerts.yaml"]
        {
            ensure!(files.contains(wanted), "{major:?}: no {wanted} in {files}");
        }
        ensure!(!files.contains("/ci/"), "{major:?}: {files}");
    }
    Ok(())
}
