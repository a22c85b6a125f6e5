//! One event as one line: JSON, or version 1's logfmt, with the same keys in the same order.
//!
//! Knows no writer and no clock.

use std::fmt::{Debug, Write};

use jiff::Timestamp;
use serde_json::Value;
use tracing::{
    Metadata,
    field::{Field, Visit},
};

use crate::settings::LogFormat;

/// Fields that come first, in this order; others follow in the order they were said.
const FIRST: [&str; 7] = ["crd", "node", "ip", "zone", "provider", "leader", "error"];

/// In logfmt, where version 1's readers match on the order: it had a trace of the stack where the error is now, and no
/// provider.
const FIRST_IN_LOGFMT: [&str; 7] = ["crd", "node", "ip", "zone", "error", "leader", "provider"];

/// The trace that it happened in, where it happened in one: at the top level, where Loki and Tempo look for it.
const TRACE: [&str; 2] = ["trace_id", "span_id"];

/// What spans call otherwise, because traces have names of their own for it.
const ALIASES: [(&str, &str); 5] = [
    ("netipallocation.name", "crd"),
    ("netipallocation.ip", "ip"),
    ("k8s.node.name", "node"),
    ("cloud.provider", "provider"),
    ("cloud.availability_zone", "zone"),
];

/// Keys of ours that a field may not take; such a field gets an underscore.
const OURS: [&str; 5] = ["ts", "level", "msg", "target", "leader"];

/// What an event or a span says, by name; said again, the later word counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Vec<(String, Value)>);

impl Fields {
    pub(super) fn extend(&mut self, other: &Fields) {
        for (key, value) in &other.0 {
            self.set(key, value.clone());
        }
    }

    pub(super) fn says(&mut self, key: &str, value: &str) {
        self.set(key, value.into());
    }

    fn set(&mut self, key: &str, value: Value) {
        let key = ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key, |(_, key)| *key);
        // Instructions for who draws the span.
        if key.starts_with("otel.") {
            return;
        }
        match self.0.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        let at = self.0.iter().position(|(known, _)| known == key)?;
        Some(self.0.remove(at).1)
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.set(field.name(), Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field.name(), value.into());
    }

    fn record_error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        let causes = std::iter::successors(error.source(), |error| error.source());
        let mut text = error.to_string();
        for cause in causes.map(ToString::to_string) {
            // Many errors repeat their source in their own words.
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        self.set(field.name(), text.into());
    }
}

/// The line, its end included.
pub(super) fn write(
    format: LogFormat,
    at: Timestamp,
    metadata: &Metadata<'_>,
    mut fields: Fields,
    leader: bool,
) -> String {
    let message = fields.take("message").unwrap_or_else(|| "".into());
    // Records of the `log` crate come with their origin as fields.
    let target = fields.take("log.target").unwrap_or_else(|| metadata.target().into());
    fields.0.retain(|(key, _)| !key.starts_with("log."));
    for (key, _) in &mut fields.0 {
        if OURS.contains(&key.as_str()) {
            key.push('_');
        }
    }
    fields.set("leader", leader.into());

    let mut all = vec![
        ("ts".to_owned(), Value::String(format!("{at:.3}"))),
        ("level".to_owned(), metadata.level().as_str().to_lowercase().into()),
        ("msg".to_owned(), message),
    ];
    let first = match format {
        LogFormat::Json => {
            all.push(("target".to_owned(), target));
            all.extend(TRACE.into_iter().filter_map(|key| Some((key.to_owned(), fields.take(key)?))));
            FIRST
        }
        // Version 1 had no target.
        LogFormat::Logfmt => {
            fields.0.push(("target".to_owned(), target));
            FIRST_IN_LOGFMT
        }
    };
    all.extend(first.into_iter().filter_map(|key| Some((key.to_owned(), fields.take(key)?))));
    all.append(&mut fields.0);
    match format {
        LogFormat::Json => json(&all),
        LogFormat::Logfmt => logfmt(&all),
    }
}

fn json(fields: &[(String, Value)]) -> String {
    let pairs = fields.iter().map(|(key, value)| format!("{}:{value}", Value::from(key.as_str())));
    format!("{{{}}}\n", pairs.collect::<Vec<_>>().join(","))
}

fn logfmt(fields: &[(String, Value)]) -> String {
    let mut line = String::new();
    for (key, value) in fields {
        let separator = if line.is_empty() { "" } else { " " };
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let bare = key != "msg" && !text.is_empty() && !text.contains(needs_quotes);
        // Writing to a String cannot fail.
        let _ = match bare {
            true => write!(line, "{separator}{key}={text}"),
            // JSON's quotes are logfmt's: no line break survives them.
            false => write!(line, "{separator}{key}={}", Value::from(text)),
        };
    }
    line.push('\n');
    line
}

fn needs_quotes(c: char) -> bool {
    c.is_whitespace() || c.is_control() || c == '"' || c == '=' || c == '\\'
}
