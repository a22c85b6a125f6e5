//! The control plane itself fails: API server and etcd.

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{NAMESPACE, PATIENCE, Stage},
    world::{Hold, Point},
};
use nix::sys::signal::Signal;

use crate::{
    HIT,
    acts::{allocation, at_rest, cast, in_time, pool, reserve, surveys, until_labelled},
};

/// An address at rest, and one whose attach is under way.
struct Play<'a> {
    stage: &'a Stage,
    rests: (&'static str, &'static str, String),
    moves: (&'static str, &'static str),
    hold: Hold,
}

impl<'a> Play<'a> {
    async fn begin(
        stage: &'a Stage,
        rests: (&'static str, &'static str),
        moves: (&'static str, &'static str),
    ) -> Result<Self> {
        cast(stage).await?;
        let node = at_rest(stage, rests.0, &[rests.1]).await?.pop().context("no node")?;
        reserve(stage, &[moves.1])?;
        pool(stage, moves.0, 2).await?;
        stage.world.clear_calls();
        let hold = stage.world.hold_of("instances.addAccessConfig", moves.0, Point::Done);
        stage.cluster.apply(&allocation(moves.0, &[moves.1], "")).await?;
        in_time("the attach has taken effect and is not answered", hold.arrived(1)).await?;
        Ok(Self { stage, rests: (rests.0, rests.1, node), moves, hold })
    }

    /// What was under way is finished, once; what was at rest has not been touched.
    async fn ends_well(self) -> Result<()> {
        let Self { stage, rests: (rests, still, node), moves: (moves, ip), hold } = self;
        hold.release();
        let to = stage.until_attached(moves, ip).await?;
        until_labelled(stage, &to, moves, ip).await?;
        surveys(stage, 2).await?;
        ensure!(stage.world.machine_of(ip.parse()?) == Some(to));
        ensure!(stage.world.attaches(ip.parse()?) == 1, "attached {} times", stage.world.attaches(ip.parse()?));
        let entry = stage.address(rests, still).await?.context("no entry")?;
        ensure!(entry.state == "Attached" && entry.node.as_ref() == Some(&node), "{entry:?}");
        until_labelled(stage, &node, rests, still).await?;
        let touched: Vec<_> = stage.world.mutations().into_iter().filter(|call| call.target.contains(rests)).collect();
        ensure!(touched.is_empty(), "what was at rest was touched: {touched:?}");
        ensure!(stage.world.machine_of(still.parse()?) == Some(node));
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        Ok(())
    }
}

#[test]
fn p2_an_api_server_killed_and_started_again_under_way_doubles_nothing_and_moves_nothing() -> Result<()> {
    HIT.alone(async |stage| {
        let play = Play::begin(stage, ("rests-at-server", "203.0.113.30"), ("moves-at-server", "203.0.113.31")).await?;
        stage.cluster.restart("kube-apiserver").await?;
        play.ends_well().await
    })
}

#[test]
fn p8_an_etcd_that_pauses_for_longer_than_the_lease_ends_the_leader_and_nothing_moves_meanwhile() -> Result<()> {
    HIT.alone(async |stage| {
        let play = Play::begin(stage, ("rests-at-etcd", "203.0.113.32"), ("moves-at-etcd", "203.0.113.33")).await?;
        let leader = stage.until_led(None).await?;
        let pid = stage.agent.pid(NAMESPACE, &leader)?;
        let before = stage.world.mutations().len();
        stage.cluster.signal("etcd", Signal::SIGSTOP)?;
        let ended = wait_for("the leader has ended, for it can prove nothing any more", PATIENCE, || async {
            let now = stage.agent.pid(NAMESPACE, &leader).ok();
            Ok(Seen::when(now != Some(pid), now))
        })
        .await;
        let meanwhile = stage.world.mutations();
        stage.cluster.signal("etcd", Signal::SIGCONT)?;
        ended?;
        let said = stage.agent.log(NAMESPACE, &leader)?;
        ensure!(said.contains("leadership was lost"), "{said}");
        ensure!(meanwhile.len() == before, "sent while no status could be written: {meanwhile:?}");
        stage.until_led(None).await?;
        play.ends_well().await?;
        cast(stage).await.map(drop)
    })
}
