//! What befalls the operator: acts drawn at random of what people, autoscalers, machines, clouds and the cluster itself do; and
//! how all of it is undone again.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{NAMESPACE, PATIENCE, Stage},
    world::{Fault, Latency},
};
use ip_address_controller::api::{HOLD_ANNOTATION, MOVE_ANNOTATION, NetIPAllocation, READY_LABEL};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    chance::Chance,
    ground::{Ground, LATENCY, NODES, Pool},
};

/// So many nodes of a pool are out at once at most, as many addresses out of their specs, and as many at an outsider: the others
/// find a place.
const FEW: usize = 3;
/// So many pods hold at once at most.
const HOLDS: usize = 6;
/// Between two acts at least, and up to so much longer; in milliseconds.
const PAUSE: (u64, usize) = (200, 1000);
/// No act takes longer.
const PATIENT: Duration = Duration::from_secs(120);
/// How often it is told how far it has gone.
const TOLD: Duration = Duration::from_secs(20);
/// A cloud that has a bad day.
const SLOW: Latency =
    Latency { answer: Duration::from_millis(500), operation: Duration::from_secs(4), spread: Duration::from_secs(6) };
/// The calls that may meet a fault.
const METHODS: [&str; 6] = [
    "addresses.list",
    "addresses.get",
    "instances.get",
    "instances.addAccessConfig",
    "instances.deleteAccessConfig",
    "zoneOperations.wait",
];

/// One thing that befalls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Cordon,
    Drain,
    Silence,
    StopMachine,
    DeleteNode,
    BringBack,
    Lose,
    Replace,
    Unlabel,
    Free,
    Stray,
    Edit,
    Narrow,
    Pace,
    Move,
    Hold,
    Fault,
    Slow,
    KillStandby,
    ServerPauses,
    KillLeader,
    ServerGone,
}

/// How often each is drawn, compared with the others.
const COMMON: [(Act, usize); 20] = [
    (Act::Cordon, 4),
    (Act::Drain, 6),
    (Act::Silence, 1),
    (Act::StopMachine, 1),
    (Act::DeleteNode, 1),
    (Act::BringBack, 8),
    (Act::Lose, 3),
    (Act::Replace, 3),
    (Act::Unlabel, 2),
    (Act::Free, 2),
    (Act::Stray, 2),
    (Act::Edit, 3),
    (Act::Narrow, 1),
    (Act::Pace, 1),
    (Act::Move, 6),
    (Act::Hold, 2),
    (Act::Fault, 6),
    (Act::Slow, 1),
    (Act::KillStandby, 1),
    (Act::ServerPauses, 1),
];
/// Also drawn in a storm, in which leaders come and go.
const STORM: [(Act, usize); 2] = [(Act::KillLeader, 2), (Act::ServerGone, 1)];

impl Act {
    /// For people.
    fn word(self) -> &'static str {
        match self {
            Act::Cordon => "a node is cordoned",
            Act::Drain => "a node is drained",
            Act::Silence => "a kubelet falls silent",
            Act::StopMachine => "a machine stops",
            Act::DeleteNode => "a Node is deleted, and its machine runs on",
            Act::BringBack => "a node is well again",
            Act::Lose => "a node goes with its machine, and another one joins",
            Act::Replace => "another machine comes under the name of a node",
            Act::Unlabel => "a label is taken off by hand",
            Act::Free => "an outsider takes an address off",
            Act::Stray => "an outsider puts an address on a machine of his, or gives it back",
            Act::Edit => "an address is taken out of its spec, or put back",
            Act::Narrow => "a node selector is narrowed, or widened again",
            Act::Pace => "maxUnavailable is changed",
            Act::Move => "a move is asked for",
            Act::Hold => "a pod holds its address, or no longer",
            Act::Fault => "a call to the cloud meets a fault",
            Act::Slow => "the cloud is slow, or fast again",
            Act::KillStandby => "the standby is killed",
            Act::ServerPauses => "the API server pauses for 2 s",
            Act::KillLeader => "the leader is killed, or asked to go",
            Act::ServerGone => "the API server is started again, or pauses for 12 s",
        }
    }
}

/// Why a node is not for use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Out {
    Cordoned,
    Silent,
    Stopped,
    /// There is no Node, or there was none.
    Gone,
}

/// The nodes of a pool.
#[derive(Debug)]
struct Field {
    /// With their numbers.
    nodes: BTreeMap<String, usize>,
    /// Nodes there have ever been.
    born: usize,
    out: BTreeMap<String, Out>,
}

