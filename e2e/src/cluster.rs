//! A real Kubernetes on loopback: etcd, API server, controller manager, scheduler, and kwok for nodes that only
//! pretend; the [`agent`] runs pods for real.
//!
//! | file | what it is |
//! |---|---|
//! | `tools` | the binaries, built once from pinned Go modules |
//! | `control_plane`, `credentials` | the processes, their flags, keys and tokens |
//! | `process`, `background`, `folder` | nothing outlives us: children, threads, files |
//! | `node`, `stages.yaml` | nodes that kwok plays |
//! | [`agent`] | a node that runs the containers of its pods as local processes |
//! | `command` | kubectl and helm, kept on loopback |
//! | `audit` | who asked the API server what |
//! | [`checkpoint`] | where requests to the API server can be held on their way |
//! | `jaeger`, `prometheus` | the real ones, for traces and metrics |
//! | `wait` | waiting for a condition, with the last thing seen in the message |
//!
//! Nothing here knows about addresses or clouds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client, Config};
use nix::sys::signal::Signal;

pub mod agent;
mod audit;
pub(crate) mod background;
pub mod checkpoint;
mod command;
mod control_plane;
mod credentials;
mod folder;
mod jaeger;
pub mod node;
mod process;
mod prometheus;
mod tools;
mod wait;

pub use agent::{Agent, AgentOptions};
pub use audit::AuditEvent;
pub use checkpoint::Checkpoint;
pub use command::Output;
pub use jaeger::Jaeger;
pub use node::{NodeSpec, condition};
pub use process::{Launch, Process};
pub use prometheus::Prometheus;
pub use wait::{Seen, wait_for};

use control_plane::{ControlPlane, Plan, PortTaken};
use folder::Folder;

/// How often a start that lost a race for a port is tried again.
const TRIES: usize = 5;

/// Longer than any test or demo; the tokens end with their pod or with the cluster.
const TOKEN_SECONDS: i64 = 24 * 60 * 60;

/// What may be chosen about a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a node may be silent before it is NotReady.
    pub node_monitor_grace: Duration,
    /// How long a node's Lease counts, in whole seconds; kwok renews it after a quarter of that. Many nodes want a long one:
    /// the renewals alone would fill the machine.
    pub node_lease: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { node_monitor_grace: Duration::from_secs(16), node_lease: Duration::from_secs(8) }
    }
}

/// A running cluster, and its admin. Dropping it ends every process and removes every file.
///
/// It may be shared by tests with runtimes of their own: nothing in it is tied to the runtime that started it.
#[derive(Debug)]
pub struct Cluster {
    // Fields are dropped in this order: first the processes, then the folder that they write to.
    control_plane: ControlPlane,
    folder: Arc<Folder>,
    bin: &'static Path,
    files: AtomicU64,
}

