//! A node that really runs its pods: each container becomes a local process, as its pod template says.
//!
//! It is a kubelet in what our promises are about: args and environment resolved, a token of the pod's own
//! ServiceAccount, probes that decide on readiness and restarts, SIGTERM and the grace period, restarts with back-off.
//! It is none in the rest: no image is pulled (a table maps images to local programs), no volume is mounted but emptyDirs,
//! nothing is isolated, and there are no `kubectl logs`, `exec` or `port-forward`; probes are HTTP or TCP.
//!
//! | file | what it is |
//! |---|---|
//! | `registration` | the Node object, its Lease, its Ready condition |
//! | `pod` | one pod from the first sight of it to its deletion |
//! | `container` | one container: run, restart, stop |
//! | `launch` | what to run: image, args, environment, kubeconfig |
//! | `environment` | values from fields, secrets and config maps |
//! | `folders` | emptyDirs |
//! | `names` | names of Services in those values |
//! | `probe` | startup, liveness and readiness |
//! | `board` | how the containers are, and the status made of it |

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt};
use kube_runtime::watcher::{self, Event};
use nix::sys::signal::Signal;
use tokio::sync::watch;
use uuid::Uuid;

use super::background::{self, AbortOnDrop};
use super::control_plane::client_config;
use super::credentials::Endpoint;
use super::folder::Folder;
use super::node::NodeSpec;
use super::process::Process;
use super::wait::wait_for;

mod board;
mod container;
mod environment;
mod folders;
mod launch;
mod names;
mod pod;
mod probe;
mod registration;

/// The label that every agent's node has: put it into the node selector of what shall really run.
pub const AGENT_LABEL: &str = "ip-address-controller/agent";

/// What may be chosen about an agent.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The node: its labels ([`AGENT_LABEL`] and the hostname come with it), its machine, and its taints, which keep pods away
    /// that shall only be pretended.
    pub node: NodeSpec,
    /// Which local program stands for an image: the whole reference (`repo/app:2.0`) is looked up first, then the
    /// repository alone (`repo/app`).
    pub images: BTreeMap<String, PathBuf>,
    /// Added to the environment of every process; wins over what the pod says.
    pub extra_env: BTreeMap<String, String>,
}

impl AgentOptions {
    /// An agent on a node of that name, which knows no image yet.
    pub fn new(node: impl Into<String>) -> Self {
        Self::on(NodeSpec::new(node))
    }

    /// An agent on that node, which knows no image yet.
    #[must_use]
    pub fn on(node: NodeSpec) -> Self {
        Self { node, images: BTreeMap::new(), extra_env: BTreeMap::new() }
    }

    /// Says which program stands for an image.
    #[must_use]
    pub fn image(mut self, image: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        self.images.insert(image.into(), program.into());
        self
    }

    /// Adds a variable to every process.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra_env.insert(name.into(), value.into());
        self
    }

    /// Adds a label to the node.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.node = self.node.label(key, value);
        self
    }
}

/// A running agent. Dropping it kills its processes and lets its node fall silent.
#[derive(Debug)]
pub struct Agent {
    shared: Arc<Shared>,
    _tasks: [AbortOnDrop<()>; 2],
}

/// Where the agent lives: the cluster's folder and API server.
pub(super) struct Place {
    pub folder: Arc<Folder>,
    pub endpoint: Endpoint,
    pub kubeconfig: PathBuf,
}

/// What all pods of the agent share.
struct Shared {
    node: String,
    client: Client,
    endpoint: Endpoint,
    http: reqwest::Client,
    images: BTreeMap<String, PathBuf>,
    extra_env: Mutex<BTreeMap<String, String>>,
    /// 127.A.B.0/24 with a random A and B, so that two agents on one machine do not meet on a port.
    subnet: [u8; 3],
    taken: Mutex<BTreeSet<u8>>,
    records: Mutex<BTreeMap<PodKey, Record>>,
    /// Last, so that the files outlive the processes that write them.
    folder: Arc<Folder>,
}

/// Namespace and name.
type PodKey = (String, String);

