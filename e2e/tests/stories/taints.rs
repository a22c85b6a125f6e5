//! `spec.nodeTaint`: it keeps pods off selected nodes until an address is verified there, and no other writer's taint is
//! lost over it.

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::PATIENCE,
};
use futures::{StreamExt, TryStreamExt};
use ip_address_controller::api::READY_LABEL;
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::{
    Api, ResourceExt,
    api::{ListParams, PostParams, WatchEvent, WatchParams},
};

use crate::story::{Story, tell};

const TAINT: &str = "  nodeTaint: {key: example.com/no-address}\n";
const KEY: &str = "example.com/no-address";
const OURS: &str = "example.com/no-address:NoSchedule";
/// The taint that the second writer keeps.
const RIVAL: &str = "example.com/rival";

impl Story {
    /// Taints of a node, `key:effect`, without those of the control plane.
    async fn taints(&self, node: &str) -> Result<Vec<String>> {
        let node = self.stage.node(node).await?.context("no such node")?;
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        let mut all: Vec<String> = taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect();
        all.retain(|taint| !taint.starts_with("node.kubernetes.io/"));
        all.sort();
        Ok(all)
    }

    /// Waits until the node has exactly these taints.
    async fn tainted(&self, node: &str, wanted: &[&str]) -> Result<()> {
        wait_for(&format!("taints of {node} to be {wanted:?}"), PATIENCE, || async {
            let has = self.taints(node).await?;
            Ok(Seen::when(has == wanted, has))
        })
        .await
    }

    /// Waits until the node has a taint of that key.
    pub async fn has_taint(&self, node: &str, key: &str) -> Result<()> {
        wait_for(&format!("taint {key} on {node}"), PATIENCE, || async {
            let has = self.taints(node).await?;
            Ok(Seen::when(has.iter().any(|taint| taint.starts_with(&format!("{key}:"))), has))
        })
        .await
    }

    /// Waits until the node has our taint with this value.
    async fn until_value(&self, node: &str, value: &str) -> Result<()> {
        wait_for(&format!("the taint of {node} to be {value}"), PATIENCE, || async {
            let node = self.stage.node(node).await?.context("no such node")?;
            let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
            let found = taints.into_iter().find(|taint| taint.key == KEY).and_then(|taint| taint.value);
            Ok(Seen::when(found.as_deref() == Some(value), found))
        })
        .await
    }

    /// Waits until status says which taint is on nodes.
    async fn records(&self, wanted: Option<&str>) -> Result<()> {
        wait_for(&format!("status.nodeTaint to be {wanted:?}"), PATIENCE, || async {
            let taint = self.allocation().await?.status.and_then(|status| status.node_taint).map(|taint| taint.key);
            Ok(Seen::when(taint.as_deref() == wanted, taint))
        })
        .await
    }
}

#[tokio::test]
async fn p4_the_taint_is_on_every_selected_node_but_the_one_whose_address_is_verified() -> Result<()> {
    tell("taint", async |story| {
        let ip = story.ip();
        story.nodes("ab").await?;
        // One that the pool registers with the taint, and that somebody has tainted besides.
        story.stage.add_node("taint-c", "us-west1-b", &[("pool", "taint")]).await?;
        story.kubectl("taint node taint-c example.com/no-address=born:NoSchedule gpu=yes:NoSchedule").await?;
        story.allocate(&[&ip], TAINT).await?;
        let from = story.attached(&ip).await?;
        let all = ["taint-a", "taint-b", "taint-c"];
        for node in all {
            let mut wanted: Vec<&str> = if node == from { vec![] } else { vec![OURS] };
            wanted.extend((node == "taint-c").then_some("gpu:NoSchedule"));
            story.tainted(node, &wanted).await?;
        }
        story.records(Some(KEY)).await?;

        // It leaves: the taint is the mirror of the labels, on the old node and on the new one, in every version of them.
        let moved = async {
            story.kubectl(&format!("cordon {from}")).await?;
            story.until(&ip, |is| is.state == "Attached" && is.node.as_ref() != Some(&from)).await?;
            let to = story.attached(&ip).await?;
            story.tainted(&from, if from == "taint-c" { &[OURS, "gpu:NoSchedule"] } else { &[OURS] }).await?;
            anyhow::Ok(to)
        };
        let to = tokio::select! {
            broken = both_or_neither(story) => anyhow::bail!("labels and taint at odds: {:?}", broken?),
            to = moved => to?,
        };
        story.tainted(&to, if to == "taint-c" { &["gpu:NoSchedule"] } else { &[] }).await?;

        // Out of the spec: off every node, and then out of status.
        story.kubectl("patch nia taint --type=json -p [{\"op\":\"remove\",\"path\":\"/spec/nodeTaint\"}]").await?;
        story.records(None).await?;
        for node in all {
            story.tainted(node, if node == "taint-c" { &["gpu:NoSchedule"] } else { &[] }).await?;
        }

        // Back, and then away with the allocation.
        story.allocate(&[&ip], TAINT).await?;
        story.tainted(&from, if from == "taint-c" { &[OURS, "gpu:NoSchedule"] } else { &[OURS] }).await?;
        story.kubectl("delete nia taint --wait=false").await?;
        story.gone().await?;
        for node in all {
            story.tainted(node, if node == "taint-c" { &["gpu:NoSchedule"] } else { &[] }).await?;
        }
        Ok(())
    })
    .await
}

