//! What was measured, beside what it is measured against: a line for each figure, in the terminal and in a page.

use std::fmt::Write as _;

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Addresses, on as many nodes.
    pub size: usize,
    pub what: &'static str,
    pub measured: String,
    /// What it is held against, taken in the same run where it can be.
    pub against: String,
    pub reached: bool,
}

/// All lines, by figure and then by size.
#[derive(Clone, Debug, Default)]
pub struct Figures(Vec<Figure>);

impl Figures {
    pub fn add(&mut self, size: usize, what: &'static str, measured: String, against: String, reached: bool) {
        let figure = Figure { size, what, measured, against, reached };
        println!("    {figure}");
        self.0.push(figure);
    }

    /// Of those that did not reach what they must.
    pub fn missed(&self) -> Vec<&Figure> {
        self.0.iter().filter(|figure| !figure.reached).collect()
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
            for Figure { size, what, measured, against, reached } in self.0.iter().filter(|figure| figure.what == name)
            {
                let word = if *reached { "reached" } else { "**missed**" };
                // Writing to a String cannot fail.
                let _ = writeln!(text, "| {what} | {size} | {measured} | {against} | {word} |");
            }
        }
        text
    }
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { size, what, measured, against, reached } = self;
        write!(f, "{size:>5}  {what}: {measured}; {against}{}", if *reached { "" } else { "  MISSED" })
    }
}
