//! One version of the chart over another: the CRD changes, no address moves; and back by the image alone. Over version 1,
//! too, and with Helm 3.

#[path = "upgrades/helm_3.rs"]
mod helm_3;
#[path = "upgrades/version_1.rs"]
mod version_1;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{NAMESPACE, PATIENCE, RELEASE, Stage, chart},
};

use super::{
    THEATRE,
    acts::{self, Theatre, at_rest, still_there, surveys},
    helm::Major,
};

const CRD: &str = "netipallocations.netinfra.darkbrains.com";

/// A stage on which there is no CRD before the play: one without the release of all the others.
static EMPTY: Theatre = Theatre::new();

#[test]
fn p9_an_upgrade_that_changes_the_crd_moves_nothing_and_the_older_image_works_with_the_newer_crd() -> Result<()> {
    THEATRE.alone(async |stage| {
        acts::cast(stage).await?;
        let (name, ips) = ("upgraded", ["203.0.113.90", "203.0.113.91"]);
        let nodes = at_rest(stage, name, &ips).await?;
        stage.world.clear_calls();

        let folder = tempfile::tempdir()?;
        let next = next_version(folder.path())?;
        upgrade(stage, Major::Four, &next, &[]).await?;
        acts::cast(stage).await?;
        ensure!(image(stage).await?.ends_with(":2.1.0"), "{}", image(stage).await?);
        let patch = r#"{"spec":{"colour":"blue"}}"#;
        // Served a moment after it was stored.
        wait_for("the new field is kept", PATIENCE, || async {
            stage.cluster.kubectl(&["patch", "nia", name, "--type=merge", "-p", patch]).await?;
            let colour = colour(stage, name).await?;
            Ok(Seen::when(colour == "blue", colour))
        })
        .await?;
        surveys(stage, 2).await?;
        still_there(stage, name, &ips, &nodes).await?;

        // As packaging says it: the image goes back, the release does not.
        upgrade(stage, Major::Four, &next, &["--set", "image.tag=2.0.0"]).await?;
        acts::cast(stage).await?;
        ensure!(image(stage).await?.ends_with(":2.0.0"), "{}", image(stage).await?);
        surveys(stage, 3).await?;
        still_there(stage, name, &ips, &nodes).await?;
        ensure!(colour(stage, name).await? == "blue", "the older operator drops what it does not know");

        // A change of address by the older operator on the newer CRD leaves the field alone, too.
        stage.cluster.kubectl(&["cordon", &nodes[0]]).await?;
        acts::until_moved(stage, name, ips[0], &nodes[0]).await?;
        ensure!(colour(stage, name).await? == "blue", "status writes drop what the spec has more");
        stage.install(&[]).await
    })
}

/// This chart as its next version might be: another number, and a CRD with one field more.
fn next_version(folder: &Path) -> Result<PathBuf> {
    let next = folder.join("ip-address-controller");
    let copied = std::process::Command::new("cp").arg("-r").arg(chart()).arg(&next).status()?;
    ensure!(copied.success());
    edit(&next.join("Chart.yaml"), "ersion: 2.0.0", "ersion: 2.1.0")?;
    let (before, after) = ("              deletionPolicy:\n", "              colour:\n                type: string\n");
    edit(&next.join("files/crds/netipallocations.yaml"), before, &format!("{after}{before}"))?;
    Ok(next)
}

fn edit(file: &Path, from: &str, to: &str) -> Result<()> {
    let text = std::fs::read_to_string(file)?;
    ensure!(text.contains(from), "{}: no {from:?}", file.display());
    std::fs::write(file, text.replace(from, to)).context("writing the next version")
}

/// With the values of the release, and a wait for its pods.
async fn upgrade(stage: &Stage, helm: Major, chart: &Path, more: &[&str]) -> Result<()> {
    let chart = chart.to_string_lossy();
    let mut args =
        vec!["upgrade", RELEASE, &*chart, "--namespace", NAMESPACE, "--reuse-values", "--wait", "--timeout", "120s"];
    args.extend(more);
    match helm {
        Major::Three => stage.cluster.helm3(&args).await.map(drop),
        Major::Four => stage.cluster.helm(&args).await.map(drop),
    }
}

/// Neither CRD nor release, whatever an earlier play has left.
async fn emptied(stage: &Stage) -> Result<()> {
    // While there is an operator: it takes its finalizers off.
    stage.cluster.kubectl(&["delete", "crd", CRD, "--ignore-not-found", "--timeout=120s"]).await?;
    for namespace in [NAMESPACE, "kube-system"] {
        let args = ["uninstall", RELEASE, "--namespace", namespace, "--ignore-not-found", "--wait"];
        stage.cluster.helm(&args).await?;
    }
    Ok(())
}

async fn image(stage: &Stage) -> Result<String> {
    let path = "jsonpath={.spec.template.spec.containers[0].image}";
    stage.cluster.kubectl(&["get", "deployment", RELEASE, "-n", NAMESPACE, "-o", path]).await
}

async fn colour(stage: &Stage, name: &str) -> Result<String> {
    stage.cluster.kubectl(&["get", "nia", name, "-o", "jsonpath={.spec.colour}"]).await
}
