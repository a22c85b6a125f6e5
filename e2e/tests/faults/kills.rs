//! The leader is killed with SIGKILL in the middle of every kind of effect at once, before and after they took place; the
//! next one finishes each, once.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Checkpoint, Seen, checkpoint::Held, wait_for},
    stage::{NAMESPACE, PATIENCE, Stage},
    world::{Actor, Hold, Holder, Outcome, Point},
};
use kube::ResourceExt;
use nix::sys::signal::Signal;

use crate::{
    HIT,
    acts::{
        ACCOUNT, allocation, cast, deployment, in_time, kill_leader, labels, pool, reserve, running, surveys,
        until_labelled, until_moved, until_unlabelled,
    },
};

/// What a leader does to the world; each has an allocation of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// The address goes on.
    Attach,
    /// The address comes off.
    Detach,
    /// The machine that it has left gets an address of its own back.
    Restore,
    Label,
    Unlabel,
    Evict,
}

const ALL: [(&str, Effect); 6] = [
    ("attach", Effect::Attach),
    ("detach", Effect::Detach),
    ("restore", Effect::Restore),
    ("label", Effect::Label),
    ("unlabel", Effect::Unlabel),
    ("evict", Effect::Evict),
];

#[test]
fn p2_p10_a_leader_killed_before_any_of_its_effects_took_place_is_succeeded_by_one_that_finishes_each() -> Result<()> {
    HIT.alone(async |stage| {
        let play = Play::begin(stage, "before", 10).await?;
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
    })
}

#[test]
fn p2_p10_a_leader_killed_after_all_of_its_effects_took_place_is_succeeded_by_one_that_finishes_each() -> Result<()> {
    HIT.alone(async |stage| {
        let play = Play::begin(stage, "after", 20).await?;
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
    })
}

async fn finish(stage: &Stage, acts: &[Act]) -> Result<()> {
    stage.until_led(None).await?;
    for act in acts {
        act.finished(stage).await.with_context(|| format!("{act:?}"))?;
    }
    Ok(())
}

