//! Why a condition is as it is: a closed list for each condition, so that none can be told that no page explains.
//!
//! The reasons of a single address are a list of their own ([`Reason`](crate::allocation::decide::state::Reason)); where a
//! condition repeats one of those it is the same word.

/// A condition with its reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The word in `status.conditions[].type`.
    pub kind: &'static str,
    /// The words that `status.conditions[].reason` may be.
    pub reasons: &'static [&'static str],
}

macro_rules! conditions {
    ($($(#[$doc:meta])* $kind:ident { $($(#[$why:meta])* $reason:ident),+ $(,)? })+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
            pub enum $kind { $($(#[$why])* $reason),+ }

            impl $kind {
                /// Every reason.
                pub const ALL: &'static [$kind] = &[$($kind::$reason),+];

                /// The word in `status.conditions[].reason`.
                pub fn as_str(self) -> &'static str {
                    match self { $($kind::$reason => stringify!($reason)),+ }
                }
            }

            impl From<$kind> for Why {
                fn from(reason: $kind) -> Why {
                    Why { kind: stringify!($kind), reason: reason.as_str() }
                }
            }
        )+

        /// Every condition.
        pub const CONDITIONS: &[Condition] =
            &[$(Condition { kind: stringify!($kind), reasons: &[$(stringify!($reason)),+] }),+];
    };
}

/// A reason together with the condition that it is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Why {
    pub kind: &'static str,
    pub reason: &'static str,
}

conditions! {
    /// At least `minAttached` addresses are verified on a machine whose node is Ready and can be labelled.
    Ready {
        /// All of them.
        AllAttached,
        /// As many as are required.
        EnoughAttached,
        /// Enough, and one of them is on its way out.
        Draining,
        /// No node can take the one that is missing, or none may.
        NoEligibleNode,
        /// It is on its way, or an attempt failed.
        AttachFailed,
        /// It is on its machine, and its node cannot be labelled.
        NotLabelled,
        /// It is not reserved where the spec says.
        AddressNotFound,
        /// Something that is not ours holds it.
        AddressInUse,
        /// Another allocation has it.
        DuplicateClaim,
        /// It is on a node that does not work.
        NodeNotReady,
        /// The same, and too many nodes are like that for any address to be moved.
        FailoverFrozen,
        /// The spec cannot be acted on as it is.
        InvalidSpec,
        /// The object is being deleted.
        Terminating,
        /// `mode: Observe`.
        Observing,
        /// The cloud has not been read for too long.
        CloudUnavailable,
        /// Nothing is known yet.
        Pending,
    }

    /// Every address asked for is one that can be had.
    AddressesValid {
        /// They are.
        AllFound,
        /// The spec names something that is no address of use.
        InvalidSpec,
        /// The selector has lost too much at once: what it matched is kept.
        SelectorLost,
        /// One is not reserved in the account.
        AddressNotFound,
        /// One is held by something that is not ours.
        AddressInUse,
        /// One is reserved in another region.
        WrongRegion,
        /// One is another allocation's.
        DuplicateClaim,
        /// Nothing is known yet.
        Pending,
    }

    /// The cloud lets us do what we must.
    CredentialsValid {
        /// It does.
        Accepted,
        /// It knows us, and does not permit something.
        Denied,
        /// It does not know us.
        Unauthenticated,
        /// It says that there are too many calls.
        CloudThrottled,
        /// It cannot be read now.
        CloudUnavailable,
        /// Nothing is known yet.
        Pending,
    }

    /// The workload that the spec names exists.
    WorkloadFound {
        /// It does.
        Found,
        /// It does, and is a DaemonSet whose pods do not ask for a node with an address: they hold none.
        WorkloadNotGated,
        /// None is named.
        NotNamed,
        /// It does not.
        NotFound,
        /// That cannot be read now.
        NotRead,
    }

    /// Addresses stay on nodes that look dead.
    FailoverFrozen {
        /// Too many look so at once.
        TooManyNodesNotReady,
    }

    /// Something is under way (kstatus).
    Reconciling {
        /// Addresses are on their way.
        AddressesMoving,
        /// A taint that the spec does not ask for any more is being taken off the nodes.
        TaintLeaving,
    }

    /// Nothing goes on without a person (kstatus).
    Stalled {
        /// An address is not reserved in the account.
        AddressNotFound,
        /// An address is held by something that is not ours.
        AddressInUse,
        /// An address is reserved in another region.
        WrongRegion,
        /// An address is another allocation's.
        DuplicateClaim,
        /// The cloud does not permit something.
        Denied,
        /// The cloud does not accept our credentials.
        Unauthenticated,
        /// The spec names what cannot be used, or asks for more than it names.
        InvalidSpec,
    }
}
