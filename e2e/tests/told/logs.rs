//! Log lines: none above debug while nothing changes, and all that belongs to a journey with the ids of its trace.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use e2e::stage::{NAMESPACE, Stage};
use kube::ResourceExt;
use serde_json::Value;

use crate::acts::{at_rest, cast, surveys, until_labelled, until_moved};

const NAME: &str = "logged";
const IP: &str = "203.0.113.56";
/// Passes that are looked at: longer than anything that is kept fresh on the side (30 s).
const PASSES: usize = 8;

pub async fn play(stage: &Stage) -> Result<()> {
    cast(stage).await?;
    let from = at_rest(stage, NAME, &[IP]).await?.pop().context("no node")?;
    surveys(stage, 2).await?;
    let before = lines(stage).await?;
    surveys(stage, PASSES).await?;
    let known = |pod: &str| before.get(pod).map_or(0, Vec::len);
    let since: Vec<Value> =
        lines(stage).await?.into_iter().flat_map(|(pod, lines)| lines.into_iter().skip(known(&pod))).collect();
    let loud: Vec<&Value> = since.iter().filter(|line| line["level"] != "debug").collect();
    ensure!(loud.is_empty(), "told at rest: {loud:#?}");
    let rested = |line: &&Value| line["msg"] == "nothing changed" && line["crd"] == NAME;
    let rested = since.iter().filter(rested).count();
    ensure!(rested >= PASSES / 2, "{rested} passes in {PASSES} intervals: {since:#?}");

    stage.cluster.kubectl(&["cordon", &from]).await?;
    let entry = until_moved(stage, NAME, IP, &from).await?;
    until_labelled(stage, &entry.node.unwrap_or_default(), NAME, IP).await?;
    let trace = entry.last_move.and_then(|journey| journey.trace_id).context("status does not name the trace")?;
    let told: Vec<Value> = lines(stage).await?.into_values().flatten().collect();
    let moved: Vec<&Value> =
        told.iter().filter(|line| line["msg"] == "address moved on" && line["trace_id"] == trace.as_str()).collect();
    ensure!(moved.len() == 5, "five edges, and each says the trace: {moved:#?}");
    for line in moved {
        let id = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        ensure!(id("trace_id").len() == 32 && id("span_id").len() == 16, "{line}");
        ensure!(hex(&id("trace_id")) && hex(&id("span_id")), "{line}");
        ensure!(line["crd"] == NAME && line["ip"] == IP && line["leader"] == true && line["level"] == "info", "{line}");
    }
    let placed = |line: &&Value| line["msg"] == "effect begins" && line["crd"] == NAME && line["ip"] == IP;
    let zones: Vec<&Value> = told.iter().filter(placed).map(|line| &line["zone"]).collect();
    let named = |zone: &&Value| zone.as_str().is_some_and(|zone| zone.starts_with("us-west1-"));
    ensure!(!zones.is_empty() && zones.iter().all(named), "each deed says the zone of its machine: {zones:?}");
    stage.cluster.kubectl(&["delete", "nia", NAME, "--timeout=120s"]).await.map(drop)
}

/// What each replica has logged.
async fn lines(stage: &Stage) -> Result<BTreeMap<String, Vec<Value>>> {
    let mut all = BTreeMap::new();
    for pod in cast(stage).await? {
        let log = stage.agent.log(NAMESPACE, &pod.name_any())?;
        let parsed = log.lines().map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")));
        all.insert(pod.name_any(), parsed.collect::<Result<Vec<Value>>>()?);
    }
    Ok(all)
}
