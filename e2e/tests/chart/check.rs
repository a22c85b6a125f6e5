//! `helm test`: the operator's own check, run as a pod of the release, with its account, its credentials and its rights.

use anyhow::{Result, ensure};
use e2e::stage::{NAMESPACE, RELEASE, Stage};

use super::{
    THEATRE,
    acts::{self, allocation, pool, reserve},
};

const POD: &str = "ip-address-controller-check";

#[test]
fn helm_test_passes_and_names_what_is_missing_where_it_does_not() -> Result<()> {
    THEATRE.alone(async |stage| {
        acts::cast(stage).await?;
        // So that there is a cloud to look at, and something to ask for permissions on.
        let (name, ip) = ("checked", "203.0.113.85");
        reserve(stage, &[ip])?;
        pool(stage, name, 1).await?;
        stage.cluster.apply(&allocation(name, &[ip], "")).await?;
        stage.until_attached(name, ip).await?;
        let args = ["test", RELEASE, "--namespace", NAMESPACE, "--timeout", "120s"];
        for out in [stage.cluster.helm(&args).await?, stage.cluster.helm3(&args).await?] {
            ensure!(out.contains("Succeeded"), "{out}");
            let said = stage.agent.log(NAMESPACE, POD)?;
            ensure!(!said.is_empty() && said.lines().all(|line| line.starts_with("ok ")), "{said}");
            ensure!(said.contains("RBAC leases") && said.contains("CustomResourceDefinition"), "{said}");
            gone(stage).await?;
        }

        let permission = stage.venue.attach_permission;
        stage.world.deny(permission);
        let failed = stage.cluster.helm(&args).await;
        stage.world.allow(permission);
        ensure!(failed.is_err(), "a missing permission is not noticed: {failed:?}");
        let said = stage.agent.log(NAMESPACE, POD)?;
        ensure!(said.contains("FAIL") && said.contains(permission), "{said}");
        // It stays for whoever wants to look, and does not stand in the way of the next one.
        stage.cluster.kubectl(&["get", "pod", POD, "-n", NAMESPACE]).await?;
        stage.cluster.helm(&args).await?;
        gone(stage).await?;
        stage.cluster.kubectl(&["delete", "nia", name, "--timeout=120s"]).await.map(drop)
    })
}

async fn gone(stage: &Stage) -> Result<()> {
    let left = stage.cluster.kubectl(&["get", "pod", POD, "-n", NAMESPACE, "--ignore-not-found", "-o", "name"]).await?;
    ensure!(left.is_empty(), "the pod of the test is left: {left}");
    Ok(())
}
