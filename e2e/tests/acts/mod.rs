//! What the plays of several test binaries share: one stage a binary, pools of nodes, manifests, and waits.
//!
//! A play has node labels, addresses and names of its own, so plays may share a stage. Those that do something to the
//! operator itself take turns: see [`Theatre::alone`].

// Each test binary uses a part of it.
#![allow(dead_code)]

pub mod program;

use std::{collections::BTreeMap, future::Future, net::SocketAddr, sync::LazyLock, time::Duration};

use anyhow::{Context, Result, ensure};
pub use e2e::stage::ACCOUNT;
use e2e::{
    cluster::{AuditEvent, Seen, node, wait_for},
    stage::{NAMESPACE, PATIENCE, REGION, RELEASE, Stage, Venue},
    world::{Address, Call, Outcome, World},
};
use ip_address_controller::api::{ADDRESS_LABEL, ALLOCATION_LABEL, AddressStatus, READY_LABEL};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::{
    runtime::Runtime,
    sync::{Mutex, OnceCell},
};

/// The label of the operator's pods.
pub const OPERATOR: &str = "app.kubernetes.io/name=ip-address-controller";
/// What the operator's replicas elect their leader over.
pub const LEASE: &str = "ip-address-controller-leader";
/// Seconds between two surveys in these plays.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// The simulated cloud lives on a runtime; it must not be the one of the test that came first.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// One stage for all tests of a binary.
pub struct Theatre {
    venue: &'static Venue,
    stage: OnceCell<Stage>,
    turn: Mutex<()>,
}

impl Theatre {
    pub const fn new() -> Self {
        Self::at(&Venue::GCP)
    }

    /// At that cloud.
    pub const fn at(venue: &'static Venue) -> Self {
        Self { venue, stage: OnceCell::const_new(), turn: Mutex::const_new(()) }
    }

    /// A play beside others, on a stage with the operator installed.
    pub fn together(&'static self, play: impl AsyncFnOnce(&'static Stage) -> Result<()>) -> Result<()> {
        RUNTIME.block_on(async {
            let stage = self.installed().await?;
            told(stage, play(stage)).await
        })
    }

    /// A play that needs the operator for itself, on a stage with the operator installed.
    pub fn alone(&'static self, play: impl AsyncFnOnce(&'static Stage) -> Result<()>) -> Result<()> {
        RUNTIME.block_on(async {
            let _turn = self.turn.lock().await;
            let stage = self.installed().await?;
            told(stage, play(stage)).await
        })
    }

    /// A play that installs the operator itself, or does without.
    pub fn bare(&'static self, play: impl AsyncFnOnce(&'static Stage) -> Result<()>) -> Result<()> {
        RUNTIME.block_on(async {
            let _turn = self.turn.lock().await;
            let stage = self.stage.get_or_try_init(|| Stage::raise_at(self.venue, |line| println!("{line}"))).await?;
            told(stage, play(stage)).await
        })
    }

    async fn installed(&'static self) -> Result<&'static Stage> {
        self.stage
            .get_or_try_init(async || {
                let stage = Stage::raise_at(self.venue, |line| println!("{line}")).await?;
                stage.install(&[]).await?;
                stage.until_led(None).await?;
                Ok(stage)
            })
            .await
    }
}

/// Shows what the operator said when a play failed. Why comes first: whoever has the beginning of it only has that.
async fn told(stage: &Stage, play: impl Future<Output = Result<()>>) -> Result<()> {
    let result = play.await;
    if let Err(why) = &result {
        println!("--- {why:#}");
        for (pod, log) in stage.logs().await.unwrap_or_default() {
            let lines: Vec<&str> = log.lines().collect();
            println!("--- {pod}\n{}", lines.get(lines.len().saturating_sub(60)..).unwrap_or_default().join("\n"));
        }
        println!("{}", stage.cluster.kubectl(&["get", "nia", "-o", "yaml"]).await.unwrap_or_default());
    }
    result
}

