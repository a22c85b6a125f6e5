//! On its way to a node. Edges 3, 4, and another attempt.

use super::{
    Decision, Effect, LATER, Note, SOON,
    attempts::{again, failed, intent, spent},
    facts::{Claim, Entry, Facts, Life, Operation, OperationKind, Whereabouts},
    go, leaving,
    state::{Reason, State},
    story, wait,
};
use crate::cloud::{ErrorKind, MachineId};

pub(super) fn attaching(entry: &Entry, facts: &Facts) -> Decision {
    let (Some(node), Some(machine), Some(operation)) = (&entry.node, &entry.machine, &entry.operation) else {
        return wait(
            entry.reason,
            "its entry in status is incomplete: state Attaching without node, machineID or operation",
            LATER,
        );
    };
    if facts.is_fresh(operation) {
        return perform_attach(entry, node, machine, operation);
    }
    if facts.in_flight {
        return wait(Reason::Attaching, format!("is being attached to node {node}"), LATER);
    }
    // A read goes by the machine's name, which another may have by now.
    let is_same_machine = match facts.life_of(entry) {
        Life::Running => true,
        Life::Replaced => false,
        Life::Stopped | Life::Gone | Life::Unknown => !is_said_to_be_gone(operation, facts),
    };
    if is_same_machine && facts.read.is_on(machine) {
        return go(State::Attached, Reason::Verified, Note::Plain);
    }
    if let Some(reason) = undo(entry, machine, operation, facts) {
        if !facts.intent_dead {
            return wait(
                Reason::Attaching,
                "will be undone when the last request to the cloud can no longer take effect",
                SOON,
            );
        }
        if !facts.permit {
            return wait(Reason::Attaching, "waits for its turn at the cloud's rate limit, then is undone", SOON);
        }
        let operation =
            Operation { traceparent: operation.traceparent.clone(), ..intent(OperationKind::Detach, 0, facts) };
        return go(State::Releasing, reason, Note::Release { operation, planned: None });
    }
    if spent(operation, facts)
        && let Some((reason, message, recheck)) = failed(facts)
    {
        return wait(reason, message, recheck);
    }
    again(entry, operation, facts, || perform_attach(entry, node, machine, operation))
}

/// Whether the attach has ended because the cloud has no such machine.
fn is_said_to_be_gone(operation: &Operation, facts: &Facts) -> bool {
    spent(operation, facts) && facts.failure.as_ref().is_some_and(|failure| failure.kind == ErrorKind::NotFound)
}

fn perform_attach(entry: &Entry, node: &str, machine: &MachineId, operation: &Operation) -> Decision {
    Decision::Perform {
        effect: Effect::Attach {
            node: node.to_owned(),
            machine: machine.clone(),
            operation: operation.id,
            send_before: operation.send_before,
            may_displace_own: entry.restore.is_some(),
        },
        // The attempt before may have taken the machine's own address off and no further (P10).
        reason: if operation.attempts > 0 && entry.restore.is_some() { Reason::Repairing } else { entry.reason },
        message: story::under_way(entry, operation),
    }
}

/// Why an attach is given up.
fn undo(entry: &Entry, machine: &MachineId, operation: &Operation, facts: &Facts) -> Option<Reason> {
    if facts.claim != Claim::Ours {
        return Some(Reason::SeatLost);
    }
    if let Some(cause) = leaving::cause(entry, facts)
        && leaving::permitted(cause, entry, facts)
    {
        return Some(cause.reason());
    }
    match &facts.read.place {
        Whereabouts::On(other) if *other != machine.place => return Some(Reason::AddressInUse),
        Whereabouts::Foreign(_) => return Some(Reason::AddressInUse),
        Whereabouts::On(_)
        | Whereabouts::Awaited
        | Whereabouts::Unknown(_)
        | Whereabouts::Unasked(_)
        | Whereabouts::Free
        | Whereabouts::NotFound
        | Whereabouts::OtherRegion(_) => {}
    }
    // Only the failure of this very intent speaks about this node: an older one was another node's.
    if !spent(operation, facts) {
        return None;
    }
    match facts.failure.as_ref()?.kind {
        ErrorKind::Unsupported | ErrorKind::Invalid | ErrorKind::Quota | ErrorKind::Conflict | ErrorKind::NotFound => {
            Some(Reason::SeatLost)
        }
        ErrorKind::Denied
        | ErrorKind::Unauthenticated
        | ErrorKind::Throttled
        | ErrorKind::Timeout
        | ErrorKind::Unavailable
        | ErrorKind::Unknown => None,
    }
}
