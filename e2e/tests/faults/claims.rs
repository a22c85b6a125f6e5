//! Allocations that want the same nodes, and one that is not wanted any more before it has what it wanted.

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{PATIENCE, Stage},
    world::{Actor, Holder, Point},
};
use ip_address_controller::api::AddressStatus;
use jiff::Timestamp;
use kube::ResourceExt;

use crate::{
    HIT, SHARED,
    acts::{
        allocation, allocation_on, cast, in_time, labels, pool, reserve, start_operator, stop_operator, surveys,
        until_labelled, until_unlabelled,
    },
};

#[test]
fn p5_two_allocations_on_the_same_nodes_get_a_node_an_address_and_what_is_left_over_waits() -> Result<()> {
    SHARED.together(async |stage| {
        let (name, first, second) = ("shared", ["203.0.113.1", "203.0.113.2"], ["203.0.113.3", "203.0.113.4"]);
        let all = [("shared-one", first), ("shared-two", second)];
        reserve(stage, &first)?;
        reserve(stage, &second)?;
        // More addresses than nodes.
        pool(stage, name, 3).await?;
        for (allocation, ips) in all {
            stage.cluster.apply(&allocation_on(name, allocation, &ips, "")).await?;
        }
        let (attached, waiting) = until_shared_out(stage, &all, 3).await?;
        let [(waits, allocation, entry)] = &waiting[..] else { anyhow::bail!("{waiting:?}") };
        ensure!(entry.message.as_ref().is_some_and(|said| said.contains("3 hold an address")), "{entry:?}");
        surveys(stage, 2).await?;
        ensure!(until_shared_out(stage, &all, 3).await?.0 == attached, "nobody asked for a move");
        for (ip, allocation, node) in &attached {
            until_labelled(stage, node, allocation, ip).await?;
        }

        // As many nodes as addresses, then one more than that.
        stage.add_node("shared-3", stage.venue.zones[0], &[("role", name)]).await?;
        let (now, _) = until_shared_out(stage, &all, 4).await?;
        ensure!(attached.iter().all(|before| now.contains(before)), "{attached:?} became {now:?}");
        ensure!(now.contains(&((*waits).clone(), (*allocation).clone(), "shared-3".to_owned())), "{now:?}");
        until_labelled(stage, "shared-3", allocation, waits).await?;
        stage.add_node("shared-4", stage.venue.zones[1], &[("role", name)]).await?;
        surveys(stage, 2).await?;
        ensure!(until_shared_out(stage, &all, 4).await?.0 == now, "a node to spare moves nothing");
        ensure!(labels(stage, "shared-4").await?.is_empty());
        for (ip, _, node) in &now {
            ensure!(stage.world.machine_of(ip.parse()?).as_ref() == Some(node));
            ensure!(stage.world.attaches(ip.parse()?) == 1);
        }
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        Ok(())
    })
}

/// Address, allocation and node.
type Attached = Vec<(String, String, String)>;
/// Address, allocation and entry.
type Waiting = Vec<(String, String, AddressStatus)>;

/// Waits until so many addresses are Attached, each to a node of its own, and all others say that there is no node.
async fn until_shared_out(stage: &Stage, all: &[(&str, [&str; 2])], count: usize) -> Result<(Attached, Waiting)> {
    wait_for(&format!("{count} addresses are attached"), PATIENCE, || async {
        let (mut attached, mut waiting) = (Vec::new(), Vec::new());
        for (allocation, ips) in all {
            for ip in ips {
                let entry = stage.address(allocation, ip).await?.context("no entry")?;
                let whose = ((*ip).to_owned(), (*allocation).to_owned());
                match (entry.state.as_str(), entry.reason.as_deref(), &entry.node) {
                    ("Attached", _, Some(node)) => attached.push((whose.0, whose.1, node.clone())),
                    ("Unassigned", Some("NoEligibleNode"), _) => waiting.push((whose.0, whose.1, entry)),
                    _ => return Ok(Seen::NotYet(format!("{entry:?}"))),
                }
            }
        }
        let mut nodes: Vec<_> = attached.iter().map(|(_, _, node)| node).collect();
        nodes.sort();
        nodes.dedup();
        ensure!(nodes.len() == attached.len(), "two on one node: {attached:?}");
        Ok(match attached.len() == count {
            true => Seen::Yes((attached, waiting)),
            false => Seen::NotYet(format!("{attached:?}")),
        })
    })
    .await
}

