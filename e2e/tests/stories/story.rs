//! What every story needs: the one stage, and a pool of nodes, addresses and pods that no other story touches.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU8, Ordering},
    time::SystemTime,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{OTHER_REGION, PATIENCE, PROJECT, REGION, Stage, ZONES},
    world::{Address, Call, Latency, Machine},
};
use ip_address_controller::api::{
    ADDRESS_LABEL, ALLOCATION_LABEL, AddressStatus, Condition, NetIPAllocation, READY_LABEL,
};
use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Pod, events::v1::Event};
use kube::{Api, ResourceExt, api::ListParams};
use tokio::{sync::OnceCell, time::Instant};

/// Slow enough that an overlap of two moves would be seen, fast beside everything a cluster does.
const LATENCY: Latency = Latency {
    answer: std::time::Duration::from_millis(5),
    operation: std::time::Duration::from_millis(300),
    spread: std::time::Duration::ZERO,
};

/// The stage of this binary, the operator installed once.
async fn stage() -> Result<&'static Stage> {
    static STAGE: OnceCell<Stage> = OnceCell::const_new();
    let raise = || async {
        let stage = Stage::raise(|_| ()).await?;
        stage.world.set_latency(LATENCY);
        stage.install(&[]).await?;
        anyhow::Ok(stage)
    };
    STAGE.get_or_try_init(raise).await
}

/// One story: its name is that of the allocation, of the pool and of the workload, and begins every node's name.
pub struct Story {
    pub stage: &'static Stage,
    pub name: String,
}

/// Tells a story. When it goes wrong, the error shows the allocation, its events and what the operator logged about it.
pub async fn tell(name: &str, story: impl AsyncFnOnce(&Story) -> Result<()>) -> Result<()> {
    let told = Story { stage: stage().await?, name: name.to_owned() };
    let ended = story(&told).await.and_then(|()| {
        let wrong = told.stage.world.violations();
        ensure!(wrong.is_empty(), "the cloud saw what must not be: {wrong:?}");
        Ok(())
    });
    match ended {
        Ok(()) => Ok(()),
        Err(error) => Err(anyhow::anyhow!("{error:#}\n{}", told.evidence().await)),
    }
}

/// Nodes, addresses and pods.
impl Story {
    /// A reserved address that nobody else uses.
    pub fn ip(&self) -> String {
        self.ip_in(REGION)
    }

    /// One in the stage's other region.
    pub fn ip_elsewhere(&self) -> String {
        self.ip_in(OTHER_REGION)
    }

    fn ip_in(&self, region: &str) -> String {
        let ip = self.unreserved();
        let name = format!("{}-{}", self.name, ip.replace('.', "-"));
        self.stage.world.add_address(Address::new(PROJECT, region, &name, parse(&ip)));
        ip
    }

