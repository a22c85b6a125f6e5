//! What is soaked: four allocations of 25 addresses, each on a pool of 30 nodes of its own, most with users; two replicas of
//! the operator; a simulated cloud with its latency and quotas. And what it looks like at rest.

use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use e2e::{
    cluster::{Options, Seen, wait_for},
    stage::{NAMESPACE, Stage, Venue},
    world::{Address, Latency, Power},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::time::{Instant, sleep};

use crate::witness::{Witness, holders};

/// Allocations, each with a pool.
const POOLS: usize = 4;
/// Addresses of each.
const EACH: usize = 25;
/// Nodes of each at the beginning.
pub const NODES: usize = 30;
/// Every tenth node lacks the label that a narrowed selector asks for.
const GRADE: usize = 10;
/// The label of the operator's pods.
pub const OPERATOR: &str = "app.kubernetes.io/name=ip-address-controller";
/// From a request to its answer, and from a change to its end.
pub const LATENCY: Latency =
    Latency { answer: Duration::from_millis(50), operation: Duration::from_secs(1), spread: Duration::from_secs(2) };
/// How long the API server may be silent before nodes are NotReady: longer than it is ever away.
const NODE_GRACE: Duration = Duration::from_secs(40);
/// Until everything has come to rest: an intent whose request was not answered lives for two minutes at Google Cloud, and a
/// failed attempt is repeated after up to five.
const REST: Duration = Duration::from_secs(600);
/// At rest for so long: a survey, the passes that it wakes, and a sweep after them.
const SETTLED: Duration = Duration::from_secs(40);
/// Between two looks whether it stays so.
const LOOK: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Pool {
    /// Of the allocation, of its workload, and in the label of its nodes.
    pub name: String,
    pub ips: Vec<String>,
}

/// See the module.
pub struct Ground {
    pub stage: Stage,
    pub witness: Witness,
    pub pools: Vec<Pool>,
}

impl Ground {
    /// Everything, and the allocations applied.
    pub async fn make() -> Result<Self> {
        let venue = &Venue::GCP;
        // Kubelets that renew their Leases seldom: the renewals alone would fill the machine.
        let options = Options { node_monitor_grace: NODE_GRACE, node_lease: NODE_GRACE };
        let stage = Stage::raise_with(venue, options, |line| println!("  {line}")).await?;
        stage.world.publish_quotas(venue.quotas());
        stage.world.set_latency(LATENCY);
        let pools: Vec<Pool> = (0..POOLS).map(pool).collect();
        println!("  adding {} nodes", POOLS * NODES);
        for pool in &pools {
            for ip in &pool.ips {
                let name = format!("address-{}", ip.replace('.', "-"));
                stage.world.add_address(Address::new(venue.account, venue.region, &name, ip.parse()?));
            }
            let names = (0..NODES).map(|n| (n, pool.node(n)));
            let (graded, others): (Vec<_>, Vec<_>) = names.partition(|(n, _)| is_graded(*n));
            for names in [graded, others] {
                let labels = names.first().map(|(n, _)| pool.labels(*n)).unwrap_or_default();
                let names: Vec<String> = names.into_iter().map(|(_, name)| name).collect();
                stage.add_nodes(&names, &labels).await?;
            }
        }
        // A Lease that a pause of seconds does not cost, and the pace that ships.
        let values = [
            "leaderElection.leaseDurationSeconds=15",
            "leaderElection.skewGraceSeconds=2",
            "controller.cloudApi.qps=20",
            "controller.cloudApi.burst=40",
        ];
        stage.install(&values).await?;
        stage.until_led(None).await?;
        let witness = Witness::call(&stage.client()?, &stage.world);
        let ground = Self { stage, witness, pools };
        ground.stage.cluster.apply(&ground.manifests()).await?;
        Ok(ground)
    }

    fn manifests(&self) -> String {
        let Venue { provider, region, .. } = self.stage.venue;
        let mut text = String::new();
        for (n, Pool { name, ips }) in self.pools.iter().enumerate() {
            let reference = format!("workloadRef: {{kind: Deployment, name: {name}}}");
            // Those who wait for their users, those who ask them to go, those without, and those who find them by their selector.
            let (more, users) = match n {
                0 => (reference, true),
                1 => (format!("{reference}\n  drain: {{policy: Evict}}"), true),
                2 => ("drain: {timeoutSeconds: 30}".to_owned(), false),
                _ => (String::new(), true),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "apiVersion: netinfra.darkbrains.com/v1alpha1\nkind: NetIPAllocation\nmetadata: {{name: {name}}}\nspec:\n  \
                 reservedIPs: [{}]\n  nodeSelector: {{role: {name}}}\n  cloud: {{provider: {provider}, region: {region}}}\n  \
                 reconcileInterval: 5\n  strategy: {{maxUnavailable: 4}}\n  failover: {{notReadySeconds: 15}}\n  {more}\n---",
                ips.join(", ")
            );
            if users {
                text += &deployment(name, 12, &format!("ip.ready: 'true', role: {name}"));
            }
        }
        // Pods that run beside users and use no address.
        text + &deployment("bystander", 4, &format!("role: {}", self.pools.first().map_or("", |pool| &pool.name)))
    }

    /// Every address.
    pub fn ips(&self) -> impl Iterator<Item = &String> {
        self.pools.iter().flat_map(|pool| &pool.ips)
    }

    /// How often an address has been put on a machine by the operator.
    pub fn moves(&self) -> u32 {
        let parsed = self.ips().filter_map(|ip| ip.parse::<IpAddr>().ok());
        parsed.map(|ip| self.stage.world.attaches(ip)).sum()
    }

    /// The operator's pods that are to stay.
    pub async fn replicas(&self) -> Result<Vec<String>> {
        let pods = self.stage.pods(NAMESPACE, OPERATOR).await?;
        let stays = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
        Ok(pods.iter().filter(stays).map(ResourceExt::name_any).collect())
    }

    /// Waits until everything is where it should be, and stays there. `touched` are machines that an outsider has taken an
    /// address from.
    pub async fn rest(&self, touched: &BTreeSet<String>) -> Result<()> {
        let end = Instant::now() + REST;
        wait_for("two replicas answer", REST, || async {
            let replicas = self.replicas().await?;
            for pod in &replicas {
                self.stage.metrics(pod).await?;
            }
            Ok(Seen::when(replicas.len() == 2, replicas))
        })
        .await?;
        loop {
            wait_for("everything is where it should be", end.saturating_duration_since(Instant::now()), || async {
                let left = self.unsettled(touched);
                Ok(Seen::when(left.is_empty(), left.iter().take(6).collect::<Vec<_>>()))
            })
            .await?;
            if self.settles(touched).await? {
                return Ok(());
            }
        }
    }

    /// Whether it stays so.
    async fn settles(&self, touched: &BTreeSet<String>) -> Result<bool> {
        let began = Instant::now();
        while began.elapsed() < SETTLED {
            sleep(LOOK).await;
            if !self.unsettled(touched).is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is not as it should be at rest, in sentences.
    fn unsettled(&self, touched: &BTreeSet<String>) -> Vec<String> {
        let on = holders(&self.stage.world);
        let mut left = Vec::new();
        let heard = self.witness.heard();
        for ip in self.ips() {
            let Some(word) = heard.addresses.get(ip).and_then(|words| words.last()) else {
                left.push(format!("{ip} is not told of"));
                continue;
            };
            let node = word.node.as_ref().and_then(|node| Some((node, heard.nodes.get(node)?.last()?)));
            let is_well = word.state == "Attached"
                && ["Verified", "Adopted"].contains(&word.reason.as_str())
                && word.operation.is_none()
                && node.is_some_and(|(name, node)| {
                    node.ready && node.address.as_ref() == Some(ip) && on.get(ip) == Some(name)
                });
            if !is_well {
                left.push(format!("{ip} is on {:?}, {word:?}, node {node:?}", on.get(ip)));
            }
        }
        let wrong = heard.wrong_labels(&on);
        left.extend(wrong.into_iter().map(|(node, ip)| format!("node {node} says that it has {ip}, and has not")));
        let owed = heard.owed.iter().filter(|(_, owed)| **owed > 0);
        left.extend(owed.map(|(name, owed)| format!("{name} owes {owed} machines an address of their own")));
        drop(heard);
        // P10: a machine without a reserved address has one of its own.
        let bare: Vec<String> = self.stage.world.inventory(|inventory| {
            let bare =
                inventory.machines().filter(|machine| machine.external.is_none() && machine.power == Power::Running);
            bare.map(|machine| machine.key.name.clone()).collect()
        });
        let bare = bare.into_iter().filter(|name| self.is_ours(name) && !touched.contains(name));
        left.extend(bare.map(|name| format!("machine {name} has no address of its own again")));
        left
    }

    /// Whether a machine is one of the pools.
    fn is_ours(&self, machine: &str) -> bool {
        self.pools.iter().any(|pool| machine.starts_with(&format!("{}-node-", pool.name)))
    }

    /// What helps to find out what went wrong.
    pub async fn evidence(&self) -> String {
        let mut text = String::new();
        for (pod, log) in self.stage.logs().await.unwrap_or_default() {
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default();
            text += &format!("--- {pod}\n{}\n", last.join("\n"));
        }
        let said = r#"jsonpath={range .items[*].status.addresses[*]}{.ip}  {.node}  {.state}  {.reason}  {.message}{"\n"}{end}"#;
        text + &self
            .stage
            .cluster
            .kubectl(&["get", "nia", "-o", said])
            .await
            .unwrap_or_else(|error| format!("{error:#}"))
    }
}

impl Pool {
    /// The name of its node of that number. All of one length, so that none is a part of another.
    pub fn node(&self, n: usize) -> String {
        format!("{}-node-{n:04}", self.name)
    }

    /// The labels of its node of that number.
    pub fn labels(&self, n: usize) -> Vec<(&str, &str)> {
        let mut labels = vec![("role", self.name.as_str())];
        labels.extend(is_graded(n).then_some(("grade", "good")));
        labels
    }
}

/// Whether the node of that number has the label that a narrowed selector asks for.
fn is_graded(n: usize) -> bool {
    n % GRADE != GRADE - 1
}

/// From 198.51.100.0/24, which is set aside for documents (RFC 5737).
fn pool(n: usize) -> Pool {
    let ips = (1..=EACH).map(|last| format!("198.51.100.{}", n * EACH + last)).collect();
    Pool { name: format!("soak-{n}"), ips }
}

fn deployment(name: &str, replicas: usize, selector: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      \
         nodeSelector: {{{selector}}}\n      terminationGracePeriodSeconds: 3\n      \
         containers: [{{name: main, image: registry.example/main}}]\n---\n"
    )
}

/// When that was, by the wall clock.
pub fn wall_clock(at: Instant) -> Result<Timestamp> {
    let ago = jiff::SignedDuration::try_from(at.elapsed()).context("too long ago")?;
    Ok(Timestamp::now() - ago)
}
