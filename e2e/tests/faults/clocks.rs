//! Wall clocks that are off by minutes: leader and standby, and leaders that follow each other, disagree about the time
//! with the API server and with each other.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, node, wait_for},
    stage::{NAMESPACE, PATIENCE, Stage},
    world::Point,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{Api, ResourceExt};
use tokio::process::Command;

use crate::{
    HIT,
    acts::{LEASE, OPERATOR, allocation, at_rest, cast, in_time, pool, reserve, surveys, until_labelled, until_moved},
};

const OFF: i64 = 600;

#[test]
fn p2_p8_clocks_that_are_off_by_minutes_give_the_lease_to_nobody_and_double_and_move_nothing() -> Result<()> {
    HIT.alone(async |stage| {
        cast(stage).await?;
        let shim = compile(stage.cluster.dir()).await?;
        stage.agent.extra_env("LD_PRELOAD", shim.to_string_lossy());
        let played = play(stage).await;
        start_again(stage, 0).await?;
        played
    })
}

async fn play(stage: &Stage) -> Result<()> {
    let (quiet, still) = ("rests-in-time", "203.0.113.50");
    let on = at_rest(stage, quiet, &[still]).await?.pop().context("no node")?;
    // Longer than this test, and shorter than the clocks are off.
    let patience = r#"{"spec": {"failover": {"notReadySeconds": 300}}}"#;
    stage.cluster.kubectl(&["patch", "nia", quiet, "--type=merge", "-p", patience]).await?;

    // The leader is ahead, its standby behind.
    start_again(stage, OFF).await?;
    let leader = stage.until_led(None).await?;
    until_renewed(stage, OFF).await?;
    let standby = cast(stage).await?.into_iter().map(|pod| pod.name_any()).find(|pod| *pod != leader);
    let standby = standby.context("no standby")?;
    let stood_by = || anyhow::Ok(stage.agent.log(NAMESPACE, &standby)?.matches("standing by").count());
    let before = stood_by()?;
    stage.agent.extra_env("CLOCK_OFFSET", (-OFF).to_string());
    stage.agent.kill(NAMESPACE, &standby)?;
    wait_for("the standby stands by again", PATIENCE, || async {
        let now = stood_by()?;
        Ok(Seen::when(now > before, now))
    })
    .await?;
    let hands = lease(stage).await?.lease_transitions;
    stage.world.clear_calls();
    stage.cluster.stop_heartbeat(&on).await?;
    wait_for("the node is NotReady", PATIENCE, || async {
        let object = stage.node(&on).await?.context("no node")?;
        let ready = node::condition(&object, "Ready").map(|ready| ready.status.clone());
        Ok(Seen::when(ready.as_deref() != Some("True"), ready))
    })
    .await?;
    // Longer than a Lease lasts, and than a node must be seen NotReady without a break.
    surveys(stage, 3).await?;
    ensure!(stage.leader().await?.as_ref() == Some(&leader), "the Lease was taken");
    ensure!(lease(stage).await?.lease_transitions == hands, "the Lease has changed hands");
    let entry = stage.address(quiet, still).await?.context("no entry")?;
    ensure!(entry.state == "Attached" && entry.node.as_ref() == Some(&on), "the grace was cut short: {entry:?}");
    ensure!(stage.world.mutations().is_empty(), "{:?}", stage.world.mutations());
    stage.cluster.start_heartbeat(&on).await?;

    killed_in_attach(stage, "behind", "203.0.113.51", -OFF).await?;
    killed_in_attach(stage, "ahead", "203.0.113.52", OFF).await?;
    // One whose clock is behind again takes an address elsewhere that nobody has left anything half done with.
    ensure!(stage.world.machine_of(still.parse()?).as_ref() == Some(&on), "it was moved");
    start_again(stage, -OFF).await?;
    stage.cluster.kubectl(&["cordon", &on]).await?;
    let to = until_moved(stage, quiet, still, &on).await?.node.unwrap_or_default();
    until_renewed(stage, -OFF).await?;
    until_labelled(stage, &to, quiet, still).await?;
    ensure!(stage.world.attaches(still.parse()?) == 2);
    ensure!(stage.world.machine_of(still.parse()?) == Some(to));
    ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
    Ok(())
}

/// The leader is killed in the middle of an attach; the next one, whose clock is off by so much, finishes it.
async fn killed_in_attach(stage: &Stage, name: &str, ip: &str, next: i64) -> Result<()> {
    reserve(stage, &[ip])?;
    pool(stage, name, 2).await?;
    let hold = stage.world.hold_of("instances.addAccessConfig", &format!("instances/{name}"), Point::Done);
    stage.cluster.apply(&allocation(name, &[ip], "")).await?;
    in_time("the attach has taken effect and is not answered", hold.arrived(1)).await?;
    let intent = stage.address(name, ip).await?.context("no entry")?;
    start_again(stage, next).await?;
    hold.release();
    let node = stage.until_attached(name, ip).await?;
    until_renewed(stage, next).await?;
    ensure!(Some(&node) == intent.node.as_ref(), "went to {node}, meant for {:?}", intent.node);
    until_labelled(stage, &node, name, ip).await?;
    ensure!(stage.world.attaches(ip.parse()?) == 1, "attached {} times", stage.world.attaches(ip.parse()?));
    ensure!(stage.world.machine_of(ip.parse()?) == Some(node));
    Ok(())
}

/// Kills every replica; they come back with wall clocks that are off by so many seconds.
async fn start_again(stage: &Stage, offset: i64) -> Result<()> {
    stage.agent.extra_env("CLOCK_OFFSET", offset.to_string());
    let mut old = Vec::new();
    for pod in stage.pods(NAMESPACE, OPERATOR).await? {
        let pod = pod.name_any();
        old.push((pod.clone(), stage.agent.pid(NAMESPACE, &pod)?));
        stage.agent.kill(NAMESPACE, &pod)?;
    }
    wait_for("all replicas have been started again", PATIENCE, || async {
        let still: Vec<_> =
            old.iter().filter(|(pod, pid)| !stage.agent.pid(NAMESPACE, pod).is_ok_and(|now| now != *pid)).collect();
        Ok(Seen::when(still.is_empty(), still))
    })
    .await?;
    cast(stage).await.map(drop)
}

/// Waits until the Lease is renewed by a clock that is off by so many seconds, give or take what an API call takes.
async fn until_renewed(stage: &Stage, offset: i64) -> Result<()> {
    wait_for(&format!("the leader's clock is off by {offset} s"), PATIENCE, || async {
        let renewed = lease(stage).await?.renew_time.context("never renewed")?.0;
        let off = renewed.duration_since(Timestamp::now());
        Ok(Seen::when((off - SignedDuration::from_secs(offset)).abs() < SignedDuration::from_secs(OFF / 2), off))
    })
    .await
}

async fn lease(stage: &Stage) -> Result<LeaseSpec> {
    let api: Api<Lease> = Api::namespaced(stage.client()?, NAMESPACE);
    api.get(LEASE).await?.spec.context("an empty Lease")
}

/// The library that a program is preloaded with so that its wall clock is off.
async fn compile(dir: &Path) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/skewed_clock.c");
    let library = dir.join("skewed_clock.so");
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(&source);
    let ended = command.output().await.context("running cc")?;
    ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    Ok(library)
}
