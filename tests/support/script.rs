//! A script of one life of an address, in lines that read like the specification:
//!
//! ```text
//! == a cordoned node gives its address back
//! covers  NodeCordoned/waits
//! given   Attached on node-a, 2 pods
//! when    node-a is cordoned
//! then    Attached -> Draining NodeCordoned
//! then    wait NodeCordoned
//! then    says waits for 2 pods
//! ```
//!
//! After the last `given` or `when` before a `then`, one pass runs; every move and the end of the pass must be told by a
//! `then`, in order and with nothing left over. `says`, `ledger` and `deadline` look at the entry and use up nothing.

use std::collections::{BTreeSet, VecDeque};

use super::world::World;

/// One life in a script file.
pub struct Life {
    pub title: String,
    pub covers: Vec<String>,
    lines: Vec<(usize, String, String)>,
}

/// What a life has shown.
#[derive(Default)]
pub struct Shown {
    /// `From -> To` of each move made, `From -> forgotten` included.
    pub moves: BTreeSet<String>,
    /// Reasons of moves and ends of passes.
    pub reasons: BTreeSet<String>,
}

/// The lives of a file. A line is a keyword and the rest; `#` begins a comment.
pub fn parse(text: &str) -> Vec<Life> {
    let mut lives: Vec<Life> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix("== ") {
            lives.push(Life { title: title.to_owned(), covers: Vec::new(), lines: Vec::new() });
            continue;
        }
        let life = lives.last_mut().unwrap_or_else(|| panic!("line {}: before the first ==", number + 1));
        let (keyword, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
        match keyword {
            "covers" => life.covers.extend(rest.split(", ").map(str::to_owned)),
            _ => life.lines.push((number + 1, keyword.to_owned(), rest)),
        }
    }
    lives
}

impl Life {
    /// Plays it.
    ///
    /// # Errors
    /// Line and sentence of the first thing that went otherwise.
    pub fn play(&self) -> Result<Shown, String> {
        let mut world = World::new();
        let mut shown = Shown::default();
        let mut told: VecDeque<String> = VecDeque::new();
        let mut due = false;
        for (number, keyword, rest) in &self.lines {
            let wrong = |what: String| format!("line {number}: {what}");
            match keyword.as_str() {
                "given" | "when" => {
                    if let Some(untold) = told.front() {
                        return Err(wrong(format!("the script does not tell: {untold}")));
                    }
                    for part in rest.split(", ") {
                        world.change(part).map_err(wrong)?;
                    }
                    due = true;
                }
                "then" => {
                    if std::mem::take(&mut due) {
                        told = world.pass(&mut shown).into();
                    }
                    if let Some(outcome) = world.look(rest) {
                        outcome.map_err(wrong)?;
                        continue;
                    }
                    match told.pop_front() {
                        Some(event) if event == *rest => {}
                        Some(event) => {
                            return Err(wrong(format!(
                                "expected: {rest}\n      happened: {event} ({})",
                                world.message()
                            )));
                        }
                        None => return Err(wrong(format!("expected: {rest}\n      nothing more happened"))),
                    }
                }
                _ => return Err(wrong(format!("{keyword} is no keyword"))),
            }
        }
        match told.front() {
            Some(untold) => Err(format!("at the end the script does not tell: {untold} ({})", world.message())),
            None if due => Err("the script ends before a pass".to_owned()),
            None => Ok(shown),
        }
    }
}
