//! Bad input is refused with a sentence, or told in status and by an event; and nobody else is disturbed.

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::NodeSpec,
    stage::{PROJECT, REGION},
    world::Address,
};
use kube::ResourceExt;

use crate::story::{Story, parse, tell};

/// An allocation of the same pool that must not notice anything.
struct Bystander {
    name: String,
    ip: String,
    node: String,
}

impl Bystander {
    /// Attached to one of the pool's nodes.
    async fn come(story: &Story) -> Result<Self> {
        let (name, ip) = (format!("{}-bystander", story.name), story.ip());
        story.stage.cluster.apply(&story.manifest(&name, &[&ip], "")).await?;
        let node = story.stage.until_attached(&name, &ip).await?;
        Ok(Self { name, ip, node })
    }

    /// Its address has not moved, nobody has touched its machine, and it is Ready.
    async fn is_undisturbed(&self, story: &Story) -> Result<()> {
        let address =
            story.stage.address(&self.name, &self.ip).await?.context("the bystander's address is forgotten")?;
        ensure!(address.state == "Attached" && address.node.as_ref() == Some(&self.node), "{address:?}");
        ensure!(story.holder(&self.ip).as_ref() == Some(&self.node), "it is on {:?}", story.holder(&self.ip));
        let attached = |call: &&e2e::world::Call| call.method == "instances.addAccessConfig";
        let changes = story.changes(&self.node);
        ensure!(changes.iter().filter(attached).count() == 1, "its machine was changed: {changes:?}");
        let object = story.stage.allocation(&self.name).await?.context("the bystander is gone")?;
        let ready = object.status.iter().flat_map(|status| &status.conditions).find(|is| is.type_ == "Ready");
        ensure!(ready.is_some_and(|ready| ready.status == "True"), "{ready:?}");
        Ok(())
    }
}

/// A cloud block of the stage's region, and everything else that a spec needs.
fn spec(lines: &str) -> String {
    format!(
        "
apiVersion: netinfra.darkbrains.com/v1alpha1
kind: NetIPAllocation
metadata: {{name: refused}}
spec:
{lines}
"
    )
}

#[tokio::test]
async fn a_spec_that_cannot_be_meant_is_refused_with_a_sentence() -> Result<()> {
    const CLOUD: &str = "  cloud: {provider: gcp, region: us-west1}\n";
    let good = |more: &str| format!("  reservedIPs: [203.0.113.250]\n{CLOUD}{more}");
    let cases = [
        (format!("  reservedIPs: [nonsense]\n{CLOUD}"), "\"nonsense\" is not an IP address"),
        (format!("  reservedIPs: [203.0.113.250, 203.0.113.250]\n{CLOUD}"), "Duplicate value: \"203.0.113.250\""),
        (format!("  reservedIPs: ['::FFFF']\n{CLOUD}"), "write the address in canonical form"),
        (format!("  reservedIPs: [127.0.0.1]\n{CLOUD}"), "the address must be a unicast address that can be routed"),
        (
            format!("  reservedIPs: ['2a00:1450::1']\n{CLOUD}"),
            "IPv6 is not supported: an address is kept on nodes as IPv4 only",
        ),
        (format!("  reservedIPs: []\n{CLOUD}"), "spec needs reservedIPs with at least one address, or addressSelector"),
        (good("  reconcileInterval: 4"), "should be greater than or equal to 5"),
        (
            good("  workloadRef: {kind: Deployment, name: a}\n  deploymentRef: {name: a}"),
            "give workloadRef or deploymentRef, not both; deploymentRef is the deprecated form",
        ),
        (
            good("  workloadRef: {kind: Pod, name: a}"),
            "supported values: \"Deployment\", \"StatefulSet\", \"DaemonSet\"",
        ),
        (good("  reservedIps: [203.0.113.251]"), "unknown field \"spec.reservedIps\""),
        (good("  minAttached: many"), "minAttached must be a count of 0 or more, or a percentage from 0% to 100%"),
        (good("  nodeTaint: {key: node.kubernetes.io/mine}"), "nodeTaint.key must not be in kubernetes.io"),
        (
            "  reservedIPs: [203.0.113.250]\n  cloud: {region: us-west1}".to_owned(),
            "cloud.provider is required; one of",
        ),
        (
            "  reservedIPs: [203.0.113.250]\n  cloud: {provider: aws, project: mine}".to_owned(),
            "cloud.project is for provider gcp",
        ),
    ];
    tell("refused", async |story| {
        story.nodes("a").await?;
        let bystander = Bystander::come(story).await?;
        for (lines, sentence) in &cases {
            let refused = story.stage.cluster.apply(&spec(lines)).await;
            let said = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
            ensure!(said.contains(sentence), "wanted: {sentence}\nsaid: {said}\nof: {lines}");
        }
        ensure!(story.stage.allocation("refused").await?.is_none(), "one was stored");
        bystander.is_undisturbed(story).await
    })
    .await
}

