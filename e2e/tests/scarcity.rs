//! When there is more to ask of the cloud than the rate budget allows: who has to wait, and who has not. Told by the
//! order of the calls that the cloud has seen.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;

use std::{future::Future, net::IpAddr, time::Duration};

use acts::{Theatre, allocation, in_time, pool, reserve, until_moved};
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{PATIENCE, Stage},
    world::{Call, Latency, World},
};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::sync::OnceCell;

static THEATRE: Theatre = Theatre::new();

/// The chart's own values, instead of those of the other plays. A change takes 8 requests, so one is let through every
/// 1.6 s.
const BUDGET: [&str; 2] = ["controller.cloudApi.qps=5", "controller.cloudApi.burst=10"];
/// So many addresses are placed in a minute, the looks at their machines included.
const MANY: usize = 30;
/// So many of these placements begin before the play does: from then on all others wait for a change.
const SOME: usize = 3;
/// A change takes a while, but less than the next one waits for its tokens.
const LATENCY: Latency =
    Latency { answer: Duration::ZERO, operation: Duration::from_millis(300), spread: Duration::ZERO };
/// Machines and addresses are left as they are, so that the next play is rid of an allocation at once.
const RETAIN: &str = "deletionPolicy: Retain";

/// The first request of a placement that changes something: the machine's own address goes.
const DISPLACES: &str = "instances.deleteAccessConfig";
/// The request that puts an address on.
const ADDS: &str = "instances.addAccessConfig";

/// The operator with little to spend, rid of what an earlier play has left.
async fn begin(stage: &Stage) -> Result<()> {
    static ONCE: OnceCell<()> = OnceCell::const_new();
    ONCE.get_or_try_init(async || {
        stage.install(&BUDGET).await?;
        stage.until_led(None).await.map(drop)
    })
    .await?;
    stage.cluster.kubectl(&["delete", "nia", "--all", "--timeout=120s"]).await?;
    stage.world.clear_calls();
    stage.simulator.record();
    Ok(())
}

/// A play in a cloud that takes its time; the next one finds it quick again, however this one ends.
async fn slowly(stage: &Stage, play: impl Future<Output = Result<()>>) -> Result<()> {
    stage.world.set_latency(LATENCY);
    let result = play.await;
    stage.world.set_latency(Latency::default());
    result
}

/// The manifest of an allocation of many addresses, each of which has a node to go to.
async fn large(stage: &Stage, name: &str, first: usize) -> Result<String> {
    let ips: Vec<String> = (first..first + MANY).map(|last| format!("198.51.100.{last}")).collect();
    let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
    reserve(stage, &ips)?;
    pool(stage, name, MANY).await?;
    Ok(allocation(name, &ips, RETAIN))
}

/// Whether the call is of that method, and about a machine of that pool.
fn is(call: &Call, method: &str, pool: &str) -> bool {
    call.method == method && call.target.contains(&format!("/instances/{pool}-"))
}

fn count(calls: &[Call], method: &str, pool: &str) -> usize {
    calls.iter().filter(|call| is(call, method, pool)).count()
}

/// Waits until so many calls of that method were made about machines of that pool.
async fn until_called(stage: &Stage, times: usize, method: &str, pool: &str) -> Result<()> {
    let called = |world: &World| (count(&world.calls(), method, pool) >= times).then_some(());
    in_time(&format!("{times} times {method} in pool {pool}"), stage.world.until(called)).await
}

/// How often the cloud has been surveyed in this play: the lists that are of more than one address. Those that ask for
/// one alone are calls of the same method, and the log of calls does not tell them apart.
fn surveyed(stage: &Stage) -> usize {
    let given = stage.simulator.recorded();
    let lists = given.iter().filter(|given| given.method == "compute.addresses.list");
    lists.filter(|list| list.body["items"].as_array().is_some_and(|items| items.len() > 1)).count()
}

#[test]
fn a_small_allocation_is_not_held_up_by_a_large_one() -> Result<()> {
    THEATRE.bare(async |stage| {
        begin(stage).await?;
        slowly(stage, a_small_one_comes_late(stage)).await
    })
}

async fn a_small_one_comes_late(stage: &Stage) -> Result<()> {
    // The small one has 6 turns to take: a look at each of its three machines, and a change of each. The large one has
    // - at most one for each of these, because parties take turns: 6;
    // - one more where the small one has nothing to ask for a moment, between an answer and the wish that follows from
    //   it; that is once for each of its addresses: 3;
    // - every fourth turn of all, because its wishes are the older ones: of 6 + 6 + 3 + 5 = 20 turns these are 5;
    // and 2 of its changes may have their tokens before the small one comes, and be sent after that.
    // In a queue that serves whoever came first it would be all that are left, 27.
    const MOST: usize = 6 + 3 + 5 + 2;

    let (many, few, ips) = ("many", "few", ["203.0.113.1", "203.0.113.2", "203.0.113.3"]);
    // Before the first survey: the small one's addresses need not be looked for one by one.
    reserve(stage, &ips)?;
    pool(stage, few, ips.len()).await?;
    let manifest = large(stage, many, 1).await?;
    stage.cluster.apply(&manifest).await?;
    until_called(stage, SOME, ADDS, many).await?;

    stage.cluster.apply(&allocation(few, &ips, RETAIN)).await?;
    let applied = stage.world.calls().len();
    until_called(stage, ips.len(), ADDS, few).await?;
    let placed = count(&stage.world.calls(), ADDS, many);
    ensure!(placed < MANY, "all {MANY} of the large one were placed by then: there was no scarcity");
    let calls = stage.world.calls().split_off(applied);
    let last = calls.iter().rposition(|call| is(call, ADDS, few)).context("nothing was sent for the small one")?;
    let others = count(&calls[..last], ADDS, many);
    println!("the large one had {others} addresses put on before the small one had its {}", ips.len());
    ensure!(others <= MOST, "{others} addresses of the large one came first, of which {MOST} could be explained");

    for ip in ips {
        let node = stage.until_attached(few, ip).await?;
        ensure!(stage.world.machine_of(ip.parse()?) == Some(node));
        ensure!(stage.world.attaches(ip.parse()?) == 1, "attached {} times", stage.world.attaches(ip.parse()?));
    }
    ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
    Ok(())
}

