//! The leader is killed with SIGKILL in the middle of every kind of effect at once, before and after they took place; the
//! next one finishes each, once.
//!
//! At AWS and Azure: `swaps.rs`.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Checkpoint, Seen, checkpoint::Held, wait_for},
    stage::{NAMESPACE, PATIENCE, Stage},
    world::{Actor, Hold, Holder, Outcome, Point},
};
use ip_address_controller::api::{FINALIZER, HOLD_ANNOTATION, MOVE_ANNOTATION};
use kube::ResourceExt;
use nix::sys::signal::Signal;

use crate::{
    HIT,
    acts::{
        ACCOUNT, allocation, cast, deployment, here, in_time, kill_leader, labels, pool, reserve, running, surveys,
        until_labelled, until_moved_at_last, until_unlabelled,
    },
};

/// What a leader does to the world; each has an allocation of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The address goes on.
    Attach,
    /// The address comes off.
    Detach,
    /// The machine that it has left gets an address of its own back.
    Restore,
    Label,
    Unlabel,
    Evict,
    /// A node without an address gets the taint.
    Taint,
    /// The finalizer, before anything else is done.
    Finalizer,
    /// A move that was asked for is in status, and its annotation goes.
    Answer,
}

/// On the way of an address.
const JOURNEY: [(&str, Effect); 6] = [
    ("attach", Effect::Attach),
    ("detach", Effect::Detach),
    ("restore", Effect::Restore),
    ("label", Effect::Label),
    ("unlabel", Effect::Unlabel),
    ("evict", Effect::Evict),
];

/// Beside it. The taint first: it comes with a sweep, all else at once.
const BESIDE: [(&str, Effect); 3] =
    [("taint", Effect::Taint), ("finalizer", Effect::Finalizer), ("answer", Effect::Answer)];

/// The taint that [`Effect::Taint`] is about.
const TAINT: &str = "example.com/no-address";

#[test]
fn p2_p10_a_leader_killed_before_any_of_its_effects_took_place_is_succeeded_by_one_that_finishes_each() -> Result<()> {
    HIT.alone(async |stage| killed_before(stage, "before", 10, &JOURNEY).await)
}

#[test]
fn p2_a_leader_killed_before_taint_finalizer_and_answer_are_written_is_succeeded_by_one_that_writes_all() -> Result<()>
{
    HIT.alone(async |stage| killed_before(stage, "before", 16, &BESIDE).await)
}

async fn killed_before(stage: &Stage, name: &str, first: u8, effects: &[(&str, Effect)]) -> Result<()> {
    let play = Play::begin(stage, name, first, effects).await?;
    let Play { leader, acts, clouds, servers, checkpoint, .. } = play;
    ensure!(kill_leader(stage).await? == leader, "somebody else led meanwhile");
    wait_for("the API server has seen that the caller is gone", PATIENCE, || async {
        let waiting: Vec<_> = servers.iter().map(Held::waiting).collect();
        Ok(Seen::when(waiting.iter().all(|count| *count == 0), waiting))
    })
    .await?;
    drop(servers);
    // What has left for the cloud is still on its way; what the next leader sends overtakes it.
    for hold in &clouds {
        hold.take_no_more();
    }
    finish(stage, &acts).await?;

    // Now it lands, in a cloud that does not know any more which requests it has seen.
    stage.world.forget_requests();
    drop(clouds);
    at_rest(stage, &acts).await?;
    checkpoint.close().await
}

#[test]
fn p2_p10_a_leader_killed_after_all_of_its_effects_took_place_is_succeeded_by_one_that_finishes_each() -> Result<()> {
    HIT.alone(async |stage| killed_after(stage, "after", 20, &JOURNEY).await)
}

#[test]
fn p2_a_leader_killed_after_taint_finalizer_and_answer_were_written_is_succeeded_by_one_that_goes_on() -> Result<()> {
    HIT.alone(async |stage| killed_after(stage, "after", 26, &BESIDE).await)
}

