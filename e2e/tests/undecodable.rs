//! One stored object that these types cannot read blinds the operator to no other. A stage of its own: the schema must be
//! relaxed for a moment to let such an object in.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{PATIENCE, PROJECT, REGION, Stage},
    world::Address,
};

const CRD: &str = "netipallocations.netinfra.darkbrains.com";

fn manifest(name: &str, ip: &str, interval: &str) -> String {
    format!(
        "
apiVersion: netinfra.darkbrains.com/v1alpha1
kind: NetIPAllocation
metadata: {{name: {name}}}
spec:
  reservedIPs: [{ip}]
  nodeSelector: {{pool: mixed}}
  cloud: {{provider: gcp, region: {REGION}}}
  reconcileInterval: {interval}
"
    )
}

#[tokio::test]
async fn an_object_that_cannot_be_decoded_blinds_nobody_to_the_others() -> Result<()> {
    let stage = Stage::raise(|_| ()).await?;
    stage.install(&[]).await?;
    for (name, ip) in [("one", "203.0.113.7"), ("two", "203.0.113.8"), ("three", "203.0.113.9")] {
        stage.world.add_address(Address::new(PROJECT, REGION, name, ip.parse()?));
        stage.add_node(&format!("node-{name}"), "us-west1-a", &[("pool", "mixed")]).await?;
    }
    stage.cluster.apply(&manifest("before", "203.0.113.7", "5")).await?;
    let told = tell(&stage).await;
    match told {
        Ok(()) => Ok(()),
        Err(error) => Err(anyhow::anyhow!("{error:#}\n{:#?}", stage.logs().await?)),
    }
}

async fn tell(stage: &Stage) -> Result<()> {
    let kept = stage.until_attached("before", "203.0.113.7").await?;

    // As an old version with another schema would have left it.
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let interval = format!("{schema}/properties/reconcileInterval");
    let relaxed = r#"{"x-kubernetes-preserve-unknown-fields": true}"#;
    let schema_of = |path: &str| format!("jsonpath={{{}}}", path.replace('/', ".").replace(".0.", "[0]."));
    let strict = stage.cluster.kubectl(&["get", "crd", CRD, "-o", &schema_of(&interval)]).await?;
    let replace = |with: &str| format!(r#"[{{"op": "replace", "path": "{interval}", "value": {with}}}]"#);
    stage.cluster.kubectl(&["patch", "crd", CRD, "--type=json", "-p", &replace(relaxed)]).await?;
    let strange = manifest("strange", "203.0.113.8", "soon");
    e2e::cluster::wait_for("the relaxed schema is served", e2e::stage::PATIENCE, || async {
        Ok(match stage.cluster.apply(&strange).await {
            Ok(_) => e2e::cluster::Seen::Yes(()),
            Err(error) => e2e::cluster::Seen::NotYet(format!("{error:#}")),
        })
    })
    .await?;
    stage.cluster.kubectl(&["patch", "crd", CRD, "--type=json", "-p", &replace(&strict)]).await?;

    // Whoever leads, and whoever reads everything anew, goes on with the others.
    let leader = stage.until_led(None).await?;
    stage.cluster.apply(&manifest("after", "203.0.113.9", "5")).await?;
    let other = stage.until_attached("after", "203.0.113.9").await?;
    stage.cluster.kubectl(&["delete", "pod", "-n", e2e::stage::NAMESPACE, &leader]).await?;
    stage.until_led(Some(&leader)).await?;
    stage.cluster.kubectl(&["cordon", &kept]).await?;
    let moved = stage
        .until("the old one's address moves", "before", "203.0.113.7", |address| {
            address.state == "Attached" && address.node.as_deref() != Some(kept.as_str())
        })
        .await?;
    ensure!(moved.node.as_deref() != Some(other.as_str()), "{moved:?}");
    ensure!(stage.world.machine_of("203.0.113.8".parse()?).is_none(), "the strange one was acted on");

    wait_for("an event on the object says that it cannot be read", PATIENCE, || async {
        let events = stage.cluster.kubectl(&["get", "events", "--namespace", "default"]).await?;
        Ok(Seen::when(events.contains("InvalidSpec") && events.contains("netipallocation/strange"), events))
    })
    .await?;
    // Who looks for it finds it by name in the log; put right, it is served.
    let logs = stage.logs().await?;
    let said = logs
        .values()
        .flat_map(|log| log.lines())
        .any(|line| line.contains("strange") && line.contains("cannot be decoded") && line.contains("soon"));
    ensure!(said, "nobody says that it cannot be decoded");
    stage.cluster.kubectl(&["uncordon", &kept]).await?;
    stage.cluster.apply(&manifest("strange", "203.0.113.8", "5")).await?;
    stage.until_attached("strange", "203.0.113.8").await.context("put right")?;
    Ok(())
}
