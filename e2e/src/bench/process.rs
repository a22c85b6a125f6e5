//! What a process has cost so far, as the kernel counts it (proc(5)).

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// Of one process, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// User and system time since it was started.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub resident: u64,
}

/// `USER_HZ`: what /proc/PID/stat counts in on Linux, on every architecture that this runs on.
const TICKS_PER_SECOND: u64 = 100;

/// Of that process, now.
///
/// # Errors
/// When there is no such process.
pub fn cost(pid: u32) -> Result<Cost> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may have spaces; utime and stime are the 12th and 13th word after it.
    let after = stat.rsplit_once(')').context("no name in /proc/PID/stat")?.1;
    let ticks = after.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = resident.trim().trim_end_matches("kB").trim().parse()?;
    Ok(Cost { cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND), resident: kib * 1024 })
}
