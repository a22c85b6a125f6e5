//! What a process has cost so far and what it holds, as the kernel counts it (proc(5)), and what machine it runs on.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result};

/// Of one process, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// User and system time since it was started.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub resident: u64,
    pub threads: usize,
    /// Open files, sockets among them.
    pub files: usize,
}

/// `USER_HZ`: what /proc/PID/stat counts in on Linux, on every architecture that this runs on.
const TICKS_PER_SECOND: u64 = 100;

/// Of that process, now.
///
/// # Errors
/// When there is no such process.
pub fn cost(pid: u32) -> Result<Cost> {
    let (_, cpu) = name_and_cpu(&fs::read_to_string(format!("/proc/{pid}/stat"))?)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"));
    let kib: u64 = of("VmRSS:")?.trim().trim_end_matches("kB").trim().parse()?;
    Ok(Cost {
        cpu,
        resident: kib * 1024,
        threads: of("Threads:")?.trim().parse()?,
        files: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
    })
}

/// User and system time since they were started, of all processes that there are, by the name of the program (15 characters).
///
/// # Errors
/// When the kernel does not say.
pub fn cpu_by_program() -> Result<BTreeMap<String, Duration>> {
    let mut all: BTreeMap<String, Duration> = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        // `self` is one of the others.
        if entry.file_name().to_string_lossy().parse::<u32>().is_err() {
            continue;
        }
        // One that has ended meanwhile is missed.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Ok((name, cpu)) = name_and_cpu(&stat) {
            *all.entry(name).or_default() += cpu;
        }
    }
    Ok(all)
}

/// From the text of /proc/PID/stat.
fn name_and_cpu(stat: &str) -> Result<(String, Duration)> {
    // The name, in brackets, may have spaces; utime and stime are the 12th and 13th word after it.
    let (before, after) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let name = before.split_once('(').context("no name in /proc/PID/stat")?.1;
    let ticks = after.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok((name.to_owned(), Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)))
}

/// For a report: `2 cores with 8 GiB of memory`.
///
/// # Errors
/// When the kernel does not say.
pub fn machine() -> Result<String> {
    let cpus = std::thread::available_parallelism()?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("no MemTotal")?;
    let kib: u64 = memory.trim().trim_end_matches("kB").trim().parse()?;
    Ok(format!("{cpus} cores with {} GiB of memory", kib / 1024 / 1024))
}
