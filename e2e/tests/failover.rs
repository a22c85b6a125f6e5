//! Nodes and machines that fail, a network that only looks like it, outsiders in the cloud and at the labels.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;

use std::net::IpAddr;

use acts::{
    Theatre, allocation, condition, deployment, labels, pod_on, pool, reserve, running, surveys, until_labelled,
    until_moved, until_not_ready, until_unlabelled,
};
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{PATIENCE, PROJECT, REGION, ZONES},
    world::{Actor, NewMachine},
};
use jiff::Timestamp;
use kube::ResourceExt;

static THEATRE: Theatre = Theatre::new();

/// The shortest grace that a spec may give: seconds.
const GRACE: i64 = 10;

#[test]
fn a_node_that_is_not_ready_for_long_enough_loses_its_address_although_pods_hang_there() -> Result<()> {
    THEATRE.together(async |stage| {
        let (name, ip) = ("silent", "203.0.113.10");
        let address: IpAddr = ip.parse()?;
        reserve(stage, &[ip])?;
        pool(stage, name, 2).await?;
        stage.cluster.apply(&allocation(name, &[ip], &format!("failover: {{notReadySeconds: {GRACE}}}"))).await?;
        let from = stage.until_attached(name, ip).await?;
        stage.cluster.apply(&deployment(name, 1, 3600)).await?;
        let pod = running(stage, name, 1).await?[0].name_any();
        stage.cluster.kubectl(&["delete", "pod", &pod, "--wait=false"]).await?;

        stage.cluster.stop_heartbeat(&from).await?;
        let since = until_not_ready(stage, &from).await?;
        wait_for("metrics say since when", PATIENCE, || async {
            let told = stage.gauges(name, ip).await?.remove("netipallocation_ip_node_not_ready_timestamp_seconds");
            // When the operator saw it, which may be a second that begins later than that of the condition.
            let lately = since.as_second() as f64..=Timestamp::now().as_second() as f64;
            Ok(Seen::when(told.is_some_and(|told| lately.contains(&told)), told))
        })
        .await?;
        let entry = until_moved(stage, name, ip, &from).await?;

        let to = entry.node.clone().unwrap_or_default();
        let journey = entry.last_move.clone().context("no ledger of the move")?;
        ensure!(journey.reason == "NodeNotReady" && journey.from_node.as_deref() == Some(&*from), "{journey:?}");
        ensure!(
            journey.start_time.0.duration_since(since).as_secs() >= GRACE,
            "left {:?} after the node went silent",
            journey.start_time.0.duration_since(since)
        );
        until_labelled(stage, &to, name, ip).await?;
        until_unlabelled(stage, &from).await?;
        let hanging = stage.pods("default", &format!("app={name}")).await?;
        ensure!(hanging.iter().any(|known| known.name_any() == pod), "the terminating pod was not left to its node");
        ensure!(stage.world.machine_of(address) == Some(to));
        ensure!(stage.world.attaches(address) == 2);
        let asked =
            stage.cluster.audit()?.into_iter().any(|event| event.subresource == "eviction" && event.name == pod);
        ensure!(!asked, "a pod on a node at fault was asked to go");
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        Ok(())
    })
}

#[test]
fn an_address_whose_machine_is_gone_is_placed_again_without_waiting() -> Result<()> {
    THEATRE.together(async |stage| {
        let (name, ip) = ("gone", "203.0.113.11");
        reserve(stage, &[ip])?;
        pool(stage, name, 2).await?;
        stage.cluster.apply(&allocation(name, &[ip], "failover: {notReadySeconds: 3600}")).await?;
        let from = stage.until_attached(name, ip).await?;
        stage.world.delete_machine(&from);
        stage.cluster.kubectl(&["delete", "node", &from]).await?;
        let entry = until_moved(stage, name, ip, &from).await?;
        let to = entry.node.unwrap_or_default();
        until_labelled(stage, &to, name, ip).await?;
        ensure!(stage.world.machine_of(ip.parse()?) == Some(to));
        ensure!(stage.world.attaches(ip.parse()?) == 2);
        let owed = stage.allocation(name).await?.and_then(|object| object.status).unwrap_or_default().owed;
        ensure!(owed.is_empty(), "a machine that is gone is owed nothing: {owed:?}");
        Ok(())
    })
}

