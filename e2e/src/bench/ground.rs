//! What is measured on: a real control plane with so many nodes and pods, the simulated cloud with its latency and quotas,
//! and the release.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result};
use e2e::{
    cluster::{AuditEvent, NodeSpec, Options, Seen, wait_for},
    stage::{ACCOUNT, AT_ONCE, Stage, Venue},
    world::{Address, Latency},
};
use futures::{StreamExt, TryStreamExt, stream};
use ip_address_controller::api::NetIPAllocation;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, CustomResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::history::History;

/// From a request to its answer, and from a change to its end.
pub const LATENCY: Latency =
    Latency { answer: Duration::from_millis(50), operation: Duration::from_secs(2), spread: Duration::from_secs(8) };
/// So many addresses an object, as is recommended.
const PER_OBJECT: usize = 100;
/// The pace that the operator is told to keep: at most 1,300 requests in any minute, of 1,500 that the quota allows.
pub const QPS: usize = 20;
/// Ten allocations that drain at once take 40 for their detaches and 20 to look where they go.
pub const BURST: usize = 100;
/// The chart's defaults.
pub const LEASE: Duration = Duration::from_secs(60);
pub const SKEW: Duration = Duration::from_secs(2);
/// Seconds between two surveys.
pub const INTERVAL: Duration = Duration::from_secs(30);
/// As many as a node of the default size runs.
const PODS_PER_NODE: usize = 100;

/// See the module.
pub struct Ground {
    pub stage: Stage,
    pub history: History,
    pub size: usize,
    /// Objects by name, with their addresses.
    pub objects: BTreeMap<String, Vec<String>>,
}

impl Ground {
    /// Everything but the objects, and the operator at rest on it.
    pub async fn make(venue: &'static Venue, size: usize, pods: usize) -> Result<Self> {
        let options = Options { node_monitor_grace: Duration::from_secs(400), node_lease: Duration::from_secs(200) };
        let stage = Stage::raise_with(venue, options, |line| println!("  {line}")).await?;
        stage.world.publish_quotas(venue.quotas());
        let addresses: Vec<String> = (0..size).map(address).collect();
        for (n, ip) in addresses.iter().enumerate() {
            let name = format!("address-{n}");
            stage.world.add_address(Address::new(venue.account, venue.region, &name, ip.parse()?));
        }
        let objects = addresses.chunks(PER_OBJECT).enumerate();
        let objects = objects.map(|(n, ips)| (format!("bench-{n:02}"), ips.to_vec())).collect();
        // A tenth is drained later, then one of each object, and one is lost.
        let nodes: Vec<String> = (0..size + size.div_ceil(8) + 1).map(node).collect();
        println!("  adding {} nodes, and {pods} pods elsewhere", nodes.len());
        stage.add_nodes(&nodes, &[("role", "bench")]).await?;
        elsewhere(&stage, pods).await?;
        let values = [
            format!("controller.cloudApi.qps={QPS}"),
            format!("controller.cloudApi.burst={BURST}"),
            format!("leaderElection.leaseDurationSeconds={}", LEASE.as_secs()),
            format!("leaderElection.skewGraceSeconds={}", SKEW.as_secs()),
        ];
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        stage.install(&values).await?;
        stage.until_led(None).await?;
        objects_are_created_at_once(stage.client()?).await?;
        stage.world.set_latency(LATENCY);
        let history = History::follow(stage.client()?);
        Ok(Self { stage, history, size, objects })
    }

    /// Creates all objects, by requests of our own: kubectl would read for half a second what the API server offers.
    pub async fn create_objects(&self) -> Result<()> {
        let api: Api<NetIPAllocation> = Api::all(self.stage.client()?);
        for (name, ips) in &self.objects {
            let spec = serde_json::from_value(json!({
                "reservedIPs": ips,
                "nodeSelector": {"role": "bench"},
                "cloud": {"provider": self.stage.venue.provider.as_str(), "region": self.stage.venue.region},
                "reconcileInterval": INTERVAL.as_secs(),
            }));
            let object = NetIPAllocation::new(name, spec.context("a spec")?);
            api.create(&PostParams::default(), &object).await?;
        }
        Ok(())
    }

