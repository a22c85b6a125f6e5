//! Prints the chart's README with the table of its values as values.yaml tells them. `make generate` writes it, `make check`
//! compares it.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result};
use e2e::{chart, stage};

fn main() -> ExitCode {
    match made(&stage::chart()) {
        Ok(readme) => {
            print!("{readme}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn made(chart: &Path) -> Result<String> {
    let read = |name: &str| {
        let path = chart.join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    chart::readme(&read("README.md")?, &read("values.yaml")?)
}
