//! The states of an address, its edges, and the closed list of reasons.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Unassigned
//!     Unassigned --> Attaching
//!     Detached --> Attaching
//!     Unassigned --> Attached
//!     Attaching --> Attached
//!     Attaching --> Releasing
//!     Attached --> Draining
//!     Draining --> Attached
//!     Draining --> Releasing
//!     Attached --> Releasing
//!     Releasing --> Detached
//!     Detached --> Unassigned
//!     Unassigned --> [*]
//!     Detached --> [*]
//! ```
//!
//! A test renders [`State::EDGES`] and compares it with this picture and with the one in the README.

use std::time::Duration;

use crate::lifecycle;

/// Where an address is in its life.
///
/// Status and metrics show five: [`State::Releasing`] is the second phase of Draining, in which a detach intent is
/// written and there is no way back. It is told from the first by the entry's operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// On no machine; nothing under way.
    Unassigned,
    /// Intent to attach is written; requests may be under way.
    Attaching,
    /// Verified on a machine.
    Attached,
    /// Must leave, but is still in use; may be cancelled.
    Draining,
    /// Intent to detach is written; requests may be under way.
    Releasing,
    /// Verified off; looks for its next node.
    Detached,
}

impl State {
    /// Every state.
    pub const ALL: [State; 6] =
        [State::Unassigned, State::Attaching, State::Attached, State::Draining, State::Releasing, State::Detached];

    /// The word in `status.addresses[].state`.
    pub fn shown(self) -> &'static str {
        match self {
            State::Unassigned => "Unassigned",
            State::Attaching => "Attaching",
            State::Attached => "Attached",
            State::Draining | State::Releasing => "Draining",
            State::Detached => "Detached",
        }
    }

    /// Node, machine and operation are in the entry, and requests may be under way.
    pub fn is_open_intent(self) -> bool {
        matches!(self, State::Attaching | State::Releasing)
    }

    /// The edges as a Mermaid state diagram, for the docs.
    pub fn diagram() -> String {
        use lifecycle::State as _;
        let mut text = String::from("stateDiagram-v2\n    [*] --> Unassigned\n");
        for (from, to) in State::EDGES {
            text.push_str(&format!("    {} --> {}\n", from.label(), to.label()));
        }
        for state in State::FORGETTABLE {
            text.push_str(&format!("    {} --> [*]\n", state.label()));
        }
        text
    }

    /// States in which an entry that is not wanted any more is forgotten (edge 11).
    pub const FORGETTABLE: [State; 2] = [State::Unassigned, State::Detached];
}

impl lifecycle::State for State {
    const EDGES: &'static [(State, State)] = &[
        (State::Unassigned, State::Attaching),
        (State::Detached, State::Attaching),
        (State::Unassigned, State::Attached),
        (State::Attaching, State::Attached),
        (State::Attaching, State::Releasing),
        (State::Attached, State::Draining),
        (State::Draining, State::Attached),
        (State::Draining, State::Releasing),
        (State::Attached, State::Releasing),
        (State::Releasing, State::Detached),
        (State::Detached, State::Unassigned),
    ];

    fn label(self) -> &'static str {
        match self {
            State::Releasing => "Releasing",
            State::Unassigned | State::Attaching | State::Attached | State::Draining | State::Detached => self.shown(),
        }
    }

    fn patience(self) -> Option<Duration> {
        match self {
            State::Attaching | State::Releasing => Some(Duration::from_secs(300)),
            State::Detached => Some(Duration::from_secs(60)),
            State::Unassigned | State::Attached | State::Draining => None,
        }
    }

    fn at_rest(self) -> bool {
        matches!(self, State::Unassigned | State::Detached)
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Why an address is where it is: the closed list of `status.addresses[].reason`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name),+ }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),+];

            /// The CamelCase word of status, events and metric labels.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name)),+ }
            }

            /// The reason of that word; `None` for one of a newer version.
            pub fn parse(word: &str) -> Option<Reason> {
                match word { $(stringify!($name) => Some(Reason::$name),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// Not looked at yet.
    Pending,
    /// No node may take it now; the message counts the verdicts.
    NoEligibleNode,
    /// Not reserved in this account.
    AddressNotFound,
    /// Held by something that is not ours.
    AddressInUse,
    /// Reserved in another region.
    WrongRegion,
    /// Another allocation has it.
    DuplicateClaim,
    /// `spec.reservedIPs` holds a text that is no address.
    InvalidAddress,
    /// On a node of ours whose machine cannot be read now.
    HolderUnreachable,
    /// `mode: Hold`.
    Held,
    /// `mode: Observe`.
    Observing,
    /// The cloud's quota is used up.
    QuotaExceeded,
    /// The cloud denies it.
    Denied,
    /// The cloud cannot be read now.
    CloudUnavailable,
    /// More than an object may hold.
    TooManyAddresses,
    /// Being attached.
    Attaching,
    /// An attempt failed; the message says why and when the next one is due.
    Retrying,
    /// A half-done swap is being completed.
    Repairing,
    /// Verified on its machine.
    Verified,
    /// Found attached, and taken over as it was.
    Adopted,
    /// On its machine, but labels or taint of its node cannot be set: no pod comes to it.
    NotLabelled,
    /// Its node is NotReady; the grace runs.
    NodeNotReady,
    /// Too many nodes are NotReady at once: no involuntary move.
    FailoverFrozen,
    /// Must leave, but no node could take it.
    NoTarget,
    /// Its node is cordoned.
    NodeCordoned,
    /// Its node is about to be ended by an autoscaler or the cloud.
    Disrupted,
    /// Its node is no longer selected.
    NotSelected,
    /// Taken out of `spec.reservedIPs`.
    RemovedFromSpec,
    /// No longer matched by `spec.addressSelector`.
    NotMatched,
    /// The allocation is being deleted.
    AllocationDeleted,
    /// A person asked for it.
    MoveRequested,
    /// The Node object is gone, the machine runs.
    NodeGone,
    /// The machine is stopped.
    MachineStopped,
    /// The machine does not exist any more.
    MachineGone,
    /// Another machine stands under the node's name.
    NodeReplaced,
    /// A person says that the machine is dead (taint `node.kubernetes.io/out-of-service`).
    OutOfService,
    /// Taken off its machine by somebody else.
    Drifted,
    /// The seat went to a rival, or its node refused it.
    SeatLost,
    /// The node that it left gets an address of its own back.
    Restoring,
    /// That did not work yet.
    RestoreFailed,
    /// Off, as it should be.
    Released,
}