#[test]
fn an_address_whose_machine_is_stopped_leaves_it_without_waiting() -> Result<()> {
    THEATRE.together(async |stage| {
        let (name, ip) = ("stopped", "203.0.113.12");
        reserve(stage, &[ip])?;
        pool(stage, name, 2).await?;
        stage.cluster.apply(&allocation(name, &[ip], "failover: {notReadySeconds: 3600}")).await?;
        let from = stage.until_attached(name, ip).await?;
        stage.world.stop_machine(&from);
        stage.cluster.stop_heartbeat(&from).await?;
        let entry = until_moved(stage, name, ip, &from).await?;
        let to = entry.node.clone().unwrap_or_default();
        until_labelled(stage, &to, name, ip).await?;
        until_unlabelled(stage, &from).await?;
        let reason = entry.last_move.map(|journey| journey.reason);
        ensure!(reason.as_deref() == Some("MachineStopped"), "{reason:?}");
        ensure!(stage.world.machine_of(ip.parse()?) == Some(to));
        ensure!(stage.world.attaches(ip.parse()?) == 2);
        Ok(())
    })
}

#[test]
fn p3_when_most_nodes_fall_silent_at_once_nothing_moves_until_they_are_back() -> Result<()> {
    THEATRE.together(async |stage| {
        let (name, ips) = ("network-cut", ["203.0.113.13", "203.0.113.14"]);
        reserve(stage, &ips)?;
        let nodes = pool(stage, name, 5).await?;
        stage.cluster.apply(&allocation(name, &ips, &format!("failover: {{notReadySeconds: {GRACE}}}"))).await?;
        let mut held = Vec::new();
        for ip in ips {
            held.push(stage.until_attached(name, ip).await?);
        }
        // One node that holds nothing stays healthy: there would be somewhere to go.
        let spared = nodes.iter().find(|node| !held.contains(node)).context("no spare node")?;
        for silent in nodes.iter().filter(|node| *node != spared) {
            stage.cluster.stop_heartbeat(silent).await?;
        }
        for silent in nodes.iter().filter(|node| *node != spared) {
            until_not_ready(stage, silent).await?;
        }
        wait_for("failover is frozen", PATIENCE, || async {
            let frozen = condition(stage, name, "FailoverFrozen").await?;
            Ok(Seen::when(frozen.as_deref() == Some("True"), frozen))
        })
        .await?;
        // Well past the grace: three times what one silent node would get.
        surveys(stage, 6).await?;
        let still = async || -> Result<()> {
            for (ip, node) in ips.iter().zip(&held) {
                let entry = stage.address(name, ip).await?.context("no entry")?;
                ensure!(entry.state == "Attached" && entry.node.as_ref() == Some(node), "{entry:?}");
                until_labelled(stage, node, name, ip).await?;
                ensure!(stage.world.machine_of(ip.parse()?).as_ref() == Some(node));
                ensure!(stage.world.attaches(ip.parse()?) == 1);
            }
            Ok(())
        };
        still().await?;
        ensure!(condition(stage, name, "FailoverFrozen").await?.as_deref() == Some("True"));

        for silent in nodes.iter().filter(|node| *node != spared) {
            stage.cluster.start_heartbeat(silent).await?;
        }
        wait_for("failover is free again", PATIENCE, || async {
            let (frozen, ready) =
                (condition(stage, name, "FailoverFrozen").await?, condition(stage, name, "Ready").await?);
            Ok(Seen::when(frozen.is_none() && ready.as_deref() == Some("True"), (frozen, ready)))
        })
        .await?;
        still().await?;

        // And it is: one that falls silent by itself is given up again.
        let ([ip, other], [from, stays]) = (ips, [&held[0], &held[1]]);
        stage.cluster.stop_heartbeat(from).await?;
        until_not_ready(stage, from).await?;
        let journey = until_moved(stage, name, ip, from).await?.last_move.context("no ledger of the move")?;
        ensure!(journey.reason == "NodeNotReady" && journey.from_node.as_ref() == Some(from), "{journey:?}");
        ensure!(stage.world.attaches(ip.parse()?) == 2 && stage.world.attaches(other.parse()?) == 1);
        ensure!(stage.world.machine_of(other.parse()?).as_ref() == Some(stays));
        Ok(())
    })
}

