//! The cloud cannot be reached, or does not know us any more.

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{PATIENCE, Stage},
    world::{Fault, Outcome, Point},
};

use crate::{
    HIT,
    acts::{
        allocation, at_rest, cast, here, in_time, pool, program::on_stage, reserve, start_operator, stop_operator,
        surveys, until_labelled, until_moved,
    },
};

#[test]
fn p3_a_network_that_closes_every_connection_in_the_middle_of_an_attach_leaves_nothing_doubled() -> Result<()> {
    HIT.alone(closed_in_attach)
}

/// At any cloud.
pub async fn closed_in_attach(stage: &'static Stage) -> Result<()> {
    cast(stage).await?;
    let (rests, still) = ("rests-closed", "203.0.113.40");
    let node = at_rest(stage, rests, &[still]).await?.pop().context("no node")?;
    let (name, ip) = ("closed", "203.0.113.41");
    reserve(stage, &[ip])?;
    pool(stage, name, 2).await?;
    stage.world.clear_calls();
    let (attach, target) = stage.venue.attach(&stage.world, ip.parse()?, name).context("not reserved")?;
    stage.world.fail_next_of(attach, &target, Fault::CloseAfterEffect);
    let hold = stage.world.hold_of(attach, &target, Point::Arrival);
    stage.cluster.apply(&here(stage, &allocation(name, &[ip], ""))).await?;
    in_time("the attach is on its way", hold.arrived(1)).await?;
    stage.world.fail_every("*", Fault::Close);
    hold.release();
    until_unheard(stage).await?;
    let meanwhile = stage.address(name, ip).await?.context("no entry")?;
    ensure!(meanwhile.state == "Attaching", "{meanwhile:?}");
    untouched(stage, rests, still, &node).await?;
    stage.world.clear_faults();

    let to = stage.until_attached(name, ip).await?;
    until_labelled(stage, &to, name, ip).await?;
    ensure!(stage.world.machine_of(ip.parse()?).as_ref() == Some(&to));
    ensure!(stage.world.attaches(ip.parse()?) == 1, "attached {} times", stage.world.attaches(ip.parse()?));
    untouched(stage, rests, still, &node).await
}

#[test]
fn p3_a_network_that_falls_silent_in_the_middle_of_a_detach_leaves_nothing_doubled() -> Result<()> {
    HIT.alone(async |stage| {
        cast(stage).await?;
        let (rests, still) = ("rests-silent", "203.0.113.42");
        let node = at_rest(stage, rests, &[still]).await?.pop().context("no node")?;
        let (name, ip) = ("silent", "203.0.113.43");
        let from = at_rest(stage, name, &[ip]).await?.pop().context("no node")?;
        stage.world.clear_calls();
        stage.world.fail_next_of("instances.deleteAccessConfig", &from, Fault::HangAfterEffect);
        let hold = stage.world.hold_of("instances.deleteAccessConfig", &from, Point::Arrival);
        stage.cluster.kubectl(&["cordon", &from]).await?;
        in_time("the detach is on its way", hold.arrived(1)).await?;
        stage.world.fail_every("*", Fault::Hang);
        hold.release();
        until_unheard(stage).await?;
        untouched(stage, rests, still, &node).await?;
        stage.world.clear_faults();

        let to = until_moved(stage, name, ip, &from).await?.node.unwrap_or_default();
        until_labelled(stage, &to, name, ip).await?;
        ensure!(stage.world.machine_of(ip.parse()?) == Some(to));
        ensure!(stage.world.attaches(ip.parse()?) == 2, "attached {} times", stage.world.attaches(ip.parse()?));
        let cut = stage.world.removals().into_iter().filter(|gone| gone.ip == ip.parse().ok()).count();
        ensure!(cut == 1, "taken off {cut} times");
        untouched(stage, rests, still, &node).await
    })
}

/// Waits until surveys have failed too: whoever takes silence for absence has had his chance.
async fn until_unheard(stage: &Stage) -> Result<()> {
    let unheard = |stage: &Stage| {
        let calls = stage.world.calls().into_iter();
        calls.filter(|call| !call.mutating && call.outcome == (Outcome::NoAnswer { effect: false })).count()
    };
    wait_for("reads of the cloud have failed", PATIENCE, || async {
        let count = unheard(stage);
        Ok(Seen::when(count >= 4, count))
    })
    .await
}

/// The address that is at rest is where it was, says so, and nobody asked for anything else.
async fn untouched(stage: &Stage, name: &str, ip: &str, node: &str) -> Result<()> {
    let entry = stage.address(name, ip).await?.context("no entry")?;
    ensure!(entry.state == "Attached" && entry.node.as_deref() == Some(node), "{entry:?}");
    until_labelled(stage, node, name, ip).await?;
    ensure!(stage.world.machine_of(ip.parse()?).as_deref() == Some(node));
    let touched: Vec<_> = stage.world.mutations().into_iter().filter(|call| call.target.contains(name)).collect();
    ensure!(touched.is_empty(), "what was at rest was touched: {touched:?}");
    ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
    Ok(())
}

