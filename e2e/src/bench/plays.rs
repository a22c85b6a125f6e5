//! What is measured, one figure after another on one ground.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::AuditEvent,
    cost::{cost, cpu_by_program},
    figures::Figures,
    stage::NAMESPACE,
    world::{Call, Outcome, World},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams},
};
use nix::sys::signal::Signal;
use tokio::time::Instant;

use crate::ground::{BURST, Ground, INTERVAL, LATENCY, LEASE, QPS, SKEW};

/// No single wait is longer.
const PATIENCE: Duration = Duration::from_secs(2400);
/// One steady minute.
const MINUTE: Duration = Duration::from_secs(60);

/// From nothing to all addresses Attached.
pub async fn cold_start(ground: &Ground, figures: &mut Figures) -> Result<()> {
    let Ground { stage, history, size, .. } = ground;
    stage.world.clear_calls();
    let began = Instant::now();
    ground.create_objects().await?;
    let attached = |words: &BTreeMap<String, Vec<crate::history::Word>>| {
        let lasts: Vec<_> = words.values().filter_map(|words| words.last()).collect();
        let all = lasts.len() == *size && lasts.iter().all(|word| word.state == "Attached");
        all.then(|| lasts.iter().map(|word| word.at).max().unwrap_or(began))
    };
    let ended = history.until("all addresses are attached", PATIENCE, attached).await?;
    let took = ended.duration_since(began);
    let calls: Vec<Call> = stage.world.calls().into_iter().filter(|call| call.at <= ended).collect();
    let slowest = slowest_attach(&calls);
    let paced = Duration::from_secs_f64(calls.len().saturating_sub(BURST) as f64 / QPS as f64);
    let bound = slowest.max(paced);
    let ratio = took.as_secs_f64() / bound.as_secs_f64();
    figures.add(
        *size,
        "cold start to all Attached ÷ what the cloud and the pace allow",
        format!("{ratio:.2} ({:.1} s)", took.as_secs_f64()),
        format!(
            "1.1; the larger of the slowest attach, {:.1} s, and {} calls at {QPS} a second, {:.1} s",
            slowest.as_secs_f64(),
            calls.len(),
            paced.as_secs_f64()
        ),
        ratio <= 1.1,
    );
    let throttled = calls.iter().filter(|call| call.outcome == Outcome::Refused("Throttled".to_owned())).count();
    figures.add(
        *size,
        "calls that the cloud's quotas refused, in the cold start",
        throttled.to_string(),
        "0".to_owned(),
        throttled == 0,
    );
    Ok(())
}

/// The longest sum of the operations on one machine.
fn slowest_attach(calls: &[Call]) -> Duration {
    let mut sums: BTreeMap<&str, Duration> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.mutating) {
        if let Some(ended) = call.ended {
            *sums.entry(&call.target).or_default() += ended.duration_since(call.at);
        }
    }
    sums.into_values().max().unwrap_or_default()
}

/// A minute in which nothing happens.
pub async fn steady(ground: &Ground, figures: &mut Figures) -> Result<()> {
    let Ground { stage, size, .. } = ground;
    ground.rest().await?;
    let leader = stage.until_led(None).await?;
    let pid = stage.agent.pid(NAMESPACE, &leader)?;
    // From one survey to the next, so that whole intervals are counted.
    next_call_since(ground, Instant::now()).await?;
    stage.world.clear_calls();
    let (since, began, before) = (Timestamp::now(), Instant::now(), cost(pid)?);
    tokio::time::sleep(MINUTE).await;
    let (spent, after, calls) = (began.elapsed(), cost(pid)?, stage.world.calls());
    let requests = ground.asked_since(since)?;
    let share = (after.cpu - before.cpu).as_secs_f64() / spent.as_secs_f64() * 100.0;
    let passes = spent.as_secs_f64() / INTERVAL.as_secs_f64();
    let allowed = stage.venue.survey.len() * (1 + size / 500) * (passes.ceil() as usize);
    figures.add(
        *size,
        "cloud calls in a steady minute",
        calls.len().to_string(),
        format!("{allowed}: one survey each {} s, pages of 500", INTERVAL.as_secs()),
        calls.len() <= allowed,
    );
    let others = requests.iter().filter(|event| event.resource != "leases" && event.verb != "watch");
    let others: Vec<String> = others.map(|event| format!("{} {}", event.verb, event.uri)).collect();
    let leases = requests.iter().filter(|event| event.resource == "leases").count();
    figures.add(
        *size,
        "requests to the API server in a steady minute, but watches and the Lease",
        format!("{} {}", others.len(), others.first().cloned().unwrap_or_default()),
        format!("0 (and {leases} about the Lease)"),
        others.is_empty(),
    );
    figures.add(
        *size,
        "CPU of the leader in a steady minute",
        format!("{share:.2} %"),
        "1 % of one core".to_owned(),
        share <= 1.0,
    );
    let mib = after.resident as f64 / 1024.0 / 1024.0;
    figures.add(*size, "memory of the leader at rest", format!("{mib:.1} MiB"), "48 MiB".to_owned(), mib <= 48.0);
    println!("    the API server lists {size} nodes in {:.0?}", list_nodes(stage.client()?).await?);
    Ok(())
}

