//! Why the cloud does not do as it is asked, in no provider's words: each façade translates.

use std::net::IpAddr;

use super::{MachineKey, Tier};

/// The reasons of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No token, or one that is not valid any more.
    Unauthenticated,
    /// The permission was taken away with [`super::World::deny`].
    Denied {
        permission: String,
        target: String,
    },
    /// More calls than the rate limit allows.
    Throttled,
    NoSuchAccount(String),
    /// Region or zone; `what` is the word for it.
    NoSuchPlace {
        what: &'static str,
        name: String,
    },
    NoSuchAddress {
        account: String,
        region: String,
        name: String,
    },
    NoSuchMachine(MachineKey),
    NoSuchOperation {
        account: String,
        zone: String,
        name: String,
    },
    /// The interface has an external address already.
    SeatTaken,
    /// The address is not reserved in the machine's region.
    AddressNotInRegion {
        ip: IpAddr,
        region: String,
    },
    TierMismatch {
        address: Tier,
        wanted: Tier,
    },
    /// Somebody else holds the address.
    InUse {
        ip: IpAddr,
        by: String,
    },
    /// The interface has no configuration of this name.
    NoSuchConfig {
        config: String,
    },
    /// The request makes no sense; `field` is the provider's name of what is wrong.
    Malformed {
        field: String,
        message: String,
    },
    /// Said by the test, or by a rule of one provider alone.
    Scripted {
        status: u16,
        reason: String,
        message: String,
    },
}