#[test]
fn what_is_lost_comes_before_what_is_drained_and_that_before_what_is_new() -> Result<()> {
    THEATRE.bare(async |stage| {
        begin(stage).await?;
        slowly(stage, one_node_is_lost_and_another_drained(stage)).await
    })
}

async fn one_node_is_lost_and_another_drained(stage: &Stage) -> Result<()> {
    // What is lost takes 4 turns: a look whether its machine is gone, one where the address is now, one at the machine
    // that it goes to, and then the change. What is drained takes 1, its change. Placements are served in between
    // - at every fourth turn, because they have waited longest: of 5 + 2 = 7 turns these are 2 at most;
    // - when neither of the two has a wish in the queue, between an answer and the next wish. That takes far less than
    //   the 1.6 s for which a placement's tokens are gathered, so it happens once for each of the two at most: 2;
    // and 1 may have its tokens already, and begin after that.
    const MOST: usize = 2 + 2 + 1;

    let (crowd, calm, [lost_ip, drained_ip]) = ("crowd", "calm", ["203.0.113.11", "203.0.113.12"]);
    let manifest = large(stage, crowd, 101).await?;
    reserve(stage, &[lost_ip, drained_ip])?;
    // A node for each of the two to go to.
    pool(stage, calm, 4).await?;
    // Both may be on their way at one time: who goes first is up to the budget, not to the pace.
    let more = format!("strategy: {{maxUnavailable: 2}}\n  {RETAIN}");
    stage.cluster.apply(&allocation(calm, &[lost_ip, drained_ip], &more)).await?;
    let lost = stage.until_attached(calm, lost_ip).await?;
    let drained = stage.until_attached(calm, drained_ip).await?;
    let nodes: Api<Node> = Api::all(stage.client()?);
    let (delete, patch) = (DeleteParams::default(), PatchParams::default());
    let cordon = Patch::Merge(json!({"spec": {"unschedulable": true}}));

    stage.cluster.apply(&manifest).await?;
    // What is lost has to be looked at before anything is wished for it; only from then on both are in one queue. No
    // kubectl, which takes a while.
    until_called(stage, SOME, DISPLACES, crowd).await?;
    let (before, surveyed_before) = (stage.world.calls().len(), surveyed(stage));
    stage.world.delete_machine(&lost);
    nodes.delete(&lost, &delete).await?;
    stage.until("it is known to be lost", calm, lost_ip, |address| address.state != "Attached").await?;
    nodes.patch(&drained, &patch, &cordon).await?;
    let to = until_moved(stage, calm, lost_ip, &lost).await?.node.context("attached to no node")?;
    until_moved(stage, calm, drained_ip, &drained).await?;

    let calls = stage.world.calls().split_off(before);
    let changed = |node: &str| {
        let target = format!("/instances/{node}");
        let first = calls.iter().position(|call| call.mutating && call.target.ends_with(&target));
        first.with_context(|| format!("nothing was changed on {node}"))
    };
    let (failover, drain) = (changed(&to)?, changed(&drained)?);
    let placed = |until: usize| count(&calls[..until], DISPLACES, crowd);
    println!("{} placements began before the failover, {} before the drain", placed(failover), placed(drain));
    ensure!(failover < drain, "the drain came first; {} placements before the failover", placed(failover));
    ensure!(placed(drain) <= MOST, "{} placements came first, of which {MOST} could be explained", placed(drain));

    // It is the least urgent of all, and yet it does not wait until all the others are through.
    wait_for("a survey since then", PATIENCE, || async {
        let now = surveyed(stage);
        Ok(Seen::when(now > surveyed_before, now))
    })
    .await?;
    let begun = count(&stage.world.calls(), DISPLACES, crowd);
    println!("{begun} of {MANY} placements had begun when the next survey was made");
    ensure!(begun < MANY, "no survey was made before the last placement had begun");

    for (ip, from) in [(lost_ip, &lost), (drained_ip, &drained)] {
        let address: IpAddr = ip.parse()?;
        ensure!(stage.world.machine_of(address).is_some_and(|node| node != *from), "{ip} is still on {from}");
        ensure!(stage.world.attaches(address) == 2, "{ip} was attached {} times", stage.world.attaches(address));
    }
    ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
    Ok(())
}
