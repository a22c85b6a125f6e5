//! Facts → Decision, for one address. Pure: no async, no client, no clock, no randomness.
//!
//! Each state has one function, which reads as its part of the table of edges (design §3.1). What may go wrong outside
//! (late requests, stale reads, rivals) enters as facts that are `Unknown` until they are known.

pub mod facts;
pub mod failover;
pub mod leaving;
pub mod placement;
pub mod state;
pub mod story;
pub mod users;
pub mod ways;

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use self::{
    facts::{
        Adoptable, Claim, Entry, Facts, Failure, Journey, Labels, Life, Mode, NodeObject, Operation, OperationKind,
        Target, User, Wanted, Whereabouts,
    },
    leaving::{Cause, LabelsGo},
    state::{Reason, State},
};
use crate::{
    cloud::{ErrorKind, MachineId, Own},
    lifecycle,
};

/// A look again when an answer is under way; its arrival wakes the allocation earlier.
const SOON: Duration = Duration::from_secs(2);
/// A look again when only a change outside can help; that change is watched or surveyed.
const LATER: Duration = Duration::from_secs(30);

/// The machine of an address, for the framework.
pub struct Address;

type Decision = lifecycle::Decision<Address>;

/// A deed for one address.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Labels that say that the node has the address.
    Label { node: String },
    /// The labels go, the address stays.
    Unlabel { node: String },
    /// Ask these pods to go, through the Eviction API.
    Evict { node: String, pods: Vec<User> },
    /// Put the address on the machine.
    Attach { node: String, machine: MachineId, operation: Uuid, send_before: Timestamp, may_displace_own: bool },
    /// Labels off, users checked live, then the address off the machine (L2).
    Detach { node: String, machine: MachineId, operation: Uuid, send_before: Timestamp, cut: Cut },
}

impl Effect {
    /// The node that it is done on.
    pub fn node(&self) -> &str {
        match self {
            Effect::Label { node }
            | Effect::Unlabel { node }
            | Effect::Evict { node, .. }
            | Effect::Attach { node, .. }
            | Effect::Detach { node, .. } => node,
        }
    }
}

/// What a detach does between the labels and the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A pod that came meanwhile is waited for; then the address is cut.
    WhenUnused,
    /// The address is cut whoever is there.
    Now,
    /// Labels and users only: the address is not there, or is another's to hold.
    Never,
}

/// What a move writes into the entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// Nothing but state, reason and time.
    Plain,
    /// An intent to attach.
    Place { node: String, machine: MachineId, own: Option<Own>, operation: Operation },
    /// Found attached.
    Adopt { node: String, machine: MachineId },
    /// A drain begins.
    Drain { deadline: Option<Timestamp>, planned: Option<String> },
    /// An intent to detach.
    Release { operation: Operation, planned: Option<String> },
    /// Another attempt of the same intent.
    Again { operation: Operation },
    /// No request of the attach that brought it here can take effect any more.
    Settled,
    /// Where it goes, or would go, next.
    Plan { node: Option<String> },
}

impl lifecycle::Machine for Address {
    type State = State;
    type Entry = Entry;
    type Facts = Facts;
    type Effect = Effect;
    type Reason = Reason;
    type Note = Note;

    fn state(entry: &Entry) -> State {
        entry.state
    }

    fn decide(entry: &Entry, facts: &Facts) -> Decision {
        if outlived(entry, facts) {
            return Decision::Renew { note: Note::Settled };
        }
        if let Some(node) = new_plan(entry, facts) {
            return Decision::Renew { note: Note::Plan { node } };
        }
        match entry.state {
            State::Unassigned => unassigned(entry, facts),
            State::Attaching => attaching(entry, facts),
            State::Attached => attached(entry, facts),
            State::Draining => draining(entry, facts),
            State::Releasing => releasing(entry, facts),
            State::Detached => detached(entry, facts),
        }
    }