#[test]
fn p9_p10_an_allocation_deleted_while_its_address_attaches_leaves_everything_as_it_was() -> Result<()> {
    SHARED.together(async |stage| {
        let (name, ip) = ("unborn", "203.0.113.5");
        let address = ip.parse()?;
        reserve(stage, &[ip])?;
        let nodes = pool(stage, name, 2).await?;
        let hold = stage.world.hold_of("instances.addAccessConfig", name, Point::Arrival);
        stage.cluster.apply(&allocation(name, &[ip], "")).await?;
        in_time("the attach is on its way", hold.arrived(1)).await?;
        stage.cluster.kubectl(&["delete", "nia", name, "--wait=false"]).await?;
        hold.release();

        wait_for("the object is gone", PATIENCE, || async {
            let left = stage.allocation(name).await?.and_then(|object| object.status);
            Ok(Seen::when(left.is_none() && stage.allocation(name).await?.is_none(), left))
        })
        .await?;
        ensure!(stage.world.holder(address) == Some(Holder::Nobody), "{:?}", stage.world.holder(address));
        for node in &nodes {
            until_unlabelled(stage, node).await?;
            let own = stage.world.machine(node).and_then(|machine| machine.external);
            ensure!(own.as_ref().is_some_and(|own| !own.reserved && own.ip.is_some()), "{node} has {own:?}");
        }
        let taken = stage.world.removals().into_iter().filter(|gone| gone.ip == Some(address));
        let by: Vec<_> = taken.map(|gone| gone.by).collect();
        ensure!(by.len() == stage.world.attaches(address) as usize && by.iter().all(|by| *by == Actor::Api), "{by:?}");
        ensure!(by.len() <= 1, "attached {} times", by.len());
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        Ok(())
    })
}

#[test]
fn p5_of_two_allocations_that_neither_hold_an_address_the_older_has_it_until_it_lets_go() -> Result<()> {
    HIT.alone(async |stage| {
        cast(stage).await?;
        // By name the younger comes first.
        let (older, younger, ip) = ("twins-b", "twins-a", "203.0.113.60");
        let address = ip.parse()?;
        reserve(stage, &[ip])?;
        pool(stage, "twins", 3).await?;
        stop_operator(stage).await?;
        stage.cluster.apply(&allocation_on("twins", older, &[ip], "")).await?;
        // Objects know the second of their creation, and no more.
        let created = stage.allocation(older).await?.and_then(|object| object.creation_timestamp());
        let created = created.context("not stored")?.0.as_second();
        wait_for("the next second", PATIENCE, || async {
            let now = Timestamp::now().as_second();
            Ok(Seen::when(now > created, now))
        })
        .await?;
        stage.cluster.apply(&allocation_on("twins", younger, &[ip], "")).await?;
        start_operator(stage).await?;

        let node = stage.until_attached(older, ip).await?;
        until_labelled(stage, &node, older, ip).await?;
        let entry = stage
            .until("the younger says who has it", younger, ip, |entry| {
                entry.state == "Unassigned" && entry.reason.as_deref() == Some("DuplicateClaim")
            })
            .await?;
        ensure!(entry.message.as_deref().is_some_and(|said| said.contains(older)), "{entry:?}");
        surveys(stage, 2).await?;
        ensure!(stage.world.machine_of(address).as_ref() == Some(&node), "it was moved");
        ensure!(stage.world.attaches(address) == 1, "attached {} times", stage.world.attaches(address));

        stage.cluster.kubectl(&["delete", "nia", older, "--wait=false"]).await?;
        let node = stage.until_attached(younger, ip).await?;
        until_labelled(stage, &node, younger, ip).await?;
        ensure!(stage.world.machine_of(address) == Some(node));
        ensure!(stage.world.attaches(address) == 2, "attached {} times", stage.world.attaches(address));
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        Ok(())
    })
}
