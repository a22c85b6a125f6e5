//! What `e2e/benches/micro.rs` has measured, as criterion left it.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

/// What was timed, in words, and whether it is of all addresses.
const PARTS: [(&str, &str, bool); 8] = [
    ("copied", "the facts of every address copied: linear by construction", true),
    ("decide", "decide, every address", true),
    ("placement", "placement, every address new", true),
    ("pass", "one full pass at rest", true),
    ("pass of 100", "one full pass at rest, over the 100 of one object", false),
    ("status diff", "status diff", true),
    ("survey/read", "survey, read and parsed", true),
    ("survey/bytes alone", "the same bytes, fetched and not looked at", true),
];
const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];

/// The table, and how each part grows from 1,000 to 10,000 beside n log n.
///
/// # Errors
/// When the benchmark has not been run.
pub fn table(folder: &Path) -> Result<String> {
    let mut text = "| part | 10 | 100 | 1,000 | 10,000 | growth, last step | n log n would be |\n\
                    | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for (id, name, all) in PARTS {
        let times = SIZES.iter().map(|size| mean(folder, id, *size)).collect::<Result<Vec<f64>>>()?;
        let shown: Vec<String> = times.iter().map(|nanos| shown(*nanos)).collect();
        let growth = match times.as_slice() {
            [.., before, last] => last / before,
            _ => f64::NAN,
        };
        let bound = if all { "13.3" } else { "" };
        text += &format!("| {name} | {} | {growth:.1} | {bound} |\n", shown.join(" | "));
    }
    Ok(text)
}

/// In nanoseconds.
fn mean(folder: &Path, id: &str, size: usize) -> Result<f64> {
    let file = folder.join(id).join(size.to_string()).join("new/estimates.json");
    let text = fs::read_to_string(&file)
        .with_context(|| format!("{}: run `cargo bench --workspace --bench micro` first", file.display()))?;
    let estimates: Value = serde_json::from_str(&text)?;
    estimates.pointer("/mean/point_estimate").and_then(Value::as_f64).context("no mean in what criterion wrote")
}

fn shown(nanos: f64) -> String {
    match nanos {
        _ if nanos < 1e3 => format!("{nanos:.0} ns"),
        _ if nanos < 1e6 => format!("{:.1} µs", nanos / 1e3),
        _ if nanos < 1e9 => format!("{:.2} ms", nanos / 1e6),
        _ => format!("{:.2} s", nanos / 1e9),
    }
}
