//! `make demo`: the whole story, told in the terminal on a real control plane and a simulated cloud.
//!
//! Everything that it says has been seen: each step is a wait with a deadline, and the first that does not come true ends
//! the demo with its reason and a status other than 0. What is shown are the real commands and their real output.

mod journey;
mod plugin;

use std::{
    fmt::Display,
    future::Future,
    io::IsTerminal,
    net::IpAddr,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    cluster::{Jaeger, Prometheus, Seen, wait_for},
    stage::{NAMESPACE, PATIENCE, Stage, Venue},
    world::{Address, Holder, Latency},
};
use ip_address_controller::{
    api::{FINALIZER, READY_LABEL},
    cloud::Provider,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::DeleteParams};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

const APP: &str = include_str!("../../../examples/my-app.yaml");
const NAME: &str = "example-allocation";
/// The pool: one node more than addresses, so that a drain has somewhere to go.
const POOL: [&str; 3] = ["node-a", "node-b", "node-c"];

/// What is applied at one cloud, word for word from the examples.
#[derive(Clone, Copy)]
struct Example {
    file: &'static str,
    manifest: &'static str,
    addresses: [&'static str; 2],
}

fn example(provider: Provider) -> Example {
    macro_rules! example {
        ($file:literal, $addresses:expr) => {
            Example { file: $file, manifest: include_str!(concat!("../../../", $file)), addresses: $addresses }
        };
    }
    match provider {
        Provider::Gcp => example!("examples/first-allocation.yaml", ["34.123.45.67", "34.123.45.68"]),
        Provider::Aws => example!("examples/first-allocation-aws.yaml", ["52.38.10.67", "52.38.10.68"]),
        Provider::Azure => example!("examples/first-allocation-azure.yaml", ["20.103.45.67", "20.103.45.68"]),
    }
}
/// What a healthy cloud takes, roughly.
const LATENCY: Latency =
    Latency { answer: Duration::from_millis(40), operation: Duration::from_millis(600), spread: Duration::ZERO };
const NODES: &[&str] =
    &["get", "nodes", "-l", "role=external-ip-node", "-L", "ip.ready,netinfra.darkbrains.com/address"];
const SAYS: &[&str] = &[
    "get",
    "nia",
    NAME,
    "-o",
    r#"jsonpath={range .status.addresses[*]}{.ip}  {.state}  {.reason}  {.message}{"\n"}{end}"#,
];

#[tokio::main]
async fn main() -> ExitCode {
    let (provider, keep) = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let interrupted = match interruption() {
        Ok(interrupted) => interrupted,
        Err(error) => {
            eprintln!("signals cannot be received: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Dropping the story wherever it is ends every process and removes every file.
    let teller = Teller::new(provider);
    let result = tokio::select! {
        result = teller.story(keep) => result,
        () = interrupted => {
            println!("\nstopped; nothing is left running");
            return ExitCode::from(130);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nthe demo FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// At which cloud, and whether to leave everything running at the end.
fn arguments() -> Result<(Provider, bool)> {
    let (mut provider, mut keep) = (Provider::Gcp, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--keep" => keep = true,
            "--cloud" => {
                let word = args.next().unwrap_or_default();
                provider = Provider::parse(&word)
                    .with_context(|| format!("CLOUD={word} cannot be shown: expected gcp, aws or azure"))?;
            }
            other => bail!("{other:?} is not understood; demo [--cloud gcp|aws|azure] [--keep]"),
        }
    }
    Ok((provider, keep))
}

fn interruption() -> std::io::Result<impl Future<Output = ()>> {
    let mut signals =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    Ok(async move {
        let [interrupt, terminate, hangup] = &mut signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// What looks on with KEEP=1.
struct Onlookers {
    jaeger: Jaeger,
    prometheus: Prometheus,
}

/// The move in which the leader was killed.
struct Moved {
    ip: IpAddr,
    trace: String,
    /// Replicas that had a part in it.
    pods: [String; 2],
}

/// Who tells the story.
struct Teller {
    venue: &'static Venue,
    example: Example,
    colours: bool,
    began: Instant,
}

/// How it is told.
impl Teller {
    fn new(provider: Provider) -> Self {
        // The conventions of no-color.org and bixense.com/clicolors.
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let colours = !set("NO_COLOR") && (std::io::stdout().is_terminal() || set("CLICOLOR_FORCE"));
        Self { venue: Venue::of(provider), example: example(provider), colours, began: Instant::now() }
    }

    fn painted(&self, code: &str, text: impl Display) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    fn chapter(&self, number: u8, title: &str) {
        println!("\n{}", self.painted("1;36", format!("{number}. {title}")));
    }

    fn say(&self, text: impl Display) {
        println!("{text}");
    }

    /// Something that had to come true, and has.
    fn seen(&self, text: impl Display) {
        println!("{} {text}", self.painted("32", "✓"));
    }

    fn output(&self, command: &str, output: &str) {
        println!("  {}", self.painted("33", format!("$ {command}")));
        self.lines(output);
    }

    fn lines(&self, output: &str) {
        output.trim_end().lines().for_each(|line| println!("  {line}"));
    }

    /// Runs kubectl and shows what it printed.
    async fn kubectl(&self, stage: &Stage, args: &[&str]) -> Result<()> {
        let output = stage.cluster.run("kubectl", args, None).await?;
        // "No resources found" is said on stderr.
        let all = format!("{}{}", output.stderr, output.stdout);
        ensure!(output.status.success(), "kubectl {}: {all}", args.join(" "));
        self.output(&format!("kubectl {}", args.iter().map(|arg| quoted(arg)).collect::<Vec<_>>().join(" ")), &all);
        Ok(())
    }
}

fn quoted(arg: &str) -> String {
    if arg.contains([' ', '{']) { format!("'{arg}'") } else { arg.to_owned() }
}

/// The story.
impl Teller {
    async fn story(&self, keep: bool) -> Result<()> {
        self.chapter(1, "A cluster, and a cloud that is simulated");
        let stage = Stage::raise_at(self.venue, |line| println!("{line} …")).await?;
        stage.world.set_latency(LATENCY);
        self.seen(format!("Kubernetes answers at {} ({})", stage.cluster.server(), self.clock()));
        self.say(format!(
            "{} is played at {}; the operator cannot tell the difference.",
            self.venue.name,
            stage.simulator.endpoint()
        ));

        let onlookers = if keep { Some(self.onlookers(&stage).await?) } else { None };
        let told = self.acts(&stage, onlookers.as_ref()).await;
        if let Err(error) = told {
            self.post_mortem(&stage).await;
            return Err(error);
        }
        self.say(format!("\n{}", self.painted("1;32", format!("The whole story came true ({}).", self.clock()))));
        if keep {
            stage.cluster.apply(self.example.manifest).await?;
            stage.cluster.kubectl(&["scale", "deployment/my-app", "--replicas=2"]).await?;
            for node in POOL {
                stage.cluster.kubectl(&["uncordon", node]).await?;
            }
            self.say("Allocation and app are back, and it is all yours until Ctrl-C:");
            self.look(&stage).await?;
            std::future::pending::<()>().await;
        }
        let Stage { cluster, .. } = stage;
        cluster.stop().await;
        Ok(())
    }

    /// Prometheus and Jaeger. Both are built when they are first wanted.
    async fn onlookers(&self, stage: &Stage) -> Result<Onlookers> {
        self.say("Prometheus and Jaeger start (the first time they are built: about 6 minutes on two cores) …");
        let (jaeger, prometheus) = (Jaeger::start(stage.cluster.dir()).await?, stage.prometheus().await?);
        self.seen(format!("Jaeger keeps what it is sent, Prometheus scrapes every second ({})", self.clock()));
        Ok(Onlookers { jaeger, prometheus })
    }

    async fn acts(&self, stage: &Stage, onlookers: Option<&Onlookers>) -> Result<()> {
        self.install(stage, onlookers).await?;
        self.scene(stage).await?;
        self.attach(stage).await?;
        self.drain(stage).await?;
        let moved = self.lose_the_leader(stage).await?;
        self.ask(stage).await?;
        self.delete(stage).await?;
        let violations = stage.world.violations();
        ensure!(violations.is_empty(), "the cloud saw an address in two places: {violations:?}");
        self.journey(stage, &moved, onlookers).await
    }

    async fn install(&self, stage: &Stage, onlookers: Option<&Onlookers>) -> Result<()> {
        self.chapter(2, "The operator, installed with Helm");
        let traces = onlookers.map(|onlookers| format!("tracing.endpoint={}", onlookers.jaeger.grpc()));
        let set: Vec<&str> = traces.iter().flat_map(|endpoint| ["tracing.enabled=true", endpoint.as_str()]).collect();
        let shown: String = set.iter().map(|value| format!(" --set {value}")).collect();
        self.say(format!("helm upgrade --install ip-address-controller charts/ip-address-controller --wait{shown} …"));
        stage.install(&set).await?;
        let leader = stage.until_led(None).await?;
        self.kubectl(stage, &["get", "pods", "-n", NAMESPACE]).await?;
        self.seen(format!("{leader} leads, the other stands by"));
        self.say("To look on from another terminal:");
        self.look(stage).await
    }

    async fn scene(&self, stage: &Stage) -> Result<()> {
        self.chapter(3, "Three nodes, two reserved addresses, and an app that may run only where one is");
        for (number, ip) in self.example.addresses.iter().enumerate() {
            let name = format!("reserved-{number}");
            stage.world.add_address(Address::new(self.venue.account, self.venue.region, &name, ip.parse()?));
        }
        for (name, zone) in POOL.iter().zip(self.venue.zones.iter().cycle()) {
            stage.add_node(name, zone, &[("role", "external-ip-node")]).await?;
        }
        stage.cluster.apply(APP).await?;
        wait_for("the pods of my-app wait for a node", PATIENCE, || async {
            let pods = self.pods(stage).await?;
            Ok(Seen::when(pods.len() == 2 && pods.iter().all(refused_by_the_scheduler), names(&pods)))
        })
        .await?;
        self.kubectl(stage, NODES).await?;
        self.kubectl(stage, &["get", "pods"]).await?;
        self.seen("no node is labelled ip.ready=true, so the pods wait");
        Ok(())
    }

    async fn attach(&self, stage: &Stage) -> Result<()> {
        self.chapter(4, "One manifest: addresses attach, pods start");
        let applied = stage.cluster.apply(self.example.manifest).await?;
        self.output(&format!("kubectl apply -f {}", self.example.file), &applied);
        self.output(&format!("cat {}", self.example.file), self.example.manifest);
        for ip in self.example.addresses {
            let node = stage.until_attached(NAME, ip).await?;
            ensure!(stage.world.machine_of(ip.parse()?).as_deref() == Some(&*node), "the cloud disagrees on {ip}");
            self.seen(format!("{ip} is on {node}, read back from the cloud before the label went on"));
        }
        self.until_running(stage, 2).await?;
        self.kubectl(stage, &["get", "nia"]).await?;
        self.kubectl(stage, NODES).await?;
        self.kubectl(stage, &["get", "pods", "-o", "wide"]).await?;
        self.seen("both pods run, each on a node with an address");
        Ok(())
    }

    async fn drain(&self, stage: &Stage) -> Result<()> {
        let (ip, node) = self.first_address(stage).await?;
        self.chapter(5, &format!("{node} is drained: the address leaves after the pods, not before"));
        let (_, gap) = tokio::try_join!(self.drained(stage, &node), async {
            let entry =
                stage.until("the address is Draining", NAME, &ip.to_string(), |a| a.state == "Draining").await?;
            ensure!(entry.node.as_deref() == Some(&*node), "{ip} left {node} before it had drained");
            self.kubectl(stage, SAYS).await?;
            self.seen(format!("a pod on {node} is still ending its work, and {ip} stays with it"));
            let (left, users) = self.until_off(stage, ip, &node).await?;
            ensure!(users.is_empty(), "{ip} left {node} while these ran there: {users:?}");
            self.seen(format!("{ip} left {node} when no pod of my-app was left there"));
            let to = self.until_on_another(stage, ip, &node).await?;
            let gap = left.elapsed();
            self.seen(format!("{ip} is on {to}"));
            Ok(gap)
        })?;
        let entry = stage.until("moved", NAME, &ip.to_string(), |a| a.state == "Attached").await?;
        let moved = entry.last_move.context("status tells of no move")?;
        self.say(format!(
            "It was on no node for {:.1} s; status.addresses[].lastMove says {} s, reason {}.",
            gap.as_secs_f64(),
            moved.gap_seconds.unwrap_or_default(),
            moved.reason
        ));
        self.until_running(stage, 2).await?;
        self.kubectl(stage, &["get", "nia"]).await?;
        self.kubectl(stage, NODES).await?;
        self.seen("the pod followed its address");
        Ok(())
    }

    async fn lose_the_leader(&self, stage: &Stage) -> Result<Moved> {
        self.chapter(6, "The leader is killed in the middle of a drain, and the other takes over");
        for node in POOL {
            stage.cluster.kubectl(&["uncordon", node]).await?;
        }
        let leader = stage.until_led(None).await?;
        let (ip, node) = self.first_address(stage).await?;
        let attaches = stage.world.attaches(ip);
        let (_, (gap, next)) = tokio::try_join!(self.drained(stage, &node), async {
            stage.until("the address is Draining", NAME, &ip.to_string(), |a| a.state == "Draining").await?;
            self.kill(stage, &leader).await?;
            let killed = Instant::now();
            self.seen(format!("{ip} is Draining on {node}, and SIGKILL went to {leader}"));
            let next = stage.until_led(Some(&leader)).await?;
            let took = killed.elapsed().as_secs_f64();
            ensure!(stage.world.machine_of(ip).as_deref() == Some(&*node), "{ip} moved although nobody led");
            self.seen(format!("{next} leads, {took:.1} s later; until then {ip} stayed where it was"));
            let (left, users) = self.until_off(stage, ip, &node).await?;
            ensure!(users.is_empty(), "{ip} left {node} while these ran there: {users:?}");
            let to = self.until_on_another(stage, ip, &node).await?;
            let gap = left.elapsed();
            self.seen(format!("{ip} is on {to}: the new leader finished what the old one had begun"));
            Ok((gap, next))
        })?;
        let entry = stage.until("moved", NAME, &ip.to_string(), |a| a.state == "Attached").await?;
        let trace = entry.last_move.and_then(|moved| moved.trace_id).context("status names no trace")?;
        ensure!(stage.world.attaches(ip) == attaches + 1, "{ip} was attached more than once");
        self.say(format!("It was attached once, and on no node for {:.1} s.", gap.as_secs_f64()));
        self.say(
            "The Lease is 6 s here and 60 s by default. A leader that is told to go (SIGTERM) hands over at once.",
        );
        self.until_running(stage, 2).await?;
        self.kubectl(stage, &["get", "nia"]).await?;
        self.leadership(stage, &next).await?;
        Ok(Moved { ip, trace, pods: [leader, next] })
    }

    async fn journey(&self, stage: &Stage, moved: &Moved, onlookers: Option<&Onlookers>) -> Result<()> {
        let Moved { ip, trace, pods } = moved;
        self.chapter(9, &format!("The journey of {ip} in which the leader was killed"));
        let steps = journey::steps(stage, pods, trace)?;
        self.lines(&journey::Table(&steps).to_string());
        let states: Vec<&str> = steps.iter().map(|step| step.state.as_str()).collect();
        ensure!(
            states == ["Draining", "Releasing", "Detached", "Attaching", "Attached"],
            "the journey went {states:?}"
        );
        self.seen(format!("one trace, {trace}, although two replicas had a part in it"));
        self.say(
            "Each line is a log line with that trace_id, an event at the allocation, and a step of these metrics:",
        );
        let url = metrics_url(stage, &pods[1])?;
        let text = metrics(&url).await?;
        for metric in ["netipallocation_ip_transitions_total", "netipallocation_ip_gap_seconds_sum"] {
            // Every way that an address can go is there from the beginning, most of them at 0.
            let gone = |line: &&str| line.starts_with(metric) && !line.ends_with(" 0");
            let lines: Vec<&str> = text.lines().filter(gone).collect();
            ensure!(!lines.is_empty(), "{metric} is not told");
            self.output(&format!("curl -s {url} | grep ^{metric} | grep -v ' 0$'"), &lines.join("\n"));
        }
        let Some(Onlookers { jaeger, prometheus }) = onlookers else {
            self.say("make demo KEEP=1 serves Prometheus and Jaeger, with this journey in both.");
            return Ok(());
        };
        wait_for("Jaeger shows the journey", PATIENCE, || async {
            let shown = jaeger.ask(&format!("traces/{trace}")).await.map(|found| found.to_string()).unwrap_or_default();
            Ok(Seen::when(shown.contains("netipallocation.journey"), shown.len()))
        })
        .await?;
        self.seen("Jaeger has the whole trace; Prometheus has every step:");
        self.say(format!("  curl -s {}/api/traces/{trace}", jaeger.query()));
        let query = "sum by (from, to, reason) (netipallocation_ip_transitions_total)";
        self.say(format!("  curl -s {}/api/v1/query --data-urlencode 'query={query}'", prometheus.url()));
        Ok(())
    }

    async fn delete(&self, stage: &Stage) -> Result<()> {
        self.chapter(8, "The allocation is deleted: everything is as it was");
        self.kubectl(stage, &["delete", "nia", NAME, "--wait=false"]).await?;
        stage
            .until("an address waits for its users", NAME, self.example.addresses[0], |a| {
                a.state == "Draining" && a.reason.as_deref() == Some("AllocationDeleted")
            })
            .await?;
        let object = stage.allocation(NAME).await?.context("it went although pods use its addresses")?;
        ensure!(object.finalizers().iter().any(|name| name == FINALIZER), "no finalizer of ours holds it");
        self.kubectl(stage, SAYS).await?;
        self.seen("it waits: pods still use the addresses");
        self.kubectl(stage, &["scale", "deployment/my-app", "--replicas=0"]).await?;
        wait_for("the allocation is gone", PATIENCE, || async {
            let object = stage.allocation(NAME).await?;
            Ok(Seen::when(object.is_none(), object.map(|object| object.status)))
        })
        .await?;
        self.kubectl(stage, &["get", "nia"]).await?;
        self.kubectl(stage, NODES).await?;
        for ip in self.example.addresses {
            let holder = stage.world.holder(ip.parse()?);
            ensure!(holder == Some(Holder::Nobody), "{ip} is not free: {holder:?}");
        }
        for node in POOL {
            let labels = stage.node(node).await?.context("the node is gone")?.labels().clone();
            ensure!(!labels.contains_key(READY_LABEL), "{node} is still labelled");
        }
        self.seen("finalizer gone, labels off, both addresses free and still reserved");
        if !self.venue.own_addresses {
            self.say("Machines have no external address of their own at this cloud, so there is none to give back.");
            return Ok(());
        }
        let mut own = Vec::new();
        for node in POOL {
            let given = stage.world.until(|world| {
                let external = world.machine(node)?.external.filter(|external| !external.reserved)?;
                external.ip
            });
            let ip = timeout(PATIENCE, given).await.with_context(|| format!("{node} has no address of its own"))?;
            own.push(format!("{node} {ip}"));
        }
        self.seen(format!("each node has an external address of its own again: {}", own.join(", ")));
        Ok(())
    }
}

/// What the story is made of.
impl Teller {
    fn clock(&self) -> String {
        format!("{:.0} s since the start", self.began.elapsed().as_secs_f64())
    }

    /// What a curious reader needs.
    async fn look(&self, stage: &Stage) -> Result<()> {
        let (kubeconfig, bin) = (stage.cluster.kubeconfig().display(), stage.cluster.bin().display());
        self.say(format!("  export KUBECONFIG={kubeconfig} PATH={bin}:$PATH"));
        self.say("  kubectl get nia -o wide -w");
        for pod in self.replicas(stage).await? {
            self.say(format!("  {}  # {pod}", metrics_url(stage, &pod)?));
        }
        Ok(())
    }

    async fn replicas(&self, stage: &Stage) -> Result<Vec<String>> {
        let mut pods = stage.pods(NAMESPACE, "app.kubernetes.io/name=ip-address-controller").await?;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod));
        Ok(pods.iter().map(ResourceExt::name_any).collect())
    }

    /// Shows what each replica says of itself.
    async fn leadership(&self, stage: &Stage, leader: &str) -> Result<()> {
        let replicas = wait_for("two replicas are ready", PATIENCE, || async {
            let replicas = self.replicas(stage).await?;
            Ok(if replicas.len() == 2 { Seen::Yes(replicas) } else { Seen::NotYet(format!("{replicas:?}")) })
        })
        .await?;
        let mut leaders = Vec::new();
        for pod in replicas {
            let url = metrics_url(stage, &pod)?;
            let text = metrics(&url).await?;
            let line = text.lines().find(|line| line.starts_with("netipallocation_controller_is_leader"));
            let line = line.with_context(|| format!("{url} does not say who leads"))?;
            self.output(&format!("curl -s {url} | grep ^netipallocation_controller_is_leader"), line);
            leaders.extend(line.ends_with(" 1").then_some(pod));
        }
        ensure!(leaders == [leader], "the metrics say that {leaders:?} lead");
        Ok(())
    }

    /// The command is shown at once: things happen while it runs.
    async fn drained(&self, stage: &Stage, node: &str) -> Result<()> {
        self.output(&format!("kubectl drain {node} --ignore-daemonsets"), "");
        let said = stage.cluster.kubectl(&["drain", node, "--ignore-daemonsets"]).await?;
        self.lines(&said);
        Ok(())
    }

    async fn pods(&self, stage: &Stage) -> Result<Vec<Pod>> {
        stage.pods("default", "app=my-app").await
    }

    /// Ready pods on nodes that are labelled.
    async fn until_running(&self, stage: &Stage, count: usize) -> Result<()> {
        wait_for("the pods of my-app run", PATIENCE, || async {
            let mut pods = self.pods(stage).await?;
            pods.retain(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod));
            Ok(Seen::when(pods.len() == count, names(&pods)))
        })
        .await
    }

    async fn first_address(&self, stage: &Stage) -> Result<(IpAddr, String)> {
        let ip = self.example.addresses[0];
        Ok((ip.parse()?, stage.until_attached(NAME, ip).await?))
    }

    /// Waits until the cloud has taken the address off the node; since when, and who of my-app was there at that moment.
    async fn until_off(&self, stage: &Stage, ip: IpAddr, node: &str) -> Result<(Instant, Vec<String>)> {
        let off = stage.world.until(|world| (world.machine_of(ip).as_deref() != Some(node)).then_some(()));
        timeout(PATIENCE, off).await.with_context(|| format!("{ip} never left {node}"))?;
        let left = Instant::now();
        let mut pods = self.pods(stage).await?;
        pods.retain(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node));
        Ok((left, pods.iter().map(ResourceExt::name_any).collect()))
    }

    async fn until_on_another(&self, stage: &Stage, ip: IpAddr, node: &str) -> Result<String> {
        let on = stage.world.until(|world| world.machine_of(ip).filter(|machine| machine != node));
        timeout(PATIENCE, on).await.with_context(|| format!("{ip} reached no other node"))
    }

    /// SIGKILL, and the pod is forced away so that it is not started again in place: as when its node dies.
    async fn kill(&self, stage: &Stage, pod: &str) -> Result<()> {
        stage.agent.kill(NAMESPACE, pod)?;
        let pods: Api<Pod> = Api::namespaced(stage.client()?, NAMESPACE);
        pods.delete(pod, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    /// What there was, and what the operator said last.
    async fn post_mortem(&self, stage: &Stage) {
        if let Ok(said) = stage.cluster.kubectl(&["get", "nia", "-o", "yaml"]).await {
            eprintln!("\n{said}");
        }
        for (pod, log) in stage.logs().await.unwrap_or_default() {
            eprintln!("\nlast lines of {pod}:");
            let lines: Vec<&str> = log.lines().collect();
            lines.iter().skip(lines.len().saturating_sub(20)).for_each(|line| eprintln!("  {line}"));
        }
        if std::env::var_os("E2E_KEEP").is_some() {
            eprintln!("\nall logs: {}", stage.cluster.dir().display());
        } else {
            eprintln!("\nall logs are kept with E2E_KEEP=1");
        }
    }
}

async fn metrics(url: &str) -> Result<String> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    Ok(http.get(url).send().await?.error_for_status()?.text().await?)
}

fn metrics_url(stage: &Stage, pod: &str) -> Result<String> {
    Ok(format!("http://{}:9999/metrics", stage.agent.ip(NAMESPACE, pod)?))
}

fn condition(pod: &Pod, kind: &str, status: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == kind && one.status == status))
}

fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready", "True")
}

fn refused_by_the_scheduler(pod: &Pod) -> bool {
    condition(pod, "PodScheduled", "False")
}

fn names(pods: &[Pod]) -> Vec<String> {
    pods.iter().map(ResourceExt::name_any).collect()
}
