//! Which journey of its address an entry is on. Pure: the answer is in status, so that every leader gives the same one.
//!
//! A journey begins where an address leaves rest (Unassigned to Attaching, Attached to Draining) and ends where it is at
//! rest again, Attached or Unassigned. An open intent keeps the trace in `operation`, an address between two nodes in
//! `lastMove`; a drain has neither and is told apart by the second in which it began.

use jiff::Timestamp;

use super::decide::{
    facts::{Entry, Journey as Move},
    state::{Reason, State},
};
use crate::lifecycle::{Journey, Trace, pass::Step};

/// How long after its arrival what is done for an address still belongs to the journey: its labels.
const AFTERMATH_SECONDS: i64 = 60;

/// The trace of the journey that the entry is on, in the allocation of that uid.
pub fn trace(entry: &Entry, uid: &str) -> Option<Trace> {
    match entry.state {
        State::Attaching | State::Releasing => entry.operation.as_ref()?.traceparent.as_deref().and_then(Trace::parse),
        State::Detached => open(entry)?.trace_id.as_deref().and_then(Trace::parse_id),
        State::Draining => Some(begun(entry, uid)),
        State::Attached | State::Unassigned => None,
    }
}

/// The trace of a deed for the entry: also of the journey that has just ended.
pub fn trace_of_deed(entry: &Entry, uid: &str, now: Timestamp) -> Option<Trace> {
    let arrived = || {
        let ended = entry.last_move.as_ref().filter(|_| entry.state == State::Attached)?;
        let recent = now.as_second().saturating_sub(ended.finish.as_second()) <= AFTERMATH_SECONDS;
        ended.trace_id.as_deref().filter(|_| recent).and_then(Trace::parse_id)
    };
    trace(entry, uid).or_else(arrived)
}

/// The trace of what is given back to a node: of the last journey that has left it.
pub fn trace_of_debt(entries: &[Entry], node: &str) -> Option<Trace> {
    let moves = entries.iter().filter_map(|entry| entry.last_move.as_ref());
    let left = moves.filter(|moving| moving.from.as_deref() == Some(node)).max_by_key(|moving| moving.start)?;
    left.trace_id.as_deref().and_then(Trace::parse_id)
}

/// The journey that a step from `before` to `after` is a part of. `None` from rest to rest.
pub fn of_step(before: &Entry, after: &Entry, step: Step<State, Reason>, uid: &str, now: Timestamp) -> Option<Journey> {
    if step.from == State::Unassigned && step.to.is_none() {
        return None;
    }
    let trace = trace(before, uid).or_else(|| trace(after, uid)).unwrap_or_else(|| begun(after, uid));
    let moving = open(before).filter(|moving| moving.trace_id.as_deref().and_then(Trace::parse_id) == Some(trace));
    let began = match (before.state, moving) {
        (_, Some(moving)) => moving.start,
        (State::Unassigned | State::Attached, None) => now,
        (State::Draining | State::Releasing | State::Detached, None) => before.since,
        (State::Attaching, None) => entered(before),
    };
    let ended = matches!(step.to, Some(State::Attached | State::Unassigned) | None);
    Some(Journey { trace, began, ended })
}

/// When its state was entered. The two phases of Draining share `since`; the intent tells them apart.
pub fn entered(entry: &Entry) -> Timestamp {
    let operation = entry.operation.as_ref().filter(|_| entry.state.is_open_intent());
    operation.map_or(entry.since, |operation| operation.start)
}

fn begun(entry: &Entry, uid: &str) -> Trace {
    Trace::of(&format!("{uid} {} {}", entry.ip, entry.since.as_second()))
}

