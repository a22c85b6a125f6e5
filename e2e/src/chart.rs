//! The chart as a file tree: its values with what their comments say of them, and the table of its README made of that.
//!
//! A comment that begins with `# --` tells the key below it, and everything in that key that has no such comment itself.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Where the table of the README begins and ends; what is between is generated.
const BEGIN: &str = "<!-- values: made by `make generate` from values.yaml -->\n";
const END: &str = "<!-- end of values -->\n";
/// A longer default is looked up in the file.
const LONGEST_DEFAULT: usize = 160;

/// Keys from the outermost to the innermost.
pub type Path = Vec<String>;

/// A key of values.yaml that has a comment.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub path: Path,
    pub default: Value,
    pub text: String,
}

/// values.yaml, parsed.
///
/// # Errors
/// When it is no YAML.
pub fn parse(text: &str) -> Result<Value> {
    serde_yaml::from_str(text).context("values.yaml")
}

/// The keys with a comment, in the order of the file.
///
/// # Errors
/// When a comment stands over nothing, or a key is not where its indentation says.
pub fn rows(text: &str) -> Result<Vec<Row>> {
    let values = parse(text)?;
    let mut rows = Vec::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut told: Option<String> = None;
    for line in text.lines() {
        let trimmed = line.trim_start();
        if let Some(comment) = trimmed.strip_prefix("# -- ") {
            ensure!(told.is_none(), "a comment over a comment: {line}");
            told = Some(comment.to_owned());
            continue;
        }
        if let (Some(comment), Some(told)) = (trimmed.strip_prefix("# "), told.as_mut()) {
            told.push(' ');
            told.push_str(comment);
            continue;
        }
        let Some(key) = key(trimmed) else { continue };
        let indent = line.len() - trimmed.len();
        path.retain(|(outer, _)| *outer < indent);
        path.push((indent, key.to_owned()));
        if let Some(text) = told.take() {
            let path: Path = path.iter().map(|(_, key)| key.clone()).collect();
            let default = at(&values, &path).with_context(|| format!("no value at {}", spelled(&path)))?.clone();
            rows.push(Row { path, default, text });
        }
    }
    Ok(rows)
}

/// The key of a line `key: …`; of lists and comments none.
fn key(line: &str) -> Option<&str> {
    let (key, rest) = line.split_once(':')?;
    let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    (is_key && !key.starts_with('-') && (rest.is_empty() || rest.starts_with(' '))).then_some(key)
}

/// The value at a path.
pub fn at<'a>(values: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(values, |value, key| value.get(key))
}

/// `controller.cloudApi.qps`, as `--set` takes it.
pub fn spelled(path: &[String]) -> String {
    path.iter().map(|key| key.replace('.', "\\.")).collect::<Vec<_>>().join(".")
}

/// Every path at which there is no further map: scalars, lists, empty maps.
pub fn leaves(values: &Value) -> Vec<Path> {
    fn walk(value: &Value, path: &mut Path, found: &mut Vec<Path>) {
        match value.as_object() {
            Some(map) if !map.is_empty() => {
                for (key, value) in map {
                    path.push(key.clone());
                    walk(value, path, found);
                    path.pop();
                }
            }
            _ => found.push(path.clone()),
        }
    }
    let mut found = Vec::new();
    walk(values, &mut Vec::new(), &mut found);
    found
}

/// The table of the README.
pub fn table(rows: &[Row]) -> String {
    let mut table = String::from("| value | default | what it is |\n| --- | --- | --- |\n");
    for Row { path, default, text } in rows {
        let default = default.to_string();
        let default = match default.len() > LONGEST_DEFAULT {
            true => "see [values.yaml](values.yaml)".to_owned(),
            false => format!("`{default}`"),
        };
        table.push_str(&format!("| `{}` | {} | {} |\n", spelled(path), cell(&default), cell(text)));
    }
    table
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// The README with the table that belongs into it.
///
/// # Errors
/// When the README has no place for it, or the values cannot be read.
pub fn readme(readme: &str, values: &str) -> Result<String> {
    let (before, rest) = readme.split_once(BEGIN).context("README.md has no line where the table begins")?;
    let (_, after) = rest.split_once(END).context("README.md has no line where the table ends")?;
    Ok(format!("{before}{BEGIN}\n{}\n{END}{after}", table(&rows(values)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: &str = "\
# No row: a comment of its own.
outer:
  # -- Told in
  # two lines.
  inner: 5
  # Not told.
  silent: {a: 1}
# -- Told as a | whole.
whole:
  kubernetes.io/os: linux
  list:
    - key: x
# -- Empty.
empty: {}
";

    #[test]
    fn a_row_is_a_key_with_a_comment_that_begins_with_two_dashes() {
        let rows = rows(VALUES).unwrap();
        let told: Vec<_> = rows.iter().map(|row| (spelled(&row.path), row.text.as_str())).collect();
        assert_eq!(
            told,
            [("outer.inner", "Told in two lines."), ("whole", "Told as a | whole."), ("empty", "Empty.")]
                .map(|(path, text)| (path.to_owned(), text))
        );
        assert!(table(&rows).contains("| `outer.inner` | `5` | Told in two lines. |"));
        assert!(table(&rows).contains(r"Told as a \| whole."));
    }

    #[test]
    fn leaves_are_what_holds_no_further_map() {
        let leaves: Vec<_> = leaves(&parse(VALUES).unwrap()).iter().map(|path| spelled(path)).collect();
        assert_eq!(leaves, ["empty", "outer.inner", "outer.silent.a", r"whole.kubernetes\.io/os", "whole.list"]);
    }

    #[test]
    fn the_readme_keeps_all_that_is_not_the_table() {
        let made = readme(&format!("a\n{BEGIN}stale\n{END}b\n"), VALUES).unwrap();
        assert!(made.starts_with("a\n") && made.ends_with("b\n") && !made.contains("stale"), "{made}");
        assert_eq!(readme(&made, VALUES).unwrap(), made);
        assert!(readme("no place", VALUES).is_err());
    }
}