    pub async fn cordon(&self, node: &str) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.stage.client()?);
        let patch = json!({"spec": {"unschedulable": true}});
        nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// What the operator has asked of the API server since then.
    pub fn asked_since(&self, since: Timestamp) -> Result<Vec<AuditEvent>> {
        let events = self.stage.cluster.audit()?.into_iter();
        let is_later = |event: &AuditEvent| event.time.parse::<Timestamp>().is_ok_and(|time| time >= since);
        Ok(events.filter(|event| event.user == ACCOUNT && is_later(event)).collect())
    }

    /// Waits until the operator has nothing left to do: no change under way, and no call but surveys for two intervals.
    pub async fn rest(&self) -> Result<()> {
        let patience = Duration::from_secs(600);
        let quiet = INTERVAL * 2;
        wait_for("nothing is under way any more", patience, || async {
            let calls = self.stage.world.calls();
            let survey = self.stage.venue.survey;
            let busy = calls.iter().rev().find(|call| !survey.contains(&call.method.as_str()));
            let busy = busy.filter(|call| call.at.elapsed() < quiet);
            Ok(Seen::when(busy.is_none(), format!("{busy:?}")))
        })
        .await
    }
}

/// Until that is so. Within two seconds after its CRD was established the API server keeps whoever creates an object waiting for two
/// (`crdHandler` of k8s.io/apiextensions-apiserver), which nothing here can be blamed for.
async fn objects_are_created_at_once(client: Client) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client);
    wait_for("the CRD was established two seconds ago", Duration::from_secs(60), || async {
        let crd = crds.get(NetIPAllocation::crd_name()).await?;
        let conditions = crd.status.and_then(|status| status.conditions).unwrap_or_default();
        let established = conditions.into_iter().find(|condition| condition.type_ == "Established");
        let since = established.and_then(|condition| condition.last_transition_time).context("not established")?;
        let age = Timestamp::now().duration_since(since.0);
        Ok(Seen::when(age >= SignedDuration::from_secs(2), age))
    })
    .await
}

/// From 198.18.0.0/15, which is set aside for benchmarks (RFC 2544).
fn address(n: usize) -> String {
    let base = u32::from(Ipv4Addr::new(198, 18, 0, 1));
    Ipv4Addr::from(base.saturating_add(u32::try_from(n).unwrap_or(u32::MAX))).to_string()
}

/// All of the same length, so that none is a part of another.
fn node(n: usize) -> String {
    format!("bench-node-{n:05}")
}

/// Pods that have nothing to do with addresses, on nodes that nobody plays.
async fn elsewhere(stage: &Stage, pods: usize) -> Result<()> {
    let client = stage.client()?;
    let nodes: Api<Node> = Api::all(client.clone());
    for n in 0..pods.div_ceil(PODS_PER_NODE) {
        let node = NodeSpec::new(format!("elsewhere-{n}")).into_node();
        nodes.create(&PostParams::default(), &node).await?;
    }
    let api: Api<Pod> = Api::namespaced(client, "default");
    let (api, params) = (&api, PostParams::default());
    let params = &params;
    stream::iter(0..pods)
        .map(|n| async move {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": format!("elsewhere-{n}"), "labels": {"app": "elsewhere"}},
                "spec": {
                    "nodeName": format!("elsewhere-{}", n / PODS_PER_NODE),
                    // Nobody answers for the node, and nobody shall take the pod off it for that.
                    "tolerations": [{"operator": "Exists"}],
                    "automountServiceAccountToken": false,
                    "containers": [{"name": "main", "image": "registry.example/main"}],
                },
            }))
            .context("a pod")?;
            api.create(params, &pod).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await
}
