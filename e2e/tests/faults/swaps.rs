//! Attach and detach cut short at AWS and Azure, by a kill and by a network that closes every connection.
//!
//! At Google Cloud: `kills.rs` and `cloud.rs`.

use anyhow::{Context, Result, ensure};
use e2e::stage::{NAMESPACE, Stage};
use nix::sys::signal::Signal;

use crate::{
    AWS, AZURE,
    acts::{in_time, kill_leader},
    cloud::closed_in_attach,
    kills::{Act, Effect, at_rest, finish, replicas},
};

#[test]
fn p2_p10_at_aws_a_leader_killed_in_attach_and_detach_is_succeeded_by_one_that_finishes_each() -> Result<()> {
    AWS.alone(killed_in_swaps)
}

#[test]
fn p2_p10_at_azure_a_leader_killed_in_attach_and_detach_is_succeeded_by_one_that_finishes_each() -> Result<()> {
    AZURE.alone(killed_in_swaps)
}

#[test]
fn p3_at_aws_a_network_that_closes_every_connection_in_the_middle_of_an_attach_leaves_nothing_doubled() -> Result<()> {
    AWS.alone(closed_in_attach)
}

#[test]
fn p3_at_azure_a_network_that_closes_every_connection_in_the_middle_of_an_attach_leaves_nothing_doubled() -> Result<()>
{
    AZURE.alone(closed_in_attach)
}

/// Before they have taken effect, and after; by one kill, because its intents are sat out, which takes minutes.
async fn killed_in_swaps(stage: &'static Stage) -> Result<()> {
    let (leader, standby) = replicas(stage).await?;
    let effects = [
        ("attach-before", Effect::Attach),
        ("detach-before", Effect::Detach),
        ("attach-after", Effect::Attach),
        ("detach-after", Effect::Detach),
    ];
    let acts = (10..)
        .zip(effects)
        .map(|(last, (name, effect))| Act::prepare(stage, effect, name.to_owned(), format!("203.0.113.{last}")));
    let acts = futures::future::try_join_all(acts).await?;
    let mut holds = Vec::new();
    for act in &acts {
        holds.push(act.hold_on_the_way_to_the_cloud(stage).context("nothing to hold")?);
    }
    futures::future::try_join_all(acts.iter().map(|act| act.begin(stage))).await?;
    for (act, hold) in acts.iter().zip(&holds) {
        in_time(&format!("{act:?} is on its way"), hold.arrived(1)).await?;
    }
    stage.agent.signal(NAMESPACE, &leader, Signal::SIGSTOP)?;
    // Nobody takes its place before all is as it shall be.
    stage.agent.signal(NAMESPACE, &standby, Signal::SIGSTOP)?;
    drop(holds.split_off(2));
    for act in &acts[2..] {
        act.until_done(stage).await?;
    }
    ensure!(kill_leader(stage).await? == leader, "somebody else led meanwhile");
    // What has left for the cloud is still on its way; what the next leader sends overtakes it.
    for hold in &holds {
        hold.take_no_more();
    }
    stage.agent.signal(NAMESPACE, &standby, Signal::SIGCONT)?;
    finish(stage, &acts).await?;
    drop(holds);
    at_rest(stage, &acts).await
}