#[test]
fn p1_an_address_that_an_outsider_takes_is_let_go_of_and_placed_again_only_when_it_is_free() -> Result<()> {
    THEATRE.together(async |stage| {
        let (name, ip) = ("taken", "203.0.113.15");
        let address: IpAddr = ip.parse()?;
        reserve(stage, &[ip])?;
        pool(stage, name, 2).await?;
        stage.cluster.apply(&allocation(name, &[ip], "")).await?;
        let from = stage.until_attached(name, ip).await?;
        stage.world.add_machine(NewMachine::new(PROJECT, REGION, ZONES[0], "outsider"));
        stage.world.move_address(address, "outsider").map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;

        until_unlabelled(stage, &from).await?;
        let entry = stage
            .until("it says who has it", name, ip, |entry| {
                entry.state == "Unassigned" && entry.reason.as_deref() == Some("AddressInUse")
            })
            .await?;
        ensure!(entry.message.as_deref().is_some_and(|message| message.contains("outsider")), "{entry:?}");
        surveys(stage, 3).await?;
        ensure!(stage.world.machine_of(address).as_deref() == Some("outsider"), "somebody was robbed");
        ensure!(stage.world.attaches(address) == 1);

        stage.world.free_address(address);
        let node = stage.until_attached(name, ip).await?;
        until_labelled(stage, &node, name, ip).await?;
        ensure!(stage.world.attaches(address) == 2);
        let ours: Vec<_> = stage
            .world
            .removals()
            .into_iter()
            .filter(|gone| gone.ip == Some(address) && gone.by == Actor::Api)
            .collect();
        ensure!(ours.is_empty(), "it was ours to cut nowhere: {ours:?}");
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        Ok(())
    })
}

#[test]
fn p12_an_address_that_an_outsider_takes_off_is_placed_again() -> Result<()> {
    THEATRE.together(async |stage| {
        let (name, ip) = ("freed", "203.0.113.16");
        let address: IpAddr = ip.parse()?;
        reserve(stage, &[ip])?;
        pool(stage, name, 2).await?;
        stage.cluster.apply(&allocation(name, &[ip], "")).await?;
        stage.until_attached(name, ip).await?;
        stage.world.free_address(address);
        let entry = stage
            .until("it drifted and was placed again", name, ip, |entry| {
                entry.state == "Attached"
                    && entry
                        .last_move
                        .as_ref()
                        .is_some_and(|journey| journey.reason == "Drifted" && journey.to_node.is_some())
            })
            .await?;
        let node = entry.node.unwrap_or_default();
        until_labelled(stage, &node, name, ip).await?;
        ensure!(stage.world.machine_of(address) == Some(node));
        ensure!(stage.world.attaches(address) == 2);
        Ok(())
    })
}

