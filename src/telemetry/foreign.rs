//! What is logged may be anybody's words: see [`crate::foreign`].

#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tracing::subscriber::with_default;

use super::subscriber;
use crate::settings::LogFormat;

/// What was logged.
#[derive(Clone, Default)]
pub(super) struct Page(pub(super) Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line said with these words is one line, and says these words and no others.
pub fn log_line(data: &[u8]) {
    let said = crate::foreign::text(data);
    let said: &str = &said;
    for format in [LogFormat::Json, LogFormat::Logfmt] {
        let page = Page::default();
        with_default(subscriber("info", format, page.clone(), None), || {
            tracing::warn!(crd = said, leader = said, level = said, odd = ?said, error = said, "{said}");
        });
        let bytes = page.0.lock().unwrap().clone();
        let page = String::from_utf8(bytes).unwrap();
        let line = page.strip_suffix('\n').unwrap();
        assert!(!line.contains(['\n', '\r']), "more than one line: {line:?}");
        let read = match format {
            LogFormat::Json => json(line),
            LogFormat::Logfmt => logfmt(line),
        };
        let word = |key: &str| {
            let mut found = read.iter().filter(|(known, _)| known == key);
            let (_, value) = found.next().unwrap_or_else(|| panic!("no {key} in {line:?}"));
            assert!(found.next().is_none(), "{key} is there twice: {line:?}");
            value.as_str()
        };
        for key in ["crd", "msg", "error", "leader_", "level_"] {
            assert_eq!(word(key), said, "{key} in {line:?}");
        }
        assert_eq!((word("level"), word("leader")), ("warn", "false"), "{line:?}");
        assert_eq!(read.len(), 10, "{line:?}");
    }
}

fn json(line: &str) -> Vec<(String, String)> {
    let Value::Object(fields) = serde_json::from_str(line).unwrap() else { panic!("{line}") };
    let text = |value: Value| value.as_str().map_or(value.to_string(), str::to_owned);
    fields.into_iter().map(|(key, value)| (key, text(value))).collect()
}

/// Pairs of key and value; a value with anything special in it is in JSON's quotes.
fn logfmt(line: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').unwrap_or_else(|| panic!("no value in {rest:?}"));
        let mut quoted = serde_json::Deserializer::from_str(after).into_iter::<String>();
        let (value, used) = match after.starts_with('"') {
            true => (quoted.next().unwrap().unwrap(), quoted.byte_offset()),
            false => {
                let end = after.find(' ').unwrap_or(after.len());
                (after.split_at(end).0.to_owned(), end)
            }
        };
        pairs.push((key.to_owned(), value));
        let tail = after.split_at(used).1;
        rest = tail.strip_prefix(' ').unwrap_or(tail);
        assert!(tail.is_empty() || tail.starts_with(' '), "{line:?}");
    }
    pairs
}
