//! What events say: a closed list of their reasons.

use kube_runtime::events::EventType;

use super::reasons::{AddressesValid, CredentialsValid, Ready, Why, WorkloadFound};
use crate::allocation::decide::state::Reason;

macro_rules! events {
    ($($kind:ident { $($(#[$doc:meta])* $name:ident),+ $(,)? })+) => {
        /// The reason of an event about an allocation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Event { $($($(#[$doc])* $name),+),+ }

        impl Event {
            /// Every reason.
            pub const ALL: &'static [Event] = &[$($(Event::$name),+),+];

            /// The CamelCase word.
            pub const fn as_str(self) -> &'static str {
                match self { $($(Event::$name => stringify!($name)),+),+ }
            }

            /// Normal for what goes as it should, Warning for what a person should see.
            pub const fn kind(self) -> EventType {
                match self { $($(Event::$name => EventType::$kind),+),+ }
            }
        }
    };
}

events! {
    Normal {
        /// An address is on a node, or was found there.
        IPAttached,
        /// An address is on another node than before.
        IPReallocated,
        /// An address is to leave its node.
        IPDraining,
        /// The cause to leave is gone.
        DrainCancelled,
        /// An address is off its node.
        IPDetached,
        /// A node carries `ip.ready` from now on.
        NodeLabeled,
        /// It does not any more.
        NodeUnlabeled,
        /// A pod was asked to go, and goes.
        PodEvicted,
        /// A request to move an address is being followed.
        MoveAccepted,
        /// The object is let go; the finalizer is off.
        Released,
    }
    Warning {
        /// Somebody else took an address off its node.
        IPDrifted,
        /// A request to move an address cannot be followed.
        MoveRefused,
        /// A PodDisruptionBudget does not let a pod go yet.
        EvictionBlocked,
        /// An attempt to put an address on failed.
        IPAttachFailed,
        /// An attempt to take an address off failed.
        IPDetachFailed,
        /// The labels or the taints of a node could not be changed.
        NodePatchFailed,
        /// A node does not get an address of its own back.
        RestoreFailed,
        /// The spec names what cannot be used, or the object cannot be read at all.
        InvalidSpec,
        /// No node can take an address.
        NoEligibleNode,
        /// An address should leave, and no node can take it.
        NoTarget,
        /// An address is not reserved in the account.
        AddressNotFound,
        /// An address is reserved in another region.
        WrongRegion,
        /// An address is held by something that is not ours.
        AddressInUse,
        /// An address is another allocation's.
        DuplicateClaim,
        /// The machine that holds an address cannot be read.
        HolderUnreachable,
        /// The workload that the spec names does not exist.
        WorkloadNotFound,
        /// The DaemonSet that the spec names does not ask for nodes with an address.
        WorkloadNotGated,
        /// The selector matches nothing any more, or half of what it did.
        SelectorLost,
        /// Too many nodes are NotReady at once: no involuntary move.
        FailoverFrozen,
        /// The node of an address is NotReady.
        NodeNotReady,
        /// The cloud's quota is used up.
        QuotaExceeded,
        /// The cloud denies it.
        Denied,
        /// The cloud does not accept our credentials, or does not permit a call.
        CredentialsFailed,
        /// The cloud says that there are too many calls.
        CloudThrottled,
        /// The cloud cannot be read.
        CloudUnavailable,
    }
}

impl Event {
    /// Whether the node and the workload hear of it, too: drains and evictions, which their teams ask about.
    pub fn is_heard_beside(self) -> bool {
        matches!(
            self,
            Event::IPDraining | Event::DrainCancelled | Event::NoTarget | Event::PodEvicted | Event::EvictionBlocked
        )
    }

    /// The warning that comes with the reason of a condition when that appears; where an address has the reason, too, that
    /// has its own.
    pub fn of_condition(kind: &str, reason: &str) -> Option<Event> {
        let all = [
            (Why::from(Ready::InvalidSpec), Event::InvalidSpec),
            (Why::from(CredentialsValid::Denied), Event::CredentialsFailed),
            (Why::from(CredentialsValid::Unauthenticated), Event::CredentialsFailed),
            (Why::from(CredentialsValid::CloudThrottled), Event::CloudThrottled),
            (Why::from(WorkloadFound::NotFound), Event::WorkloadNotFound),
            (Why::from(WorkloadFound::WorkloadNotGated), Event::WorkloadNotGated),
            (Why::from(AddressesValid::SelectorLost), Event::SelectorLost),
        ];
        all.into_iter().find(|(why, _)| (why.kind, why.reason) == (kind, reason)).map(|(_, event)| event)
    }

    /// The warning that comes with a reason when that appears.
    pub fn of(reason: Reason) -> Option<Event> {
        Some(match reason {
            Reason::NoEligibleNode => Event::NoEligibleNode,
            Reason::NoTarget => Event::NoTarget,
            Reason::AddressNotFound => Event::AddressNotFound,
            Reason::WrongRegion => Event::WrongRegion,
            Reason::AddressInUse => Event::AddressInUse,
            Reason::DuplicateClaim => Event::DuplicateClaim,
            Reason::HolderUnreachable => Event::HolderUnreachable,
            Reason::FailoverFrozen => Event::FailoverFrozen,
            Reason::NodeNotReady => Event::NodeNotReady,
            Reason::QuotaExceeded => Event::QuotaExceeded,
            Reason::Denied => Event::Denied,
            Reason::CloudUnavailable => Event::CloudUnavailable,
            _ => return None,
        })
    }
}