async fn killed_after(stage: &Stage, name: &str, first: u8, effects: &[(&str, Effect)]) -> Result<()> {
    let play = Play::begin(stage, name, first, effects).await?;
    let Play { leader, standby, acts, clouds, servers, checkpoint } = play;
    // Nobody takes its place before all is done.
    stage.agent.signal(NAMESPACE, &standby, Signal::SIGSTOP)?;
    drop((clouds, servers));
    for act in &acts {
        act.until_done(stage).await?;
    }
    ensure!(kill_leader(stage).await? == leader, "somebody else led meanwhile");
    stage.agent.signal(NAMESPACE, &standby, Signal::SIGCONT)?;
    finish(stage, &acts).await?;
    at_rest(stage, &acts).await?;
    checkpoint.close().await
}

/// The next leader has brought each to its end.
pub async fn finish(stage: &Stage, acts: &[Act]) -> Result<()> {
    stage.until_led(None).await?;
    for act in acts {
        act.finished(stage).await.with_context(|| format!("{act:?}"))?;
    }
    Ok(())
}

/// Everything has landed, and nothing follows from it.
pub async fn at_rest(stage: &Stage, acts: &[Act]) -> Result<()> {
    wait_for("everything has landed", PATIENCE, || async {
        let calls = stage.world.mutations().into_iter();
        let running: Vec<_> = calls.filter(|call| call.outcome == Outcome::Running).collect();
        Ok(Seen::when(running.is_empty(), running))
    })
    .await?;
    surveys(stage, 2).await?;
    for act in acts {
        act.is_done_once(stage).await.with_context(|| format!("{act:?}"))?;
    }
    ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
    Ok(())
}

/// All effects on their way, none has taken place; and their leader, who stands still, hears no answer any more.
struct Play {
    leader: String,
    standby: String,
    acts: Vec<Act>,
    clouds: Vec<Hold>,
    servers: Vec<Held>,
    checkpoint: Checkpoint,
}

impl Play {
    async fn begin(stage: &Stage, name: &str, first: u8, effects: &[(&str, Effect)]) -> Result<Self> {
        let (leader, standby) = replicas(stage).await?;
        let acts = (first..).zip(effects).map(|(last, (what, effect))| {
            let (name, ip) = (format!("{what}-{name}"), format!("203.0.113.{last}"));
            Act::prepare(stage, *effect, name, ip)
        });
        let acts = futures::future::try_join_all(acts).await?;
        let checkpoint = stage.cluster.checkpoint(ACCOUNT).await?;
        // The cloud's requests wait for as long as we like, the API server's for as long as their caller does: those last.
        let mut clouds = Vec::new();
        for act in &acts {
            if let Some(hold) = act.hold_on_the_way_to_the_cloud(stage) {
                act.begin(stage).await?;
                in_time(&format!("{act:?} is on its way"), hold.arrived(1)).await?;
                clouds.push(hold);
            }
        }
        let (waits, servers): (Vec<_>, Vec<_>) =
            acts.iter().filter_map(|act| Some((act, act.hold_on_the_way_to_the_server(&checkpoint)?))).unzip();
        // Each lasts as long as a request may; so what comes last by itself is begun first.
        let slow = waits.iter().take_while(|act| act.effect == Effect::Taint).count();
        for (act, held) in waits.iter().zip(&servers).take(slow) {
            act.begin(stage).await?;
            in_time(&format!("{act:?} is on its way"), held.arrived()).await?;
        }
        futures::future::try_join_all(waits.iter().skip(slow).map(|act| act.begin(stage))).await?;
        let waiting = || servers.iter().map(Held::waiting).collect::<Vec<_>>();
        wait_for("all that is for the API server is on its way, from a leader who stands still", PATIENCE, || async {
            if waiting().contains(&0) {
                return Ok(Seen::NotYet(format!("{:?}", waiting())));
            }
            stage.agent.signal(NAMESPACE, &leader, Signal::SIGSTOP)?;
            // It may have given one up just before.
            let given_up = waiting().contains(&0);
            if given_up {
                stage.agent.signal(NAMESPACE, &leader, Signal::SIGCONT)?;
            }
            Ok(Seen::when(!given_up, waiting()))
        })
        .await?;
        Ok(Self { leader, standby, acts, clouds, servers, checkpoint })
    }
}

