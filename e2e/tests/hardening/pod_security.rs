//! The API server's own admission of Pod Security, asked about the Deployment's pods and about those of other values.

use anyhow::{Context, Result, ensure};
use e2e::stage::{NAMESPACE, RELEASE, Stage, chart};
use serde_json::{Value, json};

use super::acts::{OPERATOR, cast};

/// Every value that changes the pod, by itself or with what it needs.
const VALUES: &[&[&str]] = &[
    &[],
    &["replicaCount=3"],
    &["cloud.gcp.existingSecret.name=key", "cloud.aws.existingSecret.name=keys", "cloud.azure.existingSecret.name=app"],
    &["cloud.gcp.serviceAccount=a@p.iam.gserviceaccount.com", "cloud.aws.roleArn=arn:aws:iam::123456789012:role/r"],
    &["cloud.azure.clientId=11111111-2222-3333-4444-555555555555"],
    &["extraEnv[0].name=OTHER", "extraEnv[0].value=1", "clusterName=prod", "controller.bindAddress=0.0.0.0"],
    &["tracing.enabled=true", "tracing.endpoint=https://otlp.example.com", "tracing.caSecret.name=ca"],
    &["extraArgs[0]=--cloud-qps=1", "extraVolumes[0].name=tmp", "extraVolumes[0].emptyDir.medium=Memory"],
    &[
        "image.digest=sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "imagePullSecrets[0]=pull",
    ],
    &["configureDefaultAffinity=false", "priorityClass.create=false", "topologySpreadConstraints=null"],
    &["podAnnotations.a=b", "podLabels.a=b", "controller.metricsPort=10000", "controller.healthPort=10001"],
];

pub async fn play(stage: &Stage) -> Result<()> {
    cast(stage).await.context("the release's pods are not admitted")?;
    ensure!(stage.pods(NAMESPACE, OPERATOR).await?.len() == 2);

    // The admission is awake: it refuses what is not restricted.
    let mut privileged = pod(&deployment(stage, &[]).await?)?;
    privileged["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
    let refused = admitted(stage, &privileged).await.expect_err("a pod that may gain privileges is admitted");
    ensure!(format!("{refused:#}").contains("violates PodSecurity \"restricted"), "{refused:#}");

    for values in VALUES {
        let pod = pod(&deployment(stage, values).await?)?;
        admitted(stage, &pod).await.with_context(|| format!("with {values:?}"))?;
    }
    Ok(())
}

/// The Deployment that Helm makes of these values.
async fn deployment(stage: &Stage, values: &[&str]) -> Result<Value> {
    let chart = chart();
    let chart = chart.to_string_lossy();
    let mut args =
        vec!["template", RELEASE, &*chart, "--namespace", NAMESPACE, "--show-only", "templates/deployment.yaml"];
    for value in values {
        let text = ["extraEnv", "podAnnotations", "podLabels"].iter().any(|start| value.starts_with(start));
        args.extend([if text { "--set-string" } else { "--set" }, value]);
    }
    Ok(serde_yaml::from_str(&stage.cluster.helm(&args).await?)?)
}

/// A pod as the Deployment's controller would make it.
fn pod(deployment: &Value) -> Result<Value> {
    let mut pod = deployment.pointer("/spec/template").context("no pod template")?.clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!("another");
    // The class of other values would be made with them.
    pod["spec"].as_object_mut().context("no spec")?.remove("priorityClassName");
    Ok(pod)
}

/// Asked with all admission that there is, and not stored.
async fn admitted(stage: &Stage, pod: &Value) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    serde_json::to_writer(&file, pod)?;
    let path = file.path().to_string_lossy().into_owned();
    stage.cluster.kubectl(&["create", "-n", NAMESPACE, "--dry-run=server", "-f", &path]).await.map(drop)
}