    fn enter(entry: &mut Entry, to: State, reason: Reason, note: Note, facts: &Facts) {
        let (from, cause, began) = (entry.state, entry.reason, entry.since);
        if from.shown() != to.shown() {
            entry.since = facts.now;
        }
        entry.state = to;
        entry.reason = reason;
        entry.message.clear();
        match note {
            Note::Plain => {}
            Note::Place { node, machine, own, operation } => {
                entry.node = Some(node);
                entry.machine = Some(machine);
                entry.restore = own;
                entry.operation = Some(operation);
                entry.planned_node = None;
            }
            Note::Adopt { node, machine } => {
                entry.node = Some(node);
                entry.machine = Some(machine);
                entry.restore = None;
                entry.planned_node = None;
            }
            Note::Drain { deadline, planned } => {
                entry.deadline = deadline;
                entry.planned_node = planned;
            }
            Note::Release { operation, planned } => {
                entry.operation = Some(operation);
                entry.planned_node = planned;
            }
            Note::Again { operation } => entry.operation = Some(operation),
            Note::Settled => entry.operation = None,
            Note::Plan { node } => entry.planned_node = node,
        }
        match to {
            State::Attached => arrive(entry, from, facts),
            State::Detached => {
                let theirs = entry.machine.as_ref().is_some_and(|machine| facts.is_theirs_on(machine));
                leave(entry, cause, began, facts.left.unwrap_or(facts.now));
                if theirs {
                    // It has moved nowhere, and is not on no node meanwhile: there is no journey to go on with.
                    entry.last_move = None;
                }
            }
            State::Unassigned => entry.planned_node = None,
            State::Attaching | State::Draining | State::Releasing => {}
        }
    }

    fn renew(entry: &mut Entry, note: Note) {
        match note {
            Note::Again { operation } => entry.operation = Some(operation),
            Note::Settled => entry.operation = None,
            Note::Plan { node } => entry.planned_node = node,
            Note::Plain | Note::Place { .. } | Note::Adopt { .. } | Note::Drain { .. } | Note::Release { .. } => {}
        }
    }

    fn explain(entry: &mut Entry, reason: Reason, message: String) {
        entry.reason = reason;
        entry.message = message;
    }
}

/// What status says of where it would go (mode Observe), or goes no more, if that is something new. A plan that a move
/// has made is the move's.
fn new_plan(entry: &Entry, facts: &Facts) -> Option<Option<String>> {
    let target = || facts.target.node().map(str::to_owned);
    let plan = match (entry.state, facts.mode) {
        (State::Attaching | State::Releasing | State::Detached, _) => return None,
        // Where it goes once it may; what it had planned stands while that is not known.
        (State::Draining, Mode::Enforce | Mode::Hold) => target().or_else(|| entry.planned_node.clone()),
        (State::Attached, Mode::Enforce | Mode::Hold) => None,
        // What was planned is done, once it may be, unless something else fits better by then.
        (State::Unassigned, Mode::Enforce | Mode::Hold) => {
            entry.planned_node.clone().filter(|_| entry.planned_node == target())
        }
        (State::Attached | State::Draining, Mode::Observe) => leaving::cause(entry, facts).and_then(|_| target()),
        (State::Unassigned, Mode::Observe) => match &facts.read.place {
            _ if facts.claim != Claim::Ours || facts.wanted != Wanted::Yes => None,
            Whereabouts::Free => target(),
            Whereabouts::On(_) => facts.adoptable.node().map(str::to_owned),
            Whereabouts::Awaited | Whereabouts::Unknown(_) => entry.planned_node.clone(),
            Whereabouts::Unasked(_) | Whereabouts::Foreign(_) | Whereabouts::NotFound | Whereabouts::OtherRegion(_) => {
                None
            }
        },
    };
    (plan != entry.planned_node).then_some(plan)
}

/// It arrived although a request of its attach was never answered, and by now that one can take effect no more.
fn outlived(entry: &Entry, facts: &Facts) -> bool {
    let held = matches!(entry.state, State::Attached | State::Draining);
    // Where its cloud is not known, neither is when a request of it is dead.
    let known = !matches!(facts.read.place, Whereabouts::Unasked(_));
    held && known && entry.operation.is_some() && facts.intent_dead && !facts.in_flight
}

