//! The processes of a control plane, in the order in which they need each other, on ports that were free a moment ago.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use super::credentials::{Endpoint, SigningKey, Tokens};
use super::process::{Launch, Process};
use super::wait::{Seen, wait_for};
use super::{Options, audit};

/// A cold start takes 3 seconds on two idle cores; a shared and busy machine may need much more.
const STARTED: Duration = Duration::from_secs(120);

/// Garbage is collected when there is so much of it, in percent of what lives. With Go's own 100 that was a third of the API server's
/// time; it shares two cores with everything else here, and of memory there is enough.
const GARBAGE: &str = "400";

const STAGES: &str = include_str!("stages.yaml");

/// Another process took the port between our look and our use: worth another try with other ports.
#[derive(Debug)]
pub(super) struct PortTaken;

impl fmt::Display for PortTaken {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a port was taken by somebody else")
    }
}

impl std::error::Error for PortTaken {}

/// What is to be known beforehand.
pub(super) struct Plan<'a> {
    pub bin: &'a Path,
    pub dir: &'a Path,
    pub options: &'a Options,
}

/// A running control plane. Dropping it kills all of it.
#[derive(Debug)]
pub(super) struct ControlPlane {
    pub endpoint: Endpoint,
    pub config: Config,
    pub kubeconfig: PathBuf,
    pub audit_log: PathBuf,
    /// By component; the last to start is the first to be dropped.
    pub processes: Vec<Component>,
}

/// One process of the control plane, and where it writes.
#[derive(Debug)]
pub(super) struct Component {
    pub name: &'static str,
    launch: Launch,
    log: PathBuf,
    process: Mutex<Arc<Process>>,
}

impl ControlPlane {
    pub(super) async fn start(plan: &Plan<'_>) -> anyhow::Result<Self> {
        let dir = plan.dir;
        let file = |name: &str| dir.join(name);
        let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let [etcd_client, etcd_peer, api] = free_ports()?;
        let local = |scheme: &str, port: u16| format!("{scheme}://127.0.0.1:{port}");

        let key = SigningKey::generate(dir)?;
        let tokens = Tokens::generate(&file("tokens.csv"))?;
        std::fs::write(file("audit-policy.yaml"), audit::POLICY)?;
        std::fs::write(file("stages.yaml"), STAGES)?;
        let (private_key, public_key) = (key.private.to_string_lossy(), key.public.to_string_lossy());

        let mut starting = Starting { plan, running: Vec::new() };
        starting
            .launch(
                "etcd",
                &[
                    ("data-dir", &path("etcd")),
                    ("listen-client-urls", &local("http", etcd_client)),
                    ("advertise-client-urls", &local("http", etcd_client)),
                    ("listen-peer-urls", &local("http", etcd_peer)),
                    ("initial-advertise-peer-urls", &local("http", etcd_peer)),
                    ("initial-cluster", &format!("default={}", local("http", etcd_peer))),
                    ("unsafe-no-fsync", "true"),
                    ("log-level", "error"),
                ],
            )
            .await?;
        starting
            .launch(
                "kube-apiserver",
                &[
                    ("etcd-servers", &local("http", etcd_client)),
                    ("bind-address", "127.0.0.1"),
                    ("advertise-address", "127.0.0.1"),
                    ("secure-port", &api.to_string()),
                    ("cert-dir", &path("pki")),
                    ("token-auth-file", &path("tokens.csv")),
                    ("authorization-mode", "RBAC"),
                    ("service-account-issuer", "https://kubernetes.default.svc"),
                    ("service-account-key-file", &public_key),
                    ("service-account-signing-key-file", &private_key),
                    ("service-cluster-ip-range", "10.96.0.0/16"),
                    // There is no address of ours that pods of the cluster could reach.
                    ("endpoint-reconciler-type", "none"),
                    ("audit-policy-file", &path("audit-policy.yaml")),
                    ("audit-log-path", &path("audit.log")),
                ],
            )
            .await?;

        // The server makes its own certificate: the file is its leaf and its authority in one.
        let endpoint = Endpoint { server: local("https", api), authority: file("pki/apiserver.crt") };
        let kubeconfig = file("kubeconfig");
        endpoint.write_kubeconfig(&kubeconfig, &tokens.admin, "default")?;
        endpoint.write_kubeconfig(&file("controller-manager.kubeconfig"), &tokens.controller_manager, "default")?;
        endpoint.write_kubeconfig(&file("scheduler.kubeconfig"), &tokens.scheduler, "default")?;
        endpoint.write_kubeconfig(&file("kubelets.kubeconfig"), &tokens.kubelets, "default")?;

        let config = starting.until("the API server is ready", || ready(&kubeconfig, &endpoint)).await?;

        starting
            .launch(
                "kube-controller-manager",
                &[
                    ("kubeconfig", &path("controller-manager.kubeconfig")),
                    ("use-service-account-credentials", "true"),
                    ("service-account-private-key-file", &private_key),
                    ("root-ca-file", &path("pki/apiserver.crt")),
                    ("leader-elect", "false"),
                    // Nobody asks it anything, so it listens nowhere: one port less to lose a race for.
                    ("secure-port", "0"),
                    ("node-monitor-grace-period", &format!("{}s", plan.options.node_monitor_grace.as_secs())),
                    ("node-monitor-period", "1s"),
                ],
            )
            .await?;
        starting
            .launch(
                "kube-scheduler",
                &[("kubeconfig", &path("scheduler.kubeconfig")), ("leader-elect", "false"), ("secure-port", "0")],
            )
            .await?;
        starting
            .launch(
                "kwok",
                &[
                    ("config", &path("stages.yaml")),
                    ("kubeconfig", &path("kubelets.kubeconfig")),
                    ("manage-all-nodes", "false"),
                    (
                        "manage-nodes-with-label-selector",
                        &format!("{}={}", super::node::KWOK_LABEL, super::node::KWOK_VALUE),
                    ),
                    ("node-lease-duration-seconds", &plan.options.node_lease.as_secs().to_string()),
                    ("node-port", "0"),
                ],
            )
            .await?;

        let client = Client::try_from(config.clone())?;
        starting
            .until("the default service account exists", || async {
                let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
                Ok(match accounts.get_opt("default").await? {
                    Some(_) => Seen::Yes(()),
                    None => Seen::NotYet("no such service account".to_owned()),
                })
            })
            .await?;

        Ok(Self { endpoint, config, kubeconfig, audit_log: file("audit.log"), processes: starting.running })
    }
}

