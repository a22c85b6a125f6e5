//! What a decision may depend on: one address's memory (`Entry`) and one pass's knowledge (`Facts`). Plain data.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{
    state::{Reason, State},
    users::Owner,
};
use crate::{
    cloud::{ErrorKind, MachineId, Own, ProviderId},
    lifecycle::Trace,
};

/// What status remembers of an address.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub ip: IpAddr,
    pub state: State,
    pub reason: Reason,
    pub message: String,
    pub node: Option<String>,
    pub machine: Option<MachineId>,
    /// When the shown state last changed.
    pub since: Timestamp,
    /// Where it goes next.
    pub planned_node: Option<String>,
    /// When it leaves although pods still run.
    pub deadline: Option<Timestamp>,
    /// What the machine had of its own before us.
    pub restore: Option<Own>,
    pub operation: Option<Operation>,
    pub last_move: Option<Journey>,
}

impl Entry {
    /// An address that was never seen before.
    pub fn new(ip: IpAddr, now: Timestamp) -> Self {
        Self {
            ip,
            state: State::Unassigned,
            reason: Reason::Pending,
            message: "not looked at yet".to_owned(),
            node: None,
            machine: None,
            since: now,
            planned_node: None,
            deadline: None,
            restore: None,
            operation: None,
            last_move: None,
        }
    }
}

/// The intent that stands in status.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Of one attempt (F9).
    pub id: Uuid,
    pub kind: OperationKind,
    pub start: Timestamp,
    /// No request of it leaves after this instant (F5).
    pub send_before: Timestamp,
    /// Attempts before this one that failed.
    pub attempts: u32,
    /// W3C trace context of the journey.
    pub traceparent: Option<String>,
}

/// What the intent is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    Attach,
    Detach,
}

/// The ledger of the last move: complete once it has a `to`.
#[derive(Clone, Debug, PartialEq)]
pub struct Journey {
    pub from: Option<String>,
    pub to: Option<String>,
    pub reason: String,
    pub start: Timestamp,
    /// Verified off until `to` is set, then verified on.
    pub finish: Timestamp,
    /// Time on no machine.
    pub gap: Option<SignedDuration>,
    pub trace_id: Option<String>,
}

/// Everything else that a decision depends on, the time included.
#[derive(Clone, Debug)]
pub struct Facts {
    pub now: Timestamp,
    pub wanted: Wanted,
    pub claim: Claim,
    /// The allocation whose it is has an entry for it that names the same node as this one (S2).
    pub rival_here: bool,
    /// The allocation is being deleted with policy Detach.
    pub deleting: bool,
    pub mode: Mode,
    /// The finalizer is on this version of the object.
    pub finalizer: bool,
    pub read: Read,
    /// No request of the last intent can take effect any more (F5).
    pub intent_dead: bool,
    /// This process has ended an effect of the operation in the entry: another attempt needs another id (F9).
    pub operation_spent: bool,
    /// An effect holds this address or its machine now.
    pub in_flight: bool,
    /// The node that the entry names.
    pub holder: Option<Holder>,
    /// The machine that holds the address now could be taken over as it is (edge 2).
    pub adoptable: Adoptable,
    pub users: Users,
    pub target: Target,
    /// One more address may be in motion by choice.
    pub turn: bool,
    /// A slot and a rate token are to be had (F2).
    pub permit: bool,
    /// Involuntary moves are frozen (§3.4).
    pub frozen: bool,
    pub not_ready_grace: SignedDuration,
    /// Since when it is off the machine that it leaves, by the read that has closed its detach; `None` where this process has
    /// not done that.
    pub left: Option<Timestamp>,
    pub drain: Drain,
    /// A person asked for this address to move.
    pub move_requested: bool,
    /// And takes that back while it waits to leave: asks for the node where it is.
    pub stay_requested: bool,
    pub failure: Option<Failure>,
    /// Randomness as a fact: the operation that an intent written now gets.
    pub fresh: Fresh,
}

