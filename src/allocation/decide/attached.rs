//! On its node. Edges 5, 8, and upkeep of the labels (L1).

use super::{
    Decision, Effect, LATER, Note, SOON,
    attempts::{deed, intent},
    facts::{Entry, Facts, Mode, OperationKind, Target},
    go,
    labels::{labelled, settled, unlabelled, upkeep},
    leaving::{self, Cause, LabelsGo, nowhere_to_go},
    releasing::give_way,
    rest,
    state::{Reason, State},
    story, wait,
};

pub(super) fn attached(entry: &Entry, facts: &Facts) -> Decision {
    let (Some(node), Some(machine)) = (&entry.node, &entry.machine) else {
        return wait(
            entry.reason,
            "its entry in status is incomplete: state Attached without node or machineID",
            LATER,
        );
    };
    if facts.mode == Mode::Observe {
        return rest(
            Reason::Observing,
            format!("is on node {node}{}; mode Observe changes nothing", story::plan(entry, facts)),
        );
    }
    if facts.in_flight {
        // Its labels come or go. Taken off by somebody else it stays what it is said to be, until it is read back.
        let (reason, message) = match entry.reason {
            Reason::Drifted if !facts.read.is_on(machine) => (Reason::Drifted, entry.message.clone()),
            Reason::NotLabelled => (Reason::NotLabelled, entry.message.clone()),
            _ => (settled(entry), format!("is on node {node}")),
        };
        return wait(reason, message, LATER);
    }
    if let Some(decision) = give_way(settled(entry), node, machine, facts) {
        return decision;
    }
    let cause = leaving::cause(entry, facts);
    if facts.read.is_off(machine) && !cause.is_some_and(|cause| explains_absence(cause, facts)) {
        if !facts.intent_dead || !facts.permit {
            let until = if facts.intent_dead {
                "waits for its turn at the cloud's rate limit"
            } else {
                "waits until the last request to the cloud can no longer put it back"
            };
            let message = format!("somebody else took it off its machine; {until}");
            // Neither may take long, and the label must not stay without the address (P4).
            if labelled(entry, facts) {
                return deed(Effect::Unlabel { node: node.clone() }, Reason::Drifted, message, facts);
            }
            return wait(Reason::Drifted, message, SOON);
        }
        let operation = intent(OperationKind::Detach, 0, facts);
        return go(State::Releasing, Reason::Drifted, Note::Release { operation, planned: None });
    }
    if let Some(cause) = cause {
        if !leaving::permitted(cause, entry, facts) {
            return upkeep(node, machine, unlabelled(entry, facts), entry, facts).unwrap_or_else(|| {
                rest(
                    Reason::Held,
                    format!(
                        "must leave node {node} ({}), but mode Hold begins no move by choice",
                        cause.reason().as_str()
                    ),
                )
            });
        }
        if leaving::needs_target(cause, facts)
            && cause.row().labels_go != LabelsGo::AtOnce
            && let Target::None(verdicts) = &facts.target
        {
            return upkeep(node, machine, unlabelled(entry, facts), entry, facts).unwrap_or_else(|| {
                wait(
                    Reason::NoTarget,
                    format!(
                        "must leave node {node} ({}), but has no node to go to ({verdicts})",
                        cause.reason().as_str()
                    ),
                    LATER,
                )
            });
        }
        let deadline = facts.drain.timeout.and_then(|t| facts.now.checked_add(t).ok());
        let planned = facts.target.node().map(str::to_owned);
        return go(State::Draining, cause.reason(), Note::Drain { deadline, planned });
    }
    upkeep(node, machine, unlabelled(entry, facts), entry, facts).unwrap_or_else(|| quiet(entry, node, facts))
}

/// A fault and the absence are one thing seen from two sides, and the fault explains more. A choice explains nothing: it
/// may be held up by mode, pace or target, while the label must not stay without the address (P4).
fn explains_absence(cause: Cause, facts: &Facts) -> bool {
    !cause.row().by_choice && !nowhere_to_go(cause, facts)
}

/// Attached, and nothing to do.
fn quiet(entry: &Entry, node: &str, facts: &Facts) -> Decision {
    if let Some((reason, message)) = story::trouble(node, entry, facts) {
        let recheck = if reason == Reason::CloudUnavailable { LATER } else { SOON };
        return wait(reason, message, recheck);
    }
    rest(settled(entry), format!("is on node {node}"))
}
