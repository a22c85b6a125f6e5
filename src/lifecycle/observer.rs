//! The seam through which the world is told: metrics, events and spans hang here, not in the logic.

use std::time::Duration;

use super::outcome::Outcome;

/// A move that is durable: it is in the object's status.
#[derive(Clone, Debug)]
pub struct Transition<S> {
    /// The object's name.
    pub object: String,
    /// What moved, for example an address.
    pub subject: String,
    /// What sort of subject, where one process has several; a metric label.
    pub kind: &'static str,
    pub from: S,
    /// `None`: the entry was forgotten.
    pub to: Option<S>,
    pub reason: &'static str,
    /// Time spent in `from`.
    pub spent: Duration,
    /// Where this transition ends a time on no resource: how long that was.
    pub gap: Option<Duration>,
}

/// Told after the fact, in order; must not block and cannot fail.
pub trait Observer<S>: Send + Sync {
    /// A transition became durable.
    fn moved(&self, transition: &Transition<S>);
    /// A pass over `object` ended.
    fn passed(&self, object: &str, outcome: Outcome, spent: Duration);
}
