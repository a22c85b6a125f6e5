//! How a pass over an object ended: six words, no booleans.

/// The closed list; [`Outcome::label`] is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every machine is where it should be.
    Rested,
    /// Something is awaited.
    Waiting,
    /// A deed was begun.
    Acted,
    /// A transition was written.
    Moved,
    /// A step failed; it will be tried again.
    Failed,
    /// The pass was dropped before its end (shutdown, leadership lost).
    Abandoned,
}

impl Outcome {
    /// Stable word for labels.
    pub fn label(self) -> &'static str {
        match self {
            Outcome::Rested => "rested",
            Outcome::Waiting => "waiting",
            Outcome::Acted => "acted",
            Outcome::Moved => "moved",
            Outcome::Failed => "failed",
            Outcome::Abandoned => "abandoned",
        }
    }
}
