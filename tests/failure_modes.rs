//! `docs/failure-modes.md` names what the code can say, no more and no less, and leads to runbooks that are there.

// clippy's leave for tests covers `#[test]` functions, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)]

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use ip_address_controller::{
    allocation::{
        decide::{placement::Verdict, state::Reason},
        record::{
            conditions,
            events::Event,
            reasons::{self, Ready},
        },
    },
    api,
    cloud::ErrorKind,
    metrics::{self, names::CATALOGUE},
    settings::Command,
};
use kube_runtime::events::EventType;

const PAGE: &str = "docs/failure-modes.md";
const SECTIONS: [&str; 8] = [
    "## Reasons of an address",
    "## Reasons of the conditions",
    "## What speaks against a node",
    "## What a cloud says",
    "## Events",
    "## Writes of status",
    "## Evictions",
    "## The operator itself",
];

#[test]
fn every_reason_of_an_address_has_a_line_and_every_line_a_reason() {
    same("## Reasons of an address", Reason::ALL.iter().map(|reason| reason.as_str().to_owned()));
}

#[test]
fn every_reason_of_a_condition_has_a_line_and_every_line_a_reason() {
    let told: Vec<(String, String)> =
        rows("## Reasons of the conditions").iter().map(|row| (word(&row[0]), word(&row[1]))).collect();
    let wanted: Vec<(String, String)> = reasons::CONDITIONS
        .iter()
        .flat_map(|condition| condition.reasons.iter().map(|reason| (condition.kind.to_owned(), (*reason).to_owned())))
        .collect();
    assert_eq!(told, wanted);
}

#[test]
fn every_verdict_on_a_node_has_a_line_with_its_words() {
    same("## What speaks against a node", Verdict::ALL.iter().map(|verdict| verdict.as_str().to_owned()));
    for (row, verdict) in rows("## What speaks against a node").iter().zip(Verdict::ALL) {
        assert_eq!(row[1], verdict.words(), "{verdict:?}");
    }
}

#[test]
fn every_kind_of_a_clouds_failure_has_a_line() {
    same("## What a cloud says", ErrorKind::ALL.iter().map(|kind| kind.label().to_owned()));
}

#[test]
fn every_event_has_a_line_that_says_its_type() {
    let told: BTreeMap<String, String> = rows("## Events").iter().map(|row| (word(&row[0]), row[1].clone())).collect();
    let wanted: BTreeMap<String, String> = Event::ALL
        .iter()
        .map(|event| {
            let kind = match event.kind() {
                EventType::Normal => "Normal",
                EventType::Warning => "Warning",
            };
            (event.as_str().to_owned(), kind.to_owned())
        })
        .collect();
    assert_eq!(told, wanted);
}

#[test]
fn every_event_is_told_somewhere() {
    let said: String = sources(&manifest("src/allocation")).into_iter().map(|(_, text)| text).collect();
    for event in Event::ALL {
        assert!(said.contains(&format!("Event::{}", event.as_str())), "{event:?} is never told");
    }
}

/// Nothing goes wrong without an event: the warning of the reason itself, or that of the attempt or the drain.
#[test]
fn every_reason_that_a_person_should_hear_of_has_an_event() {
    let well = [Reason::Pending, Reason::Held, Reason::Observing, Reason::Attaching];
    for (row, reason) in rows("## Reasons of an address").iter().zip(Reason::ALL) {
        let told: Vec<String> = [after(&row[1], "event "), after(&row[1], "events ")].concat();
        if let Some(event) = Event::of(*reason) {
            assert!(told.iter().any(|said| said == event.as_str()), "{reason:?} comes with {event:?}: {}", row[1]);
        }
        assert_eq!(told.is_empty(), well.contains(reason), "{reason:?}: {}", row[1]);
    }
}

#[test]
fn every_failed_write_of_status_and_every_eviction_has_a_line() {
    same("## Writes of status", metrics::WriteFailure::ALL.iter().map(|failure| failure.label().to_owned()));
    same("## Evictions", metrics::Eviction::ALL.iter().map(|outcome| outcome.label().to_owned()));
}

#[test]
fn every_alert_has_a_line_and_leads_to_its_runbook() {
    let told: BTreeSet<String> = rows("## The operator itself").iter().map(|row| word(&row[0])).collect();
    assert_eq!(told, alerts().into_keys().collect());
    for (alert, url) in alerts() {
        let base = "https://github.com/darkbrains/ip-address-controller/blob/main/docs/";
        let link = url.strip_prefix(base).unwrap_or_else(|| panic!("{alert}: runbook_url is {url}"));
        assert!(link.ends_with(&format!("#{}", alert.to_lowercase())), "{alert}: {link} is not its own heading");
        let row = rows("## The operator itself").into_iter().find(|row| word(&row[0]) == alert).unwrap();
        assert!(row[0].ends_with(&format!("]({link})")), "{alert}: its runbook is {link}, its line says {}", row[0]);
    }
}

