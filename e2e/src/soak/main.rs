//! `make soak`: random drains, lost and replaced nodes, edits and faults on a real control plane, for as long as is wanted. No
//! promise may be broken, everything must come to rest, and what the leader holds must not grow with what it has seen. Writes
//! `docs/soak.md`.
//!
//! The first fifth is a storm: leaders are killed and the API server goes away. From then on one process leads, so that its
//! memory can be compared. It comes to rest, and is read, before the first act and after 20, 50 and 100 % of the time.
//!
//! | file | what it is |
//! |---|---|
//! | `ground` | the cluster, the cloud, the allocations and their users; what is rest |
//! | `acts`, `chance` | what befalls them, from a seed |
//! | `witness` | who looks on |
//! | `promises` | what must never be otherwise |
//! | `readings`, `series` | what the leader holds |

mod acts;
mod chance;
mod ground;
mod promises;
mod readings;
mod series;
mod witness;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use clap::Parser;
use e2e::{cost, figures::Figures, world::Outcome};

use self::{
    acts::{Acts, Tally},
    ground::Ground,
    readings::Reading,
    series::Size,
    witness::LABEL_BOUND,
};

/// Plays random acts against the operator beside this program.
#[derive(Parser, Debug)]
struct Arguments {
    /// Seconds of acts, up to an hour; coming to rest four times takes some minutes more.
    // The API server's account of who asked what begins anew after 100 MB, and is read after each part.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(60..=3600))]
    seconds: u64,
    /// What the acts are drawn from. One is made up where none is given.
    #[arg(long)]
    seed: Option<u64>,
    /// The commit that is soaked, for the report.
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// Where to write the report.
    #[arg(long)]
    report: Option<PathBuf>,
}

/// Per cent of the time until which it is played, whether in a storm, and whether it comes to rest then.
const PARTS: [(u32, bool, bool); 4] = [(10, true, false), (STORM, true, true), (50, false, true), (100, false, true)];
/// The storm's end.
const STORM: u32 = 20;
/// So many lines of the diary are shown when something went wrong.
const LINES: usize = 60;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the soak FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every figure reached what it must.
async fn run(arguments: &Arguments) -> Result<bool> {
    let began = Instant::now();
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() % 1_000_000,
    };
    println!("SEED={seed} SOAK_SECONDS={}", arguments.seconds);
    let ground = Ground::make().await?;
    let mut acts = Acts::new(&ground, seed)?;
    let mut soak = Soak::default();
    let played = soak.play(&ground, &mut acts, Duration::from_secs(arguments.seconds)).await;
    if played.is_err() || !soak.broken.is_empty() {
        let first = acts.diary.len().saturating_sub(LINES);
        acts.diary.iter().skip(first).for_each(|line| eprintln!("  {line}"));
        soak.broken.iter().for_each(|broken| eprintln!("BROKEN  {broken}"));
        eprintln!("{}", ground.evidence().await);
    }
    played.with_context(|| format!("SEED={seed} SOAK_SECONDS={}", arguments.seconds))?;
    let figures = soak.figures(&ground, &acts)?;
    println!("\n{}\n{}\n{}", readings::table(&soak.readings), figures.table(), tallies(&acts));
    println!("SEED={seed}; {} s in all", began.elapsed().as_secs());
    if let Some(report) = &arguments.report {
        std::fs::write(report, text(arguments, seed, &soak.readings, &figures, &acts)?)?;
        println!("wrote {}", report.display());
    }
    let reached = figures.missed().is_empty();
    drop(acts);
    ground.stage.cluster.stop().await;
    Ok(reached)
}

/// What comes out of it.
#[derive(Debug, Default)]
struct Soak {
    readings: Vec<Reading>,
    /// Broken promises, in sentences.
    broken: Vec<String>,
}

