//! What took effect, and who did it: the witness that tests ask.

use std::{collections::BTreeMap, net::IpAddr};

use tokio::time::Instant;

use super::MachineKey;

/// Who changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A call through the cloud's API.
    Api,
    /// Somebody else, by a control operation of the test.
    Outsider,
    /// The machine went away.
    Lifecycle,
}

/// An address that left a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    pub at: Instant,
    pub by: Actor,
    pub machine: MachineKey,
    /// The cloud's number of the machine.
    pub machine_id: u64,
    /// `None`: the ephemeral one of a machine that was stopped.
    pub ip: Option<IpAddr>,
    /// A reserved address, not an ephemeral one.
    pub reserved: bool,
}

/// Counters and records of a world.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) attaches: BTreeMap<IpAddr, u32>,
    pub(super) removals: Vec<Removal>,
    pub(super) violations: Vec<String>,
}
