//! `spec.mode` and `spec.deletionPolicy`: what the operator leaves alone when it is told to, by the word of the cloud and by
//! that of the API server.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;

use e2e::{
    cluster::{AuditEvent, Seen, wait_for},
    stage::PATIENCE,
};

use crate::story::{Story, parse, tell, used_by};

impl Story {
    /// What the operator has asked the API server to change about the story's allocation, nodes and pods. Its own status is
    /// where it reports, and events are how it tells.
    fn asked_to_change(&self) -> Result<Vec<AuditEvent>> {
        let (own, begin) = (self.name.clone(), format!("{}-", self.name));
        let reports = |event: &AuditEvent| event.resource == "netipallocations" && event.subresource == "status";
        let asks = ["create", "update", "patch", "delete", "deletecollection"];
        let mut all = self.stage.cluster.audit()?;
        all.retain(|event| {
            event.user.ends_with(":ip-address-controller")
                && asks.contains(&event.verb.as_str())
                && event.resource != "events"
                && (event.name == own || event.name.starts_with(&begin))
                && !reports(event)
        });
        Ok(all)
    }

    /// Waits until the leader's metrics say that the allocation is in this mode, and in no other: it is what the alert of a
    /// forgotten one goes by. 0 is as good as silence.
    async fn tells_its_mode(&self, mode: &str) -> Result<()> {
        let (stage, crd) = (self.stage, format!("crd_name=\"{}\"", self.name));
        wait_for(&format!("netipallocation_info of {} says {mode}", self.name), PATIENCE, || async {
            let text = stage.metrics(&stage.until_led(None).await?).await?;
            let ours = text.lines().filter(|line| line.starts_with("netipallocation_info{") && line.contains(&crd));
            let now = ours.filter_map(|line| line.strip_suffix(" 1")?.split("mode=\"").nth(1)?.split('"').next());
            let now: BTreeSet<&str> = now.collect();
            Ok(Seen::when(now.iter().eq([&mode]), now))
        })
        .await
    }

    /// Sets fields of the spec.
    async fn set(&self, spec: &str) -> Result<()> {
        self.kubectl(&format!("patch nia {} --type=merge -p {{\"spec\":{spec}}}", self.name)).await.map(drop)
    }
}

