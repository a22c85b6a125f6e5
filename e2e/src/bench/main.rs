//! `make bench`: what the operator costs and how that grows, each figure beside its limit, on a real control plane and a
//! simulated cloud with latency and quotas. Writes `docs/performance.md`.

mod ground;
mod history;
mod micro;
mod plays;
mod start;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context, Result};
use clap::Parser;
use e2e::{cost, figures::Figures, stage::Venue};
use ip_address_controller::cloud::Provider;

use self::ground::Ground;

/// Measures the release beside this program.
#[derive(Parser, Debug)]
struct Arguments {
    /// Addresses, on as many nodes and an eighth more; one after another.
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000")]
    sizes: Vec<usize>,
    /// Pods on other nodes, at the largest size.
    #[arg(long, default_value_t = 30_000)]
    pods: usize,
    /// gcp, aws or azure.
    #[arg(long, default_value = "gcp")]
    cloud: String,
    /// Where criterion has left what the small benchmarks took.
    #[arg(long)]
    criterion: Option<PathBuf>,
    /// The commit that is measured, for the report.
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// Where to write the report.
    #[arg(long)]
    report: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the benchmark FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every figure reached what it must.
async fn run(arguments: Arguments) -> Result<bool> {
    let provider = Provider::parse(&arguments.cloud).context("--cloud: expected gcp, aws or azure")?;
    let began = Instant::now();
    let mut figures = Figures::default();
    let largest = arguments.sizes.iter().copied().max().unwrap_or_default();
    for size in &arguments.sizes {
        let pods = if *size == largest { arguments.pods } else { 0 };
        println!("{size} addresses");
        let ground = Ground::make(Venue::of(provider), *size, pods).await?;
        if *size == largest {
            start::start(&ground, &mut figures).await?;
        }
        plays::cold_start(&ground, &mut figures).await?;
        plays::steady(&ground, &mut figures).await?;
        plays::rolling_drain(&ground, &mut figures).await?;
        plays::drains_at_once(&ground, &mut figures).await?;
        plays::node_lost(&ground, &mut figures).await?;
        plays::hand_over(&ground, &mut figures).await?;
        ground.stage.cluster.stop().await;
    }
    println!("\n{}", figures.table());
    println!("{} s in all", began.elapsed().as_secs());
    if let Some(report) = &arguments.report {
        let micro = arguments.criterion.as_deref().map(micro::table).transpose()?;
        std::fs::write(report, text(&arguments, &figures, micro.as_deref())?)?;
        println!("wrote {}", report.display());
    }
    Ok(figures.missed().is_empty())
}

fn text(arguments: &Arguments, figures: &Figures, micro: Option<&str>) -> Result<String> {
    let Arguments { pods, cloud, commit, .. } = arguments;
    let machine = cost::machine()?;
    let mut text = format!(
        "# Performance\n\nWritten by `make bench` at commit {commit}, on {machine}, which also ran the control \
         plane, the nodes and the cloud.\nCloud: {cloud}, simulated: an answer takes 50 ms, an operation 2 to 10 s, and its published quotas \
         hold. Pace: `controller.cloudApi.qps={}`, `burst={}`.\nAt the largest size {pods} pods run on other nodes.\n\n{}",
        ground::QPS,
        ground::BURST,
        figures.table()
    );
    if let Some(micro) = micro {
        text += "\n## The parts of a pass\n\nEvery address in one object, on as many nodes and a tenth more; mean times.\n\n";
        text += micro;
    }
    Ok(text)
}
