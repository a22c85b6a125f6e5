//! On no node: forgotten, adopted where it is, or placed. Edges 1, 2, 10, 11.

use std::time::Duration;

use super::{
    Decision, LATER, Note, SOON,
    attempts::{failed, intent},
    facts::{Adoptable, Claim, Entry, Facts, Mode, OperationKind, Target, Wanted, Whereabouts},
    go, leaving,
    state::{Reason, State},
    wait,
};

/// Edges 1, 2, 11.
pub(super) fn unassigned(entry: &Entry, facts: &Facts) -> Decision {
    if let Some(decision) = forget(facts) {
        return decision;
    }
    if let Some(decision) = adopt(facts) {
        return decision;
    }
    match place(entry, facts) {
        Placing::Now(decision) | Placing::Soon(decision) => decision,
        Placing::NotNow { reason, message, recheck } => wait(reason, message, recheck),
    }
}

/// Edges 1, 10, 11.
pub(super) fn detached(entry: &Entry, facts: &Facts) -> Decision {
    if let Some(decision) = forget(facts) {
        return decision;
    }
    match place(entry, facts) {
        Placing::Now(decision) | Placing::Soon(decision) => decision,
        Placing::NotNow { reason, .. } => go(State::Unassigned, reason, Note::Plain),
    }
}

/// Edge 11.
fn forget(facts: &Facts) -> Option<Decision> {
    let reason = match facts.wanted {
        _ if facts.deleting => Reason::AllocationDeleted,
        Wanted::RemovedFromSpec => Reason::RemovedFromSpec,
        Wanted::NotMatched => Reason::NotMatched,
        Wanted::Yes => return None,
    };
    Some(if facts.intent_dead && !facts.in_flight {
        Decision::Forget { reason }
    } else {
        wait(Reason::Released, "waits until the last request to the cloud can no longer take effect", SOON)
    })
}

/// Edge 2: it sits on a machine of ours already. Whether the node could take it is not asked: it has it.
fn adopt(facts: &Facts) -> Option<Decision> {
    if facts.claim != Claim::Ours || facts.mode == Mode::Observe || !matches!(facts.read.place, Whereabouts::On(_)) {
        return None;
    }
    match &facts.adoptable {
        Adoptable::No(_) => None,
        _ if !facts.finalizer => Some(wait(Reason::Pending, "waits for the finalizer", SOON)),
        Adoptable::Looking { node } => Some(wait(Reason::Pending, format!("reads the machine of node {node}"), SOON)),
        Adoptable::Unreachable { node, why } => Some(wait(
            Reason::HolderUnreachable,
            format!("is on node {node}, whose machine cannot be read: {why}"),
            LATER,
        )),
        // Under that name stood the machine that this pass has just left: what is known of the node is about that one.
        Adoptable::Yes { node, .. } if facts.holder.as_ref().is_some_and(|holder| holder.name == *node) => {
            Some(wait(Reason::Pending, format!("reads the machine of node {node}"), SOON))
        }
        // Its entry went (status removed by hand) while a request was under way, which may still take it off.
        Adoptable::Yes { .. } if !facts.intent_dead || facts.in_flight => {
            let message = "waits until the last request to the cloud can no longer take effect";
            Some(wait(Reason::Pending, message, SOON))
        }
        Adoptable::Yes { node, machine } => {
            let note = Note::Adopt { node: node.clone(), machine: machine.clone() };
            Some(go(State::Attached, Reason::Adopted, note))
        }
    }
}

enum Placing {
    Now(Decision),
    /// Every guard but one that is about to be known holds.
    Soon(Decision),
    NotNow {
        reason: Reason,
        message: String,
        recheck: Duration,
    },
}

