//! What was measured, beside what it is measured against: a line for each figure, in the terminal and in a page.

use std::fmt::Write as _;

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Addresses, on as many nodes.
    pub size: usize,
    pub what: &'static str,
    pub measured: String,
    /// What it is held against, taken in the same run where it can be, and whether it reached that; none for what is only told.
    pub against: Option<(String, bool)>,
}

impl Figure {
    fn is_missed(&self) -> bool {
        matches!(self.against, Some((_, false)))
    }
}

/// All lines, by figure and then by size.
#[derive(Clone, Debug, Default)]
pub struct Figures(Vec<Figure>);

impl Figures {
    pub fn add(&mut self, size: usize, what: &'static str, measured: String, against: String, reached: bool) {
        self.push(Figure { size, what, measured, against: Some((against, reached)) });
    }

    /// What others are explained by.
    pub fn tell(&mut self, size: usize, what: &'static str, measured: String) {
        self.push(Figure { size, what, measured, against: None });
    }

    fn push(&mut self, figure: Figure) {
        println!("    {figure}");
        self.0.push(figure);
    }

    /// Of those that did not reach what they must.
    pub fn missed(&self) -> Vec<&Figure> {
        self.0.iter().filter(|figure| figure.is_missed()).collect()
    }

    /// As a table of Markdown.
    pub fn table(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for figure in &self.0 {
            if !names.contains(&figure.what) {
                names.push(figure.what);
            }
        }
        let mut text = "| figure | addresses | measured | against | |\n| --- | --- | --- | --- | --- |\n".to_owned();
        for name in names {
            for figure in self.0.iter().filter(|figure| figure.what == name) {
                let Figure { size, what, measured, against } = figure;
                let (against, word) = match against {
                    Some((against, true)) => (against.as_str(), "reached"),
                    Some((against, false)) => (against.as_str(), "**missed**"),
                    None => ("", ""),
                };
                // Writing to a String cannot fail.
                let _ = writeln!(text, "| {what} | {size} | {measured} | {against} | {word} |");
            }
        }
        text
    }
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { size, what, measured, against } = self;
        write!(f, "{size:>5}  {what}: {measured}")?;
        match against {
            Some((against, true)) => write!(f, "; {against}"),
            Some((against, false)) => write!(f, "; {against}  MISSED"),
            None => Ok(()),
        }
    }
}