impl Soak {
    /// Ends early with the first broken promise.
    async fn play(&mut self, ground: &Ground, acts: &mut Acts<'_>, time: Duration) -> Result<()> {
        ground.rest(&acts.touched).await?;
        self.readings.push(Reading::take(ground, 0, true).await?);
        let mut judged = 0;
        for (share, storm, rests) in PARTS {
            acts.play(time * share / 100, storm).await;
            self.readings.push(Reading::take(ground, share, false).await?);
            if !rests {
                continue;
            }
            println!("  {share} %: everything is healed, and comes to rest");
            acts.heal().await?;
            let rested = ground.rest(&acts.touched).await;
            // Who does not come to rest may have broken a promise: that says more.
            let removals = ground.stage.world.removals().len();
            self.broken = promises::judge(&ground.stage, &ground.witness, judged)?;
            judged = removals;
            rested?;
            self.readings.push(Reading::take(ground, share, true).await?);
            if !self.broken.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn figures(&self, ground: &Ground, acts: &Acts<'_>) -> Result<Figures> {
        let mut figures = Figures::default();
        let addresses = ground.ips().count();
        let size = Size { allocations: ground.pools.len(), addresses, nodes: acts.nodes() };
        let broken = self.broken.first().map(|why| format!(": {why}")).unwrap_or_default();
        figures.add(
            addresses,
            "promises seen broken",
            format!("{}{broken}", self.broken.len()),
            "0".to_owned(),
            self.broken.is_empty(),
        );
        let moves = self.readings.last().map_or(0, |reading| reading.moves)
            - self.readings.first().map_or(0, |reading| reading.moves);
        figures.add(addresses, "moves", moves.to_string(), "more than none".to_owned(), moves > 0);
        let (played, refused) = acts
            .tallies
            .values()
            .fold((0, 0), |(played, refused), tally| (played + tally.played, refused + tally.refused));
        figures.add(
            addresses,
            "acts played, and refused by what was there",
            format!("{played}, {refused}"),
            "a fifth refused".to_owned(),
            refused * 5 <= played + refused,
        );
        let longest = ground.witness.heard().longest;
        figures.add(
            addresses,
            "longest time that a node said it had an address that was elsewhere",
            format!("{:.1} s", longest.as_secs_f64()),
            format!("{} s, behind outsiders, dead leaders and silent clouds", LABEL_BOUND.as_secs()),
            longest <= LABEL_BOUND,
        );
        let throttled = Outcome::Refused("Throttled".to_owned());
        let throttled = ground.stage.world.calls().into_iter().filter(|call| call.outcome == throttled).count();
        figures.add(
            addresses,
            "calls that the cloud's quotas refused",
            throttled.to_string(),
            "0".to_owned(),
            throttled == 0,
        );
        if self.broken.is_empty() {
            readings::judge(&self.readings, STORM, size, &mut figures)?;
        }
        Ok(figures)
    }
}

/// As a table of Markdown.
fn tallies(acts: &Acts<'_>) -> String {
    let line = |(act, tally): (&&str, &Tally)| format!("| {act} | {} | {} |\n", tally.played, tally.refused);
    format!("| act | played | refused |\n| --- | --- | --- |\n{}", acts.tallies.iter().map(line).collect::<String>())
}

fn text(arguments: &Arguments, seed: u64, readings: &[Reading], figures: &Figures, acts: &Acts<'_>) -> Result<String> {
    let Arguments { seconds, commit, .. } = arguments;
    Ok(format!(
        "# Soak\n\nWritten by `make soak SOAK_SECONDS={seconds} SEED={seed}` at commit {commit}, on {}, which also ran the control \
         plane, the nodes and the cloud.\nCloud: Google Cloud, simulated: an answer takes 50 ms, an operation 1 to 3 s, and its \
         published quotas hold. Four allocations of 25 addresses, each on 30 nodes, three of them with users; two replicas, a debug \
         build.\nIn the first {STORM} % leaders are killed and the API server goes away; from then on one process leads.\n\n\
         ## What was held against what\n\n{}\n## What the leader held\n\nAt rest all is read under the same conditions.\n\n{}\n\
         ## What befell it\n\nAn act is refused when what it is about has just gone, or the API server is away.\n\n{}",
        cost::machine()?,
        figures.table(),
        readings::table(readings),
        tallies(acts)
    ))
}
