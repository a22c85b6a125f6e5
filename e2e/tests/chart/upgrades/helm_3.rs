//! A life under Helm 3: installed over a CRD that kubectl had applied, upgraded with another CRD, uninstalled, installed again.

use std::path::Path;

use anyhow::{Result, ensure};
use e2e::{
    cluster::{Seen, wait_for},
    stage::{NAMESPACE, PATIENCE, RELEASE, Stage, VALUES, chart, setting},
};

use super::{CRD, EMPTY, emptied, image, next_version, upgrade, version_1};
use crate::{
    acts::{OPERATOR, at_rest, cast, still_there, surveys},
    helm::Major,
};

#[test]
fn p9_helm_3_takes_over_a_crd_upgrades_it_and_leaves_addresses_and_objects_when_it_goes() -> Result<()> {
    EMPTY.bare(async |stage| {
        emptied(stage).await?;
        version_1::crd(stage).await?;
        let refused = install(stage, &chart(), &[]).await.expect_err("a CRD of nobody is taken without a word");
        ensure!(format!("{refused:#}").contains("invalid ownership metadata"), "{refused:#}");
        install(stage, &chart(), &["--take-ownership"]).await?;
        cast(stage).await?;
        let (name, ips) = ("helm-3", ["203.0.113.94", "203.0.113.95"]);
        let nodes = at_rest(stage, name, &ips).await?;
        stage.world.clear_calls();

        let folder = tempfile::tempdir()?;
        let next = next_version(folder.path())?;
        upgrade(stage, Major::Three, &next, &[]).await?;
        cast(stage).await?;
        ensure!(image(stage).await?.ends_with(":2.1.0"), "{}", image(stage).await?);
        let field = "jsonpath={.spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.colour.type}";
        let field = stage.cluster.kubectl(&["get", "crd", CRD, "-o", field]).await?;
        ensure!(field == "string", "the CRD was not upgraded: {field:?}");
        surveys(stage, 2).await?;
        still_there(stage, name, &ips, &nodes).await?;

        let uninstall = ["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "120s"];
        stage.cluster.helm3(&uninstall).await?;
        wait_for("no pod of the operator is left", PATIENCE, || async {
            let left = stage.pods(NAMESPACE, OPERATOR).await?.len();
            Ok(Seen::when(left == 0, left))
        })
        .await?;
        stage.cluster.kubectl(&["get", "crd", CRD]).await?;
        still_there(stage, name, &ips, &nodes).await?;

        // What it left is its own: nothing has to be taken over.
        install(stage, &next, &[]).await?;
        cast(stage).await?;
        surveys(stage, 3).await?;
        still_there(stage, name, &ips, &nodes).await
    })
}

async fn install(stage: &Stage, chart: &Path, more: &[&str]) -> Result<String> {
    let chart = chart.to_string_lossy();
    let mut args = vec!["install", RELEASE, &*chart, "--namespace", NAMESPACE, "--create-namespace"];
    args.extend(["--wait", "--timeout", "120s"]);
    args.extend(VALUES.iter().flat_map(|value| setting(value)));
    args.extend(more);
    stage.cluster.helm3(&args).await
}