struct Starting<'a> {
    plan: &'a Plan<'a>,
    running: Vec<Component>,
}

impl Starting<'_> {
    async fn launch(&mut self, name: &'static str, flags: &[(&str, &str)]) -> anyhow::Result<()> {
        let launch = Launch {
            program: self.plan.bin.join(name),
            args: flags.iter().map(|(flag, value)| format!("--{flag}={value}")).collect(),
            env: BTreeMap::from([
                ("HOME".to_owned(), self.plan.dir.to_string_lossy().into_owned()),
                ("GOGC".to_owned(), GARBAGE.to_owned()),
            ]),
            dir: self.plan.dir.to_owned(),
        };
        let log = self.plan.dir.join(format!("{name}.log"));
        let process = Mutex::new(Arc::new(Process::start(launch.clone(), log.clone()).await?));
        self.running.push(Component { name, launch, log, process });
        Ok(())
    }

    /// Waits for `condition`, but not for a process that has ended.
    async fn until<T, F, L>(&self, description: &str, condition: F) -> anyhow::Result<T>
    where
        F: FnMut() -> L,
        L: Future<Output = anyhow::Result<Seen<T>>>,
    {
        let ends = self.running.iter().map(|component| Box::pin(component.ended()));
        tokio::select! {
            seen = wait_for(description, STARTED, condition) => seen,
            (ended, ..) = futures::future::select_all(ends) => Err(ended),
        }
    }
}

impl ControlPlane {
    /// The component of that name.
    pub fn component(&self, name: &str) -> anyhow::Result<&Component> {
        self.processes.iter().find(|component| component.name == name).with_context(|| format!("there is no {name}"))
    }

    /// Waits until the API server says that it is ready.
    pub async fn until_ready(&self) -> anyhow::Result<()> {
        wait_for("the API server is ready", STARTED, || ready(&self.kubeconfig, &self.endpoint)).await.map(|_| ())
    }
}

impl Component {
    /// The process that it is now.
    pub fn process(&self) -> Arc<Process> {
        Arc::clone(&self.process.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Kills it and starts it again as it was started.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.process().kill().await;
        let again = Arc::new(Process::start(self.launch.clone(), self.log.clone()).await?);
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = again;
        Ok(())
    }

    /// Waits for what should not happen, and says what the log says about it.
    async fn ended(&self) -> anyhow::Error {
        let status = self.process().wait().await;
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let how = status.map_or_else(|| "ended".to_owned(), |status| status.to_string());
        if log.contains("address already in use") {
            return anyhow::Error::new(PortTaken).context(format!("{}: {how}", self.name));
        }
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n");
        anyhow::anyhow!("{} did not stay up: {how}; the end of {}:\n{tail}", self.name, self.log.display())
    }
}

/// The configuration of an admin's client, once the server says that it is ready.
async fn ready(kubeconfig: &Path, endpoint: &Endpoint) -> anyhow::Result<Seen<Config>> {
    if !endpoint.authority.exists() {
        return Ok(Seen::NotYet("it has no certificate yet".to_owned()));
    }
    let config = client_config(kubeconfig).await?;
    let client = Client::try_from(config.clone())?;
    let request = http::Request::get("/readyz").body(Vec::new()).context("a request for /readyz")?;
    client.request_text(request).await?;
    Ok(Seen::Yes(config))
}

/// A client that tells what happened, once: no silent repetition of refused calls.
pub(super) async fn client_config(kubeconfig: &Path) -> anyhow::Result<Config> {
    let mut config =
        Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(config)
}

/// Ports that nobody listens on now. All are held until all are found, so that they differ.
pub(super) fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let held = (0..N).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<Vec<_>, _>>()?;
    let ports = held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<std::io::Result<Vec<_>>>()?;
    match ports.try_into() {
        Ok(ports) => Ok(ports),
        Err(_) => bail!("not enough free ports"),
    }
}
