//! Leaders die, are asked to go, are robbed of the Lease, are rolled and uninstalled: no address moves because of it, and
//! what was half done is finished once.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;

use std::{net::IpAddr, time::Duration};

use acts::{
    LEASE, Theatre, allocation, at_rest, cast, ensure_still, in_time, kill_leader, pool, reserve, restarts,
    still_there, surveys, until_labelled,
};
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{NAMESPACE, PATIENCE, RELEASE, Stage},
    world::{Actor, Point},
};

static THEATRE: Theatre = Theatre::new();

/// How many attaches of this address were sent, whatever became of them.
fn sent(stage: &Stage, machine: &str, method: &str) -> usize {
    let mutations = stage.world.mutations();
    mutations.iter().filter(|call| call.method == method && call.target.contains(machine)).count()
}

#[test]
fn p2_a_leader_killed_between_attach_and_status_is_succeeded_by_one_that_finishes_the_attach() -> Result<()> {
    THEATRE.alone(async |stage| {
        cast(stage).await?;
        let (name, ip) = ("killed-in-attach", "203.0.113.1");
        let address: IpAddr = ip.parse()?;
        reserve(stage, &[ip])?;
        pool(stage, name, 2).await?;
        stage.world.clear_calls();
        let hold = stage.world.hold("instances.addAccessConfig", Point::Done);
        stage.cluster.apply(&allocation(name, &[ip], "")).await?;
        in_time("the attach has taken effect and is not answered", hold.arrived(1)).await?;
        let intent = stage.address(name, ip).await?.context("no entry in status")?;
        ensure!(intent.state == "Attaching", "the intent was not written before the deed: {intent:?}");
        kill_leader(stage).await?;
        hold.release();

        let node = stage.until_attached(name, ip).await?;
        ensure!(Some(&node) == intent.node.as_ref(), "went to {node}, meant for {:?}", intent.node);
        until_labelled(stage, &node, name, ip).await?;
        ensure!(stage.world.machine_of(address).as_ref() == Some(&node));
        ensure!(stage.world.attaches(address) == 1, "attached {} times", stage.world.attaches(address));
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        // At rest: nothing follows.
        stage.world.clear_calls();
        surveys(stage, 3).await?;
        ensure_still(&stage.world)
    })
}

#[test]
fn p2_p10_a_leader_killed_between_detach_and_status_is_succeeded_by_one_that_finishes_the_move() -> Result<()> {
    THEATRE.alone(async |stage| {
        cast(stage).await?;
        let (name, ip) = ("killed-in-drain", "203.0.113.2");
        let address: IpAddr = ip.parse()?;
        reserve(stage, &[ip])?;
        pool(stage, name, 2).await?;
        stage.cluster.apply(&allocation(name, &[ip], "")).await?;
        let from = stage.until_attached(name, ip).await?;
        stage.world.clear_calls();
        let hold = stage.world.hold("instances.deleteAccessConfig", Point::Done);
        stage.cluster.kubectl(&["cordon", &from]).await?;
        in_time("the detach has taken effect and is not answered", hold.arrived(1)).await?;
        ensure!(stage.world.machine_of(address).is_none(), "the detach has not taken effect");
        kill_leader(stage).await?;
        hold.release();

        // Longer than an intent lives: whoever did not send the first detach sits it out.
        let patience = Duration::from_secs(300);
        let to = wait_for("the address is on the other node", patience, || async {
            Ok(match stage.address(name, ip).await? {
                Some(entry) if entry.state == "Attached" && entry.node.as_ref() != Some(&from) => {
                    Seen::Yes(entry.node.unwrap_or_default())
                }
                other => Seen::NotYet(format!("{other:?}")),
            })
        })
        .await?;
        until_labelled(stage, &to, name, ip).await?;
        acts::until_unlabelled(stage, &from).await?;
        ensure!(stage.world.machine_of(address).as_ref() == Some(&to));
        ensure!(stage.world.attaches(address) == 2, "attached {} times", stage.world.attaches(address));
        let removals = stage.world.removals().into_iter().filter(|gone| gone.ip == Some(address)).collect::<Vec<_>>();
        ensure!(removals.len() == 1 && removals[0].by == Actor::Api, "{removals:?}");
        wait_for("the old machine has an address of its own again", PATIENCE, || async {
            let own = stage.world.external_ip(&from);
            Ok(Seen::when(own.is_some_and(|own| own != address), own))
        })
        .await?;
        ensure!(sent(stage, &to, "instances.addAccessConfig") == 1);
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        Ok(())
    })
}