#[test]
fn every_line_says_all_there_is_to_say() {
    for section in SECTIONS {
        let head = table(section).remove(0);
        assert_eq!(head[head.len() - 4..].join(" "), "you see it means the operator you", "{section}");
        for row in rows(section) {
            assert_eq!(row.len(), head.len(), "{section}: {row:?}");
            assert!(row.iter().all(|cell| !cell.is_empty()), "{section}: {row:?}");
            assert!(row.iter().any(|cell| cell.contains("](runbooks/")), "{section}: no runbook: {row:?}");
        }
    }
    let told: Vec<String> =
        headings(&manifest(PAGE)).into_iter().filter(|heading| heading.starts_with("## ")).collect();
    assert_eq!(told, SECTIONS);
}

#[test]
fn events_metrics_and_alerts_that_a_line_names_are_those_of_the_code() {
    let events: BTreeSet<&str> = Event::ALL.iter().map(|event| event.as_str()).collect();
    let metrics: BTreeSet<&str> = CATALOGUE.iter().map(|metric| metric.name).collect();
    let alerts = alerts();
    let mut text = page();
    for path in runbooks() {
        text.push_str(&read(&path));
    }
    for code in text.split('`').skip(1).step_by(2) {
        let name = code.split(['{', '[', ' ']).next().unwrap();
        if name.starts_with("netipallocation_") {
            assert!(metrics.contains(name), "no such metric: {name}");
        }
        if name.starts_with("NetIPAllocation") && name != "NetIPAllocation" {
            assert!(alerts.contains_key(name), "no such alert: {name}");
        }
    }
    for row in SECTIONS.into_iter().flat_map(rows) {
        let cell = row[row.len() - 4].clone();
        for said in after(&cell, "event ").into_iter().chain(after(&cell, "events ")) {
            assert!(events.contains(&*said), "no such event: {said}");
        }
    }
}

/// What the page says of Ready is what the code says, where the address is one of those that are required.
#[test]
fn what_a_line_says_of_ready_is_what_the_code_says() {
    for (row, reason) in rows("## Reasons of an address").iter().zip(Reason::ALL) {
        let (_, told) = row[1].split_once("Ready ").unwrap_or_else(|| panic!("{reason:?} says nothing of Ready"));
        let (status, rest) = told.split_once(' ').unwrap();
        let why = rest.split('`').nth(1).unwrap();
        match status {
            // On a node that works: it does not count against Ready.
            "True" => {
                assert!([Ready::AllAttached, Ready::Draining].iter().any(|ready| ready.as_str() == why), "{row:?}")
            }
            _ if why == Ready::Terminating.as_str() => assert_eq!(*reason, Reason::AllocationDeleted),
            _ => {
                let (wanted, ready) = conditions::of_reason(*reason);
                assert_eq!((status, why), (wanted, ready.as_str()), "{reason:?}");
            }
        }
    }
}

#[test]
fn every_link_leads_to_a_page_and_a_heading_that_are_there() {
    let pages = runbooks().into_iter().chain([manifest(PAGE), manifest("README.md"), manifest("CONTRIBUTING.md")]);
    for path in pages {
        for link in read(&path).split("](").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned()) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            assert!(
                anchor.is_empty() || headings(&target).iter().any(|heading| slug(heading) == anchor),
                "{}: {link} leads to no heading",
                path.display()
            );
        }
    }
}

