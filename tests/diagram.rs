//! The machine's picture in the docs is the machine.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, path::Path};

use ip_address_controller::allocation::decide::state::State;

#[test]
fn the_picture_on_the_type_is_the_machine() {
    let docs: String =
        read("src/allocation/decide/state.rs").lines().filter_map(|l| l.strip_prefix("//!")).map(outdented).collect();
    assert_eq!(pictures(&docs), [State::diagram()]);
}

#[test]
fn the_picture_in_the_readme_is_the_machine() {
    assert_eq!(pictures(&read("README.md")), [State::diagram()]);
}

#[test]
fn a_missing_edge_would_be_seen() {
    let diagram = State::diagram();
    let short = diagram.replacen("    Draining --> Attached\n", "", 1);
    assert_eq!(pictures(&format!("# Title\n```mermaid\n{diagram}```\ntext\n")), [diagram]);
    assert_ne!(pictures(&format!("```mermaid\n{short}```\n")), [State::diagram()]);
    assert!(pictures("```mermaid\nflowchart LR\n```\n").is_empty(), "other pictures are not ours to judge");
}

/// The Mermaid blocks of state diagrams.
fn pictures(text: &str) -> Vec<String> {
    let blocks = text.split("```mermaid\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.filter(|block| block.starts_with("stateDiagram-v2")).map(str::to_owned).collect()
}

fn outdented(line: &str) -> String {
    format!("{}\n", line.strip_prefix(' ').unwrap_or(line))
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
