//! The text of `/metrics`: the catalogue, promtool's opinion of it, and that nothing is told of what is gone.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{NAMESPACE, PATIENCE, Stage},
};
use ip_address_controller::metrics::names::{CATALOGUE, Kind};
use kube::ResourceExt;

use crate::acts::{LEASE, at_rest, cast, deployment, http, in_time, restarts, running, until_labelled, until_moved};

/// Told only while there is something to tell: a pod that holds, an address on its way off.
const RARE: [&str; 2] = ["netipallocation_ip_holding_pods", "netipallocation_ip_releasing"];

const NAME: &str = "measured";
const IP: &str = "203.0.113.57";
/// How long the drain waits for its pod: seconds, many beside the rest of a move.
const SLOW: u32 = 8;

/// Version 1's names, and what promtool has against them.
const COMPLAINTS: [&str; 3] = [
    "netipallocation_attached_ips_total non-counter metrics should not have \"_total\" suffix",
    "netipallocation_reserved_ips_total non-counter metrics should not have \"_total\" suffix",
    "netipallocation_unattached_ips_total non-counter metrics should not have \"_total\" suffix",
];

pub async fn play(stage: &Stage) -> Result<()> {
    cast(stage).await?;
    let from = at_rest(stage, NAME, &[IP]).await?.pop().context("no node")?;
    let leader = stage.until_led(None).await?;
    let before = told(stage, &leader).await?;
    born_at_0(&before)?;

    stage.cluster.apply(&deployment(NAME, 1, SLOW)).await?;
    let pod = running(stage, NAME, 1).await?[0].name_any();
    stage.cluster.kubectl(&["cordon", &from]).await?;
    stage.until("it drains", NAME, IP, |entry| entry.state == "Draining").await?;
    stage.cluster.kubectl(&["delete", "pod", &pod, "--wait=false"]).await?;
    let to = until_moved(stage, NAME, IP, &from).await?.node.unwrap_or_default();
    until_labelled(stage, &to, NAME, IP).await?;

    let text = told(stage, &leader).await?;
    every_row(&text)?;
    each_state_for_itself(&before, &text)?;
    complaints(stage, &text).await?;
    who_loses_the_lease_tells_nothing_more(stage, &leader).await?;
    who_is_gone_is_not_told(stage).await
}

/// The text of a replica.
async fn told(stage: &Stage, pod: &str) -> Result<String> {
    let (status, text) = http((stage.agent.ip(NAMESPACE, pod)?, 9999).into(), "/metrics").await?;
    ensure!(status == 200, "{status}: {text}");
    Ok(text)
}

/// Whoever watches for an increase sees the first failure.
fn born_at_0(text: &str) -> Result<()> {
    for line in [
        format!("netipallocation_ip_attach_total{{cluster=\"c1\",crd_name=\"{NAME}\",status=\"error\"}} 0"),
        format!("netipallocation_ip_detach_total{{cluster=\"c1\",crd_name=\"{NAME}\",status=\"success\"}} 0"),
        format!("netipallocation_pod_evictions_total{{cluster=\"c1\",crd_name=\"{NAME}\",outcome=\"blocked\"}} 0"),
        format!("netipallocation_status_write_errors_total{{cluster=\"c1\",crd_name=\"{NAME}\",reason=\"forbidden\"}} 0"),
        "netipallocation_cloud_api_errors_total{cluster=\"c1\",provider=\"gcp\",operation=\"attach\",error_type=\"permission_denied\"} 0".to_owned(),
        "netipallocation_gcp_api_errors_total{cluster=\"c1\",operation=\"detach\",error_type=\"throttled\"} 0".to_owned(),
    ] {
        ensure!(text.lines().any(|told| told == line), "no {line} in\n{text}");
    }
    Ok(())
}

/// A row of the catalogue is there with its type and its labels, and nothing else is.
fn every_row(text: &str) -> Result<()> {
    let mut kinds = BTreeMap::new();
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(row) = line.strip_prefix("# TYPE ") {
            let (name, kind) = row.split_once(' ').context("no type")?;
            kinds.insert(name, kind);
        } else if !line.starts_with('#') {
            let series = line.split(['{', ' ']).next().unwrap_or_default();
            let ends = ["_bucket", "_sum", "_count"].iter().find_map(|end| series.strip_suffix(end));
            let name = ends.filter(|name| kinds.contains_key(name)).unwrap_or(series);
            let inside =
                line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(inside, _)| inside);
            let names = inside.split("\",").filter_map(|pair| Some(pair.split_once('=')?.0));
            labels.entry(name).or_default().extend(names.filter(|label| *label != "le"));
        }
    }
    for metric in CATALOGUE.iter().filter(|metric| !RARE.contains(&metric.name) || kinds.contains_key(metric.name)) {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        ensure!(kinds.get(metric.name) == Some(&kind), "{} is {:?}", metric.name, kinds.get(metric.name));
        let wanted: BTreeSet<&str> = metric.labels.iter().copied().chain(["cluster"]).collect();
        ensure!(labels.get(metric.name) == Some(&wanted), "{}: {:?}", metric.name, labels.get(metric.name));
        let help = format!("# HELP {} {}", metric.name, metric.help);
        ensure!(text.lines().any(|line| line == help), "no {help}");
    }
    let known: BTreeSet<&str> = CATALOGUE.iter().map(|metric| metric.name).collect();
    let others: Vec<&&str> =
        kinds.keys().filter(|name| !known.contains(**name) && !name.starts_with("process_")).collect();
    ensure!(others.is_empty(), "told, and not in the catalogue: {others:?}");
    Ok(())
}

