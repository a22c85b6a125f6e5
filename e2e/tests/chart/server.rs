//! Every object of every shape, as a real API server sees it: strictly decoded, defaulted and admitted, in a namespace that
//! enforces Pod Security *restricted*; and stored nowhere.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use e2e::stage::{NAMESPACE, Stage};
use serde_json::{Value, json};

use super::{
    THEATRE,
    helm::{self, Major, of_kind},
};

/// Its own, so that what a release has stored is not in the way.
const ELSEWHERE: &str = "restricted";
/// Kinds of the Prometheus operator that the chart makes.
const MONITORING: [&str; 3] = ["podmonitors", "servicemonitors", "prometheusrules"];

#[test]
fn every_object_of_every_shape_is_accepted_by_the_api_server() -> Result<()> {
    THEATRE.alone(async |stage| {
        prepare(stage).await?;
        for (name, file) in helm::shapes() {
            let objects =
                helm::template(Major::Four, &["--values", &file, "--set", &format!("namespaceOverride={ELSEWHERE}")])?;
            let warnings = accepted(stage, &objects).await.with_context(|| name.clone())?;
            // One for each pod template that is not restricted, among others.
            ensure!(warnings.is_empty(), "{name}: {warnings}");
            let pods = pods(&objects)?;
            ensure!(!pods.is_empty());
            accepted(stage, &pods).await.with_context(|| format!("{name}: the pods"))?;
        }
        Ok(())
    })
}

#[test]
fn the_api_server_does_look_at_monitors_and_at_pod_security() -> Result<()> {
    THEATRE.alone(async |stage| {
        prepare(stage).await?;
        let objects =
            helm::with(&[&format!("namespaceOverride={ELSEWHERE:?}"), "podMonitor.enabled=true", "hostNetwork=true"])?;
        let refused = accepted(stage, &pods(&objects)?).await.expect_err("a pod in the node's network is admitted");
        ensure!(format!("{refused:#}").contains("violates PodSecurity \"restricted"), "{refused:#}");
        let mut monitor = helm::only(&objects, "PodMonitor")?.clone();
        monitor["spec"]["podMetricsEndpoints"][0]["interval"] = json!("often");
        let refused = accepted(stage, &[monitor]).await.expect_err("a monitor without sense is accepted");
        ensure!(format!("{refused:#}").contains("interval"), "{refused:#}");
        Ok(())
    })
}

/// The namespace with its account, and the Prometheus operator's CRDs; once is enough, and twice does no harm.
async fn prepare(stage: &Stage) -> Result<()> {
    let levels = ["enforce", "warn"].map(|mode| format!("pod-security.kubernetes.io/{mode}: restricted"));
    let manifest = format!(
        "
apiVersion: v1
kind: Namespace
metadata: {{name: {ELSEWHERE}, labels: {{{}}}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: ip-address-controller, namespace: {ELSEWHERE}}}
",
        levels.join(", ")
    );
    // As the objects are applied below, or kubectl warns that there are two ways in one object.
    let args = ["apply", "--server-side", "-f", "-"];
    stage.cluster.run("kubectl", &args, Some(manifest)).await?.success()?;
    let crds = module_dir()?;
    for kind in MONITORING {
        let file = Path::new(&crds).join(format!("example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml"));
        stage.cluster.kubectl(&["apply", "--server-side", "-f", &file.to_string_lossy()]).await?;
        let name = format!("crd/{kind}.monitoring.coreos.com");
        stage.cluster.kubectl(&["wait", &name, "--for=condition=Established", "--timeout=60s"]).await?;
    }
    Ok(())
}

/// Where Go keeps the module that `tools/prometheusoperator.mod` pins; fetched if it is not there yet.
fn module_dir() -> Result<String> {
    let module = "github.com/prometheus-operator/prometheus-operator";
    let output = Command::new("go")
        .args(["mod", "download", "-modfile=prometheusoperator.mod", "-json", module])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools"))
        .output()
        .context("this test needs Go on the PATH to find the Prometheus operator's CRDs")?;
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let dir = said["Dir"].as_str().map(str::to_owned);
    dir.with_context(|| format!("go could not fetch {module}: {said} {}", String::from_utf8_lossy(&output.stderr)))
}

/// What the API server warned of, when it accepts all of them.
async fn accepted(stage: &Stage, objects: &[Value]) -> Result<String> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    let args = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-"];
    let output = stage.cluster.run("kubectl", &args, Some(list)).await?;
    let warnings = output.stderr.clone();
    let said = output.success()?;
    ensure!(said.lines().count() == objects.len(), "{} objects: {said}", objects.len());
    Ok(warnings)
}

/// Pods as the Deployments' controller would make them, and that of `helm test`.
fn pods(objects: &[Value]) -> Result<Vec<Value>> {
    let of_deployment = |deployment: &Value| {
        let mut pod = deployment["spec"]["template"].clone();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["name"] = json!(format!("one-of-{}", helm::text_of(&deployment["metadata"]["name"])));
        pod["metadata"]["namespace"] = json!(ELSEWHERE);
        // Nobody has made this account there.
        if helm::of_simulator(deployment) {
            pod["spec"].as_object_mut().map(|spec| spec.remove("serviceAccountName"));
        }
        pod
    };
    let templates = of_kind(objects, "Deployment").into_iter().map(of_deployment);
    let mut pods: Vec<Value> = of_kind(objects, "Pod").into_iter().cloned().chain(templates).collect();
    for pod in &mut pods {
        // The class would be made with them.
        pod["spec"].as_object_mut().context("a pod without a spec")?.remove("priorityClassName");
    }
    ensure!(pods.iter().all(|pod| pod["metadata"]["namespace"] != NAMESPACE));
    Ok(pods)
}
