//! `make bench`: what the operator costs and how that grows, each figure beside its limit, on a real control plane and a
//! simulated cloud with latency and quotas. Writes its part of `docs/performance.md`.

mod ground;
mod history;
mod micro;
mod plays;
mod start;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Parser;
use e2e::{cost, figures::Figures, page, stage::Venue};
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
    /// The page whose part it writes anew.
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
    let micro = arguments.criterion.as_deref().map(micro::table).transpose()?;
    let began = Instant::now();
    let mut figures = Figures::default();
    let largest = arguments.sizes.iter().copied().max().unwrap_or_default();
    for size in &arguments.sizes {
        let pods = if *size == largest { arguments.pods } else { 0 };
        println!("{size} addresses");
        let ground = Ground::make(Venue::of(provider), *size, pods).await?;
        plays::cold_start(&ground, &mut figures).await?;
        if *size == largest {
            start::start(&ground, &mut figures).await?;
        }
        plays::steady(&ground, &mut figures).await?;
        // What a move waited for is told by the names in the cloud's calls, and those are the machine's at Google Cloud alone.
        if provider == Provider::Gcp {
            plays::rolling_drain(&ground, &mut figures).await?;
            plays::drains_at_once(&ground, &mut figures).await?;
            plays::node_lost(&ground, &mut figures).await?;
        }
        plays::hand_over(&ground, &mut figures).await?;
        ground.stage.cluster.stop().await;
    }
    let text = text(&arguments, began.elapsed(), &figures, micro.as_deref())?;
    println!("\n{text}");
    if let Some(report) = &arguments.report {
        page::tell(report, "make bench", &text)?;
        println!("wrote {}", report.display());
    }
    Ok(figures.missed().is_empty())
}

fn text(arguments: &Arguments, took: Duration, figures: &Figures, micro: Option<&str>) -> Result<String> {
    let Arguments { sizes, pods, cloud, commit, .. } = arguments;
    let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
    let mut text = format!(
        "`CLOUD={cloud} SIZES={} PODS={pods} make bench` at commit {commit}, {} minutes on {}, which also ran the control plane, the nodes \
         and the cloud.\nThe cloud is simulated: an answer takes 50 ms, an operation 2 to 10 s, and its published quotas hold. Pace: \
         `controller.cloudApi.qps={}`, `burst={}`.\nThe pods run on other nodes, at the largest size.\n\n{}",
        sizes.join(","),
        took.as_secs().div_ceil(60),
        cost::machine()?,
        ground::QPS,
        ground::BURST,
        figures.table()
    );
    if let Some(micro) = micro {
        text += "\nThe parts of a pass, by criterion. Every address in one object but where it says so, on as many nodes and a tenth \
                 more; mean times.\n\n";
        text += micro;
    }
    Ok(text)
}