/// Waits for a version of a node of the story's pool that has both `ip.ready` and the taint, or neither.
async fn both_or_neither(story: &Story) -> Result<Node> {
    let api: Api<Node> = Api::all(story.stage.client()?);
    let now = api.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    let pool = WatchParams::default().labels(&format!("pool={}", story.name));
    let mut versions = api.watch(&pool, &now).await?.boxed();
    while let Some(event) = versions.try_next().await? {
        if let WatchEvent::Modified(node) = event {
            let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
            let tainted = taints.into_iter().any(|taint| taint.key == KEY);
            if tainted == node.labels().contains_key(READY_LABEL) {
                return Ok(node);
            }
        }
    }
    anyhow::bail!("the watch has ended")
}

#[tokio::test]
async fn a_second_writer_of_taints_loses_none_and_the_operator_reads_again_what_it_left() -> Result<()> {
    tell("rival", async |story| {
        let ip = story.ip();
        let nodes = story.nodes("abc").await?;
        story.allocate(&[&ip], TAINT).await?;
        let holder = story.attached(&ip).await?;
        let others: Vec<&String> = nodes.iter().filter(|node| **node != holder).collect();
        let operator = async {
            // Each value is one more patch of every tainted node, until one of them has come too late.
            for turn in 0.. {
                let value = format!("turn-{turn}");
                let spec = format!("{{\"spec\":{{\"nodeTaint\":{{\"value\":\"{value}\"}}}}}}");
                story.kubectl(&format!("patch nia rival --type=merge -p {spec}")).await?;
                for node in &others {
                    story.until_value(node, &value).await?;
                }
                if refused(story, &others)? {
                    break;
                }
            }
            anyhow::Ok(())
        };
        tokio::select! {
            lost = rival(story, others[0]) => lost,
            lost = rival(story, others[1]) => lost,
            done = operator => done,
        }
    })
    .await
}

/// Writes a taint of its own without a pause, a new value each time. Ends when one that it wrote is gone.
async fn rival(story: &Story, node: &str) -> Result<()> {
    let api: Api<Node> = Api::all(story.stage.client()?);
    let mut written = None;
    for value in 0_u64.. {
        let mut node = api.get(node).await?;
        let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
        let found = taints.iter().find(|taint| taint.key == RIVAL).map(|taint| taint.value.clone());
        ensure!(found == written, "the rival wrote {written:?}, and there is {found:?}");
        taints.retain(|taint| taint.key != RIVAL);
        let taint = Taint {
            key: RIVAL.to_owned(),
            value: Some(value.to_string()),
            effect: "PreferNoSchedule".to_owned(),
            ..Taint::default()
        };
        taints.push(taint.clone());
        match api.replace(&node.name_any(), &PostParams::default(), &node).await {
            Ok(_) => written = Some(taint.value),
            Err(kube::Error::Api(status)) if status.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether a patch of the operator's to one of these nodes was refused because somebody else had written.
fn refused(story: &Story, nodes: &[&String]) -> Result<bool> {
    Ok(story.stage.cluster.audit()?.iter().any(|event| {
        event.verb == "patch"
            && event.resource == "nodes"
            && event.code == 409
            && nodes.contains(&&event.name)
            && event.user.ends_with(":ip-address-controller")
    }))
}
