//! How large the program is, and how soon it is ready: from exec to the first good answer on `/readyz`, beside the release that
//! leads. Cold is with nothing of it in the page cache (proc(5), `drop_caches`), which only root can have: a copy, because the pages
//! of a program that runs stay.

use std::{fs, net::TcpListener, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    figures::Figures,
    stage::{NAMESPACE, operator},
};
use tokio::{process::Command, time::Instant};

use crate::ground::Ground;

const TIMES: usize = 5;
/// It is not ready by then, or will not be.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two questions.
const LOOK: Duration = Duration::from_millis(1);

/// Once, on the largest ground, when all is attached: every node and allocation is read before it is ready.
pub async fn start(ground: &Ground, figures: &mut Figures) -> Result<()> {
    let program = operator()?;
    let mib = fs::metadata(&program)?.len() as f64 / 1024.0 / 1024.0;
    figures.tell(ground.size, "the program's size", format!("{mib:.1} MiB"));
    // On the disk that it is on itself.
    let folder = tempfile::tempdir_in(program.parent().context("the program is in no folder")?)?;
    let copy = folder.path().join("ip-address-controller");
    fs::copy(&program, &copy)?;
    let cold = match forget_files(&copy) {
        Ok(()) => Some(until_ready(ground, &copy).await?),
        Err(_) => None,
    };
    let mut warm = Vec::new();
    for _ in 0..TIMES {
        warm.push(until_ready(ground, &program).await?);
    }
    warm.sort();
    let median = warm.get(TIMES / 2).context("nothing was measured")?;
    let cold =
        cold.map_or_else(|| "not measured: that takes root".to_owned(), |took| format!("{} ms", took.as_millis()));
    figures.tell(
        ground.size,
        "exec to ready",
        format!("cold {cold}; warm {} ms, median of {TIMES}", median.as_millis()),
    );
    Ok(())
}

/// What is not on the disk yet stays.
fn forget_files(written: &Path) -> std::io::Result<()> {
    fs::File::open(written)?.sync_all()?;
    fs::write("/proc/sys/vm/drop_caches", "1")
}

/// Starts one more replica, which stands by, and ends it when it is ready.
async fn until_ready(ground: &Ground, program: &Path) -> Result<Duration> {
    let stage = &ground.stage;
    let [health, metrics] = free_ports()?;
    let mut child = Command::new(program)
        .env_clear()
        .envs(stage.venue.environment(&stage.simulator))
        .env("KUBECONFIG", stage.cluster.kubeconfig())
        .env("POD_NAMESPACE", NAMESPACE)
        .env("BIND_ADDRESS", "127.0.0.1")
        .env("HEALTH_PORT", health.to_string())
        .env("METRICS_PORT", metrics.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let began = Instant::now();
    // Whoever was first has installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build()?;
    loop {
        let answer = client.get(format!("http://127.0.0.1:{health}/readyz")).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            break;
        }
        ensure!(began.elapsed() < PATIENCE, "the program is not ready after {PATIENCE:?}");
        if let Some(status) = child.try_wait()? {
            anyhow::bail!("the program has ended: {status}");
        }
        tokio::time::sleep(LOOK).await;
    }
    let took = began.elapsed();
    child.kill().await?;
    Ok(took)
}

fn free_ports() -> Result<[u16; 2]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let [health, metrics] = &listeners;
    Ok([health.local_addr()?.port(), metrics.local_addr()?.port()])
}
