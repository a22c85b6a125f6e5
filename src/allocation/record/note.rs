//! The text of an event. Pure.

use crate::lifecycle::Trace;

/// The API server refuses a note of more bytes than this, and with it the event.
const MOST: usize = 1024;

/// The note, cut so that the trace that it leads to is never cut off.
pub fn note(text: &str, trace: Option<Trace>) -> String {
    let end = trace.map(|trace| format!(" trace={trace}")).unwrap_or_default();
    // Below the limit, not at it.
    format!("{}{end}", cut(text, MOST - 1 - end.len()))
}

/// At most so many bytes, on a character's border.
fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_ends_in_its_trace_and_is_below_a_kilobyte_whatever_is_said() {
        let trace = Trace::of("x");
        for text in ["short".to_owned(), "x".repeat(5000), "ü€".repeat(1000)] {
            let (with, without) = (note(&text, Some(trace)), note(&text, None));
            assert!(with.ends_with(&format!(" trace={trace}")) && with.len() < 1024, "{with}");
            assert!(text.starts_with(&without) && without.len() < 1024, "{without}");
        }
        assert_eq!(note("short", None), "short");
    }
}
