//! A person edits the allocation, or deletes it.

use anyhow::{Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::PATIENCE,
};

use crate::story::{Story, tell, used_by};

const APART: &str = "      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: edit}}}";

#[tokio::test]
async fn p6_an_edit_of_reserved_ips_adds_at_once_and_removes_when_nobody_uses_it() -> Result<()> {
    tell("edit", async |story| {
        let (stays, goes) = (story.ip(), story.ip());
        story.nodes("ab").await?;
        let user = used_by("Deployment", "edit");
        story.allocate(&[&stays], &user).await?;
        let kept = story.attached(&stays).await?;
        let before = story.changes(&kept).len();
        story.allocate(&[&stays, &goes], &user).await?;
        let node = story.attached(&goes).await?;
        ensure!(node != kept, "both on {node}");
        story.run("Deployment", "edit", 2, APART).await?;
        let pods = story.running("edit", 2).await?;
        let on_it: Vec<_> = pods.into_iter().filter(|(_, on)| *on == node).collect();
        ensure!(on_it.len() == 1, "{on_it:?}");

        let moved = story.changes(&node).len();
        story.allocate(&[&stays], &user).await?;
        let draining = story.said(&goes, "Draining", "RemovedFromSpec").await?;
        // The label goes first: the node stays schedulable, and each pod that leaves would come back to it.
        story.labelled(&node, None).await?;
        let named = |address: &ip_address_controller::api::AddressStatus| {
            address.message.as_ref().is_some_and(|said| said.contains(&on_it[0].0))
        };
        story.until(&goes, named).await?;
        story.another_look().await?;
        ensure!(story.changes(&node).len() == moved, "the address has left under a pod; it said {draining:?}");

        story.kubectl(&format!("delete pod {} --wait=false", on_it[0].0)).await?;
        forgotten(story, &goes).await?;
        story.nothing_left_before_the_pods(&node, &on_it)?;
        story.has_its_own_address(&node).await?;
        wait_for("the debt is struck off", PATIENCE, || async {
            let owed = story.allocation().await?.status.unwrap_or_default().owed;
            Ok(Seen::when(owed.is_empty(), owed))
        })
        .await?;
        ensure!(story.holder(&goes).is_none(), "the address is still on {:?}", story.holder(&goes));
        story.attached_to(&stays, &kept).await?;
        ensure!(story.changes(&kept).len() == before, "the other address was disturbed");
        story.condition("Ready", "True", "AllAttached").await?;
        Ok(())
    })
    .await
}

/// Waits until status does not name the address any more.
async fn forgotten(story: &Story, ip: &str) -> Result<()> {
    wait_for(&format!("{ip} is forgotten"), PATIENCE, || async {
        let address = story.stage.address(&story.name, ip).await?;
        Ok(Seen::when(address.is_none(), address))
    })
    .await
}

#[tokio::test]
async fn p9_p10_a_deletion_waits_for_users_then_detaches_and_lets_the_object_go() -> Result<()> {
    tell("delete", async |story| {
        let ip = story.ip();
        story.nodes("ab").await?;
        story.allocate(&[&ip], &used_by("Deployment", "delete")).await?;
        let node = story.attached(&ip).await?;
        story.run("Deployment", "delete", 1, "").await?;
        let pods = story.running("delete", 1).await?;
        let before = story.changed();

        story.kubectl("delete nia delete --wait=false").await?;
        story.said(&ip, "Draining", "AllocationDeleted").await?;
        let is = story.condition("Ready", "False", "Terminating").await?;
        ensure!(is.message.contains(&ip), "{is:?}");
        story.labelled(&node, None).await?;
        story.another_look().await?;
        ensure!(story.changed() == before, "the address has left under a pod");
        ensure!(story.holder(&ip).as_ref() == Some(&node), "the address is on {:?}", story.holder(&ip));

        story.kubectl("scale deployment delete --replicas=0").await?;
        story.gone().await?;
        story.nothing_left_before_the_pods(&node, &pods)?;
        ensure!(story.holder(&ip).is_none(), "the address is still on {:?}", story.holder(&ip));
        ensure!(story.stage.world.holder(crate::story::parse(&ip)).is_some(), "the reservation is gone");
        // The debt is paid before the object goes: nobody would pay it afterwards.
        let external = story.machine(&node)?.external;
        ensure!(external.as_ref().is_some_and(|own| !own.reserved && own.ip.is_some()), "{external:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn p9_retain_set_while_terminating_lets_the_object_go_at_once_and_applying_it_again_adopts() -> Result<()> {
    tell("retain", async |story| {
        let ip = story.ip();
        story.nodes("ab").await?;
        // A DaemonSet's pods keep their label until the end, so that there is one to be left behind.
        let user = used_by("DaemonSet", "retain");
        story.allocate(&[&ip], &user).await?;
        let node = story.attached(&ip).await?;
        story.run("DaemonSet", "retain", 1, "").await?;
        let pods = story.running("retain", 1).await?;
        let before = story.changed();

        story.kubectl("delete nia retain --wait=false").await?;
        story.said(&ip, "Draining", "AllocationDeleted").await?;
        story.kubectl(r#"patch nia retain --type=merge -p {"spec":{"deletionPolicy":"Retain"}}"#).await?;
        story.gone().await?;
        story.labelled(&node, Some(&ip)).await?;
        ensure!(story.holder(&ip).as_ref() == Some(&node), "the address is on {:?}", story.holder(&ip));

        // With nobody to claim them, two more looks at the cluster leave address and labels alone.
        story.another_look().await?;
        story.labelled(&node, Some(&ip)).await?;
        story.allocate(&[&ip], &user).await?;
        story.said(&ip, "Attached", "Adopted").await?;
        story.attached_to(&ip, &node).await?;
        ensure!(story.event("IPAttached").await?.contains("on node"), "{:?}", story.events().await?);
        ensure!(story.changed() == before, "the cloud was asked to change something");
        ensure!(story.running("retain", 1).await? == pods, "the pod was disturbed");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn p9_an_allocation_whose_pool_is_gone_can_be_deleted() -> Result<()> {
    tell("orphan", async |story| {
        let ip = story.ip();
        let node = story.nodes("a").await?.remove(0);
        story.allocate(&[&ip], "").await?;
        story.attached_to(&ip, &node).await?;
        // Nothing but status says any more in which project the address is.
        story.kubectl(&format!("delete node {node}")).await?;
        story.stage.world.delete_machine(&node);
        story.kubectl("delete nia orphan --wait=false").await?;
        story.gone().await?;
        ensure!(story.stage.world.holder(crate::story::parse(&ip)) == Some(e2e::world::Holder::Nobody));
        Ok(())
    })
    .await
}
