//! The ways that an address can go: each edge with each reason that leads along it. What is counted by them is known
//! before it first happens.

use super::{
    leaving::Cause,
    state::{Reason, State},
};
use crate::lifecycle::State as _;

/// One edge and one reason; without a state that it leads to, the entry is forgotten (edge 11).
pub type Way = (State, Option<State>, Reason);

/// Every way.
pub fn all() -> Vec<Way> {
    let edges = State::EDGES.iter().map(|(from, to)| (*from, Some(*to)));
    let ends = State::FORGETTABLE.into_iter().map(|from| (from, None));
    edges
        .chain(ends)
        .flat_map(|(from, to)| reasons(from, to).into_iter().map(move |reason| (from, to, reason)))
        .collect()
}

fn reasons(from: State, to: Option<State>) -> Vec<Reason> {
    let causes = || Cause::ALL.iter().map(|cause| cause.reason());
    match (from, to) {
        (_, Some(State::Attaching)) => vec![Reason::Attaching],
        (State::Unassigned, Some(State::Attached)) => vec![Reason::Adopted],
        (_, Some(State::Attached)) => vec![Reason::Verified],
        (_, Some(State::Draining)) => causes().collect(),
        // Somebody else took it off, or another allocation has it on the same machine.
        (State::Attached, Some(State::Releasing)) => vec![Reason::Drifted, Reason::SeatLost],
        (State::Draining, Some(State::Releasing)) => causes().chain([Reason::Drifted, Reason::SeatLost]).collect(),
        // An attach is undone.
        (_, Some(State::Releasing)) => causes().chain([Reason::SeatLost, Reason::AddressInUse]).collect(),
        (_, Some(State::Detached)) => vec![Reason::Released],
        // What keeps it from its next node.
        (_, Some(State::Unassigned)) => vec![
            Reason::NoEligibleNode,
            Reason::AddressNotFound,
            Reason::WrongRegion,
            Reason::AddressInUse,
            Reason::DuplicateClaim,
            Reason::CloudUnavailable,
            Reason::Observing,
            Reason::Held,
            Reason::Retrying,
            Reason::Denied,
            Reason::QuotaExceeded,
        ],
        (_, None) => vec![Reason::AllocationDeleted, Reason::RemovedFromSpec, Reason::NotMatched],
    }
}
