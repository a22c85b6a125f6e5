//! The operator on stage: a real control plane, a simulated cloud, and a release that Helm installed.
//!
//! What runs is what users run: the chart's Deployment, its ServiceAccount's token and rights, its probes. Only the cloud
//! is simulated, and that over its real HTTP API.

mod venue;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use ip_address_controller::api::{AddressStatus, NetIPAllocation, READY_LABEL};
use k8s_openapi::api::{
    coordination::v1::{Lease, LeaseSpec},
    core::v1::{Node, Pod},
};
use kube::{Api, Client, ResourceExt, api::ListParams};
use tokio::process::Command;

pub use self::venue::Venue;
use crate::{
    cluster::{Agent, AgentOptions, Cluster, NodeSpec, Options, Prometheus, Seen, background, wait_for},
    simulator::Simulator,
    world::World,
};

/// Project of the simulated Google Cloud.
pub const PROJECT: &str = Venue::GCP.account;
/// Its region.
pub const REGION: &str = Venue::GCP.region;
/// Another region, for addresses that are in the wrong one.
pub const OTHER_REGION: &str = Venue::GCP.other_region;
/// Zones of [`REGION`].
pub const ZONES: [&str; 2] = Venue::GCP.zones;
/// Where the chart is installed.
pub const NAMESPACE: &str = "ip-address-controller";
/// How the API server knows the operator.
pub const ACCOUNT: &str = "system:serviceaccount:ip-address-controller:ip-address-controller";
/// Requests to the API server at one time while a stage is filled.
pub const AT_ONCE: usize = 32;
/// Helm release.
pub const RELEASE: &str = "ip-address-controller";
/// Long enough for every wait on a busy machine of two cores.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What a release here is installed with: pods on the nodes that run them, and no time to lose.
pub const VALUES: [&str; 7] = [
    "nodeSelector.ip-address-controller/agent=true",
    "readinessProbe.initialDelaySeconds=0",
    "readinessProbe.periodSeconds=1",
    "leaderElection.leaseDurationSeconds=6",
    "leaderElection.skewGraceSeconds=1",
    "controller.cloudApi.qps=100",
    "controller.cloudApi.burst=100",
];

/// See the module.
pub struct Stage {
    pub venue: &'static Venue,
    pub world: World,
    pub simulator: Simulator,
    pub cluster: Cluster,
    pub agent: Agent,
}

