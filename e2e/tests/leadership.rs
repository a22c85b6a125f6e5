//! Leaders die, are asked to go, are robbed of the Lease, are rolled and uninstalled: no address moves because of it, and
//! what was half done is finished once.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;

use std::net::IpAddr;

use acts::{
    LEASE, Theatre, allocation, at_rest, cast, condition, ensure_still, in_time, kill_leader, pool, reserve, restarts,
    still_there, surveys, until_labelled, until_moved_at_last, until_not_ready,
};
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, node, wait_for},
    stage::{NAMESPACE, PATIENCE, RELEASE, Stage},
    world::{Actor, Hold, Point},
};
use ip_address_controller::api::AddressStatus;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;

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

        let to = until_moved_at_last(stage, name, ip, &from).await?.node.unwrap_or_default();
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

/// An attach that has taken effect and is not answered, while this is so.
struct UnderWay {
    name: &'static str,
    leader: String,
    /// Its entry in status.
    intent: AddressStatus,
    hold: Hold,
}

impl UnderWay {
    async fn begin(stage: &Stage, name: &'static str, ip: &str) -> Result<Self> {
        cast(stage).await?;
        reserve(stage, &[ip])?;
        pool(stage, name, 2).await?;
        let leader = stage.until_led(None).await?;
        stage.world.clear_calls();
        let hold = stage.world.hold_of("instances.addAccessConfig", &format!("instances/{name}"), Point::Done);
        stage.cluster.apply(&allocation(name, &[ip], "")).await?;
        in_time("the attach has taken effect and is not answered", hold.arrived(1)).await?;
        let intent = stage.address(name, ip).await?.context("no entry in status")?;
        ensure!(intent.state == "Attaching", "the intent was not written before the deed: {intent:?}");
        Ok(Self { name, leader, intent, hold })
    }

    /// It is answered at last, stands as it was meant, and nothing follows.
    async fn ends_well(self, stage: &Stage) -> Result<()> {
        let Self { name, intent, hold, .. } = self;
        let address: IpAddr = intent.ip.parse()?;
        hold.release();
        let node = stage.until_attached(name, &intent.ip).await?;
        ensure!(Some(&node) == intent.node.as_ref(), "went to {node}, meant for {:?}", intent.node);
        until_labelled(stage, &node, name, &intent.ip).await?;
        ensure!(stage.world.machine_of(address) == Some(node));
        ensure!(stage.world.attaches(address) == 1, "attached {} times", stage.world.attaches(address));
        stage.world.clear_calls();
        surveys(stage, 2).await?;
        ensure_still(&stage.world)
    }

    /// Its leader is asked to go, and says that it waits.
    async fn leader_is_asked_to_go(&self, stage: &Stage) -> Result<()> {
        stage.cluster.kubectl(&["delete", "pod", &self.leader, "-n", NAMESPACE, "--wait=false"]).await?;
        self.until_said(stage, "waits for effects in flight").await
    }

    async fn until_said(&self, stage: &Stage, words: &str) -> Result<()> {
        wait_for(&format!("{} says: {words}", self.leader), PATIENCE, || async {
            let said = stage.agent.log(NAMESPACE, &self.leader)?;
            Ok(Seen::when(said.contains(words), said.lines().last().unwrap_or_default()))
        })
        .await
    }
}

/// When the Lease was renewed last.
async fn renewed(stage: &Stage) -> Result<Timestamp> {
    let api: Api<Lease> = Api::namespaced(stage.client()?, NAMESPACE);
    let lease = api.get(LEASE).await?.spec.context("an empty Lease")?;
    Ok(lease.renew_time.context("never renewed")?.0)
}

#[test]
fn p8_a_leader_robbed_of_the_lease_in_an_attach_sends_nothing_more_and_the_next_one_finishes_it() -> Result<()> {
    THEATRE.alone(async |stage| {
        let attach = UnderWay::begin(stage, "robbed-in-attach", "203.0.113.20").await?;
        let before = restarts(stage, &attach.leader).await?;
        let sent = stage.world.mutations().len();
        let theft = r#"{"spec": {"holderIdentity": "somebody_else"}}"#;
        stage.cluster.kubectl(&["patch", "lease", LEASE, "-n", NAMESPACE, "--type=merge", "-p", theft]).await?;
        wait_for("the robbed leader was started again", PATIENCE, || async {
            let now = restarts(stage, &attach.leader).await?;
            Ok(Seen::when(now > before, now))
        })
        .await?;
        attach.until_said(stage, "somebody_else holds the Lease").await?;
        stage.until_led(Some("somebody")).await?;
        ensure!(stage.world.mutations().len() == sent, "{:?}", stage.world.mutations());
        attach.ends_well(stage).await
    })
}