async fn list_nodes(client: Client) -> Result<Duration> {
    let began = Instant::now();
    Api::<Node>::all(client).list(&ListParams::default()).await?;
    Ok(began.elapsed())
}

/// A tenth of the nodes is drained, one of each object at a time; the objects begin one after another, within the time that
/// one move takes.
pub async fn rolling_drain(ground: &Ground, figures: &mut Figures) -> Result<()> {
    let Ground { stage, size, objects, .. } = ground;
    stage.world.clear_calls();
    let (since, began, before) = (Timestamp::now(), Instant::now(), cpu_by_program()?);
    let apart = (LATENCY.operation + LATENCY.spread) * 2 / u32::try_from(objects.len())?;
    let each = objects.iter().zip(0..).map(|((object, ips), nth)| {
        let ips = ips.iter().take(ips.len().div_ceil(10));
        async move {
            tokio::time::sleep(apart * nth).await;
            let mut moves = Vec::new();
            for ip in ips {
                moves.push(drain(ground, object, ip).await?);
            }
            anyhow::Ok(moves)
        }
    });
    let moves: Vec<Move> = futures::future::try_join_all(each).await?.into_iter().flatten().collect();
    let (spent, after) = (began.elapsed(), cpu_by_program()?);
    let calls = stage.world.calls();
    let own = own_times(ground, &calls, &moves, &[]);
    let p99 = percentile(&own, 99);
    figures.add(
        *size,
        "drain finished to attached elsewhere, without the cloud's latency",
        spread(&own),
        "p99 250 ms".to_owned(),
        p99 <= Duration::from_millis(250),
    );
    ground.rest().await?;
    let writes = status_writes(ground, since)?;
    figures.tell(
        *size,
        "drain finished to attached elsewhere, without the API server's time for status writes either",
        spread(&own_times(ground, &calls, &moves, &writes)),
    );
    let mut by_time: Vec<(&Duration, &Move)> = own.iter().zip(&moves).collect();
    by_time.sort_by_key(|(own, _)| **own);
    for (name, nth) in [("slowest", by_time.len().saturating_sub(1)), ("middle one", by_time.len() / 2)] {
        if let Some((_, done)) = by_time.get(nth) {
            println!("    the {name}, in ms: {}", done.story(&stage.world, &calls, &writes));
        }
    }
    let waits: Vec<Duration> = writes.iter().filter_map(|event| event.took).collect();
    figures.tell(*size, "the API server's time for a status write, in a rolling drain", spread(&waits));
    figures.tell(*size, "who used the cores in a rolling drain, in shares of one", shares(&before, &after, spent));
    let per_move = writes.len() as f64 / moves.len() as f64;
    figures.add(
        *size,
        "status writes a move, in a rolling drain",
        format!("{per_move:.2}"),
        "4".to_owned(),
        per_move <= 4.0,
    );
    let mut writers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for event in &writes {
        ensure!(!event.pod.is_empty(), "the audit log does not say which pod has written: {event:?}");
        writers.entry(&event.name).or_default().insert(&event.pod);
    }
    let most = writers.values().map(BTreeSet::len).max().unwrap_or_default();
    figures.add(
        *size,
        "writers of the status of one object, in a rolling drain",
        most.to_string(),
        "1".to_owned(),
        most == 1,
    );
    let mut by_second: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for event in &writes {
        let second = event.time.get(..19).unwrap_or_default();
        *by_second.entry((&event.name, second)).or_default() += 1;
    }
    let most = by_second.values().copied().max().unwrap_or_default();
    figures.add(
        *size,
        "status writes of one object in one second, at most",
        most.to_string(),
        "2".to_owned(),
        most <= 2,
    );
    ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
    Ok(())
}