/// Closes the ledger of a move. The operation stays while a request of it may still take effect: whoever leads next must
/// not take the address off, and have that request put it back (F5).
fn arrive(entry: &mut Entry, from: State, facts: &Facts) {
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
fn leave(entry: &mut Entry, cause: Reason, began: Timestamp, left: Timestamp) {
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

fn rest(reason: Reason, message: impl Into<String>) -> Decision {
    Decision::Rest { reason, message: message.into() }
}

fn wait(reason: Reason, message: impl Into<String>, recheck: Duration) -> Decision {
    Decision::Wait { reason, message: message.into(), recheck }
}

fn go(to: State, reason: Reason, note: Note) -> Decision {
    Decision::Move { to, reason, note }
}

/// Until `then`, but not in less than a second.
fn until(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default().max(Duration::from_secs(1))
}

fn intent(kind: OperationKind, attempts: u32, facts: &Facts) -> Operation {
    Operation {
        id: facts.fresh.id,
        kind,
        start: facts.now,
        send_before: facts.fresh.send_before,
        attempts,
        traceparent: Some(facts.fresh.traceparent()),
    }
}

/// Edges 1, 2, 11.
fn unassigned(entry: &Entry, facts: &Facts) -> Decision {
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
fn detached(entry: &Entry, facts: &Facts) -> Decision {
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

/// The last attempt, where it failed and the next one is not due.
fn pending(facts: &Facts) -> Option<&Failure> {
    facts.failure.as_ref().filter(|failure| facts.now < failure.retry)
}

/// The same of an attempt at the cloud: the reason and the sentence for it.
fn failed(facts: &Facts) -> Option<(Reason, String, Duration)> {
    let failure = pending(facts)?;
    let reason = match failure.kind {
        ErrorKind::Denied | ErrorKind::Unauthenticated => Reason::Denied,
        ErrorKind::Quota => Reason::QuotaExceeded,
        ErrorKind::NotFound
        | ErrorKind::Conflict
        | ErrorKind::Throttled
        | ErrorKind::Unsupported
        | ErrorKind::Invalid
        | ErrorKind::Timeout
        | ErrorKind::Unavailable
        | ErrorKind::Unknown => Reason::Retrying,
    };
    let message = format!(
        "attempt {} failed: {}; {}; next attempt at {}",
        failure.attempts,
        failure.message,
        failure.kind.remedy(),
        story::clock(failure.retry)
    );
    Some((reason, message, until(failure.retry, facts.now)))
}

/// Edges 3, 4, and another attempt.
fn attaching(entry: &Entry, facts: &Facts) -> Decision {
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
    let is_same_machine = match life(entry, facts) {
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

/// The open intent once more: at once while it may be sent, under a new id once it is spent (F5, F9).
fn again(entry: &Entry, operation: &Operation, facts: &Facts, perform: impl FnOnce() -> Decision) -> Decision {
    if !facts.permit {
        return wait(entry.reason, "waits for its turn at the cloud's rate limit", SOON);
    }
    if spent(operation, facts) || (facts.now >= operation.send_before && !facts.is_fresh(operation)) {
        let renewed = Operation {
            start: operation.start,
            traceparent: operation.traceparent.clone(),
            ..intent(operation.kind, operation.attempts.saturating_add(1), facts)
        };
        return Decision::Renew { note: Note::Again { operation: renewed } };
    }
    perform()
}

/// Whether an effect of this operation has ended: the fact is about the one that stood in the entry before this pass.
fn spent(operation: &Operation, facts: &Facts) -> bool {
    facts.operation_spent && !facts.is_fresh(operation)
}

/// Edges 5, 8, and upkeep of the labels (L1).
fn attached(entry: &Entry, facts: &Facts) -> Decision {
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

/// One of two entries that have an address on one machine (S2): a status was copied, or restored from before a move. The
/// allocation whose it is not lets go of its entry and of nothing else. Somebody who keeps both would drain it and ask the
/// other's pods to go, and say that it drifted when the other moves it.
fn give_way(reason: Reason, node: &str, machine: &MachineId, facts: &Facts) -> Option<Decision> {
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

/// A fault and the absence are one thing seen from two sides, and the fault explains more. A choice explains nothing: it
/// may be held up by mode, pace or target, while the label must not stay without the address (P4).
fn explains_absence(cause: Cause, facts: &Facts) -> bool {
    !cause.row().by_choice && !nowhere_to_go(cause, facts)
}

/// The column *needs a target first*, and there is none.
fn nowhere_to_go(cause: Cause, facts: &Facts) -> bool {
    leaving::needs_target(cause, facts) && matches!(facts.target, Target::None(_))
}

/// The labels (and the taint, which is their mirror), where they are not as they should be and the node may have them: it is
/// Ready or its grace runs, and a read that counts says that the address is there (P4).
fn upkeep(node: &str, machine: &MachineId, reason: Reason, entry: &Entry, facts: &Facts) -> Option<Decision> {
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
fn unlabelled(entry: &Entry, facts: &Facts) -> Reason {
    let failed = facts.failure.is_some() && entry.since < facts.now;
    if failed || entry.reason == Reason::NotLabelled { Reason::NotLabelled } else { settled(entry) }
}

/// A deed on the node or its pods, unless the last one failed and the next attempt is not due (P11).
fn deed(effect: Effect, reason: Reason, message: String, facts: &Facts) -> Decision {
    match pending(facts) {
        Some(failure) => {
            let (attempts, again) = (failure.attempts, story::clock(failure.retry));
            let message = format!("attempt {attempts} failed: {}; next attempt at {again}", failure.message);
            wait(reason, message, until(failure.retry, facts.now))
        }
        None => Decision::Perform { effect, reason, message },
    }
}

fn settled(entry: &Entry) -> Reason {
    match entry.reason {
        Reason::Adopted => Reason::Adopted,
        _ => Reason::Verified,
    }
}

/// Attached, and nothing to do.
fn quiet(entry: &Entry, node: &str, facts: &Facts) -> Decision {
    if let Some((reason, message)) = story::trouble(node, entry, facts) {
        let recheck = if reason == Reason::CloudUnavailable { LATER } else { SOON };
        return wait(reason, message, recheck);
    }
    rest(settled(entry), format!("is on node {node}"))
}

/// Edges 6, 7.
fn draining(entry: &Entry, facts: &Facts) -> Decision {
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

fn labelled(entry: &Entry, facts: &Facts) -> bool {
    matches!(labels(entry, facts), Some(Labels::On | Labels::Partly))
}

/// Those of the node that its entry names.
fn labels(entry: &Entry, facts: &Facts) -> Option<Labels> {
    match &facts.holder_of(entry)?.object {
        NodeObject::Present(view) => Some(view.labels),
        NodeObject::Absent { .. } => None,
    }
}

fn life(entry: &Entry, facts: &Facts) -> Life {
    facts.holder_of(entry).map_or(Life::Unknown, |holder| holder.life)
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

/// Edge 9, and another attempt.
fn releasing(entry: &Entry, facts: &Facts) -> Decision {
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
    let gone = matches!(life(entry, facts), Life::Gone | Life::Replaced);
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
    if cut != Cut::Never && spent(operation, facts) && facts.read.is_on(machine) && life(entry, facts) == Life::Unknown
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

/// An attach is being undone: the address was never verified there, so nobody has it to lose. A verified one has a
/// complete ledger.
pub fn never_arrived(entry: &Entry) -> bool {
    entry.last_move.as_ref().is_none_or(|journey| journey.to.is_none())
}

/// Whether a release for that reason waits for pods that came after it was decided.
fn waits(reason: Reason) -> bool {
    Cause::of(reason).is_some_and(|cause| cause.row().waits_for_users)
}
