//! At rest, an operator with many addresses costs next to nothing.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;

use std::time::{Duration, Instant};

use acts::{ACCOUNT, INTERVAL, Theatre, allocation, is_survey, pool, reserve, surveys, writes};
use anyhow::{Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::Stage,
};

static THEATRE: Theatre = Theatre::new();

const MANY: usize = 100;
/// Intervals that are looked at: longer than anything that is kept fresh on the side (30 s).
const WINDOW: usize = 8;

#[test]
fn a_hundred_addresses_at_rest_cost_one_cloud_call_an_interval_no_write_and_no_watch_of_pods() -> Result<()> {
    THEATRE.alone(async |stage| {
        let name = "many";
        let ips: Vec<String> = (1..=MANY).map(|last| format!("198.51.100.{last}")).collect();
        let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
        reserve(stage, &ips)?;
        // One more, for the address that is to move.
        let nodes = pool(stage, name, MANY + 1).await?;
        let heard = stage.cluster.audit()?.len();

        let began = Instant::now();
        stage.cluster.apply(&allocation(name, &ips, "")).await?;
        wait_for("all are attached and labelled", Duration::from_secs(300), || async {
            let attached = stage
                .allocation(name)
                .await?
                .and_then(|object| object.status)
                .map_or(0, |status| status.addresses.iter().filter(|address| address.state == "Attached").count());
            let labelled =
                stage.cluster.kubectl(&["get", "nodes", "-l", "ip.ready=true", "-o", "name"]).await?.lines().count();
            Ok(Seen::when((attached, labelled) == (MANY, MANY), (attached, labelled)))
        })
        .await?;
        println!("{MANY} addresses attached and labelled after {:.1?}", began.elapsed());

        // The last labels wake passes of their own; two intervals later all is quiet.
        surveys(stage, 2).await?;
        let told = stage.cluster.audit()?.len();
        let logged = stage.logs().await?;
        stage.world.clear_calls();
        surveys(stage, WINDOW).await?;
        let calls = stage.world.calls();
        let events = stage.cluster.audit()?.split_off(told);
        let logs = stage.logs().await?;
        ensure!(logs == logged, "logged at rest: {logs:#?}");

        let others: Vec<_> = calls.iter().filter(|call| !is_survey(call)).collect();
        ensure!(others.is_empty(), "calls that are no survey: {others:#?}");
        for pair in calls.windows(2) {
            let apart = pair[1].at.duration_since(pair[0].at);
            ensure!(apart >= INTERVAL.mul_f32(0.8), "two calls in one interval, {apart:?} apart");
        }
        let writes = writes(&events);
        ensure!(writes.is_empty(), "written at rest: {writes:#?}");
        let renewals = events.iter().filter(|event| event.user == ACCOUNT && event.resource == "leases").count();
        ensure!(renewals > 0, "the window shows nothing of the operator at all");
        let reads: Vec<_> = events
            .iter()
            .filter(|event| event.user == ACCOUNT && event.resource != "leases" && event.verb != "watch")
            .map(|event| format!("{} {}", event.verb, event.uri))
            .collect();
        // Of pods it hears nothing but on a node that an address has to leave.
        let asked = asked_of_pods(stage, heard)?;
        ensure!(asked.is_empty(), "asked of pods while no address leaves its node: {asked:#?}");
        let object = stage.allocation(name).await?.and_then(|object| object.status).unwrap();
        let left = object.addresses[0].node.clone().unwrap();
        ensure!(nodes.contains(&left), "{left} is none of the pool");
        stage.cluster.kubectl(&["cordon", &left]).await?;
        wait_for("the address has left the node that was cordoned", Duration::from_secs(60), || async {
            let status = stage.allocation(name).await?.and_then(|object| object.status).unwrap();
            let address = &status.addresses[0];
            let moved = address.state == "Attached" && address.node.as_ref() != Some(&left);
            Ok(Seen::when(moved, address.clone()))
        })
        .await?;
        let asked = asked_of_pods(stage, heard)?;
        let on_it = format!("fieldSelector=spec.nodeName%3D{left}");
        let alone = asked.iter().all(|uri| uri.split(['?', '&']).any(|part| part == on_it));
        ensure!(alone && !asked.is_empty(), "not of {left} alone: {asked:#?}");
        println!("{} cloud calls, {renewals} calls about the Lease, other calls: {reads:?}", calls.len());
        Ok(())
    })
}

/// What the operator has asked the API server of pods, of all that it was asked from the nth request on.
fn asked_of_pods(stage: &Stage, nth: usize) -> Result<Vec<String>> {
    let events = stage.cluster.audit()?.into_iter().skip(nth);
    Ok(events.filter(|event| event.user == ACCOUNT && event.resource == "pods").map(|event| event.uri).collect())
}
