//! The address machine, shown as scripts (`tests/scenarios/*.txt`) that play through the public seam. See
//! `support/script.rs` for the grammar.

// clippy's leave for tests covers `#[test]` functions, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{collections::BTreeSet, fs, path::Path};

use ip_address_controller::{
    allocation::decide::{
        leaving::{Cause, LabelsGo},
        state::{Reason, State},
    },
    lifecycle::State as _,
};
use support::script::{Life, Shown, parse};

/// Design §3.3. The last column is not in [`Cause::row`]: what undoes a cause is a fact of the outside.
const TABLE: &str = "
| reason            | waits | labels      | evicts | target | paced | undone |
|-------------------|-------|-------------|--------|--------|-------|--------|
| NodeCordoned      | yes   | after users | policy | yes    | yes   | uncordon |
| Disrupted         | yes   | after users | policy | yes    | no    | taint gone |
| NotSelected       | yes   | first       | policy | yes    | yes   | label back |
| RemovedFromSpec   | yes   | first       | policy | no     | yes   | edit back |
| NotMatched        | yes   | first       | policy | no     | yes   | edit back |
| AllocationDeleted | yes   | first       | policy | no     | yes   | Retain |
| MoveRequested     | yes   | first       | always | yes    | yes   | annotation removed |
| NodeNotReady      | no    | with detach | no     | yes    | no    | Ready |
| NodeGone          | no    | with detach | no     | yes    | no    | Ready |
| MachineStopped    | no    | at once     | no     | yes    | no    | - |
| MachineGone       | no    | at once     | no     | no     | no    | - |
| NodeReplaced      | no    | at once     | no     | no     | no    | - |
| OutOfService      | no    | at once     | no     | no     | no    | - |
";

fn table() -> Vec<Vec<&'static str>> {
    TABLE
        .trim()
        .lines()
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .filter(|row: &Vec<&str>| !row[0].starts_with('-'))
        .collect()
}

fn files() -> Vec<(String, Vec<Life>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), parse(&fs::read_to_string(path).unwrap()))).collect()
}

fn lives() -> Vec<(String, Life, Result<Shown, String>)> {
    let all = files().into_iter().flat_map(|(file, lives)| lives.into_iter().map(move |life| (file.clone(), life)));
    all.map(|(file, life)| {
        let outcome = life.play();
        (file, life, outcome)
    })
    .collect()
}

#[test]
fn every_life_goes_as_its_script_says() {
    let lives = lives();
    let wrong: Vec<String> = lives
        .iter()
        .filter_map(|(file, life, outcome)| {
            outcome.as_ref().err().map(|why| format!("{file}: {}\n    {why}", life.title))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} lives:\n{}", wrong.len(), lives.len(), wrong.join("\n"));
}

#[test]
fn the_code_has_the_table_of_the_design() {
    let yes = |b: bool| if b { "yes" } else { "no" }.to_owned();
    let mut code: Vec<Vec<String>> = Vec::new();
    for cause in Cause::ALL {
        let row = cause.row();
        let labels = match row.labels_go {
            LabelsGo::First => "first",
            LabelsGo::AfterUsers => "after users",
            LabelsGo::WithDetach => "with detach",
            LabelsGo::AtOnce => "at once",
        };
        let evicts = match (row.always_evicts, row.may_evict) {
            (true, _) => "always",
            (false, true) => "policy",
            (false, false) => "no",
        };
        assert_eq!(row.by_choice, row.waits_for_users, "{cause:?}: what is chosen waits, what is a fault does not");
        code.push(vec![
            cause.reason().as_str().to_owned(),
            yes(row.waits_for_users),
            labels.to_owned(),
            evicts.to_owned(),
            yes(row.needs_target),
            yes(row.paced),
        ]);
    }
    let design: Vec<Vec<&str>> = table().into_iter().skip(1).map(|row| row[..6].to_vec()).collect();
    assert_eq!(code, design);
}

#[test]
fn every_cell_of_the_table_has_a_life() {
    let table = table();
    let cells: BTreeSet<String> = Cause::ALL
        .iter()
        .flat_map(|cause| table[0][1..].iter().map(move |column| format!("{}/{column}", cause.reason().as_str())))
        .collect();
    let covered: BTreeSet<String> = lives().iter().flat_map(|(_, life, _)| life.covers.clone()).collect();
    let missing: Vec<&String> = cells.difference(&covered).collect();
    assert!(missing.is_empty(), "no life covers {missing:?}");
    let unknown: Vec<&String> = covered.difference(&cells).collect();
    assert!(unknown.is_empty(), "no such cell: {unknown:?}");
}

#[test]
fn a_life_that_says_that_it_covers_a_cause_shows_it() {
    for (file, life, outcome) in lives() {
        let Ok(shown) = outcome else { continue };
        for cell in &life.covers {
            let cause = cell.split('/').next().unwrap();
            assert!(shown.reasons.contains(cause), "{file}: {}: {cause} never happens", life.title);
        }
    }
}

#[test]
fn every_edge_and_both_ways_to_be_forgotten_are_taken() {
    let taken: BTreeSet<String> =
        lives().into_iter().filter_map(|(_, _, outcome)| outcome.ok()).flat_map(|shown| shown.moves).collect();
    let edges = State::EDGES.iter().map(|(from, to)| format!("{} -> {}", from.label(), to.label()));
    let forgettings = State::FORGETTABLE.iter().map(|from| format!("{} -> forgotten", from.label()));
    let missing: Vec<String> = edges.chain(forgettings).filter(|edge| !taken.contains(edge)).collect();
    assert!(missing.is_empty(), "no life takes {missing:?}");
}

#[test]
fn every_reason_that_a_decision_gives_is_shown() {
    // Said by the controller, around the machine: of entries that are no address or one too many, and of debts.
    let outside = [Reason::InvalidAddress, Reason::TooManyAddresses, Reason::Restoring, Reason::RestoreFailed];
    let shown: BTreeSet<String> =
        lives().into_iter().filter_map(|(_, _, outcome)| outcome.ok()).flat_map(|shown| shown.reasons).collect();
    let missing: Vec<&Reason> =
        Reason::ALL.iter().filter(|r| !outside.contains(r) && !shown.contains(r.as_str())).collect();
    assert!(missing.is_empty(), "no life gives {missing:?}");
}