#[tokio::test]
async fn an_address_that_is_not_reserved_is_named_and_the_others_attach() -> Result<()> {
    tell("unknown", async |story| {
        story.nodes("abc").await?;
        let bystander = Bystander::come(story).await?;
        let (good, unknown) = (story.ip(), story.unreserved());
        story.allocate(&[&good, &unknown], "").await?;
        story.attached(&good).await?;
        let address = story.said(&unknown, "Unassigned", "AddressNotFound").await?;
        ensure!(address.message.unwrap_or_default().contains("is not reserved in this account"));
        let event = story.event("AddressNotFound").await?;
        ensure!(event.contains(&unknown), "{event}");
        for (kind, status) in [("Ready", "False"), ("AddressesValid", "False"), ("Stalled", "True")] {
            let is = story.condition(kind, status, "AddressNotFound").await?;
            ensure!(is.message.contains(&unknown), "{is:?}");
        }
        bystander.is_undisturbed(story).await
    })
    .await
}

#[tokio::test]
async fn an_address_of_another_region_says_which() -> Result<()> {
    tell("region", async |story| {
        story.nodes("ab").await?;
        let bystander = Bystander::come(story).await?;
        let ip = story.ip_elsewhere();
        story.allocate(&[&ip], "").await?;
        let address = story.said(&ip, "Unassigned", "WrongRegion").await?;
        ensure!(address.message.unwrap_or_default().contains("is reserved in region us-east1"));
        ensure!(story.event("WrongRegion").await?.contains("us-east1"));
        story.condition("AddressesValid", "False", "WrongRegion").await?;
        story.condition("Ready", "False", "AddressNotFound").await?;
        bystander.is_undisturbed(story).await
    })
    .await
}

/// The allocation has nowhere to go: Ready and the address say why, and the bystander is left alone.
async fn has_no_node(story: &Story, ip: &str, bystander: &Bystander, because: &str) -> Result<()> {
    story
        .until(ip, |address| {
            address.state == "Unassigned"
                && address.reason.as_deref() == Some("NoEligibleNode")
                && address.message.as_ref().is_some_and(|said| said.contains(because))
        })
        .await?;
    let is = story.condition("Ready", "False", "NoEligibleNode").await?;
    ensure!(is.message.contains(because), "{is:?}");
    bystander.is_undisturbed(story).await
}

/// The event of the first time that it had nowhere to go.
async fn event_says(story: &Story, because: &str) -> Result<()> {
    let event = story.event("NoEligibleNode").await?;
    ensure!(event.contains(because), "{event}");
    Ok(())
}