/// Everything has landed, and nothing follows from it.
async fn at_rest(stage: &Stage, acts: &[Act]) -> Result<()> {
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
    async fn begin(stage: &Stage, name: &str, first: u8) -> Result<Self> {
        let replicas = cast(stage).await?;
        let leader = stage.until_led(None).await?;
        let standby = replicas.iter().map(ResourceExt::name_any).find(|pod| *pod != leader).context("no standby")?;
        let acts = (first..).zip(ALL).map(|(last, (what, effect))| {
            let (name, ip) = (format!("{what}-{name}"), format!("203.0.113.{last}"));
            Act::prepare(stage, effect, name, ip)
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
        futures::future::try_join_all(waits.iter().map(|act| act.begin(stage))).await?;
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

/// One effect in one play.
#[derive(Debug)]
struct Act {
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
    async fn prepare(stage: &Stage, effect: Effect, name: String, ip: String) -> Result<Self> {
        reserve(stage, &[&ip])?;
        pool(stage, &name, 2).await?;
        let nodes = [format!("{name}-0"), format!("{name}-1")];
        let (mut from, mut pod) = (String::new(), String::new());
        if !matches!(effect, Effect::Attach | Effect::Label) {
            let more = format!("workloadRef: {{kind: Deployment, name: {name}}}\n  drain: {{policy: Evict}}");
            let more = if effect == Effect::Unlabel { more.replace("Evict", "Wait") } else { more };
            stage.cluster.apply(&allocation(&name, &[&ip], &more)).await?;
            from = stage.until_attached(&name, &ip).await?;
            let users = u32::from(matches!(effect, Effect::Unlabel | Effect::Evict));
            stage.cluster.apply(&deployment(&name, users, 1)).await?;
            pod = running(stage, &name, users as usize).await?.first().map(ResourceExt::name_any).unwrap_or_default();
        }
        Ok(Self { effect, address: ip.parse()?, name, ip, nodes, from, pod })
    }

    fn hold_on_the_way_to_the_cloud(&self, stage: &Stage) -> Option<Hold> {
        let (method, machine) = match self.effect {
            Effect::Attach => ("instances.addAccessConfig", &self.name),
            Effect::Restore => ("instances.addAccessConfig", &self.from),
            Effect::Detach => ("instances.deleteAccessConfig", &self.from),
            Effect::Label | Effect::Unlabel | Effect::Evict => return None,
        };
        Some(stage.world.hold_of(method, &format!("instances/{machine}"), Point::Arrival))
    }

    fn hold_on_the_way_to_the_server(&self, checkpoint: &Checkpoint) -> Option<Held> {
        match self.effect {
            Effect::Label => Some(checkpoint.hold("nodes", &self.nodes[0])),
            Effect::Unlabel => Some(checkpoint.hold("nodes", &self.from)),
            Effect::Evict => Some(checkpoint.hold("pods/eviction", &self.pod)),
            Effect::Attach | Effect::Detach | Effect::Restore => None,
        }
    }

    /// What makes the leader do it.
    async fn begin(&self, stage: &Stage) -> Result<()> {
        match self.effect {
            Effect::Attach => stage.cluster.apply(&allocation(&self.name, &[&self.ip], "")).await?,
            Effect::Label => {
                // The first node, so that it is known which one will be labelled.
                let here = "cloud: {provider: gcp, zones: [us-west1-a]}";
                let manifest = allocation(&self.name, &[&self.ip], "");
                let cloud =
                    manifest.lines().find(|line| line.contains("cloud:")).context("no cloud")?.trim().to_owned();
                stage.cluster.apply(&manifest.replace(&cloud, here)).await?
            }
            Effect::Unlabel => stage.cluster.kubectl(&["delete", "nia", &self.name, "--wait=false"]).await?,
            Effect::Detach | Effect::Restore | Effect::Evict => stage.cluster.kubectl(&["cordon", &self.from]).await?,
        };
        Ok(())
    }

    /// The effect has taken place, whoever knows of it.
    async fn until_done(&self, stage: &Stage) -> Result<()> {
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
            };
            Ok(Seen::when(done, ()))
        })
        .await
    }

    /// What it was for has come true.
    async fn finished(&self, stage: &Stage) -> Result<()> {
        let Self { name, ip, from, .. } = self;
        match self.effect {
            Effect::Attach | Effect::Label => {
                let node = stage.until_attached(name, ip).await?;
                until_labelled(stage, &node, name, ip).await
            }
            Effect::Detach | Effect::Restore | Effect::Evict => {
                let to = until_moved(stage, name, ip, from).await?.node.unwrap_or_default();
                until_labelled(stage, &to, name, ip).await?;
                until_unlabelled(stage, from).await?;
                self.until_restored(stage).await
            }
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
        }
    }

    async fn until_restored(&self, stage: &Stage) -> Result<()> {
        wait_for("the machine that it has left has an address of its own", PATIENCE, || async {
            let own = stage.world.external_ip(&self.from);
            let owed = stage.allocation(&self.name).await?.and_then(|object| object.status).unwrap_or_default().owed;
            Ok(Seen::when(own.is_some_and(|own| own != self.address) && owed.is_empty(), (own, owed)))
        })
        .await
    }

    /// Nothing was done twice, and nothing has come undone.
    async fn is_done_once(&self, stage: &Stage) -> Result<()> {
        let Self { effect, name, ip, from, address, .. } = self;
        let moved = matches!(effect, Effect::Detach | Effect::Restore | Effect::Evict);
        if *effect == Effect::Unlabel {
            ensure!(stage.world.holder(*address) == Some(Holder::Nobody), "{:?}", stage.world.holder(*address));
        } else {
            let node = stage.until_attached(name, ip).await?;
            ensure!(node != *from && stage.world.machine_of(*address).as_ref() == Some(&node), "it is on {node}");
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
