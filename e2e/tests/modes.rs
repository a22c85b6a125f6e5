//! Letting be and letting go where it concerns everybody: the definition of the resource goes, a cluster is restored from a
//! backup, a person holds everything in the middle of a move. Each has the operator for itself.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use acts::{
    OPERATOR, Theatre, allocation, cast, deployment, in_time, labels, pool, reserve, restarts, running, surveys,
    until_labelled,
};
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{NAMESPACE, PATIENCE, RELEASE, Stage},
    world::{Actor, Point},
};
use ip_address_controller::api::NetIPAllocation;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt, api::ListParams};

static THEATRE: Theatre = Theatre::new();

const CRD: &str = "netipallocations.netinfra.darkbrains.com";

/// Allocations, their addresses, and the node of each.
struct Scenery {
    allocations: Vec<(String, Vec<String>, String)>,
    nodes: BTreeMap<String, String>,
}

impl Scenery {
    /// Allocations of two addresses each, all attached. `more`: further lines of their specs, with `NAME` for the name of each.
    async fn set(stage: &Stage, names: &[&str], first: u8, more: &str) -> Result<Self> {
        let mut scenery = Self { allocations: Vec::new(), nodes: BTreeMap::new() };
        for (n, name) in names.iter().enumerate() {
            let last = first + 2 * u8::try_from(n)?;
            let ips = [format!("203.0.113.{last}"), format!("203.0.113.{}", last + 1)];
            let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
            reserve(stage, &ips)?;
            pool(stage, name, 3).await?;
            let manifest = allocation(name, &ips, &more.replace("NAME", name));
            stage.cluster.apply(&manifest).await?;
            scenery.allocations.push(((*name).to_owned(), ips.iter().map(ToString::to_string).collect(), manifest));
        }
        for (name, ips, _) in &scenery.allocations {
            for ip in ips {
                let node = stage.until_attached(name, ip).await?;
                until_labelled(stage, &node, name, ip).await?;
                scenery.nodes.insert(ip.clone(), node);
            }
        }
        Ok(scenery)
    }

    /// Every address is where it was, the only time that it was put there, and its node says so.
    async fn stands(&self, stage: &Stage) -> Result<()> {
        for (name, ips, _) in &self.allocations {
            for ip in ips {
                let (node, address): (_, IpAddr) = (&self.nodes[ip], ip.parse()?);
                ensure!(stage.world.machine_of(address).as_ref() == Some(node), "{ip} is not on {node} any more");
                ensure!(
                    stage.world.attaches(address) == 1,
                    "{ip} was put there {} times",
                    stage.world.attaches(address)
                );
                until_labelled(stage, node, name, ip).await?;
            }
        }
        let taken = |ip: IpAddr| self.nodes.contains_key(&ip.to_string());
        let removals = stage.world.removals();
        let ours: Vec<_> = removals.iter().filter(|gone| gone.by == Actor::Api && gone.ip.is_some_and(taken)).collect();
        ensure!(ours.is_empty(), "taken off: {ours:?}");
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        Ok(())
    }

    /// Every address is adopted where it is.
    async fn adopted(&self, stage: &Stage) -> Result<()> {
        for (name, ips, _) in &self.allocations {
            for ip in ips {
                let node = &self.nodes[ip];
                let is = |entry: &ip_address_controller::api::AddressStatus| {
                    entry.state == "Attached"
                        && entry.reason.as_deref() == Some("Adopted")
                        && entry.node.as_ref() == Some(node)
                };
                stage.until(&format!("{ip} is adopted on {node}"), name, ip, is).await?;
            }
        }
        self.stands(stage).await
    }
}

async fn gone(stage: &Stage, what: &[&str]) -> Result<()> {
    wait_for(&format!("{what:?} is gone"), PATIENCE, || async {
        let mut get = vec!["get", "--ignore-not-found", "-o", "name"];
        get.extend(what);
        let left = stage.cluster.kubectl(&get).await?;
        Ok(Seen::when(left.trim().is_empty(), left))
    })
    .await
}

