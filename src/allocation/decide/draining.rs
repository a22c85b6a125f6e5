//! Leaving its node, and still there. Edges 6, 7.

use std::time::Duration;

use super::{
    Decision, Effect, LATER, Note, SOON,
    attempts::{deed, intent},
    facts::{self, Entry, Facts, Labels, Mode, OperationKind, Target},
    go,
    labels::{labelled, labels, upkeep},
    leaving::{self, Cause, LabelsGo, nowhere_to_go},
    releasing::give_way,
    rest,
    state::{Reason, State},
    story, until, wait,
};

pub(super) fn draining(entry: &Entry, facts: &Facts) -> Decision {
    let (Some(node), Some(machine)) = (&entry.node, &entry.machine) else {
        return wait(
            entry.reason,
            "its entry in status is incomplete: state Draining without node or machineID",
            LATER,
        );
    };
    if facts.mode == Mode::Observe {
        let reason = if leaving::is_moving(entry) { entry.reason } else { Reason::Observing };
        return rest(
            reason,
            format!("drains from node {node}{}; mode Observe changes nothing", story::plan(entry, facts)),
        );
    }
    if !facts.in_flight
        && let Some(decision) = give_way(entry.reason, node, machine, facts)
    {
        return decision;
    }
    let cause = leaving::cause(entry, facts);
    if facts.read.is_off(machine) && !facts.in_flight && !facts.intent_dead && labelled(entry, facts) {
        let message = "is off its machine; waits until the last request to the cloud can no longer put it back";
        return deed(Effect::Unlabel { node: node.clone() }, entry.reason, message.to_owned(), facts);
    }
    if facts.read.is_off(machine) && !facts.in_flight && facts.intent_dead {
        let said = cause.filter(|cause| leaving::permitted(*cause, entry, facts));
        let reason = said.map_or(Reason::Drifted, Cause::reason);
        return release(facts, reason, reason);
    }
    let Some(cause) = cause else {
        if facts.read.is_on(machine) && !facts.in_flight {
            return go(State::Attached, Reason::Verified, Note::Plain);
        }
        return wait(
            entry.reason,
            "the cause to leave is gone; waits for a read that says that it is still there",
            SOON,
        );
    };
    let word = leaving::word(cause, entry, facts);
    if facts.in_flight {
        return wait(word, story::leaving(cause, node, entry, facts), LATER);
    }
    if !leaving::permitted(cause, entry, facts) {
        return wait(word, format!("stays on node {node}: mode Hold begins no move by choice"), LATER);
    }
    let paced_out = cause.row().paced && !facts.turn;
    let stuck = nowhere_to_go(cause, facts);
    let delayed = paced_out || stuck;
    // Not seen to run, and to be free, it is no target yet (S4).
    let next = match &facts.target {
        Target::Looking { node } if leaving::needs_target(cause, facts) => Some(node),
        Target::Looking { .. } | Target::Seat { .. } | Target::None(_) => None,
    };
    let labels_go = match cause.row().labels_go {
        // The release takes them off first; where it cannot begin, they do not wait for it.
        LabelsGo::AtOnce => delayed || !facts.intent_dead || !facts.permit || next.is_some(),
        LabelsGo::First | LabelsGo::AfterUsers | LabelsGo::WithDetach => {
            !delayed && leaving::labels_may_go(cause, entry, facts)
        }
    };
    if labels_go && labelled(entry, facts) {
        let message = story::leaving(cause, node, entry, facts);
        return deed(Effect::Unlabel { node: node.clone() }, word, message, facts);
    }
    // Where it is held up they stay as they are, and are put right if somebody has changed them.
    if (leaving::labels_stay(cause, entry, facts) || (delayed && labels(entry, facts) == Some(Labels::Partly)))
        && let Some(decision) = upkeep(node, machine, word, entry, facts)
    {
        return decision;
    }
    if !leaving::released(cause, entry, facts) {
        // Not before its turn: with the label still on, whoever goes is replaced on the same node.
        let pods = if delayed { Vec::new() } else { leaving::to_be_asked(cause, entry, facts) };
        let message = story::leaving(cause, node, entry, facts);
        if pods.is_empty() {
            return wait(word, message, next_look(entry, facts));
        }
        return deed(Effect::Evict { node: node.clone(), pods }, word, message, facts);
    }
    if stuck {
        return wait(
            word,
            format!(
                "may leave node {node}{}, but has no node to go to ({}); stays",
                story::beside(cause, word),
                story::verdicts(facts)
            ),
            LATER,
        );
    }
    if paced_out {
        return wait(
            word,
            format!("may leave node {node}; waits until fewer addresses are in motion (strategy.maxUnavailable)"),
            SOON,
        );
    }
    if !facts.intent_dead {
        return wait(word, "waits until the last request to the cloud can no longer take effect", SOON);
    }
    if let Some(next) = next.filter(|_| facts.permit) {
        let message = format!("may leave node {node}; reads the machine of node {next}, where it goes");
        return wait(word, message, SOON);
    }
    release(facts, word, cause.reason())
}

/// Edge 7's write, for `reason`; until it may be made, status says `word`.
fn release(facts: &Facts, word: Reason, reason: Reason) -> Decision {
    if !facts.permit {
        return wait(word, "waits for its turn at the cloud's rate limit, then leaves", SOON);
    }
    let operation = intent(OperationKind::Detach, 0, facts);
    let planned = facts.target.node().map(str::to_owned);
    go(State::Releasing, reason, Note::Release { operation, planned })
}

/// When a drain is to be looked at again: at its deadline, or when a pod may be asked again.
fn next_look(entry: &Entry, facts: &Facts) -> Duration {
    let again = match facts.users_of(entry) {
        facts::Users::Known(users) => users.iter().filter_map(|user| user.ask_again).min(),
        facts::Users::Unknown => None,
    };
    let first = [entry.deadline, again].into_iter().flatten().filter(|then| *then > facts.now).min();
    first.map_or(LATER, |then| until(then, facts.now).min(LATER))
}
