//! Long-running operations: what a mutation is between its acceptance and its end.

use jiff::Timestamp;

use super::{Change, Refusal};

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Pending,
    Running,
    /// Ended, well or not.
    Done,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub name: String,
    pub id: u64,
    pub method: String,
    pub change: Change,
    /// The cloud's number of the machine when the operation was accepted.
    pub machine_id: u64,
    pub phase: Phase,
    /// The change was carried out; it may be so before the phase says done.
    pub effective: bool,
    /// Why it failed; read it when the phase is done.
    pub failure: Option<Refusal>,
    pub inserted: Timestamp,
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
}
