//! How the program starts, what it says when it cannot, and its other commands.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;

use std::path::Path;

use acts::{
    OPERATOR, Theatre, allocation, cast, http, labels, pool,
    program::{on_stage, program},
    reserve, restarts,
};
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{NAMESPACE, PATIENCE, RELEASE, Stage},
};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt, api::ListParams};

static THEATRE: Theatre = Theatre::new();

/// The file that `kubectl apply` of every installation guide uses.
fn crd_file() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/netipallocations.yaml").to_string_lossy().into_owned()
}

#[tokio::test]
async fn a_setting_that_cannot_be_used_is_one_line_that_names_it_and_exit_code_2() -> Result<()> {
    let wrong = [
        ("LEASE_DURATION", "abc"),
        ("LEASE_DURATION", "2"),
        ("LEASE_SKEW_GRACE_SEC", "-1"),
        ("METRICS_PORT", "70000"),
        ("HEALTH_PORT", "http"),
        ("BIND_ADDRESS", "localhost"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "inof"),
        ("LOG_LEVEL", "info,kube=loud"),
        ("CLOUD_QPS", "0"),
        ("CLOUD_TIMEOUT", "soon"),
        ("MAX_CONCURRENT_EFFECTS", "0"),
        ("CONTROLLER_MODE", "enforce"),
        ("ALLOW_INSECURE_ENDPOINT", "maybe"),
        ("GOOGLE_COMPUTE_CUSTOM_ENDPOINT", "http://203.0.113.1"),
    ];
    for (name, value) in wrong {
        let ended = program(&[], &[(name, value)]).await?;
        ensure!(ended.code == Some(2), "{name}={value}: {ended:?}");
        ensure!(ended.out.is_empty() && ended.err.lines().count() == 1, "{name}={value}: not one line: {ended:?}");
        ensure!(ended.err.contains(name), "{name}={value}: does not name it: {ended:?}");
    }
    let flag = program(&["--lease-duration", "abc"], &[]).await?;
    ensure!(flag.code == Some(2) && flag.err.lines().count() == 1, "{flag:?}");
    ensure!(flag.err.contains("lease-duration") || flag.err.contains("LEASE_DURATION"), "{flag:?}");
    Ok(())
}

#[tokio::test]
async fn crd_prints_the_definition_that_is_shipped_and_needs_no_setting() -> Result<()> {
    let ended = program(&["crd"], &[("LEASE_DURATION", "abc")]).await?;
    ensure!(ended.code == Some(0) && ended.err.is_empty(), "{ended:?}");
    let shipped = std::fs::read_to_string(crd_file())?;
    let parsed = |text: &str| serde_yaml::from_str::<serde_yaml::Value>(text);
    ensure!(parsed(&ended.out)? == parsed(&shipped)?, "crds/netipallocations.yaml is not what the program prints");
    Ok(())
}

/// One play, because there is one CRD: missing at first, then applied, then used by `check` and `release`.
#[test]
fn without_the_crd_it_stays_alive_and_says_so_once_and_recovers_and_its_commands_tell_and_let_go() -> Result<()> {
    THEATRE.bare(async |stage| {
        stage.install_without_waiting(&["crds.enabled=false"]).await?;
        alive_and_not_ready(stage).await?;
        let missing = on_stage(stage, &["check"]).await?;
        ensure!(missing.code == Some(1), "{missing:?}");
        ensure!(missing.out.lines().any(|line| line.starts_with("FAIL CustomResourceDefinition")), "{missing:?}");
        ensure!(missing.err.lines().count() == 1 && missing.err.contains("failed"), "{missing:?}");

        stage.cluster.kubectl(&["apply", "--server-side", "-f", &crd_file()]).await?;
        for pod in cast(stage).await? {
            let pod = pod.name_any();
            ensure!(restarts(stage, &pod).await? == 0, "{pod} did not survive the wait");
            ensure!(complaints(stage, &pod)?.len() == 1, "{pod}: {:#?}", complaints(stage, &pod)?);
        }

        let (name, ip) = ("released", "203.0.113.30");
        reserve(stage, &[ip])?;
        pool(stage, name, 2).await?;
        let taint = "nodeTaint: {key: example.com/no-address}";
        stage.cluster.apply(&allocation(name, &[ip], taint)).await?;
        let node = stage.until_attached(name, ip).await?;
        wait_for("the node without an address to have the taint", PATIENCE, || async {
            let tainted = tainted(stage).await?;
            Ok(Seen::when(tainted.len() == 1 && tainted != [node.clone()], tainted))
        })
        .await?;
        let fine = on_stage(stage, &["check"]).await?;
        ensure!(fine.code == Some(0) && fine.out.lines().all(|line| line.starts_with("ok ")), "{fine:?}");
        ensure!(fine.out.lines().any(|line| line.contains("RBAC nodes")), "{fine:?}");
        stage.world.deny("compute.instances.addAccessConfig");
        let denied = on_stage(stage, &["check"]).await?;
        stage.world.allow("compute.instances.addAccessConfig");
        ensure!(denied.code == Some(1), "{denied:?}");
        ensure!(
            denied.out.contains("compute.instances.addAccessConfig"),
            "the missing permission is not named: {denied:?}"
        );

        release_while_nobody_runs(stage, name, ip, &node).await
    })
}

