//! The README's "Try it in a minute", line by line, on a cluster that knows no cloud: what the chart plays with
//! `simulator.enabled` is enough. Then the same with the other clouds that it can play.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, bail, ensure};
use e2e::{
    cluster::{Agent, AgentOptions, Cluster, Options, Seen, wait_for},
    page::{self, checkout},
    stage::{NAMESPACE, RELEASE, Venue, operator},
};
use ip_address_controller::api::NetIPAllocation;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt, api::ListParams};
use tokio::sync::Mutex;

const PATIENCE: Duration = Duration::from_secs(120);
const SIMULATED: &str = "netinfra.darkbrains.com/simulated";

/// One control plane is enough for two cores.
static TURN: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn the_readme_can_be_followed_without_a_cloud() -> Result<()> {
    try_it(&Venue::GCP).await
}

#[tokio::test]
async fn aws_can_be_tried_without_an_account() -> Result<()> {
    try_it(&Venue::AWS).await
}

#[tokio::test]
async fn azure_can_be_tried_without_a_subscription() -> Result<()> {
    try_it(&Venue::AZURE).await
}

async fn try_it(venue: &Venue) -> Result<()> {
    let _turn = TURN.lock().await;
    let cluster = Cluster::start(Options::default()).await?;
    let agent = start_agent(&cluster).await?;
    let told = follow(&cluster, &agent, venue).await;
    if told.is_err() {
        for pod in cluster.kubectl(&["get", "pods", "-n", NAMESPACE, "-o", "name"]).await?.lines() {
            let pod = pod.trim_start_matches("pod/");
            eprintln!("{pod}:\n{}", agent.log(NAMESPACE, pod).unwrap_or_default());
        }
    }
    told
}

/// The one node that runs pods; nothing tells it where a cloud is.
async fn start_agent(cluster: &Cluster) -> Result<Agent> {
    let operator = operator()?;
    let simulator = operator.with_file_name("simulator");
    let options = AgentOptions::new("host")
        .image("darkbrains/ip-address-controller", operator)
        .image("darkbrains/ip-address-controller-simulator", simulator)
        .env("NO_PROXY", "127.0.0.0/8,localhost");
    cluster.start_agent(options).await
}

async fn follow(cluster: &Cluster, agent: &Agent, venue: &Venue) -> Result<()> {
    let lines = lines()?;
    ensure!(lines.len() >= 8, "{lines:?}");
    let folder = tempfile::tempdir()?;
    for line in lines {
        let line = if *venue == Venue::GCP { line } else { elsewhere(venue, &line, folder.path())? };
        println!("$ {line}");
        let words: Vec<String> = line.split_whitespace().map(in_the_repository).collect();
        let args: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
        let said = match words[0].as_str() {
            "helm" => cluster.helm(&args).await?,
            "kubectl" => cluster.kubectl(&args).await?,
            other => bail!("{other} cannot be run here"),
        };
        println!("{said}");
        if let ["get", "nia,nodes", ..] = args[..] {
            passes_its_own_check(cluster, agent, venue).await?;
        }
        // What a reader would look for.
        if let ["drain", node, ..] = args[..] {
            until_placed(cluster, |placed| placed != node).await?;
        }
        if let ["delete", "node", node] = args[..] {
            // It comes again, on another machine.
            wait_for("the node is there again", PATIENCE, || async {
                let nodes: Api<Node> = Api::all(cluster.client()?);
                Ok(Seen::when(nodes.get_opt(node).await?.is_some(), "it is not"))
            })
            .await?;
            until_placed(cluster, |_| true).await?;
        }
    }
    wait_for("the simulated nodes are gone", PATIENCE, || async {
        let nodes: Api<Node> = Api::all(cluster.client()?);
        let left = nodes.list(&ListParams::default().labels(SIMULATED)).await?.items;
        Ok(Seen::when(left.is_empty(), left.iter().map(ResourceExt::name_any).collect::<Vec<_>>()))
    })
    .await
}

/// The line for another cloud than the README's: one value more, and the same allocation there.
fn elsewhere(venue: &Venue, line: &str, folder: &Path) -> Result<String> {
    const ENABLED: &str = "--set simulator.enabled=true";
    const EXAMPLE: &str = "examples/try-it.yaml";
    let cloud = |venue: &Venue| format!("{{provider: {}, region: {}}}", venue.provider, venue.region);
    let example = fs::read_to_string(checkout().join(EXAMPLE))?;
    ensure!(example.contains(&cloud(&Venue::GCP)), "{example}");
    let file = folder.join("try-it.yaml");
    fs::write(&file, example.replace(&cloud(&Venue::GCP), &cloud(venue)))?;
    let provider = format!("{ENABLED} --set simulator.provider={}", venue.provider);
    Ok(line.replace(ENABLED, &provider).replace(EXAMPLE, &file.to_string_lossy()))
}

/// As the chart's notes advise, with the played cloud and what it gives for credentials.
async fn passes_its_own_check(cluster: &Cluster, agent: &Agent, venue: &Venue) -> Result<()> {
    let said = cluster.helm(&["test", RELEASE, "--namespace", NAMESPACE, "--timeout", "120s"]).await?;
    ensure!(said.contains("Succeeded"), "{said}");
    let found = agent.log(NAMESPACE, "ip-address-controller-check")?;
    ensure!(!found.is_empty() && found.lines().all(|line| line.starts_with("ok ")), "{found}");
    ensure!(found.contains(&format!("{}/", venue.provider)), "the cloud was not looked at: {found}");
    Ok(())
}

/// Both addresses are on a node that is accepted.
async fn until_placed(cluster: &Cluster, accepts: impl Fn(&str) -> bool) -> Result<()> {
    wait_for("both addresses are attached", PATIENCE, || async {
        let object = Api::<NetIPAllocation>::all(cluster.client()?).get("try-it").await?;
        let entries = object.status.unwrap_or_default().addresses;
        let placed =
            entries.iter().filter(|entry| entry.state == "Attached" && entry.node.as_deref().is_some_and(&accepts));
        Ok(Seen::when(placed.count() == 2, format!("{entries:?}")))
    })
    .await
}

/// The commands of the section.
fn lines() -> Result<Vec<String>> {
    let block = page::blocks("README.md", "## Try it in a minute", "```")?.remove(0);
    Ok(block.lines().map(str::to_owned).collect())
}

/// A reader stands in the checkout.
fn in_the_repository(word: &str) -> String {
    let path = checkout().join(word);
    if word.contains('/') && path.exists() { path.to_string_lossy().into_owned() } else { word.to_owned() }
}
