//! What this thread has cost so far, as the kernel counts it (proc(5)): for those who tell what a pass costs. Nothing in a
//! world depends on it.

use std::{fs, time::Duration};

/// Time on a core. It is counted from tick to tick, some milliseconds, so sums over many passes say more than one of them.
/// `None` where the kernel does not count.
pub fn so_far() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}