async fn alive_and_not_ready(stage: &Stage) -> Result<()> {
    let pods = wait_for("both replicas run and have said what is missing", PATIENCE, || async {
        let pods = stage.pods(NAMESPACE, OPERATOR).await?;
        let told = pods.iter().filter(|pod| complaints(stage, &pod.name_any()).is_ok_and(|said| !said.is_empty()));
        Ok(match told.count() {
            2 => Seen::Yes(pods),
            count => Seen::NotYet(format!("{count} pods have said it")),
        })
    })
    .await?;
    // As long as a Lease takes to be taken and renewed: the election goes on meanwhile.
    stage.until_led(None).await?;
    for pod in pods.iter().map(ResourceExt::name_any) {
        let address = std::net::SocketAddr::new(stage.agent.ip(NAMESPACE, &pod)?, 8080);
        wait_for("it says why it is not ready, and that it lives", PATIENCE, || async {
            let readiness = http(address, "/readyz").await?;
            let liveness = http(address, "/livez").await?;
            let told = readiness.0 == 503 && readiness.1.contains("CRD") && liveness.0 == 200;
            Ok(Seen::when(told, (readiness, liveness)))
        })
        .await?;
        ensure!(restarts(stage, &pod).await? == 0);
    }
    let pods = stage.pods(NAMESPACE, OPERATOR).await?;
    ensure!(pods.iter().all(|pod| !acts::is_ready(pod)), "a pod without CRD is Ready");
    Ok(())
}

/// Lines of the log that complain about the watch of allocations while the CRD is missing. One that was applied a moment ago
/// may refuse a watch once more, for another reason.
fn complaints(stage: &Stage, pod: &str) -> Result<Vec<String>> {
    let log = stage.agent.log(NAMESPACE, pod)?;
    let missing = |line: &&str| line.contains("the watch failed") && line.contains("404 page not found");
    let about = |line: &&str| line.contains("NetIPAllocations") && missing(line);
    Ok(log.lines().filter(about).map(str::to_owned).collect())
}

/// Nodes with the taint of the allocation.
async fn tainted(stage: &Stage) -> Result<Vec<String>> {
    let nodes = Api::<Node>::all(stage.client()?).list(&ListParams::default()).await?.items;
    let has = |node: &Node| {
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        taints.into_iter().any(|taint| taint.key == "example.com/no-address")
    };
    Ok(nodes.iter().filter(|node| has(node)).map(|node| node.name_any()).collect())
}

async fn release_while_nobody_runs(stage: &Stage, name: &str, ip: &str, node: &str) -> Result<()> {
    let deployment = format!("deployment/{RELEASE}");
    stage.cluster.kubectl(&["scale", &deployment, "-n", NAMESPACE, "--replicas=0"]).await?;
    wait_for("no pod of the operator is left", PATIENCE, || async {
        let left = stage.pods(NAMESPACE, OPERATOR).await?.len();
        Ok(Seen::when(left == 0, left))
    })
    .await?;
    stage.cluster.kubectl(&["delete", "nia", name, "--wait=false"]).await?;
    let stuck = stage.allocation(name).await?.context("the object went without anybody to let go of the address")?;
    ensure!(stuck.metadata.deletion_timestamp.is_some());
    stage.world.clear_calls();

    let nobody = on_stage(stage, &["release", "no-such-allocation"]).await?;
    ensure!(nobody.code == Some(1) && nobody.err.contains("no-such-allocation"), "{nobody:?}");
    let released = on_stage(stage, &["release", name]).await?;
    ensure!(released.code == Some(0) && released.out.contains(name), "{released:?}");
    ensure!(stage.allocation(name).await?.is_none(), "the object is still there");
    ensure!(labels(stage, node).await?.is_empty(), "labels are left");
    ensure!(tainted(stage).await?.is_empty(), "taints are left");
    ensure!(stage.world.calls().is_empty(), "a call to the cloud: {:#?}", stage.world.calls());
    ensure!(stage.world.machine_of(ip.parse()?).as_deref() == Some(node), "the address was moved");
    Ok(())
}
