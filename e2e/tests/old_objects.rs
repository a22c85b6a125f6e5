//! Objects that were stored under an older schema, and that the present one would refuse: each is served with a reason and
//! an event, and nothing else is disturbed. A stage of its own: the schema is relaxed for a moment to let them in.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{PATIENCE, PROJECT, REGION, Stage},
    world::Address,
};
use serde_json::{Value, json};

const CRD: &str = "netipallocations.netinfra.darkbrains.com";

#[tokio::test]
async fn stored_objects_that_break_a_new_rule_are_served_with_a_reason_and_an_event() -> Result<()> {
    let stage = Stage::raise(|_| ()).await?;
    stage.install(&[]).await?;
    stage.world.add_address(Address::new(PROJECT, REGION, "one", "203.0.113.7".parse()?));
    stage.add_node("node-one", "us-west1-a", &[("pool", "old")]).await?;
    store_old_objects(&stage).await?;
    let told = tell(&stage).await;
    match told {
        Ok(()) => Ok(()),
        Err(error) => Err(anyhow::anyhow!("{error:#}\n{:#?}", stage.logs().await?)),
    }
}

/// Lets objects in that the present rules refuse, and puts the rules back.
async fn store_old_objects(stage: &Stage) -> Result<()> {
    let crd: Value = serde_json::from_str(&stage.cluster.kubectl(&["get", "crd", CRD, "-o", "json"]).await?)?;
    let strict = crd["spec"]["versions"][0]["schema"].clone();
    let mut relaxed = strict.clone();
    let spec = &mut relaxed["openAPIV3Schema"]["properties"]["spec"];
    spec["properties"]["reservedIPs"] = json!({"type": "array", "items": {"type": "string"}});
    spec["properties"]["cloud"].as_object_mut().context("cloud is no object")?.remove("x-kubernetes-validations");
    replace_schema(stage, &relaxed).await?;
    for manifest in [
        "
apiVersion: netinfra.darkbrains.com/v1alpha1
kind: NetIPAllocation
metadata: {name: mixed}
spec:
  reservedIPs: [203.0.113.7, nonsense, 203.0.113.7]
  nodeSelector: {pool: old}
  cloud: {provider: gcp, region: us-west1}
  reconcileInterval: 5
",
        "
apiVersion: netinfra.darkbrains.com/v1alpha1
kind: NetIPAllocation
metadata: {name: version-1}
spec:
  reservedIPs: [203.0.113.8]
  nodeSelector: {pool: old}
  cloud: {region: us-west1}
  reconcileInterval: 5
",
    ] {
        wait_for("the relaxed schema is served", PATIENCE, || async {
            Ok(match stage.cluster.apply(manifest).await {
                Ok(_) => Seen::Yes(()),
                Err(error) => Seen::NotYet(format!("{error:#}")),
            })
        })
        .await?;
    }
    replace_schema(stage, &strict).await
}

async fn replace_schema(stage: &Stage, schema: &Value) -> Result<()> {
    let patch = json!([{"op": "replace", "path": "/spec/versions/0/schema", "value": schema}]).to_string();
    stage.cluster.kubectl(&["patch", "crd", CRD, "--type=json", "-p", &patch]).await.map(|_| ())
}

async fn tell(stage: &Stage) -> Result<()> {
    stage.until_attached("mixed", "203.0.113.7").await?;
    let bad = stage
        .until("the text that is no address has a reason", "mixed", "nonsense", |address| {
            address.reason.as_deref() == Some("InvalidAddress")
        })
        .await?;
    ensure!(bad.message.as_deref().is_some_and(|text| text.contains("take it out of spec.reservedIPs")), "{bad:?}");

    condition(stage, "mixed", "AddressesValid", "InvalidSpec").await?;
    let ready = condition(stage, "version-1", "Ready", "InvalidSpec").await?;
    ensure!(ready.contains("spec.cloud.provider"), "{ready}");
    wait_for("an event names the text", PATIENCE, || async {
        let events = stage.cluster.kubectl(&["get", "events", "--namespace", "default"]).await?;
        Ok(Seen::when(events.lines().any(|line| line.contains("InvalidSpec") && line.contains("nonsense")), events))
    })
    .await?;

    // Its rules are back, and its status is written all the same: the API server ratchets.
    let stored = stage.allocation("mixed").await?.context("mixed is gone")?;
    ensure!(stored.spec.reserved_ips.len() == 3, "nothing of the spec is lost: {:?}", stored.spec.reserved_ips);
    Ok(())
}

/// Waits for the reason of a condition; gives its message.
async fn condition(stage: &Stage, name: &str, kind: &str, reason: &str) -> Result<String> {
    wait_for(&format!("{kind} of {name} says {reason}"), PATIENCE, || async {
        let status = stage.allocation(name).await?.and_then(|object| object.status).unwrap_or_default();
        Ok(match status.conditions.iter().find(|condition| condition.type_ == kind && condition.reason == reason) {
            Some(condition) => Seen::Yes(condition.message.clone()),
            None => Seen::NotYet(format!("{:?}", status.conditions)),
        })
    })
    .await
}
