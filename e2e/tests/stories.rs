//! Stories on the real API server.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use anyhow::Result;
use e2e::{
    stage::{PROJECT, REGION, Stage},
    world::Address,
};

#[tokio::test]
async fn attach_and_label() -> Result<()> {
    let stage = Stage::raise(|line| println!("{line}")).await?;
    stage.install(&[]).await?;
    stage.world.add_address(Address::new(PROJECT, REGION, "one", "203.0.113.7".parse()?));
    stage.add_node("node-a", "us-west1-a", &[("role", "external-ip-node")]).await?;
    stage.add_node("node-b", "us-west1-b", &[("role", "external-ip-node")]).await?;
    stage
        .cluster
        .apply(
            "
apiVersion: netinfra.darkbrains.com/v1alpha1
kind: NetIPAllocation
metadata: {name: example}
spec:
  reservedIPs: [203.0.113.7]
  nodeSelector: {role: external-ip-node}
  cloud: {provider: gcp, region: us-west1}
  reconcileInterval: 5
",
        )
        .await?;
    let result = stage.until_attached("example", "203.0.113.7").await;
    if result.is_err() {
        println!("{:#?}", stage.logs().await?);
        println!("{:#?}", stage.allocation("example").await?);
    }
    println!("{:?}", result?);
    let node = stage.cluster.kubectl(&["get", "nia", "-o", "wide"]).await?;
    println!("{node}");
    stage.cluster.kubectl(&["drain", "node-a", "--ignore-daemonsets"]).await?;
    let r = stage
        .until("moved", "example", "203.0.113.7", |a| a.state == "Attached" && a.node.as_deref() == Some("node-b"))
        .await;
    if r.is_err() {
        println!("{:?}", stage.logs().await?);
    }
    println!("{:#?}", r?);
    println!("{}", stage.cluster.kubectl(&["describe", "nia", "example"]).await?);
    Ok(())
}