#[test]
fn p4_a_stray_label_goes_and_the_pods_that_came_for_it_are_asked_to_go() -> Result<()> {
    THEATRE.together(async |stage| {
        let (name, ip) = ("stray", "203.0.113.17");
        reserve(stage, &[ip])?;
        let nodes = pool(stage, name, 2).await?;
        stage.cluster.apply(&allocation(name, &[ip], "")).await?;
        let holder = stage.until_attached(name, ip).await?;
        let other = nodes.iter().find(|node| **node != holder).context("no other node")?;
        stage.cluster.apply(&pod_on("stray-user", other)).await?;
        stage.cluster.apply(&pod_on("true-user", &holder)).await?;
        running(stage, "stray-user", 1).await?;
        running(stage, "true-user", 1).await?;

        stage.cluster.kubectl(&["label", "node", other, "ip.ready=true"]).await?;
        until_unlabelled(stage, other).await?;
        wait_for("the pod on the stray node is gone", PATIENCE, || async {
            let left = stage.pods("default", "app=stray-user").await?.len();
            Ok(Seen::when(left == 0, left))
        })
        .await?;
        let asked = stage.cluster.audit()?;
        let evicted = |pod: &str| asked.iter().any(|event| event.subresource == "eviction" && event.name == pod);
        ensure!(evicted("stray-user"), "it went, but not by the Eviction API");
        for reason in ["NodeUnlabeled", "PodEvicted"] {
            wait_for(&format!("event {reason} on the node"), PATIENCE, || async {
                let told = stage.cluster.kubectl(&["describe", "node", other]).await?;
                Ok(Seen::when(told.contains(reason), told))
            })
            .await?;
        }
        ensure!(!evicted("true-user"));
        until_labelled(stage, &holder, name, ip).await?;
        running(stage, "true-user", 1).await.map(|_| ())
    })
}

#[test]
fn p4_labels_taken_off_by_hand_are_put_back() -> Result<()> {
    THEATRE.together(async |stage| {
        let (name, ip) = ("unlabelled", "203.0.113.18");
        reserve(stage, &[ip])?;
        pool(stage, name, 1).await?;
        stage.cluster.apply(&allocation(name, &[ip], "")).await?;
        let node = stage.until_attached(name, ip).await?;
        until_labelled(stage, &node, name, ip).await?;
        stage.cluster.kubectl(&["label", "node", &node, "ip.ready-"]).await?;
        until_labelled(stage, &node, name, ip).await?;
        let address = "netinfra.darkbrains.com/address";
        stage.cluster.kubectl(&["label", "node", &node, "--overwrite", &format!("{address}=198.51.100.1")]).await?;
        until_labelled(stage, &node, name, ip).await?;
        ensure!(labels(stage, &node).await?.len() == 3);
        ensure!(stage.world.attaches(ip.parse()?) == 1);
        Ok(())
    })
}

#[test]
fn pods_that_a_cordon_does_not_keep_away_do_not_come_back_to_the_node_that_the_address_leaves() -> Result<()> {
    THEATRE.together(async |stage| {
        let (name, ip) = ("tolerant", "203.0.113.19");
        reserve(stage, &[ip])?;
        pool(stage, name, 2).await?;
        let everything = "terminationGracePeriodSeconds: 1, tolerations: [{operator: Exists}]";
        let tolerant = deployment(name, 2, 1).replace("terminationGracePeriodSeconds: 1", everything);
        stage.cluster.apply(&tolerant).await?;
        let more = format!("workloadRef: {{kind: Deployment, name: {name}}}\n  drain: {{policy: Evict}}");
        stage.cluster.apply(&allocation(name, &[ip], &more)).await?;
        let from = stage.until_attached(name, ip).await?;
        running(stage, name, 2).await?;
        stage.cluster.kubectl(&["cordon", &from]).await?;
        let to = until_moved(stage, name, ip, &from).await?.node.unwrap_or_default();
        for pod in running(stage, name, 2).await? {
            let on = pod.spec.and_then(|spec| spec.node_name);
            ensure!(on.as_ref() == Some(&to), "a pod is on {on:?}");
        }
        let asked = stage
            .cluster
            .audit()?
            .into_iter()
            .filter(|event| event.subresource == "eviction" && event.name.starts_with(name));
        let asked = asked.count();
        ensure!(asked <= 2, "{asked} evictions for two pods: they came back and were asked again");
        Ok(())
    })
}
