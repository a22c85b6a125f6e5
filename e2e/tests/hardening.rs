//! What the release must not do to whoever runs it: tell a secret, ask for more than Pod Security *restricted* gives, or
//! come with runbooks whose commands do not work.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)]

mod acts;
#[path = "hardening/pod_security.rs"]
mod pod_security;
#[path = "hardening/runbooks.rs"]
mod runbooks;
#[path = "hardening/secrets.rs"]
mod secrets;

use std::sync::Mutex;

use acts::Theatre;
use anyhow::Result;
use e2e::{
    collector::Collector,
    stage::{NAMESPACE, Stage, Venue},
};
use tokio::sync::OnceCell;

static GCP: Theatre = Theatre::at(&Venue::GCP);
static AWS: Theatre = Theatre::at(&Venue::AWS);
static AZURE: Theatre = Theatre::at(&Venue::AZURE);

/// One control plane is enough for two cores.
static TURN: Mutex<()> = Mutex::new(());

/// The most that can be asked for: the libraries that are quiet unless they are named, named.
const LOUDEST: &str = "trace,kube=trace,kube_client=trace,kube_runtime=trace,hyper=trace,hyper_util=trace,h2=trace,tower=trace,rustls=trace,warp=trace";

/// A namespace that enforces Pod Security *restricted*, and the release in it, as loud as can be. What it is traced by.
async fn installed<'a>(stage: &Stage, once: &'a OnceCell<Collector>) -> Result<&'a Collector> {
    once.get_or_try_init(async || {
        let levels = ["enforce", "warn", "audit"].map(|mode| format!("pod-security.kubernetes.io/{mode}: restricted"));
        let namespace = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}, labels: {{{}}}}}\n",
            levels.join(", ")
        );
        stage.cluster.apply(&namespace).await?;
        stage.agent.extra_env("LOG_LEVEL", LOUDEST);
        let collector = Collector::start().await?;
        stage.agent.extra_env("OTEL_BSP_SCHEDULE_DELAY", "200");
        stage.install(&["tracing.enabled=true", &format!("tracing.endpoint={}", collector.endpoint())]).await?;
        stage.until_led(None).await?;
        Ok(collector)
    })
    .await
}

static AT_GCP: OnceCell<Collector> = OnceCell::const_new();

#[test]
fn no_secret_is_told_at_google_cloud_however_loud_the_log_is() -> Result<()> {
    let _turn = TURN.lock();
    GCP.bare(async |stage| secrets::play(stage, installed(stage, &AT_GCP).await?).await)
}

#[test]
fn no_secret_is_told_at_aws_however_loud_the_log_is() -> Result<()> {
    let _turn = TURN.lock();
    AWS.bare(async |stage| {
        let once = OnceCell::new();
        secrets::play(stage, installed(stage, &once).await?).await
    })
}

#[test]
fn no_secret_is_told_at_azure_however_loud_the_log_is() -> Result<()> {
    let _turn = TURN.lock();
    AZURE.bare(async |stage| {
        stage.agent.extra_env("AZURE_CLIENT_SECRET", secrets::CLIENT_SECRET);
        let once = OnceCell::new();
        secrets::play(stage, installed(stage, &once).await?).await
    })
}

#[test]
fn the_pods_run_under_pod_security_restricted_whatever_the_values_say() -> Result<()> {
    let _turn = TURN.lock();
    GCP.bare(async |stage| {
        installed(stage, &AT_GCP).await?;
        pod_security::play(stage).await
    })
}

#[test]
fn the_commands_of_the_runbooks_work() -> Result<()> {
    let _turn = TURN.lock();
    GCP.bare(async |stage| {
        installed(stage, &AT_GCP).await?;
        runbooks::play(stage).await
    })
}
