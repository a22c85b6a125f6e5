//! From version 1, by the commands of `docs/migration.md`, over what it left behind: its CRD, an object that it stored, nodes
//! that it labelled, its Lease.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    pin::pin,
    sync::Mutex,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{PATIENCE, Stage, VALUES, chart, setting},
};
use futures::TryStreamExt;
use ip_address_controller::api::{ADDRESS_LABEL, READY_LABEL};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt};
use kube_runtime::{
    WatchStreamExt,
    watcher::{self, Config},
};

use super::{CRD, EMPTY, emptied};
use crate::acts::{LEASE, OPERATOR, deployment, ensure_still, labels, pool, reserve, running, still_there, surveys};

/// Where version 1 runs, and what follows it.
const NAMESPACE: &str = "kube-system";
/// The allocation, its pool and its workload.
const NAME: &str = "version-1";
const IPS: [&str; 2] = ["203.0.113.92", "203.0.113.93"];

/// The commands of the guide, in its order; `…` is what has no place here: monitoring, credentials, a registry.
const GUIDE: [&str; 7] = [
    "kubectl -n kube-system scale deployment ip-address-controller --replicas=0",
    "kubectl -n kube-system wait --for=delete pod -l app=ip-address-controller --timeout=120s",
    "kubectl -n kube-system delete --ignore-not-found deployment/ip-address-controller \
     serviceaccount/ip-address-controller-sa configmap/ip-address-controller-dashboard …",
    "kubectl delete --ignore-not-found clusterrolebinding/ip-address-controller clusterrole/ip-address-controller",
    "helm install ip-address-controller charts/ip-address-controller --namespace kube-system \
     --set serviceAccount.name=ip-address-controller-sa … --take-ownership --force-conflicts",
    "kubectl get nia",
    r#"kubectl patch nia NAME --type merge -p '{"spec":{"cloud":{"provider":"gcp"}}}'"#,
];

/// The labels of each node, in all versions of it, in their order.
type Versions = Mutex<BTreeMap<String, Vec<BTreeMap<String, String>>>>;

#[test]
fn p9_version_1_is_replaced_as_the_guide_says_and_no_address_moves() -> Result<()> {
    EMPTY.bare(async |stage| {
        emptied(stage).await?;
        let nodes = at_work(stage).await?;
        let versions = Versions::default();
        let replaced = tokio::select! {
            ended = follow_nodes(stage, &versions) => bail!("the watch of the nodes ended: {ended:?}"),
            replaced = replace(stage, &nodes, &versions) => replaced,
        };
        if replaced.is_err() {
            for pod in stage.pods(NAMESPACE, OPERATOR).await?.iter().map(ResourceExt::name_any) {
                println!("--- {pod}\n{}", stage.agent.log(NAMESPACE, &pod).unwrap_or_default());
            }
        }
        replaced
    })
}

/// Version 1 as it runs, addresses attached and nodes labelled; gives the nodes.
async fn at_work(stage: &Stage) -> Result<Vec<String>> {
    crd(stage).await?;
    object(stage).await?;
    reserve(stage, &IPS)?;
    let mut nodes = pool(stage, NAME, 3).await?;
    // One to spare: whoever wanted to move an address could.
    nodes.truncate(IPS.len());
    for (ip, node) in IPS.iter().zip(&nodes) {
        stage.world.move_address(ip.parse()?, node).map_err(|refusal| anyhow!("{refusal:?}"))?;
        stage.cluster.kubectl(&["label", "node", node, "ip.ready=true"]).await?;
    }
    let dropped = "{.spec.cloud.provider}{.spec.deploymentRef}{.spec.strategy}{.status}";
    let dropped = stage.cluster.kubectl(&["get", "nia", NAME, "-o", &format!("jsonpath={dropped}")]).await?;
    ensure!(dropped.is_empty(), "version 1 would not have stored {dropped}");

    stage.cluster.kubectl(&["apply", "-f", &data("operator.yaml")]).await?;
    let rollout = ["rollout", "status", "deployment/ip-address-controller", "-n", NAMESPACE, "--timeout=120s"];
    stage.cluster.kubectl(&rollout).await?;
    stage.cluster.apply(&lease()).await?;
    stage.cluster.apply(&deployment(NAME, 2, 1)).await?;
    running(stage, NAME, 2).await?;
    Ok(nodes)
}

