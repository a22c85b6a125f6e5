//! The seam through which the world is told: metrics, events and spans hang here, not in the logic.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    journey::{Journey, Trace},
    outcome::Outcome,
};

/// A move that is durable: it is in the object's status.
#[derive(Clone, Debug)]
pub struct Transition<S> {
    /// The object's name.
    pub object: String,
    /// What moved, for example an address.
    pub subject: String,
    /// What sort of subject, where one process has several; a metric label.
    pub kind: &'static str,
    /// The node that it is about, if any.
    pub node: Option<String>,
    pub from: S,
    /// `None`: the entry was forgotten.
    pub to: Option<S>,
    pub reason: &'static str,
    /// Time spent in `from`, as status shows it.
    pub spent: Duration,
    /// Where this transition ends a time on no resource: how long that was.
    pub gap: Option<Duration>,
    /// When `from` was entered; phases that status shows as one are apart here.
    pub entered: Timestamp,
    pub at: Timestamp,
    /// `None`: it leads from rest to rest.
    pub journey: Option<Journey>,
}

/// A pass that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Passed<'a> {
    /// The object's name.
    pub object: &'a str,
    pub uid: &'a str,
    pub generation: i64,
    /// What began it.
    pub trigger: &'static str,
    pub outcome: Outcome,
    /// Why it failed, if it did.
    pub error: Option<&'a str>,
    pub began: Timestamp,
    pub spent: Duration,
    /// What it did, one after another.
    pub stages: &'a [Stage],
    /// Those that it moved on.
    pub journeys: &'a [Trace],
}

/// A part of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    pub name: &'static str,
    pub began: Timestamp,
    pub ended: Timestamp,
}

/// Told after the fact, in order; must not block and cannot fail.
pub trait Observer<S>: Send + Sync {
    /// A transition became durable.
    fn moved(&self, transition: &Transition<S>);
    /// A pass ended.
    fn passed(&self, passed: &Passed<'_>);
}
