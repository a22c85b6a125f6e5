//! The operator's program as a person runs it.

use std::process::Stdio;

use anyhow::Result;
use e2e::stage::{NAMESPACE, Stage, operator};
use tokio::process::Command;

/// How the program ended, and what it wrote.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// With this environment and no other.
pub async fn program(args: &[&str], env: &[(&str, &str)]) -> Result<Ended> {
    let mut command = Command::new(operator()?);
    command.args(args).env_clear().envs(env.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let output = super::in_time("the program ends", command.output()).await??;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) })
}

/// Beside the cluster: an admin's kubeconfig and the simulated cloud.
pub async fn on_stage(stage: &Stage, args: &[&str]) -> Result<Ended> {
    let kubeconfig = stage.cluster.kubeconfig().to_string_lossy().into_owned();
    let cloud = stage.venue.environment(&stage.simulator);
    let mut env = vec![("KUBECONFIG", kubeconfig.as_str()), ("POD_NAMESPACE", NAMESPACE)];
    env.extend(cloud.iter().map(|(name, value)| (*name, value.as_str())));
    program(args, &env).await
}