#[test]
fn p8_a_leader_that_is_asked_to_go_in_an_attach_keeps_the_lease_until_that_has_ended_and_then_hands_it_over()
-> Result<()> {
    THEATRE.alone(async |stage| {
        let attach = UnderWay::begin(stage, "patient", "203.0.113.21").await?;
        let leader = attach.leader.clone();
        attach.leader_is_asked_to_go(stage).await?;
        let last = renewed(stage).await?;
        wait_for("it goes on renewing the Lease", PATIENCE, || async {
            let now = renewed(stage).await?;
            Ok(Seen::when(now > last, now))
        })
        .await?;
        ensure!(stage.leader().await?.as_ref() == Some(&leader), "the Lease was given away under an attach");
        attach.ends_well(stage).await?;
        ensure!(stage.leader().await?.is_some_and(|next| next != leader));
        let said = stage.agent.log(NAMESPACE, &leader)?;
        ensure!(said.contains("leadership released"), "{leader} did not release the Lease, the next waited it out");
        Ok(())
    })
}

#[test]
fn p8_a_leader_that_goes_with_an_attach_under_way_leaves_the_lease_to_run_out() -> Result<()> {
    THEATRE.alone(async |stage| {
        let attach = UnderWay::begin(stage, "impatient", "203.0.113.22").await?;
        let leader = attach.leader.clone();
        attach.leader_is_asked_to_go(stage).await?;
        attach.until_said(stage, "the Lease is left to run out").await?;
        stage.until_led(Some(&leader)).await?;
        let said = stage.agent.log(NAMESPACE, &leader)?;
        ensure!(!said.contains("leadership released"), "{leader} gave the Lease away under an attach");
        attach.ends_well(stage).await
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
fn p9_a_new_leader_finds_failover_frozen_and_moves_nothing_before_it_has_been_quiet_for_long_enough() -> Result<()> {
    THEATRE.alone(async |stage| {
        cast(stage).await?;
        // Longer than what a leader must have seen of a silent node before it believes it (10 s).
        let (name, ip, grace) = ("frozen", "203.0.113.30", 60);
        reserve(stage, &[ip])?;
        let nodes = pool(stage, name, 5).await?;
        stage.cluster.apply(&allocation(name, &[ip], &format!("failover: {{notReadySeconds: {grace}}}"))).await?;
        let from = stage.until_attached(name, ip).await?;
        until_labelled(stage, &from, name, ip).await?;
        let others: Vec<&String> = nodes.iter().filter(|node| **node != from).take(3).collect();
        stage.world.clear_calls();
        for silent in others.iter().copied().chain([&from]) {
            stage.cluster.stop_heartbeat(silent).await?;
        }
        for silent in others.iter().copied().chain([&from]) {
            until_not_ready(stage, silent).await?;
        }
        let is_frozen = async || condition(stage, name, "FailoverFrozen").await;
        wait_for("failover is frozen", PATIENCE, || async {
            let frozen = is_frozen().await?;
            Ok(Seen::when(frozen.as_deref() == Some("True"), frozen))
        })
        .await?;
        let still = async || still_there(stage, name, &[ip], std::slice::from_ref(&from)).await;

        kill_leader(stage).await?;
        stage.until_led(None).await?;
        surveys(stage, 3).await?;
        ensure!(is_frozen().await?.as_deref() == Some("True"), "the next leader does not know of it");
        still().await?;

        // One silent node is no mass failure any more, but the next leader only knows that it has just been one.
        for other in &others {
            stage.cluster.start_heartbeat(other).await?;
        }
        for other in &others {
            wait_for(&format!("{other} is Ready"), PATIENCE, || async {
                let known = stage.node(other).await?.context("no such node")?;
                let ready = node::condition(&known, "Ready").map(|condition| condition.status.clone());
                Ok(Seen::when(ready.as_deref() == Some("True"), ready))
            })
            .await?;
        }
        ensure!(is_frozen().await?.as_deref() == Some("True"), "it was quiet for less than {grace} s");
        kill_leader(stage).await?;
        let killed = Timestamp::now();
        let entry = until_moved_at_last(stage, name, ip, &from).await?;
        let journey = entry.last_move.context("no ledger of the move")?;
        ensure!(journey.reason == "NodeNotReady", "{journey:?}");
        let waited = journey.start_time.0.duration_since(killed);
        ensure!(waited.as_secs() >= grace, "left {waited:?} after a leader had come that found failover frozen");
        ensure!(stage.world.attaches(ip.parse()?) == 2);
        Ok(())
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