/// What is known of a pod by name, also after its end.
#[derive(Debug)]
struct Record {
    uid: String,
    log: PathBuf,
    ip: IpAddr,
    /// By container; only those that run.
    processes: BTreeMap<String, Arc<Process>>,
}

impl Agent {
    pub(super) async fn start(place: Place, options: AgentOptions) -> anyhow::Result<Self> {
        let config = client_config(&place.kubeconfig).await?;
        // All of it on the lasting thread: the client's own worker task must not end with a test's runtime.
        background::run(async move {
            let random = Uuid::new_v4().into_bytes();
            let shared = Arc::new(Shared {
                node: options.node.name.clone(),
                client: Client::try_from(config)?,
                endpoint: place.endpoint,
                http: reqwest::Client::builder()
                    .no_proxy()
                    .pool_max_idle_per_host(0)
                    .redirect(reqwest::redirect::Policy::none())
                    .build()?,
                images: options.images,
                extra_env: Mutex::new(options.extra_env),
                subnet: [127, 1 + random[0] % 254, random[1]],
                taken: Mutex::new(BTreeSet::new()),
                records: Mutex::new(BTreeMap::new()),
                folder: place.folder,
            });
            registration::register(&shared.client, options.node).await?;
            let heart = background::spawn(registration::keep_alive(shared.client.clone(), shared.node.clone()))?;
            let pods = background::spawn(follow_pods(Arc::clone(&shared)))?;
            let agent = Self { shared, _tasks: [AbortOnDrop(heart), AbortOnDrop(pods)] };
            agent.wait_until_usable().await?;
            Ok(agent)
        })
        .await
    }

    async fn wait_until_usable(&self) -> anyhow::Result<()> {
        let nodes = Api::all(self.shared.client.clone());
        let name = &self.shared.node;
        wait_for(&format!("the agent's node {name} is ready"), Duration::from_secs(60), || async {
            Ok(super::node::usable(&nodes.get(name).await?))
        })
        .await
    }

    /// The name of its node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.shared.node
    }

    /// The process id of the pod's first running container.
    ///
    /// # Errors
    /// When no process of it runs.
    pub fn pid(&self, namespace: &str, pod: &str) -> anyhow::Result<u32> {
        let processes = self.processes(namespace, pod)?;
        processes
            .first()
            .map(|process| process.pid())
            .with_context(|| format!("pod {namespace}/{pod} has no running process"))
    }

    /// Kills the pod's processes with SIGKILL, as a crash would; they are restarted as the pod's policy says.
    ///
    /// # Errors
    /// When no process of it runs.
    pub fn kill(&self, namespace: &str, pod: &str) -> anyhow::Result<()> {
        let processes = self.processes(namespace, pod)?;
        anyhow::ensure!(!processes.is_empty(), "pod {namespace}/{pod} has no running process");
        for process in processes {
            process.signal(Signal::SIGKILL);
        }
        Ok(())
    }

    /// Sends any other signal to the pod's processes: SIGSTOP and SIGCONT make a pause of which nobody is told.
    ///
    /// # Errors
    /// When the pod was never seen.
    pub fn signal(&self, namespace: &str, pod: &str, signal: Signal) -> anyhow::Result<()> {
        for process in self.processes(namespace, pod)? {
            process.signal(signal);
        }
        Ok(())
    }

    /// Everything that the pod's containers have written, over all restarts; also after the pod is gone.
    ///
    /// # Errors
    /// When the pod was never seen.
    pub fn log(&self, namespace: &str, pod: &str) -> anyhow::Result<String> {
        let log = self.record(namespace, pod, |record| record.log.clone())?;
        match std::fs::read(&log) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error).with_context(|| log.display().to_string()),
        }
    }

    /// The pod's own loopback address.
    ///
    /// # Errors
    /// When the pod was never seen.
    pub fn ip(&self, namespace: &str, pod: &str) -> anyhow::Result<IpAddr> {
        self.record(namespace, pod, |record| record.ip)
    }

    /// Where the pod's processes run; its emptyDirs are folders in it.
    ///
    /// # Errors
    /// When the pod was never seen.
    pub fn folder(&self, namespace: &str, pod: &str) -> anyhow::Result<PathBuf> {
        let log = self.record(namespace, pod, |record| record.log.clone())?;
        Ok(log.parent().context("a log in no folder")?.to_owned())
    }

    /// Adds a variable to the environment of every process that starts from now on.
    pub fn extra_env(&self, name: impl Into<String>, value: impl Into<String>) {
        lock(&self.shared.extra_env).insert(name.into(), value.into());
    }

    fn processes(&self, namespace: &str, pod: &str) -> anyhow::Result<Vec<Arc<Process>>> {
        self.record(namespace, pod, |record| record.processes.values().cloned().collect())
    }

    fn record<T>(&self, namespace: &str, pod: &str, read: impl FnOnce(&Record) -> T) -> anyhow::Result<T> {
        lock(&self.shared.records)
            .get(&(namespace.to_owned(), pod.to_owned()))
            .map(read)
            .with_context(|| format!("pod {namespace}/{pod} was never seen on node {}", self.shared.node))
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Shared").field("node", &self.node).field("images", &self.images).finish_non_exhaustive()
    }
}