/// Names of leader and standby.
pub async fn replicas(stage: &Stage) -> Result<(String, String)> {
    let replicas = cast(stage).await?;
    let leader = stage.until_led(None).await?;
    let standby = replicas.iter().map(ResourceExt::name_any).find(|pod| *pod != leader).context("no standby")?;
    Ok((leader, standby))
}

/// One effect in one play.
#[derive(Debug)]
pub struct Act {
    effect: Effect,
    name: String,
    ip: String,
    address: IpAddr,
    nodes: [String; 2],
    /// Where the address is before the effect begins, if it is anywhere.
    from: String,
    /// The pod that uses it, if any does.
    pod: String,
}

impl Act {
    /// Everything that the effect needs, at rest.
    pub async fn prepare(stage: &Stage, effect: Effect, name: String, ip: String) -> Result<Self> {
        reserve(stage, &[&ip])?;
        pool(stage, &name, 2).await?;
        let nodes = [format!("{name}-0"), format!("{name}-1")];
        let mut act = Self { effect, address: ip.parse()?, name, ip, nodes, from: String::new(), pod: String::new() };
        if matches!(effect, Effect::Attach | Effect::Label | Effect::Finalizer) {
            return Ok(act);
        }
        let Self { name, ip, .. } = &act;
        let policy = if effect == Effect::Unlabel { "Wait" } else { "Evict" };
        let mut more = format!("workloadRef: {{kind: Deployment, name: {name}}}\n  drain: {{policy: {policy}}}");
        if effect == Effect::Taint {
            more.push_str(&format!("\n  nodeTaint: {{key: {TAINT}}}"));
        }
        stage.cluster.apply(&act.manifest(stage, &more)).await?;
        let from = stage.until_attached(name, ip).await?;
        let users = u32::from(matches!(effect, Effect::Unlabel | Effect::Evict | Effect::Answer));
        stage.cluster.apply(&deployment(name, users, 1)).await?;
        let pod = running(stage, name, users as usize).await?.first().map(ResourceExt::name_any).unwrap_or_default();
        if effect == Effect::Answer {
            // So that the answer is all that is under way.
            stage.cluster.kubectl(&["annotate", "pod", &pod, &format!("{HOLD_ANNOTATION}=true")]).await?;
        }
        if effect == Effect::Taint {
            act.until_tainted(stage).await?;
        }
        (act.from, act.pod) = (from, pod);
        Ok(act)
    }

    /// The allocation. Where one node is spoken of before the address is on one, it goes to the first.
    fn manifest(&self, stage: &Stage, more: &str) -> String {
        let manifest = allocation(&self.name, &[&self.ip], more);
        match self.effect {
            Effect::Label | Effect::Taint => {
                manifest.replace("region: us-west1}", "region: us-west1, zones: [us-west1-a]}")
            }
            _ => here(stage, &manifest),
        }
    }

    /// Holds the effect on its way, if that leads to the cloud.
    pub fn hold_on_the_way_to_the_cloud(&self, stage: &Stage) -> Option<Hold> {
        let (method, target) = match self.effect {
            Effect::Attach => stage.venue.attach(&stage.world, self.address, &self.name),
            Effect::Restore => stage.venue.attach(&stage.world, self.address, &self.from),
            Effect::Detach => stage.venue.detach(&stage.world, &self.from),
            Effect::Label | Effect::Unlabel | Effect::Evict | Effect::Taint | Effect::Finalizer | Effect::Answer => {
                None
            }
        }?;
        Some(stage.world.hold_of(method, &target, Point::Arrival))
    }

