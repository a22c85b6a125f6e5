//! One trace for the whole move of an address, although its leader was killed on the way: as a real Jaeger shows it.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;

use std::collections::BTreeSet;

use acts::{Theatre, allocation, deployment, kill_leader, pool, reserve, running, until_labelled, until_moved};
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Jaeger, Seen, wait_for},
    stage::{NAMESPACE, PATIENCE, Stage},
};
use kube::ResourceExt;
use serde_json::Value;

static THEATRE: Theatre = Theatre::new();

#[test]
fn a_drain_and_move_in_which_the_leader_was_killed_is_one_trace_with_every_step_in_order() -> Result<()> {
    THEATRE.bare(async |stage| {
        let jaeger = Jaeger::start(stage.cluster.dir()).await?;
        let endpoint = format!("tracing.endpoint={}", jaeger.grpc());
        stage.install(&["tracing.enabled=true", "tracing.protocol=grpc", &endpoint]).await?;
        stage.until_led(None).await?;

        let (name, ip) = ("journey", "203.0.113.70");
        reserve(stage, &[ip])?;
        pool(stage, name, 2).await?;
        stage.cluster.apply(&allocation(name, &[ip], "")).await?;
        let from = stage.until_attached(name, ip).await?;
        // It runs on until it is deleted, so the drain waits for it.
        stage.cluster.apply(&deployment(name, 1, 1)).await?;
        let pod = running(stage, name, 1).await?[0].name_any();
        stage.cluster.kubectl(&["cordon", &from]).await?;
        stage.until("the drain waits", name, ip, |entry| entry.state == "Draining").await?;
        // What it has told is out; then it dies without a word.
        let first = stage.until_led(None).await?;
        until_told(&jaeger, &["Draining"], ip).await?;
        ensure!(kill_leader(stage).await? == first, "somebody else led meanwhile");
        // So that another one leads, and not the same pod started again.
        let gone = ["delete", "pod", &first, "-n", NAMESPACE, "--force", "--grace-period=0", "--wait=false"];
        stage.cluster.kubectl(&gone).await?;
        stage.until_led(Some(&first)).await?;
        stage.cluster.kubectl(&["delete", "pod", &pod, "--wait=false"]).await?;

        let entry = until_moved(stage, name, ip, &from).await?;
        let to = entry.node.unwrap_or_default();
        until_labelled(stage, &to, name, ip).await?;
        let trace = entry.last_move.and_then(|journey| journey.trace_id).context("status does not name the trace")?;
        shown(stage, &jaeger, &trace, &first).await
    })
}

/// Waits until Jaeger shows transitions of the address into these states in one trace.
async fn until_told(jaeger: &Jaeger, states: &[&str], ip: &str) -> Result<()> {
    let query = "traces?service=ip-address-controller&operation=netipallocation.transition&limit=100";
    wait_for(&format!("Jaeger shows {states:?}"), PATIENCE, || async {
        let traces = jaeger.ask(query).await?;
        let traces: Vec<Value> = traces.as_array().cloned().unwrap_or_default();
        let shows = |trace: &&Value| {
            let spans = spans(trace);
            states.iter().all(|state| {
                spans.iter().any(|span| {
                    tag(span, "netipallocation.to").as_deref() == Some(*state)
                        && tag(span, "netipallocation.ip").as_deref() == Some(ip)
                })
            })
        };
        let found = traces.iter().any(|trace| shows(&trace));
        Ok(Seen::when(found, traces.len()))
    })
    .await
}

