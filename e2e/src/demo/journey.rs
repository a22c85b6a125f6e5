//! The journey of an address, step by step, from what the operator's replicas wrote to their logs.

use std::fmt;

use anyhow::{Context, Result, ensure};
use e2e::stage::Stage;
use jiff::Timestamp;
use serde_json::Value;

/// One state on the way, and how it was entered.
#[derive(Clone, Debug)]
pub struct Step {
    pub at: Timestamp,
    pub state: String,
    pub reason: String,
    pub node: String,
    /// The replica that wrote it down.
    pub pod: String,
}

/// All steps of a trace, in order.
///
/// # Errors
/// When the logs do not tell of it.
pub fn steps(stage: &Stage, pods: &[String], trace: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for pod in pods {
        let log = stage.agent.log(e2e::stage::NAMESPACE, pod)?;
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ours = lines.filter(|line| text(line, "trace_id") == trace && text(line, "msg") == "address moved on");
        for line in ours {
            steps.push(Step {
                at: text(&line, "ts").parse().with_context(|| format!("a line without time: {line}"))?,
                state: text(&line, "to").to_owned(),
                reason: text(&line, "reason").to_owned(),
                node: text(&line, "node").to_owned(),
                pod: pod.clone(),
            });
        }
    }
    ensure!(!steps.is_empty(), "no log line tells of trace {trace}");
    steps.sort_by_key(|step| step.at);
    Ok(steps)
}

/// A table: when each state was entered, how long it lasted, where, why, and who wrote it down.
pub struct Table<'a>(pub &'a [Step]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.0.first() else { return Ok(()) };
        writeln!(f, "{:<9}{:<12}{:<9}{:<9}{:<20}TOLD BY", "AT", "STATE", "LASTED", "NODE", "REASON")?;
        let ends = self.0.iter().skip(1).map(|next| Some(next.at)).chain([None]);
        for (step, end) in self.0.iter().zip(ends) {
            let at = format!("+{:.1} s", seconds(first.at, step.at));
            let lasted = end.map_or_else(|| "-".to_owned(), |end| format!("{:.1} s", seconds(step.at, end)));
            let Step { state, node, reason, pod, .. } = step;
            writeln!(f, "{at:<9}{state:<12}{lasted:<9}{node:<9}{reason:<20}{pod}")?;
        }
        Ok(())
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

fn text<'a>(line: &'a Value, field: &str) -> &'a str {
    line.get(field).and_then(Value::as_str).unwrap_or_default()
}
