//! Outsiders in the cloud who put an address where it could have gone by itself.
//!
//! Those who take it away: `failover.rs`.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::PATIENCE,
    world::Actor,
};

use crate::{
    SHARED,
    acts::{allocation, deployment, pool, reserve, running, surveys, until_labelled, until_unlabelled},
};

#[test]
fn p1_p4_an_address_that_an_outsider_moves_to_another_selected_node_is_adopted_there_and_labels_and_pods_follow()
-> Result<()> {
    SHARED.together(async |stage| {
        let (name, ip) = ("carried", "203.0.113.12");
        let address: IpAddr = ip.parse()?;
        reserve(stage, &[ip])?;
        let nodes = pool(stage, name, 2).await?;
        stage.cluster.apply(&allocation(name, &[ip], "")).await?;
        let from = stage.until_attached(name, ip).await?;
        stage.cluster.apply(&deployment(name, 1, 1)).await?;
        running(stage, name, 1).await?;
        let to = nodes.iter().find(|node| **node != from).context("no other node")?;
        stage.world.move_address(address, to).map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;

        let found = stage
            .until("it is adopted where it is", name, ip, |entry| {
                entry.state == "Attached" && entry.node.as_ref() == Some(to)
            })
            .await?;
        ensure!(found.reason.as_deref() == Some("Adopted"), "{found:?}");
        until_labelled(stage, to, name, ip).await?;
        until_unlabelled(stage, &from).await?;
        wait_for("its user runs where it is", PATIENCE, || async {
            let pods = running(stage, name, 1).await?;
            let on = pods[0].spec.as_ref().and_then(|spec| spec.node_name.clone());
            Ok(Seen::when(on.as_ref() == Some(to), on))
        })
        .await?;
        wait_for("the machine that it was taken from has an address of its own again", PATIENCE, || async {
            let own = stage.world.external_ip(&from);
            let owed = stage.allocation(name).await?.and_then(|object| object.status).unwrap_or_default().owed;
            Ok(Seen::when(own.is_some_and(|own| own != address) && owed.is_empty(), (own, owed)))
        })
        .await?;
        surveys(stage, 2).await?;
        ensure!(stage.world.machine_of(address).as_ref() == Some(to), "it was moved on");
        ensure!(stage.world.attaches(address) == 1, "it was put on again");
        let left: Vec<_> = stage.world.removals().into_iter().filter(|gone| gone.ip == Some(address)).collect();
        ensure!(left.len() == 1 && left[0].by == Actor::Outsider, "{left:?}");
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        Ok(())
    })
}
