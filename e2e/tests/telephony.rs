//! The pages for whoever runs telephony, followed line by line. The scripts of the example run as processes on nodes that
//! have the address; only the SIP server is pretended, and how many calls it has.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod acts;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use acts::{ACCOUNT, Theatre, reserve, surveys, until_labelled, until_moved, until_unlabelled};
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Agent, AgentOptions, Seen, wait_for},
    page::{blocks, checkout},
    stage::{PATIENCE, Stage, ZONES},
};
use ip_address_controller::{
    api::{AddressStatus, HOLD_ANNOTATION},
    kubectl_nia::refusal::Exit,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tempfile::TempDir;

static THEATRE: Theatre = Theatre::new();

/// As in the example.
const IP: &str = "34.123.45.67";
const ALLOCATION: &str = "sip";
const NAMESPACE: &str = "voip";
const POOL: (&str, &str) = ("role", "external-ip-node");

const ADDRESS_PAGE: &str = "docs/advertised-address.md";
const CAPACITY_PAGE: &str = "docs/capacity.md";
const REPLACING_PAGE: &str = "docs/replacing-a-node.md";

/// Says what it was told to advertise and where to listen, and runs until it is told to end.
const SERVER: &str =
    "#!/bin/sh\necho \"advertises $ADVERTISED_ADDRESS, listens at $INTERNAL_ADDRESS\"\nexec sleep 86400\n";
/// The nodes' own address, all of this machine.
const HOST: &str = "127.0.0.1";
/// Counts calls as Kamailio's tool prints them; the test says how many, in the folder of the pod.
const COUNTER: &str = r#"#!/bin/sh
[ "$*" = "-s unix:$(cd volumes/run && pwd)/ctl dlg.stats_active" ] || { echo "asked for $*" >&2; exit 1; }
calls=$(cat calls) || exit 1
printf '{\n\tstarting: 0\n\tconnecting: 0\n\tanswering: 0\n\tongoing: %s\n\tall: %s\n}\n' "$calls" "$calls"
"#;

#[test]
fn a_node_is_replaced_under_calls_as_the_pages_say() -> Result<()> {
    THEATRE.alone(async |stage| {
        let site = Site::open(stage).await?;
        site.follow(REPLACING_PAGE, "## Before the first time", "").await?;
        // So that "nothing happens" can be waited for.
        let often = r#"{"spec":{"reconcileInterval":5}}"#;
        stage.cluster.kubectl(&["patch", "nia", ALLOCATION, "--type=merge", "-p", often]).await?;

        let first = stage.until_attached(ALLOCATION, IP).await?;
        let pod = site.server_on(&first).await?;
        an_address_can_be_learnt(&site, &first, &pod.name_any()).await?;
        a_drain_is_planned_and_spare_nodes_are_counted(&site, &first, &pod.name_any()).await?;
        a_maintenance_window_keeps_the_address(&site, &first).await?;
        let second = a_node_is_left_when_the_last_call_has_ended(&site, &first, &pod).await?;
        site.follow(REPLACING_PAGE, "## It stays after all", &first).await?;
        somebody_elses_drain_waits_for_the_call(&site, &second, &first).await?;
        ensure!(stage.world.violations().is_empty(), "{:?}", stage.world.violations());
        Ok(())
    })
}

async fn an_address_can_be_learnt(site: &Site, node: &str, pod: &str) -> Result<()> {
    let said = site.follow(ADDRESS_PAGE, "## See it", node).await?;
    ensure!(said.matches(IP).count() >= 2 && said.contains(ALLOCATION), "{said}");
    let refused = ["auth", "can-i", "list", "nodes", "--as=system:serviceaccount:voip:sip"];
    ensure!(site.stage.cluster.kubectl(&refused).await.is_err(), "its account may list nodes");
    // Whoever has the account's token but is no pod changes none.
    wait_for("the policy is in force", PATIENCE, || async {
        let by = "--as=system:serviceaccount:voip:sip";
        let args = ["annotate", "pod", pod, "--namespace", NAMESPACE, "x=y", "--dry-run=server", by];
        let said = site.stage.cluster.kubectl(&args).await;
        let refused = said.as_ref().is_err_and(|error| format!("{error:#}").contains("'sip-holds'"));
        Ok(Seen::when(refused, format!("{said:?}")))
    })
    .await?;
    let example = fs::read_to_string(checkout().join("examples/sip-server.yaml"))?;
    for line in blocks(ADDRESS_PAGE, "## In a pod", "```yaml")?.iter().flat_map(|block| block.lines()) {
        ensure!(example.contains(line.trim()), "{ADDRESS_PAGE} shows what the example does not have: {line}");
    }
    Ok(())
}

async fn a_drain_is_planned_and_spare_nodes_are_counted(site: &Site, node: &str, pod: &str) -> Result<()> {
    let spare = async |count: &str| {
        wait_for(&format!("{count} nodes are spare"), PATIENCE, || async {
            let said = site.follow(CAPACITY_PAGE, "## Count", "").await?;
            Ok(Seen::when(said.lines().next_back() == Some(count), said))
        })
        .await
    };
    spare("1").await?;
    let other = site.other(node);
    site.until_hold(pod, "true").await?;
    let told = site.ends(CAPACITY_PAGE, "## Ask", node, Exit::Done).await?;
    ensure!([IP, other, pod].iter().all(|part| told.contains(part)), "{told}");
    site.stage.cluster.kubectl(&["cordon", other]).await?;
    // The nodes are asked, and not what the operator has counted.
    site.ends(CAPACITY_PAGE, "## Ask", node, Exit::Stranded).await?;
    spare("0").await?;
    site.stage.cluster.kubectl(&["uncordon", other]).await?;
    spare("1").await
}

async fn a_maintenance_window_keeps_the_address(site: &Site, node: &str) -> Result<()> {
    let said = site.follow(REPLACING_PAGE, "### Set it", "").await?;
    ensure!(said.contains("Hold"), "{said}");
    let told = site.ends(REPLACING_PAGE, "### While it lasts", node, Exit::Stranded).await?;
    ensure!(told.to_lowercase().contains("kept"), "{told}");
    let said = site.follow(REPLACING_PAGE, "### Set it back", "").await?;
    ensure!(said.contains("Enforce"), "{said}");
    site.ends(CAPACITY_PAGE, "## Ask", node, Exit::Done).await.map(drop)
}

/// The page's way: cordon, wait, drain. Gives the node where the address is then.
async fn a_node_is_left_when_the_last_call_has_ended(site: &Site, node: &str, pod: &Pod) -> Result<String> {
    let (stage, name) = (site.stage, pod.name_any());
    // It holds while its calls cannot be counted, too.
    site.until_hold(&name, "true").await?;
    site.calls(node, &name, 0)?;
    site.until_hold(&name, "false").await?;
    site.calls(node, &name, 2)?;
    site.until_hold(&name, "true").await?;

    site.follow(REPLACING_PAGE, "### Cordon", node).await?;
    stage.until("the call is waited for", ALLOCATION, IP, says(format!("{name} (holds)"))).await?;
    surveys(stage, 2).await?;
    site.still_on(node).await?;
    ensure!(site.asked_to_go(&name)?.is_empty(), "the pod was asked to go under calls");

    site.calls(node, &name, 0)?;
    site.follow(REPLACING_PAGE, "### Wait, then drain", node).await?;
    let to = until_moved(stage, ALLOCATION, IP, node).await?.node.context("attached to no node")?;
    ensure!(to == site.other(node), "it went to {to}");
    ensure!(site.asked_to_go(&name)?.iter().any(|user| user == ACCOUNT), "the operator has not asked it to go");
    until_unlabelled(stage, node).await?;
    site.server_on(&to).await?;
    Ok(to)
}

/// What an upgrade does: the pod is evicted under its calls, and its hook keeps it, and so its address.
async fn somebody_elses_drain_waits_for_the_call(site: &Site, node: &str, next: &str) -> Result<()> {
    let (stage, name) = (site.stage, site.server_on(node).await?.name_any());
    site.calls(node, &name, 1)?;
    site.until_hold(&name, "true").await?;
    let (drained, waited) = tokio::join!(site.follow(REPLACING_PAGE, "## When somebody else drains", node), async {
        let ends = says(format!("{name} (Terminating, grace ends"));
        stage.until("the call is waited for", ALLOCATION, IP, ends).await?;
        surveys(stage, 2).await?;
        site.still_on(node).await?;
        site.calls(node, &name, 0)
    });
    waited?;
    drained?;
    let to = until_moved(stage, ALLOCATION, IP, node).await?.node;
    ensure!(to.as_deref() == Some(next), "it went to {to:?}");
    site.server_on(next).await.map(drop)
}

/// Two nodes that run the example for real, and an address.
struct Site {
    stage: &'static Stage,
    agents: [Agent; 2],
    /// The pretended server's programs.
    _tools: TempDir,
}

impl Site {
    async fn open(stage: &'static Stage) -> Result<Self> {
        reserve(stage, &[IP])?;
        let tools = tempfile::tempdir()?;
        program(tools.path(), "kamailio", SERVER)?;
        program(tools.path(), "kamcmd", COUNTER)?;
        let system = std::env::var("PATH")?;
        let path = format!("{}:{}:{system}", tools.path().display(), stage.cluster.bin().display());
        let start = async |name: &str, zone: &str| {
            let images = |options: AgentOptions| options.image("example.com/sip-server", "/bin/sh").env("PATH", &path);
            stage.start_node(name, zone, &[POOL], images).await
        };
        let agents = [start("sip-node-a", ZONES[0]).await?, start("sip-node-b", ZONES[1]).await?];
        Ok(Self { stage, agents, _tools: tools })
    }

    /// Runs the commands of a section, as a reader would who has put the node's name in; what they said.
    async fn follow(&self, page: &str, heading: &str, node: &str) -> Result<String> {
        self.run(page, &lines(page, heading, node)?).await
    }

    /// Runs the one command of a section, which ends so; what it said.
    async fn ends(&self, page: &str, heading: &str, node: &str, exit: Exit) -> Result<String> {
        let command = lines(page, heading, node)?;
        let said = self.run(page, &format!("code=0\n{{ {command}\n}} || code=$?\necho \"ended with $code\"")).await?;
        let wanted = format!("ended with {}", exit.code());
        ensure!(said.lines().next_back() == Some(wanted.as_str()), "{command} should have {wanted}:\n{said}");
        Ok(said)
    }

    /// Runs lines of a shell, with the plugin installed.
    async fn run(&self, page: &str, lines: &str) -> Result<String> {
        println!("$ {lines}");
        let (checkout, plugins) = (checkout(), self.stage.plugins()?);
        let lines = format!("PATH=\"{}:$PATH\"\n{lines}", plugins.display());
        let run = self.stage.cluster.shell(&checkout, &lines);
        let said = tokio::time::timeout(2 * PATIENCE, run).await.with_context(|| format!("{page}: {lines}"))??;
        println!("{said}");
        Ok(said)
    }

    fn other(&self, node: &str) -> &str {
        self.agents.iter().map(Agent::node).find(|other| *other != node).unwrap()
    }

    fn agent(&self, node: &str) -> Result<&Agent> {
        self.agents.iter().find(|agent| agent.node() == node).context("no such node")
    }

    /// Waits until the one server runs on that node, and has been told the address.
    async fn server_on(&self, node: &str) -> Result<Pod> {
        let pod = wait_for(&format!("the server runs on {node}"), PATIENCE, || async {
            let pods = self.stage.pods(NAMESPACE, "app=sip").await?;
            let there = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
            Ok(match pods.as_slice() {
                [pod] if there(pod) && acts::is_ready(pod) => Seen::Yes(pod.clone()),
                _ => Seen::NotYet(format!("{:?}", pods.iter().map(|pod| &pod.status).collect::<Vec<_>>())),
            })
        })
        .await?;
        let (agent, name) = (self.agent(node)?, pod.name_any());
        wait_for("the server knows its address", PATIENCE, || async {
            let log = agent.log(NAMESPACE, &name)?;
            let told = format!("advertises {IP}, listens at {HOST}");
            Ok(Seen::when(log.lines().any(|line| line == told), log))
        })
        .await?;
        Ok(pod)
    }

    /// So many calls are up from now on.
    fn calls(&self, node: &str, pod: &str, count: u8) -> Result<()> {
        let folder = self.agent(node)?.folder(NAMESPACE, pod)?;
        // Whole or not at all: somebody reads it at any time.
        fs::write(folder.join("calls.new"), count.to_string())?;
        Ok(fs::rename(folder.join("calls.new"), folder.join("calls"))?)
    }

    async fn until_hold(&self, pod: &str, wanted: &str) -> Result<()> {
        wait_for(&format!("{pod} says hold={wanted}"), PATIENCE, || async {
            let pods = self.stage.pods(NAMESPACE, "app=sip").await?;
            let said = pods.iter().find(|known| known.name_any() == pod).and_then(|pod| {
                let said = pod.annotations().get(HOLD_ANNOTATION);
                said.cloned()
            });
            Ok(Seen::when(said.as_deref() == Some(wanted), said))
        })
        .await
    }

    /// Who has asked the pod to go.
    fn asked_to_go(&self, pod: &str) -> Result<Vec<String>> {
        let audit = self.stage.cluster.audit()?.into_iter();
        let asked = audit.filter(|event| event.subresource == "eviction" && event.name == pod);
        Ok(asked.map(|event| event.user).collect())
    }

    /// The address is on that node, and the node says so.
    async fn still_on(&self, node: &str) -> Result<()> {
        ensure!(self.stage.world.machine_of(IP.parse()?).as_deref() == Some(node), "the address has left under a call");
        until_labelled(self.stage, node, ALLOCATION, IP).await
    }
}

/// The commands of a section, with the node's name put in.
fn lines(page: &str, heading: &str, node: &str) -> Result<String> {
    Ok(blocks(page, heading, "```sh")?.join("\n").replace("NODE", node))
}

/// Whether the sentence of a draining address contains this text.
fn says(text: String) -> impl Fn(&AddressStatus) -> bool {
    move |address| address.state == "Draining" && address.message.as_ref().is_some_and(|said| said.contains(&text))
}

fn program(folder: &Path, name: &str, text: &str) -> Result<()> {
    let file = folder.join(name);
    fs::write(&file, text)?;
    Ok(fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?)
}