impl Cluster {
    /// Starts a cluster on free ports of 127.0.0.1, all its files in one temporary folder. The first start on a machine
    /// builds the tools, which takes ten minutes and says so.
    ///
    /// # Errors
    /// When a tool cannot be built or a component does not come up; with the end of its log.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        // Two providers are compiled in through other crates in some builds; the choice is ours. A second call is refused, and right.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let bin = tools::bin().await?;
        let mut tries = 0;
        loop {
            tries += 1;
            let folder = Arc::new(Folder::new()?);
            std::fs::create_dir_all(folder.path().join("home"))?;
            let plan = Plan { bin, dir: folder.path(), options: &options };
            match ControlPlane::start(&plan).await {
                Ok(control_plane) => {
                    return Ok(Self { control_plane, folder, bin, files: AtomicU64::new(0) });
                }
                Err(error) if error.is::<PortTaken>() && tries < TRIES => {
                    tracing::info!("starting again with other ports: {error:#}");
                }
                Err(error) => return Err(error.context("the control plane did not start")),
            }
        }
    }

    /// A client with an admin's rights, on the caller's runtime. It repeats no refused call by itself.
    ///
    /// # Errors
    /// When the TLS set-up fails.
    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::try_from(self.control_plane.config.clone())?)
    }

    /// The configuration of [`Cluster::client`].
    #[must_use]
    pub fn config(&self) -> Config {
        self.control_plane.config.clone()
    }

    /// The admin's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.control_plane.kubeconfig
    }

    /// The folder with kubectl, helm and the control plane's programs.
    #[must_use]
    pub fn bin(&self) -> &Path {
        self.bin
    }

    /// The folder with everything in it: logs (`kube-apiserver.log`, …), data, kubeconfigs. With `E2E_KEEP` set in the
    /// environment it outlives the cluster.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// The URL of the API server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.control_plane.endpoint.server
    }

    /// The process ids of the control plane, by component.
    #[must_use]
    pub fn pids(&self) -> Vec<(&'static str, u32)> {
        self.control_plane.processes.iter().map(|component| (component.name, component.process().pid())).collect()
    }

    /// Kills a component of the control plane with SIGKILL and starts it again, on its port and with its data; waits
    /// until the API server is ready.
    ///
    /// # Errors
    /// When there is no such component, or it does not start again.
    pub async fn restart(&self, component: &str) -> anyhow::Result<()> {
        self.control_plane.component(component)?.restart().await?;
        self.control_plane.until_ready().await
    }

    /// Sends a signal to a component: SIGSTOP and SIGCONT make a pause of which nobody is told.
    ///
    /// # Errors
    /// When there is no such component.
    pub fn signal(&self, component: &str, signal: Signal) -> anyhow::Result<()> {
        self.control_plane.component(component)?.process().signal(signal);
        Ok(())
    }

    /// A place where requests of this user to the API server can be held; see [`checkpoint`].
    ///
    /// # Errors
    /// When it cannot be set up.
    pub async fn checkpoint(&self, user: &str) -> anyhow::Result<Checkpoint> {
        Checkpoint::open(self.config(), &self.dir().join("pki"), user).await
    }

    /// Runs kubectl as admin; what it printed.
    ///
    /// # Errors
    /// When it fails, with its own words.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.run("kubectl", args, None).await?.success().with_context(|| format!("kubectl {}", args.join(" ")))
    }

    /// `kubectl apply --validate=strict` of a manifest.
    ///
    /// # Errors
    /// When the server refuses it, with the server's words.
    pub async fn apply(&self, manifest: &str) -> anyhow::Result<String> {
        let args = ["apply", "--validate=strict", "-f", "-"];
        self.run("kubectl", &args, Some(manifest.to_owned())).await?.success().context("kubectl apply")
    }

    /// Runs Helm 4 as admin; what it printed.
    ///
    /// # Errors
    /// When it fails, with its own words.
    pub async fn helm(&self, args: &[&str]) -> anyhow::Result<String> {
        self.run("helm", args, None).await?.success().with_context(|| format!("helm {}", args.join(" ")))
    }

    /// Runs Helm 3 as admin; what it printed. The first call on a machine builds it.
    ///
    /// # Errors
    /// When it cannot be built, or fails, with its own words.
    pub async fn helm3(&self, args: &[&str]) -> anyhow::Result<String> {
        let launch = self.launch(&tools::bin_with_helm3().await?.join("helm3"), args)?;
        let output = command::run(launch, None).await?;
        output.success().with_context(|| format!("helm3 {}", args.join(" ")))
    }

    /// Runs Prometheus' promtool on that text, to its end, whatever that is.
    ///
    /// # Errors
    /// When it cannot be run at all.
    pub async fn promtool(&self, args: &[&str], input: String) -> anyhow::Result<Output> {
        command::run(self.launch(&tools::bin_with_prometheus().await?.join("promtool"), args)?, Some(input)).await
    }

    /// Runs one of the tools as admin, to its end, whatever that is. It cannot reach anything outside loopback.
    ///
    /// # Errors
    /// When it cannot be run at all.
    pub async fn run(&self, tool: &str, args: &[&str], input: Option<String>) -> anyhow::Result<Output> {
        command::run(self.launch(&self.bin.join(tool), args)?, input).await
    }

    /// Runs lines of a shell as admin in that folder, with kubectl and helm at hand; what they printed. Ends at the first that
    /// fails.
    ///
    /// # Errors
    /// When one fails, with its own words.
    pub async fn shell(&self, dir: &Path, lines: &str) -> anyhow::Result<String> {
        let mut launch = self.launch(Path::new("/bin/sh"), &["-ec", lines])?;
        launch.dir = dir.to_owned();
        command::run(launch, None).await?.success().with_context(|| lines.to_owned())
    }

    fn launch(&self, program: &Path, args: &[&str]) -> anyhow::Result<Launch> {
        Ok(Launch {
            program: program.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            env: command::environment(self.bin, self.dir(), self.kubeconfig()),
            dir: std::env::current_dir()?,
        })
    }

    /// Every request that the API server has answered (or begun to, for a watch), in its order.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn audit(&self) -> anyhow::Result<Vec<AuditEvent>> {
        audit::read(&self.control_plane.audit_log)
    }

    /// Adds a node played by kwok, and waits until pods can be scheduled on it.
    ///
    /// # Errors
    /// When the server refuses it, or it does not become ready.
    pub async fn add_node(&self, spec: NodeSpec) -> anyhow::Result<Node> {
        let client = self.client()?;
        let name = spec.name.clone();
        node::create(client.clone(), spec).await?;
        let nodes: Api<Node> = Api::all(client);
        wait_for(&format!("node {name} is ready"), Duration::from_secs(60), || async {
            let node = nodes.get(&name).await?;
            Ok(match node::usable(&node) {
                Seen::Yes(()) => Seen::Yes(node),
                Seen::NotYet(seen) => Seen::NotYet(seen),
            })
        })
        .await
    }

    /// The node's kubelet stops answering: it will be NotReady when [`Options::node_monitor_grace`] has passed.
    ///
    /// # Errors
    /// When there is no such node.
    pub async fn stop_heartbeat(&self, name: &str) -> anyhow::Result<()> {
        Ok(node::heartbeat(self.client()?, name, false).await?)
    }

    /// The node's kubelet is back.
    ///
    /// # Errors
    /// When there is no such node.
    pub async fn start_heartbeat(&self, name: &str) -> anyhow::Result<()> {
        Ok(node::heartbeat(self.client()?, name, true).await?)
    }

    /// A kubeconfig with the rights of a ServiceAccount, and no others.
    ///
    /// # Errors
    /// When the account does not exist.
    pub async fn kubeconfig_for_service_account(&self, namespace: &str, name: &str) -> anyhow::Result<PathBuf> {
        let token = service_account_token(self.client()?, namespace, name, None).await?;
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let file = self.dir().join(format!("{namespace}-{name}-{number}.kubeconfig"));
        self.control_plane.endpoint.write_kubeconfig(&file, &token, namespace)?;
        Ok(file)
    }

    /// Adds a node that runs the containers of its pods as local processes.
    ///
    /// # Errors
    /// When the node cannot be registered.
    pub async fn start_agent(&self, options: AgentOptions) -> anyhow::Result<Agent> {
        let place = agent::Place {
            folder: Arc::clone(&self.folder),
            endpoint: self.control_plane.endpoint.clone(),
            kubeconfig: self.dir().join("kubelets.kubeconfig"),
        };
        Agent::start(place, options).await
    }

    /// Ends every process and waits until all are gone. Dropping does the same without waiting.
    pub async fn stop(self) {
        for component in self.control_plane.processes.iter().rev() {
            component.process().kill().await;
        }
    }
}

/// A token by TokenRequest, as a kubelet asks for it; bound to a pod it is worth nothing once the pod is gone.
pub(crate) async fn service_account_token(
    client: Client,
    namespace: &str,
    name: &str,
    bound_to: Option<BoundObjectReference>,
) -> anyhow::Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            expiration_seconds: Some(TOKEN_SECONDS),
            bound_object_ref: bound_to,
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let answer = accounts
        .create_token_request(name, &PostParams::default(), &request)
        .await
        .with_context(|| format!("a token for service account {namespace}/{name}"))?;
    answer.status.and_then(|status| status.token).context("the token request was answered without a token")
}
