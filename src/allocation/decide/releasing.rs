//! Being taken off its node: edge 9, and another attempt; and how that begins for one of two entries that have an address (S2).

use jiff::Timestamp;

use super::{
    Cut, Decision, Effect, LATER, Note, SOON,
    attempts::{again, failed, intent, spent},
    facts::{Claim, Entry, Facts, Life, Operation, OperationKind},
    go,
    labels::labelled,
    last_move::never_arrived,
    leaving::{self, Cause},
    state::{Reason, State},
    story, wait,
};
use crate::cloud::MachineId;

/// One of two entries that have an address on one machine (S2): a status was copied, or restored from before a move. The
/// allocation whose it is not lets go of its entry and of nothing else. Somebody who keeps both would drain it and ask the
/// other's pods to go, and say that it drifted when the other moves it.
pub(super) fn give_way(reason: Reason, node: &str, machine: &MachineId, facts: &Facts) -> Option<Decision> {
    let Claim::Other(name) = &facts.claim else { return None };
    if !facts.is_theirs_on(machine) {
        return None;
    }
    if !facts.intent_dead {
        let message = format!(
            "NetIPAllocation {name} has it on node {node} as well; waits until the last request to the cloud can no longer take effect"
        );
        return Some(wait(reason, message, SOON));
    }
    let operation = intent(OperationKind::Detach, 0, facts);
    Some(go(State::Releasing, Reason::SeatLost, Note::Release { operation, planned: None }))
}

pub(super) fn releasing(entry: &Entry, facts: &Facts) -> Decision {
    let (Some(node), Some(machine), Some(operation)) = (&entry.node, &entry.machine, &entry.operation) else {
        return wait(
            entry.reason,
            "its entry in status is incomplete: a detach without node, machineID or operation",
            LATER,
        );
    };
    if facts.in_flight {
        return wait(entry.reason, format!("is being taken off node {node}"), LATER);
    }
    let gone = matches!(facts.life_of(entry), Life::Gone | Life::Replaced);
    // Read on our machine while it is another's: that one holds it there, and it is not ours to cut (S2).
    let yielded = facts.claim != Claim::Ours && facts.read.is_known();
    let off = gone || facts.read.is_off(machine) || yielded;
    // Where that one says so of this machine too, so are the labels, whatever they say: it makes them its own (P4).
    if off && (!labelled(entry, facts) || facts.is_theirs_on(machine)) {
        return go(State::Detached, Reason::Released, Note::Plain);
    }
    // A new intent does not sit out the back-off of the one before it.
    if spent(operation, facts)
        && let Some((_, message, recheck)) = failed(facts)
    {
        return wait(entry.reason, message, recheck);
    }
    // Somebody took it off, and it is back: pods that run there by now use it like any other.
    let elsewhere = facts.read.is_off(machine) || (entry.reason == Reason::Drifted && !facts.read.is_on(machine));
    let cut = if elsewhere || facts.claim != Claim::Ours {
        Cut::Never
    } else if entry.deadline.or_else(|| drifted_until(entry, operation, facts)).is_some_and(|end| facts.now >= end)
        || !(waits(entry.reason) || entry.reason == Reason::Drifted)
        || never_arrived(entry)
        || leaving::is_unattended(entry, facts)
    {
        Cut::Now
    } else {
        Cut::WhenUnused
    };
    // The cut has ended well, and yet the address is read there: another machine has the name by now, perhaps, and holds it
    // by right. Cutting again would never end.
    if cut != Cut::Never
        && spent(operation, facts)
        && facts.read.is_on(machine)
        && facts.life_of(entry) == Life::Unknown
    {
        return wait(entry.reason, format!("was taken off; reads the machine of node {node} anew"), SOON);
    }
    if cut == Cut::Never && spent(operation, facts) && !labelled(entry, facts) {
        return wait(entry.reason, "its labels are off; waits for a read that says where it is", SOON);
    }
    again(entry, operation, facts, || Decision::Perform {
        effect: Effect::Detach {
            node: node.clone(),
            machine: machine.clone(),
            operation: operation.id,
            send_before: operation.send_before,
            cut,
        },
        reason: entry.reason,
        message: story::under_way(entry, operation),
    })
}

/// How long pods are waited for on a machine that an outsider took the address from and gave it back to: as in a drain.
fn drifted_until(entry: &Entry, operation: &Operation, facts: &Facts) -> Option<Timestamp> {
    let timeout = facts.drain.timeout.filter(|_| entry.reason == Reason::Drifted)?;
    operation.start.checked_add(timeout).ok()
}

/// Whether a release for that reason waits for pods that came after it was decided.
fn waits(reason: Reason) -> bool {
    Cause::of(reason).is_some_and(|cause| cause.row().waits_for_users)
}
