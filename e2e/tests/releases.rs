//! Two releases beside each other: each serves the allocations that carry its label (docs/scale.md, "Several releases").

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;

use std::collections::BTreeSet;

use acts::{
    ACCOUNT, Theatre, allocation, cast, pool, reserve, start_operator, stop_operator, surveys, until_at_rest,
    until_labelled, until_moved,
};
use anyhow::{Result, ensure};
use e2e::{cluster::AuditEvent, stage::Stage};

static THEATRE: Theatre = Theatre::new();

/// The other release, and its namespace.
const OTHER: &str = "ip-address-controller-b";
const OTHER_ACCOUNT: &str = "system:serviceaccount:ip-address-controller-b:ip-address-controller-b";

/// The first release serves what has no label `shard`, the other what has `shard: b`.
async fn install(stage: &Stage) -> Result<()> {
    stage.install(&["controller.watchLabelSelector=!shard"]).await?;
    stage.install_as(OTHER, &["crds.enabled=false", "controller.watchLabelSelector=shard=b"]).await
}

/// Who has changed the allocation since the nth request, the person with kubectl apart.
fn writers(stage: &Stage, nth: usize, name: &str) -> Result<BTreeSet<String>> {
    let is_write = |event: &AuditEvent| {
        let changes = ["update", "patch"].contains(&event.verb.as_str());
        changes && event.resource == "netipallocations" && event.name == name
    };
    let events = stage.cluster.audit()?.into_iter().skip(nth).filter(is_write);
    Ok(events.map(|event| event.user).filter(|user| user.starts_with("system:serviceaccount:")).collect())
}

/// The node that the address is on is cordoned: it moves, and that account alone writes the object.
async fn moves(stage: &Stage, name: &str, ip: &str, by: &str) -> Result<()> {
    let (from, heard) = (stage.until_attached(name, ip).await?, stage.cluster.audit()?.len());
    stage.cluster.kubectl(&["cordon", &from]).await?;
    let to = until_moved(stage, name, ip, &from).await?.node.unwrap();
    until_labelled(stage, &to, name, ip).await?;
    let writers = writers(stage, heard, name)?;
    ensure!(writers == BTreeSet::from([by.to_owned()]), "{name} was written by {writers:?}");
    stage.cluster.kubectl(&["uncordon", &from]).await.map(drop)
}

#[test]
fn each_of_two_releases_serves_its_own_and_one_takes_an_allocation_over_and_moves_nothing() -> Result<()> {
    THEATRE.bare(async |stage| {
        install(stage).await?;
        let (north, south) = (("north", "203.0.113.81"), ("south", "203.0.113.82"));
        for (name, ip) in [north, south] {
            reserve(stage, &[ip])?;
            pool(stage, name, 2).await?;
        }
        let labelled = |manifest: String| manifest.replace("{name: south}", "{name: south, labels: {shard: b}}");
        for (name, ip) in [north, south] {
            stage.cluster.apply(&labelled(allocation(name, &[ip], ""))).await?;
        }
        for ((name, ip), account) in [(north, ACCOUNT), (south, OTHER_ACCOUNT)] {
            let node = stage.until_attached(name, ip).await?;
            until_labelled(stage, &node, name, ip).await?;
            let writers = writers(stage, 0, name)?;
            ensure!(writers == BTreeSet::from([account.to_owned()]), "{name} was written by {writers:?}");
            moves(stage, name, ip, account).await?;
        }

        // North is given to the other release, as docs/scale.md says.
        until_at_rest(stage, north.0).await?;
        until_at_rest(stage, south.0).await?;
        let node = stage.until_attached(north.0, north.1).await?;
        let (changes, before) = (stage.world.mutations().len(), stage.until_led(None).await?);
        stop_operator(stage).await?;
        let heard = stage.cluster.audit()?.len();
        stage.cluster.kubectl(&["label", "nia", north.0, "shard=b", "--overwrite"]).await?;
        start_operator(stage).await?;
        cast(stage).await?;
        stage.until_led(Some(&before)).await?;
        surveys(stage, 4).await?;
        ensure!(stage.until_attached(north.0, north.1).await? == node, "it has moved");
        until_labelled(stage, &node, north.0, north.1).await?;
        ensure!(stage.world.mutations().len() == changes, "the cloud was asked to change something");
        let writers = writers(stage, heard, north.0)?;
        ensure!(!writers.contains(ACCOUNT), "whoever has given it away has written it: {writers:?}");
        moves(stage, north.0, north.1, OTHER_ACCOUNT).await?;

        for ((_, ip), times) in [(north, 3), (south, 2)] {
            ensure!(stage.world.attaches(ip.parse()?) == times, "{ip}: {}", stage.world.attaches(ip.parse()?));
        }
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        Ok(())
    })
}