#[test]
fn p9_deleting_the_crd_under_load_moves_no_address_and_applying_it_again_adopts_all() -> Result<()> {
    THEATRE.alone(async |stage| {
        let before = cast(stage).await?;
        // A taint each: of one that several ask for the sweep may clear the nodes of those that have gone already (README,
        // limits and gaps).
        let more = "deletionPolicy: Detach\n  nodeTaint: {key: example.com/no-address-NAME}";
        let scenery = Scenery::set(stage, &["crd-a", "crd-b", "crd-c"], 40, more).await?;
        stage.cluster.apply(&deployment("crd-a", 2, 1)).await?;
        let pods = running(stage, "crd-a", 2).await?.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
        let spares = wait_for("the spare node of each pool to have the taint", PATIENCE, || async {
            let tainted = tainted(stage).await?;
            Ok(if tainted.len() == 3 { Seen::Yes(tainted) } else { Seen::NotYet(format!("{tainted:?}")) })
        })
        .await?;
        // One more is on its way: its request has left, and is not answered.
        let late = "203.0.113.50";
        reserve(stage, &[late])?;
        pool(stage, "crd-late", 1).await?;
        let held = stage.world.hold("instances.addAccessConfig", Point::Answer);
        let late_manifest = allocation("crd-late", &[late], "");
        stage.cluster.apply(&late_manifest).await?;
        in_time("the attach under way", held.arrived(1)).await?;
        let load = nodes_come_and_go(stage, &spares);

        stage.cluster.kubectl(&["delete", "crd", CRD, "--wait=false"]).await?;
        tokio::select! {
            ended = load => ended.context("the load ended")?,
            left = three_left(stage) => left?,
        }
        drop(held);
        gone(stage, &["crd", CRD]).await?;
        scenery.stands(stage).await?;
        ensure!(stage.world.machine_of(late.parse()?).as_deref() == Some("crd-late-0"), "what was begun was not ended");
        let taints = tainted(stage).await?;
        ensure!(taints == spares, "taints were changed: on {taints:?}, were on {spares:?}");
        // With nothing left to reconcile the operator lives, and leaves all as it is.
        let still = running(stage, "crd-a", 2).await?.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
        ensure!(still == pods, "pods were disturbed: {still:?}, were {pods:?}");
        for pod in &before {
            ensure!(restarts(stage, &pod.name_any()).await? == 0, "{} has ended", pod.name_any());
        }

        let crd = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/netipallocations.yaml");
        stage.cluster.kubectl(&["apply", "--server-side", "-f", &crd.to_string_lossy()]).await?;
        stage.cluster.kubectl(&["wait", "crd", CRD, "--for=condition=Established", "--timeout=60s"]).await?;
        for (_, _, manifest) in &scenery.allocations {
            stage.cluster.apply(manifest).await?;
        }
        stage.cluster.apply(&late_manifest).await?;
        scenery.adopted(stage).await?;
        until_labelled(stage, "crd-late-0", "crd-late", late).await?;
        ensure!(stage.world.attaches(late.parse()?) == 1);
        let taints = tainted(stage).await?;
        ensure!(taints == spares, "taints were changed meanwhile: on {taints:?}, were on {spares:?}");
        Ok(())
    })
}

/// Nodes without an address are cordoned and uncordoned for ever: passes never rest, and no address has a cause to leave.
async fn nodes_come_and_go(stage: &Stage, spares: &[String]) -> Result<()> {
    loop {
        for verb in ["cordon", "uncordon"] {
            for spare in spares {
                stage.cluster.kubectl(&[verb, spare]).await?;
            }
        }
    }
}