/// How often an act was played, and how often it could not be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub played: usize,
    pub refused: usize,
}

/// See the module.
pub struct Acts<'a> {
    ground: &'a Ground,
    client: Client,
    chance: Chance,
    fields: Vec<Field>,
    /// Pool and address.
    taken_out: Vec<(usize, String)>,
    narrowed: BTreeSet<usize>,
    /// Machines of outsiders, with the address that is on each.
    strays: BTreeMap<String, IpAddr>,
    holding: Vec<String>,
    slow: bool,
    /// Machines that an outsider has taken an address from.
    pub touched: BTreeSet<String>,
    /// By act.
    pub tallies: BTreeMap<&'static str, Tally>,
    /// What happened, and when.
    pub diary: Vec<String>,
    began: Instant,
    /// For how long acts have been played.
    acted: Duration,
}

impl<'a> Acts<'a> {
    pub fn new(ground: &'a Ground, seed: u64) -> Result<Self> {
        let field = |pool: &Pool| Field {
            nodes: (0..NODES).map(|n| (pool.node(n), n)).collect(),
            born: NODES,
            out: BTreeMap::new(),
        };
        Ok(Self {
            client: ground.stage.client()?,
            chance: Chance(seed),
            fields: ground.pools.iter().map(field).collect(),
            ground,
            taken_out: Vec::new(),
            narrowed: BTreeSet::new(),
            strays: BTreeMap::new(),
            holding: Vec::new(),
            slow: false,
            touched: BTreeSet::new(),
            tallies: BTreeMap::new(),
            diary: Vec::new(),
            began: Instant::now(),
            acted: Duration::ZERO,
        })
    }

    /// Plays acts until they have been played for so long in all. A storm begins with the end of the leader.
    pub async fn play(&mut self, until: Duration, storm: bool) {
        let began = Instant::now();
        let end = began + until.saturating_sub(self.acted);
        let mut told = began;
        if storm {
            self.act(Act::KillLeader).await;
        }
        while Instant::now() < end {
            let act = self.draw(storm);
            self.act(act).await;
            let longer = u64::try_from(self.chance.below(PAUSE.1)).unwrap_or_default();
            sleep(Duration::from_millis(PAUSE.0 + longer)).await;
            if told.elapsed() >= TOLD {
                told = Instant::now();
                let (acts, moves) = (self.diary.len(), self.ground.moves());
                println!("  {} s: {acts} acts, {moves} moves", (self.acted + began.elapsed()).as_secs());
            }
        }
        self.acted += began.elapsed();
    }

    fn draw(&mut self, storm: bool) -> Act {
        let acts = || COMMON.iter().chain(STORM.iter().filter(move |_| storm));
        let mut n = self.chance.below(acts().map(|(_, weight)| weight).sum());
        for (act, weight) in acts() {
            match n.checked_sub(*weight) {
                Some(rest) => n = rest,
                None => return *act,
            }
        }
        Act::BringBack
    }

    /// Whatever refuses an act (a pod that has just gone, a server that is away) is one more thing that happens.
    async fn act(&mut self, act: Act) {
        let done = match timeout(PATIENT, self.perform(act)).await {
            Ok(done) => done,
            Err(_) => Err(anyhow!("not done after {} s", PATIENT.as_secs())),
        };
        let tally = self.tallies.entry(act.word()).or_default();
        let at = self.began.elapsed().as_secs_f64();
        match done {
            Ok(what) => {
                tally.played += 1;
                self.diary.push(format!("{at:6.1} s  {}: {what}", act.word()));
            }
            Err(error) => {
                tally.refused += 1;
                self.diary.push(format!("{at:6.1} s  {}: refused: {error:#}", act.word()));
            }
        }
    }

