//! One small story, and what kubectl shows of it, held against files: attached, a drain under way, no eligible node.
//!
//! `UPDATE_GOLDEN=1` writes the files instead.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{PATIENCE, Stage},
};

use crate::{
    acts::{allocation, reserve, until_labelled},
    normal::normal,
};

/// Allocation, pool and workload.
const NAME: &str = "sip";
const IPS: [&str; 3] = ["203.0.113.50", "203.0.113.51", "203.0.113.52"];

pub async fn play(stage: &Stage) -> Result<()> {
    reserve(stage, &IPS)?;
    // One after another, all before the allocation: which node an address goes to depends on who is there.
    for (node, zone) in ["sip-a", "sip-b", "sip-c"].iter().zip(stage.venue.zones.iter().cycle()) {
        stage.add_node(node, zone, &[("role", NAME)]).await?;
    }
    let more = format!("workloadRef: {{kind: StatefulSet, name: {NAME}, namespace: default}}");
    let allocate = async |ips: &[&str]| stage.cluster.apply(&allocation(NAME, ips, &more)).await.map(drop);
    stage.cluster.apply(WORKLOAD).await?;
    allocate(&IPS[..2]).await?;
    stage.cluster.kubectl(&["wait", "--for=condition=Ready", "nia/sip", "--timeout=60s"]).await?;
    for (ip, node) in [(IPS[0], "sip-a"), (IPS[1], "sip-b")] {
        until_labelled(stage, node, NAME, ip).await?;
    }
    stage.cluster.kubectl(&["rollout", "status", "statefulset/sip", "--timeout=60s"]).await?;
    until(stage, "IPAttached", 2).await?;
    until(stage, "NodeLabeled", 2).await?;
    shown(stage, "attached").await?;

    stage.cluster.kubectl(&["cordon", "sip-a"]).await?;
    said(stage, IPS[0], "waits for 1 pod of StatefulSet default/sip").await?;
    until(stage, "IPDraining", 3).await?;
    shown(stage, "draining").await?;

    stage.cluster.kubectl(&["cordon", "sip-c"]).await?;
    said(stage, IPS[0], "has no node to go to").await?;
    allocate(&IPS).await?;
    said(stage, IPS[2], "3 nodes selected").await?;
    until(stage, "NoEligibleNode", 1).await?;
    shown(stage, "no-eligible-node").await?;

    // Nobody waits for what is left of it.
    stage.cluster.kubectl(&["delete", "statefulset", NAME]).await?;
    stage.cluster.kubectl(&["delete", "nia", NAME, "--timeout=120s"]).await.map(drop)
}

/// Its pod runs only where the first address is.
const WORKLOAD: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: sip, namespace: default}
spec:
  replicas: 1
  serviceName: sip
  selector: {matchLabels: {app: sip}}
  template:
    metadata: {labels: {app: sip}}
    spec:
      nodeSelector: {ip.ready: 'true', netinfra.darkbrains.com/address: 203.0.113.50}
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: registry.example/main}]
";

/// Waits until the message of the address says so.
async fn said(stage: &Stage, ip: &str, words: &str) -> Result<()> {
    let says = |message: Option<&String>| message.is_some_and(|message| message.contains(words));
    stage.until(words, NAME, ip, |entry| says(entry.message.as_ref())).await.map(drop)
}

/// Waits until so many events have this reason: they are published beside the pass.
async fn until(stage: &Stage, reason: &str, count: usize) -> Result<()> {
    wait_for(&format!("{count} events {reason}"), PATIENCE, || async {
        let events = events(stage).await?;
        let there = events.lines().filter(|line| line.split_whitespace().any(|word| word == reason)).count();
        Ok(Seen::when(there >= count, events))
    })
    .await
}

/// Those of the operator about this story, on whatever object they are.
async fn events(stage: &Stage) -> Result<String> {
    let ours = "reportingComponent=netinfra.darkbrains.com/ip-address-controller";
    let all = stage.cluster.kubectl(&["get", "events", "-A", "--field-selector", ours]).await?;
    let about = |line: &&str| line.starts_with("NAMESPACE") || line.contains(NAME);
    Ok(all.lines().filter(about).map(|line| format!("{line}\n")).collect())
}

/// Holds all that kubectl shows against the file.
async fn shown(stage: &Stage, scene: &str) -> Result<()> {
    let nodes = ["get", "nodes", "-l", "role=sip", "-L"];
    let labels = "ip.ready,netinfra.darkbrains.com/allocation,netinfra.darkbrains.com/address";
    let mut text = String::new();
    for command in [
        ["get", "nia", NAME].as_slice(),
        &["get", "nia", NAME, "-o", "wide"],
        &[nodes.as_slice(), &[labels]].concat(),
        &["describe", "nia", NAME],
    ] {
        write!(text, "$ kubectl {}\n{}\n", command.join(" "), told(&stage.cluster.kubectl(command).await?))?;
    }
    write!(text, "$ kubectl get events -A\n{}", told(&events(stage).await?))?;

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{scene}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return Ok(std::fs::write(file, text)?);
    }
    let golden = std::fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
    ensure!(text == golden, "{scene}: UPDATE_GOLDEN=1 writes the file anew\n{}", differing(&golden, &text));
    Ok(())
}

/// Masked, and the events in an order that does not depend on the second in which each came.
fn told(text: &str) -> String {
    let text = normal(text);
    let lines: Vec<&str> = text.lines().collect();
    let head = lines.iter().position(|line| line.starts_with("NAMESPACE") || line.starts_with("Events:"));
    let first = match head {
        Some(at) if lines[at].starts_with("Events:") => at + 3,
        Some(at) => at + 1,
        None => lines.len(),
    };
    let (still, events) = lines.split_at(first.min(lines.len()));
    let mut events = events.to_vec();
    events.sort_unstable();
    still.iter().chain(&events).map(|line| format!("{line}\n")).collect()
}

fn differing(golden: &str, told: &str) -> String {
    let only = |these: &str, others: &str, mark: char| -> String {
        let missing = these.lines().filter(|line| !others.lines().any(|other| other == *line));
        missing.map(|line| format!("{mark} {line}\n")).collect()
    };
    format!("{}{}", only(golden, told, '-'), only(told, golden, '+'))
}