fn open(entry: &Entry) -> Option<&Move> {
    entry.last_move.as_ref().filter(|moving| moving.to.is_none())
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use uuid::Uuid;

    use super::*;
    use crate::allocation::decide::facts::{Fresh, Operation, OperationKind};

    const UID: &str = "5f0c";

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn entry(state: State, since: i64) -> Entry {
        Entry { state, ..Entry::new("203.0.113.7".parse().unwrap(), second(since)) }
    }

    fn intent(entry: Entry, start: i64, traceparent: String) -> Entry {
        let operation = Operation {
            id: Uuid::from_u128(7),
            kind: OperationKind::Attach,
            start: second(start),
            send_before: second(start + 60),
            attempts: 0,
            traceparent: Some(traceparent),
        };
        Entry { operation: Some(operation), ..entry }
    }

    /// Of an intent that is written now.
    fn traceparent(entry: &Entry, uid: &str, id: Uuid) -> String {
        Fresh { id, send_before: second(60), journey: trace(entry, uid) }.traceparent()
    }

    fn between(since: i64, trace: Trace) -> Entry {
        let moving = Move {
            from: Some("node-a".to_owned()),
            to: None,
            reason: "NodeCordoned".to_owned(),
            start: second(10),
            finish: second(since),
            gap: None,
            trace_id: Some(trace.to_string()),
        };
        Entry { last_move: Some(moving), ..entry(State::Detached, since) }
    }

    fn arrived(from: &Entry, since: i64) -> Entry {
        let last_move = from.last_move.clone().map(|moving| Move {
            to: Some("node-b".to_owned()),
            finish: second(since),
            gap: Some(SignedDuration::from_secs(2)),
            ..moving
        });
        Entry { last_move, ..entry(State::Attached, since) }
    }

    #[test]
    fn a_debt_belongs_to_the_last_journey_that_has_left_the_node() {
        let (first, last) = (Trace::of("first"), Trace::of("last"));
        let mut earlier = between(16, first);
        if let Some(moving) = &mut earlier.last_move {
            moving.start = second(2);
        }
        let entries = [arrived(&between(16, last), 20), earlier, entry(State::Attached, 0)];
        assert_eq!(trace_of_debt(&entries, "node-a"), Some(last), "also when the address has arrived elsewhere");
        assert_eq!(trace_of_debt(&entries, "node-b"), None, "it has arrived there");
    }

    fn step(before: &Entry, after: &Entry, now: i64) -> Option<Journey> {
        let step = Step { from: before.state, to: Some(after.state), reason: Reason::NodeCordoned };
        of_step(before, after, step, UID, second(now))
    }

    /// Each step is asked about as a leader would that has just taken over and knows status alone.
    #[test]
    fn a_move_is_one_journey_from_drain_to_arrival_whoever_tells_it() {
        let attached = entry(State::Attached, 0);
        let draining = entry(State::Draining, 10);
        let begins = step(&attached, &draining, 10).unwrap();
        let trace = begins.trace;
        assert_eq!((begins.began, begins.ended), (second(10), false));

        let releasing = intent(entry(State::Releasing, 10), 14, traceparent(&draining, UID, Uuid::from_u128(1)));
        let detached = between(16, trace);
        let attaching = intent(
            Entry { state: State::Attaching, ..detached.clone() },
            17,
            traceparent(&detached, UID, Uuid::from_u128(2)),
        );
        let arrived = arrived(&attaching, 20);
        for (before, after, now) in
            [(&draining, &releasing, 14), (&releasing, &detached, 16), (&detached, &attaching, 17)]
        {
            let told = step(before, after, now).unwrap();
            assert_eq!((told.trace, told.began, told.ended), (trace, second(10), false), "{:?}", before.state);
        }
        let ends = step(&attaching, &arrived, 20).unwrap();
        assert_eq!((ends.trace, ends.began, ends.ended), (trace, second(10), true));
        assert_eq!(trace_of_deed(&arrived, UID, second(21)), Some(trace), "its labels");
        assert_eq!(trace_of_deed(&arrived, UID, second(20 + 3600)), None, "upkeep");
    }

    #[test]
    fn several_steps_of_one_pass_are_one_journey() {
        let attached = entry(State::Attached, 0);
        let first = traceparent(&attached, UID, Uuid::from_u128(1));
        let releasing = intent(entry(State::Releasing, 10), 10, first.clone());
        let drains = Step { from: State::Attached, to: Some(State::Draining), reason: Reason::NodeCordoned };
        let releases = Step { from: State::Draining, to: Some(State::Releasing), ..drains };
        let told = [drains, releases].map(|step| of_step(&attached, &releasing, step, UID, second(10)).unwrap().trace);
        assert_eq!(told, [Trace::parse(&first).unwrap(); 2]);
    }

    #[test]
    fn a_drain_that_is_called_off_ends_its_journey_and_the_next_one_is_another() {
        let draining = entry(State::Draining, 10);
        let back = step(&draining, &entry(State::Attached, 30), 30).unwrap();
        assert_eq!((back.began, back.ended), (second(10), true));
        let again = step(&entry(State::Attached, 30), &entry(State::Draining, 40), 40).unwrap();
        assert_ne!(back.trace, again.trace);
    }

    #[test]
    fn who_went_to_rest_without_a_node_begins_anew() {
        let detached = between(16, Trace::of("old"));
        let resting = Entry { state: State::Unassigned, ..detached.clone() };
        let ends = step(&detached, &resting, 20).unwrap();
        assert_eq!((ends.trace, ends.began, ends.ended), (Trace::of("old"), second(10), true));

        let fresh = traceparent(&resting, UID, Uuid::from_u128(3));
        let attaching = intent(Entry { state: State::Attaching, ..resting.clone() }, 90, fresh.clone());
        let begins = step(&resting, &attaching, 90).unwrap();
        assert_eq!((begins.trace, begins.began), (Trace::parse(&fresh).unwrap(), second(90)));
        assert_ne!(begins.trace, ends.trace);
        let arrives = step(&attaching, &arrived(&attaching, 95), 95).unwrap();
        assert_eq!((arrives.trace, arrives.began), (begins.trace, second(90)));
    }

    #[test]
    fn forgetting_an_address_at_rest_is_no_journey() {
        let resting = entry(State::Unassigned, 0);
        let step = Step { from: State::Unassigned, to: None, reason: Reason::RemovedFromSpec };
        assert_eq!(of_step(&resting, &resting, step, UID, second(1)), None);
    }

    #[test]
    fn a_traceparent_that_somebody_broke_is_replaced_and_not_followed() {
        let broken = intent(entry(State::Releasing, 10), 10, "00-nonsense".to_owned());
        assert_eq!(trace(&broken, UID), None);
        assert!(Trace::parse(&traceparent(&broken, UID, Uuid::from_u128(4))).is_some());
    }
}