/// One node of each object is drained, all in one moment: then the API server has as many statuses to write at once as there are
/// objects, and what it uses of the cores nobody else has. Told, and held against nothing.
pub async fn drains_at_once(ground: &Ground, figures: &mut Figures) -> Result<()> {
    let Ground { stage, size, objects, .. } = ground;
    if objects.len() < 2 {
        return Ok(());
    }
    stage.world.clear_calls();
    let since = Timestamp::now();
    let each = objects.iter().filter_map(|(object, ips)| Some(drain(ground, object, ips.iter().rev().nth(1)?)));
    let moves = futures::future::try_join_all(each).await?;
    let calls = stage.world.calls();
    let own = own_times(ground, &calls, &moves, &[]);
    ground.rest().await?;
    let without_writes = own_times(ground, &calls, &moves, &status_writes(ground, since)?);
    figures.tell(
        *size,
        "a drain of one node of each object in one moment, to attached elsewhere, without the cloud's latency",
        format!("{}; without the API server's time for status writes {}", spread(&own), spread(&without_writes)),
    );
    ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
    Ok(())
}

/// Drains the node that the address is on, until it is attached elsewhere. No pod is on it: the drain has finished with the cordon.
async fn drain(ground: &Ground, object: &str, ip: &str) -> Result<Move> {
    moved_by(ground, object, ip, async |from| ground.cordon(from).await).await
}

/// Something befalls the node that the address is on: until it is attached elsewhere.
async fn moved_by(
    ground: &Ground,
    object: &str,
    ip: &str,
    befalls: impl AsyncFnOnce(&str) -> Result<()>,
) -> Result<Move> {
    let from = ground.history.now().get(ip).and_then(|word| word.node.clone()).context("on no node")?;
    let before = ground.stage.world.external_ips();
    befalls(&from).await?;
    let (drained, since) = (Instant::now(), Timestamp::now());
    let (attached, to) = ground.history.moved(ip, &from, PATIENCE).await?;
    let read = std::iter::once(ip.parse()?).chain(before.get(&to).copied()).collect();
    Ok(Move { object: object.to_owned(), read, drained, since, attached, from, to })
}

/// What the operator took for each of them.
fn own_times(ground: &Ground, calls: &[Call], moves: &[Move], writes: &[AuditEvent]) -> Vec<Duration> {
    moves.iter().map(|done| done.own(&ground.stage.world, calls, writes)).collect()
}

/// The operator's writes of status since then.
fn status_writes(ground: &Ground, since: Timestamp) -> Result<Vec<AuditEvent>> {
    let requests = ground.asked_since(since)?.into_iter();
    Ok(requests.filter(|event| event.subresource == "status" && event.resource == "netipallocations").collect())
}

fn spread(all: &[Duration]) -> String {
    let (p99, median) = (percentile(all, 99), percentile(all, 50));
    format!("p99 {} ms, median {} ms of {}", p99.as_millis(), median.as_millis(), all.len())
}

/// The nearest-rank percentile.
fn percentile(all: &[Duration], percent: usize) -> Duration {
    let mut sorted = all.to_vec();
    sorted.sort();
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}