async fn shown(stage: &Stage, jaeger: &Jaeger, trace: &str, killed: &str) -> Result<()> {
    let whole = wait_for("Jaeger shows the whole trace", PATIENCE, || async {
        let found = jaeger.ask(&format!("traces/{trace}")).await?;
        let found = found.get(0).cloned().unwrap_or_default();
        let names: Vec<String> = spans(&found).iter().map(operation).collect();
        let wanted = ["netipallocation.journey", "netipallocation.node.label"];
        let over = wanted.iter().all(|wanted| names.iter().any(|name| name == wanted));
        Ok(if over { Seen::Yes(found) } else { Seen::NotYet(format!("{names:?}")) })
    })
    .await?;

    let spans = spans(&whole);
    let roots: Vec<&Value> = spans.iter().filter(|span| parent(span).is_none()).collect();
    ensure!(roots.len() == 1 && operation(roots[0]) == "netipallocation.journey", "roots: {roots:#?}");
    let ids: BTreeSet<String> = spans.iter().map(id).collect();
    let orphans: Vec<String> =
        spans.iter().filter(|span| parent(span).is_some_and(|parent| !ids.contains(&parent))).map(operation).collect();
    ensure!(orphans.is_empty(), "spans whose parent is missing: {orphans:?}");

    let mut edges: Vec<&Value> = spans.iter().filter(|span| operation(span) == "netipallocation.transition").collect();
    // Steps of one pass end at one moment; the first of them left a state that was older. Jaeger promises no order.
    edges.sort_by_key(|span| (number(span, "startTime") + number(span, "duration"), number(span, "startTime")));
    let steps: Vec<String> = edges.iter().filter_map(|span| tag(span, "netipallocation.to")).collect();
    ensure!(steps == ["Draining", "Releasing", "Detached", "Attaching", "Attached"], "steps: {steps:?}");

    // Who told what: the one that was killed the beginning, its successor the rest.
    let teller = |span: &Value| {
        let process = whole.get("processes").and_then(|all| all.get(span.get("processID")?.as_str()?));
        process.and_then(|process| tag_of(process.get("tags"), "k8s.pod.name")).unwrap_or_default()
    };
    let tellers: Vec<String> = edges.iter().map(|span| teller(span)).collect();
    println!("{steps:?} told by {tellers:?}, {} spans", spans.len());
    let last = tellers.last().context("nobody told anything")?;
    ensure!(tellers[0] == killed, "the drain was told by {}, not by {killed}", tellers[0]);
    ensure!(*last == teller(roots[0]), "the root was told by {}", teller(roots[0]));
    ensure!(tellers[1..].iter().all(|teller| teller == last && teller != killed), "{tellers:?}");

    // The effects and calls that made the steps, and the log line that leads from one to the other.
    for wanted in [
        "netipallocation.detach",
        "netipallocation.attach",
        "compute.instances.deleteAccessConfig",
        "compute.instances.addAccessConfig",
    ] {
        ensure!(spans.iter().any(|span| operation(span) == wanted), "no {wanted}");
    }
    let log = stage.agent.log(NAMESPACE, last)?;
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let said = |line: &&Value| line.get("trace_id").and_then(Value::as_str) == Some(trace);
    let said: Vec<&str> = lines.iter().filter(said).filter_map(|line| line.get("msg")?.as_str()).collect();
    ensure!(said.contains(&"address moved on") && said.contains(&"effect begins"), "{said:?}");
    Ok(())
}

fn spans(trace: &Value) -> Vec<Value> {
    trace.get("spans").and_then(Value::as_array).cloned().unwrap_or_default()
}

fn id(span: &Value) -> String {
    span.get("spanID").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn operation(span: &Value) -> String {
    span.get("operationName").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn number(span: &Value, field: &str) -> u64 {
    span.get(field).and_then(Value::as_u64).unwrap_or_default()
}

fn parent(span: &Value) -> Option<String> {
    let references = span.get("references")?.as_array()?;
    let above = references.iter().find(|reference| {
        reference.get("refType").and_then(Value::as_str) == Some("CHILD_OF")
            && reference.get("traceID") == span.get("traceID")
    })?;
    above.get("spanID")?.as_str().map(str::to_owned)
}

fn tag(span: &Value, key: &str) -> Option<String> {
    tag_of(span.get("tags"), key)
}

fn tag_of(tags: Option<&Value>, key: &str) -> Option<String> {
    let tag = tags?.as_array()?.iter().find(|tag| tag.get("key").and_then(Value::as_str) == Some(key))?;
    tag.get("value")?.as_str().map(str::to_owned)
}