    /// An address that nobody uses, and that is not reserved either.
    pub fn unreserved(&self) -> String {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        format!("203.0.113.{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Nodes of the story's pool, one per letter, zones in turn.
    pub async fn nodes(&self, letters: &str) -> Result<Vec<String>> {
        let names: Vec<String> = letters.chars().map(|letter| format!("{}-{letter}", self.name)).collect();
        for (name, zone) in names.iter().zip(ZONES.iter().cycle()) {
            self.stage.add_node(name, zone, &[("pool", &self.name)]).await?;
        }
        Ok(names)
    }

    /// Applies the allocation. `more` are further lines of its spec.
    pub async fn allocate(&self, ips: &[&str], more: &str) -> Result<()> {
        self.stage.cluster.apply(&self.manifest(&self.name, ips, more)).await.map(drop)
    }

    /// An allocation of that name on the story's pool.
    pub fn manifest(&self, name: &str, ips: &[&str], more: &str) -> String {
        format!(
            "
apiVersion: netinfra.darkbrains.com/v1alpha1
kind: NetIPAllocation
metadata: {{name: {name}}}
spec:
  reservedIPs: [{ips}]
  nodeSelector: {{pool: {pool}}}
  cloud: {{provider: gcp, region: {REGION}}}
  reconcileInterval: 5
{more}
",
            ips = ips.join(", "),
            pool = self.name,
        )
    }

    /// A workload of the story's name whose pods run only where an address is. `more` are further lines of the pods' spec.
    pub async fn run(&self, kind: &str, name: &str, replicas: u8, more: &str) -> Result<()> {
        self.run_slowly(kind, name, replicas, 1, more).await
    }

    /// One whose pods take so many seconds to end.
    pub async fn run_slowly(&self, kind: &str, name: &str, replicas: u8, grace: u8, more: &str) -> Result<()> {
        let (replicas, service) = match kind {
            "DaemonSet" => (String::new(), String::new()),
            "StatefulSet" => {
                (format!("replicas: {replicas}"), format!("serviceName: {name}\n  podManagementPolicy: Parallel"))
            }
            _ => (format!("replicas: {replicas}"), String::new()),
        };
        let manifest = format!(
            "
apiVersion: apps/v1
kind: {kind}
metadata: {{name: {name}}}
spec:
  {replicas}
  {service}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      nodeSelector: {{{READY_LABEL}: 'true', pool: {pool}}}
      terminationGracePeriodSeconds: {grace}
      containers: [{{name: pretended, image: pretended}}]
{more}
",
            pool = self.name,
        );
        self.stage.cluster.apply(&manifest).await.map(drop)
    }

    /// The pods of a workload.
    pub async fn pods(&self, app: &str) -> Result<Vec<Pod>> {
        self.stage.pods("default", &format!("app={app}")).await
    }

    /// Waits until exactly so many pods of the workload are Ready and none is on its way out; gives pod and node names.
    pub async fn running(&self, app: &str, count: usize) -> Result<Vec<(String, String)>> {
        wait_for(&format!("{count} pods of {app} run"), PATIENCE, || async {
            let pods = self.pods(app).await?;
            let places: Vec<(String, String)> =
                pods.iter().filter(|pod| runs(pod)).map(|pod| (pod.name_any(), node_of(pod))).collect();
            Ok(match places.len() == count && pods.len() == count {
                true => Seen::Yes(places),
                false => Seen::NotYet(format!("{places:?} of {} pods", pods.len())),
            })
        })
        .await
    }

    /// kubectl, as a person would.
    pub async fn kubectl(&self, line: &str) -> Result<String> {
        self.stage.cluster.kubectl(&line.split_whitespace().collect::<Vec<_>>()).await
    }
}

/// What the operator says.
impl Story {
    /// The allocation as stored.
    pub async fn allocation(&self) -> Result<NetIPAllocation> {
        self.stage.allocation(&self.name).await?.context("the allocation is gone")
    }

    /// Waits until the address is Attached and its node labelled; gives the node.
    pub async fn attached(&self, ip: &str) -> Result<String> {
        self.stage.until_attached(&self.name, ip).await
    }

    /// Waits until the address is Attached to that node and the node labelled.
    pub async fn attached_to(&self, ip: &str, node: &str) -> Result<()> {
        self.until(ip, |address| address.state == "Attached" && address.node.as_deref() == Some(node)).await?;
        self.labelled(node, Some(ip)).await
    }

    /// Waits until status says that of the address.
    pub async fn until(&self, ip: &str, wanted: impl Fn(&AddressStatus) -> bool) -> Result<AddressStatus> {
        self.stage.until(&format!("what {} is told of {ip}", self.name), &self.name, ip, wanted).await
    }

    /// Waits until the address is in this state for this reason.
    pub async fn said(&self, ip: &str, state: &str, reason: &str) -> Result<AddressStatus> {
        self.until(ip, |address| address.state == state && address.reason.as_deref() == Some(reason)).await
    }

    /// Waits until a condition has this status and reason; gives its message.
    pub async fn condition(&self, kind: &str, status: &str, reason: &str) -> Result<Condition> {
        wait_for(&format!("{kind} of {} is {status}, {reason}", self.name), PATIENCE, || async {
            let conditions = self.allocation().await?.status.unwrap_or_default().conditions;
            let found = conditions.iter().find(|condition| condition.type_ == kind);
            Ok(match found {
                Some(is) if is.status == status && is.reason == reason => Seen::Yes(is.clone()),
                _ => Seen::NotYet(format!("{found:?}")),
            })
        })
        .await
    }

    /// Waits until the node has the labels of this address and of the story's allocation, or none.
    pub async fn labelled(&self, node: &str, ip: Option<&str>) -> Result<()> {
        let wanted = ip.map(|ip| ["true", self.name.as_str(), ip].map(str::to_owned));
        wait_for(&format!("labels of {node} for {ip:?}"), PATIENCE, || async {
            let labels = self.stage.node(node).await?.context("no such node")?.metadata.labels.unwrap_or_default();
            let has = [READY_LABEL, ALLOCATION_LABEL, ADDRESS_LABEL].map(|key| labels.get(key).cloned());
            let so = match &wanted {
                Some(wanted) => has.iter().flatten().eq(wanted),
                None => has.iter().all(Option::is_none),
            };
            Ok(Seen::when(so, has))
        })
        .await
    }

    /// Waits for an event about the allocation; gives its note.
    pub async fn event(&self, reason: &str) -> Result<String> {
        wait_for(&format!("event {reason} about {}", self.name), PATIENCE, || async {
            let events = self.events().await?;
            let note = events.iter().find(|(_, said, _)| said == reason).map(|(_, _, note)| note.clone());
            Ok(note.map_or_else(|| Seen::NotYet(format!("{events:?}")), Seen::Yes))
        })
        .await
    }

    /// Waits for an event of the operator's about another object, as its own team finds it; gives its note.
    pub async fn event_on(&self, kind: &str, name: &str, reason: &str) -> Result<String> {
        wait_for(&format!("event {reason} about {kind} {name}"), PATIENCE, || async {
            let events = self.events_on(kind, name).await?;
            let note = events.iter().find(|(_, said, _)| said == reason).map(|(_, _, note)| note.clone());
            // Where kubectl looks: in the object's own namespace, by its uid.
            let described = self.kubectl(&format!("describe {kind} {name}")).await?;
            Ok(match note {
                Some(note) if described.contains(&note) => Seen::Yes(note),
                _ => Seen::NotYet(format!("{events:?}\n{described}")),
            })
        })
        .await
    }

    /// Type, reason and note of each event about the allocation.
    pub async fn events(&self) -> Result<Vec<(String, String, String)>> {
        self.events_on("NetIPAllocation", &self.name).await
    }

    async fn events_on(&self, kind: &str, name: &str) -> Result<Vec<(String, String, String)>> {
        let api: Api<Event> = Api::all(self.stage.client()?);
        let all = api.list(&ListParams::default()).await?.items;
        let ours = |event: &Event| {
            event
                .regarding
                .as_ref()
                .is_some_and(|about| about.name.as_deref() == Some(name) && about.kind.as_deref() == Some(kind))
        };
        let words = |word: Option<String>| word.unwrap_or_default();
        let said = |event: Event| (words(event.type_), words(event.reason), words(event.note));
        Ok(all.into_iter().filter(ours).map(said).collect())
    }

    /// Waits until the object is gone.
    pub async fn gone(&self) -> Result<()> {
        wait_for(&format!("{} is gone", self.name), PATIENCE, || async {
            let object = self.stage.allocation(&self.name).await?;
            Ok(Seen::when(object.is_none(), object.map(|object| object.status)))
        })
        .await
    }
}

/// What the cloud has seen.
impl Story {
    /// The calls that would change this machine, in their order.
    pub fn changes(&self, node: &str) -> Vec<Call> {
        let end = format!("/{node}");
        self.stage.world.mutations().into_iter().filter(|call| call.target.ends_with(&end)).collect()
    }

    /// How many calls would have changed any machine of the story.
    pub fn changed(&self) -> usize {
        let mark = format!("/{}-", self.name);
        self.stage.world.mutations().iter().filter(|call| call.target.contains(&mark)).count()
    }

    /// The machine behind a node.
    pub fn machine(&self, node: &str) -> Result<Machine> {
        self.stage.world.machine(node).context("no such machine")
    }

    /// Where the address is in the cloud.
    pub fn holder(&self, ip: &str) -> Option<String> {
        self.stage.world.machine_of(parse(ip))
    }

    /// Waits until the machine has an ephemeral address of its own.
    pub async fn has_its_own_address(&self, node: &str) -> Result<()> {
        wait_for(&format!("{node} has an ephemeral address"), PATIENCE, || async {
            let external = self.machine(node)?.external;
            let own = external.as_ref().is_some_and(|external| !external.reserved && external.ip.is_some());
            Ok(Seen::when(own, external))
        })
        .await
    }

    /// Until the operator has read the cloud once more, from beginning to end: what it was about to do, it has begun.
    pub async fn another_look(&self) -> Result<()> {
        let seen = || self.stage.world.calls().iter().filter(|call| call.method == "addresses.list").count();
        let before = seen();
        wait_for("two more surveys", PATIENCE, || async {
            let now = seen();
            Ok(Seen::when(now >= before + 2, (before, now)))
        })
        .await
    }

    /// That no request to change this machine has arrived before these pods were gone, by the API server's own account.
    pub fn nothing_left_before_the_pods(&self, node: &str, pods: &[(String, String)]) -> Result<()> {
        let detach = self.changes(node).into_iter().rfind(|call| call.method == "instances.deleteAccessConfig");
        let detach = wall_clock(detach.context("there was no detach")?.at)?;
        let audit = self.stage.cluster.audit()?;
        for (pod, _) in pods {
            let mut ended = audit.iter().filter(|event| {
                event.verb == "delete" && event.resource == "pods" && event.name == *pod && event.code == 200
            });
            let ended: Timestamp = ended.next_back().context("the pod was never deleted")?.time.parse()?;
            ensure!(detach > ended, "detached at {detach}, but pod {pod} was there until {ended}");
        }
        Ok(())
    }
}

impl Story {
    /// Everything that helps to find out what went wrong.
    async fn evidence(&self) -> String {
        let allocation = self.stage.allocation(&self.name).await;
        let status = allocation.map(|object| serde_yaml::to_string(&object).unwrap_or_default());
        let mut text = format!("allocation:\n{}\n", status.unwrap_or_else(|error| error.to_string()));
        for event in self.events().await.unwrap_or_default() {
            text.push_str(&format!("event {event:?}\n"));
        }
        let mark = format!("/{}-", self.name);
        for call in self.stage.world.mutations().iter().filter(|call| call.target.contains(&mark)) {
            text.push_str(&format!("call {call:?}\n"));
        }
        for (pod, log) in self.stage.logs().await.unwrap_or_default() {
            for line in log.lines().filter(|line| line.contains(&self.name) || line.contains("panic")) {
                text.push_str(&format!("{pod} {line}\n"));
            }
        }
        text
    }
}

/// Lines of a spec that name the workload.
pub fn used_by(kind: &str, name: &str) -> String {
    format!("  workloadRef: {{kind: {kind}, name: {name}, namespace: default}}\n")
}

/// An address from its text.
pub fn parse(ip: &str) -> IpAddr {
    ip.parse().expect("an address")
}

/// The node that a pod is on; empty while it is on none.
pub fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default()
}

/// Ready, and not on its way out.
fn runs(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|is| is.type_ == "Ready" && is.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// The wall clock's time of an instant of this process.
fn wall_clock(at: Instant) -> Result<Timestamp> {
    Ok(Timestamp::try_from(SystemTime::now() - at.elapsed())?)
}
