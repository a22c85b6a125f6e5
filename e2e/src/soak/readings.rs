//! What the leader's process holds, read now and then: under way, and at rest, when all readings are taken under the same
//! conditions and can be compared.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context, Result};
use e2e::{
    cluster::{Seen, wait_for},
    cost::{Cost, cost},
    figures::Figures,
    stage::{NAMESPACE, PATIENCE, Stage},
};

use crate::{
    ground::Ground,
    series::{self, Size},
};

/// What the memory of a process may have grown by: the allocator's own ways, not what is kept of each move.
const MEMORY: u64 = 8 * MIB;
/// Sockets come and go with their keep-alive, threads with what blocks them.
const FILES: usize = 8;
const THREADS: usize = 4;
/// A connection of a client is one, too.
const TASKS: usize = 8;
/// Watches of other programs are broken and begun again, too.
const WATCHES: usize = 4;
const MIB: u64 = 1024 * 1024;

/// One of them.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Per cent of the time.
    pub share: u32,
    pub at_rest: bool,
    pub moves: u32,
    pub transitions: usize,
    /// Of the leader.
    pub pid: u32,
    pub cost: Cost,
    pub series: BTreeMap<String, usize>,
    /// Effects under way.
    pub effects: f64,
    /// Of the leader's runtime.
    pub tasks: usize,
    /// Of everybody, as the API server counts them.
    pub watches: f64,
}

impl Reading {
    /// # Errors
    /// When nobody leads, or does not answer.
    pub async fn take(ground: &Ground, share: u32, at_rest: bool) -> Result<Self> {
        let stage = &ground.stage;
        let (pid, cost, text) = wait_for("the leader answers", PATIENCE, || async {
            let leader = stage.leader().await?.context("nobody leads")?;
            let text = stage.metrics(&leader).await?;
            let pid = stage.agent.pid(NAMESPACE, &leader)?;
            Ok(Seen::Yes((pid, cost(pid)?, text)))
        })
        .await?;
        let watches = watches(stage).await?;
        let reading = Self {
            share,
            at_rest,
            moves: ground.moves(),
            transitions: ground.witness.heard().transitions,
            pid,
            cost,
            series: series::count(&text),
            // A cloud at which nothing is under way is not told of.
            effects: series::value(&text, "netipallocation_effects_in_flight").unwrap_or(0.0),
            tasks: series::value(&text, "netipallocation_controller_tasks").context("no count of tasks")? as usize,
            watches,
        };
        println!("  {reading}");
        Ok(reading)
    }

    fn all_series(&self) -> usize {
        self.series.values().sum()
    }

    fn mib(&self) -> f64 {
        self.cost.resident as f64 / MIB as f64
    }
}

impl std::fmt::Display for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { share, at_rest, moves, transitions, pid, cost, watches, effects, tasks, .. } = self;
        let when = if *at_rest { "at rest" } else { "under way" };
        write!(
            f,
            "{share} %, {when}: {moves} moves, {transitions} transitions; process {pid}: {:.1} MiB, {} threads, {tasks} tasks, {} open files, \
             {} series, {effects} effects in flight; {watches} watches",
            self.mib(),
            cost.threads,
            cost.files,
            self.all_series()
        )
    }
}

/// Watches that the API server serves now.
async fn watches(stage: &Stage) -> Result<f64> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let text = stage.client()?.request_text(request).await?;
    let is_watch = |line: &&str| line.starts_with("apiserver_longrunning_requests{") && line.contains("verb=\"WATCH\"");
    let counts = text.lines().filter(is_watch).filter_map(|line| line.rsplit_once(' '));
    let counts = counts.map(|(_, count)| count.parse::<f64>()).collect::<Result<Vec<_>, _>>()?;
    Ok(counts.into_iter().sum())
}

/// As a table of Markdown.
pub fn table(readings: &[Reading]) -> String {
    let mut text = "| at | moves | transitions | process | memory | threads | tasks | open files | series | effects in flight | watches |\n\
                    | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for reading in readings {
        let Reading { share, at_rest, moves, transitions, pid, cost, effects, tasks, watches, .. } = reading;
        let when = if *at_rest { ", at rest" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {share} %{when} | {moves} | {transitions} | {pid} | {:.1} MiB | {} | {tasks} | {} | {} | {effects} | {watches} |",
            reading.mib(),
            cost.threads,
            cost.files,
            reading.all_series()
        );
    }
    text
}

/// Holds the last reading at rest against the one after the storm, since when one process leads.
///
/// # Errors
/// When there are no two such readings, or a label of a metric has no bound.
pub fn judge(readings: &[Reading], after: u32, size: Size, figures: &mut Figures) -> Result<()> {
    let at_rest = || readings.iter().filter(|reading| reading.at_rest);
    let early = at_rest().find(|reading| reading.share == after).context("no reading after the storm")?;
    let late = at_rest().next_back().context("no reading at the end")?;
    let moves = late.moves - early.moves;
    // A process that has just begun has not had the time to grow.
    let same = early.pid == late.pid;
    figures.add(
        size.addresses,
        "one process has led since the storm",
        format!("{}, then {}", early.pid, late.pid),
        "the same one".to_owned(),
        same,
    );
    let grown = late.mib() - early.mib();
    figures.add(
        size.addresses,
        "memory of the leader at rest, against that after the storm",
        format!("{:.1} MiB, {grown:+.1} MiB in {moves} moves", late.mib()),
        format!("{:.1} MiB, and {} MiB more", early.mib(), MEMORY / MIB),
        late.cost.resident <= early.cost.resident + MEMORY,
    );
    let mut no_more = |what, early: usize, late: usize, slack: usize| {
        let reached = late <= early + slack;
        figures.add(size.addresses, what, late.to_string(), format!("{early}, and {slack} more"), reached);
    };
    no_more("threads of the leader at rest", early.cost.threads, late.cost.threads, THREADS);
    no_more("tasks of the leader at rest", early.tasks, late.tasks, TASKS);
    no_more("open files of the leader at rest", early.cost.files, late.cost.files, FILES);
    no_more("watches at rest, of everybody", early.watches as usize, late.watches as usize, WATCHES);
    let effects = at_rest().map(|reading| reading.effects).fold(0.0, f64::max);
    figures.add(
        size.addresses,
        "effects in flight at rest, at most",
        effects.to_string(),
        "0".to_owned(),
        effects == 0.0,
    );
    let (most, bound) = (at_rest().map(Reading::all_series).max().unwrap_or_default(), series::bound(size)?);
    let mut excess = Vec::new();
    for reading in at_rest() {
        excess.extend(series::excess(&reading.series, size)?);
    }
    figures.add(
        size.addresses,
        "series of the leader's metrics at rest, at most",
        format!("{most} {}", excess.first().cloned().unwrap_or_default()),
        format!("{bound}, and each metric its own share, by allocations, addresses, nodes and closed lists"),
        most <= bound && excess.is_empty(),
    );
    Ok(())
}
