//! kubectl and helm, shut up in the cluster's folder and on loopback.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, bail};
use tokio::io::AsyncWriteExt;

use super::background;
use super::process::Launch;

/// Nobody listens there. Go's clients never ask a proxy for loopback, and always for everything else: whatever would
/// leave this machine is refused at once.
const NOWHERE: &str = "http://127.0.0.1:9";

/// How a command ended and what it said.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Output {
    /// What it printed, if it succeeded.
    ///
    /// # Errors
    /// With its own complaint, if it failed.
    pub fn success(self) -> anyhow::Result<String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        bail!("{}: {}{}", self.status, self.stderr, self.stdout)
    }
}

/// The environment of a tool: its own home, caches and kubeconfig in `dir`.
pub(super) fn environment(bin: &Path, dir: &Path, kubeconfig: &Path) -> BTreeMap<String, String> {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let home = dir.join("home");
    let system = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
    [
        ("PATH", format!("{}:{system}", bin.display())),
        ("HOME", path(&home)),
        ("KUBECONFIG", path(kubeconfig)),
        ("KUBECACHEDIR", path(&home.join("kube-cache"))),
        ("HELM_CACHE_HOME", path(&home.join("helm/cache"))),
        ("HELM_CONFIG_HOME", path(&home.join("helm/config"))),
        ("HELM_DATA_HOME", path(&home.join("helm/data"))),
        ("HTTP_PROXY", NOWHERE.to_owned()),
        ("HTTPS_PROXY", NOWHERE.to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// Runs it to its end. A caller who stops waiting ends the command.
pub(super) async fn run(launch: Launch, input: Option<String>) -> anyhow::Result<Output> {
    background::run(async move {
        let mut command = launch.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().with_context(|| format!("running {}", launch.program.display()))?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            // A command that ends without reading says why itself.
            tokio::spawn(async move {
                let _ = stdin.write_all(input.as_bytes()).await;
            });
        }
        let output = child.wait_with_output().await?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Output { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) })
    })
    .await
}
