//! Machines and Nodes that are not what they were.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{PATIENCE, Stage},
    world::Actor,
};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    SHARED,
    acts::{
        allocation, deployment, pool, reserve, running, surveys, until_labelled, until_moved, until_not_ready,
        until_unlabelled,
    },
};

/// The cordoned node of an address that waits for its one user. `not_ready_seconds`: of its failover.
async fn draining_with_a_user(stage: &Stage, name: &str, ip: &str, not_ready_seconds: u32) -> Result<String> {
    reserve(stage, &[ip])?;
    pool(stage, name, 2).await?;
    let failover = format!("failover: {{notReadySeconds: {not_ready_seconds}}}");
    let more = format!("workloadRef: {{kind: Deployment, name: {name}}}\n  {failover}");
    stage.cluster.apply(&allocation(name, &[ip], &more)).await?;
    let node = stage.until_attached(name, ip).await?;
    stage.cluster.apply(&deployment(name, 1, 1)).await?;
    running(stage, name, 1).await?;
    stage.cluster.kubectl(&["cordon", &node]).await?;
    stage.until("it waits for its user", name, ip, |entry| entry.state == "Draining").await?;
    Ok(node)
}

#[test]
fn p1_a_machine_that_came_under_the_name_of_a_nodes_machine_is_not_touched_and_the_address_goes_on() -> Result<()> {
    SHARED.together(async |stage| {
        let (name, ip) = ("replaced", "203.0.113.10");
        let address: IpAddr = ip.parse()?;
        // Nothing but the fault can make it leave, and it cannot come back here.
        let from = draining_with_a_user(stage, name, ip, 3600).await?;

        let nodes: Api<Node> = Api::all(stage.client()?);
        let number = stage.world.replace_machine(&from).context("no machine to replace")?;
        let id = json!({"container.googleapis.com/instance_id": number.to_string()});
        let patch = Patch::Merge(json!({"metadata": {"annotations": id}}));
        nodes.patch(&from, &PatchParams::default(), &patch).await?;

        let entry = until_moved(stage, name, ip, &from).await?;
        let to = entry.node.unwrap_or_default();
        let reason = entry.last_move.map(|journey| journey.reason);
        ensure!(reason.as_deref() == Some("NodeReplaced"), "{reason:?}");
        until_labelled(stage, &to, name, ip).await?;
        until_unlabelled(stage, &from).await?;
        let new = stage.world.machine(&from).context("the new machine is gone")?;
        ensure!(new.id == number && new.external.as_ref().is_some_and(|own| !own.reserved), "{new:?}");
        let ours: Vec<_> = stage.world.removals().into_iter().filter(|gone| gone.machine_id == number).collect();
        ensure!(ours.is_empty(), "the new machine was touched: {ours:?}");
        let left: Vec<_> = stage.world.removals().into_iter().filter(|gone| gone.ip == Some(address)).collect();
        ensure!(left.len() == 1 && left[0].by == Actor::Lifecycle, "{left:?}");
        ensure!(stage.world.machine_of(address) == Some(to));
        ensure!(stage.world.attaches(address) == 2);
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        Ok(())
    })
}

#[test]
fn p6_p10_a_node_deleted_while_its_address_drains_keeps_it_for_the_grace_and_then_gives_it_up() -> Result<()> {
    SHARED.together(async |stage| {
        let (name, ip) = ("undone", "203.0.113.11");
        let address: IpAddr = ip.parse()?;
        let from = draining_with_a_user(stage, name, ip, 10).await?;
        surveys(stage, 1).await?;
        ensure!(stage.world.machine_of(address).as_ref() == Some(&from), "it has left under a pod");
        let gone = jiff::Timestamp::now();
        stage.cluster.kubectl(&["delete", "node", &from]).await?;

        let entry = until_moved(stage, name, ip, &from).await?;
        let to = entry.node.unwrap_or_default();
        until_labelled(stage, &to, name, ip).await?;
        let cut: Vec<_> = stage.world.removals().into_iter().filter(|gone| gone.ip == Some(address)).collect();
        ensure!(cut.len() == 1 && cut[0].by == Actor::Api && cut[0].machine.name == from, "{cut:?}");
        let journey = entry.last_move.context("no ledger of the move")?;
        // Ten seconds of grace; the ledger has whole seconds.
        ensure!(journey.finish_time.0.duration_since(gone).as_secs() >= 9, "{journey:?}");
        ensure!(stage.world.machine_of(address) == Some(to));
        ensure!(stage.world.attaches(address) == 2);
        wait_for("the machine has an address of its own again, and no more is owed", PATIENCE, || async {
            let own = stage.world.external_ip(&from);
            let owed = stage.allocation(name).await?.and_then(|object| object.status).unwrap_or_default().owed;
            Ok(Seen::when(own.is_some_and(|own| own != address) && owed.is_empty(), (own, owed)))
        })
        .await?;
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        Ok(())
    })
}

#[test]
fn an_address_whose_machine_has_vanished_is_placed_again_at_once_although_its_node_stays_and_pods_hang_there()
-> Result<()> {
    SHARED.together(async |stage| {
        let (name, ip) = ("vanished", "203.0.113.13");
        let address: IpAddr = ip.parse()?;
        reserve(stage, &[ip])?;
        pool(stage, name, 3).await?;
        // Whatever waits for the grace waits for longer than this test.
        stage.cluster.apply(&allocation(name, &[ip], "failover: {notReadySeconds: 3600}")).await?;
        let from = stage.until_attached(name, ip).await?;
        stage.cluster.apply(&deployment(name, 1, 3600)).await?;
        running(stage, name, 1).await?;
        stage.cluster.stop_heartbeat(&from).await?;
        until_not_ready(stage, &from).await?;
        surveys(stage, 2).await?;
        ensure!(stage.world.machine_of(address).as_ref() == Some(&from), "its machine runs, and the grace does too");
        stage.world.delete_machine(&from);

        let entry = until_moved(stage, name, ip, &from).await?;
        let to = entry.node.unwrap_or_default();
        let reason = entry.last_move.map(|journey| journey.reason).unwrap_or_default();
        // The address is seen to be free, and the machine to be gone: by two reads, of which either may be first.
        ensure!(["MachineGone", "Drifted"].contains(&&*reason), "{reason}");
        until_labelled(stage, &to, name, ip).await?;
        until_unlabelled(stage, &from).await?;
        until_not_ready(stage, &from).await?;
        let left: Vec<_> = stage.world.removals().into_iter().filter(|gone| gone.ip == Some(address)).collect();
        ensure!(left.len() == 1 && left[0].by == Actor::Lifecycle, "{left:?}");
        ensure!(stage.world.machine_of(address) == Some(to));
        ensure!(stage.world.attaches(address) == 2);
        wait_for("a machine that is gone is owed nothing", PATIENCE, || async {
            let owed = stage.allocation(name).await?.and_then(|object| object.status).unwrap_or_default().owed;
            Ok(Seen::when(owed.is_empty(), owed))
        })
        .await?;
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        Ok(())
    })
}