/// The time of a drain is not counted to the states that follow it.
fn each_state_for_itself(before: &str, after: &str) -> Result<()> {
    let sum = |text: &str, state: &str| -> Result<f64> {
        let series =
            format!("netipallocation_ip_state_seconds_sum{{cluster=\"c1\",provider=\"gcp\",state=\"{state}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&series)).with_context(|| format!("no {series}"))?;
        Ok(line.parse()?)
    };
    let spent = |state: &str| anyhow::Ok(sum(after, state)? - sum(before, state)?);
    ensure!(spent("Draining")? >= f64::from(SLOW) - 2.0, "Draining took {} s", spent("Draining")?);
    for state in ["Releasing", "Detached"] {
        ensure!(spent(state)? < f64::from(SLOW) / 2.0, "{state} took {} s", spent(state)?);
    }
    Ok(())
}

async fn complaints(stage: &Stage, text: &str) -> Result<()> {
    let told = stage.cluster.promtool(&["check", "metrics"], text.to_owned()).await?;
    let said: BTreeSet<&str> = told.stdout.lines().chain(told.stderr.lines()).collect();
    ensure!(told.status.code() == Some(3), "{told:?}");
    ensure!(said == BTreeSet::from(COMPLAINTS), "{said:#?}");
    Ok(())
}

/// Its process ends and begins anew, as a standby: of allocations it says nothing.
async fn who_loses_the_lease_tells_nothing_more(stage: &Stage, leader: &str) -> Result<()> {
    let before = restarts(stage, leader).await?;
    let taken = r#"{"spec": {"holderIdentity": "somebody-else"}}"#;
    stage.cluster.kubectl(&["patch", "lease", LEASE, "-n", NAMESPACE, "--type=merge", "-p", taken]).await?;
    let next = wait_for("another one leads", PATIENCE, || async {
        let ended = restarts(stage, leader).await? > before;
        let now = stage.leader().await?.filter(|now| now != "somebody-else");
        Ok(match now {
            Some(now) if ended => Seen::Yes(now),
            now => Seen::NotYet(format!("ended {ended}, leads {now:?}")),
        })
    })
    .await?;
    cast(stage).await?;
    let mine = format!("netipallocation_crd_status{{cluster=\"c1\",crd_name=\"{NAME}\"}} 1");
    wait_for("the next leader tells of the allocation, and nobody else", PATIENCE, || async {
        let mut tellers = Vec::new();
        for pod in cast(stage).await? {
            let pod = pod.name_any();
            if told(stage, &pod).await?.lines().any(|line| line == mine) {
                tellers.push(pod);
            }
        }
        Ok(Seen::when(tellers == [next.clone()], tellers))
    })
    .await
}

/// Gauges of a deleted object are gone with it; what was counted stays.
async fn who_is_gone_is_not_told(stage: &Stage) -> Result<()> {
    stage.cluster.kubectl(&["delete", "deployment", NAME]).await?;
    stage.cluster.kubectl(&["delete", "nia", NAME, "--timeout=120s"]).await?;
    let gauges: Vec<&str> =
        CATALOGUE.iter().filter(|metric| metric.kind == Kind::Gauge).map(|metric| metric.name).collect();
    let leader = stage.until_led(None).await?;
    let silent = wait_for("nothing is told of it", PATIENCE, || async {
        let text = told(stage, &leader).await?;
        let about = format!("crd_name=\"{NAME}\"");
        let of_gauge = |line: &&str| gauges.contains(&line.split('{').next().unwrap_or_default());
        let left: Vec<String> =
            text.lines().filter(|line| line.contains(&about)).filter(of_gauge).map(str::to_owned).collect();
        Ok(if left.is_empty() { Seen::Yes(text) } else { Seen::NotYet(left.join("\n")) })
    });
    let text = in_time("gauges fall silent", silent).await??;
    ensure!(text.contains(&format!("netipallocation_reconcile_total{{cluster=\"c1\",crd_name=\"{NAME}\"")), "{text}");
    ensure!(text.contains("netipallocation_controller_is_leader{"), "what is true falls silent, too: {text}");
    Ok(())
}