/// The five that were busiest.
fn shares(before: &BTreeMap<String, Duration>, after: &BTreeMap<String, Duration>, spent: Duration) -> String {
    let used = |(program, cpu): (&String, &Duration)| {
        let used = cpu.saturating_sub(before.get(program).copied().unwrap_or_default());
        (used, program.clone())
    };
    let mut all: Vec<(Duration, String)> = after.iter().map(used).collect();
    all.sort_by(|a, b| b.cmp(a));
    let of = |(used, program): &(Duration, String)| {
        format!("{program} {:.0} %", used.as_secs_f64() / spent.as_secs_f64() * 100.0)
    };
    all.iter().take(5).map(of).collect::<Vec<_>>().join(", ")
}

/// One address went from one node to another.
struct Move {
    object: String,
    /// It, and what the machine that it went to had before.
    read: Vec<IpAddr>,
    drained: Instant,
    /// The same by the wall's clock, as the audit log has it.
    since: Timestamp,
    attached: Instant,
    from: String,
    to: String,
}

impl Move {
    /// The calls about either machine, an operation on it, or the addresses that are read for it, but those by which the machine that
    /// was left got its own address back.
    fn waited_for<'a>(&self, world: &World, calls: &'a [Call]) -> Vec<&'a Call> {
        let operation = |call: &Call| call.target.rsplit('/').next().and_then(|name| world.machine_of_operation(name));
        let about = |call: &Call, node: &str| call.target.contains(node) || operation(call).as_deref() == Some(node);
        let within = |call: &&Call| call.at >= self.drained && call.at <= self.attached;
        let changes = calls.iter().filter(within).filter(|call| call.mutating && about(call, &self.from));
        let given_back = changes.map(|call| call.at).nth(1);
        let left = |call: &Call| given_back.is_none_or(|then| call.at < then) && about(call, &self.from);
        let reads = |call: &Call| self.read.iter().any(|ip| call.filter.contains(&format!("\"{ip}\"")));
        calls.iter().filter(within).filter(|call| left(call) || about(call, &self.to) || reads(call)).collect()
    }

    /// What it waited for, the API server's `writes` of its status included, in the order in which that began.
    fn spans<'a>(&self, world: &World, calls: &'a [Call], writes: &[AuditEvent]) -> Vec<(Instant, Instant, &'a str)> {
        let waited_for = self.waited_for(world, calls).into_iter();
        let called = waited_for.map(|call| (call.at, call.ended.unwrap_or(self.attached), call.method.as_str()));
        let written = self.writes(writes).into_iter().map(|(from, to)| (from, to, "status"));
        let during = called.chain(written).filter(|(from, _, _)| *from <= self.attached);
        let mut spans: Vec<_> = during.map(|(from, to, what)| (from, to.min(self.attached), what)).collect();
        spans.sort();
        spans
    }

    /// The same in words, in milliseconds since it was drained.
    fn story(&self, world: &World, calls: &[Call], writes: &[AuditEvent]) -> String {
        let since = |at: Instant| at.saturating_duration_since(self.drained).as_millis();
        let spans = self.spans(world, calls, writes).into_iter();
        let lines: Vec<String> =
            spans.map(|(from, to, what)| format!("{}..{} {what}", since(from), since(to))).collect();
        format!("{}, attached at {}", lines.join(", "), since(self.attached))
    }

    /// When the API server was writing its object's status.
    fn writes(&self, writes: &[AuditEvent]) -> Vec<(Instant, Instant)> {
        let own = writes.iter().filter(|event| event.name == self.object);
        let span = |event: &AuditEvent| {
            let after = event.time.parse::<Timestamp>().ok()?.duration_since(self.since);
            let began = self.drained + Duration::try_from(after).ok()?;
            Some((began, began + event.took?))
        };
        own.filter_map(span).collect()
    }

    /// What the operator took for it: the whole, without the time in which the cloud worked on either machine or answered about it,
    /// an operation on it or its addresses. That the machine left behind gets its own address back meanwhile, by a second change, is
    /// waited for by nobody. And without the time of these `writes`.
    fn own(&self, world: &World, calls: &[Call], writes: &[AuditEvent]) -> Duration {
        let (mut busy, mut until) = (Duration::ZERO, self.drained);
        for (from, to, _) in self.spans(world, calls, writes) {
            busy += to.saturating_duration_since(from.max(until));
            until = until.max(to);
        }
        (self.attached - self.drained).saturating_sub(busy)
    }
}

