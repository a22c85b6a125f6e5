//! What is written, and where to: answers to stdout, everything else to stderr. Nothing that is done depends on whether
//! somebody still reads.

use std::io::{self, ErrorKind, IsTerminal, Write};

use super::{
    refusal::{Exit, Refusal},
    table::Paint,
};

/// Of a terminal that does not say how wide it is.
const WIDTH: usize = 80;

/// What the output goes to.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    pub paint: Paint,
    /// Columns of the line on stderr that may be written over; `None` where none may.
    width: Option<usize>,
}

impl Terminal {
    pub fn here() -> Self {
        // The convention of no-color.org.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        Self {
            paint: Paint(!plain && io::stdout().is_terminal()),
            width: io::stderr().is_terminal().then_some(told.unwrap_or(WIDTH)),
        }
    }
}

/// Prints lines.
///
/// # Errors
/// [`Exit::Done`] where the reader has gone (`| head`): it has seen enough. What else keeps a line from being written.
pub fn say(lines: impl IntoIterator<Item = String>) -> Result<(), Refusal> {
    let mut out = io::stdout().lock();
    let written = lines.into_iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
    written.map_err(|error| unsaid(&error))
}

fn unsaid(error: &io::Error) -> Refusal {
    match error.kind() {
        ErrorKind::BrokenPipe => Refusal::unheard(),
        _ => Refusal::new(Exit::Failed, format!("what was found cannot be written: {error}")),
    }
}

/// A sentence beside the answer. Nobody to tell is no reason to fail otherwise.
pub fn note(sentence: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{sentence}");
}

/// What goes on, on stderr: one line that is written over on a terminal, elsewhere a line for each change.
pub struct Line {
    width: Option<usize>,
    last: String,
}

impl Line {
    pub fn new(terminal: Terminal) -> Self {
        Self { width: terminal.width, last: String::new() }
    }

    pub fn show(&mut self, text: &str) {
        if self.last == text {
            return;
        }
        let mut err = io::stderr();
        let _ = write!(err, "{}", shown(text, self.width)).and_then(|()| err.flush());
        text.clone_into(&mut self.last);
    }

    pub fn end(&self) {
        if self.width.is_some() {
            let _ = write!(io::stderr(), "{CLEAR}");
        }
    }
}

/// Back to the line's begin, and all of it away.
const CLEAR: &str = "\r\x1b[K";

/// A text that is wider than the terminal could not be written over, and cut it would not be read: it is a line that stays.
fn shown(text: &str, width: Option<usize>) -> String {
    match width {
        None => format!("{text}\n"),
        Some(width) if text.chars().count() < width => format!("{CLEAR}{text}"),
        Some(_) => format!("{CLEAR}{text}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is_one() {
        assert_eq!(unsaid(&ErrorKind::BrokenPipe.into()).exit, Exit::Done);
        let full = unsaid(&ErrorKind::StorageFull.into());
        assert!(full.exit == Exit::Failed && full.sentence.contains("cannot be written"), "{full}");
    }

    #[test]
    fn what_fits_is_written_over_and_what_does_not_stays_as_a_line() {
        assert_eq!(shown("short", Some(10)), "\r\x1b[Kshort");
        assert_eq!(shown("as wide as it", Some(13)), "\r\x1b[Kas wide as it\n");
        assert_eq!(shown("short", None), "short\n");
    }
}
