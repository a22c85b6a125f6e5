//! Starts a cluster with one real pod, prints the process ids and the folder, and then waits to be killed.

use std::path::PathBuf;
use std::time::Duration;

use e2e::cluster::{AgentOptions, Cluster, Options, Seen, wait_for};

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: lonely}
spec:
  nodeSelector: {ip-address-controller/agent: \"true\"}
  containers: [{name: tiny, image: tiny}]
";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let program = PathBuf::from(std::env::args().nth(1).unwrap_or_default());
    let cluster = Cluster::start(Options::default()).await?;
    let agent = cluster.start_agent(AgentOptions::new("agent").image("tiny", program)).await?;
    cluster.apply(POD).await?;
    let pid =
        wait_for("the pod runs", Duration::from_secs(60), || async { Ok(Seen::Yes(agent.pid("default", "lonely")?)) })
            .await?;
    for (_, pid) in cluster.pids() {
        println!("pid {pid}");
    }
    println!("pid {pid}");
    println!("folder {}", cluster.dir().display());
    println!("ready");
    std::future::pending().await
}