/// Edge 1, guard by guard.
fn place(entry: &Entry, facts: &Facts) -> Placing {
    let not_now = |reason, message: String, recheck| Placing::NotNow { reason, message, recheck };
    if let Claim::Other(name) = &facts.claim {
        return not_now(
            Reason::DuplicateClaim,
            format!("NetIPAllocation {name} has this address; take it out of one of the two"),
            LATER,
        );
    }
    match &facts.read.place {
        Whereabouts::Free => {}
        Whereabouts::Awaited => return Placing::Soon(wait(entry.reason, until_read(entry), SOON)),
        Whereabouts::Unknown(why) => {
            return not_now(Reason::CloudUnavailable, format!("its whereabouts are not known: {why}"), SOON);
        }
        Whereabouts::Unasked(why) => {
            return not_now(Reason::NoEligibleNode, format!("cannot be asked for: {why}"), LATER);
        }
        Whereabouts::NotFound => {
            return not_now(
                Reason::AddressNotFound,
                "is not reserved in this account; reserve it or take it out of spec.reservedIPs".into(),
                LATER,
            );
        }
        Whereabouts::OtherRegion(region) => {
            return not_now(
                Reason::WrongRegion,
                format!("is reserved in region {region}; name it in an allocation with that spec.cloud.region"),
                LATER,
            );
        }
        Whereabouts::Foreign(what) => {
            return not_now(Reason::AddressInUse, format!("is held by {what}; it is never taken from there"), LATER);
        }
        Whereabouts::On(machine) => {
            let what = match &facts.adoptable {
                Adoptable::No(what) => what.clone(),
                Adoptable::Looking { .. } | Adoptable::Unreachable { .. } | Adoptable::Yes { .. } => {
                    "a selected node".into()
                }
            };
            return match facts.mode {
                Mode::Observe => {
                    let adopts = facts
                        .adoptable
                        .node()
                        .map_or(String::new(), |node| format!("; would be adopted on node {node}"));
                    let text = format!("is on {machine} ({what}){adopts}; mode Observe changes nothing");
                    not_now(Reason::Observing, text, LATER)
                }
                Mode::Enforce | Mode::Hold => not_now(
                    Reason::AddressInUse,
                    format!("is held by {machine} ({what}); it is never taken from there"),
                    LATER,
                ),
            };
        }
    }
    match facts.mode {
        Mode::Enforce => {}
        Mode::Hold if leaving::is_half_moved(entry) => {}
        Mode::Hold => return not_now(Reason::Held, "mode Hold begins no move by choice".into(), LATER),
        Mode::Observe => {
            let plan = facts.target.node().map_or("nowhere".to_owned(), |node| format!("to node {node}"));
            return not_now(Reason::Observing, format!("would go {plan}; mode Observe changes nothing"), LATER);
        }
    }
    if let Some((reason, message, recheck)) = failed(facts) {
        return not_now(reason, message, recheck);
    }
    let node = match &facts.target {
        Target::None(verdicts) => {
            return not_now(Reason::NoEligibleNode, format!("has no node to go to ({verdicts})"), LATER);
        }
        Target::Looking { node } | Target::Seat { node, .. } => node,
    };
    let soon = |text: String| Placing::Soon(wait(entry.reason, text, SOON));
    if !facts.finalizer {
        return soon("waits for the finalizer".to_owned());
    }
    if !facts.intent_dead || facts.in_flight {
        return soon("waits until the last request to the cloud can no longer take effect".to_owned());
    }
    if !facts.permit {
        return soon(format!("waits for its turn at the cloud's rate limit, then goes to node {node}"));
    }
    // Last of all, so that what is read is not old when it is acted on.
    let Target::Seat { machine, own, .. } = &facts.target else {
        return soon(format!("reads the machine of node {node}"));
    };
    let note = Note::Place {
        node: node.clone(),
        machine: machine.clone(),
        own: own.clone(),
        operation: intent(OperationKind::Attach, 0, facts),
    };
    Placing::Now(go(State::Attaching, Reason::Attaching, note))
}

/// What was said last stands until there is an answer.
fn until_read(entry: &Entry) -> String {
    match entry.reason {
        Reason::Pending => "waits for the first read of the cloud".to_owned(),
        _ if entry.message.is_empty() => "waits for a read that says where it is".to_owned(),
        _ => entry.message.clone(),
    }
}