#[tokio::test]
async fn a_selector_that_matches_no_node_says_so() -> Result<()> {
    tell("nowhere", async |story| {
        story.nodes("ab").await?;
        let bystander = Bystander::come(story).await?;
        let ip = story.ip();
        let lost = story.manifest("nowhere", &[&ip], "").replace("pool: nowhere", "pool: nobody");
        story.stage.cluster.apply(&lost).await?;
        has_no_node(story, &ip, &bystander, "check spec.nodeSelector").await?;
        event_says(story, "check spec.nodeSelector").await?;
        // With the project given nothing has to be taken from nodes; the sentence is the scheduler's.
        story
            .stage
            .cluster
            .apply(&lost.replace("provider: gcp", &format!("provider: gcp, project: {PROJECT}")))
            .await?;
        has_no_node(story, &ip, &bystander, "no node is selected; check spec.nodeSelector").await?;
        story.allocate(&[&ip], "").await?;
        story.attached(&ip).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_provider_that_is_not_the_nodes_says_so() -> Result<()> {
    tell("provider", async |story| {
        story.nodes("ab").await?;
        let bystander = Bystander::come(story).await?;
        let ip = story.ip();
        let aws = story.manifest("provider", &[&ip], "").replace("provider: gcp", "provider: aws");
        story.stage.cluster.apply(&aws).await?;
        has_no_node(story, &ip, &bystander, "no selected node has a provider ID of aws").await?;
        event_says(story, "no selected node has a provider ID of aws").await
    })
    .await
}

#[tokio::test]
async fn nodes_without_a_provider_id_are_counted_and_left_alone() -> Result<()> {
    tell("anonymous", async |story| {
        story.nodes("a").await?;
        let bystander = Bystander::come(story).await?;
        let ip = story.ip();
        for name in ["anonymous-x", "anonymous-y"] {
            story
                .stage
                .cluster
                .add_node(NodeSpec::new(name).label("pool", "anonymous").label("nameless", "yes"))
                .await?;
        }
        let lost = story.manifest("anonymous", &[&ip], "").replace("pool: anonymous", "nameless: 'yes'");
        story.stage.cluster.apply(&lost).await?;
        has_no_node(story, &ip, &bystander, "no selected node has a provider ID of gcp").await?;
        event_says(story, "no selected node has a provider ID of gcp").await?;
        // One node with an identity gives project and region; the others are counted.
        story.allocate(&[&ip], "").await?;
        has_no_node(story, &ip, &bystander, "3 nodes selected: 1 hold an address, 2 without a provider ID").await?;
        for name in ["anonymous-x", "anonymous-y"] {
            story.labelled(name, None).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn p5_of_two_allocations_that_name_one_address_the_incumbent_keeps_it() -> Result<()> {
    tell("claim", async |story| {
        story.nodes("abc").await?;
        let bystander = Bystander::come(story).await?;
        let own = story.ip();
        story.allocate(&[&own, &bystander.ip], "").await?;
        story.attached(&own).await?;
        let address = story.said(&bystander.ip, "Unassigned", "DuplicateClaim").await?;
        let message = address.message.unwrap_or_default();
        ensure!(message.contains("NetIPAllocation claim-bystander has this address"), "{message}");
        ensure!(story.event("DuplicateClaim").await?.contains("claim-bystander"));
        story.condition("Ready", "False", "DuplicateClaim").await?;
        story.another_look().await?;
        bystander.is_undisturbed(story).await?;

        // When the incumbent lets go, the challenger has it.
        story.kubectl("delete nia claim-bystander --timeout=60s").await?;
        story.attached(&bystander.ip).await.map(drop)
    })
    .await
}

/// Both manifests of the README, the old form included, under `--validate=strict`.
#[tokio::test]
async fn a_new_manifest_and_one_of_the_old_form_apply_and_attach() -> Result<()> {
    const NEW: &str = "
apiVersion: netinfra.darkbrains.com/v1alpha1
kind: NetIPAllocation
metadata: {name: example-allocation}
spec:
  reservedIPs: [34.123.45.67, 34.123.45.68]
  workloadRef: {kind: Deployment, name: my-app, namespace: default}
  nodeSelector: {role: external-ip-node}
  cloud: {provider: gcp, region: us-west1, zones: [us-west1-a, us-west1-b]}
  reconcileInterval: 60
";
    const OLD: &str = "
apiVersion: netinfra.darkbrains.com/v1alpha1
kind: NetIPAllocation
metadata: {name: temp-pool-ips, namespace: test}
spec:
  reservedIPs: [104.196.101.157, 34.23.73.36]
  nodeSelector: {role: temp-pool}
  deploymentRef: {name: temp-pool, namespace: test}
  cloud: {provider: gcp, region: us-east1, zones: [us-east1-d, us-east1-b, us-east1-c]}
  strategy: {maxSurge: 1, maxUnavailable: 0}
  reconcileInterval: 15
";
    tell("manifest", async |story| {
        for (region, zone, role, ips) in [
            (REGION, "us-west1-a", "external-ip-node", ["34.123.45.67", "34.123.45.68"]),
            ("us-east1", "us-east1-b", "temp-pool", ["104.196.101.157", "34.23.73.36"]),
        ] {
            for (number, ip) in ips.iter().enumerate() {
                let name = format!("manifest-{}", ip.replace('.', "-"));
                story.stage.world.add_address(Address::new(PROJECT, region, &name, parse(ip)));
                story.stage.add_node(&format!("manifest-{role}-{number}"), zone, &[("role", role)]).await?;
            }
        }
        for (manifest, name, ips) in [
            (NEW, "example-allocation", ["34.123.45.67", "34.123.45.68"]),
            (OLD, "temp-pool-ips", ["104.196.101.157", "34.23.73.36"]),
        ] {
            story.stage.cluster.apply(manifest).await?;
            for ip in ips {
                story.stage.until_attached(name, ip).await?;
            }
            let object = story.stage.allocation(name).await?.context("not stored")?;
            ensure!(object.namespace().is_none(), "a namespace was kept");
            let workload = object.status.unwrap_or_default().workload;
            ensure!(workload.as_ref().is_some_and(|named| named.contains("Deployment")), "{workload:?}");
        }
        let said = story.kubectl("get nia temp-pool-ips -o jsonpath={.spec.strategy.maxUnavailable}").await?;
        ensure!(said == "0", "the old form's pace is stored as {said}");
        Ok(())
    })
    .await
}