/// Nodes `NAME-0`, `NAME-1`, … over both zones, with the label `role: NAME`.
pub async fn pool(stage: &Stage, name: &str, size: usize) -> Result<Vec<String>> {
    let nodes: Vec<String> = (0..size).map(|n| format!("{name}-{n}")).collect();
    let added = nodes
        .iter()
        .zip(stage.venue.zones.iter().cycle())
        .map(async |(node, zone)| stage.add_node(node, zone, &[("role", name)]).await);
    futures::future::try_join_all(added).await?;
    Ok(nodes)
}

/// Reserves addresses in the region of the pools.
pub fn reserve(stage: &Stage, ips: &[&str]) -> Result<()> {
    let Venue { account, region, .. } = stage.venue;
    for ip in ips {
        let name = format!("address-{}", ip.replace('.', "-"));
        stage.world.add_address(Address::new(account, region, &name, ip.parse()?));
    }
    Ok(())
}

/// The manifest of an allocation for the pool of the same name; `more` are further lines of its spec.
pub fn allocation(name: &str, ips: &[&str], more: &str) -> String {
    allocation_on(name, name, ips, more)
}

/// The manifest of an allocation for the pool of that name.
pub fn allocation_on(pool: &str, name: &str, ips: &[&str], more: &str) -> String {
    format!(
        "
apiVersion: netinfra.darkbrains.com/v1alpha1
kind: NetIPAllocation
metadata: {{name: {name}}}
spec:
  reservedIPs: [{}]
  nodeSelector: {{role: {pool}}}
  cloud: {{provider: gcp, region: {REGION}}}
  reconcileInterval: {}
  {more}
",
        ips.join(", "),
        INTERVAL.as_secs()
    )
}

/// The manifest of an allocation, for the cloud of this stage.
pub fn here(stage: &Stage, manifest: &str) -> String {
    let Venue { provider, region, .. } = stage.venue;
    manifest.replace(&format!("provider: gcp, region: {REGION}"), &format!("provider: {provider}, region: {region}"))
}

/// A Deployment whose pods run only where an address of the pool is.
pub fn deployment(name: &str, replicas: u32, grace: u32) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: default}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template: {}
",
        template(name, grace)
    )
}

/// A pod template for workloads that use the addresses of the pool.
pub fn template(name: &str, grace: u32) -> String {
    format!(
        "{{metadata: {{labels: {{app: {name}}}}}, spec: {{nodeSelector: {{ip.ready: 'true', role: {name}}}, \
         terminationGracePeriodSeconds: {grace}, \
         containers: [{{name: main, image: registry.example/main}}]}}}}"
    )
}

/// A pod that asks for a node with an address, put on a node past the scheduler.
pub fn pod_on(name: &str, node: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  nodeSelector: {{ip.ready: 'true'}}
  terminationGracePeriodSeconds: 1
  containers: [{{name: main, image: registry.example/main}}]
"
    )
}

/// Waits until the workload has so many Running pods that stay, and gives them.
pub async fn running(stage: &Stage, app: &str, count: usize) -> Result<Vec<Pod>> {
    wait_for(&format!("{count} pods of {app} run"), PATIENCE, || async {
        let pods = stage.pods("default", &format!("app={app}")).await?;
        let runs = |pod: &Pod| {
            pod.metadata.deletion_timestamp.is_none()
                && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        };
        let running: Vec<Pod> = pods.iter().filter(|pod| runs(pod)).cloned().collect();
        Ok(match running.len() == count {
            true => Seen::Yes(running),
            false => Seen::NotYet(pods.iter().map(|pod| format!("{} {:?}; ", pod.name_any(), pod.status)).collect()),
        })
    })
    .await
}