    /// What it was about.
    async fn perform(&mut self, act: Act) -> Result<String> {
        match act {
            Act::Cordon => self.take(Out::Cordoned, false).await,
            Act::Drain => self.take(Out::Cordoned, true).await,
            Act::Silence => self.take(Out::Silent, false).await,
            Act::StopMachine => self.take(Out::Stopped, false).await,
            Act::DeleteNode => self.take(Out::Gone, false).await,
            Act::BringBack => {
                let pool = self.chance.below(self.fields.len());
                self.bring_back(pool).await
            }
            Act::Lose => self.lose().await,
            Act::Replace => self.replace().await,
            Act::Unlabel => self.unlabel().await,
            Act::Free => self.free(),
            Act::Stray => self.stray(),
            Act::Edit => self.edit().await,
            Act::Narrow => self.narrow().await,
            Act::Pace => {
                let (pool, _) = self.address()?;
                let pace = self.chance.of(&[json!(1), json!(4), json!("20%")]).unwrap_or_default();
                self.spec(pool, json!({"strategy": {"maxUnavailable": pace}})).await
            }
            Act::Move => {
                let (pool, ip) = self.address()?;
                self.patch_allocation(pool, json!({"metadata": {"annotations": {MOVE_ANNOTATION: ip}}})).await
            }
            Act::Hold => self.hold().await,
            Act::Fault => self.fault(),
            Act::Slow => {
                self.slow = !self.slow;
                self.stage().world.set_latency(if self.slow { SLOW } else { LATENCY });
                Ok(format!("slow: {}", self.slow))
            }
            Act::KillStandby => self.kill_standby().await,
            Act::ServerPauses => self.pause_server(Duration::from_secs(2)).await,
            Act::KillLeader => self.kill_leader().await,
            Act::ServerGone if self.chance.below(2) == 0 => {
                self.stage().cluster.restart("kube-apiserver").await?;
                Ok("started again".to_owned())
            }
            Act::ServerGone => self.pause_server(Duration::from_secs(12)).await,
        }
    }
}

