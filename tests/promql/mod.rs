//! As much of PromQL as holds an expression against the catalogue: its series, matchers, groupings and rates.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeSet;

use ip_address_controller::metrics::names::{CATALOGUE, Kind, Metric};

/// What a scrape adds to every series; `le` is a histogram's own.
const SCRAPE: [&str; 6] = ["cluster", "namespace", "job", "pod", "instance", "le"];

/// Every word of a text that is the name of a series of ours, or ought to be.
pub fn used(text: &str) -> BTreeSet<String> {
    words(text).filter(|word| word.starts_with("netipallocation_")).map(str::to_owned).collect()
}

/// The metric that a series belongs to.
pub fn metric(series: &str) -> Option<&'static Metric> {
    CATALOGUE.iter().find(|known| match known.kind {
        Kind::Histogram(_) => ["_bucket", "_sum", "_count"].iter().any(|end| series == format!("{}{end}", known.name)),
        Kind::Counter | Kind::Gauge => series == known.name,
    })
}

/// The labels of a series: those of the catalogue, and those that a scrape adds. `None` if it is not ours.
pub fn labels(series: &str) -> Option<Vec<&'static str>> {
    metric(series).map(|metric| [metric.labels, &SCRAPE].concat())
}

/// What is wrong with an expression and with the labels that are shown beside its result.
pub fn faults(expression: &str, shown: &BTreeSet<String>) -> Vec<String> {
    let used = used(expression);
    let mut faults: Vec<String> =
        used.iter().filter(|series| metric(series).is_none()).map(|series| format!("there is no {series}")).collect();
    for (series, label, _) in selectors(expression) {
        if labels(&series).is_some_and(|labels| !labels.contains(&&*label)) {
            faults.push(format!("{series} has no label {label}"));
        }
    }
    for series in rated(expression) {
        if metric(&series).is_some_and(|metric| metric.kind == Kind::Gauge) {
            faults.push(format!("{series} is a gauge and has no rate"));
        }
    }
    // Of somebody else's series we know no labels.
    if words(expression).any(|word| ["up", "process_start_time_seconds"].contains(&word)) {
        return faults;
    }
    let mut known: BTreeSet<&str> = used.iter().filter_map(|series| labels(series)).flatten().collect();
    if !known.is_empty() {
        if expression.contains("label_replace(") {
            known.extend(expression.split('"').skip(1).step_by(2));
        }
        let asked = grouped(expression);
        let unknown = asked.union(shown).filter(|label| !known.contains(label.as_str()));
        faults.extend(unknown.map(|label| format!("no series in it has a label {label}")));
    }
    faults
}

/// Metric, label and words of every matcher `metric{label="word|word", …}` of a text.
pub fn selectors(text: &str) -> Vec<(String, String, Vec<String>)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices('{') {
        let metric: String = text[..at].chars().rev().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let metric: String = metric.chars().rev().collect();
        let Some((inside, _)) = text[at + 1..].split_once('}') else { continue };
        if metric.is_empty() {
            continue;
        }
        for matcher in inside.split(',').map(str::trim) {
            let Some((label, words)) = matcher.split_once('=') else { continue };
            let words = words.trim_matches(['~', '"', '\'']).split('|').map(str::to_owned).collect();
            found.push((metric.clone(), label.trim_end_matches('!').to_owned(), words));
        }
    }
    found
}

/// The labels that results are grouped or joined by.
fn grouped(text: &str) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    for word in ["by", "on", "ignoring", "without", "group_left", "group_right"] {
        for (at, _) in text.match_indices(word) {
            let begins = !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            let rest = text[at + word.len()..].trim_start();
            if let (true, Some(rest)) = (begins, rest.strip_prefix('(')) {
                labels.extend(words(rest.split(')').next().unwrap_or_default()).map(str::to_owned));
            }
        }
    }
    labels
}

/// The series of which a rate or an increase is asked.
fn rated(text: &str) -> Vec<String> {
    let mut series = Vec::new();
    for function in ["rate(", "irate(", "increase("] {
        for (at, _) in text.match_indices(function) {
            series.extend(words(&text[at + function.len()..]).next().map(str::to_owned));
        }
    }
    series
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}