#[tokio::test]
async fn mode_observe_plans_and_changes_nothing_by_the_word_of_the_cloud_and_of_the_api_server() -> Result<()> {
    tell("observe", async |story| {
        let (free, held) = (story.ip(), story.ip());
        let nodes = story.nodes("abc").await?;
        // As it is where another operator works, which is to be replaced: an address on a node, and a label on another.
        story.stage.world.move_address(parse(&held), &nodes[0]).map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
        let taint = "  nodeTaint: {key: example.com/observed}";
        story.allocate(&[&free, &held], &format!("  mode: Observe\n{taint}")).await?;

        story.kubectl(&format!("label node {} ip.ready=true", nodes[2])).await?;
        // The other stories' surveys of the region may be from before the address was put there: the plan that counts is the
        // one that knows of it.
        let adopts = story.until(&held, |is| is.planned_node.as_ref() == Some(&nodes[0])).await?;
        let planned = story.until(&free, |is| is.planned_node.as_ref().is_some_and(|node| *node != nodes[0])).await?;
        ensure!(planned.state == "Unassigned" && planned.reason.as_deref() == Some("Observing"), "{planned:?}");
        let plan = planned.planned_node.context("no plan")?;
        ensure!(planned.message.unwrap_or_default().contains(&plan), "the sentence does not name {plan}");
        ensure!(adopts.state == "Unassigned" && adopts.node.is_none(), "{adopts:?}");
        story.kubectl(&format!("annotate nia observe netinfra.darkbrains.com/move={free}")).await?;
        story.condition("Ready", "False", "Observing").await?;
        story.another_look().await?;
        let object = story.allocation().await?;
        ensure!(object.metadata.finalizers.is_none(), "a finalizer: {:?}", object.metadata.finalizers);
        ensure!(story.changed() == 0, "the cloud was asked to change something");
        ensure!(story.asked_to_change()?.is_empty(), "{:#?}", story.asked_to_change()?);

        // What was planned is what is done once it may be.
        story.kubectl("annotate nia observe netinfra.darkbrains.com/move-").await?;
        story.set(r#"{"mode":"Enforce"}"#).await?;
        story.attached_to(&free, &plan).await?;
        story.attached_to(&held, &nodes[0]).await?;
        let other = nodes.iter().find(|node| **node != plan && **node != nodes[0]).context("no third node")?;
        story.labelled(other, None).await?;
        story.has_taint(other, "example.com/observed").await?;

        // Watched from then on, whatever befalls it.
        story.set(r#"{"mode":"Observe"}"#).await?;
        story.said(&free, "Attached", "Observing").await?;
        let done = (story.changed(), story.asked_to_change()?.len());
        story.kubectl(&format!("cordon {plan}")).await?;
        let would = story.until(&free, |is| is.planned_node.as_ref() == Some(other)).await?;
        ensure!(would.message.unwrap_or_default().contains("must leave it (NodeCordoned)"), "it does not say why");
        story.kubectl(&format!("label node {plan} ip.ready-")).await?;
        story.another_look().await?;
        ensure!((story.changed(), story.asked_to_change()?.len()) == done, "{:#?}", story.asked_to_change()?);

        // Not even on the way out.
        story.kubectl("delete nia observe --wait=false").await?;
        story.gone().await?;
        ensure!(story.changed() == done.0, "the cloud was asked to change something");
        ensure!(story.holder(&free) == Some(plan), "the address is on {:?}", story.holder(&free));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn mode_hold_moves_nothing_by_choice_and_lets_failover_through() -> Result<()> {
    tell("keep", async |story| {
        let ip = story.ip();
        story.nodes("ab").await?;
        story.allocate(&[&ip], "").await?;
        let node = story.attached(&ip).await?;
        let to = if node.ends_with('a') { "keep-b" } else { "keep-a" };
        story.tells_its_mode("Enforce").await?;
        story.set(r#"{"mode":"Hold"}"#).await?;
        story.tells_its_mode("Hold").await?;
        let before = story.changed();
        story.kubectl(&format!("cordon {node}")).await?;
        let held = story.said(&ip, "Attached", "Held").await?.message.unwrap_or_default();
        ensure!(held.contains("NodeCordoned") && held.contains("mode Hold"), "{held}");
        story.kubectl(&format!("annotate nia keep netinfra.darkbrains.com/move={ip}={to}")).await?;
        story.until(&ip, |is| is.message.as_ref().is_some_and(|said| said.contains("MoveRequested"))).await?;
        // Labels are kept where they belong all the same.
        story.kubectl(&format!("label node {node} ip.ready-")).await?;
        story.labelled(&node, Some(&ip)).await?;
        story.another_look().await?;
        ensure!(story.changed() == before, "the address was moved by choice");
        story.kubectl("annotate nia keep netinfra.darkbrains.com/move-").await?;

        story.stage.world.stop_machine(&node);
        story.stage.cluster.stop_heartbeat(&node).await?;
        story.attached_to(&ip, to).await?;
        let moved = story.said(&ip, "Attached", "Verified").await?.last_move.context("no ledger")?;
        ensure!(moved.reason == "MachineStopped", "{moved:?}");
        story.labelled(&node, None).await?;
        story.tells_its_mode("Hold").await?;
        story.set(r#"{"mode":"Enforce"}"#).await?;
        story.tells_its_mode("Enforce").await
    })
    .await
}

#[tokio::test]
async fn p9_retain_set_beforehand_lets_the_object_go_at_once_with_everything_as_it_is() -> Result<()> {
    tell("retained", async |story| {
        let ip = story.ip();
        let nodes = story.nodes("ab").await?;
        let spec = format!(
            "{}  deletionPolicy: Retain\n  nodeTaint: {{key: example.com/retained}}",
            used_by("Deployment", "retained")
        );
        story.allocate(&[&ip], &spec).await?;
        let node = story.attached(&ip).await?;
        let other = nodes.iter().find(|other| **other != node).context("no other node")?;
        story.has_taint(other, "example.com/retained").await?;
        story.run("Deployment", "retained", 1, "").await?;
        let pods = story.running("retained", 1).await?;
        let before = story.changed();

        story.kubectl("delete nia retained --wait=false").await?;
        story.gone().await?;
        ensure!(story.running("retained", 1).await? == pods, "the pod was disturbed");
        // With nobody to claim them, two more looks at the cluster leave all as it is.
        story.another_look().await?;
        story.labelled(&node, Some(&ip)).await?;
        story.has_taint(other, "example.com/retained").await?;
        ensure!(story.holder(&ip).as_ref() == Some(&node), "the address is on {:?}", story.holder(&ip));

        story.allocate(&[&ip], &spec).await?;
        story.said(&ip, "Attached", "Adopted").await?;
        story.attached_to(&ip, &node).await?;
        ensure!(story.changed() == before, "the cloud was asked to change something");
        ensure!(story.running("retained", 1).await? == pods, "the pod was disturbed");
        Ok(())
    })
    .await
}
