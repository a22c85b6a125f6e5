//! A node that works gives its address up when nobody uses it, and not before.

use anyhow::{Context, Result, ensure};
use e2e::world::{Holder, World};

use crate::story::{Story, parse, tell, used_by};

/// Seconds; long beside a pass.
const SLOW: u8 = 5;

#[tokio::test]
async fn p6_p10_a_drained_node_gives_its_address_up_after_its_pods_are_gone_and_not_before() -> Result<()> {
    tell("drain", async |story| {
        let ip = story.ip();
        story.nodes("ab").await?;
        story.allocate(&[&ip], &used_by("Deployment", "drain")).await?;
        let from = story.attached(&ip).await?;
        story.run_slowly("Deployment", "drain", 2, SLOW, "").await?;
        let pods = story.running("drain", 2).await?;

        let drain = format!("drain {from} --ignore-daemonsets --timeout=90s");
        let (drained, draining) = tokio::join!(
            story.kubectl(&drain),
            story.until(&ip, |address| {
                let message = address.message.clone().unwrap_or_default();
                address.state == "Draining" && message.contains("Terminating, grace ends")
            })
        );
        drained?;
        let draining = draining?;
        let message = draining.message.unwrap_or_default();
        ensure!(draining.reason.as_deref() == Some("NodeCordoned"), "{message}");
        ensure!(pods.iter().all(|(pod, _)| message.contains(pod)), "not all pods are named: {message}");
        ensure!(message.contains(&format!("of Deployment default/drain on node {from}")), "{message}");

        let to = if from.ends_with('a') { "drain-b" } else { "drain-a" };
        ensure!(message.contains(&format!("goes to node {to} next")), "{message}");
        story.attached_to(&ip, to).await?;
        story.nothing_left_before_the_pods(&from, &pods)?;
        story.labelled(&from, None).await?;
        story.has_its_own_address(&from).await?;

        let again = story.running("drain", 2).await?;
        ensure!(again.iter().all(|(_, on)| on == to), "the pods have not followed: {again:?}");
        ensure!(story.event("IPReallocated").await?.contains(to), "{:?}", story.events().await?);
        for (kind, name) in [("Node", from.as_str()), ("Deployment", "drain")] {
            let note = story.event_on(kind, name, "IPDraining").await?;
            ensure!(note.contains(&ip) && note.contains("NodeCordoned"), "{note}");
        }
        for reason in ["NodeUnlabeled", "NodeLabeled", "IPDetached"] {
            story.event(reason).await?;
        }
        let moved = story.said(&ip, "Attached", "Verified").await?.last_move.context("no ledger")?;
        ensure!((moved.from_node.as_deref(), moved.to_node.as_deref()) == (Some(&*from), Some(to)), "{moved:?}");
        ensure!(moved.reason == "NodeCordoned" && moved.gap_seconds.is_some(), "{moved:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn p6_an_uncordon_cancels_the_move_while_a_pod_runs() -> Result<()> {
    tell("uncordon", async |story| {
        let ip = story.ip();
        story.nodes("ab").await?;
        story.allocate(&[&ip], &used_by("Deployment", "uncordon")).await?;
        let node = story.attached(&ip).await?;
        story.run("Deployment", "uncordon", 1, "").await?;
        story.running("uncordon", 1).await?;
        let before = story.changed();

        story.kubectl(&format!("cordon {node}")).await?;
        story.said(&ip, "Draining", "NodeCordoned").await?;
        story.condition("Ready", "True", "Draining").await?;
        story.labelled(&node, Some(&ip)).await?;
        story.kubectl(&format!("uncordon {node}")).await?;
        story.attached_to(&ip, &node).await?;
        story.event("DrainCancelled").await?;
        story.condition("Ready", "True", "AllAttached").await?;
        ensure!(story.changed() == before, "the cloud was asked to change something");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn p6_a_cordon_moves_nothing_while_a_daemonset_pod_lives() -> Result<()> {
    tell("daemon", async |story| {
        let ip = story.ip();
        story.nodes("ab").await?;
        story.allocate(&[&ip], &used_by("DaemonSet", "daemon")).await?;
        let node = story.attached(&ip).await?;
        story.run("DaemonSet", "daemon", 1, "").await?;
        let pods = story.running("daemon", 1).await?;
        let before = story.changed();

        story.kubectl(&format!("cordon {node}")).await?;
        let draining = story.until(&ip, |address| {
            address.message.as_ref().is_some_and(|said| said.contains("does not leave by itself"))
        });
        ensure!(draining.await?.state == "Draining", "it says that it waits, but does not drain");
        story.another_look().await?;
        ensure!(story.changed() == before, "the address has left under a pod");
        story.labelled(&node, Some(&ip)).await?;
        ensure!(story.running("daemon", 1).await? == pods, "the pod was disturbed");

        story.kubectl(&format!("uncordon {node}")).await?;
        story.attached_to(&ip, &node).await?;
        ensure!(story.changed() == before, "something was moved all the same");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn p6_a_drain_waits_for_the_statefulset_that_uses_the_address_and_for_nobody_else() -> Result<()> {
    tell("stateful", async |story| {
        let ip = story.ip();
        story.nodes("ab").await?;
        story.allocate(&[&ip], &used_by("StatefulSet", "stateful")).await?;
        let from = story.attached(&ip).await?;
        story.run_slowly("StatefulSet", "stateful", 2, SLOW, "").await?;
        story.run("Deployment", "stateful-guest", 1, "").await?;
        let pods = story.running("stateful", 2).await?;
        let guest = story.running("stateful-guest", 1).await?;
        story.condition("WorkloadFound", "True", "Found").await?;

        let drain = format!("drain {from} --pod-selector=app=stateful --timeout=90s");
        let (drained, draining) = tokio::join!(
            story.kubectl(&drain),
            story.until(&ip, |address| {
                let message = address.message.clone().unwrap_or_default();
                address.state == "Draining" && message.contains("of StatefulSet default/stateful")
            })
        );
        drained?;
        let message = draining?.message.unwrap_or_default();
        ensure!(!message.contains("guest"), "{message}");
        let to = if from.ends_with('a') { "stateful-b" } else { "stateful-a" };
        story.attached_to(&ip, to).await?;
        let again = story.running("stateful", 2).await?;
        ensure!(again.iter().all(|(_, on)| on == to), "{again:?}");
        ensure!(story.running("stateful-guest", 1).await? == guest, "who does not use the address was disturbed");
        story.nothing_left_before_the_pods(&from, &pods)
    })
    .await
}

#[tokio::test]
async fn the_last_node_keeps_its_address_when_it_is_drained() -> Result<()> {
    tell("last", async |story| {
        let ip = story.ip();
        let node = story.nodes("a").await?.remove(0);
        story.allocate(&[&ip], "").await?;
        story.attached_to(&ip, &node).await?;
        let before = story.changed();

        story.kubectl(&format!("drain {node} --timeout=60s")).await?;
        let address = story.said(&ip, "Attached", "NoTarget").await?;
        let message = address.message.unwrap_or_default();
        ensure!(message.contains("no node to go to (1 node selected"), "{message}");
        story.event("NoTarget").await?;
        story.another_look().await?;
        story.labelled(&node, Some(&ip)).await?;
        ensure!(story.changed() == before && story.holder(&ip) == Some(node.clone()), "the address has left");

        // Now there is somewhere to go.
        story.stage.add_node("last-b", "us-west1-b", &[("pool", "last")]).await?;
        story.attached_to(&ip, "last-b").await
    })
    .await
}

#[tokio::test]
async fn max_unavailable_zero_moves_one_address_at_a_time() -> Result<()> {
    tell("pace", async |story| {
        let ips = [story.ip(), story.ip(), story.ip()];
        story.nodes("abcdef").await?;
        let list: Vec<&str> = ips.iter().map(String::as_str).collect();
        story.allocate(&list, "  strategy: {maxSurge: 1, maxUnavailable: 0}").await?;
        let mut from = Vec::new();
        for ip in &ips {
            from.push(story.attached(ip).await?);
        }

        let off = |world: &World| {
            let free = ips.iter().filter(|ip| world.holder(parse(ip)) == Some(Holder::Nobody)).count();
            (free > 1).then_some(free)
        };
        let all_moved = async {
            story.kubectl(&format!("cordon {}", from.join(" "))).await?;
            for (ip, from) in ips.iter().zip(&from) {
                story.until(ip, |is| is.state == "Attached" && is.node.as_ref() != Some(from)).await?;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            count = story.stage.world.until(off) => anyhow::bail!("{count} addresses were off at once"),
            moved = all_moved => moved?,
        }
        let absences = ips.iter().map(|ip| absence(story, ip)).collect::<Result<Vec<_>>>()?;
        for (at, one) in absences.iter().enumerate() {
            for other in &absences[at + 1..] {
                ensure!(one.1 < other.0 || other.1 < one.0, "two were off at once: {absences:?}");
            }
        }
        Ok(())
    })
    .await
}

/// From when the address was off its old machine until it was sent to its new one.
pub fn absence(story: &Story, ip: &str) -> Result<(tokio::time::Instant, tokio::time::Instant)> {
    let removals = story.stage.world.removals();
    let off = removals.iter().rfind(|gone| gone.ip == Some(parse(ip))).context("it was never off")?.at;
    let node = story.holder(ip).context("it is on no machine")?;
    let attach = story.changes(&node).into_iter().rfind(|call| call.method == "instances.addAccessConfig");
    Ok((off, attach.context("it was never attached")?.at))
}

#[tokio::test]
async fn p6_a_typo_in_workload_ref_holds_the_address_while_pods_that_asked_for_it_run() -> Result<()> {
    tell("typo", async |story| {
        let ip = story.ip();
        story.nodes("ab").await?;
        story.allocate(&[&ip], &used_by("Deployment", "tyop")).await?;
        let node = story.attached(&ip).await?;
        let is = story.condition("WorkloadFound", "False", "NotFound").await?;
        ensure!(is.message.contains("Deployment/default/tyop") || is.message.contains("default/tyop"), "{is:?}");
        story.run("Deployment", "typo", 1, "").await?;
        let pods = story.running("typo", 1).await?;
        let before = story.changed();

        story.kubectl(&format!("cordon {node}")).await?;
        let waits = |address: &ip_address_controller::api::AddressStatus| {
            address.message.as_ref().is_some_and(|said| said.contains(&pods[0].0))
        };
        ensure!(story.until(&ip, waits).await?.state == "Draining");
        story.another_look().await?;
        ensure!(story.changed() == before, "the address has left under a pod");
        story.labelled(&node, Some(&ip)).await?;

        story.kubectl("scale deployment typo --replicas=0").await?;
        let to = if node.ends_with('a') { "typo-b" } else { "typo-a" };
        story.attached_to(&ip, to).await?;
        story.nothing_left_before_the_pods(&node, &pods)
    })
    .await
}

#[tokio::test]
async fn p7_a_disruption_budget_at_zero_is_waited_out_and_named() -> Result<()> {
    tell("budget", async |story| {
        let ip = story.ip();
        story.nodes("ab").await?;
        story.allocate(&[&ip], &format!("{}  drain: {{policy: Evict}}", used_by("Deployment", "budget"))).await?;
        let node = story.attached(&ip).await?;
        story.run("Deployment", "budget", 1, "").await?;
        let pods = story.running("budget", 1).await?;
        let budget = |least: u8| {
            format!(
                "
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: budget-pdb}}
spec: {{minAvailable: {least}, selector: {{matchLabels: {{app: budget}}}}}}
"
            )
        };
        story.stage.cluster.apply(&budget(1)).await?;
        story.kubectl("wait pdb/budget-pdb --for=jsonpath={.status.currentHealthy}=1 --timeout=60s").await?;
        let before = story.changed();

        story.kubectl(&format!("cordon {node}")).await?;
        let note = story.event("EvictionBlocked").await?;
        ensure!(note.contains("budget-pdb") && note.contains(&pods[0].0), "{note}");
        for (kind, name) in [("Node", node.as_str()), ("Deployment", "budget")] {
            ensure!(story.event_on(kind, name, "EvictionBlocked").await? == note, "on {kind} {name}");
        }
        let blocked = |address: &ip_address_controller::api::AddressStatus| {
            address.message.as_ref().is_some_and(|said| said.contains("budget-pdb"))
        };
        ensure!(story.until(&ip, blocked).await?.state == "Draining");
        story.another_look().await?;
        ensure!(story.changed() == before, "the address has left under a pod");
        ensure!(story.running("budget", 1).await? == pods, "the pod went past its budget");

        story.stage.cluster.apply(&budget(0)).await?;
        let to = if node.ends_with('a') { "budget-b" } else { "budget-a" };
        story.attached_to(&ip, to).await?;
        story.event("PodEvicted").await?;
        for (kind, name) in [("Node", node.as_str()), ("Deployment", "budget")] {
            story.event_on(kind, name, "PodEvicted").await?;
        }
        let trace = story.said(&ip, "Attached", "Verified").await?.last_move.context("no ledger")?.trace_id;
        let trace = format!(" trace={}", trace.context("no trace")?);
        for reason in ["IPDraining", "EvictionBlocked", "PodEvicted", "NodeUnlabeled", "IPDetached", "IPReallocated"] {
            let note = story.event(reason).await?;
            ensure!(note.ends_with(&trace) && note.len() < 1024, "{reason}: {note} does not end in {trace}");
        }
        story.nothing_left_before_the_pods(&node, &pods)
    })
    .await
}

#[tokio::test]
async fn p6_pods_that_are_left_when_their_workload_is_deleted_still_hold_the_address() -> Result<()> {
    tell("orphans", async |story| {
        let ip = story.ip();
        story.nodes("ab").await?;
        story.run("Deployment", "orphans", 1, "").await?;
        story.allocate(&[&ip], &used_by("Deployment", "orphans")).await?;
        let node = story.attached(&ip).await?;
        let pods = story.running("orphans", 1).await?;
        story.condition("WorkloadFound", "True", "Found").await?;
        let before = story.changed();

        // It was found a moment ago; that says nothing about now.
        story.kubectl("delete deployment orphans --cascade=orphan").await?;
        story.kubectl("delete replicaset -l app=orphans --cascade=orphan").await?;
        story.kubectl(&format!("cordon {node}")).await?;
        let waits = |address: &ip_address_controller::api::AddressStatus| {
            address.message.as_ref().is_some_and(|said| said.contains(&pods[0].0))
        };
        ensure!(story.until(&ip, waits).await?.state == "Draining");
        story.condition("WorkloadFound", "False", "NotFound").await?;
        story.another_look().await?;
        ensure!(story.changed() == before, "the address has left under a pod");
        ensure!(story.running("orphans", 1).await? == pods, "the pod was disturbed");

        story.kubectl(&format!("delete pod {} --wait=false", pods[0].0)).await?;
        let to = if node.ends_with('a') { "orphans-b" } else { "orphans-a" };
        story.attached_to(&ip, to).await?;
        story.nothing_left_before_the_pods(&node, &pods)
    })
    .await
}