impl Facts {
    /// A quiet world: wanted and ours, free by a read that proves nothing, nothing under way and nowhere to go.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn plain(now: Timestamp) -> Self {
        Self {
            now,
            wanted: Wanted::Yes,
            claim: Claim::Ours,
            rival_here: false,
            deleting: false,
            mode: Mode::Enforce,
            finalizer: true,
            read: Read { place: Whereabouts::Free, live: false },
            intent_dead: true,
            operation_spent: false,
            in_flight: false,
            holder: None,
            adoptable: Adoptable::No(String::new()),
            users: Users::Unknown,
            target: Target::None(String::new()),
            turn: true,
            permit: true,
            frozen: false,
            not_ready_grace: SignedDuration::ZERO,
            left: None,
            drain: Drain { evict: false, timeout: None },
            move_requested: false,
            stay_requested: false,
            failure: None,
            fresh: Fresh { id: Uuid::nil(), send_before: now, journey: None },
        }
    }

    /// The node that `entry` names now. A pass may have moved the entry since the facts were read: then nothing is
    /// known of its node, least of all what was true of the one it left.
    pub fn holder_of(&self, entry: &Entry) -> Option<&Holder> {
        self.holder.as_ref().filter(|holder| entry.node.as_deref() == Some(holder.name.as_str()))
    }

    /// Of the machine of the node that `entry` names now.
    pub fn life_of(&self, entry: &Entry) -> Life {
        self.holder_of(entry).map_or(Life::Unknown, |holder| holder.life)
    }

    /// The users on the node that `entry` names now.
    pub fn users_of(&self, entry: &Entry) -> &Users {
        match self.holder_of(entry) {
            Some(_) => &self.users,
            None => &Users::Unknown,
        }
    }

    /// Whether the allocation whose the address is has it on this very machine: then labels, pods and address there are that
    /// one's.
    pub fn is_theirs_on(&self, machine: &MachineId) -> bool {
        self.claim != Claim::Ours && self.rival_here && self.read.is_on(machine)
    }

    /// Whether this very pass wrote the operation: no other fact can be about it.
    pub fn is_fresh(&self, operation: &Operation) -> bool {
        operation.id == self.fresh.id
    }
}

/// What a new intent gets.
#[derive(Clone, Debug)]
pub struct Fresh {
    pub id: Uuid,
    pub send_before: Timestamp,
    /// The journey that the address is on; `None`: one begins with the intent.
    pub journey: Option<Trace>,
}

impl Fresh {
    /// W3C trace context of the journey. Not a fact, because it is a hash, and most passes write no intent.
    pub fn traceparent(&self) -> String {
        self.journey.unwrap_or_else(|| Trace::of(&self.id.to_string())).traceparent()
    }
}

/// Whether the spec asks for the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Yes,
    RemovedFromSpec,
    NotMatched,
}

/// Whose the address is among the allocations (P5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    Ours,
    /// That of the allocation of this name.
    Other(String),
}

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Enforce,
    /// No move by choice.
    Hold,
    /// Nothing is begun.
    Observe,
}

/// Where the address is, by a read that counts for it (R1). Anything older is `Awaited` or `Unknown`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub place: Whereabouts,
    /// Read by id after the survey raised the question; a survey alone proves no absence (R2).
    pub live: bool,
}

/// See [`Read`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// No read that counts yet, and none that failed: the answer is on its way, and there is nothing to say before it.
    Awaited,
    /// No read that counts; the text says why.
    Unknown(String),
    /// Nobody can be asked: spec and nodes do not say in which account and region, or this build has no such provider.
    Unasked(String),
    Free,
    On(ProviderId),
    /// Held by something that is no machine of ours.
    Foreign(String),
    NotFound,
    OtherRegion(String),
}

impl Read {
    /// On that machine.
    pub fn is_on(&self, machine: &MachineId) -> bool {
        matches!(&self.place, Whereabouts::On(place) if *place == machine.place)
    }

    /// Whether there is a read that counts at all.
    pub fn is_known(&self) -> bool {
        !matches!(self.place, Whereabouts::Awaited | Whereabouts::Unknown(_) | Whereabouts::Unasked(_))
    }

    /// Known, by a call by id (R2), to be somewhere else or nowhere.
    pub fn is_off(&self, machine: &MachineId) -> bool {
        self.live && self.is_known() && !self.is_on(machine)
    }
}

/// What the cloud says of the machine's life, by a live read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// The very machine, and it runs.
    Running,
    Stopped,
    Gone,
    /// Another one under the same name.
    Replaced,
    /// Not asked, or not answered.
    Unknown,
}

/// The node that the entry names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub name: String,
    pub life: Life,
    pub object: NodeObject,
}