    fn hold_on_the_way_to_the_server(&self, checkpoint: &Checkpoint) -> Option<Held> {
        match self.effect {
            Effect::Label => Some(checkpoint.hold("nodes", &self.nodes[0])),
            Effect::Unlabel => Some(checkpoint.hold("nodes", &self.from)),
            Effect::Evict => Some(checkpoint.hold("pods/eviction", &self.pod)),
            Effect::Taint => Some(checkpoint.hold("nodes", &self.nodes[1])),
            Effect::Finalizer | Effect::Answer => Some(checkpoint.hold("netipallocations", &self.name)),
            Effect::Attach | Effect::Detach | Effect::Restore => None,
        }
    }

    /// What makes the leader do it.
    pub async fn begin(&self, stage: &Stage) -> Result<()> {
        let Self { name, from, .. } = self;
        match self.effect {
            Effect::Attach | Effect::Label | Effect::Finalizer => {
                return stage.cluster.apply(&self.manifest(stage, "")).await.map(drop);
            }
            Effect::Unlabel => stage.cluster.kubectl(&["delete", "nia", name, "--wait=false"]).await?,
            Effect::Detach | Effect::Restore | Effect::Evict => stage.cluster.kubectl(&["cordon", from]).await?,
            // Somebody takes it off.
            Effect::Taint => {
                stage.cluster.kubectl(&["taint", "node", &self.nodes[1], &format!("{TAINT}:NoSchedule-")]).await?
            }
            Effect::Answer => {
                let asked = format!("{MOVE_ANNOTATION}={}", self.ip);
                stage.cluster.kubectl(&["annotate", "nia", name, &asked]).await?
            }
        };
        Ok(())
    }