/// Nodes and machines.
impl Acts<'_> {
    /// A node that is for use, of a pool in which most are. Otherwise one comes back instead.
    async fn take(&mut self, out: Out, drain: bool) -> Result<String> {
        let pool = self.chance.below(self.fields.len());
        if self.field(pool)?.out.len() >= FEW {
            return self.bring_back(pool).await;
        }
        let node = self.node(pool)?;
        // First, so that it is brought back when only a part of this is done.
        self.field_mut(pool)?.out.insert(node.clone(), out);
        match out {
            Out::Cordoned => self.patch_node(&node, json!({"spec": {"unschedulable": true}})).await?,
            Out::Silent => self.stage().cluster.stop_heartbeat(&node).await?,
            Out::Stopped => {
                self.stage().world.stop_machine(&node);
                self.stage().cluster.stop_heartbeat(&node).await?;
            }
            Out::Gone => self.delete_node(&node).await?,
        }
        if drain {
            self.evict(&node).await?;
        }
        Ok(node)
    }

    async fn bring_back(&mut self, pool: usize) -> Result<String> {
        let out: Vec<(String, Out)> = self.field(pool)?.out.iter().map(|(node, out)| (node.clone(), *out)).collect();
        let Some((node, out)) = self.chance.of(&out) else { return Ok("none was out".to_owned()) };
        self.back(pool, &node, out).await?;
        self.field_mut(pool)?.out.remove(&node);
        Ok(node)
    }

    /// Repeating it changes nothing.
    async fn back(&self, pool: usize, node: &str, out: Out) -> Result<()> {
        match out {
            Out::Cordoned => self.patch_node(node, json!({"spec": {"unschedulable": null}})).await,
            Out::Silent => self.stage().cluster.start_heartbeat(node).await,
            Out::Stopped => {
                self.stage().world.start_machine(node);
                self.stage().cluster.start_heartbeat(node).await
            }
            Out::Gone => {
                let zone = self.zone(pool, node)?;
                self.join(pool, node, &zone).await
            }
        }
    }

    /// An autoscaler's node goes, with its machine and whatever is on it, and another one joins.
    async fn lose(&mut self) -> Result<String> {
        let pool = self.chance.below(self.fields.len());
        let old = self.node(pool)?;
        self.field_mut(pool)?.out.insert(old.clone(), Out::Gone);
        self.stage().world.delete_machine(&old);
        self.delete_node(&old).await?;
        let number = self.field(pool)?.born;
        let new = self.pool(pool)?.node(number);
        let field = self.field_mut(pool)?;
        field.nodes.remove(&old);
        field.out.remove(&old);
        field.born += 1;
        field.nodes.insert(new.clone(), number);
        field.out.insert(new.clone(), Out::Gone);
        let zone = self.zone(pool, &new)?;
        self.join(pool, &new, &zone).await?;
        self.field_mut(pool)?.out.remove(&new);
        Ok(format!("{old}, then {new}"))
    }

    /// The machine goes, and another one registers under its name, in the same place.
    async fn replace(&mut self) -> Result<String> {
        let pool = self.chance.below(self.fields.len());
        let node = self.node(pool)?;
        let zone = self.zone(pool, &node)?;
        self.field_mut(pool)?.out.insert(node.clone(), Out::Gone);
        self.stage().world.delete_machine(&node);
        self.delete_node(&node).await?;
        self.join(pool, &node, &zone).await?;
        self.field_mut(pool)?.out.remove(&node);
        Ok(node)
    }

    /// A machine and its Node, unless they are there; a Node whose machine is not there is another one's.
    async fn join(&self, pool: usize, name: &str, zone: &str) -> Result<()> {
        let Stage { world, venue, cluster, .. } = self.stage();
        let is_there = world.machine(name).is_some();
        if self.stage().node(name).await?.is_some() {
            if is_there {
                return Ok(());
            }
            self.delete_node(name).await?;
        }
        if !is_there {
            world.add_machine(venue.machine(zone, name));
        }
        let machine = world.machine(name).context("the machine has not started")?;
        let labels = self.pool(pool)?.labels(self.number(pool, name)?);
        let spec = labels.into_iter().fold(venue.node(&machine), |spec, (key, value)| spec.label(key, value));
        cluster.add_node(spec).await.map(|_| ())
    }

    /// Where its machine is, or is to be.
    fn zone(&self, pool: usize, name: &str) -> Result<String> {
        if let Some(machine) = self.stage().world.machine(name) {
            return Ok(machine.key.zone);
        }
        let zones = &self.stage().venue.zones;
        let zone = zones.get(self.number(pool, name)? % zones.len()).context("no zone")?;
        Ok((*zone).to_owned())
    }

    /// A node of the pool that is for use.
    fn node(&mut self, pool: usize) -> Result<String> {
        let field = self.field(pool)?;
        let nodes: Vec<String> = field.nodes.keys().filter(|node| !field.out.contains_key(*node)).cloned().collect();
        self.chance.of(&nodes).context("no node is for use")
    }

    fn number(&self, pool: usize, name: &str) -> Result<usize> {
        self.field(pool)?.nodes.get(name).copied().with_context(|| format!("no node {name}"))
    }

    async fn patch_node(&self, node: &str, patch: Value) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    async fn delete_node(&self, node: &str) -> Result<()> {
        Api::<Node>::all(self.client.clone()).delete(node, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn evict(&self, node: &str) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "default");
        for pod in pods.list(&ListParams::default().fields(&format!("spec.nodeName={node}"))).await? {
            pods.evict(&pod.name_any(), &EvictParams::default()).await?;
        }
        Ok(())
    }

    async fn unlabel(&mut self) -> Result<String> {
        let labelled: Vec<String> = {
            let heard = self.ground.witness.heard();
            let last = heard.nodes.iter().filter_map(|(name, words)| Some((name, words.last()?)));
            last.filter(|(_, word)| word.address.is_some()).map(|(name, _)| name.clone()).collect()
        };
        let node = self.chance.of(&labelled).context("no node is labelled")?;
        self.patch_node(&node, json!({"metadata": {"labels": {READY_LABEL: null}}})).await?;
        Ok(node)
    }
}