impl Shared {
    /// An address that no other pod of this agent has.
    fn lease_address(self: &Arc<Self>) -> anyhow::Result<AddressLease> {
        let mut taken = lock(&self.taken);
        let last = (2..=254).find(|last| !taken.contains(last)).context("no pod address is left")?;
        taken.insert(last);
        let [a, b, c] = self.subnet;
        Ok(AddressLease { shared: Arc::clone(self), last, address: Ipv4Addr::new(a, b, c, last) })
    }
}

/// A pod's address, given back at its end.
#[derive(Debug)]
struct AddressLease {
    shared: Arc<Shared>,
    last: u8,
    address: Ipv4Addr,
}

impl Drop for AddressLease {
    fn drop(&mut self) {
        lock(&self.shared.taken).remove(&self.last);
    }
}

/// Nothing that runs under these locks can leave them half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the pod's task is told: the newest object, or that it is gone.
type News = watch::Sender<Option<Pod>>;

/// Gives every pod bound to the node a task of its own, by uid: a name may come back as another pod.
async fn follow_pods(shared: Arc<Shared>) {
    let pods: Api<Pod> = Api::all(shared.client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", shared.node));
    let mut known: BTreeMap<String, (News, AbortOnDrop<()>)> = BTreeMap::new();
    loop {
        let mut events = std::pin::pin!(watcher::watcher(pods.clone(), config.clone()));
        let mut listed = BTreeSet::new();
        loop {
            match events.try_next().await {
                Ok(Some(Event::Init)) => listed.clear(),
                Ok(Some(Event::InitApply(pod))) => {
                    listed.extend(pod.uid());
                    tell(&shared, &mut known, pod);
                }
                Ok(Some(Event::InitDone)) => {
                    known.iter().filter(|(uid, _)| !listed.contains(*uid)).for_each(|(_, (news, _))| {
                        news.send_replace(None);
                    });
                }
                Ok(Some(Event::Apply(pod))) => tell(&shared, &mut known, pod),
                Ok(Some(Event::Delete(pod))) => {
                    if let Some((news, _)) = pod.uid().and_then(|uid| known.get(&uid)) {
                        news.send_replace(None);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::info!("watching pods of {}: {error}", shared.node);
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
            known.retain(|_, (_, task)| !task.0.is_finished());
        }
    }
}

fn tell(shared: &Arc<Shared>, known: &mut BTreeMap<String, (News, AbortOnDrop<()>)>, pod: Pod) {
    let Some(uid) = pod.uid() else { return };
    if let Some((news, _)) = known.get(&uid) {
        news.send_replace(Some(pod));
        return;
    }
    let (news, heard) = watch::channel(Some(pod.clone()));
    match background::spawn(pod::live(Arc::clone(shared), pod, heard)) {
        Ok(task) => {
            known.insert(uid, (news, AbortOnDrop(task)));
        }
        Err(error) => tracing::error!("{error:#}"),
    }
}
