//! Status edited by hand: it is believed only where a live read agrees.

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{PATIENCE, Stage, provider_id},
    world::{Actor, Machine, Point},
};
use ip_address_controller::api::{AddressStatus, NetIPAllocation, OperationStatus};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    SHARED,
    acts::{
        ACCOUNT, allocation, allocation_on, condition, deployment, in_time, labels, pool, reserve, running, surveys,
        until_labelled, until_moved, writes,
    },
};

/// Writes status past the operator.
async fn write(stage: &Stage, name: &str, status: serde_json::Value) -> Result<()> {
    let api: Api<NetIPAllocation> = Api::all(stage.client()?);
    let patch = Patch::Merge(json!({"status": status}));
    api.patch_status(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Waits until the address is Attached to that node's machine and at rest.
async fn until_right(stage: &Stage, what: &str, name: &str, right: &AddressStatus) -> Result<AddressStatus> {
    stage
        .until(&format!("{what}: put right"), name, &right.ip, |entry| {
            entry.state == "Attached"
                && entry.node == right.node
                && entry.machine_id == right.machine_id
                && entry.operation.is_none()
        })
        .await
}

#[test]
fn p12_falsified_entries_are_put_right_by_what_is_read_and_nothing_moves() -> Result<()> {
    SHARED.together(async |stage| {
        let name = "falsified";
        let ips: Vec<String> = (20..20 + LIES.len()).map(|last| format!("203.0.113.{last}")).collect();
        let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
        reserve(stage, &ips)?;
        let nodes = pool(stage, name, ips.len() + 1).await?;
        // Short, so that whoever believes that a node is gone acts on it within this test.
        stage.cluster.apply(&allocation(name, &ips, "failover: {notReadySeconds: 10}")).await?;
        let mut right = Vec::new();
        for ip in &ips {
            let node = stage.until_attached(name, ip).await?;
            until_labelled(stage, &node, name, ip).await?;
            right.push(stage.address(name, ip).await?.context("no entry")?);
        }
        let spare = nodes.iter().find(|node| right.iter().all(|entry| entry.node.as_ref() != Some(node)));
        let spare = stage.world.machine(spare.context("no node to spare")?).context("no machine to spare")?;
        let moves = || stage.world.removals().iter().filter(|gone| nodes.contains(&gone.machine.name)).count();
        let before = moves();

        let wrong: Vec<_> = LIES.iter().zip(&right).map(|((_, lie), entry)| lie(entry.clone(), &spare)).collect();
        write(stage, name, json!({"addresses": wrong})).await?;
        for ((what, _), right) in LIES.iter().zip(&right) {
            until_right(stage, what, name, right).await?;
        }
        // Long enough to act on what is not to be believed.
        surveys(stage, 3).await?;
        for ((what, _), right) in LIES.iter().zip(&right) {
            until_right(stage, what, name, right).await?;
            let node = right.node.as_ref().context("no node")?;
            until_labelled(stage, node, name, &right.ip).await?;
            ensure!(stage.world.machine_of(right.ip.parse()?).as_ref() == Some(node), "{what}: it was moved");
            ensure!(stage.world.attaches(right.ip.parse()?) == 1, "{what}: it was attached again");
        }
        ensure!(labels(stage, &spare.key.name).await?.is_empty());
        ensure!(moves() == before, "an address was taken off");
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        Ok(())
    })
}

/// What a person makes of an entry that is Attached; the machine is one to spare.
type Lie = fn(AddressStatus, &Machine) -> AddressStatus;

const LIES: [(&str, Lie); 7] = [
    ("state Draining", |entry, _| AddressStatus { state: "Draining".to_owned(), ..entry }),
    ("state Unassigned", |entry, _| AddressStatus { node: None, machine_id: None, ..state("Unassigned", entry) }),
    ("state Detached", |entry, _| AddressStatus { node: None, machine_id: None, ..state("Detached", entry) }),
    ("another node", |entry, spare| AddressStatus { node: Some(spare.key.name.clone()), ..entry }),
    ("a node that is not there", |entry, _| AddressStatus { node: Some("nobody".to_owned()), ..entry }),
    ("another life of the machine", |entry, _| AddressStatus {
        machine_id: entry.machine_id.map(|id| id.replace('#', "#1")),
        ..entry
    }),
    ("another node and its machine", elsewhere),
];

fn elsewhere(entry: AddressStatus, spare: &Machine) -> AddressStatus {
    AddressStatus {
        node: Some(spare.key.name.clone()),
        machine_id: Some(format!("{}#{}", provider_id(&spare.key.zone, &spare.key.name), spare.id)),
        ..entry
    }
}

fn state(state: &str, entry: AddressStatus) -> AddressStatus {
    AddressStatus { state: state.to_owned(), reason: Some("Released".to_owned()), ..entry }
}

#[test]
fn p2_p12_entries_falsified_while_their_attaches_are_under_way_are_put_right_and_nothing_is_doubled() -> Result<()> {
    SHARED.together(async |stage| {
        let name = "interrupted";
        let ips: Vec<String> = (32..32 + LIES_UNDER_WAY.len()).map(|last| format!("203.0.113.{last}")).collect();
        let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
        reserve(stage, &ips)?;
        let nodes = pool(stage, name, ips.len() + 1).await?;
        let hold = stage.world.hold_of("instances.addAccessConfig", &format!("instances/{name}"), Point::Done);
        stage.cluster.apply(&allocation(name, &ips, "")).await?;
        in_time("all have taken effect and are not answered", hold.arrived(ips.len())).await?;
        let mut meant = Vec::new();
        for ip in &ips {
            meant.push(stage.until("it is on its way", name, ip, |entry| entry.state == "Attaching").await?);
        }
        let spare = nodes.iter().find(|node| meant.iter().all(|entry| entry.node.as_ref() != Some(node)));
        let spare = stage.world.machine(spare.context("no node to spare")?).context("no machine to spare")?;
        let wrong: Vec<_> =
            LIES_UNDER_WAY.iter().zip(&meant).map(|((_, lie), entry)| lie(entry.clone(), &spare)).collect();
        write(stage, name, json!({"addresses": wrong})).await?;
        // Long enough to act on what is not to be believed.
        surveys(stage, 2).await?;
        hold.release();

        for ((what, _), meant) in LIES_UNDER_WAY.iter().zip(&meant) {
            // The operation stays while it may be another's that is under way: a forged one for as long as an intent lives.
            stage
                .until(&format!("{what}: put right"), name, &meant.ip, |entry| {
                    entry.state == "Attached" && entry.node == meant.node && entry.machine_id == meant.machine_id
                })
                .await?;
        }
        surveys(stage, 2).await?;
        for ((what, _), meant) in LIES_UNDER_WAY.iter().zip(&meant) {
            let (node, address) = (meant.node.as_ref().context("no node")?, meant.ip.parse()?);
            until_labelled(stage, node, name, &meant.ip).await?;
            ensure!(stage.world.machine_of(address).as_ref() == Some(node), "{what}: it was moved");
            ensure!(stage.world.attaches(address) == 1, "{what}: it was attached again");
        }
        ensure!(labels(stage, &spare.key.name).await?.is_empty());
        let own = stage.world.machine(&spare.key.name).and_then(|machine| machine.external);
        ensure!(own.is_some_and(|own| !own.reserved && own.ip.is_some()), "the node to spare was touched");
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        Ok(())
    })
}

/// What a person makes of an entry that is Attaching.
const LIES_UNDER_WAY: [(&str, Lie); 4] = [
    ("another operation", |entry, _| {
        let id = "00000000-0000-4000-8000-000000000000".to_owned();
        let operation = entry.operation.map(|operation| OperationStatus { id, ..operation });
        AddressStatus { operation, ..entry }
    }),
    ("state Attached and no operation", |entry, _| AddressStatus { operation: None, ..state("Attached", entry) }),
    ("state Unassigned and nothing else", |entry, _| AddressStatus {
        node: None,
        machine_id: None,
        operation: None,
        ..state("Unassigned", entry)
    }),
    ("another node and its machine", elsewhere),
];

#[test]
fn p10_a_debt_struck_off_by_hand_while_it_is_paid_leaves_no_machine_without_an_address_and_doubles_nothing()
-> Result<()> {
    SHARED.together(async |stage| {
        let (name, ip) = ("struck", "203.0.113.36");
        let address = ip.parse()?;
        reserve(stage, &[ip])?;
        pool(stage, name, 2).await?;
        stage.cluster.apply(&allocation(name, &[ip], "")).await?;
        let from = stage.until_attached(name, ip).await?;
        // Both: the old machine's own address, and this one on the new machine.
        let hold = stage.world.hold_of("instances.addAccessConfig", &format!("instances/{name}"), Point::Done);
        stage.cluster.kubectl(&["cordon", &from]).await?;
        in_time("attach and restore have taken effect and are not answered", hold.arrived(2)).await?;
        let owed = stage.allocation(name).await?.and_then(|object| object.status).unwrap_or_default().owed;
        ensure!(owed.len() == 1 && owed[0].node == from, "the debt was not written before it was paid: {owed:?}");
        write(stage, name, json!({"owed": null})).await?;
        surveys(stage, 2).await?;
        hold.release();

        let to = until_moved(stage, name, ip, &from).await?.node.unwrap_or_default();
        until_labelled(stage, &to, name, ip).await?;
        surveys(stage, 2).await?;
        let owed = stage.allocation(name).await?.and_then(|object| object.status).unwrap_or_default().owed;
        ensure!(owed.is_empty(), "{owed:?}");
        let own = stage.world.machine(&from).and_then(|machine| machine.external);
        ensure!(own.as_ref().is_some_and(|own| !own.reserved && own.ip.is_some()), "{from} has {own:?}");
        ensure!(stage.world.machine_of(address) == Some(to));
        ensure!(stage.world.attaches(address) == 2, "attached {} times", stage.world.attaches(address));
        let cut: Vec<_> = stage.world.removals().into_iter().filter(|gone| gone.ip == Some(address)).collect();
        ensure!(cut.len() == 1 && cut[0].by == Actor::Api, "{cut:?}");
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        Ok(())
    })
}

#[test]
fn p9_status_removed_whole_is_found_again_in_the_cloud_and_neither_addresses_nor_labels_nor_pods_move() -> Result<()> {
    SHARED.together(async |stage| {
        let (name, ips) = ("forgotten", ["203.0.113.30", "203.0.113.31"]);
        reserve(stage, &ips)?;
        pool(stage, name, 3).await?;
        stage
            .cluster
            .apply(&allocation(name, &ips, &format!("workloadRef: {{kind: Deployment, name: {name}}}")))
            .await?;
        let mut before = Vec::new();
        for ip in ips {
            let node = stage.until_attached(name, ip).await?;
            until_labelled(stage, &node, name, ip).await?;
            before.push(node);
        }
        stage.cluster.apply(&deployment(name, 2, 1)).await?;
        let pods: Vec<_> = running(stage, name, 2).await?.into_iter().map(|pod| pod.metadata.uid).collect();
        let touched = || -> Result<usize> {
            let node_writes = writes(&stage.cluster.audit()?).into_iter();
            let ours = node_writes.filter(|event| event.resource == "nodes" && event.name.starts_with(name));
            Ok(ours.count())
        };
        let labelled = touched()?;

        write(stage, name, serde_json::Value::Null).await?;
        for (ip, node) in ips.iter().zip(&before) {
            let found = stage.until("it is adopted", name, ip, |entry| entry.state == "Attached").await?;
            ensure!(found.reason.as_deref() == Some("Adopted") && found.node.as_ref() == Some(node), "{found:?}");
        }
        surveys(stage, 2).await?;
        for (ip, node) in ips.iter().zip(&before) {
            until_labelled(stage, node, name, ip).await?;
            ensure!(stage.world.machine_of(ip.parse()?).as_ref() == Some(node));
            ensure!(stage.world.attaches(ip.parse()?) == 1);
        }
        ensure!(touched()? == labelled, "{ACCOUNT} has written to a node");
        let now: Vec<_> = running(stage, name, 2).await?.into_iter().map(|pod| pod.metadata.uid).collect();
        ensure!(now == pods, "a pod was disturbed");
        wait_for("Ready again", PATIENCE, || async {
            let ready = condition(stage, name, "Ready").await?;
            Ok(Seen::when(ready.as_deref() == Some("True"), ready))
        })
        .await?;
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        Ok(())
    })
}

#[test]
fn p5_p7_a_status_copied_to_another_allocation_is_let_go_of_there_and_neither_address_nor_labels_nor_pods_notice()
-> Result<()> {
    SHARED.together(async |stage| {
        let (name, copy, ip) = ("original", "copy", "203.0.113.37");
        reserve(stage, &[ip])?;
        pool(stage, name, 2).await?;
        stage.cluster.apply(&allocation(name, &[ip], "drain: {policy: Evict}")).await?;
        let node = stage.until_attached(name, ip).await?;
        until_labelled(stage, &node, name, ip).await?;
        stage.cluster.apply(&deployment(name, 1, 1)).await?;
        let pods: Vec<_> = running(stage, name, 1).await?.into_iter().map(|pod| pod.metadata.uid).collect();
        let status = stage.allocation(name).await?.and_then(|object| object.status).context("no status")?;

        stage.cluster.apply(&allocation_on(name, copy, &[ip], "drain: {policy: Evict}")).await?;
        stage.until("it is the other's", copy, ip, |entry| entry.reason.as_deref() == Some("DuplicateClaim")).await?;
        write(stage, copy, json!({"addresses": status.addresses})).await?;
        stage
            .until("the copy lets go", copy, ip, |entry| {
                entry.state == "Unassigned" && entry.reason.as_deref() == Some("DuplicateClaim")
            })
            .await?;
        // What a person does about a duplicate.
        write(stage, copy, json!({"addresses": status.addresses})).await?;
        stage.cluster.kubectl(&["delete", "nia", copy, "--timeout=60s"]).await?;
        surveys(stage, 2).await?;

        until_labelled(stage, &node, name, ip).await?;
        ensure!(stage.world.machine_of(ip.parse()?) == Some(node), "it was moved");
        ensure!(stage.world.attaches(ip.parse()?) == 1, "it was attached again");
        let now: Vec<_> = running(stage, name, 1).await?.into_iter().map(|pod| pod.metadata.uid).collect();
        ensure!(now == pods, "a pod was disturbed");
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        Ok(())
    })
}