/// Addresses, allocations and their users.
impl Acts<'_> {
    fn address(&mut self) -> Result<(usize, String)> {
        let pool = self.chance.below(self.fields.len());
        let ips = &self.pool(pool)?.ips;
        Ok((pool, self.chance.of(ips).context("no address")?))
    }

    /// An outsider does something to the address; which machine had it.
    fn touch(&mut self, ip: IpAddr, what: impl FnOnce(&Stage, IpAddr) -> Result<()>) -> Result<String> {
        let machine = self.stage().world.machine_of(ip);
        self.touched.extend(machine.clone());
        what(self.stage(), ip)?;
        Ok(machine.unwrap_or_else(|| "no machine".to_owned()))
    }

    fn free(&mut self) -> Result<String> {
        let (_, ip) = self.address()?;
        let from = self.touch(ip.parse()?, |stage, ip| {
            stage.world.free_address(ip);
            Ok(())
        })?;
        Ok(format!("{ip} off {from}"))
    }

    fn stray(&mut self) -> Result<String> {
        if self.strays.len() >= FEW || (self.chance.below(2) == 0 && !self.strays.is_empty()) {
            return self.give_back();
        }
        let (_, ip) = self.address()?;
        let address: IpAddr = ip.parse()?;
        if self.strays.values().any(|stray| *stray == address) {
            return self.give_back();
        }
        let names = (0..FEW).map(|n| format!("outsider-{n}"));
        let machine = names.into_iter().find(|name| !self.strays.contains_key(name)).context("no outsider is free")?;
        let zone = self.stage().venue.zones.first().copied().unwrap_or_default();
        if self.stage().world.machine(&machine).is_none() {
            self.stage().world.add_machine(self.stage().venue.machine(zone, &machine));
        }
        let from = self.touch(address, |stage, ip| {
            stage.world.move_address(ip, &machine).map_err(|refusal| anyhow!("{refusal:?}"))
        })?;
        self.strays.insert(machine.clone(), address);
        Ok(format!("{ip} from {from} to {machine}"))
    }

    fn give_back(&mut self) -> Result<String> {
        let (machine, ip) = self.strays.pop_first().context("no address is astray")?;
        // Another outsider may have taken it off already, and the operator have put it on a node.
        if self.stage().world.machine_of(ip).as_ref() == Some(&machine) {
            self.stage().world.free_address(ip);
        }
        Ok(format!("{ip} back from {machine}"))
    }

    async fn edit(&mut self) -> Result<String> {
        if self.taken_out.len() >= FEW || (self.chance.below(2) == 0 && !self.taken_out.is_empty()) {
            let (pool, ip) = self.taken_out.pop().context("no address is out")?;
            // Should this be refused, the next edit names it all the same.
            return Ok(format!("{ip} is back: {}", self.name_addresses(pool).await?));
        }
        let (pool, ip) = self.address()?;
        if !self.taken_out.contains(&(pool, ip.clone())) {
            self.taken_out.push((pool, ip.clone()));
        }
        Ok(format!("{ip} is out: {}", self.name_addresses(pool).await?))
    }

    /// The spec names all addresses but those that are taken out.
    async fn name_addresses(&self, pool: usize) -> Result<String> {
        let is_out = |ip: &&String| self.taken_out.iter().any(|(of, out)| *of == pool && out == *ip);
        let ips: Vec<&String> = self.pool(pool)?.ips.iter().filter(|ip| !is_out(ip)).collect();
        self.spec(pool, json!({"reservedIPs": ips})).await
    }

    async fn narrow(&mut self) -> Result<String> {
        let pool = self.chance.below(self.fields.len());
        let narrows = self.narrowed.insert(pool);
        if !narrows {
            self.narrowed.remove(&pool);
        }
        self.select(pool).await
    }

    async fn select(&self, pool: usize) -> Result<String> {
        let grade = self.narrowed.contains(&pool).then_some("good");
        self.spec(pool, json!({"nodeSelector": {"grade": grade}})).await
    }

    async fn spec(&self, pool: usize, spec: Value) -> Result<String> {
        self.patch_allocation(pool, json!({"spec": spec})).await
    }

    async fn patch_allocation(&self, pool: usize, patch: Value) -> Result<String> {
        let (api, name) = (Api::<NetIPAllocation>::all(self.client.clone()), &self.pool(pool)?.name);
        let what = format!("{name} {patch}");
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(what)
    }

    async fn hold(&mut self) -> Result<String> {
        if self.holding.len() >= HOLDS || (self.chance.below(2) == 0 && !self.holding.is_empty()) {
            let pod = self.holding.pop().context("no pod holds")?;
            self.annotate(&pod, Value::Null).await?;
            return Ok(format!("{pod} no longer"));
        }
        let users: Vec<String> = {
            let heard = self.ground.witness.heard();
            let users = heard.pods.iter().filter(|(_, pod)| pod.there && pod.app.starts_with("soak-"));
            users.map(|(name, _)| name.clone()).collect()
        };
        let pod = self.chance.of(&users).context("no pod uses an address")?;
        self.annotate(&pod, json!("true")).await?;
        self.holding.push(pod.clone());
        Ok(pod)
    }

    async fn annotate(&self, pod: &str, value: Value) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "default");
        let patch = json!({"metadata": {"annotations": {HOLD_ANNOTATION: value}}});
        pods.patch(pod, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }
}