impl Holder {
    /// Since when the node has been NotReady, or gone; `None` while it is well.
    pub fn down_since(&self) -> Option<Timestamp> {
        match &self.object {
            NodeObject::Absent { since } => Some(*since),
            NodeObject::Present(node) => node.not_ready.map(|not_ready| not_ready.since),
        }
    }
}

/// The Node object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeObject {
    /// Not there, first seen so then by this process.
    Absent {
        since: Timestamp,
    },
    Present(NodeView),
}

/// What is read of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// `spec.nodeSelector` selects it.
    pub selected: bool,
    pub cordoned: bool,
    pub not_ready: Option<NotReady>,
    /// The taint (or deletion) that says that it is about to go.
    pub disrupted: Option<String>,
    pub out_of_service: bool,
    pub labels: Labels,
    /// A `nodeTaint` is on it, which the node of a verified address must not have.
    pub tainted: bool,
}

/// A NotReady condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// When this process saw it become so, or else the condition's own lastTransitionTime.
    pub since: Timestamp,
    /// Since when this process has seen it so without a break.
    pub seen_since: Timestamp,
}

/// Whether the node says that it has this address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// `ip.ready` and the labels that say whose it is, all right.
    On,
    /// Some of them missing or wrong.
    Partly,
    /// Those of another allocation that has the node: neither ours to take off nor to overwrite (P4).
    Others,
    /// None of ours.
    Off,
}

/// See [`Facts::adoptable`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adoptable {
    /// The address is not on a machine whose Node the selector selects; the text says on what it is.
    No(String),
    /// Being read.
    Looking {
        node: String,
    },
    /// Its machine cannot be read now; the text says why.
    Unreachable {
        node: String,
        why: String,
    },
    Yes {
        node: String,
        machine: MachineId,
    },
}

impl Adoptable {
    /// The node that it sits on, if the selector selects it.
    pub fn node(&self) -> Option<&str> {
        match self {
            Adoptable::No(_) => None,
            Adoptable::Looking { node } | Adoptable::Unreachable { node, .. } | Adoptable::Yes { node, .. } => {
                Some(node)
            }
        }
    }
}

/// Who uses the address on its node (§3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Users {
    /// The pods of the node are not known (yet).
    Unknown,
    Known(Vec<User>),
}

/// A pod that uses the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// What it belongs to, for messages: `Deployment voip/kamailio`.
    pub owner: String,
    /// The same, for who is to be told: in the pod's namespace.
    pub controller: Option<Owner>,
    pub daemon: bool,
    pub ready: bool,
    /// When its grace period ends, while it terminates.
    pub terminating_until: Option<Timestamp>,
    /// It carries the hold annotation.
    pub hold: bool,
    /// A cordon does not keep it away: while the labels are on, whoever replaces it comes to the same node.
    pub returns: bool,
    /// Why the last request to evict it was refused, in words.
    pub eviction_blocked: Option<String>,
    /// Not asked again before.
    pub ask_again: Option<Timestamp>,
}

impl User {
    /// A pod of a Deployment that runs and asks for nothing.
    #[cfg(test)]
    pub(crate) fn plain(name: &str) -> Self {
        Self {
            namespace: "voip".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            owner: "Deployment voip/kamailio".to_owned(),
            controller: None,
            daemon: false,
            ready: true,
            terminating_until: None,
            hold: false,
            returns: false,
            eviction_blocked: None,
            ask_again: None,
        }
    }
}

/// How addresses leave nodes that work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Users are asked to go.
    pub evict: bool,
    /// The address leaves this long after the drain began.
    pub timeout: Option<SignedDuration>,
}

/// Where the address could go, by placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nowhere; the text counts the verdicts.
    None(String),
    /// This node, whose machine is being read.
    Looking { node: String },
    /// This node: read live, runs, and its interface is empty or has only its own address.
    Seat { node: String, machine: MachineId, own: Option<Own> },
}

impl Target {
    /// The node's name, if there is one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Target::None(_) => None,
            Target::Looking { node } | Target::Seat { node, .. } => Some(node),
        }
    }
}

/// How the last attempt ended that this process made for the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: ErrorKind,
    pub message: String,
    /// In a row.
    pub attempts: u32,
    /// Not tried again before.
    pub retry: Timestamp,
}
