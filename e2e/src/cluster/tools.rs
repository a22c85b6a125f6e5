//! Where the tools are: built by `e2e/tools/build`, which does nothing when they are there already.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::Command;
use tokio::sync::OnceCell;

static BIN: OnceCell<PathBuf> = OnceCell::const_new();
static WITH_HELM3: OnceCell<PathBuf> = OnceCell::const_new();
static WITH_JAEGER: OnceCell<PathBuf> = OnceCell::const_new();
static WITH_PROMETHEUS: OnceCell<PathBuf> = OnceCell::const_new();

/// The folder with etcd, the Kubernetes binaries, kwok and helm. The first call builds what is missing, with a line of
/// progress on stderr for each tool.
///
/// # Errors
/// When a tool cannot be built; the script has said why.
pub async fn bin() -> anyhow::Result<&'static Path> {
    BIN.get_or_try_init(|| build(&[])).await.map(PathBuf::as_path)
}

/// The same, with Helm 3 as `helm3` beside them.
///
/// # Errors
/// When a tool cannot be built.
pub async fn bin_with_helm3() -> anyhow::Result<&'static Path> {
    WITH_HELM3.get_or_try_init(|| build(&["helm3"])).await.map(PathBuf::as_path)
}

/// The same, with Jaeger as `jaeger` beside them.
///
/// # Errors
/// When a tool cannot be built.
pub async fn bin_with_jaeger() -> anyhow::Result<&'static Path> {
    WITH_JAEGER.get_or_try_init(|| build(&["jaeger"])).await.map(PathBuf::as_path)
}

/// The same, with Prometheus as `prometheus` and its `promtool` beside them.
///
/// # Errors
/// When a tool cannot be built.
pub async fn bin_with_prometheus() -> anyhow::Result<&'static Path> {
    WITH_PROMETHEUS.get_or_try_init(|| build(&["prometheus"])).await.map(PathBuf::as_path)
}

async fn build(extra: &[&str]) -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/build");
    let output = Command::new(&script)
        .args(extra)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await
        .with_context(|| format!("running {}", script.display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", script.display(), output.status);
    }
    let stdout = String::from_utf8_lossy(&output.stdout);
    let bin = stdout.lines().last().context("the tools' build named no folder")?;
    Ok(PathBuf::from(bin))
}