/// The cloud, the cluster and the operator itself.
impl Acts<'_> {
    fn fault(&mut self) -> Result<String> {
        let faults = [
            Fault::refuse(503, "backendError", "the soak refuses"),
            Fault::refuse(429, "rateLimitExceeded", "the soak refuses"),
            Fault::Close,
            Fault::CloseAfterEffect,
            Fault::Hang,
            Fault::HangAfterEffect,
            Fault::LandLate(Duration::from_secs(10)),
            Fault::fail_late("INTERNAL_ERROR", "the soak fails it"),
            Fault::Latency(Duration::from_secs(8)),
            Fault::EffectAfterDone(Duration::from_secs(1)),
        ];
        let fault = self.chance.of(&faults).context("no fault")?;
        let method = self.chance.of(&METHODS).context("no method")?;
        let what = format!("{method} {fault:?}");
        self.stage().world.fail_next(method, fault);
        Ok(what)
    }

    async fn kill_standby(&mut self) -> Result<String> {
        let leader = self.stage().leader().await?;
        let replicas = self.ground.replicas().await?;
        let standby = replicas.into_iter().find(|pod| Some(pod) != leader.as_ref()).context("no standby")?;
        self.stage().agent.kill(NAMESPACE, &standby)?;
        Ok(standby)
    }

    /// It crashes and is started again in its pod, or goes with its pod, or is told to go.
    async fn kill_leader(&mut self) -> Result<String> {
        let leader = self.stage().leader().await?.context("nobody leads")?;
        let agent = &self.stage().agent;
        let how = match self.chance.below(3) {
            0 => {
                agent.kill(NAMESPACE, &leader)?;
                "crashes"
            }
            1 => {
                let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
                agent.kill(NAMESPACE, &leader)?;
                pods.delete(&leader, &DeleteParams::default().grace_period(0)).await?;
                "goes with its pod"
            }
            _ => {
                agent.signal(NAMESPACE, &leader, Signal::SIGTERM)?;
                "is told to go"
            }
        };
        Ok(format!("{leader} {how}"))
    }

    async fn pause_server(&self, how_long: Duration) -> Result<String> {
        self.stage().cluster.signal("kube-apiserver", Signal::SIGSTOP)?;
        sleep(how_long).await;
        self.stage().cluster.signal("kube-apiserver", Signal::SIGCONT)?;
        Ok(format!("{how_long:?}"))
    }
}

/// The end of it.
impl Acts<'_> {
    /// What befell it is over: every node is for use, no pod holds, no outsider has anything, the cloud is well, and the specs
    /// name all addresses.
    pub async fn heal(&mut self) -> Result<()> {
        self.stage().world.clear_faults();
        self.slow = false;
        self.stage().world.set_latency(LATENCY);
        while !self.strays.is_empty() {
            self.give_back()?;
        }
        for pool in 0..self.fields.len() {
            for (node, out) in self.field(pool)?.out.clone() {
                let this = &*self;
                insist(&format!("{node} is well again"), || this.back(pool, &node, out)).await?;
            }
            self.field_mut(pool)?.out.clear();
        }
        self.taken_out.clear();
        self.narrowed.clear();
        self.holding.clear();
        let this = &*self;
        for pool in 0..this.fields.len() {
            insist("the spec is as it was", || async move {
                this.name_addresses(pool).await?;
                this.select(pool).await.map(|_| ())
            })
            .await?;
        }
        insist("no pod holds", || this.let_go()).await
    }

    async fn let_go(&self) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "default");
        for pod in pods.list(&ListParams::default()).await? {
            if pod.annotations().contains_key(HOLD_ANNOTATION) {
                self.annotate(&pod.name_any(), Value::Null).await?;
            }
        }
        Ok(())
    }

    /// Nodes of all pools.
    pub fn nodes(&self) -> usize {
        self.fields.iter().map(|field| field.nodes.len()).sum()
    }

    fn field(&self, pool: usize) -> Result<&Field> {
        self.fields.get(pool).context("no such pool")
    }

    fn field_mut(&mut self, pool: usize) -> Result<&mut Field> {
        self.fields.get_mut(pool).context("no such pool")
    }
}

impl<'a> Acts<'a> {
    fn stage(&self) -> &'a Stage {
        &self.ground.stage
    }

    fn pool(&self, pool: usize) -> Result<&'a Pool> {
        self.ground.pools.get(pool).context("no such pool")
    }
}

/// Does it again until it is done: pods go, and a server may still be away.
async fn insist<L: Future<Output = Result<()>>>(what: &str, mut step: impl FnMut() -> L) -> Result<()> {
    wait_for(what, PATIENCE, || {
        let step = step();
        async move { step.await.map(Seen::Yes) }
    })
    .await
}