/// Waits until only the allocation whose attach is under way is left, waiting for its end.
async fn three_left(stage: &Stage) -> Result<()> {
    let api: Api<NetIPAllocation> = Api::all(stage.client()?);
    wait_for("all allocations at rest are let go", PATIENCE, || async {
        let left = match api.list(&ListParams::default()).await {
            Ok(left) => left.items.iter().map(ResourceExt::name_any).collect(),
            // The one that is under way has ended, too, and the CRD with it.
            Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        Ok(Seen::when(left.iter().all(|name| name == "crd-late"), left))
    })
    .await
}

/// Nodes with the taint of the allocations.
async fn tainted(stage: &Stage) -> Result<Vec<String>> {
    let nodes = Api::<Node>::all(stage.client()?).list(&ListParams::default()).await?.items;
    let has = |node: &Node| {
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        taints.into_iter().any(|taint| taint.key.starts_with("example.com/no-address-"))
    };
    Ok(nodes.iter().filter(|node| has(node)).map(ResourceExt::name_any).collect())
}

#[test]
fn p9_a_restore_from_a_backup_without_status_adopts_everything_and_moves_nothing() -> Result<()> {
    THEATRE.alone(async |stage| {
        let scenery = Scenery::set(stage, &["backup-a", "backup-b"], 60, "").await?;
        let calls = stage.world.mutations().len();
        let mut backup = Vec::new();
        for (name, _, _) in &scenery.allocations {
            backup.push(without_status(&stage.allocation(name).await?.context("no allocation")?)?);
        }
        // The cluster is lost while nobody runs: objects, with all that only they remembered.
        let deployment = format!("deployment/{RELEASE}");
        stage.cluster.kubectl(&["scale", &deployment, "-n", NAMESPACE, "--replicas=0"]).await?;
        wait_for("no pod of the operator is left", PATIENCE, || async {
            let left = stage.pods(NAMESPACE, OPERATOR).await?.len();
            Ok(Seen::when(left == 0, left))
        })
        .await?;
        for (name, _, _) in &scenery.allocations {
            let free = r#"{"metadata":{"finalizers":null}}"#;
            stage.cluster.kubectl(&["delete", "nia", name, "--wait=false"]).await?;
            stage.cluster.kubectl(&["patch", "nia", name, "--type=merge", "-p", free]).await?;
            gone(stage, &["nia", name]).await?;
        }
        for object in &backup {
            stage.cluster.apply(object).await?;
        }
        stage.cluster.kubectl(&["scale", &deployment, "-n", NAMESPACE, "--replicas=2"]).await?;
        cast(stage).await?;
        scenery.adopted(stage).await?;
        surveys(stage, 2).await?;
        scenery.stands(stage).await?;
        ensure!(stage.world.mutations().len() == calls, "the cloud was asked to change something");
        Ok(())
    })
}

/// What a backup keeps of an object: its spec, and of its metadata what a person may write. The finalizer is in it.
fn without_status(object: &NetIPAllocation) -> Result<String> {
    let mut backup = serde_json::to_value(object)?;
    backup.as_object_mut().context("no object")?.remove("status");
    let metadata = backup["metadata"].as_object_mut().context("no metadata")?;
    for key in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"] {
        metadata.remove(key);
    }
    ensure!(metadata.contains_key("finalizers"), "no finalizer: {metadata:?}");
    Ok(backup.to_string())
}

#[test]
fn mode_hold_lets_a_half_done_move_go_on_to_its_end_and_begins_no_other() -> Result<()> {
    THEATRE.alone(async |stage| {
        let (name, ip) = ("half", "203.0.113.70");
        reserve(stage, &[ip])?;
        let nodes = pool(stage, name, 2).await?;
        stage.cluster.apply(&allocation(name, &[ip], "")).await?;
        let from = stage.until_attached(name, ip).await?;
        let to = nodes.iter().find(|node| **node != from).context("no other node")?;
        // Off the old node, and the request for the new one has arrived.
        let held = stage.world.hold("instances.addAccessConfig", Point::Arrival);
        stage.cluster.kubectl(&["cordon", &from]).await?;
        in_time("the attach to the new node", held.arrived(1)).await?;
        let mode = r#"{"spec":{"mode":"Hold"}}"#;
        stage.cluster.kubectl(&["patch", "nia", name, "--type=merge", "-p", mode]).await?;
        drop(held);
        let attached = |entry: &ip_address_controller::api::AddressStatus| {
            entry.state == "Attached" && entry.node.as_ref() == Some(to)
        };
        stage.until("the move is ended", name, ip, attached).await?;
        until_labelled(stage, to, name, ip).await?;

        stage.cluster.kubectl(&["uncordon", &from]).await?;
        stage.cluster.kubectl(&["cordon", to]).await?;
        stage.until("it says that it is held", name, ip, |entry| entry.reason.as_deref() == Some("Held")).await?;
        surveys(stage, 2).await?;
        ensure!(stage.world.machine_of(ip.parse()?).as_ref() == Some(to), "it was moved by choice");
        ensure!(labels(stage, to).await?.len() == 3);
        Ok(())
    })
}
