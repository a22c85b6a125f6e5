//! Facts → Decision, for one address. Pure: no async, no client, no clock, no randomness.
//!
//! Each state has one function, which reads as its part of the table of edges (design §3.1): on no node [`unplaced`], then
//! [`attaching`], [`attached`], [`draining`] and [`releasing`]. What may go wrong outside (late requests, stale reads, rivals)
//! enters as facts that are `Unknown` until they are known.

mod attached;
mod attaching;
mod attempts;
mod draining;
pub mod facts;
pub mod failover;
mod labels;
mod last_move;
pub mod leaving;
pub mod placement;
mod releasing;
pub mod state;
pub mod story;
mod unplaced;
pub mod users;
pub mod ways;

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

pub use self::last_move::never_arrived;
use self::{
    facts::{Claim, Entry, Facts, Mode, Operation, User, Wanted, Whereabouts},
    state::{Reason, State},
};
use crate::{
    cloud::{MachineId, Own},
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
            State::Unassigned => unplaced::unassigned(entry, facts),
            State::Attaching => attaching::attaching(entry, facts),
            State::Attached => attached::attached(entry, facts),
            State::Draining => draining::draining(entry, facts),
            State::Releasing => releasing::releasing(entry, facts),
            State::Detached => unplaced::detached(entry, facts),
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
            State::Attached => last_move::arrive(entry, from, facts),
            State::Detached => {
                let theirs = entry.machine.as_ref().is_some_and(|machine| facts.is_theirs_on(machine));
                last_move::leave(entry, cause, began, facts.left.unwrap_or(facts.now));
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
