//! The chapter in which a person asks: `kubectl nia`.

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{PATIENCE, Stage},
};
use tokio::time::timeout;

use crate::{NAME, POOL, Teller};

/// Of a history that is as long as the demo.
const LAST: usize = 6;

impl Teller {
    pub(crate) async fn ask(&self, stage: &Stage) -> Result<()> {
        self.chapter(7, "Asked from a terminal: why, what if, and a move by hand");
        for node in POOL {
            stage.cluster.kubectl(&["uncordon", node]).await?;
        }
        let (ip, node) = self.first_address(stage).await?;
        let address = ip.to_string();
        // A machine that is still owed an address of its own takes no other.
        wait_for("nothing is owed", PATIENCE, || async {
            let owed = stage.allocation(NAME).await?.and_then(|object| object.status).map(|status| status.owed);
            Ok(Seen::when(owed.as_ref().is_some_and(Vec::is_empty), owed))
        })
        .await?;
        self.say("The operator's binary, called as kubectl-nia, is a plugin of kubectl:");
        self.lines_of(stage, &["nia"]).await?;
        self.lines_of(stage, &["nia", "why", &address]).await?;

        let before = stage.world.mutations().len();
        self.lines_of(stage, &["nia", "plan", "--drain", &node]).await?;
        let spec = stage.node(&node).await?.and_then(|node| node.spec).unwrap_or_default();
        ensure!(!spec.unschedulable.unwrap_or_default(), "the plan has cordoned {node}");
        ensure!(stage.world.mutations().len() == before, "the plan has changed something at the cloud");
        ensure!(stage.world.machine_of(ip).as_deref() == Some(&*node), "the plan has moved {ip}");
        self.seen("the operator's own decision, and nothing was changed");

        self.lines_of(stage, &["nia", "move", &address, "--wait"]).await?;
        let to = self.until_on_another(stage, ip, &node).await?;
        self.until_running(stage, 2).await?;
        self.seen(format!("{ip} is on {to}, and its pod followed it"));

        let told = self.plugin(stage, &["nia", "history", &address]).await?;
        let lines: Vec<&str> = told.lines().collect();
        let last = lines.get(lines.len().saturating_sub(LAST)..).unwrap_or_default().join("\n");
        self.output(&format!("kubectl nia history {address} | tail -n {LAST}"), &last);
        Ok(())
    }

    /// Runs kubectl with the plugin and shows what it printed.
    async fn lines_of(&self, stage: &Stage, args: &[&str]) -> Result<()> {
        let told = self.plugin(stage, args).await?;
        self.output(&format!("kubectl {}", args.join(" ")), &told);
        Ok(())
    }

    async fn plugin(&self, stage: &Stage, args: &[&str]) -> Result<String> {
        let mut command = stage.kubectl_with_plugin(stage.cluster.kubeconfig(), args)?;
        let output =
            timeout(PATIENCE, command.output()).await.with_context(|| format!("kubectl {}", args.join(" ")))??;
        let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        ensure!(output.status.success(), "kubectl {}: {}: {err}{out}", args.join(" "), output.status);
        Ok(out)
    }
}