/// The labels of a node that are ours.
pub async fn labels(stage: &Stage, node: &str) -> Result<BTreeMap<String, String>> {
    let node = stage.node(node).await?.context("no such node")?;
    let ours = [READY_LABEL, ALLOCATION_LABEL, ADDRESS_LABEL];
    Ok(node
        .labels()
        .iter()
        .filter(|(key, _)| ours.contains(&key.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect())
}

/// Waits until the node says whose address it has.
pub async fn until_labelled(stage: &Stage, node: &str, allocation: &str, ip: &str) -> Result<()> {
    let wanted = BTreeMap::from(
        [(READY_LABEL, "true"), (ALLOCATION_LABEL, allocation), (ADDRESS_LABEL, ip)]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    wait_for(&format!("{node} is labelled for {ip}"), PATIENCE, || async {
        let labels = labels(stage, node).await?;
        Ok(Seen::when(labels == wanted, labels))
    })
    .await
}

/// Waits until the node has none of our labels.
pub async fn until_unlabelled(stage: &Stage, node: &str) -> Result<()> {
    wait_for(&format!("{node} has no label of ours"), PATIENCE, || async {
        let labels = labels(stage, node).await?;
        Ok(Seen::when(labels.is_empty(), labels))
    })
    .await
}

/// Waits until the cloud was read in full so many times from now on: the operator's own clock for "several intervals".
pub async fn surveys(stage: &Stage, count: usize) -> Result<()> {
    let listed = |world: &World| world.calls().iter().filter(|call| call.method == stage.venue.survey[0]).count();
    let before = listed(&stage.world);
    let seen = stage.world.until(|world| (listed(world) >= before + count).then_some(()));
    tokio::time::timeout(PATIENCE, seen).await.with_context(|| format!("{count} surveys"))
}

/// Waits so for the world; its text is for the one who waited in vain.
pub async fn in_time<T>(what: &str, wait: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(PATIENCE, wait).await.with_context(|| format!("waited {PATIENCE:?} for: {what}"))
}

/// A list of all addresses of the region.
pub fn is_survey(call: &Call) -> bool {
    call.method == "addresses.list"
}

/// Nothing was asked of the cloud that would change it.
pub fn ensure_still(world: &World) -> Result<()> {
    let mutations = world.mutations();
    ensure!(mutations.is_empty(), "something was moved: {mutations:#?}");
    ensure!(world.violations().is_empty(), "{:?}", world.violations());
    Ok(())
}

/// The operator's pods that stay, when there are as many as the chart wants and all are Ready.
pub async fn cast(stage: &Stage) -> Result<Vec<Pod>> {
    wait_for("two replicas are ready", PATIENCE, || async {
        let pods = stage.pods(NAMESPACE, OPERATOR).await?;
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        Ok(match (pods.len(), ready) {
            (2, 2) => Seen::Yes(pods),
            other => Seen::NotYet(format!("(pods, ready) = {other:?}")),
        })
    })
    .await
}

/// The pod's own condition.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True")
}

/// Status and text that a pod answers with.
pub async fn http(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let answer = client.get(format!("http://{address}{path}")).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// How often the pod's container was started again.
pub async fn restarts(stage: &Stage, pod: &str) -> Result<i32> {
    let pods = stage.pods(NAMESPACE, OPERATOR).await?;
    let pod = pods.into_iter().find(|known| known.name_any() == pod).context("no such pod")?;
    Ok(pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten()).map(|c| c.restart_count).sum())
}

/// What the operator asked of the API server that would change something, Lease renewals apart.
pub fn writes(events: &[AuditEvent]) -> Vec<AuditEvent> {
    let changes = ["create", "update", "patch", "delete", "deletecollection"];
    let is_write = |event: &&AuditEvent| {
        event.user == ACCOUNT && changes.contains(&event.verb.as_str()) && event.resource != "leases"
    };
    events.iter().filter(is_write).cloned().collect()
}

/// Waits until the address is Attached to another node than this one.
pub async fn until_moved(stage: &Stage, allocation: &str, ip: &str, from: &str) -> Result<AddressStatus> {
    stage
        .until(&format!("{ip} has left {from}"), allocation, ip, |entry| {
            entry.state == "Attached" && entry.node.as_deref().is_some_and(|node| node != from)
        })
        .await
}

/// [`until_moved`], for longer than an intent lives: whoever did not send its requests sits it out.
pub async fn until_moved_at_last(stage: &Stage, allocation: &str, ip: &str, from: &str) -> Result<AddressStatus> {
    wait_for(&format!("{ip} has left {from}"), Duration::from_secs(300), || async {
        Ok(match stage.address(allocation, ip).await? {
            Some(entry) if entry.state == "Attached" && entry.node.as_deref().is_some_and(|node| node != from) => {
                Seen::Yes(entry)
            }
            other => Seen::NotYet(format!("{other:?}")),
        })
    })
    .await
}

/// Since when the node is NotReady.
pub async fn until_not_ready(stage: &Stage, name: &str) -> Result<Timestamp> {
    wait_for(&format!("{name} is NotReady"), PATIENCE, || async {
        let node = stage.node(name).await?.context("no such node")?;
        let ready = node::condition(&node, "Ready").cloned().context("no condition")?;
        Ok(match (ready.status.as_str(), &ready.last_transition_time) {
            ("True", _) | (_, None) => Seen::NotYet(format!("{ready:?}")),
            (_, Some(since)) => Seen::Yes(since.0),
        })
    })
    .await
}

/// The status of a condition of an allocation, if it has it.
pub async fn condition(stage: &Stage, allocation: &str, kind: &str) -> Result<Option<String>> {
    let status = stage.allocation(allocation).await?.and_then(|object| object.status).unwrap_or_default();
    Ok(status.conditions.into_iter().find(|condition| condition.type_ == kind).map(|condition| condition.status))
}

/// Stops the operator, and waits until no pod of it is left.
pub async fn stop_operator(stage: &Stage) -> Result<()> {
    scale_operator(stage, 0).await?;
    wait_for("no pod of the operator is left", PATIENCE, || async {
        let left = stage.pods(NAMESPACE, OPERATOR).await?.len();
        Ok(Seen::when(left == 0, left))
    })
    .await
}

/// Starts it again, and does not wait.
pub async fn start_operator(stage: &Stage) -> Result<()> {
    scale_operator(stage, 2).await
}

async fn scale_operator(stage: &Stage, replicas: u32) -> Result<()> {
    let (deployment, replicas) = (format!("deployment/{RELEASE}"), format!("--replicas={replicas}"));
    stage.cluster.kubectl(&["scale", &deployment, "-n", NAMESPACE, &replicas]).await.map(drop)
}

/// Kills the leader without a word, and waits until its process is gone.
pub async fn kill_leader(stage: &Stage) -> Result<String> {
    let leader = stage.until_led(None).await?;
    let pid = stage.agent.pid(NAMESPACE, &leader)?;
    stage.agent.kill(NAMESPACE, &leader)?;
    wait_for("the leader's process is gone", PATIENCE, || async {
        let now = stage.agent.pid(NAMESPACE, &leader).ok();
        Ok(Seen::when(now != Some(pid), now))
    })
    .await?;
    Ok(leader)
}

/// Addresses that are Attached, labelled, and asked for nothing more.
pub async fn at_rest(stage: &Stage, name: &str, ips: &[&str]) -> Result<Vec<String>> {
    reserve(stage, ips)?;
    // One node to spare: whoever wanted to move an address could.
    pool(stage, name, ips.len() + 1).await?;
    stage.cluster.apply(&here(stage, &allocation(name, ips, ""))).await?;
    let mut nodes = Vec::new();
    for ip in ips {
        nodes.push(stage.until_attached(name, ip).await?);
    }
    until_at_rest(stage, name).await?;
    Ok(nodes)
}

/// Nothing of it moves or is owed, and of the cloud nothing is asked that would change something.
pub async fn until_at_rest(stage: &Stage, name: &str) -> Result<()> {
    wait_for(&format!("nothing of {name} moves"), PATIENCE, || async {
        let calls = stage.world.mutations().into_iter();
        let running: Vec<_> = calls.filter(|call| call.outcome == Outcome::Running).collect();
        let status = stage.allocation(name).await?.and_then(|object| object.status).context("no status")?;
        let rests = running.is_empty() && status.owed.is_empty() && status.moving_count == 0;
        Ok(Seen::when(rests, (running, status)))
    })
    .await
}

/// Same node, same label, same holder in the cloud, and nothing was asked that could have changed it.
pub async fn still_there(stage: &Stage, name: &str, ips: &[&str], nodes: &[String]) -> Result<()> {
    ensure_still(&stage.world)?;
    for (ip, node) in ips.iter().zip(nodes) {
        let entry = stage.address(name, ip).await?.context("the entry is gone")?;
        ensure!(entry.state == "Attached" && entry.node.as_ref() == Some(node), "{entry:?}");
        until_labelled(stage, node, name, ip).await?;
        ensure!(stage.world.machine_of(ip.parse()?).as_ref() == Some(node));
    }
    Ok(())
}