/// An object with all that version 1's README named; what its CRD does not know is dropped on the way.
async fn object(stage: &Stage) -> Result<()> {
    let object = format!(
        "
apiVersion: netinfra.darkbrains.com/v1alpha1
kind: NetIPAllocation
metadata: {{name: {NAME}}}
spec:
  reservedIPs: [{}]
  nodeSelector: {{role: {NAME}}}
  deploymentRef: {{name: {NAME}, namespace: default}}
  cloud: {{provider: gcp, region: us-west1, zones: [us-west1-a, us-west1-b]}}
  strategy: {{maxSurge: 1, maxUnavailable: 0}}
  reconcileInterval: 5
",
        IPS.join(", ")
    );
    wait_for("an object is stored", PATIENCE, || async {
        // Strict validation refuses what was in version 1's own example.
        let args = ["apply", "--validate=false", "-f", "-"];
        let output = stage.cluster.run("kubectl", &args, Some(object.clone())).await?;
        Ok(Seen::when(output.status.success(), output.stderr))
    })
    .await
}

/// Version 1's CRD, as `kubectl apply` leaves it: it belongs to no release.
pub async fn crd(stage: &Stage) -> Result<()> {
    stage.cluster.kubectl(&["apply", "-f", &data("crd.yaml")]).await?;
    stage.cluster.kubectl(&["wait", "crd", CRD, "--for=condition=Established", "--timeout=60s"]).await.map(drop)
}

/// Held by a pod of version 1, which does not release it when it goes.
fn lease() -> String {
    format!(
        "
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {{name: {LEASE}, namespace: {NAMESPACE}}}
spec: {{holderIdentity: ip-address-controller-0, leaseDurationSeconds: 6, renewTime: '2026-01-02T03:04:05.000000Z'}}
"
    )
}

/// Follows the guide, and looks after each step.
async fn replace(stage: &Stage, nodes: &[String], versions: &Versions) -> Result<()> {
    wait_for("the nodes are watched", PATIENCE, || async {
        let watched = versions.lock().unwrap().keys().cloned().collect::<Vec<_>>();
        Ok(Seen::when(nodes.iter().all(|node| watched.contains(node)), watched))
    })
    .await?;
    let users = names(stage).await?;
    stage.world.clear_calls();
    as_the_guide_says()?;
    for command in GUIDE {
        println!("$ {command}\n{}", typed(stage, command).await?);
        if command.starts_with("helm install") {
            asks_which_cloud(stage, nodes).await?;
        }
    }
    for (ip, node) in IPS.iter().zip(nodes) {
        let what = format!("{ip} is adopted on {node}");
        stage
            .until(&what, NAME, ip, |entry| {
                entry.state == "Attached"
                    && entry.reason.as_deref() == Some("Adopted")
                    && entry.node.as_ref() == Some(node)
            })
            .await?;
    }
    surveys(stage, 2).await?;
    still_there(stage, NAME, &IPS, nodes).await?;
    ensure!(names(stage).await? == users, "pods were disturbed: {:?}, were {users:?}", names(stage).await?);
    let spare = format!("{NAME}-{}", nodes.len());
    ensure!(labels(stage, &spare).await?.is_empty(), "{spare} is labelled without an address");
    never_dark(nodes, versions).await
}

