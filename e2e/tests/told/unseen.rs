//! `kubectl wait --for=condition=Ready`, which many a pipeline ends with.

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{NAMESPACE, PATIENCE, RELEASE, Stage},
};

use crate::acts::{OPERATOR, allocation, cast, pool, reserve};

const NAME: &str = "unseen";
const IP: &str = "203.0.113.55";

pub async fn play(stage: &Stage) -> Result<()> {
    reserve(stage, &[IP])?;
    pool(stage, NAME, 2).await?;

    replicas(stage, "0").await?;
    stage.cluster.apply(&allocation(NAME, &[IP], "")).await?;
    let object = stage.allocation(NAME).await?.context("no object")?;
    ensure!(object.status.context("no status")?.observed_generation == Some(-1), "it reads as seen");
    not_ready(stage).await?;
    replicas(stage, "2").await?;
    ready(stage).await?;

    // Ready it was, of a spec that is not the present one.
    replicas(stage, "0").await?;
    stage.cluster.apply(&allocation(NAME, &[IP], "drain: {timeoutSeconds: 600}")).await?;
    not_ready(stage).await?;
    replicas(stage, "2").await?;
    ready(stage).await?;

    stage.cluster.kubectl(&["delete", "nia", NAME, "--timeout=120s"]).await.map(drop)
}

async fn ready(stage: &Stage) -> Result<()> {
    let told = stage.cluster.kubectl(&["wait", "--for=condition=Ready", "nia/unseen", "--timeout=120s"]).await?;
    ensure!(told.contains("condition met"), "{told}");
    Ok(())
}

async fn not_ready(stage: &Stage) -> Result<()> {
    let args = ["wait", "--for=condition=Ready", "nia/unseen", "--timeout=3s"];
    let told = stage.cluster.run("kubectl", &args, None).await?;
    ensure!(!told.status.success() && told.stderr.contains("timed out"), "{told:?}");
    Ok(())
}

async fn replicas(stage: &Stage, count: &str) -> Result<()> {
    let deployment = format!("deployment/{RELEASE}");
    stage.cluster.kubectl(&["scale", &deployment, "-n", NAMESPACE, &format!("--replicas={count}")]).await?;
    if count != "0" {
        return cast(stage).await.map(drop);
    }
    wait_for("no pod of the operator is left", PATIENCE, || async {
        let left = stage.pods(NAMESPACE, OPERATOR).await?.len();
        Ok(Seen::when(left == 0, left))
    })
    .await
}