#[test]
fn every_runbook_begins_with_the_emergency_stop_and_says_the_same_four_things() {
    let stop = "scale deployment ip-address-controller --replicas=0`";
    let linked = page();
    for path in runbooks() {
        let text = read(&path);
        let first = text.lines().next().unwrap();
        assert!(first.starts_with("> **Emergency stop:**") && first.contains(stop), "{}: {first}", path.display());
        let parts: Vec<String> = headings(&path).into_iter().filter(|heading| heading.starts_with("## ")).collect();
        assert_eq!(parts, ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"], "{}", path.display());
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(linked.contains(&format!("](runbooks/{name}#")), "nothing leads to {name}");
    }
}

/// A text that slipped under another heading leaves its own with nothing.
#[test]
fn every_heading_has_something_below_it() {
    let pages = fs::read_dir(manifest("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let depth = |heading: &str| heading.chars().take_while(|c| *c == '#').count();
    for path in pages.chain(runbooks()) {
        let text = read(&path);
        let (mut fenced, mut bare) = (false, None::<&str>);
        for line in text.lines().chain(["# The end"]) {
            fenced ^= line.starts_with("```");
            if !fenced && line.starts_with('#') {
                if let Some(heading) = bare {
                    assert!(depth(line) > depth(heading), "{}: nothing is below \"{heading}\"", path.display());
                }
                bare = Some(line);
            } else if !line.trim().is_empty() {
                bare = None;
            }
        }
    }
}

/// Who copies a command should know whether it was ever run.
#[test]
fn the_kinds_of_command_that_no_test_runs_are_named() {
    let test = read(&manifest("e2e/tests/hardening/runbooks.rs"));
    let (_, left) = test.split_once("const LEFT: &[&str] = &[").unwrap();
    let left: Vec<&str> = left.split(']').next().unwrap().split('"').skip(1).step_by(2).collect();
    let page = page();
    let (_, told) = page.split_once("It leaves out").unwrap();
    let told: Vec<&str> = told.split(':').next().unwrap().split('`').skip(1).step_by(2).collect();
    assert_eq!(told, left);
}

/// Commands that a person copies at 3 a.m.: ours are understood by our command line, and fields of our resource exist.
/// `e2e/tests/hardening/runbooks.rs` runs those of kubectl.
#[test]
fn every_command_of_a_runbook_is_one_that_exists() {
    let schema = serde_json::to_value(api::crd()).unwrap();
    let schema = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    for path in runbooks().into_iter().chain([manifest(PAGE)]) {
        let text = read(&path);
        let parts: Vec<&str> = text.split("```").collect();
        let blocks = parts.iter().skip(1).step_by(2).flat_map(|block| block.lines().skip(1)).map(str::to_owned);
        // A command in a sentence may run over the end of a line.
        let sentences: String =
            parts.iter().step_by(2).flat_map(|part| part.lines()).flat_map(|line| [line.trim(), " "]).collect();
        let inline = sentences.split('`').skip(1).step_by(2).map(str::to_owned);
        for command in inline.chain(blocks) {
            for ours in command.match_indices("ip-address-controller ").map(|(at, _)| &command[at..]) {
                let args: Vec<OsString> =
                    ours.split(" | ").next().unwrap().split_whitespace().map(OsString::from).collect();
                let verb = args.get(1).and_then(|arg| arg.to_str()).unwrap_or_default();
                if ["check", "release", "crd", "run"].contains(&verb) {
                    let parsed = Command::parse_from(args.clone(), |_| None);
                    assert!(parsed.is_ok(), "{}: {args:?}: {parsed:?}", path.display());
                }
            }
            if command.starts_with("kubectl get nia") {
                for (root, field) in fields(&command) {
                    let known = schema[&root]["properties"].get(&field).is_some();
                    assert!(known, "{}: no field {root}.{field} in {command}", path.display());
                }
            }
        }
    }
}

/// `spec.X` and `status.X` of a command.
fn fields(command: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for root in ["spec", "status"] {
        for (at, mark) in command.match_indices(&format!(".{root}.")) {
            let rest = &command[at + mark.len()..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            found.push((root.to_owned(), rest[..end].to_owned()));
        }
    }
    found
}

/// The words in backquotes right after a word.
fn after(cell: &str, mark: &str) -> Vec<String> {
    let mut words = Vec::new();
    for rest in cell.split(mark).skip(1) {
        let mut rest = rest;
        while let Some((said, further)) = rest.strip_prefix('`').and_then(|text| text.split_once('`')) {
            words.push(said.to_owned());
            match [" and ", " or "].iter().find_map(|joint| further.strip_prefix(joint)) {
                Some(next) => rest = next,
                None => break,
            }
        }
    }
    words
}

/// Alert → runbook_url.
fn alerts() -> BTreeMap<String, String> {
    let rules: serde_json::Value = serde_yaml::from_str(&read(&manifest("alerts/netipallocation.rules.yaml"))).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    let all = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    all.map(|rule| {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        (text(&rule["alert"]), text(&rule["annotations"]["runbook_url"]))
    })
    .collect()
}

/// The words that begin the rows of a section are these, in this order.
fn same(section: &str, wanted: impl Iterator<Item = String>) {
    let told: Vec<String> = rows(section).iter().map(|row| word(&row[0])).collect();
    assert_eq!(told, wanted.collect::<Vec<_>>(), "{section}");
}

/// The word in backquotes, linked or not.
fn word(cell: &str) -> String {
    cell.split('`').nth(1).unwrap_or_else(|| panic!("no word in {cell}")).to_owned()
}

fn rows(section: &str) -> Vec<Vec<String>> {
    table(section).split_off(2)
}

/// Head, line, rows.
fn table(section: &str) -> Vec<Vec<String>> {
    let page = page();
    let (_, rest) = page.split_once(&format!("\n{section}\n")).unwrap_or_else(|| panic!("{PAGE}: no {section}"));
    let rest = rest.split("\n## ").next().unwrap();
    let rows = rest.lines().filter_map(|line| line.strip_prefix('|')?.trim_end().strip_suffix('|'));
    rows.map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// As GitHub makes anchors of headings.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn headings(path: &Path) -> Vec<String> {
    let mut fenced = false;
    let text = read(path);
    let outside = text.lines().filter(|line| {
        fenced ^= line.starts_with("```");
        !fenced
    });
    outside.filter(|line| line.starts_with('#')).map(str::to_owned).collect()
}

fn runbooks() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> =
        fs::read_dir(manifest("docs/runbooks")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    pages
}

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            all.extend(sources(&entry));
        } else {
            let text = read(&entry);
            all.push((entry, text));
        }
    }
    all
}

fn page() -> String {
    read(&manifest(PAGE))
}

fn manifest(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