#[test]
fn p9_a_leader_that_is_asked_to_go_hands_the_lease_over_and_nothing_moves() -> Result<()> {
    THEATRE.alone(async |stage| {
        cast(stage).await?;
        let (name, ips) = ("handed-over", ["203.0.113.3", "203.0.113.4"]);
        let nodes = at_rest(stage, name, &ips).await?;
        let leader = stage.until_led(None).await?;
        stage.world.clear_calls();
        stage.cluster.kubectl(&["delete", "pod", &leader, "-n", NAMESPACE, "--wait=false"]).await?;
        let next = stage.until_led(Some(&leader)).await?;
        surveys(stage, 3).await?;
        let said = stage.agent.log(NAMESPACE, &leader)?;
        ensure!(said.contains("leadership released"), "{leader} did not release the Lease, {next} waited it out");
        still_there(stage, name, &ips, &nodes).await
    })
}

#[test]
fn p8_a_leader_that_loses_the_lease_ends_is_started_again_and_nothing_moves() -> Result<()> {
    THEATRE.alone(async |stage| {
        cast(stage).await?;
        let (name, ips) = ("robbed", ["203.0.113.5"]);
        let nodes = at_rest(stage, name, &ips).await?;
        let leader = stage.until_led(None).await?;
        let before = restarts(stage, &leader).await?;
        stage.world.clear_calls();
        let theft = r#"{"spec": {"holderIdentity": "somebody_else"}}"#;
        stage.cluster.kubectl(&["patch", "lease", LEASE, "-n", NAMESPACE, "--type=merge", "-p", theft]).await?;
        wait_for("the robbed leader was started again", PATIENCE, || async {
            let now = restarts(stage, &leader).await?;
            Ok(Seen::when(now > before, now))
        })
        .await?;
        let said = stage.agent.log(NAMESPACE, &leader)?;
        ensure!(said.contains("somebody_else holds the Lease"), "{said}");
        // The thief never renews, so the Lease dies, and one of ours takes it again.
        stage.until_led(Some("somebody")).await?;
        surveys(stage, 3).await?;
        cast(stage).await?;
        still_there(stage, name, &ips, &nodes).await
    })
}

#[test]
fn p9_a_rollout_of_the_operator_moves_nothing() -> Result<()> {
    THEATRE.alone(async |stage| {
        cast(stage).await?;
        let (name, ips) = ("rolled", ["203.0.113.6", "203.0.113.7"]);
        let nodes = at_rest(stage, name, &ips).await?;
        let before: Vec<String> = cast(stage).await?.into_iter().filter_map(|pod| pod.metadata.name).collect();
        stage.world.clear_calls();
        let deployment = format!("deployment/{RELEASE}");
        stage.cluster.kubectl(&["rollout", "restart", &deployment, "-n", NAMESPACE]).await?;
        stage.cluster.kubectl(&["rollout", "status", &deployment, "-n", NAMESPACE, "--timeout=120s"]).await?;
        wait_for("a new pod leads", PATIENCE, || async {
            let leader = stage.leader().await?;
            Ok(Seen::when(leader.as_ref().is_some_and(|leader| !before.contains(leader)), leader))
        })
        .await?;
        surveys(stage, 3).await?;
        still_there(stage, name, &ips, &nodes).await
    })
}

#[test]
fn p9_an_uninstall_leaves_addresses_labels_and_crd_and_a_new_install_adopts_them() -> Result<()> {
    THEATRE.alone(async |stage| {
        cast(stage).await?;
        let (name, ips) = ("uninstalled", ["203.0.113.8", "203.0.113.9"]);
        let nodes = at_rest(stage, name, &ips).await?;
        stage.world.clear_calls();
        stage.cluster.helm(&["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "120s"]).await?;
        wait_for("no pod of the operator is left", PATIENCE, || async {
            let left = stage.pods(NAMESPACE, acts::OPERATOR).await?.len();
            Ok(Seen::when(left == 0, left))
        })
        .await?;
        stage.cluster.kubectl(&["get", "crd", "netipallocations.netinfra.darkbrains.com"]).await?;
        still_there(stage, name, &ips, &nodes).await?;

        stage.install(&[]).await?;
        stage.until_led(None).await?;
        surveys(stage, 3).await?;
        still_there(stage, name, &ips, &nodes).await
    })
}