/// As long as the cloud is not named, addresses and labels are left alone.
async fn asks_which_cloud(stage: &Stage, nodes: &[String]) -> Result<()> {
    wait_for("the allocation says what is missing", PATIENCE, || async {
        let status = stage.allocation(NAME).await?.and_then(|object| object.status).unwrap_or_default();
        let said = status.conditions.iter().any(|condition| {
            condition.type_ == "Ready"
                && condition.reason == "InvalidSpec"
                && condition.message.contains("spec.cloud.provider")
        });
        Ok(Seen::when(said, status.conditions))
    })
    .await?;
    ensure_still(&stage.world)?;
    for node in nodes {
        let labels = labels(stage, node).await?;
        ensure!(labels == BTreeMap::from([(READY_LABEL.to_owned(), "true".to_owned())]), "{node}: {labels:?}");
    }
    Ok(())
}

/// From the first version of each node to the one with our labels there is none without `ip.ready`.
async fn never_dark(nodes: &[String], versions: &Versions) -> Result<()> {
    wait_for("the watch has caught up", PATIENCE, || async {
        let versions = versions.lock().unwrap().clone();
        let last = |node: &String| versions.get(node).and_then(|all| all.last());
        let caught_up = nodes.iter().all(|node| last(node).is_some_and(|labels| labels.contains_key(ADDRESS_LABEL)));
        Ok(Seen::when(caught_up, versions))
    })
    .await?;
    let versions = versions.lock().unwrap();
    for node in nodes {
        let dark = |labels: &&BTreeMap<String, String>| labels.get(READY_LABEL).is_none_or(|value| value != "true");
        let dark: Vec<_> = versions[node].iter().filter(dark).collect();
        ensure!(dark.is_empty(), "{node} was without {READY_LABEL}: {dark:?}");
    }
    Ok(())
}

/// Writes down every version of every node of the pool.
async fn follow_nodes(stage: &Stage, versions: &Versions) -> Result<()> {
    let nodes: Api<Node> = Api::all(stage.client()?);
    let watch = watcher::watcher(nodes, Config::default().labels(&format!("role={NAME}")));
    let mut events = pin!(watch.default_backoff().applied_objects());
    while let Some(node) = events.try_next().await? {
        versions.lock().unwrap().entry(node.name_any()).or_default().push(node.labels().clone());
    }
    Ok(())
}

/// The pods that use the addresses.
async fn names(stage: &Stage) -> Result<Vec<String>> {
    Ok(running(stage, NAME, 2).await?.iter().map(ResourceExt::name_any).collect())
}

/// The guide has these commands, in this order.
fn as_the_guide_says() -> Result<()> {
    let guide = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/migration.md"))?;
    let (_, section) = guide.split_once("## From version 1\n").context("the guide has no such section")?;
    // A command of several lines as one.
    let section = section.replace("\\\n", " ").split_whitespace().collect::<Vec<_>>().join(" ");
    let mut rest = section.as_str();
    for piece in GUIDE.iter().flat_map(|command| command.split('…')).map(str::trim).filter(|piece| !piece.is_empty())
    {
        let found = rest.split_once(piece);
        (_, rest) = found.with_context(|| format!("docs/migration.md does not say {piece:?}, or not in this order"))?;
    }
    Ok(())
}

/// Runs a command of the guide as a reader types it: with a name for NAME, and values where it leaves them open.
async fn typed(stage: &Stage, command: &str) -> Result<String> {
    let chart = chart().to_string_lossy().into_owned();
    let mut words = Vec::new();
    for word in command.split_whitespace() {
        match word {
            "charts/ip-address-controller" => words.push(chart.as_str()),
            "NAME" => words.push(NAME),
            "…" if command.starts_with("helm") => {
                words.extend(VALUES.iter().flat_map(|value| setting(value)));
                words.extend(["--wait", "--timeout", "120s"]);
            }
            "…" => {}
            word => words.push(word.trim_matches('\'')),
        }
    }
    let (tool, args) = words.split_first().context("an empty command")?;
    stage.cluster.run(tool, args, None).await?.success().with_context(|| command.to_owned())
}

/// A file of what version 1 left.
fn data(file: &str) -> String {
    let file: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/chart/upgrades/version-1", file].iter().collect();
    file.to_string_lossy().into_owned()
}