impl Stage {
    /// [`Stage::raise_at`] Google Cloud.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn raise(say: impl Fn(&str)) -> Result<Self> {
        Self::raise_at(&Venue::GCP, say).await
    }

    /// Everything started, the chart not yet installed. `say` hears one line before each long step.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn raise_at(venue: &'static Venue, say: impl Fn(&str)) -> Result<Self> {
        Self::raise_with(venue, Options::default(), say).await
    }

    /// [`Stage::raise_at`], with another cluster than the tests'.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn raise_with(venue: &'static Venue, options: Options, say: impl Fn(&str)) -> Result<Self> {
        let world = World::new();
        for (region, zones) in venue.places() {
            world.add_region(venue.account, region);
            for zone in zones {
                world.add_zone(venue.account, region, zone);
            }
        }
        // On the thread that outlives every test: a stage is shared by the tests of a binary.
        let simulated = world.clone();
        let simulator = background::run(async move { Ok(Simulator::start(simulated).await?) })
            .await
            .context("starting the simulated cloud")?;
        say("starting etcd, API server, controller-manager, scheduler and kwok");
        let cluster = Cluster::start(options).await.context("starting the control plane")?;
        let mut options = AgentOptions::new("operator-host").image("darkbrains/ip-address-controller", operator()?);
        for (name, value) in venue.environment(&simulator) {
            options = options.env(name, value);
        }
        let agent = cluster.start_agent(options).await.context("starting the node agent")?;
        Ok(Self { venue, world, simulator, cluster, agent })
    }

    /// Installs the chart with Helm and waits until its pods are Ready. `set` are further `--set` values.
    ///
    /// # Errors
    /// Helm's.
    pub async fn install(&self, set: &[&str]) -> Result<()> {
        self.install_as(RELEASE, set).await
    }

    /// The same under another name, which its namespace has too: a second release, beside the first.
    ///
    /// # Errors
    /// Helm's.
    pub async fn install_as(&self, release: &str, set: &[&str]) -> Result<()> {
        self.helm_install(release, set, &["--wait", "--timeout", "120s"]).await
    }

    /// Installs the chart with Helm and does not wait: the pods may have a reason not to become Ready.
    ///
    /// # Errors
    /// Helm's.
    pub async fn install_without_waiting(&self, set: &[&str]) -> Result<()> {
        self.helm_install(RELEASE, set, &[]).await
    }

    async fn helm_install(&self, release: &str, set: &[&str], more: &[&str]) -> Result<()> {
        let chart = chart();
        let chart = chart.to_string_lossy();
        let mut args = vec!["upgrade", "--install", release, &*chart, "--namespace", release, "--create-namespace"];
        args.extend(more);
        args.extend(VALUES.iter().chain(set).flat_map(|value| setting(value)));
        self.cluster.helm(&args).await.map(|_| ())
    }

    /// A real Prometheus that scrapes the release's pods and evaluates the chart's alerts.
    ///
    /// # Errors
    /// When it does not come up, or the alerts cannot be rendered.
    pub async fn prometheus(&self) -> Result<Prometheus> {
        let rules = self.cluster.dir().join("alerts.yaml");
        let script = chart().join("../../alerts/render");
        let output = Command::new(&script).args(["--namespace", NAMESPACE]).output().await?;
        ensure!(output.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&output.stderr));
        std::fs::write(&rules, output.stdout)?;
        Prometheus::start(self.cluster.dir(), self.cluster.kubeconfig(), NAMESPACE, &rules).await
    }

    /// A machine as the cloud starts one, and its Node.
    ///
    /// # Errors
    /// The API server's.
    pub async fn add_node(&self, name: &str, zone: &str, labels: &[(&str, &str)]) -> Result<()> {
        let spec = self.new_node(name, zone, labels)?;
        self.cluster.add_node(spec).await.map(|_| ())
    }

    /// A machine as the cloud starts one, and its Node, which runs the containers of its pods as local processes: what
    /// `images` says of them.
    ///
    /// # Errors
    /// The API server's.
    pub async fn start_node(
        &self,
        name: &str,
        zone: &str,
        labels: &[(&str, &str)],
        images: impl FnOnce(AgentOptions) -> AgentOptions,
    ) -> Result<Agent> {
        let spec = self.new_node(name, zone, labels)?;
        self.cluster.start_agent(images(AgentOptions::on(spec))).await
    }

    fn new_node(&self, name: &str, zone: &str, labels: &[(&str, &str)]) -> Result<NodeSpec> {
        self.world.add_machine(self.venue.machine(zone, name));
        let machine = self.world.machine(name).context("the machine has not started")?;
        let spec = self.venue.node(&machine);
        Ok(labels.iter().fold(spec, |spec, (key, value)| spec.label(*key, *value)))
    }

    /// Machines and their Nodes, over both zones, many at a time.
    ///
    /// # Errors
    /// The API server's.
    pub async fn add_nodes(&self, names: &[String], labels: &[(&str, &str)]) -> Result<()> {
        stream::iter(names.iter().zip(self.venue.zones.iter().cycle()))
            .map(|(name, zone)| async move { self.add_node(name, zone, labels).await })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await
    }

    /// An admin client.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn client(&self) -> Result<Client> {
        self.cluster.client()
    }

    /// The allocation as stored.
    ///
    /// # Errors
    /// The API server's.
    pub async fn allocation(&self, name: &str) -> Result<Option<NetIPAllocation>> {
        Ok(Api::<NetIPAllocation>::all(self.client()?).get_opt(name).await?)
    }

    /// What status says of an address.
    ///
    /// # Errors
    /// The API server's.
    pub async fn address(&self, allocation: &str, ip: &str) -> Result<Option<AddressStatus>> {
        let status = self.allocation(allocation).await?.and_then(|object| object.status).unwrap_or_default();
        Ok(status.addresses.into_iter().find(|address| address.ip == ip))
    }

    /// Waits until status says what `wanted` accepts of the address.
    ///
    /// # Errors
    /// When it never does; the text shows what it said last.
    pub async fn until(
        &self,
        what: &str,
        allocation: &str,
        ip: &str,
        wanted: impl Fn(&AddressStatus) -> bool,
    ) -> Result<AddressStatus> {
        wait_for(what, PATIENCE, || async {
            Ok(match self.address(allocation, ip).await? {
                Some(address) if wanted(&address) => Seen::Yes(address),
                other => Seen::NotYet(format!("{other:?}")),
            })
        })
        .await
    }

    /// Waits until the address is Attached and its node says so; gives the node.
    ///
    /// # Errors
    /// As [`Stage::until`].
    pub async fn until_attached(&self, allocation: &str, ip: &str) -> Result<String> {
        let address =
            self.until(&format!("{ip} is attached"), allocation, ip, |address| address.state == "Attached").await?;
        let node = address.node.context("attached to no node")?;
        wait_for(&format!("{node} is labelled"), PATIENCE, || async {
            let labels = self.node(&node).await?.map(|node| node.labels().clone()).unwrap_or_default();
            let labelled = labels.get(READY_LABEL).is_some_and(|value| value == "true");
            Ok(if labelled { Seen::Yes(node.clone()) } else { Seen::NotYet(format!("{labels:?}")) })
        })
        .await
    }

    /// A Node.
    ///
    /// # Errors
    /// The API server's.
    pub async fn node(&self, name: &str) -> Result<Option<Node>> {
        Ok(Api::<Node>::all(self.client()?).get_opt(name).await?)
    }

    /// Pods of a namespace with a label, by name.
    ///
    /// # Errors
    /// The API server's.
    pub async fn pods(&self, namespace: &str, label: &str) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.client()?, namespace);
        Ok(api.list(&ListParams::default().labels(label)).await?.items)
    }

    /// The pod that holds the Lease.
    ///
    /// # Errors
    /// The API server's.
    pub async fn leader(&self) -> Result<Option<String>> {
        let lease = self.lease().await?;
        let holder = lease.and_then(|lease| lease.holder_identity).filter(|holder| !holder.is_empty());
        Ok(holder.map(|holder| holder.rsplit_once('_').map_or(holder.clone(), |(pod, _)| pod.to_owned())))
    }

    /// The Lease that says who leads.
    ///
    /// # Errors
    /// The API server's.
    pub async fn lease(&self) -> Result<Option<LeaseSpec>> {
        let api: Api<Lease> = Api::namespaced(self.client()?, NAMESPACE);
        Ok(api.get_opt("ip-address-controller-leader").await?.and_then(|lease| lease.spec))
    }

    /// Waits for a leader other than `not`.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn until_led(&self, not: Option<&str>) -> Result<String> {
        wait_for("a leader", PATIENCE, || async {
            Ok(match self.leader().await? {
                Some(leader) if Some(leader.as_str()) != not => Seen::Yes(leader),
                other => Seen::NotYet(format!("{other:?}")),
            })
        })
        .await
    }

    /// What a pod of the release says at `/metrics`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self, pod: &str) -> Result<String> {
        let address = SocketAddr::new(self.agent.ip(NAMESPACE, pod)?, 9999);
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(client.get(format!("http://{address}/metrics")).send().await?.text().await?)
    }

    /// What the leader's `/metrics` says of an address: the last word of each line about it, by the name of the metric.
    ///
    /// # Errors
    /// When nobody leads, or the leader does not answer.
    pub async fn gauges(&self, allocation: &str, ip: &str) -> Result<BTreeMap<String, f64>> {
        let text = self.metrics(&self.until_led(None).await?).await?;
        let labels = format!("{{crd_name=\"{allocation}\",ip=\"{ip}\"}} ");
        let lines = text.lines().filter_map(|line| line.split_once(&labels));
        lines.map(|(name, value)| Ok((name.to_owned(), value.parse()?))).collect()
    }

    /// kubectl as a person has it who has installed the plugin `kubectl nia`, with this kubeconfig. Its input is empty.
    ///
    /// # Errors
    /// When the plugin cannot be put beside it.
    pub fn kubectl_with_plugin(&self, kubeconfig: &Path, args: &[&str]) -> Result<Command> {
        let (plugins, bin) = (self.plugins()?, self.cluster.bin());
        let mut command = Command::new(bin.join("kubectl"));
        command.args(args).env_clear().stdin(Stdio::null()).kill_on_drop(true);
        command.env("PATH", format!("{}:{}", plugins.display(), bin.display()));
        command.env("KUBECONFIG", kubeconfig).env("HOME", self.cluster.dir());
        Ok(command)
    }

    /// The folder with the plugin `kubectl nia`, for the PATH of whoever has it installed.
    ///
    /// # Errors
    /// When it cannot be filled.
    pub fn plugins(&self) -> Result<PathBuf> {
        let plugins = self.cluster.dir().join("plugins");
        std::fs::create_dir_all(&plugins)?;
        for name in ["kubectl-nia", "kubectl_complete-nia"] {
            let link = plugins.join(name);
            if !link.exists() {
                symlink(operator()?, link)?;
            }
        }
        Ok(plugins)
    }

    /// The logs of the pods of every release, for a failed test.
    ///
    /// # Errors
    /// The API server's.
    pub async fn logs(&self) -> Result<BTreeMap<String, String>> {
        let ours = ListParams::default().labels("app.kubernetes.io/name=ip-address-controller");
        let pods = Api::<Pod>::all(self.client()?).list(&ours).await?;
        let log = |pod: Pod| {
            let log = self.agent.log(&pod.namespace().unwrap_or_default(), &pod.name_any());
            (pod.name_any(), log.unwrap_or_default())
        };
        Ok(pods.into_iter().map(log).collect())
    }
}

/// `gce://PROJECT/ZONE/NAME`.
pub fn provider_id(zone: &str, name: &str) -> String {
    format!("gce://{PROJECT}/{zone}/{name}")
}

/// The value as Helm's arguments: some must stay text.
pub fn setting(value: &str) -> [&str; 2] {
    let is_text = value.starts_with("nodeSelector") || value.starts_with("extraEnv");
    [if is_text { "--set-string" } else { "--set" }, value]
}

/// The chart in this repository.
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/ip-address-controller")
}

/// The operator's binary, built beside the running program.
///
/// # Errors
/// When it is not there; the text says how to build it.
pub fn operator() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let found =
        here.ancestors().skip(1).take(2).map(|folder| folder.join("ip-address-controller")).find(|path| path.is_file());
    found.context("the operator is not built: cargo build -p ip-address-controller")
}
