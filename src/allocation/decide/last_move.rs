//! What an entry keeps of its last move: opened when it leaves a node, closed when it has come to the next.

use jiff::Timestamp;

use super::{
    facts::{Entry, Facts, Journey, Operation},
    state::{Reason, State},
};

/// Closes the ledger of a move. The operation stays while a request of it may still take effect: whoever leads next must
/// not take the address off, and have that request put it back (F5).
pub(super) fn arrive(entry: &mut Entry, from: State, facts: &Facts) {
    let now = facts.now;
    let trace = entry.operation.as_ref().and_then(trace_id);
    let began = entry.operation.as_ref().map_or(now, |operation| operation.start);
    if facts.intent_dead {
        entry.operation = None;
    }
    entry.deadline = None;
    entry.planned_node = None;
    if from == State::Draining {
        return;
    }
    let open = entry.last_move.take().filter(|journey| journey.to.is_none());
    entry.last_move = Some(match open {
        Some(journey) => Journey {
            to: entry.node.clone(),
            gap: Some(now.duration_since(journey.finish)),
            finish: now,
            trace_id: trace.or(journey.trace_id),
            ..journey
        },
        None => Journey {
            from: None,
            to: entry.node.clone(),
            reason: entry.reason.as_str().to_owned(),
            start: began,
            finish: now,
            gap: None,
            trace_id: trace,
        },
    });
}

/// Opens the ledger of a move: it is off, and has no new node yet.
/// `left`: the instant from which on it was on no node.
pub(super) fn leave(entry: &mut Entry, cause: Reason, began: Timestamp, left: Timestamp) {
    let trace = entry.operation.as_ref().and_then(trace_id);
    let node = entry.node.take();
    // An attach on the way was undone: the journey that was open goes on, from where and for the reason it began.
    let open = entry.last_move.take().filter(|journey| journey.to.is_none());
    entry.last_move = open.or(Some(Journey {
        from: node,
        to: None,
        reason: cause.as_str().to_owned(),
        start: began,
        finish: left,
        gap: None,
        trace_id: trace,
    }));
    entry.machine = None;
    entry.operation = None;
    entry.deadline = None;
    entry.restore = None;
}

fn trace_id(operation: &Operation) -> Option<String> {
    operation.traceparent.as_ref()?.split('-').nth(1).map(str::to_owned)
}

/// An attach is being undone: the address was never verified there, so nobody has it to lose. A verified one has a
/// complete ledger.
pub fn never_arrived(entry: &Entry) -> bool {
    entry.last_move.as_ref().is_none_or(|journey| journey.to.is_none())
}
