//! The labels of the node that holds an address (L1, P4).

use super::{
    Decision, Effect,
    attempts::deed,
    facts::{Entry, Facts, Labels, NodeObject},
    state::Reason,
};
use crate::cloud::MachineId;

/// The labels (and the taint, which is their mirror), where they are not as they should be and the node may have them: it is
/// Ready or its grace runs, and a read that counts says that the address is there (P4).
pub(super) fn upkeep(
    node: &str,
    machine: &MachineId,
    reason: Reason,
    entry: &Entry,
    facts: &Facts,
) -> Option<Decision> {
    let holder = facts.holder_of(entry)?;
    let NodeObject::Present(view) = &holder.object else { return None };
    let right = match view.labels {
        Labels::On => !view.tainted,
        Labels::Others => true,
        Labels::Partly | Labels::Off => false,
    };
    if right || !facts.read.is_on(machine) {
        return None;
    }
    // Not that it is being labelled: that would be a status write for what is over in a moment.
    let message = match reason {
        Reason::NotLabelled => entry.message.clone(),
        _ => format!("is on node {node}"),
    };
    Some(deed(Effect::Label { node: node.to_owned() }, reason, message, facts))
}

/// What an attached address is while its labels are not as they should be: well while they are about to be set, and not once
/// that has failed, until they are there. What failed before it came here was another deed.
pub(super) fn unlabelled(entry: &Entry, facts: &Facts) -> Reason {
    let failed = facts.failure.is_some() && entry.since < facts.now;
    if failed || entry.reason == Reason::NotLabelled { Reason::NotLabelled } else { settled(entry) }
}

pub(super) fn settled(entry: &Entry) -> Reason {
    match entry.reason {
        Reason::Adopted => Reason::Adopted,
        _ => Reason::Verified,
    }
}

pub(super) fn labelled(entry: &Entry, facts: &Facts) -> bool {
    matches!(labels(entry, facts), Some(Labels::On | Labels::Partly))
}

/// Those of the node that its entry names.
pub(super) fn labels(entry: &Entry, facts: &Facts) -> Option<Labels> {
    match &facts.holder_of(entry)?.object {
        NodeObject::Present(view) => Some(view.labels),
        NodeObject::Absent { .. } => None,
    }
}
