//! Addresses come to nodes, and pods to addresses.

use anyhow::{Result, ensure};
use kube::ResourceExt;

use crate::story::{node_of, tell, used_by};

#[tokio::test]
async fn p4_p5_addresses_attach_and_their_nodes_say_so() -> Result<()> {
    tell("attach", async |story| {
        let (one, two) = (story.ip(), story.ip());
        let nodes = story.nodes("abc").await?;
        story.allocate(&[&one, &two], "").await?;
        let (first, second) = (story.attached(&one).await?, story.attached(&two).await?);
        ensure!(first != second, "both on {first}");

        for (ip, node) in [(&one, &first), (&two, &second)] {
            story.labelled(node, Some(ip)).await?;
            ensure!(story.holder(ip).as_ref() == Some(node), "the cloud has {ip} on {:?}", story.holder(ip));
            let address = story.said(ip, "Attached", "Verified").await?;
            ensure!(address.operation.is_none(), "an operation is left: {address:?}");
        }
        let idle = nodes.iter().find(|node| **node != first && **node != second).expect("one of three is left");
        story.labelled(idle, None).await?;
        ensure!(story.changes(idle).is_empty(), "the node without an address was changed");

        for (kind, reason) in [
            ("Ready", "AllAttached"),
            ("AddressesValid", "AllFound"),
            ("CredentialsValid", "Accepted"),
            ("WorkloadFound", "NotNamed"),
        ] {
            let is = story.condition(kind, "True", reason).await?;
            ensure!(is.observed_generation == story.allocation().await?.metadata.generation, "{is:?}");
        }
        ensure!(story.event("IPAttached").await?.contains("is on node"), "{:?}", story.events().await?);

        let table = story.kubectl("get nia attach -o wide").await?;
        let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let (head, row) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let wanted = ["NAME", "READY", "REASON", "RESERVED", "ATTACHED", "MOVING", "SPARE", "MODE", "AGE", "SINCE"];
        ensure!(head.starts_with(&wanted), "{table}");
        ensure!(row.starts_with(&["attach", "True", "AllAttached", "2", "2", "0", "1", "Enforce"]), "{table}");
        ensure!(table.contains("2 of 2 addresses are attached"), "{table}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn p4_pods_are_scheduled_only_where_an_address_is() -> Result<()> {
    tell("schedule", async |story| {
        let ip = story.ip();
        story.nodes("abc").await?;
        story.run("Deployment", "schedule", 3, "").await?;
        // The scheduler has looked, and there was no node.
        e2e::cluster::wait_for("three pods that nobody takes", e2e::stage::PATIENCE, || async {
            let pods = story.pods("schedule").await?;
            let refused = |pod: &k8s_openapi::api::core::v1::Pod| {
                let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
                conditions.into_iter().any(|is| is.reason.as_deref() == Some("Unschedulable"))
            };
            let waiting = pods.iter().filter(|pod| refused(pod) && node_of(pod).is_empty()).count();
            Ok(e2e::cluster::Seen::when(waiting == 3, pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>()))
        })
        .await?;

        story.allocate(&[&ip], &used_by("Deployment", "schedule")).await?;
        let node = story.attached(&ip).await?;
        let pods = story.running("schedule", 3).await?;
        ensure!(pods.iter().all(|(_, on)| *on == node), "the address is on {node}, the pods are {pods:?}");
        story.condition("WorkloadFound", "True", "Found").await?;
        Ok(())
    })
    .await
}