    /// The effect has taken place, whoever knows of it.
    pub async fn until_done(&self, stage: &Stage) -> Result<()> {
        wait_for(&format!("{self:?} has taken place"), PATIENCE, || async {
            let done = match self.effect {
                Effect::Attach => stage.world.machine_of(self.address).is_some(),
                Effect::Detach => stage.world.machine_of(self.address).is_none(),
                Effect::Restore => stage.world.external_ip(&self.from).is_some(),
                Effect::Label => !labels(stage, &self.nodes[0]).await?.is_empty(),
                Effect::Unlabel => labels(stage, &self.from).await?.is_empty(),
                Effect::Evict => {
                    let pods = stage.pods("default", &format!("app={}", self.name)).await?;
                    let known = pods.iter().find(|pod| pod.name_any() == self.pod);
                    known.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())
                }
                Effect::Taint => taints(stage, &self.nodes[1]).await? == 1,
                Effect::Finalizer => {
                    let object = stage.allocation(&self.name).await?.context("no allocation")?;
                    object.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
                }
                Effect::Answer => !self.is_asked(stage).await?,
            };
            Ok(Seen::when(done, ()))
        })
        .await
    }

    /// What it was for has come true.
    async fn finished(&self, stage: &Stage) -> Result<()> {
        let Self { name, ip, from, .. } = self;
        match self.effect {
            Effect::Attach | Effect::Label | Effect::Finalizer => {
                let node = stage.until_attached(name, ip).await?;
                until_labelled(stage, &node, name, ip).await
            }
            Effect::Detach | Effect::Restore | Effect::Evict => self.moved(stage).await,
            Effect::Unlabel => {
                until_unlabelled(stage, from).await?;
                ensure!(stage.world.machine_of(self.address).as_ref() == Some(from), "it has left under its user");
                stage.cluster.kubectl(&["scale", "deployment", name, "--replicas=0"]).await?;
                wait_for("the object is gone", PATIENCE, || async {
                    let left = stage.allocation(name).await?;
                    Ok(Seen::when(left.is_none(), left.and_then(|object| object.status)))
                })
                .await?;
                self.until_restored(stage).await
            }
            Effect::Taint => {
                self.until_tainted(stage).await?;
                until_labelled(stage, from, name, ip).await
            }
            Effect::Answer => {
                wait_for("the move is answered", PATIENCE, || async {
                    Ok(Seen::when(!self.is_asked(stage).await?, stage.address(name, ip).await?))
                })
                .await?;
                let entry = stage.address(name, ip).await?.context("no entry")?;
                let moves = entry.state == "Draining" && entry.reason.as_deref() == Some("MoveRequested");
                ensure!(moves && entry.node.as_ref() == Some(from), "answered, and not followed: {entry:?}");
                ensure!(stage.world.machine_of(self.address).as_ref() == Some(from), "it has left under its user");
                stage.cluster.kubectl(&["scale", "deployment", name, "--replicas=0"]).await?;
                self.moved(stage).await
            }
        }
    }

    /// It is on the other node, and the one that it has left is as it was before it came.
    async fn moved(&self, stage: &Stage) -> Result<()> {
        let Self { name, ip, from, .. } = self;
        let to = until_moved_at_last(stage, name, ip, from).await?.node.unwrap_or_default();
        until_labelled(stage, &to, name, ip).await?;
        until_unlabelled(stage, from).await?;
        self.until_restored(stage).await
    }

    async fn until_restored(&self, stage: &Stage) -> Result<()> {
        wait_for("the machine that it has left has what it had before, and no more is owed", PATIENCE, || async {
            let own = stage.world.external_ip(&self.from);
            let owed = stage.allocation(&self.name).await?.and_then(|object| object.status).unwrap_or_default().owed;
            let as_before = own.is_some() == stage.venue.own_addresses && own != Some(self.address);
            Ok(Seen::when(as_before && owed.is_empty(), (own, owed)))
        })
        .await
    }

    async fn until_tainted(&self, stage: &Stage) -> Result<()> {
        wait_for("the node without the address has the taint, and no other", PATIENCE, || async {
            let [with, without] = [taints(stage, &self.nodes[0]).await?, taints(stage, &self.nodes[1]).await?];
            Ok(Seen::when((with, without) == (0, 1), (with, without)))
        })
        .await
    }

    async fn is_asked(&self, stage: &Stage) -> Result<bool> {
        let object = stage.allocation(&self.name).await?.context("no allocation")?;
        Ok(object.annotations().contains_key(MOVE_ANNOTATION))
    }

    /// Nothing was done twice, and nothing has come undone.
    async fn is_done_once(&self, stage: &Stage) -> Result<()> {
        let Self { effect, name, ip, from, address, .. } = self;
        let moved = matches!(effect, Effect::Detach | Effect::Restore | Effect::Evict | Effect::Answer);
        if *effect == Effect::Unlabel {
            ensure!(stage.world.holder(*address) == Some(Holder::Nobody), "{:?}", stage.world.holder(*address));
        } else {
            let node = stage.until_attached(name, ip).await?;
            let stays = *effect == Effect::Taint;
            ensure!((node == *from) == stays, "it is on {node}");
            ensure!(stage.world.machine_of(*address).as_ref() == Some(&node), "it is not on {node}");
        }
        if *effect == Effect::Taint {
            self.until_tainted(stage).await?;
        }
        ensure!(
            stage.world.attaches(*address) == if moved { 2 } else { 1 },
            "{} attaches",
            stage.world.attaches(*address)
        );
        let removals: Vec<_> = stage.world.removals().into_iter().filter(|gone| gone.ip == Some(*address)).collect();
        let wanted = usize::from(moved || *effect == Effect::Unlabel);
        ensure!(removals.len() == wanted && removals.iter().all(|gone| gone.by == Actor::Api), "{removals:?}");
        if wanted == 1 {
            self.until_restored(stage).await?;
        }
        let evicted = stage
            .cluster
            .audit()?
            .into_iter()
            .filter(|event| event.subresource == "eviction" && event.name.starts_with(name) && event.code == 201);
        ensure!(evicted.count() == usize::from(*effect == Effect::Evict), "evictions");
        Ok(())
    }
}

/// How many taints of ours the node has.
async fn taints(stage: &Stage, node: &str) -> Result<usize> {
    let node = stage.node(node).await?.context("no such node")?;
    let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
    Ok(taints.iter().filter(|taint| taint.key == TAINT).count())
}