#[test]
fn p9_with_revoked_credentials_status_says_so_nothing_moves_and_objects_can_still_be_let_go() -> Result<()> {
    HIT.alone(async |stage| {
        cast(stage).await?;
        let (rests, still) = ("rests-revoked", "203.0.113.44");
        let node = at_rest(stage, rests, &[still]).await?.pop().context("no node")?;
        let (name, ip) = ("revoked", "203.0.113.45");
        reserve(stage, &[ip])?;
        pool(stage, name, 2).await?;
        stage.world.clear_calls();
        let hold = stage.world.hold_of("instances.addAccessConfig", "instances/revoked", Point::Arrival);
        stage.cluster.apply(&allocation(name, &[ip], "")).await?;
        in_time("the attach is on its way", hold.arrived(1)).await?;
        stage.world.revoke_credentials();
        hold.release();
        for allocation in [rests, name] {
            let said = until_condition(stage, allocation, "CredentialsValid", "False").await?;
            ensure!(!said.is_empty(), "it does not say what to do");
            until_event(stage, allocation, "CredentialsFailed").await?;
        }
        untouched(stage, rests, still, &node).await?;

        // The one way out: the object goes at once, address and labels stay.
        stage.cluster.kubectl(&["delete", "nia", rests, "--wait=false"]).await?;
        let said = until_condition(stage, rests, "Ready", "False").await?;
        ensure!(said.contains(still), "{said}");
        let retain = r#"{"spec": {"deletionPolicy": "Retain"}}"#;
        stage.cluster.kubectl(&["patch", "nia", rests, "--type=merge", "-p", retain]).await?;
        until_gone(stage, rests).await?;
        ensure!(stage.world.machine_of(still.parse()?).as_ref() == Some(&node), "the address was moved");

        // The other one, for what is half done: the operator is stopped, and its command lets go without any cloud call.
        stop_operator(stage).await?;
        stage.cluster.kubectl(&["delete", "nia", name, "--wait=false"]).await?;
        let released = on_stage(stage, &["release", name]).await?;
        ensure!(released.code == Some(0), "{released:?}");
        until_gone(stage, name).await?;

        // Applied again when the credentials are back, both are adopted as they are.
        stage.world.restore_credentials();
        stage.world.clear_calls();
        start_operator(stage).await?;
        for (allocated, ip) in [(rests, still), (name, ip)] {
            stage.cluster.apply(&allocation(allocated, &[ip], "")).await?;
            let on = stage.until_attached(allocated, ip).await?;
            until_labelled(stage, &on, allocated, ip).await?;
            ensure!(stage.world.machine_of(ip.parse()?) == Some(on));
            ensure!(stage.world.attaches(ip.parse()?) == 1, "attached {} times", stage.world.attaches(ip.parse()?));
        }
        surveys(stage, 1).await?;
        ensure!(stage.world.mutations().is_empty(), "{:?}", stage.world.mutations());
        untouched(stage, rests, still, &node).await
    })
}

/// Waits until a condition has this status; gives its message.
async fn until_condition(stage: &Stage, name: &str, kind: &str, status: &str) -> Result<String> {
    wait_for(&format!("{kind} of {name} is {status}"), PATIENCE, || async {
        let conditions = stage.allocation(name).await?.and_then(|object| object.status).unwrap_or_default().conditions;
        let found = conditions.iter().find(|is| is.type_ == kind);
        Ok(match found {
            Some(is) if is.status == status => Seen::Yes(is.message.clone()),
            _ => Seen::NotYet(format!("{found:?}")),
        })
    })
    .await
}

async fn until_event(stage: &Stage, name: &str, reason: &str) -> Result<()> {
    wait_for(&format!("event {reason} about {name}"), PATIENCE, || async {
        let (object, reason) = (format!("involvedObject.name={name}"), format!("reason={reason}"));
        let told = stage.cluster.kubectl(&["get", "events", "--field-selector", &format!("{object},{reason}")]).await?;
        Ok(Seen::when(!told.is_empty(), told))
    })
    .await
}

#[test]
fn a_cloud_that_is_asked_too_often_is_named_in_condition_and_event_and_nothing_moves() -> Result<()> {
    HIT.alone(async |stage| {
        cast(stage).await?;
        let (name, ip) = ("throttled", "203.0.113.46");
        let node = at_rest(stage, name, &[ip]).await?.pop().context("no node")?;
        stage.world.clear_calls();
        stage.world.fail_every("addresses.list", Fault::refuse(429, "rateLimitExceeded", "too many calls"));
        let said = until_condition(stage, name, "CredentialsValid", "Unknown").await?;
        ensure!(said.contains("too many calls"), "{said}");
        until_event(stage, name, "CloudThrottled").await?;
        untouched(stage, name, ip, &node).await?;
        stage.world.clear_faults();
        until_condition(stage, name, "CredentialsValid", "True").await.map(drop)
    })
}

async fn until_gone(stage: &Stage, name: &str) -> Result<()> {
    wait_for(&format!("{name} is gone"), PATIENCE, || async {
        let left = stage.allocation(name).await?;
        Ok(Seen::when(left.is_none(), left.and_then(|object| object.status)))
    })
    .await
}
