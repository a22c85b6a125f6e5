//! Pages of the documentation: commands that a test runs as a reader would, and parts that a program writes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// Where a reader stands.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The blocks of a section that open with this fence, such as ```` ```sh ````, each without its fences.
///
/// # Errors
/// When there is no such page or section, or no such block in it.
pub fn blocks(page: &str, heading: &str, fence: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(checkout().join(page)).with_context(|| page.to_owned())?;
    let found = in_section(&text, heading, fence).with_context(|| format!("{page} has no section {heading}"))?;
    ensure!(!found.is_empty(), "{page}: no block {fence} in {heading}");
    Ok(found)
}

/// Writes the part of the page that `program` writes anew, between the lines that are there for it.
///
/// # Errors
/// When there is no such page, or it has no such lines.
pub fn tell(page: &Path, program: &str, text: &str) -> Result<()> {
    let before = fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let told = told_in(&before, program, text).with_context(|| page.display().to_string())?;
    Ok(fs::write(page, told)?)
}

fn told_in(page: &str, program: &str, text: &str) -> Result<String> {
    let [begins, ends] = ["begins", "ends"].map(|word| format!("<!-- {program} {word} -->"));
    let (before, rest) = page.split_once(&begins).with_context(|| format!("no line {begins}"))?;
    let (_, after) = rest.split_once(&ends).with_context(|| format!("no line {ends} after {begins}"))?;
    Ok(format!("{before}{begins}\n\n{}\n\n{ends}{after}", text.trim()))
}

/// `None` when there is no such section. It ends at the next heading that is no deeper than its own.
fn in_section(text: &str, heading: &str, fence: &str) -> Option<Vec<String>> {
    let depth = |line: &str| {
        let text = line.trim_start_matches('#');
        (text.starts_with(' ') && text.len() < line.len()).then(|| line.len() - text.len())
    };
    let own = depth(heading)?;
    let mut lines = text.lines().skip_while(|line| *line != heading);
    lines.next()?;
    let mut blocks = Vec::new();
    let mut open: Option<(&str, Vec<&str>)> = None;
    for line in lines {
        open = match open.take() {
            None if line.starts_with("```") => Some((line, Vec::new())),
            None if depth(line).is_some_and(|depth| depth <= own) => break,
            None => None,
            Some((opening, inside)) if line == "```" => {
                if opening == fence {
                    blocks.push(inside.join("\n"));
                }
                None
            }
            Some((opening, mut inside)) => {
                inside.push(line);
                Some((opening, inside))
            }
        };
    }
    Some(blocks)
}

#[cfg(test)]
mod tests {
    use super::{in_section, told_in};

    const TEXT: &str = "\
# Page
```sh
before
```
## One
```sh
# a comment, no heading
a
b
```
### Deeper
```
other
```
```sh
c
```
## Two
```sh
after
```
";

    #[test]
    fn a_section_has_the_blocks_of_that_fence_up_to_the_next_heading_of_its_depth() {
        assert_eq!(in_section(TEXT, "## One", "```sh").unwrap(), ["# a comment, no heading\na\nb", "c"]);
        assert_eq!(in_section(TEXT, "## One", "```").unwrap(), ["other"]);
        assert_eq!(in_section(TEXT, "## Three", "```sh"), None);
    }

    #[test]
    fn what_a_program_writes_is_told_between_its_lines_and_the_rest_stays() {
        let page = |text: &str| format!("before\n<!-- make x begins -->\n\n{text}\n\n<!-- make x ends -->\nafter\n");
        assert_eq!(told_in(&page("old"), "make x", "new\n").unwrap(), page("new"));
        assert!(told_in("before\n", "make x", "new").is_err(), "nothing is lost where the lines are missing");
    }
}