/// The machine and its Node go at once.
pub async fn node_lost(ground: &Ground, figures: &mut Figures) -> Result<()> {
    let Ground { stage, size, objects, .. } = ground;
    let (object, ips) = objects.iter().next().context("no object")?;
    let ip = ips.last().context("no address")?;
    stage.world.clear_calls();
    let nodes: Api<Node> = Api::all(stage.client()?);
    let done = moved_by(ground, object, ip, async |from| {
        stage.world.delete_machine(from);
        nodes.delete(from, &DeleteParams::default()).await?;
        Ok(())
    });
    let own = done.await?.own(&stage.world, &stage.world.calls(), &[]);
    figures.add(
        *size,
        "node gone to attached elsewhere, without the cloud's latency",
        format!("{} ms", own.as_millis()),
        "1 s".to_owned(),
        own <= Duration::from_secs(1),
    );
    ground.rest().await
}

/// The leader goes, by its own will or not.
pub async fn hand_over(ground: &Ground, figures: &mut Figures) -> Result<()> {
    let stage = &ground.stage;
    let leader = before_the_next_survey(ground).await?;
    let began = Instant::now();
    stage.agent.signal(NAMESPACE, &leader, Signal::SIGTERM)?;
    let took = until_followed(ground, &leader, began).await?;
    let limit = Duration::from_secs(2);
    tell_hand_over(ground, figures, "SIGTERM of the leader to the next leader's first call", took, limit);

    let leader = before_the_next_survey(ground).await?;
    let began = Instant::now();
    stage.agent.signal(NAMESPACE, &leader, Signal::SIGKILL)?;
    // With its pod: the next leader shall be the other one. The pod alone would have been asked to go first, perhaps.
    let gone = ["delete", "pod", &leader, "--namespace", NAMESPACE, "--grace-period=0", "--force", "--wait=false"];
    stage.cluster.kubectl(&gone).await?;
    let took = until_followed(ground, &leader, began).await?;
    let limit = LEASE + SKEW + Duration::from_secs(1);
    tell_hand_over(ground, figures, "SIGKILL of the leader to the next leader's first call", took, limit);
    Ok(())
}

/// Who leads, just after a survey.
async fn before_the_next_survey(ground: &Ground) -> Result<String> {
    let leader = ground.stage.until_led(None).await?;
    next_call_since(ground, Instant::now()).await?;
    Ok(leader)
}

/// How long it takes until another leads and reads the cloud. A call before it has acquired the Lease is the old leader's: the
/// rest of a survey's pages, perhaps.
async fn until_followed(ground: &Ground, leader: &str, began: Instant) -> Result<Duration> {
    ground.stage.until_led(Some(leader)).await?;
    let acquired = ground.stage.lease().await?.and_then(|lease| lease.acquire_time).context("no acquireTime")?;
    let age = Duration::try_from(Timestamp::now().duration_since(acquired.0)).unwrap_or_default();
    let since = Instant::now().checked_sub(age).context("acquired before this machine was started")?;
    let first = next_call_since(ground, since).await?;
    Ok(first.duration_since(began))
}

fn tell_hand_over(ground: &Ground, figures: &mut Figures, what: &'static str, took: Duration, limit: Duration) {
    figures.add(
        ground.size,
        what,
        format!("{:.2} s", took.as_secs_f64()),
        format!("{} s", limit.as_secs()),
        took <= limit,
    );
}

/// Waits until the cloud is surveyed, from then on.
async fn next_call_since(ground: &Ground, since: Instant) -> Result<Instant> {
    let method = ground.stage.venue.survey.first().copied().unwrap_or_default();
    let seen = ground.stage.world.until(|world| {
        world.calls().into_iter().find(|call| call.method == method && call.at >= since).map(|call| call.at)
    });
    tokio::time::timeout(PATIENCE, seen).await.with_context(|| format!("waited for {method}"))
}
